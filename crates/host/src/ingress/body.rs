//! A request's body. It is bounded in length and may not stall, and a small one is read before an instance is asked.

use std::error::Error as _;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until};
use wasmhost_engine::BoxError;

use super::answer::Failure;
use super::gauge::Gauge;

/// A body that says that it has no more bytes than these is read before an instance is asked for it.
const READ_AHEAD_BYTES_MAX: u64 = 64 << 10;

/// Bytes of bodies that are read ahead and haven't come whole yet, of all connections together. Past them an instance is
/// asked first.
const READ_AHEAD_TOTAL_BYTES_MAX: usize = 64 << 20;

/// A body that is waited for has to bring so many bytes a second, once it has been waited for as long as it may stall.
const RATE_MIN_BYTES_PER_S: u64 = 240;

/// Room for the bodies that are read ahead.
pub(super) struct ReadAhead(Arc<Semaphore>);

impl ReadAhead {
    pub(super) fn new() -> ReadAhead {
        ReadAhead(Arc::new(Semaphore::new(READ_AHEAD_TOTAL_BYTES_MAX)))
    }
}

/// A request's body.
pub(crate) struct RequestBody {
    incoming: Incoming,
    /// The data that was read ahead.
    ahead: Option<Bytes>,
    ahead_trailers: Option<HeaderMap>,
    /// Its part of the room for that.
    _room: Option<OwnedSemaphorePermit>,
    bytes_left: u64,
    wait: Wait,
    /// None where there is no body.
    fault: Option<Arc<Fault>>,
    gauge: Arc<Gauge>,
    over: bool,
}

/// How long the client has been waited for.
struct Wait {
    stall_max: Duration,
    bytes: u64,
    before: Duration,
    /// Since when it is waited for now.
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// The fault of a body that its client sends wrong, and how much of it has come.
#[derive(Default)]
pub(super) struct Fault {
    what: AtomicU8,
    /// The answer has begun: its client may send as slowly as the guest likes.
    answered: AtomicBool,
    /// Bytes of it that have come.
    received: AtomicU64,
}

const TOO_LONG: u8 = 1;
const STALLED: u8 = 2;
const BROKEN: u8 = 3;
const GONE: u8 = 4;

impl Fault {
    /// The failure that the client is told of, whatever its guest made of it.
    pub(super) fn failure(&self) -> Option<Failure> {
        match self.what.load(Relaxed) {
            TOO_LONG => Some(Failure::BODY_TOO_LONG),
            STALLED => Some(Failure::BODY_STALLED),
            BROKEN | GONE => Some(Failure::BODY_BROKEN),
            _ => None,
        }
    }

    /// Whether the client has gone, and is told nothing any more.
    pub(super) fn is_gone(&self) -> bool {
        self.what.load(Relaxed) == GONE
    }

    /// Bytes of the body that have come.
    pub(super) fn received_bytes(&self) -> u64 {
        self.received.load(Relaxed)
    }

