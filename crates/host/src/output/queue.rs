//! The lines that wait for a stream, bounded for each source by itself.
//!
//! Lines leave in the order in which they came, as long as the stream keeps up. Where it doesn't, they leave in rounds: a
//! source has [`ROUND_BYTES`] in each, on average. A line of a source that writes little is in the round
//! that is being written, and so waits for no more than a round of each other source. `store/src/lines.rs` has the same
//! rounds for operations of the store: a mend of one may be one of the other.
//!
//! ```text
//! has room --(ROOM_BYTES are held)--> full --(nothing is taken for WAIT_MAX)--> overrun
//!     ^--------------------(the stream takes of its lines)-----------------------'
//! ```
//!
//! A source that is full waits, if it can. One that is overrun doesn't: its lines are dropped and counted, as are those
//! past `HELD_BYTES_MAX`. Other sources notice nothing.
//!
//! This is a machine without locks and clocks: [`super`] drives it. Each line passes here, so that `put` and `may_write`
//! ask for the time only where it matters.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Bytes of one source's lines that may wait before it has to.
pub(super) const ROOM_BYTES: usize = 1 << 20;

/// Bytes of one source's lines that are held at most. The difference is for those who were told that there is room.
pub(super) const HELD_BYTES_MAX: usize = 2 << 20;

/// Bytes that a line counts beyond its own: what it takes to hold it.
pub(super) const LINE_BYTES: usize = 100;

/// Bytes of one source's lines in one round.
const ROUND_BYTES: usize = 32 << 10;

/// How long a source waits for a stream that takes nothing of its lines. From then on they are dropped.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(1);

/// How long dropped lines are counted before they are told, and how often that is told where it goes on.
const TOLD_AFTER: Duration = Duration::from_secs(1);
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// One that writes lines, by its place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SourceId(usize);

/// See the module.
pub(super) struct Queue<T> {
    /// The rounds, of which the first is being written; each has its lines in the order in which they came. The first and the
    /// last have some.
    rounds: VecDeque<VecDeque<Waiting<T>>>,
    /// The number of the first of them.
    round: u64,
    /// The last round that the next line of a source belongs to.
    last_round: u64,
    sources: Vec<Source>,
}

struct Waiting<T> {
    source: SourceId,
    bytes: usize,
    item: T,
}

struct Source {
    name: String,
    held_bytes: usize,
    /// The round that its next line belongs to, and the bytes of its lines in it.
    round: u64,
    round_bytes: usize,
    /// Since when it has no room, and nothing of it has been taken.
    full_since: Option<Instant>,
    /// Lines that were dropped and aren't told yet, and since when there are any.
    dropped: u64,
    dropping_since: Option<Instant>,
    told: Option<Instant>,
    /// All that were ever dropped.
    dropped_in_all: u64,
}

