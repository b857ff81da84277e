//! The last hour of a host: a sample each 5 s of what its types and queues do, for whoever looks at it without a Prometheus.
//! A task reads the counts that metrics are written from, so that no call has anything to do with it.
//!
//! How long requests take is only measured where somebody wants to know: where there is a `[health]`, or as long as somebody
//! asks here.

mod kept;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};
use wasmhost_store::jobs::QueueCounts as Stored;
use wasmhost_store::{Jobs, StoreError, Timestamp};

use crate::admin::api::HistoryView;
use crate::host::Lasting;
use crate::measures::histogram::{REQUESTS, WORK};
use crate::measures::{Measures, Outcome, QueueCounts, TypeCounts};
use crate::services::Queues;
use crate::supervisor::{Action, TypeMeasure};
use kept::{Calls, Kept, QueueReading, TypeReading};

/// The time between two samples.
const EVERY: Duration = Duration::from_secs(5);

/// How long the store may take to say how many jobs wait. A sample does without it.
const STORE_MAX: Duration = Duration::from_secs(1);

/// How long requests are still measured when nobody asks any more.
const UNASKED_MAX: Duration = Duration::from_secs(3_600);

/// See the module.
pub(crate) struct History {
    measures: Arc<Measures>,
    kept: Mutex<Kept>,
    /// Somebody has asked since the last sample.
    asked: AtomicBool,
}

/// The parts of the host that are looked at.
struct Sources {
    actions: mpsc::Sender<Action>,
    jobs: Arc<dyn Jobs>,
    queues: Arc<Queues>,
}

impl History {
    /// Takes samples from now on.
    pub(crate) fn begin(
        lasting: &Lasting,
        measures: Arc<Measures>,
        actions: &mpsc::Sender<Action>,
        jobs: &Arc<dyn Jobs>,
        queues: &Arc<Queues>,
    ) -> Arc<History> {
        let history = History { measures, kept: Mutex::default(), asked: AtomicBool::new(false) };
        let history = Arc::new(history);
        let (actions, jobs, queues) = (actions.clone(), jobs.clone(), queues.clone());
        let keep = history.clone().keep(Sources { actions, jobs, queues });
        lasting.spawn("what keeps the last hour", keep);
        history
    }

    /// The samples behind the one of this number, for one who will ask again.
    pub(crate) fn view(&self, after: u64) -> HistoryView {
        self.measures.watch(true);
        self.asked.store(true, Relaxed);
        self.lock().view(EVERY, after)
    }

