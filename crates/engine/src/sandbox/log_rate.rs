//! How many log lines the instances of a type may write in a second, all together.
//!
//! This is a bucket that runs full: a line puts its bytes in, time takes them out at the rate, and while more than some
//! seconds' worth is in it nothing else fits. It needs no lock, since one number says all: when the bucket will be empty.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Bytes that a line counts beside its text: about as many as its time, its instance and the rest of its JSON take.
const LINE_BYTES: u64 = 100;

/// The lines that fit at once, as the time in which it runs out. A program may say much when it starts, or when it fails.
const BURST: Duration = Duration::from_secs(4);

/// See the module.
#[derive(Debug)]
pub struct LogRate {
    bytes_per_second: u64,
    begun: Instant,
    /// When the bucket will be empty, in nanoseconds since `begun`.
    empty_at: AtomicU64,
}

impl LogRate {
    /// At least a byte a second.
    pub fn new(bytes_per_second: u64) -> LogRate {
        LogRate {
            bytes_per_second: bytes_per_second.max(1),
            begun: Instant::now(),
            empty_at: AtomicU64::new(0),
        }
    }

    /// Bytes that may be written in a second.
    pub fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second
    }

    /// Whether a line with so many bytes of text may be written. One that may is counted.
    pub(crate) fn take(&self, bytes: usize) -> bool {
        self.take_at(nanoseconds(self.begun.elapsed()), bytes)
    }

    fn take_at(&self, now: u64, bytes: usize) -> bool {
        let bytes = u128::from(LINE_BYTES + bytes as u64);
        let cost = bytes * 1_000_000_000 / u128::from(self.bytes_per_second);
        let cost = u64::try_from(cost).unwrap_or(u64::MAX);
        let next = |empty_at: u64| {
            let begins = empty_at.max(now);
            (begins - now <= nanoseconds(BURST)).then_some(begins.saturating_add(cost))
        };
        self.empty_at.fetch_update(Relaxed, Relaxed, next).is_ok()
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn taken(rate: &LogRate, now: u64, bytes: usize) -> u64 {
        let mut lines = 0;
        while rate.take_at(now, bytes) {
            lines += 1;
        }
        lines
    }

    #[test]
    fn some_seconds_fit_at_once_and_then_what_the_rate_says() {
        // 10 lines a second.
        let rate = LogRate::new(1_000);
        assert_eq!(taken(&rate, 0, 0), 41);
        assert_eq!(taken(&rate, SECOND, 0), 10);
        assert_eq!(taken(&rate, 2 * SECOND, 400), 2);
        assert_eq!(taken(&rate, 100 * SECOND, 0), 41);
    }

    #[test]
    fn a_line_longer_than_all_that_fits_is_written_and_waited_for() {
        let rate = LogRate::new(1_000);
        assert!(rate.take_at(0, 10_000));
        assert!(!rate.take_at(6 * SECOND, 0));
        assert!(rate.take_at(7 * SECOND, 0));
    }

    #[test]
    fn threads_together_take_no_more_than_one_alone() {
        let rate = LogRate::new(1_000);
        let each: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| taken(&rate, 0, 0))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(each.iter().sum::<u64>(), 41);
    }
}
