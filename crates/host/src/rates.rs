//! How fast jobs may be put on a queue: `max_per_second`, for each producer by itself, so that a storm of one type's leaves
//! the others theirs.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Jobs of this time may come at once.
const BURST: Duration = Duration::from_secs(1);

/// Producers and queues that are remembered at once.
const RATES_MAX: usize = 10_000;

/// The rates of all queues that have a bound.
pub(crate) struct Rates {
    begun: Instant,
    by_producer: Mutex<HashMap<(String, String), Rate>>,
}

impl Default for Rates {
    fn default() -> Self {
        Rates { begun: Instant::now(), by_producer: Mutex::default() }
    }
}

impl Rates {
    /// Takes the right to enqueue so many jobs now.
    ///
    /// # Errors
    ///
    /// This producer has enqueued too many: how long it is to wait.
    pub(crate) fn take(
        &self,
        producer: &str,
        queue: &str,
        jobs: usize,
        per_second: u32,
    ) -> Result<(), Duration> {
        let now = self.begun.elapsed();
        let mut rates = self.by_producer.lock().unwrap_or_else(|poison| poison.into_inner());
        if rates.len() >= RATES_MAX {
            rates.retain(|_, rate| rate.earned_at > now);
        }
        rates.entry((producer.to_owned(), queue.to_owned())).or_default().take(now, jobs, per_second)
    }
}

/// One producer on one queue.
#[derive(Debug, Default)]
struct Rate {
    /// When the jobs that were enqueued up to now will have been earned, since the host's beginning.
    earned_at: Duration,
}

impl Rate {
    /// Jobs of one call are taken all or none. More than a second's are taken, too, and earned later.
    fn take(&mut self, now: Duration, jobs: usize, per_second: u32) -> Result<(), Duration> {
        let each = Duration::from_secs(1) / per_second.max(1);
        let (ahead, ahead_max) = (self.earned_at.saturating_sub(now), BURST.saturating_sub(each));
        if ahead > ahead_max {
            return Err(ahead - ahead_max);
        }
        self.earned_at = self.earned_at.max(now) + each * u32::try_from(jobs).unwrap_or(u32::MAX);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_seconds_worth_comes_at_once_and_then_each_when_it_is_earned() {
        let mut rate = Rate::default();
        let now = ms(50_000);
        assert_eq!((0..50).filter(|_| rate.take(now, 1, 10).is_ok()).count(), 10);
        assert_eq!(rate.take(now, 1, 10), Err(ms(100)));
        assert!(rate.take(now + ms(99), 1, 10).is_err());
        assert!(rate.take(now + ms(101), 1, 10).is_ok());
        assert!(rate.take(now + ms(101), 1, 10).is_err());
        assert_eq!((0..50).filter(|_| rate.take(now + ms(60_000), 1, 10).is_ok()).count(), 10);
    }

    #[test]
    fn a_batch_that_is_larger_than_the_rate_is_taken_and_then_waited_for() {
        let mut rate = Rate::default();
        assert!(rate.take(ms(0), 1_000, 100).is_ok());
        assert_eq!(rate.take(ms(0), 1, 100), Err(ms(9_010)));
        assert!(rate.take(ms(9_010), 1, 100).is_ok());
    }

    #[test]
    fn producers_and_queues_have_rates_of_their_own() {
        let rates = Rates::default();
        for (producer, queue) in [("web", "mail"), ("web", "other"), ("evil", "mail")] {
            // They are earned in an hour.
            assert!(rates.take(producer, queue, 3_600, 1).is_ok(), "{producer} {queue}");
            assert!(rates.take(producer, queue, 1, 1).is_err(), "{producer} {queue}");
        }
    }

    proptest! {
        /// Calls of one job at any times: never more than a burst and what was earned since.
        #[test]
        fn no_more_are_taken_than_were_earned(
            per_second in 1u32..50,
            pauses in proptest::collection::vec(0u64..300, 1..200),
        ) {
            let (mut rate, mut now, mut taken) = (Rate::default(), 0, 0u64);
            for pause in pauses {
                now += pause;
                match rate.take(ms(now), 1, per_second) {
                    Ok(()) => taken += 1,
                    Err(wait) => {
                        // A producer that waits for as long as it is told is taken.
                        let mut later = Rate { earned_at: rate.earned_at };
                        prop_assert!(later.take(ms(now) + wait, 1, per_second).is_ok());
                    }
                }
                prop_assert!(taken * 1000 <= u64::from(per_second) * (now + 1000) + 1000, "{taken} in {now} ms");
            }
        }
    }
}
