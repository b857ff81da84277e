//! Jobs: an instance is free first, then a job is claimed for it. A job that can't be run yet stays on the queue.
//!
//! ```text
//! room in an instance -> claim -> ready -> call -> the instance goes back -> the answer is stored
//! ```
//!
//! A claim takes a commit to the disk, in which short jobs could have been done many times over. If jobs turn out to be
//! that short, a claim takes as many as will be done by the time the next one comes ([`Ahead`]). Jobs that find no
//! instance within a moment go back to the queue, and no attempt is used up.
//!
//! While an answer is on its way to the disk, its instance is in the next call already.
//!
//! A job that crashed together with others runs alone from then on. It waits for an instance that is idle, and until
//! then no other job begins, or a busy instance would never become idle.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::error;
use wasmhost_engine::{CallEnd, CallLimits, Job};
use wasmhost_store::jobs::{
    BATCH_BYTES_MAX, Backoff, Claim, ClaimQueue, Failure, Lease as JobLease, LeasedJob, PAYLOAD_BYTES_MAX,
    Settled,
};
use wasmhost_store::{Complaint, Jobs, StoreError, Timestamp};

use super::Triggering;
use super::ahead::Ahead;
use super::claimed::{ClaimedJob, ClaimedJobs, LEASE};
use super::job_events;
use super::job_log::{JobLog, Tried};
use super::job_trace::JobSpan;
use super::verdict::Verdict;
use crate::feed::Feed;
use crate::measures::Measures;
use crate::pool::{Lease, Pool};

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
    pub(crate) claimed: Arc<ClaimedJobs>,
    pub(crate) ahead: Ahead,
    pub(crate) complaints: Complaints,
    pub(crate) log: JobLog,
    pub(crate) feed: Arc<Feed>,
    pub(crate) measures: Arc<Measures>,
}

/// Calls that may fail again and again while the store does.
#[derive(Default)]
pub(crate) struct Complaints {
    claim: Complaint,
    look: Complaint,
    begin: Complaint,
    settle: Complaint,
}

/// Whether a claim has found all that there is: less than it asked for, and not for the sake of its payloads.
fn is_all(jobs: &[LeasedJob], limit: usize) -> bool {
    let bytes: usize = jobs.iter().map(|job| job.payload.len()).sum();
    jobs.len() < limit && bytes + PAYLOAD_BYTES_MAX <= BATCH_BYTES_MAX
}

/// A claimed job that waits for an instance.
struct Ready {
    job: LeasedJob,
    claimed: ClaimedJob,
    since: Instant,
}

type Claiming<'a> = BoxFuture<'a, Result<Vec<LeasedJob>, StoreError>>;

