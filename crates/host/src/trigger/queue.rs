//! Jobs: an instance is free first, then a job is claimed for it, so that what can't be run yet stays where other hosts
//! see it.
//!
//! ```text
//! room in an instance -> claim -> ready -> call -> the instance goes back -> the answer is stored
//! ```
//!
//! A claim takes a commit to the disk, in which short jobs could have been done many times over. Where jobs have turned
//! out to be that short, a claim takes as many as will be done by the time the next one comes ([`Ahead`]). Those that
//! find no instance within a moment after all go back to the queue, and no attempt is used up.
//!
//! While an answer is on its way to the disk, its instance is in the next call already.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{error, warn};
use wasmhost_engine::{CallEnd, CallLimits, Job, JobFailure};
use wasmhost_store::jobs::{
    AfterFailure, BATCH_BYTES_MAX, Backoff, Claim, ClaimQueue, Failure, Lease as JobLease, LeasedJob,
    PAYLOAD_BYTES_MAX, Settled,
};
use wasmhost_store::{Jobs, StoreError, Timestamp};

use super::Triggering;
use super::ahead::Ahead;
use super::underway::{Begun, Underway};
use crate::pool::{Lease, Pool};

/// How long a claim is valid, and how often it is renewed while the call runs.
const LEASE: Duration = Duration::from_secs(30);
const RENEW_EVERY: Duration = Duration::from_secs(10);

/// Jobs that one claim takes, at most.
const CLAIM_MAX: usize = 256;

/// Jobs of a type that are claimed ahead, at most, however many instances it has: their payloads are in memory.
const AHEAD_MAX: usize = 256;

/// How long a claimed job may wait for an instance.
const READY_MAX: Duration = Duration::from_secs(1);

/// How often a queue is looked at that nothing was heard of.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long to wait after the store failed.
const AFTER_ERROR: Duration = Duration::from_secs(1);

/// A type's queues.
pub(crate) struct QueueTrigger {
    pub(crate) pool: Arc<Pool>,
    pub(crate) jobs: Arc<dyn Jobs>,
    /// This boot of this host.
    pub(crate) owner: String,
    pub(crate) queues: Vec<ClaimQueue>,
    pub(crate) attempts: u32,
    pub(crate) backoff: Backoff,
    pub(crate) limits: CallLimits,
    pub(crate) underway: Arc<Underway>,
    pub(crate) ahead: Ahead,
}

/// Whether a claim has found all that there is: less than it asked for, and not for the sake of its payloads.
fn is_all(jobs: &[LeasedJob], limit: usize) -> bool {
    let bytes: usize = jobs.iter().map(|job| job.payload.len()).sum();
    jobs.len() < limit && bytes + PAYLOAD_BYTES_MAX <= BATCH_BYTES_MAX
}

/// A claimed job that waits for an instance.
struct Ready {
    job: LeasedJob,
    begun: Begun,
    since: Instant,
}

type Claiming<'a> = BoxFuture<'a, Result<Vec<LeasedJob>, StoreError>>;

