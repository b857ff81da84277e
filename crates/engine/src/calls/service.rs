//! An instance of WASI 0.3, which serves several calls at once: requests, jobs or ticks.
//!
//! ```text
//! parked -> running (calls join) -> parked
//!                                -> ended (a trap, a timeout), and with it every call in it
//! ```
//!
//! While nothing runs in it, its store is parked. The call that comes then takes the store and drives it: a request
//! where it was read, like one of 0.2, others on the compute threads. Those that come meanwhile join: they leave
//! their call in `arriving`, and are driven along. The store is parked again when no call and no other task of the guest is left in it; all that happens in
//! between is one run, and one call in the sense of the [`Meter`].
//!
//! A single call can't be ended: one that is given up, because of its time or its client, closes the instance, which
//! goes when its other calls are done.

use std::collections::{HashMap, VecDeque};
use std::future::{pending, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{Request, Response};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime::component::{Accessor, Func};
use wasmtime_wasi_http::WasiBody;
use wasmtime_wasi_http::p3::bindings as async_http;

use super::drive::{Drive, Driven, Placed, first_deadline};
use super::guest::{failure_from_guest, job_to_guest, tick_to_guest};
use super::over::{CallStart, Over, end_of};
use super::request::answer_request;
use crate::bindings::{async_ticker, async_worker};
use crate::call::{CallEnd, CallLimits, CallReport, DETACHED_MAX, Job, JobFailure, RequestScheme, Tick};
use crate::capability::state::State;
use crate::engine::Engine;
use crate::sandbox::meter::Meter;
use crate::threads::compute::Lane;
use crate::threads::pace::Pace;
use crate::threads::quiet::Quiet;

/// A guest that has computed for so long when the time of another call is over is what keeps that call waiting.
const HELD_MAX: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Service {
    exports: Exports,
    meter: Arc<Meter>,
    engine: Arc<Engine>,
    /// Of its type's requests.
    pace: Arc<Pace>,
    lane: Lane,
    inner: Mutex<Inner>,
}

/// Where its calls go.
pub(crate) enum Exports {
    Http(async_http::Service),
    Job(async_worker::AsyncWorker),
    Tick(async_ticker::AsyncTicker),
}

/// What a call brings, and where its answer goes.
pub(crate) struct Work {
    given: Given,
    reply: Reply,
}

enum Given {
    Request(Request<WasiBody>, RequestScheme),
    Job(Job),
    Tick(Tick),
}

/// Who waits for an answer. There is one of these for each kind of call.
enum Reply {
    Head(oneshot::Sender<Answer<Response<WasiBody>>>),
    Job(oneshot::Sender<Answer<Result<(), JobFailure>>>),
    Tick(oneshot::Sender<Answer<Result<(), String>>>),
}

/// What the guest said, or why it said nothing.
pub(crate) type Answer<T> = Result<T, CallEnd>;

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
    /// Until it has been answered.
    reply: Option<Reply>,
    done: Done,
    start: CallStart,
}

struct Arriving {
    call: u64,
    given: Given,
}

type Done = Box<dyn FnOnce(Over<Arc<Service>>) + Send>;

/// How a call may be limited, and where it begins.
pub(crate) struct Terms {
    pub(crate) deadline: Option<Instant>,
    pub(crate) cpu: Option<Duration>,
    /// Its run, should it begin one, is expected to be long: it begins on the compute threads.
    pub(crate) long: bool,
}

impl Work {
    pub(crate) fn request(
        request: Request<WasiBody>,
        scheme: RequestScheme,
    ) -> (Work, oneshot::Receiver<Answer<Response<WasiBody>>>) {
        let (reply, answer) = oneshot::channel();
        (Work { given: Given::Request(request, scheme), reply: Reply::Head(reply) }, answer)
    }

    fn job(job: Job) -> (Work, oneshot::Receiver<Answer<Result<(), JobFailure>>>) {
        let (reply, answer) = oneshot::channel();
        (Work { given: Given::Job(job), reply: Reply::Job(reply) }, answer)
    }

    fn tick(tick: Tick) -> (Work, oneshot::Receiver<Answer<Result<(), String>>>) {
        let (reply, answer) = oneshot::channel();
        (Work { given: Given::Tick(tick), reply: Reply::Tick(reply) }, answer)
    }
}

impl Reply {
    /// The call has ended without an answer. Whoever waited may have gone, and then there is nobody to tell.
    fn fail(self, end: CallEnd) {
        match self {
            Reply::Head(reply) => drop(reply.send(Err(end))),
            Reply::Job(reply) => drop(reply.send(Err(end))),
            Reply::Tick(reply) => drop(reply.send(Err(end))),
        }
    }
}

impl Exports {
    /// What each call calls.
    fn handle(&self) -> Func {
        match self {
            Exports::Http(service) => *service.wasi_http_handler().func_handle().func(),
            Exports::Job(worker) => *worker.wasmhost_job_async_handler().func_handle().func(),
            Exports::Tick(ticker) => *ticker.wasmhost_clock_async_handler().func_handle().func(),
        }
    }
}

