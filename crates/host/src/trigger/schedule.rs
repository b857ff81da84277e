//! Ticks: each time of a schedule is taken from the store once, by one host, and then called once.
//!
//! ```text
//! look: what is due is taken -> begin: as `overlap` says -> call -> the tick's end is kept
//! ```
//!
//! A tick is taken before it is called. A host that dies in between has run it not at all, and never twice: the next boot
//! marks it as interrupted.

mod timeline;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};
use wasmhost_config::Overlap;
use wasmhost_engine::{CallEnd, CallLimits, Tick};
use wasmhost_store::ticks::TickEnd;
use wasmhost_store::{StoreError, Timestamp};

use super::Triggering;
use crate::admin::api::{HostEvent, TickChange};
use crate::feed::{self, Feed};
use crate::pool::{Need, NoInstance, Pool};
use crate::traces::{CallSpan, Context, Kind, Line, Open, Scope, Traces};
pub(crate) use timeline::Timeline;
use watch::Watch;

/// Why a tick is skipped whose schedule's calls may not overlap.
const OVERLAPS: &str = "the tick before it was still running";

/// A type's schedule, and what runs its ticks.
pub(crate) struct ScheduleTrigger {
    pub(crate) timeline: Arc<Timeline>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) limits: CallLimits,
    /// How long a tick may wait for an instance.
    pub(crate) wait_max: Duration,
    /// Calls of this schedule that run or wait for an instance, those that a person asked for too.
    pub(crate) calls: TaskTracker,
    /// Other hosts may have the type's instances.
    pub(crate) is_shared: bool,
    /// It was told that ticks are skipped since the count is 0.
    pub(crate) told_of_no_count: AtomicBool,
    pub(crate) triggering: Triggering,
    /// That of all triggers. It outlives this one's, where a release has another schedule.
    pub(crate) host_intake: CancellationToken,
    pub(crate) feed: Arc<Feed>,
    /// Where traces are on.
    pub(crate) traces: Option<Arc<Traces>>,
}

/// Why a tick that a person asked for was not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TickError {
    #[error("the tick could not be recorded: {0}")]
    Store(#[from] StoreError),
    #[error("a tick of the same millisecond was run already: try again")]
    Taken,
    #[error("a tick of \"{0}\" is still running, and its `overlap` is \"skip\": wait until it has ended")]
    Overlaps(String),
    #[error("a deploy is replacing the schedule of \"{0}\": try again")]
    Replaced(String),
    #[error(
        "\"{0}\" has no instance on this host, and may have some on others: `wasmhost ps` says on which, and `-H` asks it"
    )]
    Elsewhere(String),
    #[error("the host is stopping")]
    Stopping,
}

