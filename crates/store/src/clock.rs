//! Whose time a store goes by.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::Timestamp;

/// What time it is, for leases, delays, backoff and retention.
///
/// Stored times are wall-clock times, since they must mean something after a restart. A clock that steps (a person
/// sets it, a virtual machine wakes up) can so end leases early: the job is then given out a second time, and the
/// fencing token keeps the first answer out. That is safe, but not nice. An implementation may therefore smooth
/// such steps (follow the monotonic clock, and drift towards the wall clock slowly); nothing else has to change for
/// it.
pub trait Clock: Send + Sync + 'static {
    /// The time now. It may go back.
    fn now(&self) -> Timestamp;
}

/// The system's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows `now`.
    pub fn new(now: Timestamp) -> ManualClock {
        ManualClock(AtomicI64::new(now.0))
    }

    /// Moves it forward.
    pub fn advance(&self, by: Duration) {
        self.set(self.now() + by);
    }

    /// Sets it, back too.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}