impl QueueTrigger {
    /// Runs jobs until `intake` ends.
    pub(crate) async fn run(self: Arc<Self>, triggering: Triggering) {
        let mut changes = self.jobs.changes();
        let mut ready = VecDeque::new();
        let mut claiming: Option<(Claiming<'_>, Instant, usize)> = None;
        // The last claim has found less than it asked for.
        let mut is_dry = false;
        // Jobs that were claimed ahead have waited for too long: calls take longer than they did.
        let mut is_stuck = false;
        loop {
            self.begin_ready(&mut ready, &triggering);
            if claiming.is_none() && !is_dry {
                let limit = self.limit(ready.len(), is_stuck);
                if limit > 0 {
                    // What is enqueued from here on wakes the wait below.
                    changes.mark_unchanged();
                    claiming = Some((Box::pin(self.claim(limit)), Instant::now(), limit));
                }
            }
            let is_claiming = claiming.is_some();
            let claimed = async {
                match &mut claiming {
                    Some((claim, _, _)) => claim.await,
                    None => pending().await,
                }
            };
            let overdue = async {
                match ready.front() {
                    Some(Ready { since, .. }) => tokio::time::sleep_until(*since + READY_MAX).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                claimed = claimed => {
                    let (begun, limit) = claiming.take().map_or((Instant::now(), 0), |(_, begun, limit)| (begun, limit));
                    match claimed {
                        Ok(jobs) => {
                            self.ahead.claimed(begun.elapsed());
                            is_dry = is_all(&jobs, limit);
                            ready.extend(jobs.into_iter().map(|job| self.make_ready(job)));
                        }
                        Err(err) => {
                            error!("can't claim jobs: {err}");
                            tokio::time::sleep(AFTER_ERROR).await;
                        }
                    }
                }
                () = self.pool.room() => is_stuck = false,
                () = self.until_due(&mut changes), if is_dry && !is_claiming => is_dry = false,
                () = overdue => {
                    is_stuck = true;
                    self.give_back(ready.drain(..), &triggering);
                }
                () = triggering.intake.cancelled() => break,
            }
        }
        if let Some((claim, _, _)) = claiming
            && let Ok(jobs) = claim.await
        {
            ready.extend(jobs.into_iter().map(|job| self.make_ready(job)));
        }
        self.give_back(ready.drain(..), &triggering);
    }

    /// Gives jobs to instances, as long as there are both.
    fn begin_ready(self: &Arc<Self>, ready: &mut VecDeque<Ready>, triggering: &Triggering) {
        while !ready.is_empty()
            && let Some(lease) = self.pool.try_lend()
        {
            while let Some(next) = ready.pop_front() {
                // Somebody may have cancelled it in the meantime.
                if !next.begun.is_stopped() {
                    triggering.running.spawn(self.clone().run_job(lease, next));
                    break;
                }
            }
        }
    }

    /// How many jobs to claim now.
    fn limit(&self, ready: usize, is_stuck: bool) -> usize {
        let depth = if is_stuck { 0 } else { self.ahead.depth() };
        let ahead = depth.saturating_mul(self.pool.live()).min(AHEAD_MAX);
        let wanted = self.pool.free().saturating_add(ahead);
        // Not for the sake of a few.
        match ready > wanted / 2 {
            true => 0,
            false => (wanted - ready).min(CLAIM_MAX),
        }
    }

    async fn claim(&self, limit: usize) -> Result<Vec<LeasedJob>, StoreError> {
        let claim = Claim {
            owner: self.owner.clone(),
            queues: self.queues.clone(),
            limit: u32::try_from(limit).unwrap_or(1),
            lease: LEASE,
            attempts_default: self.attempts,
        };
        self.jobs.claim(claim).await
    }

    fn make_ready(&self, job: LeasedJob) -> Ready {
        Ready { begun: self.underway.begin(job.lease), job, since: Instant::now() }
    }

    /// Jobs that found no instance are for others.
    fn give_back(self: &Arc<Self>, ready: impl Iterator<Item = Ready>, triggering: &Triggering) {
        for Ready { job, begun, .. } in ready {
            drop(begun);
            let this = self.clone();
            triggering.running.spawn(async move { this.settle(job.lease, Verdict::Back).await });
        }
    }

    /// Waits until there may be a job.
    async fn until_due(&self, changes: &mut watch::Receiver<u64>) {
        let queues: Vec<String> = self.queues.iter().map(|queue| queue.name.clone()).collect();
        let due = match self.jobs.next_due(&queues).await {
            Ok(Some(due)) => due.since(Timestamp::now()).min(LOOK_EVERY),
            Ok(None) => LOOK_EVERY,
            Err(err) => {
                error!("can't look at the queues: {err}");
                AFTER_ERROR
            }
        };
        tokio::select! {
            () = tokio::time::sleep(due) => {}
            // An error says that the store has closed: the host is going.
            _ = changes.changed() => {}
        }
    }

    async fn run_job(self: Arc<Self>, mut lease: Lease, ready: Ready) {
        let Ready { job, begun, .. } = ready;
        let Some(instance) = lease.take() else { return };
        let claim = job.lease;
        begun.give(lease.slot());
        let name = lease.slot().name.clone();
        let (queue, attempt) = (job.queue.clone(), job.attempt);
        let meter = instance.meter().clone();
        let call = instance.call_job(to_guest(job), self.limits, begun.stopped());
        let finished = {
            let mut call = std::pin::pin!(call);
            let mut renew = tokio::time::interval_at(Instant::now() + RENEW_EVERY, RENEW_EVERY);
            renew.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    finished = &mut call => break finished,
                    _ = renew.tick() => match self.jobs.renew(vec![claim], LEASE).await {
                        Ok(lost) if lost.is_empty() => {}
                        Ok(_) => {
                            warn!(instance = %name, "lost its claim on job {}: its call is ended", claim.id);
                            begun.stop();
                        }
                        Err(err) => {
                            error!(instance = %name, "can't renew the claim on job {}: {err}", claim.id);
                        }
                    },
                }
            }
        };
        drop(begun);
        self.ahead.called(finished.report.wall);
        if let CallEnd::Trap(backtrace) = &finished.report.end {
            warn!(instance = %name, "job {} of \"{queue}\", attempt {attempt}: {backtrace}", claim.id);
        }
        let verdict = Verdict::of(&finished.report.end, || meter.last_words());
        // Another claim can have the instance while this one's answer is stored: a drain waits for both.
        lease.give_back(finished);
        self.settle(claim, verdict).await;
    }

