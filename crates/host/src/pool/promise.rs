//! A promise of an instance, for a request of a type whose calls compute for long. It bridges the time between when the
//! request is admitted and when a compute thread has room for it. An idle instance is kept for each promise, but not a
//! certain one: at its turn the request takes the one used last. So a few instances do the work, however many requests
//! come at once, and the memory of the others stays as it was.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{Lease, Need, NoInstance, Pool, Turn};

/// The instance, or the promise of one, that an admitted call has.
pub(crate) enum Lent {
    /// An instance, to be called now.
    Now(Lease),
    /// It will have one when it's its turn.
    InTurn(Promise),
}

/// See the module.
pub(crate) struct Promise {
    pool: Arc<Pool>,
    /// When its call came.
    asked: Instant,
    /// It no longer counts.
    settled: bool,
    _call: TaskTrackerToken,
}

impl Promise {
    /// The caller has counted it.
    pub(super) fn new(pool: &Arc<Pool>) -> Promise {
        Promise { pool: pool.clone(), asked: Instant::now(), settled: false, _call: pool.calls.token() }
    }

    /// The same for a call that came earlier.
    pub(super) fn asked_at(mut self, asked: Instant) -> Promise {
        self.asked = asked;
        self
    }

    /// The instance. If idle ones were asked to leave since, the call waits for one at the head of the line, for at most
    /// `wait_max`.
    pub(crate) async fn redeem(mut self, wait_max: Duration) -> Result<Lease, NoInstance> {
        let (pool, asked) = (self.pool.clone(), self.asked);
        let redeemed = loop {
            if let Some(lease) = self.take() {
                break Ok(lease);
            }
            match pool.lend_from(Turn::First, Need::Any, wait_max).await {
                Ok(Lent::Now(lease)) => break Ok(lease),
                Ok(Lent::InTurn(promise)) => self = promise,
                Err(none) => break Err(none),
            }
        };
        pool.counts.requests.waited(asked.elapsed());
        redeemed
    }

    fn take(&mut self) -> Option<Lease> {
        self.settled = true;
        let held = self.pool.lock().line.redeem();
        held.map(|held| Lease::new(&self.pool, held))
    }

    /// The promise's caller has gone. The caller of this function hands the instance on.
    pub(super) fn withdraw(mut self) {
        self.settled = true;
        self.pool.lock().line.withdraw();
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if !self.settled {
            self.pool.lock().line.withdraw();
            self.pool.hand_out();
        }
    }
}
