//! A batch that wasn't taken, and its treatment as OTLP has it: sent again, more and more rarely, or given up. Pure.

use std::time::Duration;

use http::StatusCode;

/// The first pause, and the longest, where the collector doesn't say one.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(16);

/// See the module.
#[derive(Debug)]
pub(super) struct Retries {
    /// All that may be spent on it.
    left: Duration,
    next: Duration,
}

/// Why a batch wasn't taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) why: String,
    /// Whether it may be taken later, and when, as the collector says.
    pub(super) again: Again,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    Never,
    Later,
    After(Duration),
}

impl Again {
    /// For an answer of this status, with its `Retry-After` in seconds.
    pub(super) fn of(status: StatusCode, retry_after: Option<&str>) -> Again {
        match status.as_u16() {
            429 | 502 | 503 | 504 => match retry_after.and_then(|seconds| seconds.trim().parse().ok()) {
                Some(seconds) => Again::After(Duration::from_secs(seconds)),
                // None, or a date, which nobody sends: then as if there were none.
                None => Again::Later,
            },
            _ => Again::Never,
        }
    }
}

impl Retries {
    pub(super) fn within(most: Duration) -> Retries {
        Retries { left: most, next: FIRST }
    }

    /// A try that took so long has failed. How long to wait until the next, if there is to be one. `random` is from 0 to 1.
    pub(super) fn pause(&mut self, took: Duration, again: Again, random: f64) -> Option<Duration> {
        self.left = self.left.saturating_sub(took);
        let pause = match again {
            Again::Never => return None,
            Again::After(pause) => pause,
            Again::Later => {
                let pause = self.next;
                self.next = (self.next * 2).min(LONGEST);
                // From half of it on, so that hosts that lost their collector together don't come back together.
                pause.mul_f64(0.5 + random / 2.0)
            }
        };
        if pause >= self.left {
            return None;
        }
        self.left -= pause;
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let of = |status: u16, after| Again::of(StatusCode::from_u16(status).unwrap(), after);
        for status in [429, 502, 503, 504] {
            assert_eq!(of(status, None), Again::Later);
            assert_eq!(of(status, Some("7")), Again::After(Duration::from_secs(7)));
            assert_eq!(of(status, Some("Fri, 31 Dec 1999 23:59:59 GMT")), Again::Later);
        }
        for status in [400, 401, 404, 413, 500, 501] {
            assert_eq!(of(status, Some("1")), Again::Never);
        }
    }

    #[test]
    fn pauses_grow_until_the_time_is_over() {
        let mut retries = Retries::within(Duration::from_secs(30));
        let pauses: Vec<_> = std::iter::from_fn(|| retries.pause(Duration::ZERO, Again::Later, 1.0))
            .map(|pause| pause.as_secs())
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8]);
        assert_eq!(
            Retries::within(FIRST).pause(Duration::ZERO, Again::After(Duration::from_secs(60)), 0.0),
            None
        );
    }

    proptest! {
        #[test]
        fn no_more_time_is_spent_than_there_is(most in 0u64..100_000, tries: Vec<(u16, Option<u16>, u8)>) {
            let most = Duration::from_millis(most);
            let mut retries = Retries::within(most);
            let mut paused = Duration::ZERO;
            for (took, after, random) in tries {
                let again = after.map_or(Again::Later, |seconds| Again::After(Duration::from_secs(seconds.into())));
                let Some(pause) = retries.pause(Duration::from_millis(took.into()), again, f64::from(random) / 255.0) else { break };
                paused += pause;
            }
            prop_assert!(paused <= most);
        }
    }
}
