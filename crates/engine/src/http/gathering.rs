//! The part of an answer that is there with its head, taken before anything is sent: a small body then goes out in one
//! piece, with its length.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::response::Parts;
use http::{Method, StatusCode};
use http_body::Frame;
use tokio::time::timeout;
use wasmtime_wasi_http::Error;

use super::body::ResponseBody;
use super::tail::Tail;
use crate::call::CallEnd;
use crate::calls::exchange::{Exchange, cut_off};
use crate::sandbox::meter::Meter;

/// How much of an answer is gathered before its head is sent, in bytes and pieces.
const GATHERED_BYTES_MAX: usize = 64 << 10;
const GATHERED_FRAMES_MAX: usize = 16;

/// A head waits for its guest as long as the guest computes, for so much of the guest's CPU time. A busy machine gives
/// the guest this time later, and answers the same.
const SETTLE_CPU_MAX: Duration = Duration::from_millis(2);

/// How often it is looked at whether the guest still computes.
const SETTLE_STEP: Duration = Duration::from_millis(1);

/// The longest that a head waits, on the busiest machine.
const SETTLE_MAX: Duration = Duration::from_secs(1);

/// Whether an answer has a body (RFC 9110, 6.4.1). In one that hasn't it is of no account what the guest does about
/// its body: it may promise a length that it doesn't write.
pub(super) fn has_body(is_head: bool, head: &Parts) -> bool {
    let without = [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::NOT_MODIFIED];
    !is_head && !without.contains(&head.status)
}

/// Whether a request asks for a head alone.
pub(super) fn is_head<B>(request: &http::Request<B>) -> bool {
    request.method() == Method::HEAD
}

/// How the call ended whose answer isn't whole.
pub(super) async fn broken_by(exchange: &Exchange, err: &Error) -> Broken {
    match poll_fn(|cx| exchange.poll_end(cx)).await {
        None | Some(CallEnd::Returned(())) => {
            let end = CallEnd::Trap(format!("the guest cut its answer off: {err}"));
            Broken { end, guest_lives: true }
        }
        Some(end) => Broken { end, guest_lives: false },
    }
}

/// An answer that isn't whole.
pub(super) struct Broken {
    pub(super) end: CallEnd,
    /// The guest itself has not failed: it goes on, or has returned.
    pub(super) guest_lives: bool,
}

/// See the module.
pub(super) struct Gathering {
    exchange: Arc<Exchange>,
    has_body: bool,
    first: Option<Bytes>,
    data: BytesMut,
    frames: usize,
    trailers: Option<Frame<Bytes>>,
    has_ended: bool,
}

impl Gathering {
    pub(super) fn new(exchange: Arc<Exchange>, has_body: bool) -> Self {
        Gathering {
            exchange,
            has_body,
            first: None,
            data: BytesMut::new(),
            frames: 0,
            trailers: None,
            has_ended: false,
        }
    }

    /// Takes what is there now. False where more may be worth waiting for a moment. An error comes before anything was
    /// sent.
    pub(super) fn take(&mut self) -> Result<bool, Error> {
        self.poll_take(&mut Context::from_waker(Waker::noop()))
    }

    fn poll_take(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        while !self.is_enough() {
            match self.exchange.poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => self.add(frame),
                Poll::Ready(Some(Err(_))) if !self.has_body => self.has_ended = true,
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
        meter: &Meter,
        mut call: impl FnMut(&mut Context<'_>) -> Poll<()>,
    ) -> Result<(), Error> {
        let (begun, spent) = (Instant::now(), meter.cpu());
        loop {
            let frames = self.frames;
            let settled = poll_fn(|cx| {
                if self.poll_take(cx)? {
                    return Poll::Ready(Ok(()));
                }
                ready!(call(cx));
                Poll::Ready(self.take().map(drop))
            });
            if let Ok(settled) = timeout(SETTLE_STEP, settled).await {
                return settled;
            }
            let has_time = meter.cpu().saturating_sub(spent) < SETTLE_CPU_MAX && begun.elapsed() < SETTLE_MAX;
            // A guest that waited for room for its next piece has it now.
            let goes_on = meter.is_computing() || self.frames > frames;
            if !has_time || !goes_on {
                return Ok(());
            }
        }
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

    /// The body to send. One that is there whole is known by its length. An error is an answer that is known to lack its
    /// end. With a `tail` the call goes on; it is dropped
    /// where there is nothing to wait for.
    pub(super) fn finish(self, tail: Option<Tail>) -> Result<ResponseBody, Error> {
        if !self.has_ended && !self.has_body {
            self.exchange.forget_body();
            return Ok(ResponseBody::unwanted());
        }
        if self.exchange.is_cut_off() {
            return Err(cut_off());
        }
        // One piece of what was gathered: the only one as it is, several in one.
        let gathered = match self.data.is_empty() {
            true => self.first,
            false => Some(self.data.freeze()),
        };
        if self.has_ended {
            if let Some(tail) = tail {
                tail.finish();
            }
            return Ok(ResponseBody::whole(gathered));
        }
        Ok(ResponseBody::streamed(gathered, self.trailers, self.exchange, tail))
    }
}
