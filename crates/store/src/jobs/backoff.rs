//! How long a failed job waits for its next try.

use std::sync::Arc;
use std::time::Duration;

/// The waits between a job's attempts. Each is up to a tenth longer than it says, so that jobs that failed together
/// don't come back together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Backoff {
    /// n^4 + 15 s after attempt n, as Sidekiq does it.
    #[default]
    Curve,
    /// After attempt n the nth of these; the last one repeats. An empty list is the curve.
    List(Arc<[Duration]>),
}

impl Backoff {
    /// The wait after the failed attempt of this number (from 1).
    pub fn wait(&self, attempt: u32) -> Duration {
        let base = match self {
            Backoff::List(waits) if !waits.is_empty() => {
                let nth = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
                waits[nth.min(waits.len() - 1)]
            }
            // Past 136 years it makes no difference, and would overflow.
            _ => Duration::from_secs_f64((f64::from(attempt).powi(4) + 15.0).min(f64::from(u32::MAX))),
        };
        base.saturating_add(base / 10_000 * fastrand::u32(0..=1_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(wait: Duration, seconds: u64) -> bool {
        let base = Duration::from_secs(seconds);
        wait >= base && wait <= base.mul_f64(1.1)
    }

    #[test]
    fn the_curve_rises_and_never_overflows() {
        assert!(near(Backoff::Curve.wait(1), 16));
        assert!(near(Backoff::Curve.wait(3), 96));
        assert!(Backoff::Curve.wait(u32::MAX) > Backoff::Curve.wait(200));
    }

    #[test]
    fn a_lists_last_wait_repeats() {
        let list = Backoff::List([1, 30, 600].map(Duration::from_secs).into());
        for (attempt, seconds) in [(1, 1), (2, 30), (3, 600), (4, 600), (u32::MAX, 600)] {
            assert!(near(list.wait(attempt), seconds), "attempt {attempt}");
        }
        assert!(near(Backoff::List([].into()).wait(1), 16));
        assert!(near(list.wait(0), 1));
        assert_eq!(Backoff::List([Duration::MAX].into()).wait(1), Duration::MAX);
    }
}
