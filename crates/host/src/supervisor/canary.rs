//! Canaries. A type that takes requests or jobs has a second place beside its own, whose instances are of a release that
//! isn't live yet. Both have one name, and one count, which [`Share::parts`] parts between them.
//!
//! A canary begins like a type that a release adds, watched as a move is. Its place is retired where the release is
//! promoted or aborted, and from then on the type has all of its count again.

use std::sync::Arc;

use super::{Refused, Supervised, Supervisor, Underway};
use crate::share::{Parts, Share, Takes};

/// A type's canary.
pub(crate) struct Canary {
    /// The place of the type.
    pub(crate) of: usize,
    pub(crate) supervised: Supervised,
    pub(crate) takes: Takes,
}

/// A type has a canary at another place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beside {
    pub(super) place: usize,
    share: Share,
    takes: Takes,
}

impl Supervisor {
    /// Gives each of these types a canary. Their instances start.
    pub(super) fn begin_canary(&mut self, canaries: Vec<Canary>, share: Share) -> Result<Underway, Refused> {
        if self.changes_refused {
            return Err(Refused::Conflict("the host is stopping".into()));
        }
        let of: Vec<(usize, Takes)> = canaries.iter().map(|canary| (canary.of, canary.takes)).collect();
        self.check_room_beside(&of, share)?;
        if !of.iter().all(|(place, _)| self.types.contains(*place)) {
            return Err(Refused::Conflict("a type of the live release is gone".into()));
        }
        let mut places = vec![];
        for Canary { of, mut supervised, takes } in canaries {
            let count = self.types[of].count;
            // Both versions have one share of the compute threads, which is the live one's until the promotion.
            supervised.weight = self.types[of].given.weight;
            let place = self.add_type(supervised);
            self.types[place].is_canary = true;
            self.types[of].canary = Some(Beside { place, share, takes });
            self.set_count(of, count);
            places.push((place, self.types[place].pool.clone()));
        }
        self.ages = self.age_timer();
        let moving = places.iter().map(|(place, _)| *place).collect();
        Ok(self.begin_move(places, moving))
    }

    /// Whether there is room for canaries of these types.
    pub(super) fn check_room_beside(&self, of: &[(usize, Takes)], share: Share) -> Result<(), Refused> {
        let live = self.order.iter().flat_map(|place| {
            let kind = &self.types[*place];
            let canary = of.iter().find(|(of, _)| of == place);
            let parts = canary.map(|(_, takes)| share.parts(*takes, kind.count));
            named_parts(&kind.given.name, parts.unwrap_or(Parts { live: kind.count, canary: 0 }))
        });
        self.check_capacity(live)
    }

    /// Whether there is room for so many instances of each name.
    pub(super) fn check_capacity(&self, counts: impl Iterator<Item = (String, u32)>) -> Result<(), Refused> {
        let counts: Vec<(String, u32)> = counts.collect();
        let counts: Vec<(&str, u32)> = counts.iter().map(|(name, count)| (&**name, *count)).collect();
        self.capacity.check(&counts).map_err(|too_many| Refused::Conflict(too_many.to_string()))
    }

    /// Brings a type, with its canary if it has one, to this count.
    pub(super) fn set_count(&mut self, place: usize, count: u32) {
        let before = std::mem::replace(&mut self.types[place].count, count);
        self.tell_count(place, before);
        let Parts { live, canary } = self.parts(place, count);
        self.desire(place, live);
        if let Some(Beside { place, .. }) = self.types[place].canary {
            self.types[place].count = count;
            self.desire(place, canary);
        }
    }

    /// The parts that a count of a type comes to.
    pub(super) fn parts(&self, place: usize, count: u32) -> Parts {
        match self.types.get(place).and_then(|kind| kind.canary) {
            Some(Beside { share, takes, .. }) => share.parts(takes, count),
            None => Parts { live: count, canary: 0 },
        }
    }

    /// The same with the names of those that it counts, for a message.
    pub(super) fn counted(&self, place: usize, count: u32) -> impl Iterator<Item = (String, u32)> + use<> {
        let name = &self.types[place].given.name;
        named_parts(name, self.parts(place, self.here(name, count)))
    }

    /// The places of a type: its own, and its canary's.
    pub(super) fn places_of(&self, place: usize) -> impl Iterator<Item = usize> + use<> {
        let beside = self.types.get(place).and_then(|kind| kind.canary).map(|beside| beside.place);
        std::iter::once(place).chain(beside)
    }

    /// Types whose canaries are retired have all of their count again.
    pub(super) fn part_from_canaries(&mut self, retired: &[usize]) {
        let mut alone = vec![];
        for (place, kind) in &mut self.types {
            if kind.canary.is_some_and(|beside| retired.contains(&beside.place)) {
                kind.canary = None;
                alone.push((place, kind.count));
            }
        }
        for (place, count) in alone {
            if !self.types[place].is_retired {
                self.set_count(place, count);
            }
        }
    }
}

fn named_parts(
    name: &Arc<str>,
    Parts { live, canary }: Parts,
) -> impl Iterator<Item = (String, u32)> + use<> {
    let beside = (canary > 0).then(|| (format!("{name} on canary"), canary));
    std::iter::once((name.to_string(), live)).chain(beside)
}
