//! The supervisor's word to the service manager each time its loop turns: that it works (the watchdog), and the counts
//! where they have changed, at most once a second. Nothing else feeds the watchdog, so that a supervisor that hangs is
//! noticed.
//!
//! [`Beat`] decides, and knows no clock and no manager.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::systemd::ServiceManager;

/// How soon after a status another one may follow.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Pulse {
    manager: ServiceManager,
    beat: Beat,
    /// Whether jobs and ticks are begun.
    is_taking: watch::Receiver<bool>,
}

impl Pulse {
    pub(crate) fn new(manager: ServiceManager, is_taking: watch::Receiver<bool>) -> Pulse {
        let beat = Beat::new(manager.watchdog(), Instant::now());
        Pulse { manager, beat, is_taking }
    }

    /// Waits until the loop has to turn for the manager's sake; for ever where there is none.
    pub(super) async fn due(&mut self) {
        if !self.manager.is_there() {
            return std::future::pending().await;
        }
        let next = self.beat.next();
        let timer = async {
            match next {
                Some(next) => tokio::time::sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = timer => {}
            Ok(()) = self.is_taking.changed() => {}
        }
    }

    /// The loop has turned.
    pub(super) fn turned(&mut self, is_draining: bool, counts: impl FnOnce() -> String) {
        if !self.manager.is_there() {
            return;
        }
        let now = Instant::now();
        if self.beat.is_watchdog_due(now) {
            self.manager.feed_watchdog();
        }
        if is_draining {
            // The drain tells how it stands.
            return;
        }
        let is_taking = *self.is_taking.borrow();
        let status = || match is_taking {
            true => counts(),
            false => format!("{}; jobs and ticks are paused", counts()),
        };
        if let Some(status) = self.beat.status(now, status) {
            self.manager.status(status);
        }
    }
}

/// When which message is due.
struct Beat {
    watchdog_every: Option<Duration>,
    watchdog_at: Instant,
    /// The status that was told last.
    told: String,
    quiet_until: Instant,
    /// Something may have changed that couldn't be told yet.
    is_behind: bool,
}

impl Beat {
    fn new(watchdog_every: Option<Duration>, now: Instant) -> Beat {
        Beat { watchdog_every, watchdog_at: now, told: String::new(), quiet_until: now, is_behind: true }
    }

    /// When to turn, where nothing happens before.
    fn next(&self) -> Option<Instant> {
        let watchdog = self.watchdog_every.map(|_| self.watchdog_at);
        let status = self.is_behind.then_some(self.quiet_until);
        watchdog.into_iter().chain(status).min()
    }

    fn is_watchdog_due(&mut self, now: Instant) -> bool {
        match self.watchdog_every {
            Some(every) if now >= self.watchdog_at => {
                self.watchdog_at = now + every;
                true
            }
            _ => false,
        }
    }

    /// The status, if it has changed and may be told.
    fn status(&mut self, now: Instant, status: impl FnOnce() -> String) -> Option<&str> {
        self.is_behind = now < self.quiet_until;
        if self.is_behind {
            return None;
        }
        let status = status();
        if status == self.told {
            return None;
        }
        self.quiet_until = now + STATUS_EVERY;
        self.told = status;
        Some(&self.told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_watchdog_is_due_as_often_as_it_wants_however_often_the_loop_turns() {
        let begun = Instant::now();
        let mut beat = Beat::new(Some(100 * MS), begun);
        let fed: Vec<u32> = (0..1_000).filter(|ms| beat.is_watchdog_due(begun + *ms * MS)).collect();
        assert_eq!(fed, (0..10).map(|n| n * 100).collect::<Vec<_>>());
        assert!(!Beat::new(None, begun).is_watchdog_due(begun + 1_000 * MS));
    }

    #[test]
    fn a_status_is_told_when_it_changes_and_at_most_once_a_second() {
        let begun = Instant::now();
        let mut beat = Beat::new(None, begun);
        let mut at = |ms: u32, status: &str| {
            let told = beat.status(begun + ms * MS, || status.to_owned()).map(str::to_owned);
            (told, beat.next())
        };
        let told = |status: &str| Some(status.to_owned());
        assert_eq!(at(0, "web=0/2"), (told("web=0/2"), None));
        assert_eq!(at(10, "web=1/2"), (None, Some(begun + 1_000 * MS)));
        assert_eq!(at(20, "web=2/2"), (None, Some(begun + 1_000 * MS)));
        assert_eq!(at(1_000, "web=2/2"), (told("web=2/2"), None));
        assert_eq!(at(9_000, "web=2/2"), (None, None));
        assert_eq!(at(9_001, "web=1/2"), (told("web=1/2"), None));
    }

    #[test]
    fn the_loop_turns_for_whichever_comes_first() {
        let begun = Instant::now();
        let mut beat = Beat::new(Some(3_000 * MS), begun);
        assert_eq!(beat.next(), Some(begun), "it has told nothing yet");
        assert!(beat.is_watchdog_due(begun));
        beat.status(begun, || "web=1/1".to_owned());
        assert_eq!(beat.next(), Some(begun + 3_000 * MS));
        beat.status(begun + 10 * MS, || "web=0/1".to_owned());
        assert_eq!(beat.next(), Some(begun + 1_000 * MS));
    }
}
