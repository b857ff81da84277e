//! Ticks: each time of a schedule is taken from the store once, by one host, and then called once.
//!
//! The cursor in the store says how far a schedule has come. Times between it and now were missed: while no host
//! ran, or while the call before took longer than the schedule allows.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};
use wasmhost_config::{Missed, Overlap, Schedule};
use wasmhost_engine::{CallEnd, CallLimits, Tick};
use wasmhost_store::{StoreError, Ticks, Timestamp};

use super::Triggering;
use crate::pool::{Need, NoInstance, Pool};

/// The clock is looked at this often, so that a clock that a person sets is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// How long to wait after the store failed.
const AFTER_ERROR: Duration = Duration::from_secs(5);

/// Missed times that `missed = "all"` runs, at most: the newest ones.
const MISSED_MAX: usize = 1_000;

/// A type's schedule.
pub(crate) struct ScheduleTrigger {
    pub(crate) process: Arc<str>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) ticks: Arc<dyn Ticks>,
    pub(crate) schedule: Schedule,
    pub(crate) limits: CallLimits,
    /// How long a tick may wait for an instance.
    pub(crate) wait_max: Duration,
    /// Calls of this schedule that are under way.
    pub(crate) underway: TaskTracker,
}

/// Why a tick that a person asked for was not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TickError {
    #[error("the tick could not be recorded: {0}")]
    Store(#[from] StoreError),
    #[error("a tick of the same millisecond was run already: try again")]
    Taken,
}

impl ScheduleTrigger {
    /// Runs ticks until `intake` ends.
    pub(crate) async fn run(self: Arc<Self>, triggering: Triggering) {
        loop {
            let wait = match self.step(&triggering.running).await {
                Ok(wait) => wait,
                Err(err) => {
                    error!("schedule \"{}\": {err}", self.process);
                    AFTER_ERROR
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = triggering.intake.cancelled() => return,
            }
        }
    }

    /// Runs what is due, and says how long to wait for the next look.
    async fn step(self: &Arc<Self>, running: &TaskTracker) -> Result<Duration, StoreError> {
        let now = Timestamp::now();
        let Some(cursor) = self.ticks.cursor(&self.process).await? else {
            // A new schedule begins now, not at the beginning of time.
            self.ticks.skip_to(&self.process, now).await?;
            return Ok(self.until_next(now));
        };
        let due = self.due(cursor, now);
        // A time that is due for longer than a look takes was missed by whoever should have run it.
        let (missed, current): (Vec<_>, Vec<_>) =
            due.into_iter().partition(|nominal| now.since(*nominal) > LOOK_EVERY);
        let missed = match self.schedule.missed {
            Missed::All => missed,
            Missed::One if current.is_empty() => missed.into_iter().next_back().into_iter().collect(),
            Missed::One | Missed::Skip => {
                if let Some(last) = missed.last() {
                    info!("schedule \"{}\": {} missed times are passed over", self.process, missed.len());
                    self.ticks.skip_to(&self.process, *last).await?;
                }
                vec![]
            }
        };
        let mut taken = Vec::new();
        for nominal in missed.into_iter().chain(current) {
            if self.ticks.take(&self.process, nominal, false, "host/").await? {
                taken.push(nominal);
            }
        }
        self.begin(taken, running).await?;
        Ok(self.until_next(Timestamp::now()))
    }

    /// The times after `cursor` up to `now`, oldest first; of very many the newest.
    fn due(&self, cursor: Timestamp, now: Timestamp) -> Vec<Timestamp> {
        // Backwards, so that a host that was away for a year doesn't count its seconds.
        let mut due = Vec::new();
        let mut before = now.0.saturating_add(1);
        while due.len() < MISSED_MAX
            && let Some(last) = self.schedule.last_before_ms(before).filter(|last| *last > cursor.0)
        {
            due.push(Timestamp(last));
            before = last;
        }
        due.reverse();
        due
    }

    fn until_next(&self, now: Timestamp) -> Duration {
        let next = self.schedule.next_after_ms(now.0).map(|next| Timestamp(next).since(now));
        next.unwrap_or(LOOK_EVERY).min(LOOK_EVERY).max(Duration::from_millis(1))
    }

    /// Calls instances with ticks that were taken: at once, or one after another where they may not overlap.
    async fn begin(self: &Arc<Self>, taken: Vec<Timestamp>, running: &TaskTracker) -> Result<(), StoreError> {
        match self.schedule.overlap {
            Overlap::Allow => taken.into_iter().for_each(|nominal| self.spawn_calls(vec![nominal], running)),
            Overlap::Skip if self.underway.is_empty() => self.spawn_calls(taken, running),
            Overlap::Skip => {
                for nominal in taken {
                    let why = "skipped: the tick before it was still running".to_owned();
                    warn!("schedule \"{}\": {nominal} was {why}", self.process);
                    self.ticks
                        .finish(&self.process, nominal, wasmhost_store::ticks::TickEnd::Skipped(why))
                        .await?;
                }
            }
        }
        Ok(())
    }

    fn spawn_calls(self: &Arc<Self>, taken: Vec<Timestamp>, running: &TaskTracker) {
        if taken.is_empty() {
            return;
        }
        let this = self.clone();
        let token = self.underway.token();
        running.spawn(async move {
            for nominal in taken {
                this.call(nominal, false).await;
            }
            drop(token);
        });
    }

    /// Runs a tick now, because a person asked for it. `None` where it went well.
    pub(crate) async fn run_now(&self) -> Result<(Timestamp, Option<String>), TickError> {
        let nominal = Timestamp::now();
        if !self.ticks.take(&self.process, nominal, true, "host/").await? {
            return Err(TickError::Taken);
        }
        Ok((nominal, self.call(nominal, true).await))
    }

    async fn call(&self, nominal: Timestamp, manual: bool) -> Option<String> {
        let error = self.call_instance(nominal, manual).await.err();
        if let Some(error) = &error {
            warn!("schedule \"{}\": the tick of {nominal}: {error}", self.process);
        }
        if let Err(err) = self
            .ticks
            .finish(
                &self.process,
                nominal,
                error
                    .clone()
                    .map_or(wasmhost_store::ticks::TickEnd::Done, wasmhost_store::ticks::TickEnd::Failed),
            )
            .await
        {
            error!("schedule \"{}\": how the tick of {nominal} ended could not be kept: {err}", self.process);
        }
        error
    }

    async fn call_instance(&self, nominal: Timestamp, manual: bool) -> Result<(), String> {
        let mut lease = self.pool.lend(Need::Any, self.wait_max).await.map_err(|none| match none {
            NoInstance::LineFull | NoInstance::TimedOut => "no instance was free in time".to_owned(),
            NoInstance::NoCount => "the type's count is 0".to_owned(),
            NoInstance::AllInBackoff => "no instance of the type starts".to_owned(),
        })?;
        let Some(instance) = lease.take() else { return Err("no instance".to_owned()) };
        let tick = Tick {
            schedule: self.process.to_string(),
            nominal_ms: u64::try_from(nominal.0).unwrap_or(0),
            manual,
        };
        let finished = instance.call_tick(tick, self.limits).await;
        let answer = match &finished.report.end {
            CallEnd::Returned(answer) => answer.clone(),
            CallEnd::Trap(backtrace) => Err(backtrace.clone()),
            end => Err(format!("the call {}", end.summary())),
        };
        lease.give_back(finished);
        answer
    }
}
