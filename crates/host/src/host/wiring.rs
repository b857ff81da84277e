//! Each type gets its pool, what calls it (routes or a trigger), and what the supervisor has to know of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use wasmhost_config::{Isolation, Queue, Route, Run, Trigger};
use wasmhost_engine::{CallLimits, Component, Handler};
use wasmhost_store::SystemClock;
use wasmhost_store::jobs::{Backoff, ClaimQueue};

use super::lasting::Lasting;
use super::loading::Loaded;
use super::store::Store;
use crate::event::Event;
use crate::ingress::{FailureLog, Web};
use crate::plan::{BACKLOG_PER_INSTANCE, CONCURRENCY_DEFAULT, Plan, PlannedType};
use crate::pool::{Keeping, Learned, Pool, PoolParts, Subject};
use crate::supervisor::{Backlog, Supervised};
use crate::trigger::Triggering;
use crate::trigger::ahead::Ahead;
use crate::trigger::claimed::ClaimedJobs;
use crate::trigger::job_log::JobLog;
use crate::trigger::queue::{Complaints, QueueTrigger};
use crate::trigger::schedule::{ScheduleTrigger, Timeline};

/// A type that is ready to be supervised and triggered.
pub(super) struct Wired {
    planned: PlannedType,
    component: Component,
    pool: Arc<Pool>,
    name: Arc<str>,
}

impl Wired {
    pub(super) fn new(
        type_index: usize,
        loaded: Loaded,
        learned: &Arc<Learned>,
        events: &mpsc::UnboundedSender<Event>,
        calls: &TaskTracker,
    ) -> Wired {
        let Loaded { planned, component, digest } = loaded;
        let line_max = backlog(&planned).line_max(planned.count());
        let name: Arc<str> = planned.process.name.as_str().into();
        let pool = Pool::new(PoolParts {
            type_index,
            name: name.clone(),
            component: component.clone(),
            keeping: keeping(&planned),
            learned: learned.clone(),
            subject: Subject { component: digest, process: name.clone() },
            line_max,
            events: events.clone(),
            calls: calls.clone(),
        });
        Wired { name, planned, component, pool }
    }

    fn limits(&self) -> CallLimits {
        limits(&self.planned)
    }

    pub(super) fn supervised(&self, counts: &BTreeMap<String, u32>) -> Supervised {
        let (trigger, scalable) = match self.planned.trigger {
            Trigger::Http { .. } => ("http", true),
            Trigger::Queue { .. } => ("queue", true),
            Trigger::Schedule(_) => ("schedule", true),
            Trigger::Command { run: Run::Always } => ("command", true),
            Trigger::Command { run: Run::Release } => ("release", false),
            Trigger::Command { run: Run::Never } => ("manual", false),
        };
        let count_in_file = self.planned.count();
        let live = counts.get(&*self.name).copied().filter(|_| scalable);
        Supervised {
            name: self.name.clone(),
            trigger,
            component: self.component.clone(),
            pool: self.pool.clone(),
            count_in_file,
            count: live.unwrap_or(count_in_file),
            backlog: backlog(&self.planned),
            runs_always: self.planned.runs_always(),
            max_age: self.planned.process.max_age,
            scalable,
            limits: self.limits(),
        }
    }
}

pub(super) fn limits(planned: &PlannedType) -> CallLimits {
    CallLimits { timeout: planned.timeout, cpu: planned.process.cpu }
}

/// A command's `main` can be entered once, and one call is what `max_calls = 1` says too.
fn keeping(planned: &PlannedType) -> Keeping {
    let process = &planned.process;
    let fresh_each_call = process.isolation == Some(Isolation::Call)
        || process.max_calls == Some(1)
        || planned.handler.is_command();
    Keeping {
        fresh_each_call,
        learns: process.isolation.is_none(),
        // Those of a place are counted together there, and each is fresh anyway.
        max_calls: process.max_calls.filter(|_| !fresh_each_call),
        max_age: process.max_age,
        concurrency: match planned.handler {
            Handler::Http03 | Handler::AsyncJob | Handler::AsyncTick => {
                process.concurrency.unwrap_or(CONCURRENCY_DEFAULT)
            }
            _ => 1,
        },
    }
}