impl Service {
    pub(crate) fn new(
        store: Store<State>,
        exports: Exports,
        meter: Arc<Meter>,
        engine: Arc<Engine>,
        pace: Arc<Pace>,
        lane: Lane,
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
        Arc::new(Service { exports, meter, engine, pace, lane, inner: Mutex::new(inner) })
    }

    pub(crate) fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    pub(crate) fn lane(&self) -> &Lane {
        &self.lane
    }

    pub(crate) fn is_open(&self) -> bool {
        let inner = self.lock();
        inner.closing.is_none() && !matches!(inner.place, Place::Ended(_))
    }

    /// Does one job, beside others.
    pub(crate) async fn call_job(
        self: Arc<Self>,
        job: Job,
        limits: CallLimits,
        stop: impl Future<Output = ()>,
    ) -> Over<Arc<Service>, Result<(), JobFailure>> {
        let (work, answer) = Work::job(job);
        self.call_on_compute(work, answer, limits, stop).await
    }

    /// Serves one tick, beside others.
    pub(crate) async fn call_tick(
        self: Arc<Self>,
        tick: Tick,
        limits: CallLimits,
    ) -> Over<Arc<Service>, Result<(), String>> {
        let (work, answer) = Work::tick(tick);
        self.call_on_compute(work, answer, limits, pending()).await
    }

