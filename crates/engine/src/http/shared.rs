//! Requests to an instance that serves several at once, as WASI 0.3 has them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{Request, Response, header};
use http_body::Body;
use http_body_util::BodyExt;
use wasmtime::component::{Accessor, Resource};
use wasmtime_wasi_http::p3::{self, bindings as async_http};
use wasmtime_wasi_http::{Error, FieldMap, WasiBody, WasiHttpView};

use super::body::{Gathering, ResponseBody, Tail};
use super::{BoxError, RequestScheme, body_error};
use crate::call::{CallEnd, CallLimits};
use crate::drive::Placed;
use crate::instance::Finished;
use crate::service::{Answer, Seat, Service, Terms, Work};
use crate::state::State;

/// [`crate::Instance::call_http`] for such an instance.
pub(super) async fn call<B, D>(
    service: Arc<Service>,
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
    let request = request.map(|body| body.map_err(body_error).boxed_unsync());
    let deadline = limits.deadline(Instant::now());
    let terms = Terms { deadline, cpu: limits.cpu, long: false };
    let (work, mut head) = Work::request(request, scheme);
    let (placed, seat) = service.enter(work, terms, Box::new(done))?;
    let mut underway = Underway { placed, seat: Some(seat) };
    let mut timer = None;
    let head = std::future::poll_fn(|cx| {
        let _ = underway.poll(cx);
        if let Poll::Ready(head) = Pin::new(&mut head).poll(cx) {
            let dropped = |_| Err(CallEnd::Host("the call was dropped".into()));
            return Poll::Ready(head.unwrap_or_else(dropped));
        }
        // From outside: while one guest computes, nothing that waits in its store is looked at.
        let Some(deadline) = deadline else { return Poll::Pending };
        let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        timer.as_mut().poll(cx).map(|()| Err(CallEnd::Timeout))
    });
    match head.await {
        Ok(response) => underway.answer(response, deadline).await,
        Err(end) => {
            underway.give_up(&end);
            Err(end)
        }
    }
}

/// One request in the guest, until there is a head; its body is the guest's affair from then on.
pub(crate) async fn answer_request(
    service: &async_http::Service,
    accessor: &Accessor<State>,
    request: Request<WasiBody>,
    scheme: RequestScheme,
) -> wasmtime::Result<Answer<Response<WasiBody>>> {
    let (request, sent) = accessor.with(|mut access| hand_over(access.get(), request, scheme))?;
    match service.wasi_http_handler().call_handle(accessor, request).await? {
        Ok(response) => accessor.with(|mut access| {
            let response = access.get().http().table.delete(response)?;
            Ok(Ok(response.into_http(access, sent)?))
        }),
        Err(code) => Ok(Err(CallEnd::Trap(format!("the guest answered with an error: {code:?}")))),
    }
}

/// What became of the request's body, as the guest is told once its answer is sent.
type Sent = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

fn hand_over(
    state: &mut State,
    request: Request<WasiBody>,
    scheme: RequestScheme,
) -> wasmtime::Result<(Resource<p3::Request>, Sent)> {
    let (head, body) = request.into_parts();
    let scheme = match scheme {
        RequestScheme::Http => Scheme::HTTP,
        RequestScheme::Https => Scheme::HTTPS,
    };
    let host = head.headers.get(header::HOST);
    let authority = match head.uri.authority() {
        Some(authority) => Some(authority.clone()),
        None => host.and_then(|host| Authority::try_from(host.as_bytes()).ok()),
    };
    let path = head.uri.path_and_query().cloned();
    let http = state.http();
    let headers = FieldMap::new_immutable(http.hooks, head.headers);
    let (request, sent) = p3::Request::new(head.method, Some(scheme), authority, path, headers, None, body);
    Ok((http.table.push(request)?, Box::pin(sent)))
}

/// A call that is polled by its request's task, with the run that it began, if it did.
struct Underway {
    placed: Option<Placed<()>>,
    seat: Option<Seat>,
}

impl Underway {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(placed) = &mut self.placed else { return Poll::Ready(()) };
        ready!(Pin::new(placed).poll(cx));
        self.placed = None;
        Poll::Ready(())
    }

    async fn answer(
        mut self,
        response: Response<WasiBody>,
        deadline: Option<Instant>,
    ) -> Result<Response<ResponseBody>, CallEnd> {
        let Some(seat) = self.seat.take() else { return Err(CallEnd::Host("the call has no seat".into())) };
        let service = seat.service().clone();
        let (head, body) = response.into_parts();
        let mut body = Gathering::new(body);
        let gathered = match &self.placed {
            Some(Placed::Moved(_)) => body.settle(|cx| self.poll(cx)).await,
            _ => {
                let gathered = std::future::poll_fn(|cx| {
                    // The guest writes its body after the head, a piece whenever there is room for one.
                    let mut taken = None;
                    while !body.take()? && self.placed.is_some() && taken != Some(body.frames()) {
                        taken = Some(body.frames());
                        let _ = self.poll(cx);
                    }
                    Poll::Ready(Ok(()))
                });
                gathered.await
            }
        };
        let tail = Tail::Seat { seat, deadline, timer: None };
        match gathered.and_then(|()| body.finish(Some(tail))) {
            Ok(body) => Ok(Response::from_parts(head, body)),
            Err(err) => {
                let cut_off = || CallEnd::Trap(format!("the guest cut its answer off: {err}"));
                Err(service.ended().unwrap_or_else(cut_off))
            }
        }
    }

    fn give_up(&mut self, end: &CallEnd) {
        if let Some(seat) = self.seat.take() {
            seat.give_up(end.clone());
        }
    }
}

impl Drop for Underway {
    /// What is left of a run goes on in a task of its own.
    fn drop(&mut self) {
        if let Some(seat) = self.seat.take() {
            seat.give_up_soon();
        }
        if let Some(placed) = self.placed.take() {
            placed.go_on();
        }
    }
}
