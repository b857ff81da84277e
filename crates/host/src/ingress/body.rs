//! Bodies on their way: a request's, which is bounded in length and may not stall, and an answer's, which is the
//! proof that its request is not done.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Sleep;
use wasmhost_engine::{AfterSlices, BoxError, ResponseBody};

use super::access::Entry;
use super::answer::Failure;
use super::framing::Found;
use super::gauge::Gauge;

/// A request's body.
pub(crate) struct RequestBody {
    incoming: Incoming,
    bytes_left: u64,
    stall_max: Duration,
    /// Runs while the client is waited for.
    stall: Option<Pin<Box<Sleep>>>,
    stalling: bool,
    /// None where there is no body.
    fault: Option<Arc<Fault>>,
    gauge: Arc<Gauge>,
    over: bool,
}

/// What became of a body that its client sends wrong.
#[derive(Default)]
pub(super) struct Fault(AtomicU8);

const TOO_LONG: u8 = 1;
const STALLED: u8 = 2;
const BROKEN: u8 = 3;
const GONE: u8 = 4;

impl Fault {
    /// What the client is told, whatever its guest made of it.
    pub(super) fn failure(&self) -> Option<Failure> {
        match self.0.load(Relaxed) {
            TOO_LONG => Some(Failure::BODY_TOO_LONG),
            STALLED => Some(Failure::BODY_STALLED),
            BROKEN | GONE => Some(Failure::BODY_BROKEN),
            _ => None,
        }
    }

    /// Whether the client has gone, and is told nothing any more.
    pub(super) fn is_gone(&self) -> bool {
        self.0.load(Relaxed) == GONE
    }
}

/// Whether it's for what has come, and not because nothing comes any more.
fn is_malformed(err: &hyper::Error) -> bool {
    let cause = err.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    cause
        .is_some_and(|cause| matches!(cause.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData))
}

impl RequestBody {
    /// Of any length.
    pub(super) fn new(incoming: Incoming, stall_max: Duration, gauge: Arc<Gauge>) -> Self {
        let over = incoming.is_end_stream();
        RequestBody {
            incoming,
            bytes_left: u64::MAX,
            stall_max,
            stall: None,
            stalling: false,
            fault: (!over).then(Arc::default),
            gauge,
            over,
        }
    }

    /// Its client has to be told by then that it's too long.
    pub(super) fn limit(&mut self, bytes_max: u64) {
        self.bytes_left = bytes_max;
    }

    pub(super) fn fault(&self) -> Option<Arc<Fault>> {
        self.fault.clone()
    }

    fn fail(&mut self, fault: u8, err: BoxError) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(shared) = &self.fault {
            shared.0.store(fault, Relaxed);
        }
        Poll::Ready(Some(Err(err)))
    }

    fn has_stalled(&mut self, cx: &mut Context<'_>) -> bool {
        let (stall_max, stalling) = (self.stall_max, self.stalling);
        let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall_max)));
        if !stalling {
            stall.as_mut().reset(tokio::time::Instant::now() + stall_max);
            self.stalling = true;
        }
        stall.as_mut().poll(cx).is_ready()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let frame = match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending if this.has_stalled(cx) => {
                return this.fail(STALLED, "the client stopped sending".into());
            }
            Poll::Pending => return Poll::Pending,
        };
        this.stalling = false;
        match frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                match this.bytes_left.checked_sub(bytes) {
                    Some(left) => this.bytes_left = left,
                    None => return this.fail(TOO_LONG, "the body is longer than max_body".into()),
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(err)) if is_malformed(&err) => this.fail(BROKEN, err.into()),
            Some(Err(err)) => this.fail(GONE, err.into()),
            None => {
                this.over = true;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if !self.over && !self.incoming.is_end_stream() {
            self.gauge.leave_unread();
        }
    }
}

/// An answer's body, what notes that its request is under way, and what will be logged of it.
pub(super) struct AnswerBody {
    body: Either<ResponseBody, Full<Bytes>>,
    stream: Option<Arc<StreamWatch>>,
    log: Option<Box<Entry>>,
    _underway: Underway,
}

/// A request that isn't done.
pub(super) struct Underway(Arc<Gauge>);

impl Underway {
    /// Also what was found in the bytes of the request's head.
    pub(super) fn begin(gauge: &Arc<Gauge>) -> (Underway, Found) {
        let found = gauge.begin();
        (Underway(gauge.clone()), found)
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl AnswerBody {
    pub(super) fn new(
        body: Either<ResponseBody, Full<Bytes>>,
        log: Option<Box<Entry>>,
        underway: Underway,
    ) -> AnswerBody {
        AnswerBody { body, stream: StreamWatch::current(), log, _underway: underway }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        if let Some(stream) = &this.stream {
            stream.note(matches!(frame, Poll::Ready(Some(_))));
        }
        if let (Some(log), Poll::Ready(Some(Ok(frame)))) = (&mut this.log, &frame) {
            log.pass(frame.data_ref().map_or(0, Bytes::len));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

tokio::task_local! {
    /// The stream of HTTP/2 that the task is for.
    static STREAM: Arc<StreamWatch>;
}

/// Whether the client of one stream takes what was given to it. (HTTP/1 has one at a time, and its connection shows
/// the same.)
pub(super) struct StreamWatch {
    start: Instant,
    /// When a piece was given that the client has no room for yet, in milliseconds since the start, plus one.
    given_at: AtomicU64,
}

impl StreamWatch {
    fn current() -> Option<Arc<StreamWatch>> {
        STREAM.try_with(Arc::clone).ok()
    }

    /// The body is asked for more only when there is room for it.
    fn note(&self, given: bool) {
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
