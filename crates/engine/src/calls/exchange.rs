//! A request's answer, between the call in the guest and the connection of the client. The guest writes its body, and the
//! connection reads it.
//!
//! ```text
//! waiting -> answered (a head, and a body that the guest still writes) -> closed: nothing more comes
//!         -> ended without an answer                                   -> broken: the guest failed
//! ```
//!
//! A body whose store is gone looks finished. So the body of a guest that fails is read while its store is still there:
//! that tells whether the guest had finished it. An answer that was finished is sent whole, however its call ends.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::response::Parts;
use http::{Response, header};
use http_body::{Body, Frame, SizeHint};
use wasmtime_wasi_http::{Error, WasiBody};

use super::error_code::error_code;
use crate::call::CallEnd;

/// A guest's answer to a request.
pub(crate) enum Answer {
    /// The guest writes its body.
    Written(Response<WasiBody>),
    /// The guest passes a body on that comes from elsewhere, such as another server's answer. The body comes to its end
    /// without the guest.
    PassedOn(Response<WasiBody>),
}

/// See the module.
#[derive(Default)]
pub(crate) struct Exchange {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    head: Head,
    body: AnswerBody,
    /// The guest has failed, and how its call ended, which is known a moment later.
    is_broken: bool,
    end: Option<CallEnd>,
    /// The length that the head promises, in bytes, and what has been read.
    length: Option<u64>,
    read: u64,
    /// Wakes the task that reads.
    waker: Option<Waker>,
}

#[derive(Default)]
enum Head {
    #[default]
    Waiting,
    Here(Parts),
    /// The guest answered with an error code.
    Error(String),
    Taken,
}

#[derive(Default)]
enum AnswerBody {
    /// There is none, or it has been read to its end, or nobody wants it.
    #[default]
    Over,
    /// The guest may go on writing.
    Open(WasiBody),
    /// The body comes to its end without the guest.
    PassedOn(WasiBody),
    /// The guest has nothing more to do for it. Its content so far is all, even where it forgot to say so.
    Closed(WasiBody),
    /// The guest has failed. This is its content until then, and whether that was all.
    Broken { frames: VecDeque<Frame<Bytes>>, missing: Option<Error> },
}

impl Exchange {
    // --- the guest's side

    /// The guest answers. Only its first answer counts.
    pub(crate) fn answer(&self, answer: Result<Answer, Error>) {
        let mut inner = self.lock();
        if !matches!(inner.head, Head::Waiting) {
            return;
        }
        let (response, is_written) = match answer {
            Ok(Answer::Written(response)) => (response, true),
            Ok(Answer::PassedOn(response)) => (response, false),
            Err(code) => {
                inner.head = Head::Error(error_code(&code));
                return inner.wake();
            }
        };
        let (head, body) = response.into_parts();
        let length = head.headers.get(header::CONTENT_LENGTH);
        inner.length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        inner.head = Head::Here(head);
        inner.body = if is_written { AnswerBody::Open(body) } else { AnswerBody::PassedOn(body) };
        inner.wake();
    }

    /// The guest has given an answer, or an error code.
    pub(crate) fn is_answered(&self) -> bool {
        !matches!(self.lock().head, Head::Waiting)
    }

