//! The store, with a file and without one, against a model that holds the rules of `jobs` and nothing else: random sequences of operations,
//! everything compared after each of them; and every change of a state that is seen is one of the diagram's.

mod model;
mod ops;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use wasmhost_store::jobs::{
    AttemptEnd, Claim, ClaimQueue, EnqueueError, Failure, Intervened, JOB_BYTES, JobId, JobState, Lease,
    NewJob, Settled,
};
use wasmhost_store::{Jobs, ManualClock, SqliteStore, Timestamp};

use self::model::{DIAGRAM, Model, ModelJob, Times};
use self::ops::{OWNERS, Op, QUEUES, op};

async fn apply(store: &impl Jobs, model: &mut Model, clock: &ManualClock, op: Op) {
    let times = Times::of(clock);
    let now = times.now;
    match op {
        Op::Enqueue(mut jobs) => {
            for job in &mut jobs {
                job.run_at = job.run_at.map(|at| now + at.since(Timestamp(0)));
            }
            enqueue(store, model, jobs, now).await;
        }
        Op::Claim { queues, concurrency, owner, limit, lease, attempts } => {
            let queue = |queue: usize| ClaimQueue {
                name: QUEUES[queue].to_string(),
                weight: 1,
                concurrency: concurrency[queue],
            };
            let queues = queues.into_iter().map(queue).collect();
            let owner = OWNERS[owner];
            let claim = Claim { owner: owner.to_string(), queues, limit, lease, attempts_default: attempts };
            let jobs = store.claim(claim.clone()).await.unwrap();
            model.claimed(&claim, owner, &jobs, times);
        }
        Op::Complete(back) => {
            let lease = model.lease(back);
            let settled = store.complete(lease).await.unwrap();
            let held = model.held(lease).map(|job| job.end(JobState::Done, now));
            assert_eq!(settled, held.map_or(Settled::Stale, |()| Settled::Done));
        }
        Op::Fail(back, then, backoff) => {
            let lease = model.lease(back);
            let failure = Failure { then, message: "no".to_string(), backoff: backoff.clone() };
            let settled = store.fail(lease, failure).await.unwrap();
            model.failed(lease, then, &backoff, settled, now);
        }
        Op::Release(back) => {
            let lease = model.lease(back);
            let settled = store.release(lease).await.unwrap();
            let held = model.held(lease).map(ModelJob::release);
            assert_eq!(settled, held.map_or(Settled::Stale, |()| Settled::Released));
        }
        Op::GiveBack(back) => {
            let lease = model.lease(back);
            let settled = store.give_back(lease).await.unwrap();
            let held = model.held(lease).map(ModelJob::give_back);
            assert_eq!(settled, held.map_or(Settled::Stale, |()| Settled::Released));
        }
        Op::Begin(back) => {
            let lease = model.lease(back);
            let begun = store.begin_call(lease).await.unwrap();
            assert_eq!(begun, model.held(lease).map(ModelJob::begin).is_some());
        }
        Op::Renew(back, duration) => {
            let leases: Vec<Lease> = back.into_iter().map(|back| model.lease(back)).collect();
            let lost = store.renew(leases.clone(), duration).await.unwrap();
            let mut lost_here = leases;
            lost_here.retain(|lease| match model.held(*lease) {
                Some(job) => {
                    job.lease_until = times.steady + duration;
                    false
                }
                None => true,
            });
            assert_eq!(lost, lost_here);
        }
        Op::FreeLeases(prefix) => {
            let freed = store.free_leases(prefix).await.unwrap();
            let owned = |job: &&mut ModelJob| job.state == JobState::Leased && job.owner.starts_with(prefix);
            let freed_here = model.jobs.values_mut().filter(owned);
            let freed_here = freed_here.map(|job| job.interrupt(AttemptEnd::Interrupted, now)).count();
            assert_eq!(freed, freed_here as u64);
        }
        Op::Pause(queue) => {
            let paused = store.pause(QUEUES[queue]).await.unwrap();
            assert_eq!(paused, model.paused.insert(QUEUES[queue].to_string()));
        }
        Op::Resume(queue) => {
            assert_eq!(store.resume(QUEUES[queue]).await.unwrap(), model.paused.remove(QUEUES[queue]));
        }
        Op::Intervene(back, what) => {
            let id = JobId(model.last_id.map_or(0, |id| id.0) - back);
            assert_eq!(store.intervene(id, what).await.unwrap(), model.intervene(id, what, now));
        }
        Op::InterveneAll(filter, what) => {
            let swept = store.intervene_all(filter.clone(), what).await.unwrap();
            let ids = model.matching(&filter, now);
            let answers: Vec<Intervened> = ids.into_iter().map(|id| model.intervene(id, what, now)).collect();
            let count = |wanted: fn(&Intervened) -> bool| {
                answers.iter().filter(|answer| wanted(answer)).count() as u64
            };
            let changed =
                count(|answer| matches!(answer, Intervened::Moved { .. } | Intervened::Deleted { .. }));
            let leased = count(|answer| matches!(answer, Intervened::Moved { from: JobState::Leased, .. }));
            let held = count(|answer| matches!(answer, Intervened::KeyHeld { .. }));
            assert_eq!((swept.changed, swept.more, swept.leased.len() as u64), (changed, false, leased));
            // Two dead jobs with one key: the first that is retried takes it, so that more may be passed over than
            // there were before.
            assert!(
                swept.key_held >= held && swept.key_holder.is_some() == (swept.key_held > 0),
                "{swept:?}"
            );
        }
        Op::List(filter, page) => {
            let listed = store.list(filter.clone(), page).await.unwrap();
            let ids: Vec<JobId> = listed.iter().map(|view| view.id).collect();
            assert_eq!(ids, model.list(&filter, page, now), "{filter:?} {page:?}");
            for view in listed {
                assert_eq!(Some(&view), store.get(view.id).await.unwrap().map(|detail| detail.view).as_ref());
            }
        }
        Op::Advance(by) => clock.advance(by),
        Op::Step(seconds) => clock.set(Timestamp(now.0 + seconds * 1_000)),
        Op::Prune(retention) => {
            let deleted = store.prune(retention).await.unwrap();
            assert_eq!(deleted, model.prune(retention, now));
        }
    }
    model.free_keys();
}

