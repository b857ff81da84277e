//! The body of a guest's answer. What is there with the head is gathered before anything is sent: a small body then
//! goes out in one piece, with its length.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::{Sleep, sleep_until};
use wasmtime_wasi_http::{Error, WasiBody};

use crate::call::CallEnd;
use crate::calls::service::Seat;
use crate::calls::solo::end_soon;
use crate::sandbox::meter::Meter;

/// An error on its way through hyper.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What of an answer is gathered before its head is sent, in bytes and pieces.
const GATHERED_BYTES_MAX: usize = 64 << 10;
const GATHERED_FRAMES_MAX: usize = 16;

/// How long a head waits for the end of its call.
const SETTLE_MAX: Duration = Duration::from_millis(1);

/// A call whose answer is under way. If the client goes before its end, the call ends soon.
pub(super) enum Tail {
    /// The instance's only call.
    Solo { meter: Arc<Meter>, call: u64 },
    /// One of those that share an instance: nothing else ends it when its time is over.
    Seat { seat: Seat, deadline: Option<Instant>, timer: Option<Pin<Box<Sleep>>> },
}

impl Tail {
    fn has_failed(&self) -> bool {
        match self {
            Tail::Solo { meter, call } => meter.has_failed(*call),
            Tail::Seat { seat, .. } => seat.has_failed(),
        }
    }

    /// Ends when its time is over.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Tail::Seat { deadline: Some(deadline), timer, .. } = self else { return Poll::Pending };
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until((*deadline).into())));
        timer.as_mut().poll(cx)
    }

    /// Its time is over.
    fn expire(self) {
        if let Tail::Seat { seat, .. } = self {
            seat.give_up(CallEnd::Timeout);
        }
    }

    /// The answer has come to its end.
    fn finish(self) {
        if let Tail::Seat { seat, .. } = self {
            seat.leave();
        }
    }

    /// The client has gone before it.
    fn abandon(self) {
        match self {
            Tail::Solo { meter, call } => end_soon(&meter, call),
            Tail::Seat { seat, .. } => seat.leave_soon(),
        }
    }
}

/// A guest's answer: what had been there with the head, then what still comes.
pub struct ResponseBody {
    gathered: Option<Frame<Bytes>>,
    rest: Option<WasiBody>,
    tail: Option<Tail>,
}

/// A body of which what is there already has been taken.
pub(super) struct Gathering {
    body: WasiBody,
    first: Option<Bytes>,
    data: BytesMut,
    frames: usize,
    trailers: Option<Frame<Bytes>>,
    has_ended: bool,
}

impl Gathering {
    pub(super) fn new(body: WasiBody) -> Self {
        Gathering { body, first: None, data: BytesMut::new(), frames: 0, trailers: None, has_ended: false }
    }

    /// Takes what is there now. False where more may be worth waiting for a moment. An error is one that comes before
    /// anything was sent.
    pub(super) fn take(&mut self) -> Result<bool, Error> {
        self.poll_take(&mut Context::from_waker(Waker::noop()))
    }

    fn poll_take(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        while !self.is_enough() {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => self.add(frame),
                Poll::Ready(Some(Err(err))) => return Err(err),
                Poll::Ready(None) => self.has_ended = true,
                Poll::Pending => return Ok(false),
            }
        }
        Ok(true)
    }

    /// For a guest that goes on computing after it has given the head: most then have their body there, and are over, in
    /// a moment. `call` is polled for its end.
    pub(super) async fn settle(
        &mut self,
        mut call: impl FnMut(&mut Context<'_>) -> Poll<()>,
    ) -> Result<(), Error> {
        let settled = std::future::poll_fn(|cx| {
            if self.poll_take(cx)? {
                return Poll::Ready(Ok(()));
            }
            ready!(call(cx));
            Poll::Ready(self.take().map(drop))
        });
        tokio::time::timeout(SETTLE_MAX, settled).await.unwrap_or(Ok(()))
    }

    /// Pieces that were taken so far.
    pub(super) fn frames(&self) -> usize {
        self.frames
    }

    fn is_enough(&self) -> bool {
        self.has_ended
            || self.trailers.is_some()
            || self.frames >= GATHERED_FRAMES_MAX
            || self.data.len() > GATHERED_BYTES_MAX
    }

    fn add(&mut self, frame: Frame<Bytes>) {
        self.frames += 1;
        match frame.into_data() {
            Ok(bytes) if self.first.is_none() => self.first = Some(bytes),
            Ok(bytes) => {
                if self.data.is_empty() {
                    self.data.extend_from_slice(self.first.as_deref().unwrap_or_default());
                }
                self.data.extend_from_slice(&bytes);
            }
            Err(trailers) => self.trailers = Some(trailers),
        }
    }

    /// The body to send. One that is there whole is known by its length. An error says that what looks like its end
    /// is none.
    pub(super) fn finish(self, tail: Option<Tail>) -> Result<ResponseBody, Error> {
        // One piece of what was gathered: the only one as it is, several in one.
        let gathered = match self.data.is_empty() {
            true => self.first.map(Frame::data),
            false => Some(Frame::data(self.data.freeze())),
        };
        if self.has_ended {
            // The call may have failed a moment ago, elsewhere.
            if tail.as_ref().is_some_and(Tail::has_failed) {
                return Err(cut_off());
            }
            if let Some(tail) = tail {
                tail.finish();
            }
            return Ok(ResponseBody { gathered, rest: None, tail: None });
        }
        let rest = match self.trailers {
            Some(frame) => Replayed { frame: Some(frame), body: self.body }.boxed_unsync(),
            None => self.body,
        };
        Ok(ResponseBody { gathered, rest: Some(rest), tail })
    }
}

/// What a client must not take for the end of an answer.
fn cut_off() -> Error {
    Error::InternalError(Some("the guest ended before its answer did".into()))
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Some(frame) = this.gathered.take() {
            return Poll::Ready(Some(Ok(frame)));
        }
        let Some(rest) = &mut this.rest else { return Poll::Ready(None) };
        if this.tail.as_mut().is_some_and(|tail| tail.poll_overdue(cx).is_ready()) {
            this.rest = None;
            if let Some(tail) = this.tail.take() {
                tail.expire();
            }
            return Poll::Ready(Some(Err(cut_off().into())));
        }
        let frame = ready!(Pin::new(rest).poll_frame(cx));
        if frame.is_none() {
            this.rest = None;
            if let Some(tail) = this.tail.take() {
                if tail.has_failed() {
                    return Poll::Ready(Some(Err(cut_off().into())));
                }
                tail.finish();
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        // With a tail only the next poll tells whether it is an end.
        self.gathered.is_none() && self.tail.is_none() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let gathered = self.gathered.as_ref().and_then(Frame::data_ref).map_or(0, |data| data.len() as u64);
        let Some(rest) = &self.rest else { return SizeHint::with_exact(gathered) };
        let rest = rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(gathered));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(gathered));
        }
        hint
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Some(tail) = self.tail.take() {
            tail.abandon();
        }
    }
}

/// A body whose next frame was taken out already.
struct Replayed {
    frame: Option<Frame<Bytes>>,
    body: WasiBody,
}

impl Body for Replayed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(frame) = self.frame.take() {
            return Poll::Ready(Some(Ok(frame)));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }
}

pub(super) fn body_error(err: impl Into<BoxError>) -> Error {
    match err.into().downcast::<hyper::Error>() {
        Ok(err) => Error::Hyper(*err),
        Err(err) => Error::InternalError(Some(err.to_string())),
    }
}
