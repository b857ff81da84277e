//! A request's call. The guest runs where the request was read, until it would wait: a small answer is then there
//! whole, with its length, and goes out in one piece. Only a guest that outlives its answer's head gets a task of
//! its own, and only one that computes for longer than a slice changes threads.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use wasmtime::component::Resource;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::types::{HostIncomingRequest, HostResponseOutparam};
use wasmtime_wasi_http::{Error, WasiBody, WasiHttpView};

use crate::call::{CallEnd, CallLimits};
use crate::drive::{Drive, Placed};
use crate::instance::{Entry, Finished, Instance, finish};
use crate::meter::Meter;

/// How long a call goes on whose client has gone away. Ending it costs the instance, so that a guest that is almost
/// done should be let.
const DETACHED_MAX: Duration = Duration::from_secs(1);

/// What of an answer is gathered before its head is sent, in bytes and pieces.
const GATHERED_BYTES_MAX: usize = 64 << 10;
const GATHERED_FRAMES_MAX: usize = 16;

/// An error on its way through hyper.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The scheme that the client used, as far as the ingress knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestScheme {
    /// Plain.
    Http,
    /// By TLS, here or at a proxy that is trusted.
    Https,
}

impl Instance {
    /// Serves a request whose URI or `Host` has an authority. Answers as soon as there is a head, or with the call's
    /// end if it ended without one (`Returned` then means that the guest gave no answer).
    ///
    /// `done` is called once, when the call is over, which may be long after the head; also where this future, or
    /// the answer's body, is dropped.
    pub async fn call_http<B, D>(
        self,
        request: Request<B>,
        scheme: RequestScheme,
        limits: CallLimits,
        done: D,
    ) -> Result<Response<ResponseBody>, CallEnd>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
        D: FnOnce(Finished) + Send + 'static,
    {
        let (head_sender, head) = oneshot::channel();
        let (end_sender, mut end) = oneshot::channel();
        let mut underway = match self.begin_http(request, scheme, limits, head_sender, end_sender, done) {
            Ok(underway) => underway,
            Err(end) => return Err(end),
        };
        // A call that ends without a head closes this before its report is there; it must not be polled again.
        let mut head = Some(head);
        let first = std::future::poll_fn(|cx| {
            let over = underway.poll(cx).is_ready();
            if let Some(coming) = &mut head
                && let Poll::Ready(came) = Pin::new(coming).poll(cx)
            {
                match came {
                    Ok(came) => return Poll::Ready(First::Head(came)),
                    Err(_) => head = None,
                }
            }
            match Pin::new(&mut end).poll(cx) {
                Poll::Ready(Ok(end)) => Poll::Ready(First::End(end)),
                Poll::Ready(Err(_)) => Poll::Ready(First::End(CallEnd::Host("the call was dropped".into()))),
                Poll::Pending if over => {
                    Poll::Ready(First::End(CallEnd::Host("the call ended without a report".into())))
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        match first {
            First::Head(Ok(response)) => match end.try_recv() {
                // Nothing was sent yet: an answer that its guest didn't finish can still become an error.
                Ok(end) if end != CallEnd::Returned(()) => Err(end),
                _ => underway.answer(response),
            },
            First::Head(Err(code)) => {
                underway.go_on();
                Err(CallEnd::Trap(format!("the guest answered with an error: {code:?}")))
            }
            First::End(end) => Err(end),
        }
    }

    fn begin_http<B, D>(
        mut self,
        request: Request<B>,
        scheme: RequestScheme,
        limits: CallLimits,
        head: oneshot::Sender<Head>,
        end: oneshot::Sender<CallEnd>,
        done: D,
    ) -> Result<Underway, CallEnd>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
        D: FnOnce(Finished) + Send + 'static,
    {
        let start = self.begin(limits);
        let meter = self.meter.clone();
        let (request, outparam) = match self.hand_over(request, scheme, head) {
            Ok(handles) => handles,
            Err(err) => {
                let end = CallEnd::Host(format!("{err:#}"));
                done(Finished::ended(start, &meter, end.clone()));
                return Err(end);
            }
        };
        let engine = self.engine.clone();
        let mut instance = self;
        let call = Box::pin(async move {
            let result = match &instance.entry {
                Entry::Http(proxy) => {
                    let handler = proxy.wasi_http_incoming_handler();
                    handler.call_handle(&mut instance.store, request, outparam).await
                }
                _ => Err(wasmtime::Error::msg("this instance was not loaded for requests")),
            };
            (instance, result)
        });
        let drive = Drive::new(call, meter.clone(), engine.ticker.clone(), start.deadline);
        let work = {
            let meter = meter.clone();
            Box::pin(async move {
                let finished = finish(drive.await, start, &meter);
                // Nobody waits for it any more once there was a head.
                let _ = end.send(finished.report.end.clone());
                done(finished);
            })
        };
        let placed = Placed::Here { work, meter: meter.clone(), compute: engine.compute().clone() };
        Ok(Underway { placed: Some(placed), meter, call: start.call })
    }

    fn hand_over<B>(
        &mut self,
        request: Request<B>,
        scheme: RequestScheme,
        head: oneshot::Sender<Head>,
    ) -> wasmtime::Result<(Resource<HostIncomingRequest>, Resource<HostResponseOutparam>)>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let scheme = match scheme {
            RequestScheme::Http => Scheme::Http,
            RequestScheme::Https => Scheme::Https,
        };
        let request = request.map(|body| body.map_err(body_error));
        let mut http = self.store.data_mut().http();
        let request = http.new_incoming_request(scheme, request)?;
        let outparam = http.new_response_outparam(head)?;
        Ok((request, outparam))
    }
}

type Head = Result<Response<WasiBody>, ErrorCode>;

enum First {
    Head(Head),
    End(CallEnd),
}

fn body_error(err: impl Into<BoxError>) -> Error {
    match err.into().downcast::<hyper::Error>() {
        Ok(err) => Error::Hyper(*err),
        Err(err) => Error::InternalError(Some(err.to_string())),
    }
}

/// A call that is polled by its request's task; what is left of it goes on in a task of its own when this is dropped.
struct Underway {
    placed: Option<Placed<()>>,
    meter: Arc<Meter>,
    call: u64,
}

impl Underway {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(placed) = &mut self.placed else { return Poll::Ready(()) };
        ready!(Pin::new(placed).poll(cx));
        self.placed = None;
        Poll::Ready(())
    }

    fn answer(mut self, response: Response<WasiBody>) -> Result<Response<ResponseBody>, CallEnd> {
        let tail = Tail { meter: self.meter.clone(), call: self.call };
        let over = self.placed.is_none();
        self.go_on();
        let (head, body) = response.into_parts();
        match ResponseBody::gather(body, (!over).then_some(tail)) {
            Ok(body) => Ok(Response::from_parts(head, body)),
            Err(err) => Err(CallEnd::Trap(format!("the guest cut its answer off: {err}"))),
        }
    }

    /// Lets the call end in a task of its own.
    fn go_on(&mut self) {
        if let Some(placed) = self.placed.take() {
            tokio::spawn(placed);
        }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        if self.placed.is_some() {
            end_soon(&self.meter, self.call);
            self.go_on();
        }
    }
}

/// Ends a call that nobody waits for, after a second.
fn end_soon(meter: &Arc<Meter>, call: u64) {
    let Ok(runtime) = Handle::try_current() else {
        return meter.interrupt_call(call);
    };
    let meter = meter.clone();
    runtime.spawn(async move {
        tokio::time::sleep(DETACHED_MAX).await;
        meter.interrupt_call(call);
    });
}

/// A call whose answer is under way: if the client goes before its end, the call ends soon.
struct Tail {
    meter: Arc<Meter>,
    call: u64,
}

/// A guest's answer: what had been there with the head, then what still comes.
pub struct ResponseBody {
    gathered: Option<Frame<Bytes>>,
    rest: Option<WasiBody>,
    tail: Option<Tail>,
}

impl ResponseBody {
    /// Takes what is there already. A body that is there whole is known by its length.
    /// An error is one that comes before anything was sent.
    fn gather(mut body: WasiBody, tail: Option<Tail>) -> Result<Self, Error> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut data = BytesMut::new();
        let mut first: Option<Bytes> = None;
        for _ in 0..GATHERED_FRAMES_MAX {
            if data.len() > GATHERED_BYTES_MAX {
                break;
            }
            match Pin::new(&mut body).poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) if first.is_none() => first = Some(bytes),
                    Ok(bytes) => {
                        if data.is_empty() {
                            data.extend_from_slice(first.as_deref().unwrap_or_default());
                        }
                        data.extend_from_slice(&bytes);
                    }
                    Err(trailers) => {
                        let rest = Replayed { frame: Some(trailers), body }.boxed_unsync();
                        return Ok(ResponseBody { gathered: whole(first, data), rest: Some(rest), tail });
                    }
                },
                Poll::Ready(Some(Err(err))) => return Err(err),
                // The call may have failed a moment ago, elsewhere.
                Poll::Ready(None) if tail.as_ref().is_some_and(Tail::has_failed) => return Err(cut_off()),
                Poll::Ready(None) => {
                    return Ok(ResponseBody { gathered: whole(first, data), rest: None, tail: None });
                }
                Poll::Pending => break,
            }
        }
        Ok(ResponseBody { gathered: whole(first, data), rest: Some(body), tail })
    }
}

/// What a client must not take for the end of an answer.
fn cut_off() -> Error {
    Error::InternalError(Some("the guest ended before its answer did".into()))
}

impl Tail {
    fn has_failed(&self) -> bool {
        self.meter.has_failed(self.call)
    }
}

/// One piece of what was gathered: the only one as it is, several in one.
fn whole(first: Option<Bytes>, data: BytesMut) -> Option<Frame<Bytes>> {
    match data.is_empty() {
        true => first.map(Frame::data),
        false => Some(Frame::data(data.freeze())),
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
        if let Some(frame) = this.gathered.take() {
            return Poll::Ready(Some(Ok(frame)));
        }
        let Some(rest) = &mut this.rest else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(rest).poll_frame(cx));
        if frame.is_none() {
            this.rest = None;
            if this.tail.take().is_some_and(|tail| tail.has_failed()) {
                return Poll::Ready(Some(Err(cut_off().into())));
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
            end_soon(&tail.meter, tail.call);
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
