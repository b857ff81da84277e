//! How well group commit works.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The upper bounds of [`Written::commits_by_time`], in seconds.
pub const COMMIT_SECONDS: [f64; 12] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0];

/// How much was written, since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Written {
    /// Operations that were answered.
    pub operations: u64,
    /// Transactions that were committed for them, each with an fsync.
    pub commits: u64,
    /// The time that these commits took, all together.
    pub commit_time: Duration,
    /// The commits that took as long as each of [`COMMIT_SECONDS`] at most and longer than the one before, and those that
    /// took longer than all.
    pub commits_by_time: [u64; COMMIT_SECONDS.len() + 1],
}

#[derive(Default)]
pub(crate) struct Meter {
    operations: AtomicU64,
    commit_ns: AtomicU64,
    commits_by_time: [AtomicU64; COMMIT_SECONDS.len() + 1],
}

impl Meter {
    /// A transaction was committed, which took so long.
    pub(crate) fn committed(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = COMMIT_SECONDS.iter().position(|bound| seconds <= *bound);
        self.commits_by_time[bucket.unwrap_or(COMMIT_SECONDS.len())].fetch_add(1, Relaxed);
        self.commit_ns.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// An operation was answered.
    pub(crate) fn answered(&self) {
        self.operations.fetch_add(1, Relaxed);
    }

    pub(crate) fn read(&self) -> Written {
        let commits_by_time = std::array::from_fn(|bucket| self.commits_by_time[bucket].load(Relaxed));
        Written {
            operations: self.operations.load(Relaxed),
            commits: commits_by_time.iter().sum(),
            commit_time: Duration::from_nanos(self.commit_ns.load(Relaxed)),
            commits_by_time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_in_the_first_bucket_that_is_long_enough() {
        let meter = Meter::default();
        for took in [Duration::ZERO, Duration::from_millis(1), Duration::from_secs(60)] {
            meter.committed(took);
        }
        let written = meter.read();
        assert_eq!(written.commits, 3);
        assert_eq!(
            (written.commits_by_time[0], written.commits_by_time[3], written.commits_by_time[12]),
            (1, 1, 1)
        );
        assert_eq!(written.commit_time, Duration::from_millis(60_001));
    }
}
