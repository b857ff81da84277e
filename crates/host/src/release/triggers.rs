//! The callers of the live release's types beside requests: queue triggers and schedules. A release that changes one
//! stops it, and begins another. Calls that it has begun go on.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wasmhost_config::{Queue, Schedule, Trigger};
use wasmhost_store::jobs::{Backoff, ClaimQueue};
use wasmhost_store::{Clock, Jobs, Ticks};

use super::ReleaseType;
use crate::feed::Feed;
use crate::host::Lasting;
use crate::measures::Measures;
use crate::pool::Pool;
use crate::trigger::Triggering;
use crate::trigger::ahead::Ahead;
use crate::trigger::claimed::ClaimedJobs;
use crate::trigger::job_log::JobLog;
use crate::trigger::queue::{Complaints, QueueTrigger};
use crate::trigger::schedule::{ScheduleTrigger, Timeline};

/// The triggers, and what they work with.
pub(crate) struct Triggers {
    pub(crate) jobs: Arc<dyn Jobs>,
    pub(crate) ticks: Arc<dyn Ticks>,
    /// This boot of this host.
    pub(crate) owner: String,
    /// The clock that schedules go by.
    pub(crate) clock: Arc<dyn Clock>,
    /// Whether other hosts use the store, too.
    pub(crate) is_shared: bool,
    pub(crate) claimed: Arc<ClaimedJobs>,
    pub(crate) measures: Arc<Measures>,
    pub(crate) lasting: Lasting,
    /// The loops.
    pub(crate) tracker: TaskTracker,
    /// The calls that they began.
    pub(crate) triggering: Triggering,
    pub(crate) running: HashMap<usize, Running>,
    pub(crate) feed: Arc<Feed>,
}

/// A trigger that runs, by its type's place.
pub(crate) struct Running {
    stop: CancellationToken,
    ended: JoinHandle<()>,
    schedule: Option<(String, Arc<ScheduleTrigger>)>,
}

impl Triggers {
    /// The schedules, by their types' names.
    pub(crate) fn schedules(&self) -> HashMap<String, Arc<ScheduleTrigger>> {
        self.running.values().filter_map(|running| running.schedule.clone()).collect()
    }

    /// Stops the trigger at this place, if there is one. It has claimed its last job when this returns.
    pub(crate) async fn stop(&mut self, place: usize) {
        if let Some(Running { stop, ended, .. }) = self.running.remove(&place) {
            stop.cancel();
            let _ = ended.await;
        }
    }

    /// Begins what calls this type, if anything but requests does, instead of what called it until now.
    pub(crate) async fn begin(
        &mut self,
        place: usize,
        kind: &ReleaseType,
        pool: &Arc<Pool>,
        settings: &BTreeMap<String, Queue>,
    ) {
        let calls = self.running.get(&place).and_then(|running| running.schedule.as_ref());
        // Ticks that run are counted on, so that the next one doesn't overlap with them.
        let calls = calls.map(|(_, schedule)| schedule.calls.clone()).unwrap_or_default();
        self.stop(place).await;
        let running = match &kind.planned.trigger {
            Trigger::Queue { queues } => self.begin_queue(kind, pool, queues, settings),
            Trigger::Schedule(schedule) => self.begin_schedule(kind, pool, schedule, calls),
            Trigger::Http { .. } | Trigger::Command { .. } => return,
        };
        self.running.insert(place, running);
    }

    /// Begins what calls a canary with jobs: those of the queues that the live version works. The rest is as the canary's
    /// release says.
    pub(crate) async fn begin_beside(
        &mut self,
        place: usize,
        kind: &ReleaseType,
        live: &ReleaseType,
        pool: &Arc<Pool>,
        settings: &BTreeMap<String, Queue>,
    ) {
        let Trigger::Queue { queues } = &live.planned.trigger else { return };
        self.stop(place).await;
        let running = self.begin_queue(kind, pool, queues, settings);
        self.running.insert(place, running);
    }

    fn begin_queue(
        &self,
        kind: &ReleaseType,
        pool: &Arc<Pool>,
        queues: &[(String, u32)],
        settings: &BTreeMap<String, Queue>,
    ) -> Running {
        let process = &kind.planned.process;
        let trigger = Arc::new(QueueTrigger {
            pool: pool.clone(),
            jobs: self.jobs.in_line_of(&process.name),
            owner: self.owner.clone(),
            queues: queues.iter().map(|queue| claim_queue(settings, queue)).collect(),
            attempts: process.attempts,
            backoff: Backoff::List(process.backoff.as_slice().into()),
            limits: kind.limits(),
            claimed: self.claimed.clone(),
            ahead: Ahead::default(),
            complaints: Complaints::default(),
            log: JobLog::new(&Arc::from(process.name.as_str())),
            feed: self.feed.clone(),
            measures: self.measures.clone(),
        });
        let triggering = self.triggering();
        let run = trigger.run(triggering.clone());
        self.spawn(format!("the queue trigger of \"{}\"", process.name), triggering, None, run)
    }

    fn begin_schedule(
        &self,
        kind: &ReleaseType,
        pool: &Arc<Pool>,
        schedule: &Schedule,
        calls: TaskTracker,
    ) -> Running {
        let process = &kind.planned.process;
        let triggering = self.triggering();
        let timeline = Timeline {
            process: process.name.as_str().into(),
            schedule: schedule.clone(),
            ticks: self.ticks.clone(),
            clock: self.clock.clone(),
            owner: self.owner.clone(),
        };
        let trigger = Arc::new(ScheduleTrigger {
            timeline: Arc::new(timeline),
            pool: pool.clone(),
            limits: kind.limits(),
            wait_max: process.queue_timeout,
            calls,
            is_shared: self.is_shared,
            told_of_no_count: AtomicBool::new(false),
            triggering: triggering.clone(),
            host_intake: self.triggering.intake.clone(),
            feed: self.feed.clone(),
            traces: self.measures.traces().cloned(),
        });
        let schedule = Some((process.name.clone(), trigger.clone()));
        self.spawn(format!("the schedule of \"{}\"", process.name), triggering, schedule, trigger.run())
    }

    /// For one trigger: it can be stopped alone.
    fn triggering(&self) -> Triggering {
        Triggering { intake: self.triggering.intake.child_token(), ..self.triggering.clone() }
    }

    fn spawn(
        &self,
        name: String,
        triggering: Triggering,
        schedule: Option<(String, Arc<ScheduleTrigger>)>,
        run: impl Future<Output = ()> + Send + 'static,
    ) -> Running {
        let stop = triggering.intake;
        let ended = self.lasting.spawn_until(&self.tracker, name, stop.clone(), run);
        Running { stop, ended, schedule }
    }
}

fn claim_queue(settings: &BTreeMap<String, Queue>, (name, weight): &(String, u32)) -> ClaimQueue {
    let concurrency = settings.get(name).and_then(|settings| settings.concurrency);
    ClaimQueue { name: name.clone(), weight: *weight, concurrency }
}