impl QueueTrigger {
    /// Runs jobs until `intake` ends.
    pub(crate) async fn run(self: Arc<Self>, triggering: Triggering) {
        let mut changes = self.jobs.changes();
        let mut is_taking = triggering.is_taking.clone();
        let mut ready = VecDeque::new();
        let mut claiming: Option<(Claiming<'_>, Instant, usize)> = None;
        // The last claim has found less than it asked for.
        let mut is_dry = false;
        // Jobs that were claimed ahead have waited for too long: calls take longer than they did.
        let mut is_stuck = false;
        loop {
            self.begin_ready(&mut ready, &triggering);
            if claiming.is_none() && !is_dry && *is_taking.borrow_and_update() {
                let waits_alone = ready.front().is_some_and(|ready| ready.job.alone);
                let limit = if waits_alone { 0 } else { self.limit(ready.len(), is_stuck) };
                if limit > 0 {
                    // Jobs that are enqueued from here on wake the wait below.
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
                match ready.iter().find(|ready| !ready.job.alone) {
                    Some(Ready { since, .. }) => tokio::time::sleep_until(*since + READY_MAX).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                claimed = claimed => {
                    let sent = claiming.take().map_or((Instant::now(), 0), |(_, sent, limit)| (sent, limit));
                    match claimed {
                        Ok(jobs) => {
                            self.ahead.claimed(sent.0.elapsed());
                            self.pool.counts.claimed(sent.0.elapsed());
                            is_dry = is_all(&jobs, sent.1);
                            self.take_in(jobs, sent.0, &mut ready, &triggering);
                        }
                        Err(err) => {
                            self.complaints.claim.tell(|more| error!("can't claim jobs: {err}{more}"));
                            tokio::time::sleep(AFTER_ERROR).await;
                        }
                    }
                }
                () = self.pool.room() => is_stuck = false,
                Ok(()) = is_taking.changed() => {}
                () = self.until_due(&mut changes), if is_dry && !is_claiming => is_dry = false,
                () = overdue => {
                    is_stuck = true;
                    let (alone, others) = ready.drain(..).partition(|ready: &Ready| ready.job.alone);
                    ready = alone;
                    let others: VecDeque<Ready> = others;
                    self.give_back(others, &triggering);
                }
                () = triggering.intake.cancelled() => break,
            }
        }
        if let Some((claim, sent, _)) = claiming
            && let Ok(jobs) = claim.await
        {
            self.take_in(jobs, sent, &mut ready, &triggering);
        }
        self.give_back(ready, &triggering);
    }

    /// Jobs were claimed. Where the answer took longer than the lease lasts they may be somebody else's by now.
    fn take_in(
        self: &Arc<Self>,
        jobs: Vec<LeasedJob>,
        sent: Instant,
        ready: &mut VecDeque<Ready>,
        triggering: &Triggering,
    ) {
        let since = Instant::now();
        let jobs = jobs.into_iter().map(|job| Ready { claimed: self.claimed.add(job.lease), job, since });
        match since.duration_since(sent) < LEASE {
            true => ready.extend(jobs),
            false => self.give_back(jobs, triggering),
        }
    }

    /// Gives jobs to instances, as long as there are both.
    fn begin_ready(self: &Arc<Self>, ready: &mut VecDeque<Ready>, triggering: &Triggering) {
        while let Some(next) = ready.front() {
            // Somebody may have cancelled it in the meantime.
            if next.claimed.is_stopped() {
                ready.pop_front();
                continue;
            }
            let lent = if next.job.alone { self.pool.try_lend_alone() } else { self.pool.try_lend() };
            let Some(lease) = lent else { return };
            if let Some(next) = ready.pop_front() {
                triggering.running.spawn(self.clone().run_job(lease, next));
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

    /// Jobs that found no instance are for others.
    fn give_back(self: &Arc<Self>, ready: impl IntoIterator<Item = Ready>, triggering: &Triggering) {
        for Ready { job, claimed, .. } in ready {
            let this = self.clone();
            triggering.running.spawn(async move {
                this.settle(job.lease, Verdict::NotBegun, claimed).await;
            });
        }
    }

    /// Waits until there may be a job.
    async fn until_due(&self, changes: &mut watch::Receiver<u64>) {
        let queues: Vec<String> = self.queues.iter().map(|queue| queue.name.clone()).collect();
        let due = match self.jobs.next_due(&queues).await {
            Ok(Some(due)) => due.since(Timestamp::now()).min(LOOK_EVERY),
            Ok(None) => LOOK_EVERY,
            Err(err) => {
                self.complaints.look.tell(|more| error!("can't look at the queues: {err}{more}"));
                // A change doesn't end the wait: each would be looked at, in vain.
                return tokio::time::sleep(AFTER_ERROR).await;
            }
        };
        tokio::select! {
            () = tokio::time::sleep(due) => {}
            // An error says that the store has closed: the host is going.
            _ = changes.changed() => {}
        }
    }

    async fn run_job(self: Arc<Self>, mut lease: Lease, ready: Ready) {
        let Ready { job, claimed, .. } = ready;
        let claim = job.lease;
        if job.holds_key && !self.begin(claim).await {
            // Dropping the lease gives the instance back.
            drop(lease);
            self.settle(claim, Verdict::NotBegun, claimed).await;
            return;
        }
        let Some(instance) = lease.take() else { return };
        claimed.give(lease.slot());
        let name = lease.slot().name.clone();
        let tried = Tried::of(&job, &name);
        self.feed.tell(|| job_events::running(&tried));
        let counts = self.measures.queue(&job.queue);
        let meter = instance.meter().clone();
        let mut span = self.measures.traces().map(|traces| JobSpan::begin(traces, &job, lease.slot()));
        let trace = span.as_ref().and_then(JobSpan::trace);
        let mut job = to_guest(job);
        if let Some(span) = &span {
            span.put_into(&mut job.metadata);
        }
        let finished = instance.call_job(job, self.limits, trace, claimed.stopped()).await;
        let report = &finished.report;
        if let Some(span) = &mut span {
            span.called(report);
        }
        let together = claimed.ended(finished.instance.is_none());
        self.ahead.called(report.wall);
        let was_run = !matches!(report.end, CallEnd::Refused(_));
        if was_run {
            counts.ran(report.wall);
        }
        if let CallEnd::Trap(backtrace) = &report.end {
            self.log.trapped(&tried, backtrace);
        }
        let in_time = self.limits.timeout.is_none_or(|timeout| report.wall < timeout);
        let verdict = Verdict::of(&report.end, || meter.last_words()).shared(together, in_time, &report.end);
        // Another claim can have the instance while this one's answer is stored: a drain waits for both.
        lease.give_back(finished);
        let settled = self.settle(claim, verdict.clone(), claimed).await;
        if let Some(span) = span {
            span.settled(settled);
        }
        if was_run {
            counts.settled(settled);
        }
        let Some(settled) = settled else { return };
        let failed = match &verdict {
            Verdict::Failed(then, error) => Some((then, error.as_str())),
            Verdict::Done | Verdict::Back | Verdict::NotBegun => None,
        };
        self.feed.tell_each(|| job_events::settled(&tried, settled, failed.map(|(_, error)| error)));
        if let Some((then, error)) = failed {
            self.log.failed(&tried, settled, then, error);
        }
    }

    /// Says that a job's call begins, which frees its key. False where it may not begin.
    async fn begin(&self, claim: JobLease) -> bool {
        match self.jobs.begin_call(claim).await {
            Ok(is_ours) => is_ours,
            Err(err) => {
                let id = claim.id;
                self.complaints
                    .begin
                    .tell(|more| error!("can't begin job {id}, which goes back: {err}{more}"));
                false
            }
        }
    }

    /// Stores how a job ended. As long as the store can't do it now, the job stays this host's: it is known to be over,
    /// and nobody else is given it. None where it could not be stored.
    async fn settle(&self, claim: JobLease, verdict: Verdict, claimed: ClaimedJob) -> Option<Settled> {
        let until = Instant::now() + LEASE;
        let settled = loop {
            let err = match self.try_settle(claim, verdict.clone()).await {
                Ok(settled) => break Some(settled),
                Err(err) => err,
            };
            let id = claim.id;
            let passes = matches!(err, StoreError::Unavailable(_) | StoreError::Full(_));
            if err == StoreError::Closed || !passes && Instant::now() + AFTER_ERROR > until {
                error!("can't store how job {id} ended, so that it will run again: {err}");
                break None;
            }
            self.complaints.settle.tell(|more| {
                error!("can't store how job {id} ended, and will try again: {err}{more}");
            });
            tokio::time::sleep(AFTER_ERROR).await;
        };
        drop(claimed);
        settled
    }

    async fn try_settle(&self, claim: JobLease, verdict: Verdict) -> Result<Settled, StoreError> {
        match verdict {
            Verdict::Done => self.jobs.complete(claim).await,
            Verdict::Back => self.jobs.release(claim).await,
            Verdict::NotBegun => self.jobs.give_back(claim).await,
            Verdict::Failed(then, message) => {
                self.jobs.fail(claim, Failure { then, message, backoff: self.backoff.clone() }).await
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
                due_at: Timestamp(0),
                holds_key: false,
                alone: false,
            };
            vec![job; count]
        };
        assert!(is_all(&jobs(3, 1), 4));
        assert!(!is_all(&jobs(4, 1), 4));
        assert!(!is_all(&jobs(16, PAYLOAD_BYTES_MAX), 128));
    }
}