fn backlog(planned: &PlannedType) -> Backlog {
    match planned.process.backlog {
        Some(all) => Backlog::InAll(all),
        None => Backlog::PerInstance(BACKLOG_PER_INSTANCE),
    }
}

pub(super) fn routes(wired: &[Wired]) -> Vec<(Route, Arc<Web>)> {
    let mut routes = Vec::new();
    for wired in wired {
        let Trigger::Http { routes: of_type } = &wired.planned.trigger else { continue };
        let web = Arc::new(Web {
            pool: wired.pool.clone(),
            limits: wired.limits(),
            wait_max: wired.planned.process.queue_timeout,
            failures: FailureLog::new(wired.name.clone()),
            body_bytes_max: wired.planned.process.body_bytes_max,
        });
        routes.extend(of_type.iter().map(|route| (route.clone(), web.clone())));
    }
    routes
}

/// The triggers of all types. Each runs until intake ends.
pub(super) struct Triggers {
    pub(super) tracker: TaskTracker,
    pub(super) lasting: Lasting,
}

impl Triggers {
    pub(super) fn spawn(&self, name: impl Into<String>, task: impl Future<Output = ()> + Send + 'static) {
        self.lasting.spawn_on(&self.tracker, name, task);
    }

    /// Returns the schedules, by their types' names.
    pub(super) fn spawn_all(
        &self,
        wired: &[Wired],
        store: &Store,
        owner: &str,
        settings: &BTreeMap<String, Queue>,
        claimed: &Arc<ClaimedJobs>,
        triggering: &Triggering,
    ) -> HashMap<String, Arc<ScheduleTrigger>> {
        let mut schedules = HashMap::new();
        for wired in wired {
            match &wired.planned.trigger {
                Trigger::Queue { queues } => {
                    let trigger = Arc::new(QueueTrigger {
                        pool: wired.pool.clone(),
                        jobs: store.jobs.clone(),
                        owner: owner.to_owned(),
                        queues: queues.iter().map(|queue| claim_queue(settings, queue)).collect(),
                        attempts: wired.planned.process.attempts,
                        backoff: Backoff::List(wired.planned.process.backoff.as_slice().into()),
                        limits: wired.limits(),
                        claimed: claimed.clone(),
                        ahead: Ahead::default(),
                        complaints: Complaints::default(),
                        log: JobLog::new(&wired.name),
                    });
                    let name = format!("the queue trigger of \"{}\"", wired.name);
                    self.spawn(name, trigger.run(triggering.clone()));
                }
                Trigger::Schedule(schedule) => {
                    let timeline = Timeline {
                        process: wired.name.clone(),
                        schedule: schedule.clone(),
                        ticks: store.ticks.clone(),
                        clock: Arc::new(SystemClock::new()),
                        owner: owner.to_owned(),
                    };
                    let trigger = Arc::new(ScheduleTrigger {
                        timeline: Arc::new(timeline),
                        pool: wired.pool.clone(),
                        limits: wired.limits(),
                        wait_max: wired.planned.process.queue_timeout,
                        calls: TaskTracker::new(),
                        told_of_no_count: AtomicBool::new(false),
                        triggering: triggering.clone(),
                    });
                    self.spawn(format!("the schedule of \"{}\"", wired.name), trigger.clone().run());
                    schedules.insert(wired.name.to_string(), trigger);
                }
                Trigger::Http { .. } | Trigger::Command { .. } => {}
            }
        }
        schedules
    }
}

/// The types that work each queue.
pub(super) fn workers(plan: &Plan) -> BTreeMap<String, Vec<String>> {
    let mut workers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for planned in &plan.types {
        let Trigger::Queue { queues } = &planned.trigger else { continue };
        for (queue, _) in queues {
            workers.entry(queue.clone()).or_default().push(planned.process.name.clone());
        }
    }
    workers
}

fn claim_queue(settings: &BTreeMap<String, Queue>, (name, weight): &(String, u32)) -> ClaimQueue {
    let concurrency = settings.get(name).and_then(|settings| settings.concurrency);
    ClaimQueue { name: name.clone(), weight: *weight, concurrency }
}
