//! The members of a type: what holds a place in its count, and what is on its way out.

use std::collections::{BTreeSet, HashMap};
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
    /// Those that were asked to leave and haven't left yet.
    pub(super) leaving: HashMap<MemberId, Arc<Slot>>,
    pub(super) restarts: u64,
    pub(super) last_end: Option<String>,
}

/// What holds a place in a type's count.
pub(super) struct Member {
    pub(super) index: u32,
    pub(super) phase: Phase,
    /// Failures in a row before it served, or exits of a command.
    pub(super) failures: u32,
    pub(super) restarts: u64,
    /// An older instance that leaves when this one serves.
    pub(super) replaces: Option<MemberId>,
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

impl Supervised {
    /// Asks an instance to leave. A `main` can't be asked, as WASI has no signals: it is ended.
    pub(super) fn dismiss(&self, slot: &Arc<Slot>) {
        self.pool.drain_one(slot);
        if self.runs_always {
            slot.meter.interrupt();
        }
    }
}

impl Type {
    pub(super) fn new(given: Supervised) -> Type {
        Type {
            desired: given.count,
            given,
            members: HashMap::new(),
            leaving: HashMap::new(),
            restarts: 0,
            last_end: None,
        }
    }

    /// The lowest index that no instance has, those that are leaving included.
    pub(super) fn free_index(&self) -> u32 {
        let members = self.members.values().map(|member| member.index);
        let taken: BTreeSet<u32> = members.chain(self.leaving.values().map(|slot| slot.name.index)).collect();
        let mut index = 1;
        for taken in taken {
            if taken != index {
                break;
            }
            index += 1;
        }
        index
    }

    /// Lets members go: those that don't serve first, then as the pool chooses.
    pub(super) fn shrink_to(&mut self, desired: usize) {
        let mut absent: Vec<(u32, MemberId)> = self
            .members
            .iter()
            .filter(|(_, place)| !matches!(place.phase, Phase::Serving(_)) && place.replaces.is_none())
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
                slot.meter.interrupt();
            }
        }
        // What is left over are replacements whose predecessors were let go.
        while self.members.len() > desired {
            let absent = self.members.iter().filter(|(_, place)| !matches!(place.phase, Phase::Serving(_)));
            let Some(member) = absent.map(|(member, _)| *member).max() else { return };
            if let Some(place) = self.members.remove(&member)
                && let Some(slot) = place.replaces.and_then(|old| self.leaving.get(&old).cloned())
            {
                self.given.dismiss(&slot);
            }
        }
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
        let mut busy = 0;
        for slot in serving.chain(self.leaving.values()) {
            busy += usize::from(slot.is_busy() && !self.given.runs_always);
            slot.meter.interrupt();
        }
        busy
    }

    pub(super) fn serving(&self) -> usize {
        self.members.values().filter(|place| matches!(place.phase, Phase::Serving(_))).count()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.members.len() == usize::try_from(self.desired).unwrap_or(usize::MAX)
            && self.serving() == self.members.len()
            && self.given.pool.live() == self.members.len()
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
