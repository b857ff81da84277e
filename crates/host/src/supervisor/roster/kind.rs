//! One type of the [roster](super): its members, and the steps by which they change.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::event::MemberId;

/// One type.
#[derive(Default)]
pub(crate) struct Kind {
    /// The name of its instances. Several kinds may have one name: the live version and its canary, or a type that
    /// leaves and the one that came in its place.
    pub(super) name: Arc<str>,
    pub(super) desired: usize,
    /// The indexes that its members have, in order, where other hosts have the others.
    pub(super) slots: Option<Vec<u32>>,
    pub(super) members: HashMap<MemberId, Member>,
    pub(super) successors: HashMap<MemberId, Successor>,
    /// Successors that wait for a slot for the second time.
    pub(super) successors_queued: VecDeque<MemberId>,
    /// Members that are to be replaced, as soon as there is room for a successor. The oldest is first.
    pub(super) due: VecDeque<Due>,
    /// Those that were asked to leave and haven't left yet, with their indexes.
    pub(super) leaving: HashMap<MemberId, u32>,
    /// Those of them whose last call takes long.
    pub(super) late: HashSet<MemberId>,
    /// Starts that aren't wanted any more and haven't ended yet.
    pub(super) unwanted: HashSet<MemberId>,
    /// The version that instances are started of.
    pub(super) version: u64,
    /// How many members are in each phase, and how many successors.
    pub(super) tally: Tally,
    pub(super) successors_tally: Tally,
    /// Instances that were replaced because they crashed or didn't start.
    pub(crate) restarts: u64,
    /// Instances that were replaced as it was planned.
    pub(crate) recycled: u64,
}

/// The holder of a place in a type's count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    pub(crate) index: u32,
    pub(crate) phase: Phase,
    /// Failures in a row before it served, or exits of a command.
    pub(super) failures: u32,
    pub(crate) restarts: u64,
    pub(crate) recycled: u64,
    pub(super) successor: Option<MemberId>,
    /// The version of its instance; of no meaning as long as it has none.
    pub(super) version: u64,
}

/// The successor that will take a member's place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Successor {
    pub(super) of: MemberId,
    pub(crate) index: u32,
    pub(crate) phase: Phase,
    pub(super) failures: u32,
    /// A person waits for it.
    pub(super) asked_for: bool,
    /// The version of its instance; of no meaning as long as it has none.
    pub(super) version: u64,
}

/// A member that is to be replaced.
#[derive(Debug, Clone, Copy)]
pub(super) struct Due {
    pub(super) member: MemberId,
    pub(super) asked_for: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It waits for a slot.
    Queued,
    Starting,
    Serving,
    /// It failed, and waits to be tried again.
    Backoff,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) starting: usize,
    pub(super) serving: usize,
    pub(super) backoff: usize,
}

/// The purpose of an instance that was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) index: u32,
    /// The member that serves in its place until now, and is to leave.
    pub(crate) instead_of: Option<MemberId>,
}

impl Member {
    pub(super) fn queued(index: u32) -> Member {
        Member {
            index,
            phase: Phase::Queued,
            failures: 0,
            restarts: 0,
            recycled: 0,
            successor: None,
            version: 0,
        }
    }
}

impl Tally {
    fn count(&mut self, phase: Phase) -> Option<&mut usize> {
        match phase {
            Phase::Queued => None,
            Phase::Starting => Some(&mut self.starting),
            Phase::Serving => Some(&mut self.serving),
            Phase::Backoff => Some(&mut self.backoff),
        }
    }

    pub(super) fn add(&mut self, phase: Phase) {
        if let Some(count) = self.count(phase) {
            *count += 1;
        }
    }

    pub(super) fn remove(&mut self, phase: Phase) {
        if let Some(count) = self.count(phase) {
            *count -= 1;
        }
    }
}

impl Kind {
    pub(crate) fn desired(&self) -> usize {
        self.desired
    }

    pub(crate) fn has(&self, member: MemberId) -> bool {
        self.members.contains_key(&member)
    }

    pub(crate) fn members(&self) -> impl ExactSizeIterator<Item = (MemberId, &Member)> {
        self.members.iter().map(|(member, place)| (*member, place))
    }

    pub(crate) fn successors(&self) -> impl ExactSizeIterator<Item = (MemberId, &Successor)> {
        self.successors.iter().map(|(member, successor)| (*member, successor))
    }

