//! What a connection is doing, and for how long: as cheap to note as a few words of memory, since it's noted for each
//! request, and looked at only every few seconds.
//!
//! ```text
//! idle -> head (its first byte has come) -> requests under way -> idle          at any time: stuck (nobody reads)
//! ```

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::framing::Found;

/// How long a connection may take for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    pub(super) header: Duration,
    pub(super) idle: Duration,
    pub(super) body: Duration,
}

impl Timeouts {
    fn shortest(&self) -> Duration {
        self.header.min(self.idle).min(self.body)
    }
}

/// Why a connection ends before its client ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// The rest of a head.
    Head,
    /// Any request.
    Idle,
    /// That somebody reads what was written.
    Stuck,
}

/// What bytes of an HTTP/1 connection belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// They are the first since the last request ended.
    NewHead,
    Head,
    /// A request is under way.
    Body,
}

/// See the module. Times are in milliseconds since the connection's start, plus one; 0 is none.
pub(super) struct Gauge {
    start: Instant,
    underway: AtomicU32,
    /// Bytes came since the last request ended.
    heard: AtomicBool,
    /// What was found in the bytes of the head that is coming.
    found: AtomicU8,
    idle_since: AtomicU64,
    head_since: AtomicU64,
    stuck_since: AtomicU64,
    /// A head is overdue, and reading is to end.
    expired: AtomicBool,
    /// The client may be sending still what nobody will read.
    unread: AtomicBool,
}

impl Gauge {
    pub(super) fn new() -> Gauge {
        Gauge {
            start: Instant::now(),
            underway: AtomicU32::new(0),
            heard: AtomicBool::new(false),
            found: AtomicU8::new(0),
            idle_since: AtomicU64::new(1),
            head_since: AtomicU64::new(0),
            stuck_since: AtomicU64::new(0),
            expired: AtomicBool::new(false),
            unread: AtomicBool::new(false),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).map_or(u64::MAX, |ms| ms + 1)
    }

    /// A request's head is whole. Returns what was found in its bytes.
    pub(super) fn begin(&self) -> Found {
        self.underway.fetch_add(1, Relaxed);
        self.heard.store(false, Relaxed);
        self.head_since.store(0, Relaxed);
        self.idle_since.store(0, Relaxed);
        // Of another request before this one: it has come after all.
        if self.unread.load(Relaxed) {
            self.unread.store(false, Relaxed);
        }
        let found = Found(self.found.load(Relaxed));
        if found != Found::default() {
            self.found.store(0, Relaxed);
        }
        found
    }

    /// A request is done, its answer handed over to the system.
    pub(super) fn end(&self) {
        self.underway.fetch_sub(1, Relaxed);
    }

    /// Whether no request is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.underway.load(Relaxed) == 0
    }

    /// Bytes have come. Says what they may belong to.
    pub(super) fn hear(&self) -> Heard {
        if !self.is_quiet() {
            return Heard::Body;
        }
        if self.heard.load(Relaxed) {
            return Heard::Head;
        }
        self.heard.store(true, Relaxed);
        Heard::NewHead
    }

    /// This was found in the head that is coming.
    pub(super) fn find(&self, found: Found) {
        if found != Found::default() {
            self.found.fetch_or(found.0, Relaxed);
        }
    }

    /// More bytes are awaited. `heads` says whether bytes between requests belong to a head, as in HTTP/1.
    pub(super) fn await_bytes(&self, heads: bool) {
        if !self.is_quiet() {
            return;
        }
        let since = match heads && self.heard.load(Relaxed) {
            true => &self.head_since,
            false => &self.idle_since,
        };
        if since.load(Relaxed) == 0 {
            since.store(self.now(), Relaxed);
        }
    }

    /// The client doesn't take what is written.
    pub(super) fn stick(&self) {
        if self.stuck_since.load(Relaxed) == 0 {
            self.stuck_since.store(self.now(), Relaxed);
        }
    }

    /// It took some of it.
    pub(super) fn flow(&self) {
        if self.stuck_since.load(Relaxed) != 0 {
            self.stuck_since.store(0, Relaxed);
        }
    }

    /// What is overdue, or when to look again.
    pub(super) fn overdue(&self, timeouts: &Timeouts) -> Result<Instant, Overdue> {
        let now = self.now();
        // What begins right after this look is not overdue before.
        let mut next = now.saturating_add(millis(timeouts.shortest()));
        let mut check = |since: u64, limit: Duration, overdue| {
            let due = since.saturating_add(millis(limit));
            if since != 0 && due <= now {
                return Err(overdue);
            }
            if since != 0 {
                next = next.min(due);
            }
            Ok(())
        };
        check(self.stuck_since.load(Relaxed), timeouts.body, Overdue::Stuck)?;
        if self.is_quiet() {
            match self.head_since.load(Relaxed) {
                0 => check(self.idle_since.load(Relaxed), timeouts.idle, Overdue::Idle)?,
                since => check(since, timeouts.header, Overdue::Head)?,
            }
        }
        Ok(self.start + Duration::from_millis(next))
    }

    /// Reading ends: see [`Gauge::has_expired`].
    pub(super) fn expire(&self) {
        self.expired.store(true, Relaxed);
    }

    /// Whether the head that is being read is overdue.
    pub(super) fn has_expired(&self) -> bool {
        self.expired.load(Relaxed)
    }

    /// A body was left that may still come.
    pub(super) fn leave_unread(&self) {
        self.unread.store(true, Relaxed);
    }

    /// Whether to read on for a moment when the connection closes: closing on what wasn't read makes the system reset
    /// the connection, and a client that is still sending would never see its answer.
    pub(super) fn lingers(&self) -> bool {
        self.unread.load(Relaxed) || (self.heard.load(Relaxed) && self.is_quiet())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const TIMEOUTS: Timeouts = Timeouts { header: SECOND, idle: Duration::from_secs(10), body: SECOND };

    /// A gauge of a connection that began so long ago.
    fn after(seconds: u64) -> Gauge {
        Gauge { start: Instant::now() - Duration::from_secs(seconds), ..Gauge::new() }
    }

    #[test]
    fn a_connection_may_be_idle_for_longer_than_a_head_may_take() {
        assert!(after(5).overdue(&TIMEOUTS).is_ok());
        assert_eq!(after(11).overdue(&TIMEOUTS), Err(Overdue::Idle));
        let gauge = after(0);
        gauge.hear();
        gauge.await_bytes(true);
        assert!(gauge.overdue(&TIMEOUTS).is_ok());
        let gauge = Gauge { start: gauge.start - Duration::from_secs(2), ..gauge };
        assert_eq!(gauge.overdue(&TIMEOUTS), Err(Overdue::Head));
    }

    #[test]
    fn a_request_under_way_is_neither_idle_nor_a_head() {
        let gauge = after(100);
        gauge.hear();
        gauge.await_bytes(true);
        gauge.begin();
        assert!(gauge.overdue(&TIMEOUTS).is_ok());
        gauge.end();
        gauge.await_bytes(true);
        assert!(gauge.overdue(&TIMEOUTS).is_ok(), "idle from now on");
        assert!(!gauge.lingers());
    }

    #[test]
    fn who_reads_nothing_is_overdue_until_it_reads() {
        let gauge = after(0);
        gauge.begin();
        gauge.stick();
        let gauge = Gauge { start: gauge.start - Duration::from_secs(2), ..gauge };
        assert_eq!(gauge.overdue(&TIMEOUTS), Err(Overdue::Stuck));
        gauge.flow();
        assert!(gauge.overdue(&TIMEOUTS).is_ok());
    }
}
