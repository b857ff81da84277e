//! The store's clock, as a host knows it from the answers to its heartbeats. Schedules go by it, so that hosts whose own
//! clocks are an hour apart agree on when a time has come.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use wasmhost_store::{Clock, SystemClock, Timestamp};

/// An answer that took longer says too little of the time.
const TOOK_MAX: Duration = Duration::from_secs(1);

/// The own clock, and how far the store's is ahead of it.
#[derive(Debug, Default)]
pub(crate) struct StoreClock {
    own: SystemClock,
    ahead_ms: AtomicI64,
}

impl StoreClock {
    /// The store said this after a request that took so long.
    pub(crate) fn hear(&self, said: Timestamp, took: Duration) {
        if took <= TOOK_MAX {
            // It said so half way, as far as anybody knows.
            self.set(said + took / 2, self.own.now());
        }
    }

    fn set(&self, store: Timestamp, own: Timestamp) {
        self.ahead_ms.store(store.0.saturating_sub(own.0), Relaxed);
    }
}

impl Clock for StoreClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.own.now().0.saturating_add(self.ahead_ms.load(Relaxed)))
    }

    fn steady(&self) -> Timestamp {
        self.own.steady()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn it_shows_the_time_of_the_store() {
        let clock = StoreClock::default();
        let near = |one: Timestamp, other: Timestamp| one.0.abs_diff(other.0) < 60_000;
        assert!(near(clock.now(), Timestamp::now()));
        clock.hear(Timestamp::now() + HOUR, Duration::ZERO);
        assert!(near(clock.now(), Timestamp::now() + HOUR));
        clock.hear(Timestamp::now(), Duration::from_secs(5));
        assert!(near(clock.now(), Timestamp::now() + HOUR), "nobody knows when that was said");
        clock.hear(Timestamp::now() - HOUR, Duration::from_millis(10));
        assert!(near(clock.now(), Timestamp::now() - HOUR));
    }
}
