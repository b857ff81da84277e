//! An instance that was lent, and how it comes back.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio_util::task::task_tracker::TaskTrackerToken;
use wasmhost_engine::{CallEnd, Finished, Instance};

use super::{Idle, Pool, Reused, Slot};
use crate::event::{Ended, Event};

/// An instance that was lent for one call.
pub(crate) struct Lease {
    pool: Arc<Pool>,
    slot: Arc<Slot>,
    instance: Option<Instance>,
    /// Calls that it had served before.
    served: u64,
    settled: bool,
    _call: TaskTrackerToken,
}

impl Lease {
    pub(super) fn new(pool: &Arc<Pool>, idle: Idle) -> Lease {
        idle.slot.busy.store(true, Relaxed);
        Lease {
            pool: pool.clone(),
            slot: idle.slot,
            instance: Some(idle.instance),
            served: idle.served,
            settled: false,
            _call: pool.calls.token(),
        }
    }

    /// Who it is.
    pub(crate) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    /// Whether it was called before.
    pub(crate) fn reused(&self) -> Reused {
        match self.served {
            0 => Reused::Not,
            1 => Reused::Once,
            _ => Reused::Often,
        }
    }

    /// Takes the instance out, for a call that gives it back by [`Lease::give_back`].
    pub(crate) fn take(&mut self) -> Option<Instance> {
        if self.slot.begin_call() {
            let (process, member) = (self.pool.process, self.slot.member);
            // Nobody listens once the host is going.
            let _ = self.pool.events.send(Event::Due { process, member });
        }
        self.instance.take()
    }

    /// The call is over.
    pub(crate) fn give_back<T>(mut self, finished: Finished<T>) {
        self.settled = true;
        let (pool, slot) = (&self.pool, self.slot.clone());
        match (finished.report.end, finished.instance) {
            (CallEnd::Returned(_), instance) => {
                if self.served > 0 {
                    pool.reuse.survived();
                }
                match instance {
                    _ if pool.is_fresh_each_call() && !slot.is_draining() => pool.renew(slot, instance),
                    Some(instance) if !slot.is_spent() => {
                        pool.put(Idle { instance, slot, served: self.served + 1 })
                    }
                    instance => {
                        let how = if slot.is_draining() { Ended::Drained } else { Ended::Spent };
                        pool.leave(slot, instance, how);
                    }
                }
            }
            _ if slot.is_draining() => pool.report(&slot, Ended::Drained),
            (CallEnd::Interrupted, _) => pool.report(&slot, Ended::Cancelled),
            (end, _) => pool.report(&slot, Ended::ByCall(end.summary())),
        }
    }

    /// Back to what it was made of.
    pub(super) fn into_idle(mut self) -> Option<Idle> {
        let instance = self.instance.take()?;
        self.settled = true;
        Some(Idle { instance, slot: self.slot.clone(), served: self.served })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let slot = self.slot.clone();
        match self.instance.take() {
            Some(instance) => self.pool.put(Idle { instance, slot, served: self.served }),
            None => self.pool.report(&slot, Ended::ByCall("its call was dropped".into())),
        }
    }
}
