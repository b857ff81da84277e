//! The counts of process types, queues and deploys. They are raised where the work is done, and metrics are written from them
//! when somebody asks. Present things (instances, their states, memory) aren't counted here: the supervisor knows
//! it.
//!
//! A type's counts go on from release to release, also where a canary has its name for a while. They end with the last
//! instance of a type that no release has any more. There are as many as the formation has types and queues: nothing that
//! a client or a guest sends makes one.

pub(crate) mod histogram;
mod requests;
mod shards;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use wasmhost_engine::services::Refusal;
use wasmhost_store::jobs::Settled;
use wasmhost_store::ticks::TickEnd;

use crate::admin::api::{CrashCause, DeployEvent};
use crate::telemetry;
use crate::traces::Traces;
use histogram::{Buckets, WORK};
pub(crate) use requests::{Answered, Outcome, RequestCounts};

/// The type of requests that no type has. No process type can be called so.
pub(crate) const NO_TYPE: &str = "_none";

/// The queue that stands for all queues that the formation doesn't name. No queue can be called so.
pub(crate) const OTHER_QUEUES: &str = "_other";

/// Bits of those who may ask.
const WANTED_BY_METRICS: u8 = 1;
const WANTED_BY_HISTORY: u8 = 2;
const WANTED_BY_EXPORT: u8 = 4;

/// See the module.
pub(crate) struct Measures {
    /// Those who may ask, a bit each: requests aren't timed where there is none.
    wanted_by: AtomicU8,
    types: Mutex<HashMap<Arc<str>, Arc<TypeCounts>>>,
    queues: Mutex<BTreeMap<String, Arc<QueueCounts>>>,
    other_queues: Arc<QueueCounts>,
    /// Requests that no type has.
    pub(crate) unrouted: Arc<TypeCounts>,
    pub(crate) connections_accepted: AtomicU64,
    pub(crate) connections_refused: AtomicU64,
    deploys: [AtomicU64; DEPLOYS.len()],
    /// Where traces are on.
    traces: Option<Arc<Traces>>,
    pub(crate) telemetry: Arc<telemetry::Counts>,
}

/// How deploys end.
pub(crate) const DEPLOYS: [&str; 5] = ["live", "unchanged", "canary", "aborted", "failed"];

impl Measures {
    pub(crate) fn new() -> Arc<Measures> {
        Measures::with(false, None, Arc::default())
    }

    /// With what sends metrics and traces elsewhere: requests are timed, then, also where nobody can ask here.
    pub(crate) fn with(
        is_exported: bool,
        traces: Option<Arc<Traces>>,
        telemetry: Arc<telemetry::Counts>,
    ) -> Arc<Measures> {
        Arc::new(Measures {
            wanted_by: AtomicU8::new(if is_exported { WANTED_BY_EXPORT } else { 0 }),
            types: Mutex::default(),
            queues: Mutex::default(),
            other_queues: Arc::default(),
            unrouted: TypeCounts::new(),
            connections_accepted: AtomicU64::new(0),
            connections_refused: AtomicU64::new(0),
            deploys: Default::default(),
            traces,
            telemetry,
        })
    }

    /// The traces, where they are on.
    pub(crate) fn traces(&self) -> Option<&Arc<Traces>> {
        self.traces.as_ref()
    }

    pub(crate) fn is_on(&self) -> bool {
        self.wanted_by.load(Relaxed) != 0
    }

    /// Metrics can be asked for from now on, or not any more.
    pub(crate) fn turn_on(&self, is_on: bool) {
        self.want(WANTED_BY_METRICS, is_on);
    }

    /// Somebody looks at the last hour from now on, or nobody.
    pub(crate) fn watch(&self, is_watched: bool) {
        self.want(WANTED_BY_HISTORY, is_watched);
    }

    fn want(&self, who: u8, wants: bool) {
        match wants {
            true => self.wanted_by.fetch_or(who, Relaxed),
            false => self.wanted_by.fetch_and(!who, Relaxed),
        };
    }

    /// The counts of a type of the formation.
    pub(crate) fn of(&self, process: &Arc<str>) -> Arc<TypeCounts> {
        let mut types = self.types();
        if let Some(known) = types.get(process) {
            return known.clone();
        }
        types.entry(process.clone()).or_insert_with(TypeCounts::new).clone()
    }

    /// There is no such type any more. One that comes in its name later begins anew.
    pub(crate) fn forget(&self, process: &str) {
        self.types().remove(process);
    }

