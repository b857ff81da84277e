//! The jobs that this host has claimed: who does them, and how to stop one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio_util::sync::CancellationToken;
use wasmhost_store::jobs::{JobId, Lease};

use crate::pool::Slot;

/// See the module.
#[derive(Default)]
pub(crate) struct Underway {
    jobs: Mutex<HashMap<JobId, Job>>,
}

struct Job {
    claim: i64,
    /// None until it is given to an instance.
    slot: Option<Arc<Slot>>,
    stop: CancellationToken,
}

/// A job that is this host's for as long as this lives.
pub(crate) struct Begun {
    underway: Arc<Underway>,
    lease: Lease,
    stop: CancellationToken,
}

impl Underway {
    pub(crate) fn begin(self: &Arc<Self>, lease: Lease) -> Begun {
        let stop = CancellationToken::new();
        let job = Job { claim: lease.claim, slot: None, stop: stop.clone() };
        self.lock().insert(lease.id, job);
        Begun { underway: self.clone(), lease, stop }
    }

    /// Ends the call of this job, if it is one of this host's.
    pub(crate) fn stop(&self, id: JobId) {
        if let Some(job) = self.lock().get(&id) {
            job.stop.cancel();
        }
    }

    /// All of them.
    pub(crate) fn ids(&self) -> Vec<JobId> {
        self.lock().keys().copied().collect()
    }

    /// The instance that does this job: `worker.1`.
    pub(crate) fn instance_of(&self, id: JobId) -> Option<String> {
        self.lock().get(&id)?.slot.as_ref().map(|slot| slot.name.to_string())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, Job>> {
        // No code that runs under the lock panics.
        self.jobs.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl Begun {
    /// It is given to an instance.
    pub(crate) fn give(&self, slot: &Arc<Slot>) {
        if let Some(job) = self.underway.lock().get_mut(&self.lease.id) {
            job.slot = Some(slot.clone());
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Ends when its call is to end.
    pub(crate) fn stopped(&self) -> impl Future<Output = ()> + use<> {
        self.stop.clone().cancelled_owned()
    }

    /// Its call is to end.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let mut jobs = self.underway.lock();
        // This host may have claimed it again since.
        if jobs.get(&self.lease.id).is_some_and(|job| job.claim == self.lease.claim) {
            jobs.remove(&self.lease.id);
        }
    }
}
