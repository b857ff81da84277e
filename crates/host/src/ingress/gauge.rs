//! A gauge says what a connection is doing, and for how long. It is as cheap to note as a few words of memory, since
//! every request notes it, and it is looked at only every few seconds.
//!
//! ```text
//! idle -> head (its first byte has come) -> requests under way -> idle          at any time: stuck (nobody reads)
//! ```

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::framing::{Found, Judged};

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

/// See the module. Times are in milliseconds since the connection's start, plus one; 0 is none.
pub(super) struct Gauge {
    start: Instant,
    underway: AtomicU32,
    /// Heads on HTTP/1 that have come and may be served, and that no request has begun with yet.
    heads: AtomicU32,
    /// Why no more requests may be served.
    found: AtomicU8,
    /// A part of a head on HTTP/1 has come.
    in_head: AtomicBool,
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
            heads: AtomicU32::new(0),
            found: AtomicU8::new(0),
            in_head: AtomicBool::new(false),
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

    /// A request begins.
    pub(super) fn begin(&self) {
        self.underway.fetch_add(1, Relaxed);
        self.head_since.store(0, Relaxed);
        self.idle_since.store(0, Relaxed);
        // The body that was left is that of a request before this one: it has come after all.
        if self.unread.load(Relaxed) {
            self.unread.store(false, Relaxed);
        }
    }

    /// Why the request on HTTP/1 that has just begun must not be served; nothing, where its head was judged.
    pub(super) fn judgement(&self) -> Found {
        match self.heads.load(Relaxed) {
            0 => Found(self.found.load(Relaxed)) | Found::LOST,
            heads => {
                self.heads.store(heads - 1, Relaxed);
                Found::default()
            }
        }
    }

    /// A request is done, its answer handed over to the system.
    pub(super) fn end(&self) {
        self.underway.fetch_sub(1, Relaxed);
    }

    /// Whether no request is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.underway.load(Relaxed) == 0
    }

    /// Bytes have come on HTTP/1.
    pub(super) fn hear(&self, judged: Judged) {
        if judged.heads > 0 {
            self.heads.store(self.heads.load(Relaxed).saturating_add(judged.heads), Relaxed);
        }
        if judged.found != Found::default() {
            self.found.store(judged.found.0, Relaxed);
        }
        self.in_head.store(judged.in_head, Relaxed);
    }

    /// It turns out that the client speaks HTTP/2: what has come is no head.
    pub(super) fn forget_heads(&self) {
        self.heads.store(0, Relaxed);
        self.found.store(0, Relaxed);
        self.in_head.store(false, Relaxed);
        self.head_since.store(0, Relaxed);
    }

    /// Whether a part of a head has come on HTTP/1, and nothing else is to be done.
    pub(super) fn is_halfway(&self) -> bool {
        self.in_head.load(Relaxed) && self.is_quiet()
    }

    /// Whether something that was written waits for its reader.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck_since.load(Relaxed) != 0
    }

    /// More bytes are awaited.
    pub(super) fn await_bytes(&self) {
        if !self.is_quiet() {
            return;
        }
        let since = match self.in_head.load(Relaxed) {
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

    /// The time to look again, or, as an error, what is overdue.
    pub(super) fn overdue(&self, timeouts: &Timeouts) -> Result<Instant, Overdue> {
        let now = self.now();
        // A wait that begins right after this look is not overdue before.
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
        self.unread.load(Relaxed)
            || self.found.load(Relaxed) != 0
            || (self.is_quiet() && (self.in_head.load(Relaxed) || self.heads.load(Relaxed) > 0))
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
        gauge.hear(Judged { in_head: true, ..Judged::default() });
        gauge.await_bytes();
        assert!(gauge.overdue(&TIMEOUTS).is_ok());
        let gauge = Gauge { start: gauge.start - Duration::from_secs(2), ..gauge };
        assert_eq!(gauge.overdue(&TIMEOUTS), Err(Overdue::Head));
    }

    #[test]
    fn a_request_under_way_is_neither_idle_nor_a_head() {
        let gauge = after(100);
        gauge.hear(Judged { heads: 1, ..Judged::default() });
        gauge.begin();
        assert_eq!(gauge.judgement(), Found::default());
        assert!(gauge.overdue(&TIMEOUTS).is_ok());
        gauge.end();
        gauge.await_bytes();
        assert!(gauge.overdue(&TIMEOUTS).is_ok(), "idle from now on");
        assert!(!gauge.lingers());
    }

    #[test]
    fn a_request_is_served_only_if_its_head_was_judged() {
        let gauge = after(0);
        gauge.hear(Judged { heads: 2, ..Judged::default() });
        gauge.hear(Judged { found: Found::BARE_LF, ..Judged::default() });
        let judgements: Vec<Found> = (0..3).map(|_| gauge.judgement()).collect();
        assert_eq!(judgements[..2], [Found::default(); 2]);
        assert!(judgements[2].has(Found::BARE_LF) && judgements[2].has(Found::LOST));
        assert!(gauge.lingers());
    }

    #[test]
    fn half_a_head_behind_a_whole_one_is_overdue_too() {
        let gauge = after(0);
        gauge.hear(Judged { heads: 1, in_head: true, ..Judged::default() });
        gauge.begin();
        gauge.await_bytes();
        assert!(!gauge.is_halfway());
        gauge.end();
        gauge.await_bytes();
        assert!(gauge.is_halfway());
        let gauge = Gauge { start: gauge.start - Duration::from_secs(2), ..gauge };
        assert_eq!(gauge.overdue(&TIMEOUTS), Err(Overdue::Head));
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
