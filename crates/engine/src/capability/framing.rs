//! The framing of a request that a guest makes. hyper leaves it out where it rarely matters: a GET whose body has no
//! length is sent without the body, and a POST without a body doesn't say so.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty};
use tokio::time::timeout;
use wasmtime_wasi_http::{Error, WasiBody};

/// How long the body of a request is waited for that has none most often. A guest that sends one has begun by then.
/// WASI 0.3 doesn't tell a request without a body from one whose body is still to come: for it the time is spent on each
/// GET whose guest keeps the writer of the trailers.
const BODY_BEGINS_MAX: Duration = Duration::from_millis(50);
const ASYNC_BODY_BEGINS_MAX: Duration = Duration::from_millis(2);

/// A body of so many bytes and pieces at most is gathered, and sent with its length.
const GATHERED_BYTES_MAX: u64 = 64 << 10;
const GATHERED_FRAMES_MAX: usize = 64;

/// Says in a request's head how long its body is, or that it comes in chunks. A request may be sent without a
/// body, though its guest may still write one: that body is returned beside it.
pub(super) async fn frame(
    mut request: Request<WasiBody>,
    is_async: bool,
) -> Result<(Request<WasiBody>, Option<WasiBody>), Error> {
    if request.headers().contains_key(CONTENT_LENGTH) {
        return Ok((request, None));
    }
    let has_no_body = request.body().is_end_stream();
    if has_no_body {
        // RFC 9110, section 8.6.
        if [Method::POST, Method::PUT, Method::PATCH].contains(request.method()) {
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(0));
        }
        return Ok((request, None));
    }
    let is_dropped = [Method::GET, Method::HEAD].contains(request.method());
    if !is_dropped || request.body().size_hint().exact().is_some() {
        return Ok((request, None));
    }
    let (mut head, mut body) = request.into_parts();
    let mut gathered = Gathered::default();
    let begins_max = if is_async { ASYNC_BODY_BEGINS_MAX } else { BODY_BEGINS_MAX };
    let is_whole = timeout(begins_max, gathered.take(&mut body)).await.unwrap_or(Ok(false))?;
    if gathered.bytes == 0 && !gathered.has_trailers {
        let late = (!is_whole).then_some(body);
        return Ok((
            Request::from_parts(head, Empty::new().map_err(|never| match never {}).boxed_unsync()),
            late,
        ));
    }
    match is_whole && !gathered.has_trailers {
        true => head.headers.insert(CONTENT_LENGTH, HeaderValue::from(gathered.bytes)),
        false => head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked")),
    };
    let body = Replayed { frames: gathered.frames, rest: body }.boxed_unsync();
    Ok((Request::from_parts(head, body), None))
}

/// Ends with an error if anything comes of a body that was given up. The guest must not believe that it was sent.
pub(super) async fn comes_late(body: Option<WasiBody>) -> Error {
    if let Some(mut body) = body {
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) if frame.data_ref().is_none_or(Bytes::is_empty) => {}
                Ok(_) => return Error::InternalError(Some(TOO_LATE.to_owned())),
                Err(err) => return err,
            }
        }
    }
    std::future::pending().await
}

const TOO_LATE: &str =
    "the body of a GET or HEAD began after the request was sent; write it, or its Content-Length, at once";

#[derive(Default)]
struct Gathered {
    frames: VecDeque<Frame<Bytes>>,
    bytes: u64,
    has_trailers: bool,
}

impl Gathered {
    /// Takes what comes. True at the body's end, false where there is more than is gathered.
    async fn take(&mut self, body: &mut WasiBody) -> Result<bool, Error> {
        while self.bytes <= GATHERED_BYTES_MAX && self.frames.len() < GATHERED_FRAMES_MAX {
            let Some(frame) = body.frame().await.transpose()? else { return Ok(true) };
            self.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
            self.has_trailers |= frame.is_trailers();
            self.frames.push_back(frame);
        }
        Ok(false)
    }
}

/// A body whose first frames were taken out already.
struct Replayed {
    frames: VecDeque<Frame<Bytes>>,
    rest: WasiBody,
}

impl Body for Replayed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::new()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{Full, StreamBody};

    use super::*;

    fn request(method: Method, body: WasiBody) -> Request<WasiBody> {
        Request::builder().method(method).body(body).unwrap()
    }

    /// A body that hyper knows no length of, and that ends or goes on without an end.
    fn pieces(pieces: &'static [&'static str], ends: bool) -> WasiBody {
        use futures_util::StreamExt as _;
        let frames = pieces.iter().map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))));
        let frames = futures_util::stream::iter(frames);
        match ends {
            true => StreamBody::new(frames).boxed_unsync(),
            false => StreamBody::new(frames.chain(futures_util::stream::pending())).boxed_unsync(),
        }
    }

    /// The length and the encoding that the head says, and whether a body is still waited for.
    async fn framed(method: Method, body: WasiBody) -> (Option<String>, Option<String>, bool) {
        let (request, late) = frame(request(method, body), false).await.unwrap();
        let header = |name| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        (header(CONTENT_LENGTH), header(TRANSFER_ENCODING), late.is_some())
    }

    fn none() -> WasiBody {
        Empty::new().map_err(|never| match never {}).boxed_unsync()
    }

    #[tokio::test]
    async fn a_request_without_a_body_says_so_where_one_is_expected() {
        for method in [Method::POST, Method::PUT, Method::PATCH] {
            assert_eq!(framed(method, none()).await, (Some("0".into()), None, false));
        }
        for method in [Method::GET, Method::HEAD, Method::DELETE, Method::OPTIONS] {
            assert_eq!(framed(method, none()).await, (None, None, false));
        }
    }

    #[tokio::test]
    async fn a_get_with_a_body_has_its_length_or_chunks() {
        assert_eq!(framed(Method::GET, pieces(&["ab", "c"], true)).await, (Some("3".into()), None, false));
        assert_eq!(framed(Method::GET, pieces(&["ab"], false)).await, (None, Some("chunked".into()), false));
        assert_eq!(framed(Method::HEAD, pieces(&[], true)).await, (None, None, false));
        // It may never begin, and mustn't be dropped silently.
        assert_eq!(framed(Method::GET, pieces(&[], false)).await, (None, None, true));
        // hyper sees to these.
        let full = Full::new(Bytes::from_static(b"abc")).map_err(|never| match never {}).boxed_unsync();
        assert_eq!(framed(Method::GET, full).await, (None, None, false));
        assert_eq!(framed(Method::POST, pieces(&["ab"], true)).await, (None, None, false));
    }

    #[tokio::test]
    async fn what_was_gathered_is_sent() {
        let (request, _) = frame(request(Method::GET, pieces(&["ab", "", "c"], true)), false).await.unwrap();
        assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "abc");
    }

    #[tokio::test]
    async fn a_body_that_begins_too_late_is_an_error() {
        let err = comes_late(Some(pieces(&["", "a"], true))).await;
        assert!(matches!(err, Error::InternalError(Some(text)) if text == TOO_LATE));
    }
}
