//! The lines that wait for a stream, in the order in which they came, bounded for each source by itself.
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
    waiting: VecDeque<Waiting<T>>,
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
        Queue { waiting: VecDeque::new(), sources: Vec::new() }
    }

    /// Adds a source. `name` completes "12 lines of ...".
    pub(super) fn source(&mut self, name: String) -> SourceId {
        self.sources.push(Source {
            name,
            held_bytes: 0,
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
        self.waiting.push_back(Waiting { source, bytes, item });
        true
    }

    /// The line that waits for longest.
    pub(super) fn take(&mut self, now: Instant) -> Option<(SourceId, T)> {
        let Waiting { source, bytes, item } = self.waiting.pop_front()?;
        let of = &mut self.sources[source.0];
        of.held_bytes -= bytes;
        of.full_since = (of.held_bytes >= ROOM_BYTES).then_some(now);
        Some((source, item))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINE: usize = 1_000;

    /// Puts lines until the source has no room.
    fn fill(queue: &mut Queue<u32>, source: SourceId, now: Instant) -> u32 {
        let mut count = 0;
        while queue.may_write(source, || now) {
            assert!(queue.put(source, LINE, count, || now));
            count += 1;
        }
        count
    }

    fn dropped(source: &str, lines: u64) -> Vec<Dropped> {
        vec![Dropped { source: source.into(), lines }]
    }

    #[test]
    fn lines_leave_in_the_order_in_which_they_came() {
        let (mut queue, now) = (Queue::new(), Instant::now());
        let (web, worker) = (queue.source("web".into()), queue.source("worker".into()));
        for (source, item) in [(web, 1), (worker, 2), (web, 3)] {
            assert!(queue.put(source, LINE, item, || now));
        }
        let taken: Vec<_> = std::iter::from_fn(|| queue.take(now)).collect();
        assert_eq!(taken, [(web, 1), (worker, 2), (web, 3)]);
        assert!(queue.is_empty() && !queue.has_dropped());
    }

    #[test]
    fn a_source_that_is_full_waits_for_a_second_and_then_its_lines_are_dropped() {
        let (mut queue, start) = (Queue::new(), Instant::now());
        let (web, worker) = (queue.source("web".into()), queue.source("worker".into()));
        fill(&mut queue, web, start);
        assert_eq!(queue.waits_until(web), Some(start + WAIT_MAX));
        // One that was told that there is room may use it.
        assert!(queue.put(web, LINE, 0, || start));
        let late = start + WAIT_MAX;
        assert!(queue.may_write(web, || late) && !queue.put(web, LINE, 0, || late));
        // The other type goes on.
        assert!(queue.may_write(worker, || late) && queue.put(worker, LINE, 0, || late));
        // The stream takes some: there is room again.
        while queue.waits_until(web).is_some() {
            queue.take(late);
        }
        assert!(queue.may_write(web, || late) && queue.put(web, LINE, 0, || late));
        assert_eq!(queue.tell(false, late + TOLD_AFTER), dropped("web", 1));
    }

    #[test]
    fn a_stream_that_takes_something_is_waited_for() {
        let (mut queue, start) = (Queue::new(), Instant::now());
        let web = queue.source("web".into());
        fill(&mut queue, web, start);
        let mut now = start;
        for _ in 0..5 {
            now += WAIT_MAX / 2;
            queue.take(now);
            fill(&mut queue, web, now);
            assert!(!queue.may_write(web, || now));
        }
        assert!(!queue.has_dropped());
    }

    #[test]
    fn what_goes_on_is_told_once_a_minute_and_what_is_over_at_once() {
        let (mut queue, start) = (Queue::new(), Instant::now());
        let web = queue.source("web".into());
        fill(&mut queue, web, start);
        let mut now = start + WAIT_MAX;
        assert!(!queue.put(web, LINE, 0, || now));
        assert_eq!(queue.tell(false, now), []);
        now += TOLD_AFTER;
        assert!(!queue.put(web, LINE, 0, || now));
        assert_eq!(queue.tell(false, now), dropped("web", 2));
        assert!(!queue.put(web, LINE, 0, || now));
        now += TOLD_AFTER;
        assert_eq!(queue.tell(false, now), []);
        assert_eq!(queue.tell(false, now + TOLD_EVERY), dropped("web", 1));
        assert!(!queue.put(web, LINE, 0, || now));
        while queue.take(now).is_some() {}
        assert_eq!(queue.tell(true, now + TOLD_AFTER), []);
        assert_eq!(queue.tell(false, now + TOLD_AFTER), dropped("web", 1));
        assert!(!queue.has_dropped());
    }

    #[test]
    fn what_is_left_at_the_end_is_counted() {
        let (mut queue, now) = (Queue::new(), Instant::now());
        let web = queue.source("web".into());
        let count = fill(&mut queue, web, now);
        queue.lose_all(now);
        assert!(queue.is_empty());
        assert_eq!(queue.tell_all(now), dropped("web", u64::from(count)));
    }

    proptest! {
        #[test]
        fn every_line_is_taken_or_counted_and_a_source_is_bounded(
            steps in prop::collection::vec((0_usize..3, 0_usize..200_000, 0_u64..700), 0..200),
        ) {
            let (mut queue, mut now) = (Queue::new(), Instant::now());
            let sources = [queue.source("a".into()), queue.source("b".into())];
            let (mut put, mut taken) = (0_u64, 0_u64);
            for (what, bytes, ms) in steps {
                now += Duration::from_millis(ms);
                match sources.get(what) {
                    Some(source) => {
                        queue.put(*source, bytes, (), || now);
                        put += 1;
                    }
                    None => taken += u64::from(queue.take(now).is_some()),
                }
                for of in &queue.sources {
                    prop_assert!(of.held_bytes < HELD_BYTES_MAX + 200_000 + LINE_BYTES);
                    prop_assert!(of.full_since.is_some() || of.held_bytes < ROOM_BYTES);
                }
            }
            while queue.take(now).is_some() {
                taken += 1;
            }
            let in_all = sources.map(|source| queue.dropped(source)).iter().sum::<u64>();
            let dropped: u64 = queue.tell_all(now).iter().map(|dropped| dropped.lines).sum();
            prop_assert_eq!(dropped, in_all);
            prop_assert_eq!(put, taken + dropped);
        }
    }
}
