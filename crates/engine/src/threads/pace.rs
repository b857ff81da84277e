//! How long the calls of a type usually compute, and so where the next one should begin.
//!
//! Short calls run on the thread that read their request. A type whose calls compute for much of a slice would hold the
//! I/O threads, and so delay all other types, and the refusals of an overloaded host. Its calls begin on the compute
//! threads.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// From the first on calls are long; then they are until they are as short as the second. Going to another thread
/// costs some ten microseconds.
const LONG_US: u32 = 400;
const SHORT_US: u32 = 200;

/// The weight of one call in the mean.
const WEIGHT: u32 = 16;

/// In the mean's unit, a 64th of a microsecond, so that small steps aren't lost.
const UNIT: u32 = 64;

/// No call counts for more: on I/O threads it's the wall clock that is read, and a call may have been off the processor
/// for milliseconds without being a long one.
const US_MAX: u32 = 1_000;

/// The mean of one type. The default is that of calls that take no time.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    mean: AtomicU32,
    long: AtomicBool,
    /// Whatever the mean says.
    stays_long: AtomicBool,
}

impl Pace {
    /// Whether the next call should begin on the compute threads.
    pub(crate) fn is_long(&self) -> bool {
        self.long.load(Relaxed) || self.stays_long.load(Relaxed)
    }

    /// Every call of the type begins on the compute threads from now on. One of them can hold a thread for long without
    /// a chance to end its slice, and must not do so to a thread that others wait for.
    pub(crate) fn stay_long(&self) {
        self.stays_long.store(true, Relaxed);
    }

    /// Whether a call of the type must not run on an I/O thread.
    pub(crate) fn stays_long(&self) -> bool {
        self.stays_long.load(Relaxed)
    }

    /// Counts a call. Where two come at once one may be lost, which the mean doesn't mind.
    pub(crate) fn add(&self, cpu: Duration) {
        let us = u32::try_from(cpu.as_micros()).unwrap_or(US_MAX).min(US_MAX);
        let mean = self.mean.load(Relaxed);
        let mean = mean - mean / WEIGHT + us * UNIT / WEIGHT;
        self.mean.store(mean, Relaxed);
        let bound = if self.long.load(Relaxed) { SHORT_US } else { LONG_US };
        self.long.store(mean > bound * UNIT, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(pace: &Pace, us: u64, calls: u32) -> bool {
        (0..calls).for_each(|_| pace.add(Duration::from_micros(us)));
        pace.is_long()
    }

    #[test]
    fn calls_of_a_millisecond_are_long_and_soon_known_to_be() {
        let pace = Pace::default();
        assert!(!after(&pace, 1_000, 2));
        assert!(after(&pace, 1_000, 10));
        assert!(!after(&pace, 20, 30));
    }

    #[test]
    fn a_type_that_holds_threads_stays_long_however_short_its_calls_are() {
        let pace = Pace::default();
        pace.stay_long();
        assert!(after(&pace, 20, 100));
    }

    #[test]
    fn a_few_endless_calls_say_little_of_the_others() {
        let pace = Pace::default();
        for _ in 0..100 {
            assert!(!after(&pace, 30_000_000, 1));
            assert!(!after(&pace, 20, 9));
        }
    }

    #[test]
    fn between_the_bounds_nothing_changes() {
        let pace = Pace::default();
        assert!(!after(&pace, 300, 100));
        assert!(after(&pace, 500, 100));
        assert!(after(&pace, 300, 100));
    }
}
