//! The streams of HTTP/2 connections, each in a task. A stream whose client doesn't take its answer ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use wasmhost_engine::AfterSlices;

tokio::task_local! {
    /// The stream of HTTP/2 that the task is for.
    static STREAM: Arc<StreamWatch>;
}

/// The watch over one stream says whether its client takes what was given to it. (HTTP/1 has one at a time, and its
/// connection shows the same.)
pub(super) struct StreamWatch {
    start: Instant,
    /// The time at which a piece was given that the client has no room for yet, in milliseconds since the start, plus
    /// one.
    given_at: AtomicU64,
}

impl StreamWatch {
    pub(super) fn current() -> Option<Arc<StreamWatch>> {
        STREAM.try_with(Arc::clone).ok()
    }

    /// The body is asked for more only when there is room for it.
    pub(super) fn note(&self, given: bool) {
        let now = if given { self.now() } else { 0 };
        self.given_at.store(now, Relaxed);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).map_or(u64::MAX, |ms| ms + 1)
    }

    fn is_stuck(&self, stall_max: Duration) -> bool {
        let given_at = self.given_at.load(Relaxed);
        let stall_max = u64::try_from(stall_max.as_millis()).unwrap_or(u64::MAX);
        given_at != 0 && self.now().saturating_sub(given_at) >= stall_max
    }
}

/// Runs the streams of an HTTP/2 connection, each in a task, and ends those whose clients don't read.
#[derive(Clone)]
pub(super) struct Streams {
    pub(super) stall_max: Duration,
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let stall_max = self.stall_max;
        let watch = Arc::new(StreamWatch { start: Instant::now(), given_at: AtomicU64::new(0) });
        tokio::spawn(AfterSlices::new(async move {
            let mut stream = std::pin::pin!(STREAM.scope(watch.clone(), stream));
            loop {
                tokio::select! {
                    biased;
                    () = &mut stream => return,
                    // Dropping it resets the stream, and ends its call.
                    () = tokio::time::sleep(stall_max) => if watch.is_stuck(stall_max) { return },
                }
            }
        }));
    }
}
