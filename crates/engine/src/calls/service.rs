//! An instance of WASI 0.3, which serves several calls at once: requests, jobs or ticks.
//!
//! While nothing runs in it, its store is parked. The call that comes then takes the store and drives it: a request
//! where it was read, like one of 0.2, others on the compute threads. Calls that come meanwhile join: they are driven
//! along. The store is parked again when no call and no other task of the guest is left in it. All that happens in
//! between is one run, and one call in the sense of the [`Meter`]. Who is in the instance, and why it ends: [`lists`].
//!
//! A guest may say that it takes no more calls for now. If nothing is left in it that could take that back, the instance
//! ends, and calls that wait are refused.
//!
//! [`lists`]: super::lists

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::task::yield_now;
use tracing::warn;
use wasmtime::Store;
use wasmtime::component::{Accessor, Func};
use wasmtime_wasi_http::p3::bindings as async_http;

use super::drive::{Drive, Driven, Placed, first_deadline};
use super::exchange::Exchange;
use super::guest::{failure_from_guest, job_to_guest, tick_to_guest};
use super::history::TypeHistory;
use super::lists::{Ended, GivenUp, Left, Lists, Parked};
use super::over::{CallStart, Over, end_of};
use super::request::{answer_request, call_in};
use super::work::{Given, GivenCall, Reply, Work};
use crate::bindings::{async_ticker, async_worker};
use crate::call::{CallEnd, Deadline};
use crate::capability::state::State;
use crate::engine::Engine;
use crate::sandbox::meter::Meter;
use crate::threads::compute::Lane;
use crate::threads::quiet::Quiet;

/// A guest that has computed for so long when the time of another call is over is what keeps that call waiting.
const HELD_MAX: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Service {
    exports: Exports,
    meter: Arc<Meter>,
    engine: Arc<Engine>,
    history: Arc<TypeHistory>,
    lane: Lane,
    inner: Mutex<Inner>,
}

/// Where its calls go.
pub(crate) enum Exports {
    Http(async_http::Service),
    Job(async_worker::AsyncWorker),
    Tick(async_ticker::AsyncTicker),
}

struct Inner {
    lists: Lists<Call, Given>,
    /// While nothing runs in it.
    parked: Option<Store<State>>,
    /// Wakes the task that drives the run.
    waker: Option<Waker>,
}

/// A call, for those who wait for it.
struct Call {
    reply: Reply,
    done: Done,
    start: CallStart,
}

/// Is told that a call is over.
pub(crate) type Done = Box<dyn FnOnce(Over<Arc<Service>>) + Send>;

/// How a call may be limited, and where it begins.
pub(crate) struct Terms {
    pub(crate) deadline: Option<Deadline>,
    pub(crate) cpu: Option<Duration>,
    /// Its run, should it begin one, is expected to be long: it begins on the compute threads.
    pub(crate) long: bool,
}

/// A call that is in the instance.
pub(super) struct Entered {
    pub(super) call: u64,
    pub(super) run: u64,
    /// The run that it has begun, which the caller polls, or lets go on by itself.
    pub(super) begun: Option<Placed<()>>,
}

