//! A lease is an instance that was lent for one call, and brings it back.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio_util::task::task_tracker::TaskTrackerToken;
use wasmhost_engine::{CallEnd, Finished, Instance};

use super::{Held, Left, Pool, Renewal, Slot, Whole};
use crate::deaths::Death;
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
    pub(super) fn new(pool: &Arc<Pool>, held: Held<Whole>) -> Lease {
        let Held { instance: Whole { instance, slot }, served } = held;
        slot.busy.store(true, Relaxed);
        Lease {
            pool: pool.clone(),
            slot,
            instance: Some(instance),
            served,
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
            let (type_index, member) = (self.pool.type_index, self.slot.member);
            // Nobody listens once the host is going.
            let _ = self.pool.events.send(Event::Due { type_index, member });
        }
        self.instance.take()
    }

    /// The call is over.
    pub(crate) fn give_back<T>(mut self, finished: Finished<T>) {
        self.settled = true;
        let returned = matches!(finished.report.end, CallEnd::Returned(_));
        if returned && self.served > 0 {
            self.pool.survived(&self.slot);
        }
        if returned
            && finished.instance.is_none()
            && let Some(shortage) = self.slot.shortage()
        {
            self.pool.tell_shortage(&self.slot, shortage);
        }
        let failed = match finished.report.end {
            CallEnd::Returned(_) => finished.instance.is_none().then_some(Ended::Spent),
            CallEnd::Interrupted => Some(Ended::Cancelled),
            end => Some(Ended::ByCall(Death::of(&end))),
        };
        let (pool, slot) = (&self.pool, self.slot.clone());
        match pool.leave_seat(&slot, failed) {
            Left::Others => pool.hand_out(),
            Left::Nobody(_) if slot.is_draining() => pool.leave(slot, finished.instance, Ended::Drained),
            Left::Nobody(None | Some(Ended::Spent)) if slot.version.is_fresh_each_call() => {
                pool.renew(slot, finished.instance, Renewal::EachCall);
            }
            Left::Nobody(None) => match finished.instance {
                Some(instance) if !slot.is_spent() => {
                    pool.put(Held { instance: Whole { instance, slot }, served: self.served + 1 });
                }
                instance => pool.leave(slot, instance, Ended::Spent),
            },
            Left::Nobody(Some(how)) => pool.leave(slot, finished.instance, how),
        }
    }

    /// Gives back what was never called, for the caller to hand out.
    pub(super) fn put_back(mut self) {
        self.settled = true;
        let Some(instance) = self.instance.take() else { return };
        let (pool, slot) = (self.pool.clone(), self.slot.clone());
        match pool.leave_seat(&slot, None) {
            Left::Others => {}
            Left::Nobody(None) => {
                pool.put_back(Held { instance: Whole { instance, slot }, served: self.served })
            }
            Left::Nobody(Some(how)) => pool.leave(slot, Some(instance), how),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let (pool, slot) = (&self.pool, self.slot.clone());
        let unused = self.instance.take();
        let failed = unused.is_none().then(|| Ended::ByCall("its call was dropped".into()));
        match (pool.leave_seat(&slot, failed), unused) {
            (Left::Others, _) => pool.hand_out(),
            (Left::Nobody(None), Some(instance)) => {
                pool.put(Held { instance: Whole { instance, slot }, served: self.served });
            }
            (Left::Nobody(how), instance) => pool.leave(slot, instance, how.unwrap_or(Ended::Spent)),
        }
    }
}

/// How often an instance had been called before the call that it is lent for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reused {
    Not,
    Once,
    Often,
}
