//! How many jobs to claim ahead: as many as an instance does while a claim is on its way to the disk and back.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The most for each instance.
const DEPTH_MAX: u64 = 16;

/// The time that recent claims and calls of a type have taken, on average. Without any nothing is claimed ahead.
#[derive(Default)]
pub(crate) struct Ahead {
    claim_ns: AtomicU64,
    call_ns: AtomicU64,
}

impl Ahead {
    /// A claim took so long.
    pub(crate) fn claimed(&self, took: Duration) {
        add(&self.claim_ns, took);
    }

    /// A call took so long.
    pub(crate) fn called(&self, took: Duration) {
        add(&self.call_ns, took);
    }

    /// Jobs to claim for each instance beside the one that it can have at once.
    pub(crate) fn depth(&self) -> usize {
        let (claim, call) = (self.claim_ns.load(Relaxed), self.call_ns.load(Relaxed));
        let depth = claim.checked_div(call).unwrap_or(0).min(DEPTH_MAX);
        usize::try_from(depth).unwrap_or(0)
    }
}

/// An average in which the last eight count most. If two come at the same moment, one may be lost, which does no
/// harm.
fn add(average: &AtomicU64, took: Duration) {
    let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX >> 3).max(1);
    let next = match average.load(Relaxed) {
        0 => took,
        before => before - before / 8 + took / 8,
    };
    average.store(next, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(claim_us: u64, calls_us: &[u64]) -> usize {
        let ahead = Ahead::default();
        ahead.claimed(Duration::from_micros(claim_us));
        calls_us.iter().for_each(|us| ahead.called(Duration::from_micros(*us)));
        ahead.depth()
    }

    #[test]
    fn only_short_jobs_are_claimed_ahead() {
        assert_eq!(after(2_000, &[]), 0);
        assert_eq!(after(2_000, &[500]), 4);
        assert_eq!(after(2_000, &[5_000]), 0);
        assert_eq!(after(2_000, &[1]), 16);
    }

    #[test]
    fn one_long_job_ends_it() {
        assert_eq!(after(2_000, &[100, 100, 100, 1_000_000]), 0);
    }
}
