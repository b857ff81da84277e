//! Requests to an instance that serves one at a time, as WASI 0.2 has them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use wasmtime::component::Resource;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p2::types::{HostIncomingRequest, HostResponseOutparam};

use super::body::{BoxError, ResponseBody, body_error};
use super::gathering::{Gathering, broken_by, has_body, is_head};
use super::tail::Tail;
use crate::call::{CallEnd, CallLimits, RequestScheme};
use crate::calls::drive::{Drive, Placed};
use crate::calls::exchange::{Answer, Ending, Exchange, Working};
use crate::calls::over::{CallStart, Over};
use crate::calls::solo::{Entry, Solo, end_soon, finish};
use crate::sandbox::meter::Meter;
use crate::services::Trace;

/// [`crate::Instance::call_http`] for such an instance.
pub(super) async fn call<B, D>(
    mut solo: Solo,
    request: Request<B>,
    scheme: RequestScheme,
    limits: CallLimits,
    trace: Trace,
    done: D,
) -> Result<Response<ResponseBody>, CallEnd>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    D: FnOnce(Over<Solo>) + Send + 'static,
{
    let exchange = Arc::<Exchange>::default();
    let is_head = is_head(&request);
    let start = solo.begin(limits, trace);
    let handles = match solo.hand_over(request, scheme, exchange.clone()) {
        Ok(handles) => handles,
        Err(err) => {
            let end = CallEnd::Host(format!("{err:#}"));
            done(Over::ended(start, &solo.meter, end.clone()));
            return Err(end);
        }
    };
    let mut call = begin(solo, start, handles, exchange, done);
    let head = std::future::poll_fn(|cx| {
        let _ = call.poll(cx);
        call.exchange.poll_head(cx)
    });
    match head.await {
        Ok(head) => call.answer(head, is_head, limits.timeout).await,
        Err(end) => {
            // After an error code the guest comes to its end by itself.
            call.go_on();
            Err(end)
        }
    }
}

fn begin<D>(
    mut solo: Solo,
    start: CallStart,
    (request, outparam): Handles,
    exchange: Arc<Exchange>,
    done: D,
) -> SoloCall
where
    D: FnOnce(Over<Solo>) + Send + 'static,
{
    let meter = solo.meter.clone();
    let engine = solo.engine.clone();
    let history = solo.history.clone();
    let lane = solo.lane.clone();
    let call = {
        let exchange = exchange.clone();
        Box::pin(async move {
            // Declared here, and so dropped before the store.
            let working = Working(exchange);
            let result = match &solo.entry {
                Entry::Http(proxy) => {
                    let handler = proxy.wasi_http_incoming_handler();
                    handler.call_handle(&mut solo.store, request, outparam).await
                }
                _ => Err(wasmtime::Error::msg("this instance was not loaded for requests")),
            };
            if result.is_ok() {
                working.done();
            }
            (solo, result)
        })
    };
    let drive = Drive::new(call, meter.clone(), engine.ticker.clone());
    let stays_long = history.pace.stays_long();
    let work = {
        let (meter, ending) = (meter.clone(), Ending(exchange.clone()));
        Box::pin(async move {
            let mut over = finish(drive.await, start, &meter);
            if over.report.end == CallEnd::Returned(()) && !ending.0.is_answered() {
                // It won't do better next time: components with a `fetch` event do so from their second call on.
                over.instance = None;
                over.report.end = CallEnd::Trap("the guest returned without an answer".into());
            }
            history.pace.add(over.report.cpu);
            history.note(&meter);
            ending.0.end(over.report.end.clone());
            done(over);
        })
    };
    let placed = match stays_long {
        true => Placed::on_compute(work, &lane),
        false => Placed::Here { work, meter: meter.clone(), lane },
    };
    SoloCall { placed: Some(placed), exchange, meter, call: start.call }
}

type Handles = (Resource<HostIncomingRequest>, Resource<HostResponseOutparam>);

impl Solo {
    fn hand_over<B>(
        &mut self,
        request: Request<B>,
        scheme: RequestScheme,
        exchange: Arc<Exchange>,
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
        let mut http = self.store.data_mut().http();
        let request = http.new_incoming_request(scheme, request)?;
        let outparam = http.new_response_outparam_from_callback(move |answer| {
            exchange.answer(answer.map(Answer::Written).map_err(Into::into));
        })?;
        Ok((request, outparam))
    }
}

/// A call that is polled by its request's task. When this is dropped the rest of the call goes on in a task of its own.
struct SoloCall {
    placed: Option<Placed<()>>,
    exchange: Arc<Exchange>,
    meter: Arc<Meter>,
    call: u64,
}

impl SoloCall {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(placed) = &mut self.placed else { return Poll::Ready(()) };
        ready!(Pin::new(placed).poll(cx));
        self.placed = None;
        Poll::Ready(())
    }

    async fn answer(
        mut self,
        head: Parts,
        is_head: bool,
        timeout: Option<Duration>,
    ) -> Result<Response<ResponseBody>, CallEnd> {
        let mut body = Gathering::new(self.exchange.clone(), has_body(is_head, &head));
        let settles =
            self.placed.as_ref().is_some_and(|placed| placed.has_moved() || self.meter.is_computing());
        let taken = match settles {
            true => {
                let meter = self.meter.clone();
                body.settle(&meter, |cx| self.poll(cx)).await
            }
            false => body.take().map(drop),
        };
        let goes_on = self.placed.is_some();
        self.go_on();
        let finished = taken
            .and_then(|()| body.finish(goes_on.then(|| Tail::solo(self.meter.clone(), self.call, timeout))));
        match finished {
            Ok(body) => Ok(Response::from_parts(head, body)),
            Err(err) => Err(broken_by(&self.exchange, &err).await.end),
        }
    }

    /// Lets the call end in a task of its own.
    fn go_on(&mut self) {
        if let Some(placed) = self.placed.take() {
            placed.go_on();
        }
    }
}

impl Drop for SoloCall {
    fn drop(&mut self) {
        if self.placed.is_some() {
            end_soon(&self.meter, self.call);
            self.go_on();
        }
    }
}