    /// Takes samples, as long as the host lasts.
    async fn keep(self: Arc<Self>, sources: Sources) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut store = Store { jobs: sources.jobs.clone(), asking: None };
        let (mut last, mut asked_at) = (Instant::now(), Instant::now());
        loop {
            ticks.tick().await;
            let Some(types) = measure(&sources.actions).await else { return std::future::pending().await };
            let stored = store.counts().await;
            let queues = self.measures.all_queues();
            let of_types = self.types(&types, &queues, stored.as_deref(), &sources.queues);
            let of_queues = queues.iter().map(|(name, counts)| (name.clone(), queue(name, counts, &stored)));
            let (now, of_queues) = (Instant::now(), of_queues.collect());
            self.lock().add(Timestamp::now(), now - last, of_types, of_queues);
            last = now;
            if self.asked.swap(false, Relaxed) {
                asked_at = now;
            } else if now - asked_at > UNASKED_MAX {
                self.measures.watch(false);
            }
        }
    }

    /// Each type, in all of its versions together.
    fn types(
        &self,
        measures: &[TypeMeasure],
        queues: &BTreeMap<String, Arc<QueueCounts>>,
        stored: Option<&[Stored]>,
        known: &Queues,
    ) -> Vec<(String, TypeReading)> {
        let mut types: BTreeMap<&str, TypeReading> = BTreeMap::new();
        for version in measures {
            let kind = types.entry(&version.process).or_insert_with(|| {
                let worked: Vec<_> = queues
                    .iter()
                    .filter(|(name, _)| known.workers(name).iter().any(|worker| **worker == *version.process))
                    .collect();
                TypeReading {
                    trigger: version.trigger,
                    calls: self.calls(version, &worked),
                    cpu: version.counts().cpu_before(),
                    memory_bytes: 0,
                    serving: 0,
                    waiting: worked.iter().filter_map(|(name, _)| waiting(name, stored?)).sum(),
                }
            });
            kind.cpu += version.cpu;
            kind.memory_bytes += version.memory_bytes;
            kind.serving += version.serving();
            kind.waiting += version.waiting;
        }
        types.into_iter().map(|(name, reading)| (name.to_owned(), reading)).collect()
    }

    fn calls(&self, version: &TypeMeasure, worked: &[(&String, &Arc<QueueCounts>)]) -> Option<Calls> {
        match version.trigger {
            "http" => self.measures.is_on().then(|| requests(version.counts())),
            "queue" => Some(jobs(worked)),
            "schedule" => {
                let count = |wanted: &[&str]| {
                    version.counts().ticks().filter(|(end, _)| wanted.contains(end)).map(|(_, n)| n).sum()
                };
                Some(Calls { ended: count(&["done", "failed"]), failed: count(&["failed"]), times: None })
            }
            _ => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // No code that runs under the lock panics.
        self.kept.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

/// The types as the supervisor has them. None when there is no supervisor any more.
async fn measure(actions: &mpsc::Sender<Action>) -> Option<Vec<TypeMeasure>> {
    let (reply, answer) = oneshot::channel();
    actions.send(Action::Measure { reply }).await.ok()?;
    answer.await.ok()
}

fn requests(counts: &TypeCounts) -> Calls {
    let of = |wanted: fn(&Outcome) -> bool| {
        Outcome::all().filter(wanted).map(|outcome| counts.requests.of_outcome(outcome)).sum()
    };
    Calls {
        ended: of(|_| true),
        failed: of(|outcome| outcome.status() == "5xx"),
        times: Some((&REQUESTS, counts.requests.durations())),
    }
}

/// Attempts at jobs of these queues, whichever type made them.
fn jobs(queues: &[(&String, &Arc<QueueCounts>)]) -> Calls {
    let mut calls = Calls { ended: 0, failed: 0, times: None };
    for (_, counts) in queues {
        let (done, failed) = ends(counts);
        calls.ended += done + failed;
        calls.failed += failed;
        let runs = counts.runs.read();
        calls.times = Some(match calls.times {
            Some((bounds, before)) => (bounds, before.and(&runs)),
            None => (&WORK, runs),
        });
    }
    calls
}

/// Attempts that went well, and those that didn't.
fn ends(counts: &QueueCounts) -> (u64, u64) {
    let (mut done, mut failed) = (0, 0);
    for (end, count) in counts.results() {
        match end {
            "done" => done += count,
            "retrying" | "dead" | "lost" => failed += count,
            _ => {}
        }
    }
    (done, failed)
}

fn queue(name: &str, counts: &QueueCounts, stored: &Option<Vec<Stored>>) -> QueueReading {
    let (done, failed) = ends(counts);
    // A queue without a row has no jobs.
    let waiting = stored.as_deref().map(|stored| waiting(name, stored).unwrap_or(0));
    QueueReading { enqueued: counts.total_enqueued(), done, failed, waiting }
}

/// Jobs that are due, and wait for an instance.
fn waiting(queue: &str, stored: &[Stored]) -> Option<u64> {
    stored.iter().find(|counts| counts.queue == queue).map(|counts| counts.available)
}

/// One question at a time: a store that hangs is waited for once.
struct Store {
    jobs: Arc<dyn Jobs>,
    asking: Option<JoinHandle<Result<Vec<Stored>, StoreError>>>,
}

impl Store {
    async fn counts(&mut self) -> Option<Vec<Stored>> {
        let jobs = self.jobs.clone();
        let mut asking =
            self.asking.take().unwrap_or_else(|| tokio::spawn(async move { jobs.counts().await }));
        match tokio::time::timeout(STORE_MAX, &mut asking).await {
            Ok(answer) => answer.ok()?.ok(),
            Err(_) => {
                self.asking = Some(asking);
                None
            }
        }
    }
}
