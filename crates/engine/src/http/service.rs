//! An instance of WASI 0.3, which serves several requests at once.
//!
//! ```text
//! parked -> running (calls join) -> parked
//!                                -> ended (a trap, a timeout), and with it every call in it
//! ```
//!
//! While nothing runs in it, its store is parked. The request that comes then takes the store and drives it where it
//! was read, like one of 0.2. Those that come meanwhile join: they leave their call in `arriving`, and are driven
//! along. The store is parked again when no call and no other task of the guest is left in it; all that happens in
//! between is one run, and one call in the sense of the [`Meter`].
//!
//! A single call can't be ended: one that is given up, because of its time or its client, closes the instance, which
//! goes when its other calls are done.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::uri::{Authority, Scheme};
use http::{Request, Response, header};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime::component::{Accessor, Resource};
use wasmtime_wasi_http::p3::{self, bindings as async_http};
use wasmtime_wasi_http::{Error, FieldMap, WasiBody, WasiHttpView};

use super::body::{Gathering, ResponseBody, Tail};
use super::{BoxError, DETACHED_MAX, RequestScheme, body_error};
use crate::call::{CallEnd, CallLimits};
use crate::drive::{Drive, Driven, Placed, first_deadline};
use crate::engine::Engine;
use crate::instance::{CallStart, Finished, Instance, Kind, end_of};
use crate::meter::Meter;
use crate::pace::Pace;
use crate::quiet::Quiet;
use crate::state::State;

/// A guest that has computed for so long when the time of another call is over is what keeps that call waiting.
const HELD_MAX: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Service {
    exports: async_http::Service,
    meter: Arc<Meter>,
    engine: Arc<Engine>,
    /// Of its type's requests.
    pace: Arc<Pace>,
    inner: Mutex<Inner>,
}

struct Inner {
    place: Place,
    /// The run under way, or the last one: a call's number in the meter.
    run: u64,
    /// Calls that have taken part in it.
    run_calls: u32,
    next_call: u64,
    /// Those that the guest may still work on.
    calls: HashMap<u64, Call>,
    /// Those that it hasn't been given yet; they are in `calls` too.
    arriving: VecDeque<Arriving>,
    /// Of whoever drives the run.
    waker: Option<Waker>,
    /// The call that left last, where the guest goes on without any: its seat comes back with the end of the run.
    last: Option<Call>,
    /// Why it takes no more calls, if so.
    closing: Option<CallEnd>,
}

enum Place {
    Parked(Store<State>),
    Running,
    Ended(CallEnd),
}

/// A call, as those see it who wait for it.
struct Call {
    head: Option<oneshot::Sender<Head>>,
    done: Done,
    start: CallStart,
}

struct Arriving {
    call: u64,
    request: Request<WasiBody>,
    scheme: RequestScheme,
}

type Head = Result<Response<WasiBody>, CallEnd>;
type Done = Box<dyn FnOnce(Finished) + Send>;

impl Service {
    pub(crate) fn new(
        store: Store<State>,
        exports: async_http::Service,
        meter: Arc<Meter>,
        engine: Arc<Engine>,
        pace: Arc<Pace>,
    ) -> Arc<Service> {
        let inner = Inner {
            place: Place::Parked(store),
            run: 0,
            run_calls: 0,
            next_call: 1,
            calls: HashMap::new(),
            arriving: VecDeque::new(),
            waker: None,
            last: None,
            closing: None,
        };
        Arc::new(Service { exports, meter, engine, pace, inner: Mutex::new(inner) })
    }

    pub(crate) fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    pub(crate) fn is_open(&self) -> bool {
        let inner = self.lock();
        inner.closing.is_none() && !matches!(inner.place, Place::Ended(_))
    }

