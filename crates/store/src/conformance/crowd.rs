//! Many callers at once.

use std::collections::HashSet;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::{START, Subject, claim, job, keyed, weighted};
use crate::jobs::{Claim, EnqueueError, JobId, JobState, NewJob, Settled};
use crate::{Jobs, Ticks};

/// Nobody waits that long, unless the job stays leased to nobody.
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(60);

/// Runs so many tasks with that body, and returns what they return.
pub(super) async fn crowd<S, T, F>(s: &Subject<S>, size: usize, body: impl Fn(Arc<S>, usize) -> F) -> Vec<T>
where
    S: Send + Sync + 'static,
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let tasks: Vec<_> = (0..size).map(|n| tokio::spawn(body(Arc::clone(&s.store), n))).collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.expect("no task panics"));
    }
    results
}

pub(super) async fn no_job_is_claimed_twice<S: Jobs>(s: &Subject<S>) {
    const JOBS: usize = 600;
    let claimed = crowd(s, 24, async |store: Arc<S>, n: usize| {
        // Each puts in its share, and then all take what there is, in bites of different sizes.
        let share = vec![job(if n.is_multiple_of(2) { "mail" } else { "reports" }); JOBS / 24];
        store.enqueue(share).await.expect("enqueue");
        let queues = vec![weighted("mail", 1), weighted("reports", 2)];
        let mut mine: Vec<JobId> = Vec::new();
        loop {
            let claim = Claim { queues: queues.clone(), limit: 1 + n as u32 % 4, ..claim("") };
            let jobs = store.claim(claim).await.expect("claim");
            if jobs.is_empty() {
                return mine;
            }
            for job in jobs {
                mine.push(job.lease.id);
                if n.is_multiple_of(3) && job.lease.claim == 1 {
                    mine.pop();
                    assert_eq!(store.release(job.lease).await.expect("release"), Settled::Released);
                } else {
                    assert_eq!(store.complete(job.lease).await.expect("complete"), Settled::Done);
                }
            }
        }
    })
    .await;
    // Somebody may have left before another's release; the rest is done here.
    let mut ids: Vec<JobId> = claimed.into_iter().flatten().collect();
    for queue in ["mail", "reports"] {
        while let Some(job) = s.take(queue).await {
            s.store.complete(job.lease).await.unwrap();
            ids.push(job.lease.id);
        }
    }
    assert_eq!(ids.len(), JOBS);
    assert_eq!(ids.into_iter().collect::<HashSet<_>>().len(), JOBS);
    assert_eq!(s.count("mail").await.done + s.count("reports").await.done, JOBS as u64);
}

pub(super) async fn one_of_many_takes_the_tick<S: Ticks>(s: &Subject<S>) {
    for manual in [false, true] {
        let schedule = if manual { "by hand" } else { "clock" };
        let taken = crowd(s, 32, move |store: Arc<S>, _| async move {
            store.take(schedule, START, manual, "host/1").await.expect("take")
        })
        .await;
        assert_eq!(taken.into_iter().filter(|taken| *taken).count(), 1);
    }
}

pub(super) async fn one_of_many_holds_the_key<S: Jobs>(s: &Subject<S>) {
    let receipts = crowd(s, 32, async |store: Arc<S>, _| {
        store.enqueue(vec![keyed("mail", "k")]).await.expect("enqueue")[0]
    })
    .await;
    assert_eq!(receipts.iter().filter(|receipt| receipt.created).count(), 1);
    assert!(receipts.iter().all(|receipt| receipt.id == receipts[0].id));
}

pub(super) async fn depth_holds_in_a_crowd<S: Jobs>(s: &Subject<S>) {
    let results = crowd(s, 32, async |store: Arc<S>, _| {
        store.enqueue(vec![NewJob { max_depth: Some(10), ..job("mail") }]).await
    })
    .await;
    let full = |result: &Result<_, _>| matches!(result, Err(EnqueueError::Full { depth: 10, .. }));
    assert_eq!(results.iter().filter(|result| full(result)).count(), 22);
    assert_eq!(s.count("mail").await.available, 10);
}

pub(super) async fn a_claim_that_nobody_waits_for_is_given_back<S: Jobs>(s: &Subject<S>) {
    let id = s.put(NewJob { attempts_max: Some(1), ..job("mail") }).await;
    // Polled once, so that it may be under way, and dropped.
    let finished_at_once = {
        let claim = pin!(s.store.claim(claim("mail")));
        matches!(claim.poll_once(), Poll::Ready(_))
    };
    if finished_at_once {
        return;
    }
    // The job is there for the next one, and its only attempt too.
    let mut changes = s.store.changes();
    let taken = loop {
        match s.take("mail").await {
            Some(job) => break job,
            None => {
                let change = tokio::time::timeout(GIVEN_BACK_WITHIN, changes.changed()).await;
                change.expect("it is given back").expect("the store is open");
            }
        }
    };
    assert_eq!((taken.lease.id, taken.attempt), (id, 1));
    assert_eq!(s.state(id).await, JobState::Leased);
}

/// Polls a future once, with nobody to wake.
trait PollOnce: Future {
    fn poll_once(self) -> Poll<Self::Output>;
}

impl<F: Future> PollOnce for std::pin::Pin<&mut F> {
    fn poll_once(mut self) -> Poll<F::Output> {
        self.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }
}
