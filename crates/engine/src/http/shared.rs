//! Requests to an instance that serves several at once, as WASI 0.3 has them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use wasmtime_wasi_http::WasiBody;

use super::body::{BoxError, Gathering, ResponseBody, Tail, body_error};
use crate::call::{CallEnd, CallLimits, RequestScheme};
use crate::calls::drive::Placed;
use crate::calls::over::Over;
use crate::calls::service::{Seat, Service, Terms, Work};

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
    D: FnOnce(Over<Arc<Service>>) + Send + 'static,
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