    /// [`Instance::call_http`] for such an instance.
    pub(super) async fn call<B, D>(
        self: Arc<Self>,
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
        let (mut underway, mut head) = self.enter(request, scheme, (deadline, limits.cpu), Box::new(done))?;
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
            Ok(response) => underway.answer(response).await,
            Err(end) => {
                underway.give_up(&end);
                Err(end)
            }
        }
    }

    /// Adds a call, and begins a run where there is none.
    fn enter(
        self: &Arc<Self>,
        request: Request<WasiBody>,
        scheme: RequestScheme,
        (deadline, cpu): (Option<Instant>, Option<Duration>),
        done: Done,
    ) -> Result<(Underway, oneshot::Receiver<Head>), CallEnd> {
        let (sender, head) = oneshot::channel();
        let mut inner = self.lock();
        let refused = match &inner.place {
            Place::Ended(end) => Some(end.clone()),
            Place::Parked(_) | Place::Running => inner.closing.clone(),
        };
        let mut start = CallStart { at: Instant::now(), call: inner.run, cpu: self.meter.cpu() };
        if let Some(end) = refused {
            drop(inner);
            done(Finished::ended(start, &self.meter, end.clone()));
            return Err(end);
        }
        let store = match std::mem::replace(&mut inner.place, Place::Running) {
            Place::Parked(store) => Some(store),
            Place::Running | Place::Ended(_) => None,
        };
        match store {
            Some(_) => {
                inner.run = self.meter.begin_call(deadline, cpu);
                inner.run_calls = 0;
            }
            None => {
                self.meter.put_off_deadline(deadline);
                self.meter.add_budget(cpu);
            }
        }
        start.call = inner.run;
        let call = inner.next_call;
        inner.next_call += 1;
        inner.run_calls += 1;
        inner.calls.insert(call, Call { head: Some(sender), done, start });
        inner.arriving.push_back(Arriving { call, request, scheme });
        let last = inner.last.take();
        // One that was left from an earlier run would wake somebody who has nothing to do with this one.
        let waker = inner.waker.take().filter(|_| store.is_none());
        drop(inner);
        if let Some(last) = last {
            self.is_over(last, CallEnd::Returned(()), true);
        }
        if let Some(waker) = waker {
            waker.wake();
        }
        let seat = Seat { service: self.clone(), call, run: start.call };
        let placed = store.map(|store| self.begin_run(store));
        Ok((Underway { placed, seat: Some(seat) }, head))
    }

    fn begin_run(self: &Arc<Self>, mut store: Store<State>) -> Placed<()> {
        store.set_epoch_deadline(first_deadline());
        let run = {
            let service = self.clone();
            let mut run = Box::pin(async move { service.run(store).await });
            let quiet = Quiet::default();
            Box::pin(std::future::poll_fn(move |cx| quiet.poll(run.as_mut(), cx)))
        };
        let drive = Drive::new(run, self.meter.clone(), self.engine.ticker.clone());
        let work = {
            let service = self.clone();
            let cpu = self.meter.cpu();
            Box::pin(async move {
                match drive.await {
                    Driven::Ended(Ok(calls)) => {
                        service.pace.add(service.meter.cpu().saturating_sub(cpu) / calls.max(1));
                    }
                    Driven::Ended(Err(err)) => service.end(end_of(err, &service.meter)),
                    Driven::Cut(cut) => service.end(cut.into()),
                }
            })
        };
        let compute = self.engine.compute();
        match self.pace.is_long() {
            true => Placed::on_compute(work, compute),
            false => Placed::Here { work, meter: self.meter.clone(), compute: compute.clone() },
        }
    }

    /// Serves until the store is parked, or can't be used any more. Returns how many calls there were.
    async fn run(self: &Arc<Self>, mut store: Store<State>) -> wasmtime::Result<u32> {
        loop {
            if let Err(err) = self.serve(&mut store).await {
                // To be said before the store goes.
                self.meter.fail_call();
                return Err(err);
            }
            match self.park(store) {
                Ok(calls) => return Ok(calls),
                Err(back) => store = back,
            }
        }
    }

    /// Answers calls until there are none, and nothing else is left to do in the guest.
    async fn serve(&self, store: &mut Store<State>) -> wasmtime::Result<()> {
        let handle = *self.exports.wasi_http_handler().func_handle().func();
        store
            .run_concurrent(async |accessor| {
                let mut calls = FuturesUnordered::new();
                std::future::poll_fn(|cx| {
                    loop {
                        // The guest may say that it wants no more for now.
                        while accessor.poll_ready_for_concurrent_call(handle, cx).is_ready()
                            && let Some(arriving) = self.next_arriving(cx)
                        {
                            calls.push(self.answer(accessor, arriving));
                        }
                        match calls.poll_next_unpin(cx) {
                            Poll::Ready(Some(Ok(()))) => {}
                            Poll::Ready(Some(Err(err))) => return Poll::Ready(Err(err)),
                            Poll::Ready(None) => return accessor.poll_no_interesting_tasks(cx).map(Ok),
                            Poll::Pending => return Poll::Pending,
                        }
                    }
                })
                .await
            })
            .await?
    }

    fn next_arriving(&self, cx: &Context<'_>) -> Option<Arriving> {
        let mut inner = self.lock();
        let next = inner.arriving.pop_front();
        if next.is_none() {
            inner.waker = Some(cx.waker().clone());
        }
        next
    }

    /// One call in the guest, until there is a head; its body is the guest's affair from then on.
    async fn answer(&self, accessor: &Accessor<State>, arriving: Arriving) -> wasmtime::Result<()> {
        let Arriving { call, request, scheme } = arriving;
        let (request, sent) = accessor.with(|mut access| hand_over(access.get(), request, scheme))?;
        let head = match self.exports.wasi_http_handler().call_handle(accessor, request).await? {
            Ok(response) => accessor.with(|mut access| -> wasmtime::Result<Head> {
                let response = access.get().http().table.delete(response)?;
                Ok(Ok(response.into_http(access, sent)?))
            })?,
            Err(code) => Err(CallEnd::Trap(format!("the guest answered with an error: {code:?}"))),
        };
        let sender = self.lock().calls.get_mut(&call).and_then(|call| call.head.take());
        if let Some(sender) = sender {
            // The client may have gone, and then there is nobody to tell.
            let _ = sender.send(head);
        }
        Ok(())
    }

    /// Ends a run: the guest has done all that it was given. Returns how many calls that was, or the store if more has
    /// come.
    fn park(self: &Arc<Self>, store: Store<State>) -> Result<u32, Store<State>> {
        let mut inner = self.lock();
        if !inner.arriving.is_empty() {
            return Err(store);
        }
        let calls = inner.run_calls;
        // A guest that ran into its limit and coped has fragments of that in its memory.
        let keep = inner.closing.is_none() && !self.meter.memory_refused();
        let end = inner.closing.clone().unwrap_or(CallEnd::Returned(()));
        let over: Vec<Call> = inner.calls.drain().map(|(_, call)| call).collect();
        let last = inner.last.take();
        let spent = match keep {
            true => {
                inner.place = Place::Parked(store);
                None
            }
            false => {
                inner.place = Place::Ended(CallEnd::Interrupted);
                Some(store)
            }
        };
        drop(inner);
        drop(spent);
        for call in over {
            self.is_over(call, CallEnd::Returned(()), keep);
        }
        if let Some(last) = last {
            self.is_over(last, end, keep);
        }
        Ok(calls)
    }

    /// Ends the instance, and every call in it.
    fn end(self: &Arc<Self>, end: CallEnd) {
        let mut inner = self.lock();
        // An interruption has a reason, if it comes from here.
        let end = match (&end, inner.closing.take()) {
            (CallEnd::Interrupted, Some(reason)) => reason,
            _ => end,
        };
        inner.place = Place::Ended(end.clone());
        inner.arriving.clear();
        let calls: Vec<Call> = inner.calls.drain().map(|(_, call)| call).collect();
        let last = inner.last.take();
        drop(inner);
        for mut call in calls.into_iter().chain(last) {
            if let Some(head) = call.head.take() {
                let _ = head.send(Err(end.clone()));
            }
            self.is_over(call, end.clone(), false);
        }
    }

    fn is_over(self: &Arc<Self>, call: Call, end: CallEnd, keep: bool) {
        let instance = keep.then(|| Instance { kind: Kind::Service(self.clone()) });
        (call.done)(Finished { instance, ..Finished::ended(call.start, &self.meter, end) });
    }

    /// A call has its answer. The guest may go on with something else; if no call is left, the seat comes back when it
    /// has finished that.
    fn leave(self: &Arc<Self>, call: u64) {
        let mut inner = self.lock();
        let Some(call) = inner.calls.remove(&call) else { return };
        if inner.calls.is_empty() {
            inner.last = Some(call);
            return;
        }
        drop(inner);
        self.is_over(call, CallEnd::Returned(()), true);
    }

    /// A call won't have its answer, and can't be ended by itself.
    fn give_up(self: &Arc<Self>, call: u64, reason: CallEnd) {
        let mut inner = self.lock();
        inner.arriving.retain(|arriving| arriving.call != call);
        let Some(call) = inner.calls.remove(&call) else { return };
        inner.closing = Some(reason.clone());
        let run = inner.run;
        let alone = inner.calls.is_empty();
        let others = if alone {
            inner.last = Some(call);
            None
        } else {
            Some(call)
        };
        drop(inner);
        if let Some(call) = others {
            self.is_over(call, reason, false);
        }
        if alone || self.meter.held_for() > HELD_MAX {
            self.meter.interrupt_call(run);
        }
    }

    /// Ends what the guest does of its own accord, unless it serves somebody else by now.
    fn end_if_alone(&self, run: u64) {
        let inner = self.lock();
        let alone = inner.run == run && inner.calls.is_empty();
        drop(inner);
        if alone {
            self.meter.interrupt_call(run);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code that runs under the lock panics; were it to, the lists would still be whole.
        self.inner.lock().unwrap_or_else(|poison| poison.into_inner())
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

/// A call's place in its instance.
pub(super) struct Seat {
    service: Arc<Service>,
    call: u64,
    run: u64,
}

impl Seat {
    pub(super) fn has_failed(&self) -> bool {
        self.service.meter.has_failed(self.run)
    }

    /// The answer has come to its end.
    pub(super) fn leave(&self) {
        self.service.leave(self.call);
    }

    /// The client has gone before the end of its answer, which the guest sees when it writes. It goes on for a moment.
    pub(super) fn leave_soon(self) {
        self.service.leave(self.call);
        after_detached(move || self.service.end_if_alone(self.run));
    }

    /// The client has gone before its answer began.
    fn give_up_soon(self) {
        after_detached(move || self.service.give_up(self.call, CallEnd::Interrupted));
    }
}

fn after_detached(act: impl FnOnce() + Send + 'static) {
    match Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn(async move {
            tokio::time::sleep(DETACHED_MAX).await;
            act();
        })),
        Err(_) => act(),
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

    async fn answer(mut self, response: Response<WasiBody>) -> Result<Response<ResponseBody>, CallEnd> {
        let Some(seat) = self.seat.take() else { return Err(CallEnd::Host("the call has no seat".into())) };
        let service = seat.service.clone();
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
        match gathered.and_then(|()| body.finish(Some(Tail::Seat(seat)))) {
            Ok(body) => Ok(Response::from_parts(head, body)),
            Err(err) => Err(match &service.lock().place {
                Place::Ended(end) => end.clone(),
                _ => CallEnd::Trap(format!("the guest cut its answer off: {err}")),
            }),
        }
    }

    fn give_up(&mut self, end: &CallEnd) {
        if let Some(seat) = self.seat.take() {
            seat.service.give_up(seat.call, end.clone());
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
            tokio::spawn(placed);
        }
    }
}
