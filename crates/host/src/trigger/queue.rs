//! Jobs: wait for an idle instance first, then claim, so that what can't be run yet stays where other hosts see it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tracing::{error, warn};
use wasmhost_engine::{CallEnd, CallLimits, Job, JobFailure};
use wasmhost_store::jobs::{AfterFailure, Backoff, Claim, ClaimQueue, Failure, LeasedJob};
use wasmhost_store::{Jobs, StoreError, Timestamp};

use super::Triggering;
use crate::pool::{Lease, Pool};

/// How long a claim is valid, and how often it is renewed while the call runs.
const LEASE: Duration = Duration::from_secs(30);
const RENEW_EVERY: Duration = Duration::from_secs(10);

/// Jobs that one claim takes, at most.
const CLAIM_MAX: usize = 64;

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
}

impl QueueTrigger {
    /// Runs jobs until `intake` ends.
    pub(crate) async fn run(self: Arc<Self>, triggering: Triggering) {
        let mut changes = self.jobs.changes();
        loop {
            let first = tokio::select! {
                lease = self.pool.lend_when_idle() => lease,
                () = triggering.intake.cancelled() => return,
            };
            // What is enqueued from here on wakes the wait below.
            changes.mark_unchanged();
            let claimed = match self.claim(first).await {
                Ok(claimed) => claimed,
                Err(err) => {
                    error!("can't claim jobs: {err}");
                    tokio::time::sleep(AFTER_ERROR).await;
                    continue;
                }
            };
            if claimed.is_empty() {
                tokio::select! {
                    () = self.until_due(&mut changes) => continue,
                    () = triggering.intake.cancelled() => return,
                }
            }
            for (lease, job) in claimed {
                triggering.running.spawn(self.clone().run_job(lease, job));
            }
        }
    }

    /// Claims a job for each instance that is idle now. Those that get none go back.
    async fn claim(&self, first: Lease) -> Result<Vec<(Lease, LeasedJob)>, StoreError> {
        let mut leases = vec![first];
        while leases.len() < CLAIM_MAX
            && let Some(lease) = self.pool.try_lend()
        {
            leases.push(lease);
        }
        let claim = Claim {
            owner: self.owner.clone(),
            queues: self.queues.clone(),
            limit: u32::try_from(leases.len()).unwrap_or(1),
            lease: LEASE,
            attempts_default: self.attempts,
        };
        let jobs = self.jobs.claim(claim).await?;
        Ok(leases.into_iter().zip(jobs).collect())
    }

    /// Waits until there may be a job.
    async fn until_due(&self, changes: &mut tokio::sync::watch::Receiver<u64>) {
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

    async fn run_job(self: Arc<Self>, mut lease: Lease, job: LeasedJob) {
        let Some(instance) = lease.take() else { return };
        let name = lease.slot().name.to_string();
        let claim = job.lease;
        let (id, queue, attempt) = (claim.id, job.queue.clone(), job.attempt);
        let meter = instance.meter().clone();
        let call = instance.call_job(to_guest(job), self.limits);
        let finished = {
            let mut call = std::pin::pin!(call);
            let mut renew = tokio::time::interval_at(tokio::time::Instant::now() + RENEW_EVERY, RENEW_EVERY);
            renew.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    finished = &mut call => break finished,
                    _ = renew.tick() => match self.jobs.renew(vec![claim], LEASE).await {
                        Ok(lost) if lost.is_empty() => {}
                        Ok(_) => {
                            warn!(instance = name, "lost its claim on job {id}: its call is ended");
                            meter.interrupt();
                        }
                        Err(err) => error!(instance = name, "can't renew the claim on job {id}: {err}"),
                    },
                }
            }
        };
        if let CallEnd::Trap(backtrace) = &finished.report.end {
            warn!(instance = name, "job {id} of \"{queue}\", attempt {attempt}: {backtrace}");
        }
        // The answer goes to the store first: an instance that is idle again may be the last thing a drain waits for.
        let verdict = Verdict::of(&finished.report.end);
        if let Err(err) = self.settle(claim, verdict).await {
            error!(instance = name, "can't store how job {id} ended, so that it will run again: {err}");
        }
        lease.give_back(finished);
    }

    async fn settle(&self, claim: wasmhost_store::jobs::Lease, verdict: Verdict) -> Result<(), StoreError> {
        match verdict {
            Verdict::Done => self.jobs.complete(claim).await?,
            Verdict::Back => self.jobs.release(claim).await?,
            Verdict::Failed(then, message) => {
                self.jobs.fail(claim, Failure { then, message, backoff: self.backoff.clone() }).await?
            }
        };
        Ok(())
    }
}

/// What becomes of a job, by how its call ended.
#[derive(Debug, PartialEq)]
enum Verdict {
    Done,
    /// It waits again, with no attempt used up.
    Back,
    Failed(AfterFailure, String),
}

impl Verdict {
    fn of(end: &CallEnd<Result<(), JobFailure>>) -> Verdict {
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
            CallEnd::Interrupted => Verdict::Back,
            CallEnd::Timeout | CallEnd::OutOfCpu | CallEnd::Host(_) => {
                Verdict::Failed(AfterFailure::Retry, end.summary())
            }
            CallEnd::Exited(_) | CallEnd::Trap(_) | CallEnd::OutOfMemory => {
                Verdict::Failed(AfterFailure::Crash, end.summary())
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
    use super::*;

    #[test]
    fn a_crash_is_counted_and_an_interruption_is_not() {
        let trap = CallEnd::Trap("unreachable\n  at main".into());
        assert_eq!(Verdict::of(&trap), Verdict::Failed(AfterFailure::Crash, "unreachable".into()));
        assert_eq!(Verdict::of(&CallEnd::Interrupted), Verdict::Back);
        for end in [CallEnd::Timeout, CallEnd::OutOfCpu] {
            assert!(matches!(Verdict::of(&end), Verdict::Failed(AfterFailure::Retry, _)));
        }
        assert_eq!(Verdict::of(&CallEnd::Returned(Ok(()))), Verdict::Done);
    }
}