async fn enqueue(store: &impl Jobs, model: &mut Model, jobs: Vec<NewJob>, now: Timestamp) {
    let result = store.enqueue(jobs.clone()).await;
    // The model's answer, found on a copy, job by job.
    let depths: BTreeMap<&str, u64> = QUEUES.into_iter().map(|queue| (queue, model.depth(queue))).collect();
    let bytes: BTreeMap<&str, u64> = QUEUES.into_iter().map(|queue| (queue, model.bytes(queue))).collect();
    let mut trial = model.clone();
    let mut expected = Vec::new();
    let mut keys = BTreeMap::new();
    for (n, job) in jobs.into_iter().enumerate() {
        // A key for no time at all is still one for the batch.
        let key = job.unique.as_ref().map(|unique| (job.queue.clone(), unique.key.clone()));
        let twin = key.as_ref().and_then(|key| keys.get(key).copied());
        if let Some(id) = twin.or(trial.holder(&job, now)) {
            expected.push((id, false));
            continue;
        }
        if job.max_depth.is_some_and(|max| trial.depth(&job.queue) >= max) {
            let depth = depths[job.queue.as_str()];
            assert_eq!(result, Err(EnqueueError::Full { queue: job.queue, depth }));
            return;
        }
        let added = JOB_BYTES + job.payload.len() as u64;
        if let Some(max) = job.max_bytes.filter(|max| trial.bytes(&job.queue) + added > *max) {
            let bytes = bytes[job.queue.as_str()];
            assert_eq!(result, Err(EnqueueError::FullOfBytes { queue: job.queue, bytes, max }));
            return;
        }
        // Where a later one is refused, this one got no id.
        let next = JobId(trial.last_id.map_or(1, |id| id.0 + 1));
        let id = result.as_ref().map_or(next, |receipts| receipts[n].id);
        key.map(|key| keys.insert(key, id));
        trial.enqueue(job, id, now);
        expected.push((id, true));
    }
    let receipts: Vec<_> = result.unwrap().iter().map(|receipt| (receipt.id, receipt.created)).collect();
    assert_eq!(receipts, expected);
    *model = trial;
}

/// The states of all jobs as a person sees them, with their `claim` numbers.
type Seen = BTreeMap<JobId, (JobState, i64)>;