    /// A call whose answer is all that it gives. It is over when the guest has nothing else to do, for which it has a
    /// moment, unless others are under way: then they have the instance.
    async fn call_on_compute<T>(
        self: Arc<Self>,
        work: Work,
        answer: oneshot::Receiver<Answer<T>>,
        limits: CallLimits,
        stop: impl Future<Output = ()>,
    ) -> Over<Arc<Service>, T> {
        let (over, mut is_over) = oneshot::channel();
        let done = Box::new(move |finished| drop(over.send(finished)));
        let deadline = limits.deadline(Instant::now());
        let terms = Terms { deadline, cpu: limits.cpu, long: true };
        let entered = self.enter(work, terms, done);
        let guard = match entered {
            // What was begun goes on by itself.
            Ok((_running, seat)) => Some(Abandoned(Some(seat))),
            Err(_) => None,
        };
        let late = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => pending().await,
            }
        };
        let answer = tokio::select! {
            answer = answer => answer.unwrap_or_else(|_| Err(CallEnd::Host("the call was dropped".into()))),
            () = late => Err(CallEnd::Timeout),
            () = stop => Err(CallEnd::Interrupted),
        };
        let seat = guard.and_then(Abandoned::keep);
        match (&seat, &answer) {
            (Some(seat), Ok(_)) => seat.leave(),
            (Some(seat), Err(end)) => seat.give_up(end.clone()),
            (None, _) => {}
        }
        let end = match answer {
            Ok(answer) => CallEnd::Returned(answer),
            Err(end) => end.without_answer(),
        };
        let over = match tokio::time::timeout(DETACHED_MAX, &mut is_over).await {
            Ok(over) => over,
            Err(_) => {
                if let Some(seat) = &seat {
                    self.end_if_alone(seat.run);
                }
                is_over.await
            }
        };
        match over {
            Ok(Over { instance, report: CallReport { wall, cpu, memory_peak, .. } }) => {
                Over { instance, report: CallReport { end, wall, cpu, memory_peak } }
            }
            Err(_) => {
                let start = CallStart { at: Instant::now(), call: 0, cpu: self.meter.cpu() };
                Over::ended(start, &self.meter, end)
            }
        }
    }

    /// Adds a call, and begins a run where there is none. Where it refuses, `done` and the reply have been told.
    pub(crate) fn enter(
        self: &Arc<Self>,
        work: Work,
        terms: Terms,
        done: Done,
    ) -> Result<(Option<Placed<()>>, Seat), CallEnd> {
        let Work { given, reply } = work;
        let Terms { deadline, cpu, long } = terms;
        let mut inner = self.lock();
        let refused = match &inner.place {
            Place::Ended(end) => Some(end.clone()),
            Place::Parked(_) | Place::Running => inner.closing.clone(),
        };
        let mut start = CallStart { at: Instant::now(), call: inner.run, cpu: self.meter.cpu() };
        if let Some(end) = refused {
            drop(inner);
            done(Over::ended(start, &self.meter, end.clone()));
            reply.fail(end.clone());
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
        inner.calls.insert(call, Call { reply: Some(reply), done, start });
        inner.arriving.push_back(Arriving { call, given });
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
        Ok((store.map(|store| self.begin_run(store, long)), seat))
    }

    fn begin_run(self: &Arc<Self>, mut store: Store<State>, long: bool) -> Placed<()> {
        store.set_epoch_deadline(first_deadline());
        let run = {
            let service = self.clone();
            let mut run = Box::pin(async move { service.run(store).await });
            let quiet = Quiet::default();
            Box::pin(poll_fn(move |cx| quiet.poll(run.as_mut(), cx)))
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
        match long || self.pace.is_long() {
            true => Placed::on_compute(work, &self.lane),
            false => Placed::Here { work, meter: self.meter.clone(), lane: self.lane.clone() },
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
            store.data().end_lines();
            match self.park(store) {
                Ok(calls) => return Ok(calls),
                Err(back) => store = back,
            }
        }
    }

    /// Answers calls until there are none, and nothing else is left to do in the guest.
    async fn serve(&self, store: &mut Store<State>) -> wasmtime::Result<()> {
        let handle = self.exports.handle();
        store
            .run_concurrent(async |accessor| {
                let mut calls = FuturesUnordered::new();
                poll_fn(|cx| {
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

    /// One call in the guest, until there is an answer; what the guest does after that is its own affair.
    async fn answer(&self, accessor: &Accessor<State>, arriving: Arriving) -> wasmtime::Result<()> {
        let Arriving { call, given } = arriving;
        match (&self.exports, given) {
            (Exports::Http(service), Given::Request(request, scheme)) => {
                let head = answer_request(service, accessor, request, scheme).await?;
                if let Some(Reply::Head(reply)) = self.take_reply(call) {
                    // The client may have gone, and then there is nobody to tell.
                    let _ = reply.send(head);
                }
            }
            (Exports::Job(worker), Given::Job(job)) => {
                let handler = worker.wasmhost_job_async_handler();
                let answer = handler.call_handle(accessor, job_to_guest(job)).await?;
                if let Some(Reply::Job(reply)) = self.take_reply(call) {
                    let _ = reply.send(Ok(answer.map_err(failure_from_guest)));
                }
            }
            (Exports::Tick(ticker), Given::Tick(tick)) => {
                let handler = ticker.wasmhost_clock_async_handler();
                let answer = handler.call_handle(accessor, tick_to_guest(tick)).await?;
                if let Some(Reply::Tick(reply)) = self.take_reply(call) {
                    let _ = reply.send(Ok(answer));
                }
            }
            _ => wasmtime::bail!("this instance was not loaded for such calls"),
        }
        Ok(())
    }

    fn take_reply(&self, call: u64) -> Option<Reply> {
        self.lock().calls.get_mut(&call).and_then(|call| call.reply.take())
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
            if let Some(reply) = call.reply.take() {
                reply.fail(end.clone());
            }
            self.is_over(call, end.clone(), false);
        }
    }

    fn is_over(self: &Arc<Self>, call: Call, end: CallEnd, keep: bool) {
        let instance = keep.then(|| self.clone());
        (call.done)(Over { instance, ..Over::ended(call.start, &self.meter, end) });
    }

    /// A call has its answer. The guest may go on with something else; if no call is left, the seat comes back when it
    /// has finished that.
    fn leave(self: &Arc<Self>, call: u64) {
        let mut inner = self.lock();
        let Some(call) = inner.calls.remove(&call) else { return };
        let (alone, closing, run) = (inner.calls.is_empty(), inner.closing.is_some(), inner.run);
        if alone && !closing {
            inner.last = Some(call);
            return;
        }
        drop(inner);
        self.is_over(call, CallEnd::Returned(()), !closing);
        if alone {
            // All that is left is what was given up, and what the others do after their answers.
            let this = self.clone();
            after_detached(move || this.end_if_alone(run));
        }
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

    /// Why it has ended, if it has.
    pub(crate) fn ended(&self) -> Option<CallEnd> {
        match &self.lock().place {
            Place::Ended(end) => Some(end.clone()),
            Place::Parked(_) | Place::Running => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code that runs under the lock panics; were it to, the lists would still be whole.
        self.inner.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

/// A call's place in its instance.
pub(crate) struct Seat {
    service: Arc<Service>,
    call: u64,
    run: u64,
}

impl Seat {
    pub(crate) fn has_failed(&self) -> bool {
        self.service.meter.has_failed(self.run)
    }

    /// The answer has come to its end.
    pub(crate) fn leave(&self) {
        self.service.leave(self.call);
    }

    /// The client has gone before the end of its answer, which the guest sees when it writes. It goes on for a moment.
    pub(crate) fn leave_soon(self) {
        self.service.leave(self.call);
        after_detached(move || self.service.end_if_alone(self.run));
    }

    /// It won't have its answer.
    pub(crate) fn give_up(&self, reason: CallEnd) {
        self.service.give_up(self.call, reason);
    }

    pub(crate) fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// The client has gone before its answer began.
    pub(crate) fn give_up_soon(self) {
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

/// Gives a call up whose caller has gone.
struct Abandoned(Option<Seat>);

impl Abandoned {
    fn keep(mut self) -> Option<Seat> {
        self.0.take()
    }
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        if let Some(seat) = self.0.take() {
            seat.give_up(CallEnd::Interrupted);
        }
    }
}
