//! The feed: everything that changes, for those who follow it by `GET /v1/events`.
//!
//! ```text
//! Feed::tell -> Ring (bounded, one for all) -> Follower::next -> the admin API -> a client
//! ```
//!
//! Most of the time nobody follows. Then [`Feed::tell`] looks at a flag, and makes no event. A follower has a place in the
//! ring. The ring overtakes one that reads slowly, who is told how many events it has missed: neither those who tell nor
//! other followers wait for it. When the last follower has gone the ring goes on for a while, so that one that comes back
//! with the id of its last event misses nothing.

mod ring;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use wasmhost_config::shown;
use wasmhost_store::jobs::JobId;

use crate::admin::api::{EventView, HostEvent, JobChange};
use ring::{Place, Ring};

/// How long events are kept for a follower that may come back.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// Events that a follower takes at once.
const BATCH_MAX: usize = 256;

/// How long a follower may take for its last events.
const LAST_EVENTS_MAX: Duration = Duration::from_millis(500);

/// Bytes of a guest's text in an event.
const TEXT_BYTES_MAX: usize = 1 << 10;

/// See the module.
#[derive(Default)]
pub(crate) struct Feed {
    /// Whether events are kept.
    is_on: AtomicBool,
    kept: Mutex<Kept>,
    more: Notify,
    /// Who follows, and when that ends.
    following: TaskTracker,
    ended: CancellationToken,
}

#[derive(Default)]
struct Kept {
    ring: Ring,
    followers: usize,
    /// When the last follower went.
    alone_since: Option<Instant>,
}

/// One who follows.
pub(crate) struct Follower {
    feed: Arc<Feed>,
    place: Place,
    _token: TaskTrackerToken,
}

impl Feed {
    /// Something has changed. The event is made where somebody wants it.
    pub(crate) fn tell(&self, event: impl FnOnce() -> HostEvent) {
        self.tell_each(|| [event()]);
    }

    /// The same for any number of events.
    pub(crate) fn tell_each<I: IntoIterator<Item = HostEvent>>(&self, events: impl FnOnce() -> I) {
        if self.is_on.load(Relaxed) {
            self.keep(events());
        }
    }

    #[cold]
    fn keep(&self, events: impl IntoIterator<Item = HostEvent>) {
        for event in events {
            let mut kept = self.lock();
            if kept.alone_since.is_some_and(|since| since.elapsed() >= KEPT_FOR) {
                self.is_on.store(false, Relaxed);
                kept.alone_since = None;
                return kept.ring.forget();
            }
            let time = now();
            kept.ring.push(time, event);
        }
        self.more.notify_waiters();
    }

    /// Follows from now on, or from behind the event with this id.
    pub(crate) fn follow(self: &Arc<Self>, last: Option<u64>) -> Follower {
        let mut kept = self.lock();
        if !self.is_on.swap(true, Relaxed) {
            let now = jiff::Timestamp::now().as_microsecond();
            kept.ring.begin(u64::try_from(now).unwrap_or(0));
        }
        kept.followers += 1;
        kept.alone_since = None;
        let place = kept.ring.place_after(last);
        drop(kept);
        Follower { feed: self.clone(), place, _token: self.following.token() }
    }

