//! Those who follow lines as they are written. Each has a queue of its own, with the lines that it wants and no others:
//!
//! ```text
//! Followers::tell -> Waiting (bounded) -> Following::next -> the admin API -> a client
//! ```
//!
//! A client that reads slowly fills its queue, and from then on its lines are counted instead. The count takes their place
//! among the lines. Neither those who write lines nor other followers notice it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Line;

/// Lines that wait for one follower at most, and their bytes.
const LINES_MAX: usize = 10_000;
const BYTES_MAX: usize = 4 << 20;

/// Which lines somebody wants.
pub(crate) type Wanted<T> = Box<dyn Fn(&T) -> bool + Send + Sync>;

/// Everybody who follows lines of one kind.
pub(super) struct Followers<T>(Vec<Weak<Follower<T>>>);

struct Follower<T> {
    wanted: Wanted<T>,
    waiting: Mutex<Waiting<T>>,
    more: Notify,
}

/// One who follows.
pub(crate) struct Following<T> {
    follower: Arc<Follower<T>>,
    /// No line comes any more.
    ended: CancellationToken,
}

/// The next thing that a follower is told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told<T> {
    Line(Arc<T>),
    /// So many lines have come here that there was no room for.
    Missed(u64),
}

/// The queue of one follower.
struct Waiting<T> {
    told: VecDeque<Told<T>>,
    bytes: usize,
}

impl<T: Line> Followers<T> {
    /// One more, who is told all that is written from now on and that it wants, until `ended`.
    pub(super) fn add(&mut self, wanted: Wanted<T>, ended: &CancellationToken) -> Following<T> {
        let waiting = Mutex::new(Waiting::default());
        let follower = Arc::new(Follower { wanted, waiting, more: Notify::new() });
        self.0.retain(|follower| follower.strong_count() > 0);
        self.0.push(Arc::downgrade(&follower));
        Following { follower, ended: ended.clone() }
    }

    /// A line was written.
    pub(super) fn tell(&self, line: &Arc<T>) {
        for follower in self.0.iter().filter_map(Weak::upgrade) {
            if (follower.wanted)(line) {
                follower.lock().put(line.clone());
                follower.more.notify_one();
            }
        }
    }
}

impl<T: Line> Following<T> {
    /// The next line, or count of missed ones; none after the last.
    pub(crate) async fn next(&self) -> Option<Told<T>> {
        loop {
            // Asked before the look at the queue: what is there at the end is told.
            let is_over = self.ended.is_cancelled();
            if let Some(told) = self.try_next() {
                return Some(told);
            }
            if is_over {
                return None;
            }
            tokio::select! {
                () = self.follower.more.notified() => {}
                () = self.ended.cancelled() => {}
            }
        }
    }

    /// The same where it is there already.
    pub(crate) fn try_next(&self) -> Option<Told<T>> {
        self.follower.lock().take()
    }
}

impl<T: Line> Waiting<T> {
    fn put(&mut self, line: Arc<T>) {
        if self.told.len() >= LINES_MAX || self.bytes >= BYTES_MAX {
            return match self.told.back_mut() {
                Some(Told::Missed(count)) => *count += 1,
                _ => self.told.push_back(Told::Missed(1)),
            };
        }
        self.bytes += line.bytes();
        self.told.push_back(Told::Line(line));
    }

    fn take(&mut self) -> Option<Told<T>> {
        let told = self.told.pop_front()?;
        if let Told::Line(line) = &told {
            self.bytes -= line.bytes();
        }
        Some(told)
    }
}

impl<T> Follower<T> {
    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        // No code that runs under the lock panics.
        self.waiting.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl<T> Default for Followers<T> {
    fn default() -> Self {
        Followers(Vec::new())
    }
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Waiting { told: VecDeque::new(), bytes: 0 }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;
    use crate::admin::api::LogLine;

    fn line(text: &str) -> Arc<LogLine> {
        let (time, stream) = (String::new(), String::new());
        Arc::new(LogLine { time, instance: "web.1".into(), stream, line: text.into() })
    }

    fn text(told: Told<LogLine>) -> String {
        match told {
            Told::Line(line) => line.line.clone(),
            Told::Missed(count) => format!("missed {count}"),
        }
    }

    #[test]
    fn a_follower_is_told_what_it_wants_and_then_that_it_is_over() {
        let (mut followers, ended) = (Followers::default(), CancellationToken::new());
        let following = followers.add(Box::new(|line: &LogLine| line.line.len() == 1), &ended);
        for text in ["a", "too long", "b"] {
            followers.tell(&line(text));
        }
        ended.cancel();
        let next = || following.next().now_or_never().unwrap().map(text);
        assert_eq!((next(), next(), next()), (Some("a".into()), Some("b".into()), None));
    }

    #[test]
    fn one_that_has_gone_is_forgotten() {
        let (mut followers, ended) = (Followers::default(), CancellationToken::new());
        for _ in 0..100 {
            drop(followers.add(Box::new(|_: &LogLine| true), &ended));
        }
        assert_eq!(followers.0.len(), 1);
        followers.tell(&line("x"));
    }

    #[test]
    fn a_count_stands_where_lines_were_missed() {
        let mut waiting = Waiting::default();
        (0..LINES_MAX + 7).for_each(|_| waiting.put(line("old")));
        for _ in 0..2 {
            assert_eq!(waiting.take().map(text).as_deref(), Some("old"));
        }
        waiting.put(line("new"));
        let rest: Vec<_> = std::iter::from_fn(|| waiting.take()).map(text).collect();
        assert_eq!(rest.len(), LINES_MAX);
        assert_eq!(rest[LINES_MAX - 2..], ["missed 7", "new"]);
    }

    proptest! {
        #[test]
        fn every_line_is_told_or_counted_and_the_queue_is_bounded(
            steps in prop::collection::vec((0_usize..300_000, 0_usize..3), 0..200),
        ) {
            let mut waiting = Waiting::default();
            let (mut put, mut told) = (0_u64, 0_u64);
            let mut count = |one: Told<LogLine>| match one {
                Told::Line(_) => told += 1,
                Told::Missed(count) => told += count,
            };
            for (bytes, taken) in steps {
                waiting.put(line(&"x".repeat(bytes)));
                put += 1;
                prop_assert!(waiting.bytes < BYTES_MAX + 300_100 && waiting.told.len() <= LINES_MAX + 1);
                (0..taken).filter_map(|_| waiting.take()).for_each(&mut count);
            }
            std::iter::from_fn(|| waiting.take()).for_each(&mut count);
            prop_assert_eq!((put, 0), (told, waiting.bytes));
        }
    }
}
