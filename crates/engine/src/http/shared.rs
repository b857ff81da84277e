//! Requests to an instance that serves several at once, as WASI 0.3 has them.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::response::Parts;
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use wasmtime_wasi_http::Error;

use super::body::{BoxError, ResponseBody, body_error};
use super::gathering::{Broken, Gathering, broken_by, has_body, is_head};
use super::tail::Tail;
use crate::call::{CallEnd, CallLimits, Deadline, RequestScheme};
use crate::calls::drive::Placed;
use crate::calls::exchange::Exchange;
use crate::calls::over::Over;
use crate::calls::seat::Seat;
use crate::calls::service::{Service, Terms};
use crate::calls::work::Work;
use crate::sandbox::meter::Meter;
use crate::services::Trace;

/// [`crate::Instance::call_http`] for such an instance.
pub(super) async fn call<B, D>(
    service: Arc<Service>,
    request: Request<B>,
    scheme: RequestScheme,
    limits: CallLimits,
    trace: Trace,
    done: D,
) -> Result<Response<ResponseBody>, CallEnd>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    D: FnOnce(Over<Arc<Service>>) + Send + 'static,
{
    let exchange = Arc::<Exchange>::default();
    let is_head = is_head(&request);
    let request = request.map(|body| body.map_err(body_error).boxed_unsync());
    let deadline = limits.deadline(Instant::now());
    let terms = Terms { deadline, cpu: limits.cpu, long: false };
    let work = Work::request(request, scheme, trace, exchange.clone());
    let (placed, seat) = Seat::take(&service, work, terms, Box::new(done))?;
    let mut call = SeatedCall { placed, exchange, seat: Some(seat) };
    let mut timer = None;
    let head = poll_fn(|cx| {
        let _ = call.poll(cx);
        match call.exchange.poll_head(cx) {
            // The instance has ended by its deadline, which may be this call's: its time is over, too.
            Poll::Ready(Err(refused @ CallEnd::Refused(_))) => {
                let overdue = deadline.filter(Deadline::is_past);
                let end = overdue.map_or(refused, |deadline| CallEnd::Timeout(deadline.spent()));
                return Poll::Ready(Err(end));
            }
            Poll::Ready(head) => return Poll::Ready(head),
            Poll::Pending => {}
        }
        // From outside: while one guest computes, nothing that waits in its store is looked at.
        let Some(deadline) = deadline else { return Poll::Pending };
        let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.at.into())));
        timer.as_mut().poll(cx).map(|()| Err(CallEnd::Timeout(deadline.spent())))
    });
    match head.await {
        Ok(head) => call.answer(head, is_head, limits.timeout).await,
        Err(end) => {
            call.end(&end);
            Err(end)
        }
    }
}

/// A call that is polled by its request's task, with the run that it began, if it did.
struct SeatedCall {
    placed: Option<Placed<()>>,
    exchange: Arc<Exchange>,
    seat: Option<Seat>,
}

impl SeatedCall {
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
        let Some(seat) = &self.seat else { return Err(CallEnd::Host("the call has no seat".into())) };
        let meter = seat.service().meter().clone();
        let finished = match self.gather(&mut body, &meter).await {
            Ok(()) => body.finish(self.seat.take().map(|seat| Tail::seat(seat, timeout))),
            // The seat is still the call's, and is given up below.
            Err(err) => Err(err),
        };
        match finished {
            Ok(body) => Ok(Response::from_parts(head, body)),
            Err(err) => {
                let Broken { end, guest_lives } = broken_by(&self.exchange, &err).await;
                match guest_lives {
                    // So do the other calls in it.
                    true => self.seat.take().iter().for_each(Seat::leave),
                    false => self.end(&end),
                }
                Err(end)
            }
        }
    }

    /// Takes what is there of the body, and what comes while the guest computes.
    async fn gather(&mut self, body: &mut Gathering, meter: &Meter) -> Result<(), Error> {
        let mut whole = body.take()?;
        if !self.placed.as_ref().is_some_and(Placed::has_moved) {
            let polled = poll_fn(|cx| {
                // The guest writes its body after the head, a piece whenever there is room for one.
                let mut taken = None;
                while !whole && self.placed.is_some() && taken != Some(body.frames()) {
                    taken = Some(body.frames());
                    let _ = self.poll(cx);
                    whole = body.take()?;
                }
                Poll::Ready(Ok::<_, Error>(()))
            });
            polled.await?;
        }
        if whole || !self.placed.as_ref().is_some_and(Placed::has_moved) && !meter.is_computing() {
            return Ok(());
        }
        let driven_elsewhere = self.placed.is_none();
        body.settle(meter, |cx| if driven_elsewhere { Poll::Pending } else { self.poll(cx) }).await
    }

    /// There is no answer.
    fn end(&mut self, end: &CallEnd) {
        let Some(seat) = self.seat.take() else { return };
        match end {
            // The guest has said what it had to say.
            CallEnd::ErrorCode(_) => seat.leave(),
            end => seat.give_up(end.clone()),
        }
    }
}

impl Drop for SeatedCall {
    /// The rest of a run goes on in a task of its own.
    fn drop(&mut self) {
        if let Some(seat) = self.seat.take() {
            seat.give_up_soon();
        }
        if let Some(placed) = self.placed.take() {
            placed.go_on();
        }
    }
}