    /// Stores how a job ended, as long as the claim on it is valid.
    async fn settle(&self, claim: JobLease, verdict: Verdict) {
        let until = Instant::now() + LEASE;
        loop {
            let err = match self.try_settle(claim, verdict.clone()).await {
                Ok(_) => return,
                Err(err) => err,
            };
            if Instant::now() + AFTER_ERROR > until {
                error!("can't store how job {} ended, so that it will run again: {err}", claim.id);
                return;
            }
            error!("can't store how job {} ended, and will try again: {err}", claim.id);
            tokio::time::sleep(AFTER_ERROR).await;
        }
    }

    async fn try_settle(&self, claim: JobLease, verdict: Verdict) -> Result<Settled, StoreError> {
        match verdict {
            Verdict::Done => self.jobs.complete(claim).await,
            Verdict::Back => self.jobs.release(claim).await,
            Verdict::Failed(then, message) => {
                self.jobs.fail(claim, Failure { then, message, backoff: self.backoff.clone() }).await
            }
        }
    }
}

/// What becomes of a job, by how its call ended.
#[derive(Debug, Clone, PartialEq)]
enum Verdict {
    Done,
    /// It waits again, with no attempt used up.
    Back,
    Failed(AfterFailure, String),
}

impl Verdict {
    /// A guest that crashed has said why on standard error, as a rule: a trap alone tells nobody anything.
    fn of(end: &CallEnd<Result<(), JobFailure>>, last_words: impl FnOnce() -> String) -> Verdict {
        match end {
            CallEnd::Returned(Ok(())) => Verdict::Done,
            CallEnd::Returned(Err(JobFailure::Retry(message))) => {
                Verdict::Failed(AfterFailure::Retry, message.clone())
            }
            CallEnd::Returned(Err(JobFailure::RetryAfter(wait, message))) => {
                Verdict::Failed(AfterFailure::RetryAfter(*wait), message.clone())
            }
            CallEnd::Returned(Err(JobFailure::Bury(message))) => {
                Verdict::Failed(AfterFailure::Bury, message.clone())
            }
            CallEnd::Interrupted | CallEnd::Refused(_) => Verdict::Back,
            CallEnd::Timeout | CallEnd::OutOfCpu | CallEnd::Host(_) | CallEnd::ErrorCode(_) => {
                Verdict::Failed(AfterFailure::Retry, end.summary())
            }
            CallEnd::Exited(_) | CallEnd::Trap(_) | CallEnd::OutOfMemory => {
                let message = format!("{}\n{}", end.summary(), last_words());
                Verdict::Failed(AfterFailure::Crash, message.trim_end().to_owned())
            }
        }
    }
}

fn to_guest(job: LeasedJob) -> Job {
    Job {
        id: job.lease.id.to_string(),
        queue: job.queue,
        attempt: job.attempt,
        attempts: job.attempts_max,
        content_type: job.content_type,
        payload: job.payload,
        metadata: job.metadata,
    }
}

#[cfg(test)]
mod tests {
    use wasmhost_store::jobs::JobId;

    use super::*;

    #[test]
    fn a_claim_that_large_payloads_cut_short_has_not_found_all() {
        let jobs = |count: usize, bytes: usize| -> Vec<LeasedJob> {
            let job = LeasedJob {
                lease: JobLease { id: JobId(1), claim: 1 },
                queue: "default".into(),
                attempt: 1,
                attempts_max: 25,
                crashes: 0,
                payload: vec![0; bytes],
                content_type: String::new(),
                metadata: vec![],
                enqueued_at: Timestamp(0),
            };
            vec![job; count]
        };
        assert!(is_all(&jobs(3, 1), 4));
        assert!(!is_all(&jobs(4, 1), 4));
        assert!(!is_all(&jobs(16, PAYLOAD_BYTES_MAX), 128));
    }

    #[test]
    fn a_crash_is_counted_and_an_interruption_is_not() {
        fn of(end: &CallEnd<Result<(), JobFailure>>) -> Verdict {
            Verdict::of(end, || "no tea".into())
        }
        let trap = CallEnd::Trap("unreachable\n  at main".into());
        assert_eq!(of(&trap), Verdict::Failed(AfterFailure::Crash, "unreachable\nno tea".into()));
        assert_eq!(of(&CallEnd::Interrupted), Verdict::Back);
        assert_eq!(of(&CallEnd::Refused("its instance was ending".into())), Verdict::Back);
        for end in [CallEnd::Timeout, CallEnd::OutOfCpu] {
            assert!(matches!(of(&end), Verdict::Failed(AfterFailure::Retry, _)));
        }
        assert_eq!(of(&CallEnd::Returned(Ok(()))), Verdict::Done);
    }
}
