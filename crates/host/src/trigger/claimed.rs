//! The jobs that this host has claimed: which instance does each, how to end its call, and whose leases are kept valid.
//!
//! ```text
//! claimed -> given to an instance -> its call has ended -> its end is stored
//! ```
//!
//! A job is known here from its claim until its end is stored. The store asks before it takes back a lease that ran out
//! ([`Holder`]): a host that was stopped, or whose disk stood still, doesn't lose the jobs of its own calls.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use wasmhost_store::jobs::{Holder, JobId, Lease};
use wasmhost_store::{Complaint, Jobs, StoreError};

use crate::pool::Slot;

/// How long a claim is valid, and how often claims are renewed.
pub(super) const LEASE: Duration = Duration::from_secs(30);
const RENEW_EVERY: Duration = Duration::from_secs(10);

/// How long a stop is remembered for a job that is just being claimed: longer than any claim takes that is accepted.
const STOP_REMEMBERED: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Default)]
pub(crate) struct ClaimedJobs {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    jobs: HashMap<JobId, Job>,
    /// Jobs that were to be stopped and weren't known: the answer to their claim is on its way.
    stopped_early: HashMap<JobId, Instant>,
}

struct Job {
    claim: i64,
    /// `None` until it is given to an instance.
    slot: Option<Arc<Slot>>,
    progress: Progress,
    /// Its instance was ended while other jobs were in it.
    fell_together: bool,
    stop: CancellationToken,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Ready,
    Called,
    Ended,
}

/// A job that is this host's for as long as this lives.
pub(crate) struct ClaimedJob {
    all: Arc<ClaimedJobs>,
    lease: Lease,
    stop: CancellationToken,
}

impl ClaimedJobs {
    pub(crate) fn add(self: &Arc<Self>, lease: Lease) -> ClaimedJob {
        let stop = CancellationToken::new();
        let mut known = self.lock();
        if known.stopped_early.remove(&lease.id).is_some() {
            stop.cancel();
        }
        let job = Job {
            claim: lease.claim,
            slot: None,
            progress: Progress::Ready,
            fell_together: false,
            stop: stop.clone(),
        };
        known.jobs.insert(lease.id, job);
        drop(known);
        ClaimedJob { all: self.clone(), lease, stop }
    }

    /// Ends the call of this job, which is leased to this host: at once, or as soon as its claim is answered.
    pub(crate) fn stop(&self, id: JobId) {
        let mut known = self.lock();
        match known.jobs.get(&id) {
            Some(job) => job.stop.cancel(),
            None => {
                known.stopped_early.retain(|_, since| since.elapsed() < STOP_REMEMBERED);
                known.stopped_early.insert(id, Instant::now());
            }
        }
    }

    /// The instance that does this job: `worker.1`.
    pub(crate) fn instance_of(&self, id: JobId) -> Option<String> {
        let known = self.lock();
        let job = known.jobs.get(&id).filter(|job| job.progress == Progress::Called)?;
        job.slot.as_ref().map(|slot| slot.name.to_string())
    }

    /// Keeps all leases valid, until the store is closed.
    pub(crate) async fn keep_valid(self: Arc<Self>, jobs: Arc<dyn Jobs>) {
        let mut every = tokio::time::interval(RENEW_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let complaint = Complaint::default();
        loop {
            every.tick().await;
            match self.renew(&*jobs).await {
                Ok(()) => {}
                Err(StoreError::Closed) => return,
                Err(err) => complaint.tell(|more| error!("claims on jobs can't be renewed: {err}{more}")),
            }
        }
    }

    async fn renew(&self, jobs: &dyn Jobs) -> Result<(), StoreError> {
        let leases: Vec<Lease> =
            self.lock().jobs.iter().map(|(id, job)| Lease { id: *id, claim: job.claim }).collect();
        for lost in jobs.renew(leases, LEASE).await? {
            self.lose(lost);
        }
        Ok(())
    }

    fn lose(&self, lease: Lease) {
        let known = self.lock();
        // One whose end is being stored has no lease any more once it is.
        let job = known
            .jobs
            .get(&lease.id)
            .filter(|job| job.claim == lease.claim && job.progress != Progress::Ended);
        if let Some(job) = job.filter(|job| !job.stop.is_cancelled()) {
            let slot = job.slot.as_ref().map_or("no instance yet".to_owned(), |slot| slot.name.to_string());
            warn!("lost its claim on job {} ({slot}): its call is ended", lease.id);
            job.stop.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // No code that runs under the lock panics.
        self.known.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl Holder for ClaimedJobs {
    fn holds(&self, lease: Lease) -> bool {
        self.lock().jobs.get(&lease.id).is_some_and(|job| job.claim == lease.claim)
    }
}

impl ClaimedJob {
    /// It is given to an instance.
    pub(crate) fn give(&self, slot: &Arc<Slot>) {
        if let Some(job) = self.all.lock().jobs.get_mut(&self.lease.id) {
            job.slot = Some(slot.clone());
            job.progress = Progress::Called;
        }
    }

    /// Its call is over. Says whether other jobs were in its instance. That is asked where the instance ended: then all
    /// of them end with it, one after another, and the last one isn't alone for that.
    pub(crate) fn ended(&self, with_instance: bool) -> bool {
        let mut known = self.all.lock();
        let Some(job) = known.jobs.get_mut(&self.lease.id) else { return false };
        job.progress = Progress::Ended;
        let mut together = job.fell_together;
        let slot = job.slot.clone().filter(|_| with_instance);
        for other in known.jobs.values_mut().filter(|other| other.progress == Progress::Called) {
            if slot.as_ref().zip(other.slot.as_ref()).is_some_and(|(slot, other)| Arc::ptr_eq(slot, other)) {
                other.fell_together = true;
                together = true;
            }
        }
        together
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Ends when its call is to end.
    pub(crate) fn stopped(&self) -> impl Future<Output = ()> + use<> {
        self.stop.clone().cancelled_owned()
    }
}

impl Drop for ClaimedJob {
    fn drop(&mut self) {
        let mut known = self.all.lock();
        // This host may have claimed it again since.
        if known.jobs.get(&self.lease.id).is_some_and(|job| job.claim == self.lease.claim) {
            known.jobs.remove(&self.lease.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(id: i64) -> Lease {
        Lease { id: JobId(id), claim: 1 }
    }

    #[test]
    fn a_stop_that_comes_before_the_claims_answer_is_remembered() {
        let all = Arc::new(ClaimedJobs::default());
        all.stop(JobId(7));
        assert!(all.add(lease(7)).is_stopped());
        assert!(!all.add(lease(7)).is_stopped(), "once");
        let job = all.add(lease(8));
        assert!(!job.is_stopped());
        all.stop(JobId(8));
        assert!(job.is_stopped());
    }

    #[test]
    fn a_job_is_held_until_its_end_is_stored() {
        let all = Arc::new(ClaimedJobs::default());
        let job = all.add(lease(7));
        assert!(all.holds(lease(7)) && !all.holds(Lease { claim: 2, ..lease(7) }));
        assert!(!job.ended(true), "nobody else was there");
        assert!(all.holds(lease(7)));
        drop(job);
        assert!(!all.holds(lease(7)));
    }

    #[test]
    fn an_old_claim_that_goes_leaves_a_newer_one() {
        let all = Arc::new(ClaimedJobs::default());
        let old = all.add(lease(7));
        let new = Lease { claim: 2, ..lease(7) };
        let kept = all.add(new);
        drop(old);
        assert!(all.holds(new));
        drop(kept);
        assert!(!all.holds(new));
    }
}