impl Exports {
    /// The function that each call calls.
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
        history: Arc<TypeHistory>,
        lane: Lane,
    ) -> Arc<Service> {
        let inner = Inner { lists: Lists::default(), parked: Some(store), waker: None };
        Arc::new(Service { exports, meter, engine, history, lane, inner: Mutex::new(inner) })
    }

    pub(crate) fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    pub(crate) fn lane(&self) -> &Lane {
        &self.lane
    }

    pub(crate) fn is_open(&self) -> bool {
        self.lock().lists.refusal().is_none()
    }

    // --- a run

    /// Adds a call, and begins a run where there is none. If the call is refused, `done` and the reply have been told.
    pub(super) fn enter(self: &Arc<Self>, work: Work, terms: Terms, done: Done) -> Result<Entered, CallEnd> {
        let Work { given, reply } = work;
        let Terms { deadline, cpu, long } = terms;
        let mut start = CallStart { at: Instant::now(), call: 0, cpu: self.meter.cpu() };
        let mut inner = self.lock();
        if let Some(why) = inner.lists.refusal() {
            let end = refused(why);
            drop(inner);
            self.is_over(Call { reply, done, start }, end.clone(), false);
            return Err(end);
        }
        let store = inner.parked.take();
        match store {
            Some(_) => {
                let run = self.meter.begin_call(deadline, cpu);
                inner.lists.begin_run(run);
            }
            None => {
                self.meter.put_off_deadline(deadline);
                self.meter.add_budget(cpu);
            }
        }
        let run = inner.lists.run();
        start.call = run;
        let entered = inner.lists.enter(Call { reply, done, start }, given);
        // A waker that was left from an earlier run would wake a task that has nothing to do with this one.
        let waker = inner.waker.take().filter(|_| store.is_none());
        drop(inner);
        if let Some(over) = entered.over {
            self.is_over(over, CallEnd::Returned(()), true);
        }
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(Entered { call: entered.call, run, begun: store.map(|store| self.begin_run(store, long)) })
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
                let driven = drive.await;
                service.history.note(&service.meter);
                match driven {
                    Driven::Ended(Ok(calls)) => {
                        let cpu = service.meter.cpu().saturating_sub(cpu);
                        service.history.pace.add(cpu / calls.max(1));
                    }
                    Driven::Ended(Err(err)) => service.end(end_of(err, &service.meter)),
                    Driven::Cut(cut) => service.end(cut.into()),
                }
            })
        };
        match long || self.history.pace.is_long() {
            true => Placed::on_compute(work, &self.lane),
            false => Placed::Here { work, meter: self.meter.clone(), lane: self.lane.clone() },
        }
    }

    /// Serves until the store is parked, or can't be used any more. Returns how many calls there were.
    async fn run(self: &Arc<Self>, mut store: Store<State>) -> wasmtime::Result<u32> {
        // Declared after the store, and so dropped before it.
        let mut answers = Answers { service: self, are_closed: false };
        loop {
            let ready = match self.serve(&mut store).await {
                Ok(ready) => ready,
                Err(err) => {
                    // To be said before the store goes.
                    self.meter.fail_call();
                    return Err(err);
                }
            };
            store.data_mut().end_run();
            match self.park(store, ready) {
                Ok(calls) => {
                    answers.are_closed = true;
                    return Ok(calls);
                }
                Err(back) => store = back,
            }
            // More calls have come in the meantime. However many come, others get this thread in between.
            yield_now().await;
        }
    }

    /// Answers calls until there are none that the guest takes, and nothing else is left to do in the guest. Returns
    /// whether the guest would take a call now.
    async fn serve(&self, store: &mut Store<State>) -> wasmtime::Result<bool> {
        let handle = self.exports.handle();
        store
            .run_concurrent(async |accessor| {
                let mut calls = FuturesUnordered::new();
                poll_fn(|cx| {
                    // One call at a time: once it runs it may say that the guest takes no others, which would then be
                    // in the guest, and never begun. This is polled again as soon as it runs.
                    let mut has_given = false;
                    loop {
                        let ready = accessor.poll_ready_for_concurrent_call(handle, cx).is_ready();
                        if ready
                            && !has_given
                            && let Some((call, given)) = self.next_arriving(cx)
                        {
                            has_given = true;
                            calls.push(self.answer(accessor, call, given));
                        }
                        match ready!(calls.poll_next_unpin(cx)) {
                            Some(Ok(())) => {}
                            Some(Err(err)) => return Poll::Ready(Err(err)),
                            None => return accessor.poll_no_interesting_tasks(cx).map(|()| Ok(ready)),
                        }
                    }
                })
                .await
            })
            .await?
    }

    fn next_arriving(&self, cx: &Context<'_>) -> Option<(u64, Given)> {
        let mut inner = self.lock();
        let next = inner.lists.next();
        inner.waker = Some(cx.waker().clone());
        next
    }

    /// One call in the guest, until there is an answer. The guest may go on after that.
    async fn answer(&self, accessor: &Accessor<State>, call: u64, given: Given) -> wasmtime::Result<()> {
        let Given { call: given, trace } = given;
        match (&self.exports, given) {
            (Exports::Http(service), GivenCall::Request(request, scheme)) => {
                let answer = answer_request(service, accessor, request, scheme, trace).await?;
                if let Some(exchange) = self.exchange(call) {
                    exchange.answer(answer);
                }
            }
            (Exports::Job(worker), GivenCall::Job(job)) => {
                let handle = worker.wasmhost_job_async_handler().func_handle();
                let answer = call_in(accessor, handle, job_to_guest(job), trace).await?;
                if let Some(Reply::Job(reply)) = self.take_reply(call) {
                    // The caller may have gone, and then there is nobody to tell.
                    let _ = reply.send(Ok(answer.map_err(failure_from_guest)));
                }
            }
            (Exports::Tick(ticker), GivenCall::Tick(tick)) => {
                let handle = ticker.wasmhost_clock_async_handler().func_handle();
                let answer = call_in(accessor, handle, tick_to_guest(tick), trace).await?;
                if let Some(Reply::Tick(reply)) = self.take_reply(call) {
                    let _ = reply.send(Ok(answer));
                }
            }
            _ => wasmtime::bail!("this instance was not loaded for such calls"),
        }
        Ok(())
    }

    fn exchange(&self, call: u64) -> Option<Arc<Exchange>> {
        self.lock().lists.get_mut(call).and_then(|call| call.reply.exchange().cloned())
    }

    fn take_reply(&self, call: u64) -> Option<Reply> {
        self.lock().lists.get_mut(call).map(|call| std::mem::replace(&mut call.reply, Reply::Given))
    }

    /// Ends a run: the guest has nothing more to do. Returns how many calls took part in it, or the store if more have
    /// come that the guest takes.
    fn park(self: &Arc<Self>, store: Store<State>, ready: bool) -> Result<u32, Store<State>> {
        let mut inner = self.lock();
        // A guest that ran into its limit and coped has fragments of that in its memory.
        let usable = !self.meter.memory_refused();
        let was_called = inner.lists.was_called();
        let Some(parked) = inner.lists.park(ready, usable) else { return Err(store) };
        let Parked { keep, calls, over, refused } = parked;
        let spent = match keep {
            true => {
                inner.parked = Some(store);
                None
            }
            false => Some(store),
        };
        drop(inner);
        if !ready && self.history.is_first_not_ready() {
            let instance = spent.as_ref().map(|store| store.data().name.to_string()).unwrap_or_default();
            warn!(
                instance,
                "the guest has set backpressure and has nothing left to do, so that it would never take another call: the instance is replaced (said once for each type)"
            );
        }
        // Before their store goes: a body that its guest left unfinished has come to its end.
        for (call, end) in over {
            self.is_over(call, end, keep);
        }
        drop(spent);
        for call in refused {
            self.is_over(call, not_ready(was_called), false);
        }
        Ok(calls)
    }

    /// Ends the instance, and every call in it.
    fn end(self: &Arc<Self>, end: CallEnd) {
        let Ended { begun, unseen, end } = self.lock().lists.end(end);
        for call in unseen {
            self.is_over(call, refused(&end), false);
        }
        for call in begun {
            self.is_over(call, end.clone(), false);
        }
    }

    fn is_over(self: &Arc<Self>, call: Call, end: CallEnd, keep: bool) {
        let Call { reply, done, start } = call;
        if end == CallEnd::Returned(())
            && let Some(exchange) = reply.exchange()
        {
            exchange.close();
        }
        reply.end(end.clone());
        let instance = keep.then(|| self.clone());
        done(Over { instance, ..Over::ended(start, &self.meter, end) });
    }

    // --- what callers say of their calls

    /// A call has its answer. The guest may go on with something else. If no call is left, the seat comes back when the
    /// guest has finished that. Returns whether nothing but given-up calls and such work is left.
    pub(super) fn leave(self: &Arc<Self>, call: u64) -> bool {
        let left = self.lock().lists.leave(call);
        match left {
            Left::WasOver | Left::Last => false,
            Left::Over { call, keep, alone } => {
                self.is_over(call, CallEnd::Returned(()), keep);
                alone
            }
        }
    }

    /// A call won't have its answer, and can't be ended by itself.
    pub(super) fn give_up(self: &Arc<Self>, call: u64, reason: CallEnd) {
        let mut inner = self.lock();
        let given_up = inner.lists.give_up(call, &reason);
        let run = inner.lists.run();
        drop(inner);
        let alone = match given_up {
            GivenUp::WasOver => return,
            GivenUp::Last => true,
            GivenUp::Others(call) => {
                self.is_over(call, reason, false);
                false
            }
        };
        if alone || self.meter.held_for() > HELD_MAX {
            self.meter.interrupt_call(run);
        }
    }

    /// Ends what the guest does of its own accord, unless it serves somebody else by now.
    pub(super) fn end_if_alone(&self, run: u64) {
        let alone = self.lock().lists.is_alone(run);
        if alone {
            self.meter.interrupt_call(run);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code that runs under the lock panics; were it to, the lists would still be whole.
        self.inner.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

/// The end of a call that the guest hasn't seen, in an instance that takes no more.
fn refused(why: &CallEnd) -> CallEnd {
    CallEnd::Refused(format!("was not begun, since its instance was ending: another call {}", why.summary()))
}

/// The same where the guest has said so. A guest that never takes a call is broken.
fn not_ready(was_called: bool) -> CallEnd {
    let why = "the guest has set backpressure, and has nothing left to do that could clear it";
    match was_called {
        true => CallEnd::Refused(format!("was not begun: {why}")),
        false => CallEnd::Trap(why.into()),
    }
}

/// The answers of a run. If it's dropped while the guest still works on them, the guest has failed.
struct Answers<'a> {
    service: &'a Service,
    are_closed: bool,
}

impl Drop for Answers<'_> {
    fn drop(&mut self) {
        if self.are_closed {
            return;
        }
        let open: Vec<_> = {
            let inner = self.service.lock();
            inner.lists.iter().filter_map(|call| call.reply.exchange().cloned()).collect()
        };
        open.iter().for_each(|exchange| exchange.break_off());
    }
}