    /// The guest has done all that it will do for this request.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.body = match std::mem::take(&mut inner.body) {
            AnswerBody::Open(body) => AnswerBody::Closed(body),
            other => other,
        };
        inner.wake();
    }

    /// The guest has failed. To be said while its store is there.
    pub(crate) fn break_off(&self) {
        let mut inner = self.lock();
        inner.is_broken = true;
        inner.body = match std::mem::take(&mut inner.body) {
            AnswerBody::Open(body) => broken(body),
            other => other,
        };
        inner.wake();
    }

    /// The call is over. To be said after [`Exchange::close`] or [`Exchange::break_off`].
    pub(crate) fn end(&self, end: CallEnd) {
        let mut inner = self.lock();
        inner.end.get_or_insert(end);
        inner.wake();
    }

    /// Whether the guest has failed, and left an answer that isn't whole.
    pub(crate) fn is_cut_off(&self) -> bool {
        matches!(self.lock().body, AnswerBody::Broken { missing: Some(_), .. })
    }

    // --- the client's side

    /// The head; or why there is none. [`CallEnd::Returned`] says that the guest gave no answer.
    pub(crate) fn poll_head(&self, cx: &Context<'_>) -> Poll<Result<Parts, CallEnd>> {
        let mut inner = self.lock();
        match std::mem::replace(&mut inner.head, Head::Taken) {
            Head::Here(head) => Poll::Ready(Ok(head)),
            Head::Error(code) => Poll::Ready(Err(CallEnd::ErrorCode(code))),
            Head::Waiting => {
                inner.head = Head::Waiting;
                match &inner.end {
                    Some(end) => Poll::Ready(Err(end.clone())),
                    None => {
                        inner.wait(cx);
                        Poll::Pending
                    }
                }
            }
            Head::Taken => Poll::Pending,
        }
    }

    /// Why an answer isn't whole, where that is because its call ended. A guest that has failed has an end soon.
    pub(crate) fn poll_end(&self, cx: &Context<'_>) -> Poll<Option<CallEnd>> {
        let mut inner = self.lock();
        if inner.is_broken && inner.end.is_none() {
            inner.wait(cx);
            return Poll::Pending;
        }
        Poll::Ready(inner.end.clone())
    }

    /// Nothing that the guest writes from now on is of any interest.
    pub(crate) fn forget_body(&self) {
        let body = std::mem::take(&mut self.lock().body);
        drop(body);
    }

    /// The next piece of the body. An error is an answer that isn't whole.
    pub(crate) fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut inner = self.lock();
        let polled = inner.poll_body(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                inner.read += frame.data_ref().map_or(0, |data| data.len() as u64)
            }
            Poll::Ready(_) => inner.body = AnswerBody::Over,
            Poll::Pending => inner.wait(cx),
        }
        polled
    }

    /// Whether the body is known to have come to its end.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.lock().body, AnswerBody::Over)
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match &self.lock().body {
            AnswerBody::Over => SizeHint::with_exact(0),
            AnswerBody::Open(body) | AnswerBody::PassedOn(body) | AnswerBody::Closed(body) => {
                body.size_hint()
            }
            AnswerBody::Broken { .. } => SizeHint::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A body that panics is the library's. The state here is still whole.
        self.inner.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl Inner {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.body {
            AnswerBody::Over => Poll::Ready(None),
            AnswerBody::Open(body) | AnswerBody::PassedOn(body) => Pin::new(body).poll_frame(cx),
            AnswerBody::Closed(body) => match Pin::new(body).poll_frame(cx) {
                Poll::Pending => Poll::Ready(self.forgotten_end()),
                ready => ready,
            },
            AnswerBody::Broken { frames, missing } => match frames.pop_front() {
                Some(frame) => Poll::Ready(Some(Ok(frame))),
                None => Poll::Ready(missing.take().map(Err)),
            },
        }
    }

    /// The end of a body whose guest is done and never said that it had finished.
    fn forgotten_end(&self) -> Option<Result<Frame<Bytes>, Error>> {
        let is_short = self.length.is_some_and(|length| length > self.read);
        is_short.then(|| Err(Error::HttpResponseBodySize(Some(self.read))))
    }

    fn wait(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(cx.waker().clone()),
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Takes what a guest has written, which is bounded: it writes no more.
fn broken(mut body: WasiBody) -> AnswerBody {
    let mut frames = VecDeque::new();
    let mut cx = Context::from_waker(Waker::noop());
    let missing = loop {
        match Pin::new(&mut body).poll_frame(&mut cx) {
            Poll::Ready(Some(Ok(frame))) => frames.push_back(frame),
            Poll::Ready(Some(Err(err))) => break Some(err),
            Poll::Ready(None) => break None,
            Poll::Pending => break Some(cut_off()),
        }
    };
    AnswerBody::Broken { frames, missing }
}

/// Says that an answer isn't whole.
pub(crate) fn cut_off() -> Error {
    Error::InternalError(Some("the guest ended before its answer did".into()))
}

/// Held by a call in the guest: where it is dropped before it says that the guest is done, the guest has failed. To be
/// kept where it is dropped before the store is.
pub(crate) struct Working(pub(crate) Arc<Exchange>);

impl Working {
    /// The guest has done all that it will do.
    pub(crate) fn done(self) {
        self.0.close();
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.break_off();
    }
}

/// Held until a call is over: where it is dropped without an end, nobody is to wait for one.
pub(crate) struct Ending(pub(crate) Arc<Exchange>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end(CallEnd::Host("the call was dropped".into()));
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::sync::mpsc;

    use super::*;
    use crate::call::{Shortage, Spent};

    const FULL: Shortage = Shortage::Memory { wanted: 2, max: 1 };

    /// A guest's body: frames as they come, which looks finished where its sender is gone.
    struct Channel(mpsc::UnboundedReceiver<Result<Frame<Bytes>, Error>>);

    impl Body for Channel {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            self.0.poll_recv(cx)
        }
    }

    type Writer = mpsc::UnboundedSender<Result<Frame<Bytes>, Error>>;

    /// An answer with this length, if any, and what its guest writes with.
    fn answered(length: Option<&str>) -> (Arc<Exchange>, Writer) {
        answered_by(Answer::Written, length)
    }

    fn answered_by(
        answer: impl FnOnce(Response<WasiBody>) -> Answer,
        length: Option<&str>,
    ) -> (Arc<Exchange>, Writer) {
        let (writer, reader) = mpsc::unbounded_channel();
        let mut response = Response::new(Channel(reader).boxed_unsync());
        if let Some(length) = length {
            response.headers_mut().insert(header::CONTENT_LENGTH, length.parse().unwrap());
        }
        let exchange = Arc::<Exchange>::default();
        exchange.answer(Ok(answer(response)));
        (exchange, writer)
    }

    fn write(writer: &Writer, text: &'static str) {
        writer.send(Ok(Frame::data(Bytes::from_static(text.as_bytes())))).unwrap();
    }

    /// Reads as a client does now: the text, and how it ends, where it does.
    fn read(exchange: &Exchange) -> (String, Option<Result<(), String>>) {
        let mut text = String::new();
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match exchange.poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let data = frame.into_data().unwrap_or_default();
                    text.push_str(std::str::from_utf8(&data).unwrap());
                }
                Poll::Ready(Some(Err(err))) => return (text, Some(Err(err.to_string()))),
                Poll::Ready(None) => return (text, Some(Ok(()))),
                Poll::Pending => return (text, None),
            }
        }
    }

    fn whole(text: &str) -> (String, Option<Result<(), String>>) {
        (text.to_owned(), Some(Ok(())))
    }

    const CUT_OFF: &str = "internal error: the guest ended before its answer did";

    #[test]
    fn an_answer_that_was_finished_is_whole_though_its_guest_fails() {
        let (exchange, writer) = answered(None);
        write(&writer, "all ");
        write(&writer, "of it");
        drop(writer);
        exchange.break_off();
        assert!(!exchange.is_cut_off());
        assert_eq!(read(&exchange), whole("all of it"));
    }

    #[test]
    fn an_answer_that_was_not_finished_is_cut_off_if_its_guest_fails() {
        let (exchange, writer) = answered(None);
        write(&writer, "some");
        exchange.break_off();
        // The store goes, which looks like an end.
        drop(writer);
        assert!(exchange.is_cut_off());
        assert_eq!(read(&exchange), ("some".to_owned(), Some(Err(CUT_OFF.to_owned()))));
        assert_eq!(read(&exchange), whole(""));
    }

    #[test]
    fn an_error_of_the_guests_stays_one() {
        let (exchange, writer) = answered(None);
        write(&writer, "some");
        writer.send(Err(Error::ConnectionTerminated)).unwrap();
        exchange.break_off();
        let (text, end) = read(&exchange);
        assert_eq!((text.as_str(), end), ("some", Some(Err(Error::ConnectionTerminated.to_string()))));
    }

    #[test]
    fn a_body_that_was_passed_on_goes_on_however_its_guest_ends() {
        for end in [Exchange::break_off, Exchange::close] {
            let (exchange, writer) = answered_by(Answer::PassedOn, None);
            write(&writer, "some");
            end(&exchange);
            assert!(!exchange.is_cut_off());
            assert_eq!(read(&exchange), ("some".to_owned(), None));
            write(&writer, " more");
            drop(writer);
            assert_eq!(read(&exchange), whole(" more"));
        }
    }

    #[test]
    fn an_answer_that_was_forgotten_ends_when_its_guest_is_done() {
        let (exchange, writer) = answered(None);
        write(&writer, "all");
        assert_eq!(read(&exchange), ("all".to_owned(), None));
        exchange.close();
        assert_eq!(read(&exchange), whole(""));
        drop(writer);
    }

    #[test]
    fn an_answer_that_was_forgotten_before_its_length_is_cut_off() {
        for (length, is_whole) in [("3", true), ("4", false)] {
            let (exchange, writer) = answered(Some(length));
            write(&writer, "all");
            exchange.close();
            let (text, end) = read(&exchange);
            assert_eq!((text.as_str(), end.is_some_and(|end| end.is_ok())), ("all", is_whole), "{length}");
            drop(writer);
        }
    }

    #[test]
    fn whoever_waits_is_woken_by_the_end() {
        struct Count(std::sync::atomic::AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let count = Arc::new(Count(0.into()));
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        let (exchange, writer) = answered(None);
        assert!(exchange.poll_frame(&mut cx).is_pending());
        exchange.close();
        assert_eq!(count.0.load(std::sync::atomic::Ordering::Relaxed), 1);
        assert!(matches!(exchange.poll_frame(&mut cx), Poll::Ready(None)));
        drop(writer);
    }

    #[test]
    fn the_first_answer_counts_and_an_end_comes_after_it() {
        let (exchange, _writer) = answered(None);
        exchange.answer(Err(Error::LoopDetected));
        exchange.end(CallEnd::Trap("unreachable".into()));
        let cx = Context::from_waker(Waker::noop());
        assert!(matches!(exchange.poll_head(&cx), Poll::Ready(Ok(_))));
        assert_eq!(exchange.poll_end(&cx), Poll::Ready(Some(CallEnd::Trap("unreachable".into()))));
    }

    #[test]
    fn a_call_that_ends_without_an_answer_says_how() {
        let exchange = Arc::<Exchange>::default();
        let cx = Context::from_waker(Waker::noop());
        assert!(exchange.poll_head(&cx).is_pending());
        exchange.end(CallEnd::Timeout(Spent::default()));
        exchange.end(CallEnd::Interrupted);
        assert!(matches!(exchange.poll_head(&cx), Poll::Ready(Err(CallEnd::Timeout(_)))));
    }

    #[test]
    fn a_call_that_is_dropped_ends() {
        let exchange = Arc::<Exchange>::default();
        drop(Ending(exchange.clone()));
        let cx = Context::from_waker(Waker::noop());
        assert!(matches!(exchange.poll_end(&cx), Poll::Ready(Some(CallEnd::Host(_)))));
    }

    #[test]
    fn a_guest_that_fails_is_waited_for_until_it_is_known_how() {
        let cx = Context::from_waker(Waker::noop());
        let (exchange, writer) = answered(None);
        writer.send(Err(Error::ConnectionTerminated)).unwrap();
        assert_eq!(read(&exchange).1, Some(Err(Error::ConnectionTerminated.to_string())));
        assert_eq!(exchange.poll_end(&cx), Poll::Ready(None), "the guest goes on");
        exchange.break_off();
        assert_eq!(exchange.poll_end(&cx), Poll::Pending);
        exchange.end(CallEnd::OutOfMemory(FULL));
        assert_eq!(exchange.poll_end(&cx), Poll::Ready(Some(CallEnd::OutOfMemory(FULL))));
    }
}
