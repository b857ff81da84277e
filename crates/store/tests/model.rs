//! Both backends against a model that holds the state diagram of `jobs` and nothing else: random sequences of
//! operations, everything compared after each of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use wasmhost_store::jobs::{
    AfterFailure, Backoff, Claim, ClaimQueue, EnqueueError, Failure, JobId, JobState, Lease, LeasedJob,
    NewJob, QueueCounts, Retention, Settled, Unique, UniqueScope,
};
use wasmhost_store::{Clock, Jobs, ManualClock, MemoryStore, SqliteStore, Timestamp};

const QUEUES: [&str; 3] = ["a", "b", "c"];
const OWNERS: [&str; 3] = ["host/1", "host/2", "other/1"];

#[derive(Debug, Clone)]
enum Op {
    Enqueue(Vec<NewJob>),
    Claim { queues: Vec<usize>, owner: usize, limit: u32, lease: Duration, attempts: u32 },
    // Answers to the nth lease, counted back from the latest one; most of the early ones are stale.
    Complete(usize),
    Fail(usize, AfterFailure),
    Release(usize),
    Renew(Vec<usize>, Duration),
    FreeLeases(&'static str),
    Advance(Duration),
    Prune(Retention),
}

fn seconds(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_secs)
}

fn new_job() -> impl Strategy<Value = (NewJob, Option<Duration>)> {
    let key = option::weighted(0.4, 0..3u8).prop_map(|key| key.map(|key| format!("k{key}")));
    let depth = option::weighted(0.3, 0..6u64);
    let attempts = option::of(1..4u32);
    (0..3usize, option::of(seconds(0..60)), -1..2i16, key, attempts, depth).prop_map(
        |(queue, delay, priority, unique_key, attempts_max, max_depth)| {
            let queue = QUEUES[queue].to_string();
            let unique = unique_key.map(|key| Unique { key, scope: UniqueScope::Running });
            (NewJob { queue, priority, unique, attempts_max, max_depth, ..NewJob::default() }, delay)
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    // Delays are kept as times since the epoch here; `run` moves them to the clock's now.
    let jobs = vec(new_job(), 1..4).prop_map(|jobs| {
        let delayed = |(job, delay): (NewJob, Option<Duration>)| NewJob {
            run_at: delay.map(|delay| Timestamp(0) + delay),
            ..job
        };
        Op::Enqueue(jobs.into_iter().map(delayed).collect())
    });
    let claim = (vec(0..3usize, 1..4), 0..3usize, 1..4u32, seconds(1..60), 1..5u32).prop_map(
        |(queues, owner, limit, lease, attempts)| Op::Claim { queues, owner, limit, lease, attempts },
    );
    let then = prop_oneof![
        Just(AfterFailure::Retry),
        seconds(0..30).prop_map(AfterFailure::RetryAfter),
        Just(AfterFailure::Crash),
        Just(AfterFailure::Bury),
    ];
    let retention = (seconds(1..90), 0..5u64, seconds(1..90), 0..5u64).prop_map(
        |(done_for, done_max, dead_for, dead_max)| Retention { done_for, done_max, dead_for, dead_max },
    );
    prop_oneof![
        6 => jobs,
        8 => claim,
        3 => (0..6usize).prop_map(Op::Complete),
        6 => (0..6usize, then).prop_map(|(lease, then)| Op::Fail(lease, then)),
        2 => (0..6usize).prop_map(Op::Release),
        2 => (vec(0..6usize, 1..4), seconds(1..60)).prop_map(|(leases, lease)| Op::Renew(leases, lease)),
        1 => prop_oneof![Just("host/"), Just("host/1"), Just("other/"), Just("")].prop_map(Op::FreeLeases),
        6 => seconds(0..60).prop_map(Op::Advance),
        1 => retention.prop_map(Op::Prune),
    ]
}

#[derive(Debug, Clone)]
struct ModelJob {
    new: NewJob,
    state: JobState,
    run_at: Timestamp,
    attempt: u32,
    attempts_max: Option<u32>,
    crashes: u32,
    claim: i64,
    owner: &'static str,
    lease_until: Timestamp,
    ended_at: Option<Timestamp>,
}

impl ModelJob {
    /// The diagram: the only way that a state changes.
    fn go(&mut self, to: JobState) {
        use JobState::*;
        let allowed = match self.state {
            Scheduled | Retrying => matches!(to, Available),
            Available => matches!(to, Leased),
            Leased => matches!(to, Done | Retrying | Available | Dead),
            Done | Dead | Cancelled => false,
        };
        assert!(allowed, "the diagram has no way from {} to {to}", self.state);
        self.state = to;
    }

    fn end(&mut self, state: JobState, now: Timestamp) {
        self.go(state);
        self.ended_at = Some(now);
    }

    /// The attempt ended without an answer, and counts.
    fn interrupt(&mut self, now: Timestamp) {
        if Some(self.attempt) >= self.attempts_max {
            self.end(JobState::Dead, now);
        } else {
            self.go(JobState::Available);
        }
    }

    fn seen(&self, now: Timestamp) -> JobState {
        match self.state {
            JobState::Scheduled | JobState::Retrying if self.run_at <= now => JobState::Available,
            state => state,
        }
    }
}

#[derive(Default)]
struct Model {
    jobs: BTreeMap<JobId, ModelJob>,
    last_id: Option<JobId>,
    leases: Vec<Lease>,
}

impl Model {
    fn of_queue<'m>(&'m self, queue: &'m str) -> impl Iterator<Item = (&'m JobId, &'m ModelJob)> {
        self.jobs.iter().filter(move |(_, job)| job.new.queue == queue)
    }

    fn holder(&self, job: &NewJob) -> Option<JobId> {
        let key = &job.unique.as_ref()?.key;
        let mut holders = self.of_queue(&job.queue).filter(|(_, job)| !job.state.has_ended());
        holders
            .find(|(_, other)| other.new.unique.as_ref().is_some_and(|unique| unique.key == *key))
            .map(|(id, _)| *id)
    }

    fn depth(&self, queue: &str) -> u64 {
        use JobState::*;
        self.of_queue(queue).filter(|(_, job)| matches!(job.state, Scheduled | Available | Retrying)).count()
            as u64
    }

    fn enqueue(&mut self, job: NewJob, id: JobId, now: Timestamp) {
        assert!(Some(id) > self.last_id, "ids rise");
        self.last_id = Some(id);
        let run_at = job.run_at.unwrap_or(now);
        let state = if run_at > now { JobState::Scheduled } else { JobState::Available };
        self.jobs.insert(
            id,
            ModelJob {
                state,
                run_at,
                attempt: 0,
                attempts_max: job.attempts_max,
                crashes: 0,
                claim: 0,
                owner: "",
                lease_until: now,
                ended_at: None,
                new: job,
            },
        );
    }

    /// What a claim does to a queue before it takes anything.
    fn look_at(&mut self, queue: &str, now: Timestamp) {
        for job in self.jobs.values_mut().filter(|job| job.new.queue == queue) {
            match job.state {
                JobState::Leased if job.lease_until <= now => job.interrupt(now),
                JobState::Scheduled | JobState::Retrying if job.run_at <= now => job.go(JobState::Available),
                _ => {}
            }
        }
    }

    fn best(&self, queue: &str) -> Option<JobId> {
        let available = self.of_queue(queue).filter(|(_, job)| job.state == JobState::Available);
        available.min_by_key(|(id, job)| (-i32::from(job.new.priority), job.run_at, **id)).map(|(id, _)| *id)
    }

    /// Checks what was claimed: which queue came first is chance, all else is not.
    fn claimed(&mut self, claim: &Claim, owner: &'static str, jobs: &[LeasedJob], now: Timestamp) {
        claim.queues.iter().for_each(|queue| self.look_at(&queue.name, now));
        let mut left: Vec<&str> =
            QUEUES.into_iter().filter(|q| claim.queues.iter().any(|c| c.name == *q)).collect();
        for leased in jobs {
            // A queue is left for another only when it is empty.
            if let Some(at) = left.iter().position(|queue| *queue == leased.queue) {
                left.swap(0, at);
            }
            assert_eq!(Some(leased.lease.id), self.best(&leased.queue), "the best of the queue");
            let job = self.jobs.get_mut(&leased.lease.id).unwrap();
            job.go(JobState::Leased);
            job.claim += 1;
            job.attempt += 1;
            job.attempts_max = Some(job.new.attempts_max.unwrap_or(claim.attempts_default).max(job.attempt));
            job.owner = owner;
            job.lease_until = now + claim.lease;
            assert_eq!(leased.lease.claim, job.claim);
            assert_eq!(Some(leased.attempts_max), job.attempts_max);
            assert_eq!((leased.attempt, leased.crashes), (job.attempt, job.crashes));
            self.leases.push(leased.lease);
        }
        for pair in jobs.windows(2).filter(|pair| pair[0].queue != pair[1].queue) {
            assert_eq!(self.best(&pair[0].queue), None, "a queue is emptied before the next");
        }
        if jobs.len() < claim.limit as usize {
            assert!(left.iter().all(|queue| self.best(queue).is_none()), "as many as there are");
        }
    }

    fn lease(&self, back: usize) -> Lease {
        let none = Lease { id: JobId(999_999), claim: 1 };
        self.leases.iter().rev().nth(back).copied().unwrap_or(none)
    }

    fn held(&mut self, lease: Lease) -> Option<&mut ModelJob> {
        self.jobs.get_mut(&lease.id).filter(|job| job.state == JobState::Leased && job.claim == lease.claim)
    }

    fn failed(&mut self, lease: Lease, then: AfterFailure, settled: Settled, now: Timestamp) {
        let Some(job) = self.held(lease) else { return assert_eq!(settled, Settled::Stale) };
        job.crashes += u32::from(then == AfterFailure::Crash);
        let last = Some(job.attempt) >= job.attempts_max;
        let third = then == AfterFailure::Crash && job.crashes == 3;
        if last || third || then == AfterFailure::Bury {
            job.end(JobState::Dead, now);
            return assert_eq!(settled, Settled::Dead);
        }
        let Settled::Retrying(run_at) = settled else { panic!("{settled:?} with attempts left") };
        let base = match then {
            AfterFailure::RetryAfter(wait) => wait,
            _ => Duration::from_secs(u64::from(job.attempt).pow(4) + 15),
        };
        let jitter = if matches!(then, AfterFailure::RetryAfter(_)) { 0.0 } else { 0.1 };
        assert!(run_at >= now + base && run_at <= now + base.mul_f64(1.0 + jitter));
        job.go(JobState::Retrying);
        job.run_at = run_at;
    }

    fn prune(&mut self, retention: Retention, now: Timestamp) -> u64 {
        let before = self.jobs.len();
        for (dead, kept_for, kept_max) in
            [(false, retention.done_for, retention.done_max), (true, retention.dead_for, retention.dead_max)]
        {
            let of_kind = |job: &ModelJob| job.state.has_ended() && (job.state == JobState::Dead) == dead;
            self.jobs.retain(|_, job| !of_kind(job) || job.ended_at.unwrap() > now - kept_for);
            let mut oldest: Vec<_> = self
                .jobs
                .iter()
                .filter(|(_, job)| of_kind(job))
                .map(|(id, job)| (job.ended_at, *id))
                .collect();
            oldest.sort();
            oldest.truncate(oldest.len().saturating_sub(kept_max as usize));
            oldest.iter().for_each(|(_, id)| drop(self.jobs.remove(id)));
        }
        (before - self.jobs.len()) as u64
    }

    fn counts(&self, now: Timestamp) -> Vec<QueueCounts> {
        let mut all: BTreeMap<&str, QueueCounts> = BTreeMap::new();
        for job in self.jobs.values() {
            let counts = all.entry(&job.new.queue).or_default();
            counts.queue = job.new.queue.clone();
            *match job.seen(now) {
                JobState::Scheduled => &mut counts.scheduled,
                JobState::Available => &mut counts.available,
                JobState::Leased => &mut counts.leased,
                JobState::Retrying => &mut counts.retrying,
                JobState::Done => &mut counts.done,
                JobState::Dead => &mut counts.dead,
                JobState::Cancelled => &mut counts.cancelled,
            } += 1;
        }
        all.into_values().collect()
    }

    fn next_due(&self, queue: &str) -> Option<Timestamp> {
        let due = |job: &ModelJob| match job.state {
            JobState::Scheduled | JobState::Retrying => Some(job.run_at),
            JobState::Leased => Some(job.lease_until),
            _ => None,
        };
        self.of_queue(queue).filter_map(|(_, job)| due(job)).min()
    }
}

async fn apply(store: &impl Jobs, model: &mut Model, clock: &ManualClock, op: Op) {
    let now = clock.now();
    match op {
        Op::Enqueue(mut jobs) => {
            for job in &mut jobs {
                job.run_at = job.run_at.map(|at| now + at.since(Timestamp(0)));
            }
            enqueue(store, model, jobs, now).await;
        }
        Op::Claim { queues, owner, limit, lease, attempts } => {
            let queues = queues
                .into_iter()
                .map(|queue| ClaimQueue { name: QUEUES[queue].to_string(), weight: 1, concurrency: None })
                .collect();
            let owner = OWNERS[owner];
            let claim = Claim { owner: owner.to_string(), queues, limit, lease, attempts_default: attempts };
            let jobs = store.claim(claim.clone()).await.unwrap();
            model.claimed(&claim, owner, &jobs, now);
        }
        Op::Complete(back) => {
            let lease = model.lease(back);
            let settled = store.complete(lease).await.unwrap();
            let held = model.held(lease).map(|job| job.end(JobState::Done, now));
            assert_eq!(settled, held.map_or(Settled::Stale, |()| Settled::Done));
        }
        Op::Fail(back, then) => {
            let lease = model.lease(back);
            let settled = store
                .fail(lease, Failure { then, message: "no".to_string(), backoff: Backoff::Curve })
                .await
                .unwrap();
            model.failed(lease, then, settled, now);
        }
        Op::Release(back) => {
            let lease = model.lease(back);
            let settled = store.release(lease).await.unwrap();
            let held = model.held(lease).map(|job| {
                job.go(JobState::Available);
                job.attempt -= 1;
            });
            assert_eq!(settled, held.map_or(Settled::Stale, |()| Settled::Released));
        }
        Op::Renew(back, duration) => {
            let leases: Vec<Lease> = back.into_iter().map(|back| model.lease(back)).collect();
            let lost = store.renew(leases.clone(), duration).await.unwrap();
            let mut lost_here = leases;
            lost_here.retain(|lease| match model.held(*lease) {
                Some(job) => {
                    job.lease_until = now + duration;
                    false
                }
                None => true,
            });
            assert_eq!(lost, lost_here);
        }
        Op::FreeLeases(prefix) => {
            let freed = store.free_leases(prefix).await.unwrap();
            let owned = |job: &&mut ModelJob| job.state == JobState::Leased && job.owner.starts_with(prefix);
            let freed_here = model.jobs.values_mut().filter(owned).map(|job| job.interrupt(now)).count();
            assert_eq!(freed, freed_here as u64);
        }
        Op::Advance(by) => clock.advance(by),
        Op::Prune(retention) => {
            let deleted = store.prune(retention).await.unwrap();
            assert_eq!(deleted, model.prune(retention, now));
        }
    }
}

async fn enqueue(store: &impl Jobs, model: &mut Model, jobs: Vec<NewJob>, now: Timestamp) {
    let result = store.enqueue(jobs.clone()).await;
    // What the model would do, on a copy, job by job.
    let depths: BTreeMap<&str, u64> = QUEUES.into_iter().map(|queue| (queue, model.depth(queue))).collect();
    let mut trial = Model { jobs: model.jobs.clone(), last_id: model.last_id, leases: Vec::new() };
    let mut expected = Vec::new();
    for (n, job) in jobs.into_iter().enumerate() {
        if let Some(id) = trial.holder(&job) {
            expected.push((id, false));
            continue;
        }
        if job.max_depth.is_some_and(|max| trial.depth(&job.queue) >= max) {
            let depth = depths[job.queue.as_str()];
            assert_eq!(result, Err(EnqueueError::Full { queue: job.queue, depth }));
            return;
        }
        // Where a later one is refused, this one got no id.
        let next = JobId(trial.last_id.map_or(1, |id| id.0 + 1));
        let id = result.as_ref().map_or(next, |receipts| receipts[n].id);
        trial.enqueue(job, id, now);
        expected.push((id, true));
    }
    let receipts: Vec<_> = result.unwrap().iter().map(|receipt| (receipt.id, receipt.created)).collect();
    assert_eq!(receipts, expected);
    (model.jobs, model.last_id) = (trial.jobs, trial.last_id);
}

/// Everything that can be asked has the model's answer.
async fn compare(store: &impl Jobs, model: &Model, now: Timestamp) {
    for id in (1..=model.last_id.map_or(0, |id| id.0)).map(JobId) {
        let view = store.get(id).await.unwrap().map(|detail| detail.view);
        let Some(job) = model.jobs.get(&id) else {
            assert!(view.is_none(), "{id} was deleted");
            continue;
        };
        let view = view.unwrap_or_else(|| panic!("{id} is there"));
        assert_eq!(
            (view.state, view.run_at, view.ended_at),
            (job.seen(now), job.run_at, job.ended_at),
            "{id}"
        );
        assert_eq!((view.attempt, view.attempts_max), (job.attempt, job.attempts_max), "{id}");
        assert_eq!((view.claim, view.crashes), (job.claim, job.crashes), "{id}");
    }
    let mut counts = store.counts().await.unwrap();
    counts.iter_mut().for_each(|counts| counts.oldest_waiting = None);
    assert_eq!(counts, model.counts(now));
    for queue in QUEUES {
        assert_eq!(store.next_due(&[queue.to_string()]).await.unwrap(), model.next_due(queue));
    }
}

fn run<S: Jobs>(ops: Vec<Op>, open: impl FnOnce(Arc<ManualClock>) -> S) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let clock = Arc::new(ManualClock::new(Timestamp(1_767_225_600_000)));
        let store = open(Arc::clone(&clock));
        let mut model = Model::default();
        for op in ops {
            apply(&store, &mut model, &clock, op).await;
            compare(&store, &model, clock.now()).await;
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]
    #[test]
    fn memory_agrees_with_the_model(ops in vec(op(), 1..80)) {
        run(ops, |clock| MemoryStore::with_clock(clock));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) })]
    #[test]
    fn sqlite_agrees_with_the_model(ops in vec(op(), 1..80)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        run(ops, |clock| SqliteStore::open_with_clock(&path, clock).unwrap());
    }
}