    /// The formation names these queues from now on, and no others.
    pub(crate) fn keep_queues(&self, names: &BTreeSet<String>) {
        let mut queues = self.queues();
        queues.retain(|name, _| names.contains(name));
        for name in names.iter().filter(|name| !queues.contains_key(*name)).cloned().collect::<Vec<_>>() {
            queues.insert(name, Arc::default());
        }
    }

    /// The counts of a queue: its own, if the formation names it.
    pub(crate) fn queue(&self, name: &str) -> Arc<QueueCounts> {
        self.queues().get(name).unwrap_or(&self.other_queues).clone()
    }

    /// All queues by their names, and those that have none.
    pub(crate) fn all_queues(&self) -> BTreeMap<String, Arc<QueueCounts>> {
        let mut all = self.queues().clone();
        all.insert(OTHER_QUEUES.to_owned(), self.other_queues.clone());
        all
    }

    /// A deploy has ended so.
    pub(crate) fn deployed(&self, end: &DeployEvent) {
        let result = match end {
            DeployEvent::Live { .. } => 0,
            DeployEvent::Unchanged { .. } => 1,
            DeployEvent::Canary { .. } => 2,
            DeployEvent::Aborted { .. } => 3,
            DeployEvent::Failed { .. } => 4,
            _ => return,
        };
        self.deploys[result].fetch_add(1, Relaxed);
    }

    pub(crate) fn deploys(&self) -> impl Iterator<Item = (&'static str, u64)> {
        DEPLOYS.into_iter().zip(&self.deploys).map(|(result, count)| (result, count.load(Relaxed)))
    }

