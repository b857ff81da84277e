//! Waking others when a slice on the compute threads is over.
//!
//! A call wakes the task of its client several times: for the head, for a piece of the body, for its end, and for the
//! call's own end. Each wake would throw a compute thread off its core, since I/O threads have the higher priority. So
//! they are gathered, and come together a fraction of a slice later.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::AcqRel};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// A future that guests wake when their slice is over, if they run on the compute threads.
pub struct AfterSlices<F> {
    future: Pin<Box<F>>,
    later: Arc<Later>,
    waker: Waker,
}

#[derive(Default)]
struct Later {
    outer: AtomicWaker,
    /// It's in some thread's [`HELD`].
    held: AtomicBool,
}

thread_local! {
    /// The tasks that this thread wakes after its slice, while it's in one.
    static HELD: RefCell<Option<Vec<Arc<Later>>>> = const { RefCell::new(None) };
}

impl<F: Future> AfterSlices<F> {
    /// For a task that polls nothing else.
    pub fn new(future: F) -> Self {
        let later = Arc::<Later>::default();
        AfterSlices { future: Box::pin(future), waker: Waker::from(later.clone()), later }
    }
}

impl<F: Future> Future for AfterSlices<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // Before it is polled: what wakes it from then on is not lost.
        self.later.outer.register(cx.waker());
        let AfterSlices { future, waker, .. } = &mut *self;
        future.as_mut().poll(&mut Context::from_waker(waker))
    }
}

impl Wake for Later {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // A thread that is ending is in none.
        let in_slice = HELD.try_with(|held| {
            let mut held = held.borrow_mut();
            let Some(held) = &mut *held else { return false };
            // If it's held already, whoever holds it wakes it, and that shows it all that was done until now.
            if !self.held.swap(true, AcqRel) {
                held.push(self.clone());
            }
            true
        });
        if in_slice != Ok(true) {
            self.outer.wake();
        }
    }
}

/// Runs a slice, and then wakes those whom it would have woken.
pub(crate) fn slice<T>(run: impl FnOnce() -> T) -> T {
    /// Also where it panics.
    struct Over;
    impl Drop for Over {
        fn drop(&mut self) {
            for later in HELD.take().unwrap_or_default() {
                later.held.swap(false, AcqRel);
                later.outer.wake();
            }
        }
    }
    HELD.set(Some(Vec::new()));
    let _over = Over;
    run()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;

    /// Counts its wakes.
    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn a_slice_wakes_once_and_at_its_end() {
        let count = Arc::<Count>::default();
        let waker = Waker::from(count.clone());
        let (sender, receiver) = std::sync::mpsc::channel::<Waker>();
        let mut future = AfterSlices::new(std::future::poll_fn(move |cx| {
            sender.send(cx.waker().clone()).unwrap();
            Poll::<()>::Pending
        }));
        let mut poll = || Pin::new(&mut future).poll(&mut Context::from_waker(&waker));
        assert!(poll().is_pending());
        let inner = receiver.recv().unwrap();
        slice(|| {
            (0..3).for_each(|_| inner.wake_by_ref());
            assert_eq!(count.0.load(Relaxed), 0);
        });
        assert_eq!(count.0.load(Relaxed), 1);
        assert!(poll().is_pending());
        inner.wake_by_ref();
        assert_eq!(count.0.load(Relaxed), 2, "outside of slices at once");
        assert!(poll().is_pending());
        slice(|| inner.wake_by_ref());
        assert_eq!(count.0.load(Relaxed), 3, "a second slice, too");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_is_lost_between_slices_of_two_threads() {
        let (ping, mut pings) = tokio::sync::mpsc::unbounded_channel();
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let ping = ping.clone();
                let (pong, pongs) = std::sync::mpsc::channel();
                std::thread::spawn(move || {
                    for _ in 0..20_000 {
                        slice(|| ping.send(pong.clone()).unwrap());
                        // Nothing but the end of that slice tells whoever answers.
                        pongs.recv().unwrap();
                    }
                })
            })
            .collect();
        let answer = async move {
            while let Some(pong) = pings.recv().await {
                pong.send(()).unwrap();
            }
        };
        let answering = tokio::spawn(AfterSlices::new(answer));
        let over =
            tokio::task::spawn_blocking(|| threads.into_iter().for_each(|thread| thread.join().unwrap()));
        over.await.unwrap();
        drop(ping);
        answering.await.unwrap();
    }
}
