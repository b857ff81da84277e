//! Histograms of times, with fixed buckets.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The upper bounds of a histogram's buckets, in nanoseconds. Times above the last have a bucket of their own.
pub(crate) type Bounds = [u64; BOUNDS];
pub(crate) const BOUNDS: usize = 17;
const BUCKETS: usize = BOUNDS + 1;

const US: u64 = 1_000;
const MS: u64 = 1_000 * US;
const S: u64 = 1_000 * MS;

/// Requests, and the waits of calls in their line.
pub(crate) const REQUESTS: Bounds = [
    100 * US,
    250 * US,
    500 * US,
    MS,
    2_500 * US,
    5 * MS,
    10 * MS,
    25 * MS,
    50 * MS,
    100 * MS,
    250 * MS,
    500 * MS,
    S,
    2_500 * MS,
    5 * S,
    10 * S,
    30 * S,
];

/// Runs of jobs, and how late ticks are.
pub(crate) const WORK: Bounds = [
    MS,
    5 * MS,
    10 * MS,
    50 * MS,
    100 * MS,
    500 * MS,
    S,
    2_500 * MS,
    5 * S,
    10 * S,
    30 * S,
    60 * S,
    120 * S,
    300 * S,
    900 * S,
    1_800 * S,
    3_600 * S,
];

/// The counters of one histogram.
#[derive(Default)]
pub(crate) struct Buckets {
    pub(crate) counts: [AtomicU64; BUCKETS],
    pub(crate) sum_ns: AtomicU64,
}

/// A histogram's figures at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Figures {
    pub(crate) counts: [u64; BUCKETS],
    pub(crate) sum: Duration,
}

/// Bucket and nanoseconds of a time.
pub(crate) fn place(bounds: &Bounds, time: Duration) -> (usize, u64) {
    let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    (bounds.iter().position(|bound| ns <= *bound).unwrap_or(BOUNDS), ns)
}

impl Buckets {
    /// Counts a time, where several threads may.
    pub(crate) fn note(&self, bounds: &Bounds, time: Duration) {
        let (bucket, ns) = place(bounds, time);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum_ns.fetch_add(ns, Relaxed);
    }

    pub(crate) fn read(&self) -> Figures {
        Figures::of(|bucket| self.counts[bucket].load(Relaxed), self.sum_ns.load(Relaxed))
    }
}

impl Figures {
    pub(crate) fn of(count: impl Fn(usize) -> u64, sum_ns: u64) -> Figures {
        Figures { counts: std::array::from_fn(count), sum: Duration::from_nanos(sum_ns) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_bucket_that_is_not_below_it() {
        let at = |ns| place(&REQUESTS, Duration::from_nanos(ns)).0;
        assert_eq!((at(0), at(100 * US), at(100 * US + 1), at(30 * S), at(30 * S + 1)), (0, 0, 1, 16, 17));
        for bounds in [REQUESTS, WORK] {
            assert!(bounds.is_sorted_by(|one, other| one < other));
        }
        let buckets = Buckets::default();
        for ns in [1, 2 * MS, 100 * S] {
            buckets.note(&REQUESTS, Duration::from_nanos(ns));
        }
        let figures = buckets.read();
        assert_eq!((figures.counts[0], figures.counts[4], figures.counts[17]), (1, 1, 1));
        assert_eq!(figures.sum, Duration::from_nanos(1 + 2 * MS + 100 * S));
    }
}
