//! Polling without waking oneself.
//!
//! A store's event loop wakes its own waker over and over while it is being polled. If they were passed on, each wake
//! would put the task that polls it into a run queue once more, and wake another thread to look for it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

const WAITING: u8 = 0;
const POLLING: u8 = 1;
const POLLING_AND_WOKEN: u8 = 2;

/// For one future.
pub(crate) struct Quiet {
    state: Arc<WakeState>,
    waker: Waker,
}

#[derive(Default)]
struct WakeState {
    phase: AtomicU8,
    outer: AtomicWaker,
}

impl Default for Quiet {
    fn default() -> Self {
        let state = Arc::<WakeState>::default();
        Quiet { waker: Waker::from(state.clone()), state }
    }
}

impl Quiet {
    /// Polls `future`. Wake-ups meanwhile are passed on when it is known to wait for them.
    pub(crate) fn poll<F: Future>(&self, future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.state.phase.store(POLLING, SeqCst);
        let polled = future.poll(&mut Context::from_waker(&self.waker));
        if polled.is_pending() {
            self.state.outer.register(cx.waker());
        }
        let woken = self.state.phase.swap(WAITING, SeqCst) == POLLING_AND_WOKEN;
        if polled.is_pending() && woken {
            cx.waker().wake_by_ref();
        }
        polled
    }
}

impl Wake for WakeState {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.phase.compare_exchange(POLLING, POLLING_AND_WOKEN, SeqCst, SeqCst) == Err(WAITING) {
            self.outer.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    /// How often the outer waker was woken by a poll of something that wakes itself twice.
    fn wakes(then: Poll<()>) -> usize {
        let count = Arc::<Count>::default();
        let waker = Waker::from(count.clone());
        let quiet = Quiet::default();
        let future = pin!(poll_fn(|cx| {
            cx.waker().wake_by_ref();
            cx.waker().wake_by_ref();
            then
        }));
        assert_eq!(quiet.poll(future, &mut Context::from_waker(&waker)), then);
        count.0.load(SeqCst)
    }

    #[test]
    fn what_is_ready_wakes_nobody() {
        assert_eq!(wakes(Poll::Ready(())), 0);
    }

    #[test]
    fn what_waits_and_was_woken_wakes_once() {
        assert_eq!(wakes(Poll::Pending), 1);
    }

    #[test]
    fn what_waits_is_woken_later() {
        let count = Arc::<Count>::default();
        let waker = Waker::from(count.clone());
        let quiet = Quiet::default();
        let mut inner = None;
        let future = pin!(poll_fn(|cx| {
            inner = Some(cx.waker().clone());
            Poll::<()>::Pending
        }));
        assert!(quiet.poll(future, &mut Context::from_waker(&waker)).is_pending());
        assert_eq!(count.0.load(SeqCst), 0);
        inner.unwrap().wake();
        assert_eq!(count.0.load(SeqCst), 1);
    }
}