impl ScheduleTrigger {
    /// Runs ticks until `intake` ends.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut watch = Watch::new(self.timeline.clone());
        while self.triggering.may_take().await {
            let wait = if self.is_elsewhere() {
                watch.stand_by()
            } else {
                let look = watch.look().await;
                self.begin(look.taken).await;
                look.wait
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.triggering.intake.cancelled() => return,
            }
        }
    }

    /// The type has no instance here, and may have some on other hosts: its ticks are for these.
    fn is_elsewhere(&self) -> bool {
        self.is_shared && !self.pool.has_count()
    }

    /// Calls instances with ticks that were taken: at once, or one after another where they may not overlap.
    async fn begin(self: &Arc<Self>, taken: Vec<Timestamp>) {
        match self.timeline.schedule.overlap {
            Overlap::Allow => taken.into_iter().for_each(|nominal| self.spawn_calls(vec![nominal])),
            Overlap::Skip if self.calls.is_empty() => self.spawn_calls(taken),
            Overlap::Skip => {
                for nominal in taken {
                    warn!("schedule \"{}\": {nominal} was skipped: {OVERLAPS}", self.timeline.process);
                    self.finish(nominal, false, TickEnd::Skipped(OVERLAPS.to_owned())).await;
                }
            }
        }
    }

    fn spawn_calls(self: &Arc<Self>, taken: Vec<Timestamp>) {
        if taken.is_empty() {
            return;
        }
        let this = self.clone();
        let token = self.calls.token();
        self.triggering.running.spawn(async move {
            for nominal in taken {
                this.call(nominal, false).await;
            }
            drop(token);
        });
    }

    /// Runs a tick now, because a person asked for it, and says how it ended. One who gives up waiting (drops this)
    /// doesn't end the call.
    pub(crate) async fn run_now(self: &Arc<Self>) -> Result<(Timestamp, TickEnd), TickError> {
        if self.host_intake.is_cancelled() {
            return Err(TickError::Stopping);
        }
        if self.triggering.intake.is_cancelled() {
            return Err(TickError::Replaced(self.timeline.process.to_string()));
        }
        if self.is_elsewhere() {
            return Err(TickError::Elsewhere(self.timeline.process.to_string()));
        }
        if self.timeline.schedule.overlap == Overlap::Skip && !self.calls.is_empty() {
            return Err(TickError::Overlaps(self.timeline.process.to_string()));
        }
        let this = self.clone();
        let token = self.calls.token();
        // Among what is running, so that a drain waits for it.
        let running = self.triggering.running.spawn(async move {
            let ended = this.take_now().await;
            drop(token);
            ended
        });
        running.await.unwrap_or(Err(TickError::Stopping))
    }

    async fn take_now(&self) -> Result<(Timestamp, TickEnd), TickError> {
        let Timeline { process, ticks, clock, owner, .. } = &*self.timeline;
        let nominal = clock.now();
        if !ticks.take(process, nominal, true, owner).await? {
            return Err(TickError::Taken);
        }
        Ok((nominal, self.call(nominal, true).await))
    }

    async fn call(&self, nominal: Timestamp, manual: bool) -> TickEnd {
        self.feed.tell(|| self.event(nominal, manual, TickChange::Running, None));
        if !manual {
            self.pool.counts.tick_was_late(self.timeline.clock.now().since(self.timeline.due_at(nominal)));
        }
        let trace = self.traces.as_ref().map(|traces| traces.enter(None, Context::new));
        let span = trace.as_ref().and_then(|trace| self.span(trace, nominal, manual));
        let end = self.call_instance(nominal, manual, trace.as_ref()).await;
        end_span(span, &end);
        let process = &self.timeline.process;
        match &end {
            TickEnd::Done => {}
            TickEnd::Failed(why) | TickEnd::Interrupted(why) => {
                warn!("schedule \"{process}\": the tick of {nominal}: {why}");
            }
            // A person has said so; each time of a dense schedule would say it again.
            TickEnd::Skipped(why) if !self.told_of_no_count.swap(true, Relaxed) => {
                warn!(
                    "schedule \"{process}\": {nominal} was skipped: {why}. Others are skipped silently until it isn't"
                );
            }
            TickEnd::Skipped(_) => {}
        }
        if !matches!(end, TickEnd::Skipped(_)) {
            self.told_of_no_count.store(false, Relaxed);
        }
        self.finish(nominal, manual, end.clone()).await;
        end
    }

    fn span(&self, trace: &Arc<Scope>, nominal: Timestamp, manual: bool) -> Option<Open> {
        let process = &self.timeline.process;
        let mut span = trace.own(format!("tick {process}"), Kind::Internal)?;
        span.facts.set("wasmhost.type", process.to_string());
        span.facts.set("wasmhost.tick.nominal", nominal.to_string());
        span.facts.set("wasmhost.tick.manual", manual);
        Some(span)
    }

    async fn call_instance(&self, nominal: Timestamp, manual: bool, trace: Option<&Arc<Scope>>) -> TickEnd {
        let mut may_repeat = true;
        loop {
            let line = Line::enter(trace, &self.timeline.process);
            let mut lease = match self.pool.lend(Need::Any, self.wait_max).await {
                Ok(lease) => lease,
                Err(none @ NoInstance::NoCount) => return TickEnd::Skipped(summary(none).to_owned()),
                Err(none) => return TickEnd::Failed(summary(none).to_owned()),
            };
            let Some(instance) = lease.take() else { return TickEnd::Failed("no instance".to_owned()) };
            let tick = Tick {
                schedule: self.timeline.process.to_string(),
                nominal_ms: u64::try_from(nominal.0).unwrap_or(0),
                manual,
            };
            let span = line.map(|line| line.lent(lease.slot()));
            let trace = span.as_ref().and_then(CallSpan::trace);
            let finished = instance.call_tick(tick, self.limits, trace).await;
            if let Some(span) = span {
                span.end(&finished.report);
            }
            let unseen = matches!(finished.report.end, CallEnd::Refused(_));
            let end = tick_end(&finished.report.end);
            lease.give_back(finished);
            // A guest that hasn't seen the tick did nothing about it.
            if !(unseen && std::mem::take(&mut may_repeat)) {
                return end;
            }
        }
    }

    async fn finish(&self, nominal: Timestamp, manual: bool, end: TickEnd) {
        let Timeline { process, ticks, .. } = &*self.timeline;
        self.pool.counts.ticked(&end);
        let kept = ticks.finish(process, nominal, end.clone()).await;
        self.feed.tell(|| {
            let (state, error) = match &end {
                TickEnd::Done => (TickChange::Done, None),
                TickEnd::Failed(why) => (TickChange::Failed, Some(why)),
                TickEnd::Skipped(why) => (TickChange::Skipped, Some(why)),
                TickEnd::Interrupted(why) => (TickChange::Interrupted, Some(why)),
            };
            self.event(nominal, manual, state, error.map(String::as_str))
        });
        if let Err(err) = kept {
            error!("schedule \"{process}\": how the tick of {nominal} ended could not be kept: {err}");
        }
    }

    fn event(&self, nominal: Timestamp, manual: bool, state: TickChange, error: Option<&str>) -> HostEvent {
        let process = self.timeline.process.to_string();
        HostEvent::Tick { process, nominal, manual, state, error: error.map(feed::text) }
    }
}

fn end_span(span: Option<Open>, end: &TickEnd) {
    let Some(mut span) = span else { return };
    let result = match end {
        TickEnd::Done => "done",
        TickEnd::Failed(_) => "failed",
        TickEnd::Skipped(_) => "skipped",
        TickEnd::Interrupted(_) => "interrupted",
    };
    span.facts.set("wasmhost.tick.result", result);
    if let TickEnd::Failed(_) | TickEnd::Interrupted(_) = end {
        span.facts.fail(result);
    }
}

fn summary(none: NoInstance) -> &'static str {
    match none {
        NoInstance::LineFull | NoInstance::TimedOut => "no instance was free in time",
        NoInstance::NoCount => "the type's count is 0",
        NoInstance::AllInBackoff => "no instance of the type starts",
    }
}

fn tick_end(end: &CallEnd<Result<(), String>>) -> TickEnd {
    match end {
        CallEnd::Returned(Ok(())) => TickEnd::Done,
        CallEnd::Returned(Err(message)) => TickEnd::Failed(message.clone()),
        CallEnd::Trap(backtrace) => TickEnd::Failed(backtrace.clone()),
        CallEnd::Interrupted => TickEnd::Interrupted(format!("the call {}", end.summary())),
        end => TickEnd::Failed(format!("the call {}", end.summary())),
    }
}
