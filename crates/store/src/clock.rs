//! Whose time a store goes by.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use crate::Timestamp;

/// The time. A clock on the wall steps: a person sets it, NTP corrects it, a virtual machine wakes up. So there
/// are two:
///
/// - [`now`](Clock::now) is the wall clock. Times that mean something to people go by it, and after a restart too: when a
///   delayed job or a retry is due, retention, unique keys that are held for a time, and whatever is shown.
/// - [`steady`](Clock::steady) never steps, and leases alone are judged by it. Their owners renew them by timers that
///   don't step either; by the wall clock an hour's step forth would end all leases at once, and each job under way
///   would be given out a second time, and one back would leave a dead call's job leased for an hour more.
///
/// Two boots' steady clocks can't be compared, and needn't be: a host frees what its earlier boots had leased as it
/// starts ([`free_leases`](crate::Jobs::free_leases)).
///
/// A step of the wall clock forth still makes delayed jobs due that much earlier, and one back that much later, which
/// is what a time of day asks for. Nothing is lost or run twice by it.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock's time. It may step, back too.
    fn now(&self) -> Timestamp;

    /// The wall clock's time when this clock was made, plus the time that has passed since. It never goes back. (On
    /// Linux it stands still while the machine sleeps.)
    fn steady(&self) -> Timestamp;
}

/// The system's clocks.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    made: Instant,
    made_at: Timestamp,
}

impl SystemClock {
    /// A clock whose steady time begins now.
    pub fn new() -> SystemClock {
        SystemClock { made: Instant::now(), made_at: Timestamp::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn steady(&self) -> Timestamp {
        self.made_at + self.made.elapsed()
    }
}

/// Both times of one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) now: Timestamp,
    pub(crate) steady: Timestamp,
}

impl Moment {
    pub(crate) fn of(clock: &dyn Clock) -> Moment {
        Moment { now: clock.now(), steady: clock.steady() }
    }

    /// When the wall clock will show that a time of the steady clock has come, unless it steps before.
    pub(crate) fn on_the_wall(self, steady: Timestamp) -> Timestamp {
        Timestamp(self.now.0.saturating_add(steady.0.saturating_sub(self.steady.0)))
    }
}

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct ManualClock {
    now: AtomicI64,
    steady: AtomicI64,
}

impl ManualClock {
    /// A clock that shows `now`.
    pub fn new(now: Timestamp) -> ManualClock {
        ManualClock { now: AtomicI64::new(now.0), steady: AtomicI64::new(now.0) }
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.set(self.now() + by);
        self.steady.store((self.steady() + by).0, Ordering::SeqCst);
    }

    /// Steps the wall clock, back too. No time passes.
    pub fn set(&self, now: Timestamp) {
        self.now.store(now.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::SeqCst))
    }

    fn steady(&self) -> Timestamp {
        Timestamp(self.steady.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_wall_clock_moves_it_alone() {
        const HOUR: Duration = Duration::from_secs(3_600);
        let clock = ManualClock::new(Timestamp(0) + HOUR * 10);
        let lease_until = clock.steady() + HOUR;
        clock.set(clock.now() + HOUR * 5);
        assert_eq!(clock.steady(), Timestamp(0) + HOUR * 10);
        assert_eq!(Moment::of(&clock).on_the_wall(lease_until), clock.now() + HOUR);
        clock.set(Timestamp(0));
        assert_eq!(Moment::of(&clock).on_the_wall(lease_until), Timestamp(0) + HOUR);
        assert_eq!(
            Moment::of(&clock).on_the_wall(Timestamp(i64::MAX)).max(Timestamp(0)),
            Timestamp(i64::MAX) - HOUR * 10
        );
    }

    #[test]
    fn the_systems_steady_time_begins_at_the_wall_clocks() {
        let clock = SystemClock::new();
        assert!(clock.now().since(clock.steady()) < Duration::from_secs(60));
        assert!(clock.steady() <= clock.steady());
    }
}
