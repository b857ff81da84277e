//! Counters that many threads raise and hardly anybody reads. Each thread has a copy of its own, and whoever reads adds the
//! copies up: no thread ever waits for another one, nor for a line of the cache that another one has written.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Copies, at most. Threads past them share the last one.
const SHARDS_MAX: usize = 64;

/// Threads for each processor that may count at once: one of I/O and one that computes, and as many that come and go.
const SHARDS_A_PROCESSOR: usize = 4;

thread_local! {
    static NUMBER: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Relaxed)
    };
}

/// The copies of some counters.
pub(crate) struct Shards<T>(Box<[Padded<T>]>);

/// A copy that has its lines of the cache for itself. (Processors fetch them by two.)
#[repr(align(128))]
#[derive(Default)]
struct Padded<T>(T);

/// The present thread's copy.
pub(crate) struct Mine<'a, T> {
    pub(crate) counts: &'a T,
    /// No other thread writes to it.
    is_alone: bool,
}

impl<T: Default> Shards<T> {
    pub(crate) fn new() -> Shards<T> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let shards = (processors * SHARDS_A_PROCESSOR + SHARDS_A_PROCESSOR).min(SHARDS_MAX);
        Shards((0..shards).map(|_| Padded::default()).collect())
    }

    /// The copy that the present thread counts in.
    pub(crate) fn mine(&self) -> Mine<'_, T> {
        let last = self.0.len() - 1;
        // A thread that is ending counts among the last.
        let number = NUMBER.try_with(|number| *number).unwrap_or(last);
        Mine { counts: &self.0[number.min(last)].0, is_alone: number < last }
    }

    /// One counter of all copies.
    pub(crate) fn sum(&self, counter: impl Fn(&T) -> &AtomicU64) -> u64 {
        self.0.iter().map(|shard| counter(&shard.0).load(Relaxed)).fold(0, u64::wrapping_add)
    }
}

impl<T> Mine<'_, T> {
    /// Raises one of its counters.
    pub(crate) fn add(&self, counter: &AtomicU64, more: u64) {
        match self.is_alone {
            true => counter.store(counter.load(Relaxed).wrapping_add(more), Relaxed),
            false => drop(counter.fetch_add(more, Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_however_many_threads_count() {
        let shards = Shards::<AtomicU64>::new();
        let threads = 2 * SHARDS_MAX;
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        let mine = shards.mine();
                        mine.add(mine.counts, 3);
                    }
                });
            }
        });
        assert_eq!(shards.sum(|counter| counter), threads as u64 * 3_000);
    }
}