/// Lines that a person is to be told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) source: String,
    pub(super) lines: u64,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Queue<T> {
        Queue { rounds: VecDeque::new(), round: 0, last_round: 0, sources: Vec::new() }
    }

    /// Adds a source. `name` completes "12 lines of ...".
    pub(super) fn source(&mut self, name: String) -> SourceId {
        self.sources.push(Source {
            name,
            held_bytes: 0,
            round: 0,
            round_bytes: 0,
            full_since: None,
            dropped: 0,
            dropping_since: None,
            told: None,
            dropped_in_all: 0,
        });
        SourceId(self.sources.len() - 1)
    }

    /// Takes a line of so many bytes, or counts it as dropped; whether it was taken.
    pub(super) fn put(&mut self, source: SourceId, bytes: usize, item: T, now: impl Fn() -> Instant) -> bool {
        let of = &mut self.sources[source.0];
        if of.held_bytes >= HELD_BYTES_MAX || of.is_overrun(&now) {
            of.drop_line(now());
            return false;
        }
        let bytes = bytes + LINE_BYTES;
        of.held_bytes += bytes;
        if of.held_bytes >= ROOM_BYTES {
            of.full_since.get_or_insert_with(now);
        }
        let round = of.take_place(self.round, bytes);
        self.last_round = self.last_round.max(of.round);
        if self.rounds.is_empty() {
            self.round = round;
        }
        let ahead = usize::try_from(round - self.round).unwrap_or(usize::MAX);
        while self.rounds.len() <= ahead {
            self.rounds.push_back(VecDeque::new());
        }
        self.rounds[ahead].push_back(Waiting { source, bytes, item });
        true
    }

    /// The next line.
    pub(super) fn take(&mut self, now: Instant) -> Option<(SourceId, T)> {
        let Waiting { source, bytes, item } = self.rounds.front_mut()?.pop_front()?;
        while self.rounds.front().is_some_and(VecDeque::is_empty) {
            self.rounds.pop_front();
            self.round += 1;
        }
        if self.rounds.is_empty() {
            // The stream has kept up: nobody owes others a round.
            self.round = self.round.max(self.last_round + 1);
        }
        let of = &mut self.sources[source.0];
        of.held_bytes -= bytes;
        of.full_since = (of.held_bytes >= ROOM_BYTES).then_some(now);
        Some((source, item))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rounds.is_empty()
    }

    /// Whether a source may write without a wait: there is room, or a wait would be in vain.
    pub(super) fn may_write(&self, source: SourceId, now: impl Fn() -> Instant) -> bool {
        self.sources[source.0].may_write(now)
    }

    /// When a source that waits has waited for long enough.
    pub(super) fn waits_until(&self, source: SourceId) -> Option<Instant> {
        self.sources[source.0].full_since.map(|since| since + WAIT_MAX)
    }

    /// A line that was taken could not be written.
    pub(super) fn lose(&mut self, source: SourceId, now: Instant) {
        self.sources[source.0].drop_line(now);
    }

    /// All that waits is given up, and counted.
    pub(super) fn lose_all(&mut self, now: Instant) {
        while let Some((source, _)) = self.take(now) {
            self.lose(source, now);
        }
    }

    /// All lines of a source that were ever dropped.
    pub(super) fn dropped(&self, source: SourceId) -> u64 {
        self.sources[source.0].dropped_in_all
    }

    pub(super) fn has_dropped(&self) -> bool {
        self.sources.iter().any(|of| of.dropped > 0)
    }

    /// The dropped lines to be told now: after a second of dropping, and from then on once a minute where a source, or
    /// the stream, goes on so.
    pub(super) fn tell(&mut self, is_stream_broken: bool, now: Instant) -> Vec<Dropped> {
        self.tell_if(now, |of| {
            let is_bad = is_stream_broken || of.full_since.is_some();
            let is_over = |since: Option<Instant>, time| {
                since.is_none_or(|since| now.saturating_duration_since(since) >= time)
            };
            is_over(of.dropping_since, TOLD_AFTER) && (!is_bad || is_over(of.told, TOLD_EVERY))
        })
    }

    /// All that hasn't been told.
    pub(super) fn tell_all(&mut self, now: Instant) -> Vec<Dropped> {
        self.tell_if(now, |_| true)
    }

    fn tell_if(&mut self, now: Instant, is_due: impl Fn(&Source) -> bool) -> Vec<Dropped> {
        let mut told = Vec::new();
        for of in self.sources.iter_mut().filter(|of| of.dropped > 0) {
            if is_due(of) {
                told.push(Dropped { source: of.name.clone(), lines: std::mem::take(&mut of.dropped) });
                of.dropping_since = None;
                of.told = Some(now);
            }
        }
        told
    }
}

impl Source {
    /// The round for a line of so many bytes, where this one is being written.
    fn take_place(&mut self, now: u64, bytes: usize) -> u64 {
        if self.round < now {
            (self.round, self.round_bytes) = (now, 0);
        }
        let round = self.round;
        self.round_bytes += bytes;
        self.round += (self.round_bytes / ROUND_BYTES) as u64;
        self.round_bytes %= ROUND_BYTES;
        round
    }

    fn may_write(&self, now: impl Fn() -> Instant) -> bool {
        self.held_bytes < ROOM_BYTES || self.is_overrun(now)
    }

    fn drop_line(&mut self, now: Instant) {
        self.dropped += 1;
        self.dropped_in_all += 1;
        self.dropping_since.get_or_insert(now);
    }

    fn is_overrun(&self, now: impl Fn() -> Instant) -> bool {
        self.full_since.is_some_and(|since| now().saturating_duration_since(since) >= WAIT_MAX)
    }
}

#[cfg(test)]
mod tests;
