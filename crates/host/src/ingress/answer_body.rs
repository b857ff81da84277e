//! The body of an answer on its way out. It is the proof that its request is not done.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame, SizeHint};
use wasmhost_engine::{BoxError, ResponseBody};

use super::access::Entry;
use super::gauge::Gauge;
use super::measured::Measured;
use super::outgoing::Content;
use super::streams::StreamWatch;

/// An answer's body, what notes that its request is under way, and what will be logged of it.
pub(super) struct AnswerBody {
    /// None where nothing is sent, or nothing more.
    body: Option<Either<ResponseBody, Full<Bytes>>>,
    content: Content,
    /// Why the rest doesn't come. It is told when what came before it has been written.
    failed: Option<BoxError>,
    stream: Option<Arc<StreamWatch>>,
    log: Option<Box<Entry>>,
    measured: Option<Measured>,
    _underway: Underway,
}

/// A request that isn't done.
pub(super) struct Underway(Arc<Gauge>);

impl Underway {
    pub(super) fn begin(gauge: &Arc<Gauge>) -> Underway {
        gauge.begin();
        Underway(gauge.clone())
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
        content: Content,
        log: Option<Box<Entry>>,
        measured: Option<Measured>,
        underway: Underway,
    ) -> AnswerBody {
        let body = match content {
            Content::Whole | Content::Bytes(_) => Some(body),
            Content::None | Content::NoneOf(_) => None,
        };
        let stream = StreamWatch::current();
        AnswerBody { body, content, failed: None, stream, log, measured, _underway: underway }
    }

    /// Holds a piece against the length that the head says.
    fn count(&mut self, frame: Option<Frame<Bytes>>) -> Option<Result<Frame<Bytes>, BoxError>> {
        let Content::Bytes(left) = &mut self.content else { return frame.map(Ok) };
        let Some(frame) = frame else {
            return match *left {
                0 => None,
                left => Some(Err(format!("the answer ends {left} bytes before its Content-Length").into())),
            };
        };
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(trailers) if *left == 0 => return Some(Ok(trailers)),
            Err(_) => return self.count(None),
        };
        if data.is_empty() {
            return Some(Ok(Frame::data(data)));
        }
        let fits = data.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
        *left -= fits as u64;
        if fits < data.len() {
            // The rest has no place in the message.
            self.body = None;
        }
        (fits > 0).then(|| Ok(Frame::data(data.slice(..fits))))
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
        if let Some(err) = this.failed.take() {
            this.body = None;
            return Poll::Ready(Some(Err(err)));
        }
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        if let Some(stream) = &this.stream {
            stream.note(matches!(polled, Poll::Ready(Some(_))));
        }
        let frame = match ready!(polled).transpose() {
            Ok(frame) => this.count(frame),
            Err(err) => Some(Err(err)),
        };
        let frame = match frame {
            Some(Err(err)) => {
                // hyper drops what it hasn't written yet, the head too, when it hears of this: a client would see an
                // empty answer. It writes when there is nothing more for now.
                this.failed = Some(err);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            frame => frame,
        };
        if let Some(Ok(frame)) = &frame {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            if let Some(log) = &mut this.log {
                log.pass(bytes);
            }
            if let Some(measured) = &mut this.measured {
                measured.pass(bytes);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match (&self.body, self.content) {
            // hyper asks for the length first, and for a body only where there may be one.
            (_, Content::NoneOf(_)) => false,
            (None, _) => true,
            // An answer that is too short must not look whole.
            (Some(_), Content::Bytes(1..)) => false,
            (Some(_), _) if self.failed.is_some() => false,
            (Some(body), _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.body, self.content) {
            (_, Content::NoneOf(bytes) | Content::Bytes(bytes)) => SizeHint::with_exact(bytes),
            (Some(body), _) => body.size_hint(),
            // Not even a zero, which hyper would put into the head.
            (None, _) => SizeHint::new(),
        }
    }
}