    /// Those that were asked to leave and haven't left yet.
    pub(crate) fn leaving(&self) -> impl ExactSizeIterator<Item = MemberId> {
        self.leaving.keys().copied()
    }

    /// Exactly as many serve as are desired, and no replacement is under way that somebody waits for. Planned ones go
    /// on all the time.
    pub(crate) fn is_settled(&self) -> bool {
        self.members.len() == self.desired
            && self.tally.serving == self.desired
            && !self.successors.values().any(|successor| successor.asked_for)
            && !self.due.iter().any(|due| due.asked_for)
    }

    /// Nothing of it is left.
    pub(crate) fn is_gone(&self) -> bool {
        self.desired == 0
            && self.members.is_empty()
            && self.successors.is_empty()
            && self.leaving.is_empty()
            && self.unwanted.is_empty()
    }

    /// Those that serve, and are of the version that the type has now.
    pub(crate) fn of_present_version(&self) -> usize {
        let present = |place: &&Member| place.phase == Phase::Serving && place.version == self.version;
        self.members.values().filter(present).count()
    }

    /// Every member failed, and waits to be tried again.
    pub(crate) fn are_all_in_backoff(&self) -> bool {
        !self.members.is_empty() && self.tally.backoff == self.members.len()
    }

    /// Slots that its instances have.
    pub(super) fn held(&self) -> usize {
        let starting = self.tally.starting + self.successors_tally.starting + self.unwanted.len();
        starting + self.tally.serving + self.leaving.len()
    }

    /// Members that have no slot, and will want one.
    pub(super) fn without_slot(&self) -> usize {
        self.members.len() - self.tally.starting - self.tally.serving
    }

    /// The indexes that instances have, those that are leaving included.
    pub(super) fn indexes(&self) -> impl Iterator<Item = u32> {
        let members = self.members.values().map(|place| place.index);
        members.chain(self.leaving.values().copied())
    }

    /// The next member that is to be replaced, if its type may have one more successor: a quarter of a type at once
    /// is enough, and leaves room for others. Where it moves to another version, those that leave count too.
    pub(super) fn next_due(&mut self) -> Option<(Due, u32)> {
        let successors_max = (self.members.len() / 4).max(1);
        while let Some(due) = self.due.front().copied() {
            let Some(Member { index, phase: Phase::Serving, version, .. }) = self.members.get(&due.member)
            else {
                self.due.pop_front();
                continue;
            };
            let is_moving = *version != self.version;
            let leaving = if is_moving { self.leaving.len() - self.late.len() } else { 0 };
            if self.successors.len() + leaving >= successors_max {
                return None;
            }
            let index = *index;
            self.due.pop_front();
            return Some((due, index));
        }
        None
    }

    pub(super) fn successor_of(&self, member: MemberId) -> Option<MemberId> {
        self.members.get(&member)?.successor
    }

    pub(super) fn add_successor(&mut self, member: MemberId, successor: Successor) {
        self.successors_tally.add(successor.phase);
        if let Some(place) = self.members.get_mut(&successor.of) {
            place.successor = Some(member);
        }
        self.successors.insert(member, successor);
    }

    pub(super) fn remove_successor(&mut self, member: MemberId) -> Option<Successor> {
        let successor = self.successors.remove(&member)?;
        self.successors_tally.remove(successor.phase);
        if let Some(place) = self.members.get_mut(&successor.of) {
            place.successor = None;
        }
        Some(successor)
    }

    /// A successor serves: its member leaves.
    pub(super) fn succeed(&mut self, member: MemberId, successor: Successor) -> Option<Wanted> {
        let old = self.members.remove(&successor.of)?;
        self.tally.remove(old.phase);
        self.tally.add(Phase::Serving);
        self.leaving.insert(successor.of, old.index);
        self.recycled += 1;
        let phase = Phase::Serving;
        self.members.insert(
            member,
            Member {
                phase,
                failures: 0,
                recycled: old.recycled + 1,
                successor: None,
                version: successor.version,
                ..old
            },
        );
        Some(Wanted { index: old.index, instead_of: Some(successor.of) })
    }

    /// A member is gone whose successor doesn't serve yet: the successor is the member now.
    pub(super) fn promote(&mut self, gone: MemberId, member: MemberId) {
        let Some(Successor { phase, failures, version, .. }) = self.remove_successor(member) else { return };
        let Some(old) = self.members.remove(&gone) else { return };
        self.tally.remove(old.phase);
        self.tally.add(phase);
        self.members.insert(member, Member { phase, failures, successor: None, version, ..old });
    }
}