    /// The answer begins.
    pub(super) fn answer(&self) {
        self.answered.store(true, Relaxed);
    }
}

/// Whether it's for what has come, and not because nothing comes any more.
fn is_malformed(err: &hyper::Error) -> bool {
    let cause = err.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    cause
        .is_some_and(|cause| matches!(cause.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData))
}

impl RequestBody {
    /// A body of any length.
    pub(super) fn new(incoming: Incoming, stall_max: Duration, gauge: Arc<Gauge>) -> Self {
        let over = incoming.is_end_stream();
        RequestBody {
            incoming,
            ahead: None,
            ahead_trailers: None,
            _room: None,
            bytes_left: u64::MAX,
            wait: Wait { stall_max, bytes: 0, before: Duration::ZERO, since: None, timer: None },
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

    /// Reads a small body whole: a client that sends it slowly doesn't keep an instance from others meanwhile. One
    /// whose length nobody knows may be a conversation, and isn't waited for. Whether its client sends it right, its
    /// [`Fault`] says.
    pub(super) async fn read_ahead(&mut self, room: &ReadAhead) {
        let Some(bytes @ 1..=READ_AHEAD_BYTES_MAX) = self.incoming.size_hint().exact() else { return };
        let mut more = BytesMut::new();
        // Most often it has come with its head.
        let polled = poll_fn(|cx| Poll::Ready(self.poll_ahead(cx, &mut more))).await;
        if polled.is_pending() {
            let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
            if let Ok(permit) = room.0.clone().try_acquire_many_owned(permits) {
                self._room = Some(permit);
                poll_fn(|cx| self.poll_ahead(cx, &mut more)).await;
            }
        }
        if !more.is_empty() {
            self.ahead = Some(more.freeze());
        }
    }

    /// Reads until it is whole, or fails. One piece is kept as it is, several in `more`.
    fn poll_ahead(&mut self, cx: &mut Context<'_>, more: &mut BytesMut) -> Poll<()> {
        while !self.incoming.is_end_stream() && self.ahead_trailers.is_none() {
            let Some(Ok(frame)) = ready!(self.poll_incoming(cx)) else { break };
            match frame.into_data() {
                Ok(data) if self.ahead.is_none() && more.is_empty() => self.ahead = Some(data),
                Ok(data) => {
                    more.extend_from_slice(&self.ahead.take().unwrap_or_default());
                    more.extend_from_slice(&data);
                }
                Err(frame) => self.ahead_trailers = frame.into_trailers().ok(),
            }
        }
        Poll::Ready(())
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let answered = self.fault.as_ref().is_some_and(|fault| fault.answered.load(Relaxed));
                ready!(self.wait.poll(cx, answered));
                return self.fail(STALLED, "the client stopped sending, or sends too slowly".into());
            }
        };
        match frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.wait.end(bytes);
                if let Some(shared) = &self.fault {
                    shared.received.store(self.wait.bytes, Relaxed);
                }
                match self.bytes_left.checked_sub(bytes) {
                    Some(left) => self.bytes_left = left,
                    None => return self.fail(TOO_LONG, "the body is longer than max_body".into()),
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(err)) if is_malformed(&err) => self.fail(BROKEN, err.into()),
            Some(Err(err)) => self.fail(GONE, err.into()),
            None => {
                self.over = true;
                Poll::Ready(None)
            }
        }
    }

    fn fail(&mut self, fault: u8, err: BoxError) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(shared) = &self.fault {
            shared.what.store(fault, Relaxed);
        }
        Poll::Ready(Some(Err(err)))
    }
}

impl Wait {
    /// The client is waited for. Ready when that has been too long.
    fn poll(&mut self, cx: &mut Context<'_>, answered: bool) -> Poll<()> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let left = match answered {
            true => self.stall_max,
            false => self.allowed().saturating_sub(self.before).min(self.stall_max),
        };
        let until = since + left;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.deadline() != until {
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(cx)
    }

    /// How long the bytes that have come may have been waited for, all together.
    fn allowed(&self) -> Duration {
        self.stall_max + Duration::from_millis(self.bytes.saturating_mul(1000) / RATE_MIN_BYTES_PER_S)
    }

    /// So many bytes have come.
    fn end(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        if let Some(since) = self.since.take() {
            self.before += since.elapsed();
        }
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
        if let Some(data) = this.ahead.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(trailers) = this.ahead_trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        this.poll_incoming(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_none() && self.ahead_trailers.is_none() && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = self.ahead.as_ref().map_or(0, |data| data.len() as u64);
        let incoming = self.incoming.size_hint();
        match incoming.exact() {
            Some(bytes) => SizeHint::with_exact(bytes.saturating_add(ahead)),
            None => incoming,
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if !self.over && !self.incoming.is_end_stream() {
            self.gauge.leave_unread();
        }
    }
}
