//! Types take turns on the I/O threads. A thread takes the connections that have something to do one after the other, so
//! that a type of five hundred busy connections would have the time of five hundred, and another of one. So requests of
//! one type go in rounds: so many of them begin, and the others wait until the threads have come round to every
//! connection once.
//!
//! ```text
//! enter -> goes on           nobody else asks for requests, or the type has begun fewer than it may in this round
//!       -> waits in its line  ... -> `release`, at the end of each round: the next ones of each type
//! ```
//!
//! As long as one type alone is asked for, a request costs a look at a number that nobody writes. A round ends when a task
//! that has yielded is polled again: the runtime polls all others first.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::num::NonZero;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::yield_now;

/// Requests of one type that begin in one round, for each I/O thread.
const BEGUN_PER_THREAD: u32 = 8;

/// How long several types count as asked for when only one is any more.
const TOGETHER_FOR: Duration = Duration::from_secs(10);

/// The rounds of all types.
pub(crate) struct Rounds {
    begun_max: u32,
    together_for: Duration,
    /// The number of the round.
    round: AtomicU32,
    /// A bit for each type that is asked for. There may be more types than bits: those that share one are together as one
    /// here, and nowhere else.
    asked_for: AtomicU64,
    /// Those of them that were asked for since it was looked at last.
    seen: AtomicU64,
    inner: Mutex<Inner>,
}

struct Inner {
    types: HashMap<Arc<str>, Weak<TypeRounds>>,
    next: u64,
    /// The requests that wait, by their types' numbers.
    waiting: BTreeMap<u64, (Arc<TypeRounds>, VecDeque<oneshot::Sender<()>>)>,
    /// A task ends each round, as long as there are such.
    is_releasing: bool,
    looked_at: Instant,
}

/// The part of one type.
pub(crate) struct TypeRounds {
    rounds: Arc<Rounds>,
    number: u64,
    bit: u64,
    /// A round, and how many requests have begun in it.
    begun: AtomicU64,
}

impl Default for Rounds {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let begun_max = u32::try_from(threads).unwrap_or(1).saturating_mul(BEGUN_PER_THREAD);
        Rounds::new(begun_max, TOGETHER_FOR)
    }
}

impl Rounds {
    fn new(begun_max: u32, together_for: Duration) -> Rounds {
        let inner = Inner {
            types: HashMap::new(),
            next: 0,
            waiting: BTreeMap::new(),
            is_releasing: false,
            looked_at: Instant::now(),
        };
        Rounds {
            begun_max,
            together_for,
            round: AtomicU32::new(0),
            asked_for: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            inner: Mutex::new(inner),
        }
    }

    /// The part of the type of this name, which all its versions have.
    pub(crate) fn of(self: &Arc<Self>, process: &str) -> Arc<TypeRounds> {
        let mut inner = self.lock();
        if let Some(known) = inner.types.get(process).and_then(Weak::upgrade) {
            return known;
        }
        inner.types.retain(|_, known| known.strong_count() > 0);
        let number = inner.next;
        inner.next += 1;
        let bit = 1 << (number % u64::from(u64::BITS));
        let of = Arc::new(TypeRounds { rounds: self.clone(), number, bit, begun: AtomicU64::new(0) });
        inner.types.insert(process.into(), Arc::downgrade(&of));
        of
    }

    /// Ends rounds as long as requests wait.
    async fn release(self: Arc<Self>) {
        loop {
            yield_now().await;
            let mut begin = Vec::new();
            let is_over = self.end_round(&mut begin);
            for request in begin {
                // One whose client has gone leaves its turn unused.
                let _ = request.send(());
            }
            if is_over {
                return;
            }
        }
    }

