//! The members of a type: what holds a place in its count, and what is on its way out.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use wasmhost_engine::Meter;

use super::Supervised;
use crate::event::MemberId;
use crate::pool::{Outlook, Slot};

/// A type, with what there is of it.
pub(super) struct Type {
    pub(super) given: Supervised,
    pub(super) desired: u32,
    pub(super) members: HashMap<MemberId, Member>,
    /// Instances that are being started, each to take the place of one that serves meanwhile.
    pub(super) successors: HashMap<MemberId, Successor>,
    /// Members that are to be replaced, as soon as there is room for a successor. The oldest is first.
    pub(super) due: VecDeque<Due>,
    /// Those that were asked to leave and haven't left yet.
    pub(super) leaving: HashMap<MemberId, Arc<Slot>>,
    /// Instances that were replaced because they crashed or didn't start.
    pub(super) restarts: u64,
    /// Instances that were replaced as it was planned.
    pub(super) recycled: u64,
    pub(super) last_end: Option<String>,
}

/// What holds a place in a type's count.
pub(super) struct Member {
    pub(super) index: u32,
    pub(super) phase: Phase,
    /// Failures in a row before it served, or exits of a command.
    pub(super) failures: u32,
    pub(super) restarts: u64,
    pub(super) recycled: u64,
}

/// What will take a member's place.
pub(super) struct Successor {
    pub(super) of: MemberId,
    pub(super) index: u32,
    pub(super) phase: Phase,
    pub(super) failures: u32,
    /// A person waits for it.
    pub(super) asked_for: bool,
}

/// A member that is to be replaced.
#[derive(Clone, Copy)]
pub(super) struct Due {
    pub(super) member: MemberId,
    pub(super) asked_for: bool,
}

impl Member {
    pub(super) fn starting(index: u32) -> Member {
        Member { index, phase: Phase::Starting(Arc::default()), failures: 0, restarts: 0, recycled: 0 }
    }
}

pub(super) enum Phase {
    /// The meter interrupts a start that isn't wanted any more.
    Starting(Arc<Meter>),
    Serving(Arc<Slot>),
    Backoff {
        until: Instant,
        why: String,
    },
}

impl Phase {
    /// A start that isn't wanted any more ends.
    fn interrupt(&self) {
        if let Phase::Starting(meter) = self {
            meter.interrupt();
        }
    }
}

impl Supervised {
    /// Asks an instance to leave. A `main` can't be asked, as WASI has no signals: it is ended.
    pub(super) fn dismiss(&self, slot: &Arc<Slot>) {
        self.pool.drain_one(slot);
        if self.runs_always {
            slot.interrupt();
        }
    }
}

impl Type {
    pub(super) fn new(given: Supervised) -> Type {
        Type {
            desired: given.count,
            given,
            members: HashMap::new(),
            successors: HashMap::new(),
            due: VecDeque::new(),
            leaving: HashMap::new(),
            restarts: 0,
            recycled: 0,
            last_end: None,
        }
    }

    /// The lowest indexes that no instance has, those that are leaving included.
    pub(super) fn free_indexes(&self, count: usize) -> Vec<u32> {
        let members = self.members.values().map(|member| member.index);
        let taken: HashSet<u32> = members.chain(self.leaving.values().map(|slot| slot.name.index)).collect();
        (1..=u32::MAX).filter(|index| !taken.contains(index)).take(count).collect()
    }

    /// Lets members go: those that don't serve first, then as the pool chooses.
    pub(super) fn shrink_to(&mut self, desired: usize) {
        let mut absent: Vec<(u32, MemberId)> = self
            .members
            .iter()
            .filter(|(_, place)| !matches!(place.phase, Phase::Serving(_)))
            .map(|(member, place)| (place.index, *member))
            .collect();
        absent.sort_unstable();
        while self.members.len() > desired
            && let Some((_, member)) = absent.pop()
        {
            if let Some(Member { phase: Phase::Starting(meter), .. }) = self.members.remove(&member) {
                meter.interrupt();
            }
        }
        let surplus = self.members.len().saturating_sub(desired);
        for slot in self.given.pool.drain(surplus) {
            self.members.remove(&slot.member);
            self.leaving.insert(slot.member, slot.clone());
            if self.given.runs_always {
                slot.interrupt();
            }
            if let Some((_, successor)) = self.take_successor(slot.member) {
                successor.phase.interrupt();
            }
        }
    }