    /// The last event is there. Waits for those that follow to have it, but not for long.
    pub(crate) async fn end(&self) {
        self.ended.cancel();
        self.following.close();
        let _ = tokio::time::timeout(LAST_EVENTS_MAX, self.following.wait()).await;
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // No code that runs under the lock panics.
        self.kept.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl Follower {
    /// The id of the last event that it has had, or that was there before it came.
    pub(crate) fn last_id(&self) -> u64 {
        self.place.next.saturating_sub(1)
    }

    /// The next events, in their order; none after the last.
    pub(crate) async fn next(&mut self) -> Option<Vec<Arc<EventView>>> {
        loop {
            let feed = self.feed.clone();
            let mut more = std::pin::pin!(feed.more.notified());
            // Before the look at the ring: an event that comes after it wakes.
            more.as_mut().enable();
            let is_over = feed.ended.is_cancelled();
            let read = self.try_next();
            if !read.is_empty() {
                return Some(read);
            }
            if is_over {
                return None;
            }
            tokio::select! {
                () = more => {}
                () = feed.ended.cancelled() => {}
            }
        }
    }

    fn try_next(&mut self) -> Vec<Arc<EventView>> {
        let (missed, mut events) = self.feed.lock().ring.read(self.place.next, BATCH_MAX);
        let has_gap = std::mem::take(&mut self.place.has_gap);
        self.place.next += missed;
        if has_gap || missed > 0 {
            let what = HostEvent::Missed { count: (!has_gap).then_some(missed) };
            events.insert(0, Arc::new(EventView { id: self.last_id(), time: now(), what }));
            self.place.next -= 1;
        }
        self.place.next += events.len() as u64;
        events
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut kept = self.feed.lock();
        kept.followers -= 1;
        kept.alone_since = (kept.followers == 0).then(Instant::now);
    }
}

/// A job changes, and no instance has to do with it.
pub(crate) fn job(id: JobId, queue: Option<&str>, state: JobChange, process: Option<&str>) -> HostEvent {
    HostEvent::Job {
        job: id.to_string(),
        queue: queue.map(str::to_owned),
        state,
        process: process.map(str::to_owned),
        instance: None,
        attempt: None,
        attempts_max: None,
        again_at: None,
        error: None,
    }
}

/// A text of others, for an event.
pub(crate) fn text(text: &str) -> String {
    match shown::cut(text, TEXT_BYTES_MAX) {
        whole if whole.len() == text.len() => whole.to_owned(),
        cut => format!("{cut}..."),
    }
}

fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn count(to: u32) -> HostEvent {
        HostEvent::Count { process: "web".into(), from: 0, to }
    }

    fn read(follower: &mut Follower) -> Vec<HostEvent> {
        let next = follower.next().now_or_never().flatten().unwrap_or_default();
        next.iter().map(|event| event.what.clone()).collect()
    }

    #[test]
    fn nothing_is_made_where_nobody_follows() {
        let feed = Arc::new(Feed::default());
        feed.tell(|| unreachable!("nobody wants it"));
        let mut follower = feed.follow(None);
        feed.tell(|| count(1));
        assert_eq!(read(&mut follower), [count(1)]);
        assert_eq!(read(&mut follower), []);
    }

    #[test]
    fn one_that_comes_back_goes_on_where_it_was() {
        let feed = Arc::new(Feed::default());
        let mut follower = feed.follow(None);
        feed.tell_each(|| [count(1), count(2)]);
        let first = follower.next().now_or_never().flatten().unwrap();
        let (begun, last) = (first[0].id, first[1].id);
        assert_eq!((begun + 1, follower.last_id()), (last, last));
        drop(follower);
        feed.tell(|| count(3));
        assert_eq!(read(&mut feed.follow(Some(last))), [count(3)]);
        assert_eq!(read(&mut feed.follow(Some(begun))), [count(2), count(3)]);
        let unknown = read(&mut feed.follow(Some(7)));
        assert_eq!(unknown, [HostEvent::Missed { count: None }, count(1), count(2), count(3)]);
    }

    #[test]
    fn a_slow_one_is_told_how_many_it_missed_and_goes_on() {
        let feed = Arc::new(Feed::default());
        let mut follower = feed.follow(None);
        feed.tell_each(|| (0..50_000).map(count));
        let events = follower.next().now_or_never().flatten().unwrap();
        let HostEvent::Missed { count: Some(missed) } = events[0].what else { panic!("{:?}", events[0]) };
        assert_eq!(events[0].id + 1, events[1].id, "one that comes back with its id goes on behind it");
        assert_eq!(events[1].what, count(u32::try_from(missed).unwrap()));
        let mut told = events.len() as u64 - 1 + missed;
        while let Some(events) = follower.next().now_or_never().flatten() {
            assert!(events.iter().all(|event| !matches!(event.what, HostEvent::Missed { .. })));
            told += events.len() as u64;
        }
        assert_eq!(told, 50_000);
    }

    #[tokio::test]
    async fn one_that_waits_is_woken_and_told_of_the_end() {
        let feed = Arc::new(Feed::default());
        let mut follower = feed.follow(None);
        let waiting = tokio::spawn(async move {
            let first = follower.next().await.map(|events| events.len());
            (first, follower.next().await.is_none())
        });
        tokio::task::yield_now().await;
        feed.tell(|| count(1));
        feed.end().await;
        assert_eq!(waiting.await.unwrap(), (Some(1), true));
    }

    #[test]
    fn texts_of_guests_are_bounded() {
        assert_eq!(text("short"), "short");
        let long = text(&"ä".repeat(1 << 20));
        assert!(long.len() <= TEXT_BYTES_MAX + 3 && long.ends_with("ä..."));
    }
}
