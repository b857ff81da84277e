//! An answer's body that ends when the session does: logs and events are answers that don't end by themselves.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// See the module.
pub struct Until<B> {
    body: B,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<B> Until<B> {
    /// The body, until `ended` is cancelled.
    pub fn new(body: B, ended: CancellationToken) -> Until<B> {
        Until { body, ended: Box::pin(ended.cancelled_owned()) }
    }
}

impl<B: Body + Unpin> Body for Until<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        if self.ended.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
