//! Requests to an instance that serves one at a time, as WASI 0.2 has them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use wasmtime::component::Resource;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::types::{HostIncomingRequest, HostResponseOutparam};
use wasmtime_wasi_http::{WasiBody, WasiHttpView};

use super::body::{BoxError, Gathering, ResponseBody, Tail, body_error};
use crate::call::{CallEnd, CallLimits, RequestScheme};
use crate::calls::drive::{Drive, Placed};
use crate::calls::over::{CallStart, Over};
use crate::calls::solo::{Entry, Solo, end_soon, finish};
use crate::sandbox::meter::Meter;

/// [`crate::Instance::call_http`] for such an instance.
pub(super) async fn call<B, D>(
    mut solo: Solo,
    request: Request<B>,
    scheme: RequestScheme,
    limits: CallLimits,
    done: D,
) -> Result<Response<ResponseBody>, CallEnd>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    D: FnOnce(Over<Solo>) + Send + 'static,
{
    let (head_sender, head) = oneshot::channel();
    let (end_sender, mut end) = oneshot::channel();
    let start = solo.begin(limits);
    let handles = match solo.hand_over(request, scheme, start.call, head_sender) {
        Ok(handles) => handles,
        Err(err) => {
            let end = CallEnd::Host(format!("{err:#}"));
            done(Over::ended(start, &solo.meter, end.clone()));
            return Err(end);
        }
    };
    let mut underway = begin(solo, start, handles, end_sender, done);
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
        let ended = match Pin::new(&mut end).poll(cx) {
            // The runtime may want this task to wait, with the report there already.
            Poll::Pending if over => end.try_recv().ok(),
            Poll::Pending => return Poll::Pending,
            Poll::Ready(ended) => ended.ok(),
        };
        let dropped = || CallEnd::Host("the call was dropped".into());
        let ended = ended.unwrap_or_else(dropped);
        // On another thread the head may have come between the two looks.
        match head.as_mut().map(oneshot::Receiver::try_recv) {
            Some(Ok(came)) if ended == CallEnd::Returned(()) => Poll::Ready(First::Head(came)),
            _ => Poll::Ready(First::End(ended)),
        }
    })
    .await;
    match first {
        First::Head(Ok(response)) => match end.try_recv() {
            // Nothing was sent yet: an answer that its guest didn't finish can still become an error.
            Ok(end) if end != CallEnd::Returned(()) => Err(end),
            _ => underway.answer(response).await,
        },
        First::Head(Err(code)) => {
            underway.go_on();
            Err(CallEnd::Trap(format!("the guest answered with an error: {code:?}")))
        }
        First::End(end) => Err(end),
    }
}

fn begin<D>(
    mut solo: Solo,
    start: CallStart,
    (request, outparam): Handles,
    end: oneshot::Sender<CallEnd>,
    done: D,
) -> Underway
where
    D: FnOnce(Over<Solo>) + Send + 'static,
{
    let meter = solo.meter.clone();
    let engine = solo.engine.clone();
    let pace = solo.pace.clone();
    let lane = solo.lane.clone();
    let call = Box::pin(async move {
        let result = match &solo.entry {
            Entry::Http(proxy) => {
                let handler = proxy.wasi_http_incoming_handler();
                handler.call_handle(&mut solo.store, request, outparam).await
            }
            _ => Err(wasmtime::Error::msg("this instance was not loaded for requests")),
        };
        (solo, result)
    });
    let drive = Drive::new(call, meter.clone(), engine.ticker.clone());
    let work = {
        let meter = meter.clone();
        Box::pin(async move {
            let mut finished = finish(drive.await, start, &meter);
            if finished.report.end == CallEnd::Returned(()) && !meter.has_answered(start.call) {
                // It won't do better next time: components with a `fetch` event do so from their second call on.
                finished.instance = None;
                finished.report.end = CallEnd::Trap("the guest returned without an answer".into());
            }
            pace.add(finished.report.cpu);
            // Nobody waits for it any more once there was a head.
            let _ = end.send(finished.report.end.clone());
            done(finished);
        })
    };
    let placed = Placed::Here { work, meter: meter.clone(), lane };
    Underway { placed: Some(placed), meter, call: start.call }
}

type Handles = (Resource<HostIncomingRequest>, Resource<HostResponseOutparam>);

impl Solo {
    fn hand_over<B>(
        &mut self,
        request: Request<B>,
        scheme: RequestScheme,
        call: u64,
        head: oneshot::Sender<Head>,
    ) -> wasmtime::Result<Handles>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let scheme = match scheme {
            RequestScheme::Http => Scheme::Http,
            RequestScheme::Https => Scheme::Https,
        };
        let request = request.map(|body| body.map_err(body_error));
        let meter = self.meter.clone();
        let mut http = self.store.data_mut().http();
        let request = http.new_incoming_request(scheme, request)?;
        let outparam = http.new_response_outparam_from_callback(move |answer| {
            meter.answer_call(call);
            // Who asked may be gone.
            let _ = head.send(answer);
        })?;
        Ok((request, outparam))
    }
}

type Head = Result<Response<WasiBody>, ErrorCode>;

enum First {
    Head(Head),
    End(CallEnd),
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

    async fn answer(mut self, response: Response<WasiBody>) -> Result<Response<ResponseBody>, CallEnd> {
        let (head, body) = response.into_parts();
        let mut body = Gathering::new(body);
        let taken = match &self.placed {
            Some(Placed::Moved(_)) => body.settle(|cx| self.poll(cx)).await,
            Some(_) if self.meter.is_computing() => body.settle(|cx| self.poll(cx)).await,
            _ => body.take().map(drop),
        };
        let goes_on = self.placed.is_some() || self.meter.has_failed(self.call);
        let tail = goes_on.then(|| Tail::Solo { meter: self.meter.clone(), call: self.call });
        self.go_on();
        match taken.and_then(|()| body.finish(tail)) {
            Ok(body) => Ok(Response::from_parts(head, body)),
            Err(err) => Err(CallEnd::Trap(format!("the guest cut its answer off: {err}"))),
        }
    }

    /// Lets the call end in a task of its own.
    fn go_on(&mut self) {
        if let Some(placed) = self.placed.take() {
            placed.go_on();
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
