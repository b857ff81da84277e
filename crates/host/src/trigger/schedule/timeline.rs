//! Where a schedule stands: which of its times are due, and which come next. All that is known of the past is the cursor
//! in the store: the last time that was taken or passed over. [`Watch`](super::watch::Watch) decides what is done about
//! the times behind it.
//!
//! A time is due when the jitter's delay has passed. Times are taken in their order, since the cursor passes all times
//! before it: a time with a short delay waits for one before it with a long delay.

use std::sync::Arc;
use std::time::Duration;

use wasmhost_config::Schedule;
use wasmhost_store::{Clock, StoreError, Ticks, Timestamp};

/// Missed times that are run, at most: the newest ones.
pub(super) const MISSED_MAX: usize = 1_000;

/// One type's schedule, and whose clock and store it goes by.
pub(crate) struct Timeline {
    pub(crate) process: Arc<str>,
    pub(crate) schedule: Schedule,
    pub(crate) ticks: Arc<dyn Ticks>,
    pub(crate) clock: Arc<dyn Clock>,
    /// This boot of this host.
    pub(crate) owner: String,
}

/// A time of the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Time {
    /// The time that the schedule says.
    pub(crate) nominal: Timestamp,
    /// When its call begins: after the jitter's delay, and not before those before it.
    pub(crate) due: Timestamp,
}

impl Timeline {
    pub(super) async fn cursor(&self) -> Result<Option<Timestamp>, StoreError> {
        self.ticks.cursor(&self.process).await
    }

    /// The times after `cursor` that are due by `now`, oldest first; of very many the newest.
    pub(super) fn due(&self, cursor: Timestamp, now: Timestamp) -> Vec<Time> {
        // A time that is older than the jitter is due whatever its delay, and found backwards, so that a host that was
        // away for a year doesn't count its seconds.
        let surely = now - self.schedule.jitter;
        let mut nominals = Vec::new();
        let mut before = surely.0.saturating_add(1);
        while nominals.len() < MISSED_MAX
            && let Some(last) = self.schedule.last_before_ms(before).filter(|last| *last > cursor.0)
        {
            nominals.push(Timestamp(last));
            before = last;
        }
        nominals.reverse();
        let mut due: Vec<_> = in_order(nominals.into_iter().map(|nominal| self.time(nominal))).collect();
        let after = due.last().map_or(cursor.max(surely), |time: &Time| time.nominal);
        due.extend(self.after(after).take_while(|time| time.due <= now));
        due.split_off(due.len().saturating_sub(MISSED_MAX))
    }

    /// The times after this one, in their order.
    pub(super) fn after(&self, nominal: Timestamp) -> impl Iterator<Item = Time> {
        let next = |after: &Timestamp| self.schedule.next_after_ms(after.0).map(Timestamp);
        in_order(std::iter::successors(next(&nominal), next).map(|nominal| self.time(nominal)))
    }

    /// The next `count` calls, as things stand.
    pub(crate) async fn upcoming(&self, count: usize) -> Result<(Option<Timestamp>, Vec<Time>), StoreError> {
        let (cursor, now) = (self.cursor().await?, self.clock.now());
        // A time that is nearly due waits for its delay alone.
        let from = cursor.map_or(now, |cursor| cursor.max(now - self.schedule.jitter));
        Ok((cursor, self.after(from).filter(|time| time.due > now).take(count).collect()))
    }

    /// When the jitter's delay of a time is over.
    pub(super) fn due_at(&self, nominal: Timestamp) -> Timestamp {
        nominal + self.schedule.delay(&self.process, nominal.0)
    }

    fn time(&self, nominal: Timestamp) -> Time {
        Time { nominal, due: self.due_at(nominal) }
    }

    /// Until a time is due, of which the clock may say anything.
    pub(super) fn until(&self, due: Timestamp) -> Duration {
        due.since(self.clock.now())
    }
}

/// None is due before those before it are.
fn in_order(times: impl Iterator<Item = Time>) -> impl Iterator<Item = Time> {
    times.scan(Timestamp(i64::MIN), |latest, time| {
        *latest = time.due.max(*latest);
        Some(Time { due: *latest, ..time })
    })
}
