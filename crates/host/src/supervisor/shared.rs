//! Counts that hosts share: each has its part of the slots of each type, by their numbers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::Supervisor;
use crate::members::split::Ring;

/// The part of the formation that this host has.
pub(super) struct Part {
    pub(super) ring: Arc<Ring>,
    pub(super) host: Arc<str>,
}

impl Part {
    /// The slots of a type that are this host's.
    pub(super) fn slots(&self, process: &str, count: u32) -> Vec<u32> {
        self.ring.slots(&self.host, process, count)
    }
}

impl Supervisor {
    /// Hosts have come or gone.
    pub(super) fn share(&mut self, part: Part) {
        self.part = Some(part);
        let types = self.types.iter().filter(|(_, kind)| !kind.is_canary);
        let counts: Vec<(usize, u32)> = types.map(|(place, kind)| (place, kind.count)).collect();
        counts.into_iter().for_each(|(place, count)| self.set_count(place, count));
    }

    /// Another host may have changed counts. Those that were read before a change of this host's own was made are old.
    pub(super) fn hear_counts(&mut self, counts: &BTreeMap<String, u32>, asked_at: Instant) {
        if self.saving.is_some() || self.changes_refused || self.changed_at.is_some_and(|at| at >= asked_at) {
            return;
        }
        for place in self.order.clone() {
            let kind = &mut self.types[place];
            let live = counts.get(&*kind.given.name).copied().filter(|_| kind.given.scalable);
            if std::mem::replace(&mut kind.live, live) != live {
                let count = live.unwrap_or(kind.given.count_in_file);
                self.set_count(place, count);
            }
        }
    }

    /// The instances that a type of this count has on this host.
    pub(super) fn here(&self, process: &str, count: u32) -> u32 {
        let slots = self.part.as_ref().map(|part| part.slots(process, count).len());
        slots.map_or(count, |slots| u32::try_from(slots).unwrap_or(u32::MAX))
    }
}
