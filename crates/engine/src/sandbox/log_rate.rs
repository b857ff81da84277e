//! How many log lines the instances of a type may write in a second, all together.
//!
//! This is a bucket that runs full: a line puts its bytes in, time takes them out at the rate, and while more than some
//! seconds' worth is in it nothing else fits. It needs no lock, since one number says all: when the bucket will be empty.
//!
//! Versions of a type share its bucket, in a move, a canary, and from one deploy to the next. Each of them may have a rate of
//! its own: their lines fill the same time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

/// Bytes that a line counts beside its text: about as many as its time, its instance and the rest of its JSON take.
const LINE_BYTES: u64 = 100;

/// The lines that fit at once, as the time in which it runs out. A program may say much when it starts, or when it fails.
const BURST: Duration = Duration::from_secs(4);

/// The rate of one version of a type, and the bucket of the type. See the module.
#[derive(Debug, Clone)]
pub struct LogRate {
    bytes_per_second: u64,
    bucket: Arc<Bucket>,
}

/// The buckets of all types, by the types' names. A bucket is forgotten with the last version of its type.
#[derive(Default)]
pub(crate) struct LogRates(Mutex<HashMap<Arc<str>, Weak<Bucket>>>);

#[derive(Debug)]
struct Bucket {
    begun: Instant,
    /// When the bucket will be empty, in nanoseconds since `begun`.
    empty_at: AtomicU64,
}

impl LogRates {
    /// The rate of a version of this type, which is at least a byte a second.
    pub(crate) fn of(&self, process: &Arc<str>, bytes_per_second: u64) -> LogRate {
        // No code that runs under the lock panics.
        let mut buckets = self.0.lock().unwrap_or_else(|poison| poison.into_inner());
        let bucket = buckets.get(process).and_then(Weak::upgrade).unwrap_or_else(|| {
            buckets.retain(|_, bucket| bucket.strong_count() > 0);
            let bucket = Arc::new(Bucket::empty());
            buckets.insert(process.clone(), Arc::downgrade(&bucket));
            bucket
        });
        LogRate { bytes_per_second: bytes_per_second.max(1), bucket }
    }
}

impl LogRate {
    /// The rate of a type that has no other versions. At least a byte a second.
    pub fn new(bytes_per_second: u64) -> LogRate {
        LogRate { bytes_per_second: bytes_per_second.max(1), bucket: Arc::new(Bucket::empty()) }
    }

    /// Bytes that may be written in a second.
    pub fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second
    }

    /// Whether a line with so many bytes of text may be written. One that may is counted.
    pub(crate) fn take(&self, bytes: usize) -> bool {
        self.take_at(nanoseconds(self.bucket.begun.elapsed()), bytes)
    }

    fn take_at(&self, now: u64, bytes: usize) -> bool {
        let bytes = u128::from(LINE_BYTES + bytes as u64);
        let cost = bytes * 1_000_000_000 / u128::from(self.bytes_per_second);
        let cost = u64::try_from(cost).unwrap_or(u64::MAX);
        let next = |empty_at: u64| {
            let begins = empty_at.max(now);
            (begins - now <= nanoseconds(BURST)).then_some(begins.saturating_add(cost))
        };
        self.bucket.empty_at.fetch_update(Relaxed, Relaxed, next).is_ok()
    }
}

impl Bucket {
    fn empty() -> Bucket {
        Bucket { begun: Instant::now(), empty_at: AtomicU64::new(0) }
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
    fn versions_of_a_type_share_what_it_may_write_each_at_its_own_rate() {
        let rates = LogRates::default();
        let live = rates.of(&"web".into(), 1_000);
        assert_eq!(taken(&live, 0, 0), 41);
        let canary = rates.of(&"web".into(), 2_000);
        assert_eq!(taken(&canary, 0, 0), 0);
        // A second later the live version takes half of what there is. The rest is the canary's, whose lines cost half as much.
        assert_eq!((0..5).filter(|_| live.take_at(SECOND, 0)).count(), 5);
        assert_eq!(taken(&canary, SECOND, 0), 9);
        assert_eq!(taken(&live, SECOND, 0), 0);
        assert_eq!(taken(&rates.of(&"worker".into(), 1_000), 0, 0), 41);
        // The successor of one that has written its all begins with nothing.
        drop(live);
        assert_eq!(taken(&rates.of(&"web".into(), 1_000), SECOND, 0), 0);
    }

    #[test]
    fn a_type_that_is_gone_is_forgotten() {
        let rates = LogRates::default();
        let gone = rates.of(&"gone".into(), 1_000);
        assert_eq!(taken(&gone, 0, 0), 41);
        drop(gone);
        let _web = rates.of(&"web".into(), 1_000);
        assert_eq!(rates.0.lock().unwrap().len(), 1);
        assert_eq!(taken(&rates.of(&"gone".into(), 1_000), 0, 0), 41);
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