    fn types(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<TypeCounts>>> {
        // No code that runs under the lock panics.
        self.types.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    fn queues(&self) -> MutexGuard<'_, BTreeMap<String, Arc<QueueCounts>>> {
        self.queues.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

/// The counts of one type.
pub(crate) struct TypeCounts {
    pub(crate) requests: RequestCounts,
    starts: AtomicU64,
    restarts: [AtomicU64; CAUSES.len()],
    /// Planned replacements in places that the supervisor has given up.
    recycled_before: AtomicU64,
    /// CPU time of instances that are gone.
    cpu_before_ns: AtomicU64,
    refusals: [AtomicU64; GRANTS.len()],
    ticks: [AtomicU64; TICKS.len()],
    pub(crate) lateness: Buckets,
    pub(crate) claims: Buckets,
}

/// Causes of restarts, as the admin API names them.
pub(crate) const CAUSES: [&str; 6] = ["trap", "exit", "out_of_memory", "timeout", "out_of_cpu", "other"];

/// Grants that a guest may lack.
pub(crate) const GRANTS: [&str; 7] =
    ["outbound", "lookup", "enqueue", "network", "write", "max_bytes", "near"];

/// How ticks end.
pub(crate) const TICKS: [&str; 4] = ["done", "failed", "skipped", "interrupted"];

impl TypeCounts {
    pub(crate) fn new() -> Arc<TypeCounts> {
        Arc::new(TypeCounts {
            requests: RequestCounts::new(),
            starts: AtomicU64::new(0),
            restarts: Default::default(),
            recycled_before: AtomicU64::new(0),
            cpu_before_ns: AtomicU64::new(0),
            refusals: Default::default(),
            ticks: Default::default(),
            lateness: Buckets::default(),
            claims: Buckets::default(),
        })
    }

    /// An instance has started.
    pub(crate) fn started(&self) {
        self.starts.fetch_add(1, Relaxed);
    }

    /// An instance is started again, since the one before died of this.
    pub(crate) fn restarted(&self, cause: CrashCause) {
        let cause = match cause {
            CrashCause::Trap => 0,
            CrashCause::Exit => 1,
            CrashCause::OutOfMemory => 2,
            CrashCause::Timeout => 3,
            CrashCause::OutOfCpu => 4,
            CrashCause::Other => 5,
        };
        self.restarts[cause].fetch_add(1, Relaxed);
    }

    /// An instance that used so much is gone.
    pub(crate) fn gone(&self, cpu: Duration) {
        self.cpu_before_ns.fetch_add(u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// A place of the supervisor is gone, in which there were so many planned replacements.
    pub(crate) fn left(&self, recycled: u64) {
        self.recycled_before.fetch_add(recycled, Relaxed);
    }

    pub(crate) fn refused(&self, refusal: &Refusal) {
        let grant = match refusal {
            Refusal::Outbound(_) => 0,
            Refusal::Lookup(_) => 1,
            Refusal::Enqueue(_) => 2,
            Refusal::Network => 3,
            Refusal::Write(_) => 4,
            Refusal::Full { .. } => 5,
            Refusal::Near(_) => 6,
        };
        self.refusals[grant].fetch_add(1, Relaxed);
    }

    pub(crate) fn ticked(&self, end: &TickEnd) {
        let result = match end {
            TickEnd::Done => 0,
            TickEnd::Failed(_) => 1,
            TickEnd::Skipped(_) => 2,
            TickEnd::Interrupted(_) => 3,
        };
        self.ticks[result].fetch_add(1, Relaxed);
    }

    /// A tick's call begins so late.
    pub(crate) fn tick_was_late(&self, by: Duration) {
        self.lateness.note(&WORK, by);
    }

    /// The store has answered a claim after this time.
    pub(crate) fn claimed(&self, took: Duration) {
        self.claims.note(&histogram::REQUESTS, took);
    }

    // --- for those who ask

    pub(crate) fn starts(&self) -> u64 {
        self.starts.load(Relaxed) + self.requests.fresh_starts()
    }

    pub(crate) fn restarts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        CAUSES.into_iter().zip(&self.restarts).map(|(cause, count)| (cause, count.load(Relaxed)))
    }

    pub(crate) fn recycled_before(&self) -> u64 {
        self.recycled_before.load(Relaxed)
    }

    pub(crate) fn cpu_before(&self) -> Duration {
        Duration::from_nanos(self.cpu_before_ns.load(Relaxed))
    }

    pub(crate) fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        GRANTS.into_iter().zip(&self.refusals).map(|(grant, count)| (grant, count.load(Relaxed)))
    }

    pub(crate) fn ticks(&self) -> impl Iterator<Item = (&'static str, u64)> {
        TICKS.into_iter().zip(&self.ticks).map(|(result, count)| (result, count.load(Relaxed)))
    }
}

/// The counts of one queue.
#[derive(Default)]
pub(crate) struct QueueCounts {
    enqueued: AtomicU64,
    results: [AtomicU64; JOBS.len()],
    pub(crate) runs: Buckets,
}

/// How attempts of jobs end.
pub(crate) const JOBS: [&str; 6] = ["done", "retrying", "dead", "interrupted", "stale", "lost"];

impl QueueCounts {
    pub(crate) fn enqueued(&self, jobs: u64) {
        self.enqueued.fetch_add(jobs, Relaxed);
    }

    /// A job's call took so long.
    pub(crate) fn ran(&self, time: Duration) {
        self.runs.note(&WORK, time);
    }

    /// An attempt has ended, and this is what the store made of it; nothing where it could not be stored.
    pub(crate) fn settled(&self, settled: Option<Settled>) {
        let result = match settled {
            Some(Settled::Done) => 0,
            Some(Settled::Retrying(_)) => 1,
            Some(Settled::Dead) => 2,
            Some(Settled::Released) => 3,
            Some(Settled::Stale) => 4,
            None => 5,
        };
        self.results[result].fetch_add(1, Relaxed);
    }

    // --- for those who ask

    pub(crate) fn total_enqueued(&self) -> u64 {
        self.enqueued.load(Relaxed)
    }

    pub(crate) fn results(&self) -> impl Iterator<Item = (&'static str, u64)> {
        JOBS.into_iter().zip(&self.results).map(|(result, count)| (result, count.load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_goes_on_until_it_is_forgotten() {
        let measures = Measures::new();
        let web: Arc<str> = "web".into();
        measures.of(&web).started();
        measures.of(&"web".into()).started();
        assert_eq!(measures.of(&web).starts(), 2);
        measures.forget("web");
        assert_eq!(measures.of(&web).starts(), 0);
    }

    #[test]
    fn requests_are_measured_as_long_as_anybody_may_ask() {
        let measures = Measures::new();
        assert!(!measures.is_on());
        measures.turn_on(true);
        measures.watch(true);
        measures.turn_on(false);
        assert!(measures.is_on(), "somebody looks at the last hour");
        measures.watch(false);
        assert!(!measures.is_on());
    }

    #[test]
    fn queues_that_the_formation_does_not_name_are_one() {
        let measures = Measures::new();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        measures.keep_queues(&names(&["mail"]));
        measures.queue("mail").enqueued(1);
        for n in 0..1_000 {
            measures.queue(&format!("made-up-{n}")).enqueued(1);
        }
        let all = measures.all_queues();
        let count: Vec<_> = all.iter().map(|(name, counts)| (&**name, counts.total_enqueued())).collect();
        assert_eq!(count, [(OTHER_QUEUES, 1_000), ("mail", 1)]);
        measures.keep_queues(&names(&["mail", "other"]));
        assert_eq!(measures.queue("mail").total_enqueued(), 1, "it goes on");
        measures.keep_queues(&names(&["other"]));
        assert_eq!(measures.all_queues().len(), 2);
    }
}
