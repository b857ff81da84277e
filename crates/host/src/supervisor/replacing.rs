//! Replacements that were not caused by an instance's end: a person restarts a type, or an instance is too old.

use std::time::{Duration, Instant};

use tokio::time::{Interval, MissedTickBehavior};

use super::{Refused, Supervisor, Target};
use crate::event::MemberId;

/// How often ages are looked at: a twentieth of the shortest `max_age`, within these.
const AGES_EVERY_MIN: Duration = Duration::from_millis(50);
const AGES_EVERY_MAX: Duration = Duration::from_secs(10);

impl Supervisor {
    /// Gives each chosen member a successor, behind which it leaves.
    pub(super) fn restart(&mut self, target: &Target) -> Result<u32, Refused> {
        if self.changes_refused {
            return Err(Refused::Conflict("the host is stopping".into()));
        }
        let type_index = self.index_of(&target.process)?;
        let members = self.places_of(type_index).flat_map(|place| {
            let members = self.roster.kind(place).members();
            members.map(move |(member, held)| (held.index, place, member))
        });
        let mut chosen: Vec<(u32, usize, MemberId)> = members.collect();
        let count = chosen.len();
        chosen.retain(|(index, ..)| target.index.is_none_or(|wanted| wanted == *index));
        chosen.sort_unstable();
        if let (Some(index), true) = (target.index, chosen.is_empty()) {
            let process = &target.process;
            return Err(Refused::Conflict(match self.part.is_some() {
                true => format!(
                    "there is no {process}.{index} on this host, which has {count} instances of {process}: it may be on another one, and -H asks it"
                ),
                false => format!("there is no {process}.{index}: {process} has {count} instances"),
            }));
        }
        for (_, place, member) in &chosen {
            self.roster.restart(*place, *member);
            self.types[*place].tell_outlook(self.roster.kind(*place));
        }
        Ok(u32::try_from(chosen.len()).unwrap_or(u32::MAX))
    }

    pub(super) fn age_timer(&self) -> Option<Interval> {
        let shortest = self.types.iter().filter_map(|(_, kind)| kind.given.max_age).min()?;
        let mut timer = tokio::time::interval((shortest / 20).clamp(AGES_EVERY_MIN, AGES_EVERY_MAX));
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Some(timer)
    }

    pub(super) fn replace_the_old(&mut self) {
        let now = Instant::now();
        for (type_index, kind) in &self.types {
            let slots = kind.slots.iter().filter(|(_, slot)| slot.is_expired(now));
            let mut old: Vec<(Instant, MemberId)> =
                slots.map(|(member, slot)| (slot.since, *member)).collect();
            old.sort_unstable();
            for (_, member) in old {
                // Those that are leaving already aren't members any more.
                self.roster.replace(type_index, member, false);
            }
        }
    }
}
