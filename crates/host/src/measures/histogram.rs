//! Histograms of times, with fixed buckets.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The upper bounds of a histogram's buckets, in nanoseconds. Times above the last have a bucket of their own.
pub(crate) type Bounds = [u64; BOUNDS];
pub(crate) const BOUNDS: usize = 17;
pub(crate) const BUCKETS: usize = BOUNDS + 1;

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

    /// Both together.
    pub(crate) fn and(&self, other: &Figures) -> Figures {
        let count = |bucket: usize| self.counts[bucket] + other.counts[bucket];
        Figures { counts: std::array::from_fn(count), sum: self.sum + other.sum }
    }

    /// The time in seconds that this part of all times doesn't exceed, as Prometheus reckons it: times are spread evenly over
    /// their bucket, and those above the last bound are at it. None where there are no times.
    pub(crate) fn quantile(&self, bounds: &Bounds, part: f64) -> Option<f64> {
        let all: u64 = self.counts.iter().sum();
        let rank = part * all as f64;
        let mut below = 0;
        for (bucket, count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let Some(upper) = bounds.get(bucket) else { break };
            if (below + count) as f64 >= rank {
                let lower = bucket.checked_sub(1).map_or(0, |before| bounds[before]);
                let within = (rank - below as f64) / *count as f64;
                return Some((lower as f64 + (upper - lower) as f64 * within) / S as f64);
            }
            below += count;
        }
        (all > 0).then(|| bounds[BOUNDS - 1] as f64 / S as f64)
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

    #[test]
    fn a_quantile_is_within_the_bucket_that_has_it() {
        let of = |times: &[(u64, u64)]| {
            let buckets = Buckets::default();
            for (ns, count) in times {
                (0..*count).for_each(|_| buckets.note(&REQUESTS, Duration::from_nanos(*ns)));
            }
            buckets.read()
        };
        let quantile = |figures: &Figures, part| figures.quantile(&REQUESTS, part);
        assert_eq!(quantile(&of(&[]), 0.5), None);
        let figures = of(&[(2 * MS, 98), (40 * MS, 2)]);
        let (half, most) = (quantile(&figures, 0.5).unwrap(), quantile(&figures, 0.99).unwrap());
        assert!((0.001..0.0025).contains(&half) && (0.025..=0.05).contains(&most), "{half} {most}");
        assert_eq!(quantile(&of(&[(100 * S, 1)]), 0.99), Some(30.0), "as far as the bounds go");
        assert_eq!(quantile(&figures.and(&of(&[(100 * S, 900)])), 0.5), Some(30.0));
    }
}
