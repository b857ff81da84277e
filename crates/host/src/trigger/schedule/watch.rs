//! One host looks at a schedule again and again. Times that are due are taken from the store. Times that were missed are
//! made up for or passed over, as `missed` says.
//!
//! A time is **missed** when a host comes to it more than 30 s late; and, where the host wasn't watching when it came,
//! also when a later time has come too. A host watches from its first look on, until it comes back from a wait more
//! than 30 s too late by the wall clock: it was stopped, the machine slept, or a person set the clock. So a host that
//! is busy runs each time of a dense schedule late, and one that is started again in between doesn't.
//!
//! Where the wall clock is set back nothing is due until it has come to the cursor again: those times have had their
//! turn.

use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};
use wasmhost_config::Missed;
use wasmhost_store::ticks::Begun;
use wasmhost_store::{StoreError, Timestamp};

use super::timeline::{Time, Timeline};

/// The clock is looked at this often, so that a clock that a person sets is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// How often a host looks whether it has to take another's place.
const STAND_BY: Duration = Duration::from_millis(250);

/// How late a time may be that isn't missed.
const LATE_MAX: Duration = Duration::from_secs(30);

/// How long to wait after the store failed.
const AFTER_ERROR: Duration = Duration::from_secs(5);

/// The facts that one host knows of its own looks.
pub(super) struct Watch {
    timeline: Arc<Timeline>,
    /// When the look before said that the next one would be; `None` before the first.
    back_by: Option<Timestamp>,
    /// The store knows this schedule as it is now.
    has_begun: bool,
    /// It was told that the cursor is ahead of the clock.
    is_ahead: bool,
}

/// The result of a look.
pub(super) struct Look {
    /// These are this host's to run: no other will, and none of them comes again.
    pub(super) taken: Vec<Timestamp>,
    /// How long to wait for the next look.
    pub(super) wait: Duration,
}

impl Watch {
    pub(super) fn new(timeline: Arc<Timeline>) -> Watch {
        Watch { timeline, back_by: None, has_begun: false, is_ahead: false }
    }

    /// Another host takes what is due. This one may have to go on where that one stops, so it goes on watching. Returns how
    /// long to wait for the next look.
    pub(super) fn stand_by(&mut self) -> Duration {
        self.back_by = Some(self.timeline.clock.now() + STAND_BY);
        STAND_BY
    }

    /// Takes what is due, and says how long to wait for the next look.
    pub(super) async fn look(&mut self) -> Look {
        let mut taken = Vec::new();
        match self.take_due(&mut taken).await {
            Ok(position) => {
                let next = self.timeline.after(position).next();
                let wait = next.map_or(LOOK_EVERY, |next| self.timeline.until(next.due));
                let wait = wait.clamp(Duration::from_millis(1), LOOK_EVERY);
                self.back_by = Some(self.timeline.clock.now() + wait);
                Look { taken, wait }
            }
            Err(err) => {
                error!("schedule \"{}\": {err}", self.timeline.process);
                // The times that were taken before the store failed are run nevertheless: they won't come again.
                Look { taken, wait: AFTER_ERROR }
            }
        }
    }

    /// Takes what is due; the last time that was taken or passed over.
    async fn take_due(&mut self, taken: &mut Vec<Timestamp>) -> Result<Timestamp, StoreError> {
        let Timeline { process, ticks, clock, owner, schedule } = &*self.timeline;
        let now = clock.now();
        // A new schedule begins now, not at the beginning of time; so does one that a person let begin anew.
        let known = if self.has_begun { self.timeline.cursor().await? } else { None };
        let cursor = match known {
            Some(cursor) => cursor,
            None => match ticks.begin(process, &schedule.identity(), now).await? {
                Begun::After(cursor) => cursor,
                Begun::New => now,
                Begun::Changed => {
                    info!(
                        "schedule \"{process}\" has changed: it begins now, and no time before is made up for"
                    );
                    now
                }
            },
        };
        self.has_begun = true;
        if cursor > now + LATE_MAX {
            if !self.is_ahead {
                warn!(
                    "schedule \"{process}\" has come to {cursor}, and the clock says {now}: no time before that is \
                     run again. If the clock was wrong then, let the schedule begin anew (docs/operating.md)"
                );
            }
            self.is_ahead = true;
            return Ok(cursor);
        }
        self.is_ahead = false;
        let due = self.timeline.due(cursor, now);
        let (missed, mut to_run) = self.part(&due, now);
        match (schedule.missed, missed) {
            (_, []) => {}
            (Missed::All, _) => to_run = &due,
            (Missed::One, [.., last]) if to_run.is_empty() => to_run = std::slice::from_ref(last),
            (Missed::One | Missed::Skip, [.., last]) => {
                info!("schedule \"{process}\": {} missed times are passed over", missed.len());
                ticks.skip_to(process, last.nominal).await?;
            }
        }
        for Time { nominal, .. } in to_run {
            if ticks.take(process, *nominal, false, owner).await? {
                taken.push(*nominal);
            }
        }
        Ok(due.last().map_or(cursor, |last| last.nominal))
    }

    /// Parts what was missed from what is on time.
    fn part<'t>(&self, due: &'t [Time], now: Timestamp) -> (&'t [Time], &'t [Time]) {
        let missed = due.partition_point(|time| now.since(time.due) > LATE_MAX);
        let watched = self.back_by.is_some_and(|back_by| now <= back_by + LATE_MAX);
        let missed = if watched { missed } else { missed.max(due.len().saturating_sub(1)) };
        due.split_at(missed)
    }
}

#[cfg(test)]
mod tests;
