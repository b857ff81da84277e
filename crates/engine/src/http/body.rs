//! The body of a guest's answer, as it is sent.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use wasmtime_wasi_http::Error;

use super::tail::Tail;
use crate::calls::exchange::{Exchange, cut_off};

/// An error on its way through hyper.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A guest's answer: first what was there with the head, then what still comes.
pub struct ResponseBody {
    gathered: Option<Bytes>,
    /// The next frame of `rest`, which was taken out already.
    next: Option<Frame<Bytes>>,
    rest: Option<Arc<Exchange>>,
    tail: Option<Tail>,
    /// The answer has a length, but no body.
    is_unwanted: bool,
}

impl ResponseBody {
    /// All of it is there.
    pub(super) fn whole(gathered: Option<Bytes>) -> Self {
        ResponseBody { gathered, next: None, rest: None, tail: None, is_unwanted: false }
    }

    /// An answer that has none, whatever the guest writes.
    pub(super) fn unwanted() -> Self {
        ResponseBody { gathered: None, next: None, rest: None, tail: None, is_unwanted: true }
    }

    /// More may come.
    pub(super) fn streamed(
        gathered: Option<Bytes>,
        next: Option<Frame<Bytes>>,
        rest: Arc<Exchange>,
        mut tail: Option<Tail>,
    ) -> Self {
        if let Some(tail) = &mut tail {
            tail.roll();
        }
        ResponseBody { gathered, next, rest: Some(rest), tail, is_unwanted: false }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Some(gathered) = this.gathered.take() {
            return Poll::Ready(Some(Ok(Frame::data(gathered))));
        }
        if let Some(next) = this.next.take() {
            return Poll::Ready(Some(Ok(next)));
        }
        let Some(rest) = &this.rest else { return Poll::Ready(None) };
        if this.tail.as_mut().is_some_and(|tail| tail.poll_overdue(cx).is_ready()) {
            rest.forget_body();
            this.rest = None;
            if let Some(tail) = this.tail.take() {
                tail.expire();
            }
            return Poll::Ready(Some(Err(cut_off().into())));
        }
        match ready!(rest.poll_frame(cx)) {
            Some(Ok(frame)) => {
                if let Some(tail) = &mut this.tail {
                    tail.roll();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(err)) => Poll::Ready(Some(Err(err.into()))),
            None => {
                this.rest = None;
                if let Some(tail) = this.tail.take() {
                    tail.finish();
                }
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        // With a tail only the next poll tells whether it is an end.
        self.gathered.is_none()
            && self.next.is_none()
            && self.tail.is_none()
            && self.rest.as_ref().is_none_or(|rest| rest.is_over())
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_unwanted {
            return SizeHint::default();
        }
        let gathered = self.gathered.as_ref().map_or(0, |data| data.len() as u64);
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
        if let Some(rest) = self.rest.take() {
            // The guest sees it when it writes.
            rest.forget_body();
        }
    }
}

pub(super) fn body_error(err: impl Into<BoxError>) -> Error {
    match err.into().downcast::<hyper::Error>() {
        Ok(err) => Error::Hyper(*err),
        Err(err) => Error::InternalError(Some(err.to_string())),
    }
}