/// Everything that can be asked has the model's answer.
async fn compare(store: &impl Jobs, model: &Model, times: Times) -> Seen {
    let mut seen = Seen::new();
    for id in (1..=model.last_id.map_or(0, |id| id.0)).map(JobId) {
        let detail = store.get(id).await.unwrap();
        let Some(job) = model.jobs.get(&id) else {
            assert!(detail.is_none(), "{id} was deleted");
            continue;
        };
        let detail = detail.unwrap_or_else(|| panic!("{id} is there"));
        let view = detail.view;
        assert_eq!(
            (view.state, view.run_at, view.started_at, view.ended_at),
            (job.seen(times.now), job.run_at, job.started_at, job.ended_at),
            "{id}"
        );
        assert_eq!((view.attempt, view.attempts_max), (job.attempt, job.attempts_max), "{id}");
        assert_eq!((view.claim, view.crashes), (job.claim, job.crashes), "{id}");
        let attempts: Vec<_> =
            detail.attempts.iter().map(|a| (a.claim, a.attempt, a.owner.as_str(), a.end)).collect();
        assert_eq!(attempts, job.attempts, "{id}");
        seen.insert(id, (view.state, view.claim));
    }
    assert_eq!(store.counts().await.unwrap(), model.counts(times.now));
    for queue in QUEUES {
        assert_eq!(store.next_due(&[queue.to_string()]).await.unwrap(), model.next_due(queue, times));
    }
    seen
}

/// Which changes of a state one operation made, as the store shows them.
fn transitions(before: &Seen, after: &Seen) -> Vec<(JobState, JobState)> {
    let mut all = Vec::new();
    for (id, (from, claim)) in before {
        match after.get(id) {
            Some((to, _)) if to != from => all.push((*from, *to)),
            // Its lease ran out, and it was claimed again at once.
            Some((JobState::Leased, later)) if later != claim => {
                assert_eq!(*later, claim + 1);
                all.extend([
                    (JobState::Leased, JobState::Available),
                    (JobState::Available, JobState::Leased),
                ]);
            }
            Some(_) => {}
            None => assert_ne!(*from, JobState::Leased, "{id} was deleted while it was leased"),
        }
    }
    all
}

type Transitions = BTreeSet<(&'static str, &'static str)>;

fn run<S: Jobs>(ops: Vec<Op>, made: &RefCell<Transitions>, open: impl FnOnce(Arc<ManualClock>) -> S) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let clock = Arc::new(ManualClock::new(Timestamp(1_767_225_600_000)));
        let store = open(Arc::clone(&clock));
        let mut model = Model::default();
        let mut before = Seen::new();
        for op in ops {
            // Jobs that had become due are no longer, where the wall clock goes back.
            let stepped = matches!(op, Op::Step(_));
            let text = format!("{op:?}");
            apply(&store, &mut model, &clock, op).await;
            let after = compare(&store, &model, Times::of(&clock)).await;
            for (from, to) in transitions(&before, &after).into_iter().filter(|_| !stepped) {
                assert!(DIAGRAM.contains(&(from, to)), "{from} -> {to} by {text}");
                made.borrow_mut().insert((from.name(), to.name()));
            }
            before = after;
        }
    });
}

/// Runs that many sequences, and returns the changes of a state that were seen in them.
fn check<S: Jobs>(cases: u32, open: impl Fn(Arc<ManualClock>) -> S) -> Transitions {
    let made = RefCell::default();
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) };
    let outcome = TestRunner::new(config).run(&vec(op(), 1..80), |ops| {
        run(ops, &made, &open);
        Ok(())
    });
    if let Err(failed) = outcome {
        panic!("{failed}");
    }
    made.into_inner()
}

#[test]
fn a_store_without_a_file_agrees_with_the_model() {
    // Each way that the diagram has is taken, and (see `run`) no other. The rarest are missing from three runs of a
    // hundred of 400 sequences: they are looked for in more, until they have been seen.
    let diagram: Transitions = DIAGRAM.map(|(from, to)| (from.name(), to.name())).into();
    let mut made = Transitions::new();
    for _ in 0..10 {
        made.extend(check(200, |clock| SqliteStore::in_memory_with_clock(clock).unwrap()));
        if made == diagram {
            break;
        }
    }
    assert_eq!(made, diagram);
}

#[test]
fn a_store_with_a_file_agrees_with_the_model() {
    let folder = tempfile::tempdir().unwrap();
    check(60, |clock| {
        let path = folder.path().join(format!("{}.db", fastrand::u64(..)));
        SqliteStore::open_with_clock(&path, clock).unwrap()
    });
}