    /// The successor of a member, which is none any more.
    pub(super) fn take_successor(&mut self, of: MemberId) -> Option<(MemberId, Successor)> {
        let member = *self.successors.iter().find(|(_, successor)| successor.of == of)?.0;
        self.successors.remove(&member).map(|successor| (member, successor))
    }

    /// The successor serves: its member leaves. Returns the member's place where it serves still.
    pub(super) fn succeed(&mut self, member: MemberId, successor: &Successor) -> Option<Arc<Slot>> {
        let old = self.members.remove(&successor.of)?;
        self.recycled += 1;
        let place =
            Member { restarts: old.restarts, recycled: old.recycled + 1, ..Member::starting(old.index) };
        self.members.insert(member, place);
        let Phase::Serving(slot) = old.phase else { return None };
        self.leaving.insert(slot.member, slot.clone());
        Some(slot)
    }

    /// A member is gone whose successor doesn't serve yet: it's the member now.
    pub(super) fn promote(&mut self, gone: MemberId, member: MemberId, successor: Successor) {
        let Some(old) = self.members.remove(&gone) else { return };
        let Successor { phase, failures, .. } = successor;
        self.members.insert(member, Member { phase, failures, ..old });
    }

    /// Says that a member is to be replaced, unless it was said before.
    pub(super) fn replace(&mut self, due: Due) {
        let serves = |place: &Member| matches!(place.phase, Phase::Serving(_));
        if !self.members.get(&due.member).is_some_and(serves) {
            return;
        }
        if let Some(successor) = self.successors.values_mut().find(|successor| successor.of == due.member) {
            successor.asked_for |= due.asked_for;
            return;
        }
        match self.due.iter_mut().find(|earlier| earlier.member == due.member) {
            Some(earlier) => earlier.asked_for |= due.asked_for,
            None => self.due.push_back(due),
        }
    }

    /// The next member that is to be replaced, if its type may have one more successor: a quarter of a type at once
    /// is enough, and leaves room for others.
    pub(super) fn next_due(&mut self) -> Option<(Due, u32)> {
        let successors_max = (self.members.len() / 4).max(1);
        while self.successors.len() < successors_max {
            let due = self.due.pop_front()?;
            if let Some(Member { index, phase: Phase::Serving(_), .. }) = self.members.get(&due.member) {
                return Some((due, *index));
            }
        }
        None
    }

    /// Ends the calls of all its instances, and says how many had one that could have finished.
    pub(super) fn interrupt(&self) -> usize {
        let serving = self.members.values().filter_map(|place| match &place.phase {
            Phase::Serving(slot) => Some(slot),
            Phase::Starting(meter) => {
                meter.interrupt();
                None
            }
            Phase::Backoff { .. } => None,
        });
        self.successors.values().for_each(|successor| successor.phase.interrupt());
        let mut busy = 0;
        for slot in serving.chain(self.leaving.values()) {
            busy += usize::from(slot.is_busy() && !self.given.runs_always);
            slot.interrupt();
        }
        busy
    }

    pub(super) fn serving(&self) -> usize {
        self.members.values().filter(|place| matches!(place.phase, Phase::Serving(_))).count()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.members.len() == usize::try_from(self.desired).unwrap_or(usize::MAX)
            // Cheaper than to count them, while many are starting.
            && self.given.pool.live() == self.members.len()
            && self.serving() == self.members.len()
            // Planned replacements go on all the time, and nobody waits for them.
            && !self.successors.values().any(|successor| successor.asked_for)
            && !self.due.iter().any(|due| due.asked_for)
    }

    pub(super) fn outlook(&self) -> Outlook {
        if self.desired == 0 {
            return Outlook::NoCount;
        }
        let in_backoff = |place: &Member| matches!(place.phase, Phase::Backoff { .. });
        match !self.members.is_empty() && self.members.values().all(in_backoff) {
            true => Outlook::AllInBackoff,
            false => Outlook::Good,
        }
    }
}