    /// Begins the next round with those that wait. True where nobody waits any more.
    fn end_round(&self, begin: &mut Vec<oneshot::Sender<()>>) -> bool {
        let mut inner = self.lock();
        let round = self.round.fetch_add(1, Relaxed).wrapping_add(1);
        if inner.looked_at.elapsed() >= self.together_for {
            inner.looked_at = Instant::now();
            self.asked_for.store(self.seen.swap(0, Relaxed), Relaxed);
        }
        let is_alone = self.asked_for.load(Relaxed).count_ones() < 2;
        inner.waiting.retain(|_, (of, waiting)| {
            let mut begun = 0;
            while begun < self.begun_max || is_alone {
                let Some(request) = waiting.pop_front() else { break };
                if !request.is_closed() {
                    begin.push(request);
                    begun += 1;
                }
            }
            of.begun.store(packed(round, begun), Relaxed);
            !waiting.is_empty()
        });
        inner.is_releasing = !inner.waiting.is_empty();
        !inner.is_releasing
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code that runs under the lock panics.
        self.inner.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl TypeRounds {
    /// A request comes. It may go on, or waits for its turn: until it is told, or nobody is there to tell.
    pub(super) fn enter(self: &Arc<Self>) -> Option<oneshot::Receiver<()>> {
        let asked_for = self.rounds.asked_for.load(Relaxed);
        if asked_for == self.bit {
            return None;
        }
        if asked_for & self.bit == 0 {
            self.rounds.asked_for.fetch_or(self.bit, Relaxed);
        }
        if self.rounds.seen.load(Relaxed) & self.bit == 0 {
            self.rounds.seen.fetch_or(self.bit, Relaxed);
        }
        let round = self.rounds.round.load(Relaxed);
        let begin = |packed: u64| {
            let (of, begun) = unpacked(packed);
            let begun = if of == round { begun } else { 0 };
            (begun < self.rounds.begun_max).then(|| self::packed(round, begun + 1))
        };
        if self.begun.fetch_update(Relaxed, Relaxed, begin).is_ok() {
            return None;
        }
        Some(self.wait())
    }

    fn wait(self: &Arc<Self>) -> oneshot::Receiver<()> {
        let (request, turn) = oneshot::channel();
        let mut inner = self.rounds.lock();
        let (_, waiting) =
            inner.waiting.entry(self.number).or_insert_with(|| (self.clone(), VecDeque::new()));
        waiting.push_back(request);
        if !std::mem::replace(&mut inner.is_releasing, true) {
            tokio::spawn(self.rounds.clone().release());
        }
        turn
    }
}

fn packed(round: u32, begun: u32) -> u64 {
    u64::from(round) << 32 | u64::from(begun)
}

fn unpacked(packed: u64) -> (u32, u32) {
    ((packed >> 32) as u32, packed as u32)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize};

    use super::*;

    /// So many connections of a type, each with a request after the other until `stop`. Counts them.
    fn connections(of: &Arc<TypeRounds>, count: usize, stop: &Arc<AtomicBool>) -> Arc<AtomicUsize> {
        let begun = Arc::<AtomicUsize>::default();
        for _ in 0..count {
            let (of, stop, begun) = (of.clone(), stop.clone(), begun.clone());
            tokio::spawn(async move {
                while !stop.load(Relaxed) {
                    if let Some(turn) = of.enter() {
                        turn.await.unwrap();
                    }
                    begun.fetch_add(1, Relaxed);
                    yield_now().await;
                }
            });
        }
        begun
    }

    async fn rounds_go_by(of: &Arc<AtomicUsize>, count: usize) {
        while of.load(Relaxed) < count {
            yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_type_of_many_connections_has_no_more_turns_than_one_of_few() {
        let rounds = Arc::new(Rounds::new(16, TOGETHER_FOR));
        let stop = Arc::<AtomicBool>::default();
        let many = connections(&rounds.of("many"), 500, &stop);
        let few = connections(&rounds.of("few"), 16, &stop);
        rounds_go_by(&few, 5_000).await;
        let (many, few) = (many.load(Relaxed), few.load(Relaxed));
        // The first ones came when the type was alone.
        assert!(many <= few + few / 4 + 1_000, "{many} and {few} requests");
        stop.store(true, Relaxed);
    }

    #[tokio::test]
    async fn a_type_that_alone_is_asked_for_never_waits() {
        let rounds = Arc::new(Rounds::new(2, TOGETHER_FOR));
        let (web, _other) = (rounds.of("web"), rounds.of("other"));
        assert!(web.enter().is_none(), "the first one says who is asked for");
        assert!((0..1_000).all(|_| web.enter().is_none()));
        assert!(Arc::ptr_eq(&web, &rounds.of("web")), "a canary has the same");
    }

    #[tokio::test]
    async fn a_type_that_is_left_alone_waits_no_more() {
        let rounds = Arc::new(Rounds::new(2, Duration::ZERO));
        let (web, other) = (rounds.of("web"), rounds.of("other"));
        assert!(other.enter().is_none());
        let mut waited = 0;
        while rounds.asked_for.load(Relaxed) != web.bit {
            if let Some(turn) = web.enter() {
                turn.await.unwrap();
                waited += 1;
            }
            assert!(waited < 10);
        }
        assert!((0..1_000).all(|_| web.enter().is_none()));
    }

    #[tokio::test]
    async fn a_turn_of_a_client_that_has_gone_is_another_s() {
        let rounds = Arc::new(Rounds::new(2, TOGETHER_FOR));
        let (web, other) = (rounds.of("web"), rounds.of("other"));
        other.enter();
        web.enter();
        let turns: Vec<_> = (0..100).filter_map(|_| web.enter()).collect();
        assert_eq!(turns.len(), 99);
        let mut left: Vec<_> = turns.into_iter().skip(97).collect();
        let last = left.pop().unwrap();
        drop(left);
        last.await.unwrap();
        let waiting = rounds.lock().waiting.len();
        assert_eq!(waiting, 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_request_waits_for_ever() {
        let rounds = Arc::new(Rounds::new(2, TOGETHER_FOR));
        let stop = Arc::<AtomicBool>::default();
        let all: Vec<_> = ["a", "b", "c"].map(|name| connections(&rounds.of(name), 50, &stop)).into();
        for begun in &all {
            while begun.load(Relaxed) < 20_000 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        stop.store(true, Relaxed);
    }
}
