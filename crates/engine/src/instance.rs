//! One live sandbox, and the calls it serves: a job, a tick, a run of `main`. Requests are in [`crate::http`].
//!
//! A call takes the instance and gives it back in [`Finished`], unless the call has ended it.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use wasmtime::{Store, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::p2::bindings::Command;
use wasmtime_wasi::p3::bindings as async_cli;
use wasmtime_wasi_http::p2::bindings::Proxy;

use crate::bindings::{ticker, worker};
use crate::call::{CallEnd, CallLimits, CallReport, Job, JobFailure, Tick};
use crate::compute::Lane;
use crate::drive::{Cut, Drive, Driven, Placed, first_deadline};
use crate::engine::Engine;
use crate::meter::Meter;
use crate::module;
use crate::pace::Pace;
use crate::service::Service;
use crate::state::{Input, State};

/// A live sandbox. Dropping it frees its memories and its slot.
pub struct Instance {
    pub(crate) kind: Kind,
}

pub(crate) enum Kind {
    /// Serves one call at a time.
    Solo(Solo),
    /// Serves several calls at once.
    Service(Arc<Service>),
}

/// An instance that serves one call at a time: whoever has it may call it.
pub(crate) struct Solo {
    pub(crate) store: Store<State>,
    pub(crate) entry: Entry,
    pub(crate) meter: Arc<Meter>,
    pub(crate) engine: Arc<Engine>,
    /// Of its type's requests.
    pub(crate) pace: Arc<Pace>,
    pub(crate) lane: Lane,
}

/// The exports that calls of a [`Solo`] go to.
pub(crate) enum Entry {
    Http(Proxy),
    Job(worker::Worker),
    Tick(ticker::Ticker),
    Command(Command),
    AsyncCommand(async_cli::Command),
    /// A core module; `_start` is its `main`.
    Core(wasmtime::Instance),
}

/// A call that is over.
pub struct Finished<T = ()> {
    /// The instance, if it can take another call.
    pub instance: Option<Instance>,
    /// What is known about the call.
    pub report: CallReport<T>,
}

/// Giving back this much memory takes milliseconds.
const LARGE_BYTES: u64 = 16 << 20;

/// The exit code that buries a job: EX_DATAERR of sysexits.h.
const EXIT_BURY: i32 = 65;

impl Instance {
    /// What it uses, and the way to interrupt it. Outlives the instance.
    pub fn meter(&self) -> &Arc<Meter> {
        match &self.kind {
            Kind::Solo(solo) => &solo.meter,
            Kind::Service(service) => service.meter(),
        }
    }

    /// Another handle on it, for a call beside those that run in it; none where it serves one at a time. The type's
    /// `concurrency` is for the caller to heed.
    pub fn share(&self) -> Option<Instance> {
        match &self.kind {
            Kind::Solo(_) => None,
            Kind::Service(service) => Some(Instance { kind: Kind::Service(service.clone()) }),
        }
    }

    /// Whether it would take another call now: one that shares its instance with others may have ended with them.
    pub fn is_open(&self) -> bool {
        match &self.kind {
            Kind::Solo(_) => true,
            Kind::Service(service) => service.is_open(),
        }
    }

    /// Whether to free it takes longer than a thread that serves requests should be held.
    pub fn is_large(&self) -> bool {
        self.meter().memory() >= LARGE_BYTES
    }

    /// Frees what it has, on another thread where that takes long.
    pub async fn discard(self) {
        if !self.is_large() {
            return;
        }
        let lane = match &self.kind {
            Kind::Solo(solo) => solo.lane.clone(),
            Kind::Service(service) => service.lane().clone(),
        };
        // An error says that the compute threads are going, and the host with them.
        let _ = lane.spawn(async move { drop(self) }).await;
    }

    /// Does one job, until it is done, or `stop` is: then the call is interrupted. A command gets the payload as its
    /// standard input; exit code 0 is done, 65 buries.
    pub async fn call_job(
        self,
        job: Job,
        limits: CallLimits,
        stop: impl Future<Output = ()>,
    ) -> Finished<Result<(), JobFailure>> {
        match self.kind {
            Kind::Service(service) => service.call_job(job, limits, stop).await,
            Kind::Solo(solo) => {
                let meter = solo.meter.clone();
                let mut call = pin!(solo.call_job(job, limits));
                tokio::select! {
                    finished = &mut call => return finished,
                    () = stop => meter.interrupt(),
                }
                call.await
            }
        }
    }

    /// Serves one tick. The error is the guest's own; of a command, that it exited with another code than 0.
    pub async fn call_tick(self, tick: Tick, limits: CallLimits) -> Finished<Result<(), String>> {
        match self.kind {
            Kind::Service(service) => service.call_tick(tick, limits).await,
            Kind::Solo(solo) => solo.call_tick(tick, limits).await,
        }
    }

    /// Runs `main`, which answers with its exit code. The instance can't run it again.
    pub async fn call_command(self, limits: CallLimits) -> Finished<i32> {
        match self.kind {
            Kind::Solo(solo) => solo.run_main(Input::default(), limits).await.map_exit(|code| code),
            Kind::Service(service) => {
                let start = CallStart { at: Instant::now(), call: 0, cpu: service.meter().cpu() };
                let end = CallEnd::Host(wrong_entry("runs").to_string());
                Finished::ended(start, service.meter(), end)
            }
        }
    }
}

impl Entry {
    fn is_command(&self) -> bool {
        matches!(self, Entry::Command(_) | Entry::AsyncCommand(_) | Entry::Core(_))
    }
}

impl Solo {
    async fn call_job(self, job: Job, limits: CallLimits) -> Finished<Result<(), JobFailure>> {
        if self.entry.is_command() {
            let env = vec![
                ("WASMHOST_JOB_ID".to_owned(), job.id),
                ("WASMHOST_JOB_QUEUE".to_owned(), job.queue),
                ("WASMHOST_JOB_ATTEMPT".to_owned(), job.attempt.to_string()),
            ];
            let meter = self.meter.clone();
            let run = self.run_main(Input { stdin: job.payload, env }, limits).await;
            return run.map_exit(|code| match code {
                0 => Ok(()),
                EXIT_BURY => Err(JobFailure::Bury(exited_with(code, &meter))),
                code => Err(JobFailure::Retry(exited_with(code, &meter))),
            });
        }
        let finished = self.on_compute(limits, move |instance| {
            Box::pin(async move {
                let Entry::Job(worker) = &instance.entry else { return Err(wrong_entry("jobs")) };
                let handler = worker.wasmhost_job_handler();
                handler.call_handle(&mut instance.store, &job_to_guest(job)).await
            })
        });
        finished.await.map(|answer| answer.map_err(failure_from_guest))
    }

    async fn call_tick(self, tick: Tick, limits: CallLimits) -> Finished<Result<(), String>> {
        if self.entry.is_command() {
            let env = vec![("WASMHOST_TICK_MS".to_owned(), tick.nominal_ms.to_string())];
            let meter = self.meter.clone();
            let run = self.run_main(Input { stdin: vec![], env }, limits).await;
            return run.map_exit(|code| match code {
                0 => Ok(()),
                code => Err(exited_with(code, &meter)),
            });
        }
        let finished = self.on_compute(limits, move |instance| {
            Box::pin(async move {
                let Entry::Tick(ticker) = &instance.entry else { return Err(wrong_entry("ticks")) };
                let handler = ticker.wasmhost_clock_handler();
                handler.call_handle(&mut instance.store, &tick_to_guest(tick)).await
            })
        });
        finished.await
    }

    async fn run_main(mut self, input: Input, limits: CallLimits) -> Finished<i32> {
        let start = self.begin(limits);
        // Without any input it sees what it was started with.
        let unchanged = input.stdin.is_empty() && input.env.is_empty();
        if !unchanged && let Err(err) = self.store.data_mut().give(input) {
            return Finished::ended(start, &self.meter, CallEnd::Host(format!("{err:#}")));
        }
        let place = if self.store.data().sandbox.program.is_some() { Place::Here } else { Place::Compute };
        let finished = self.drive(place, start, |instance| {
            Box::pin(async move {
                let returned = match &instance.entry {
                    Entry::Command(command) => command.wasi_cli_run().call_run(&mut instance.store).await?,
                    Entry::AsyncCommand(command) => {
                        let run = instance
                            .store
                            .run_concurrent(async |store| command.wasi_cli_run().call_run(store).await);
                        run.await??
                    }
                    Entry::Core(main) => {
                        module::run(main, &mut instance.store).await?;
                        Ok(())
                    }
                    _ => return Err(wrong_entry("runs")),
                };
                Ok(if returned.is_ok() { 0 } else { 1 })
            })
        });
        Finished { instance: None, ..finished.await }
    }

    /// What every call begins with.
    pub(crate) fn begin(&mut self, limits: CallLimits) -> CallStart {
        self.store.set_epoch_deadline(first_deadline());
        let start = Instant::now();
        let call = self.meter.begin_call(limits.deadline(start), limits.cpu);
        CallStart { at: start, call, cpu: self.meter.cpu() }
    }

    /// Runs `call` on the compute threads: jobs, ticks and commands are expected to take their time.
    fn on_compute<T, F>(mut self, limits: CallLimits, call: F) -> Placed<Finished<T>>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Solo) -> BoxFuture<'a, wasmtime::Result<T>> + Send + 'static,
    {
        let start = self.begin(limits);
        self.drive(Place::Compute, start, call)
    }

    fn drive<T, F>(self, place: Place, start: CallStart, call: F) -> Placed<Finished<T>>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Solo) -> BoxFuture<'a, wasmtime::Result<T>> + Send + 'static,
    {
        let meter = self.meter.clone();
        let ticker = self.engine.ticker.clone();
        let lane = self.lane.clone();
        let mut instance = self;
        let work = Box::pin(async move {
            let result = call(&mut instance).await;
            (instance, result)
        });
        let drive = Drive::new(work, meter.clone(), ticker);
        let work = async move { finish(drive.await, start, &meter) };
        match place {
            Place::Compute => Placed::on_compute(work, &lane),
            Place::Here => Placed::Alone(Box::pin(work)),
        }
    }
}

/// Where a call that takes its time is run.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// On the compute threads, whose priority is low.
    Compute,
    /// Where it was called: a program that a person runs has nobody to give way to.
    Here,
}

/// When a call began, and what the meter said then.
#[derive(Clone, Copy)]
pub(crate) struct CallStart {
    pub(crate) at: Instant,
    pub(crate) call: u64,
    pub(crate) cpu: Duration,
}

/// Turns what came of a call into its report, and decides whether the instance may take another.
pub(crate) fn finish<T>(
    driven: Driven<(Solo, wasmtime::Result<T>)>,
    start: CallStart,
    meter: &Meter,
) -> Finished<T> {
    match driven {
        Driven::Ended((instance, Ok(answer))) => {
            // A guest that ran into its limit and coped has fragments of that in its memory: a fresh one is better.
            let instance = Some(Instance { kind: Kind::Solo(instance) }).filter(|_| !meter.memory_refused());
            Finished { instance, ..Finished::ended(start, meter, CallEnd::Returned(answer)) }
        }
        Driven::Ended((instance, Err(err))) => {
            meter.fail_call();
            drop(instance);
            Finished::ended(start, meter, end_of(err, meter))
        }
        Driven::Cut(cut) => Finished::ended(start, meter, cut.into()),
    }
}

/// Reads wasmtime's error.
pub(crate) fn end_of<T>(err: wasmtime::Error, meter: &Meter) -> CallEnd<T> {
    if let Some(cut) = err.downcast_ref::<Cut>() {
        return cut.clone().into();
    }
    if let Some(I32Exit(code)) = err.downcast_ref::<I32Exit>() {
        return CallEnd::Exited(*code);
    }
    if meter.memory_refused() {
        return CallEnd::OutOfMemory;
    }
    let reason = match err.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        None => err.root_cause().to_string(),
    };
    match err.downcast_ref::<WasmBacktrace>() {
        Some(backtrace) => CallEnd::Trap(format!("{reason}\n{}", backtrace.to_string().trim_end())),
        None => CallEnd::Trap(reason),
    }
}

impl<T> Finished<T> {
    pub(crate) fn ended(start: CallStart, meter: &Meter, end: CallEnd<T>) -> Self {
        let report = CallReport {
            end,
            wall: start.at.elapsed(),
            cpu: meter.cpu().saturating_sub(start.cpu),
            memory_peak: meter.memory_peak(),
        };
        Finished { instance: None, report }
    }

    /// The same with another answer.
    fn map<U>(self, answer: impl FnOnce(T) -> U) -> Finished<U> {
        let CallReport { end, wall, cpu, memory_peak } = self.report;
        let report = CallReport { end: end.map(answer), wall, cpu, memory_peak };
        Finished { instance: self.instance, report }
    }
}

impl Finished<i32> {
    /// Takes an exit code, however the guest said it, for its answer.
    fn map_exit<U>(mut self, answer: impl FnOnce(i32) -> U) -> Finished<U> {
        if let CallEnd::Exited(code) = self.report.end {
            self.report.end = CallEnd::Returned(code);
        }
        self.map(answer)
    }
}

/// With what a program that fails says on standard error.
fn exited_with(code: i32, meter: &Meter) -> String {
    let words = meter.last_words();
    let before = if words.is_empty() { "" } else { "\n" };
    format!("exited with code {code}{before}{words}")
}

fn wrong_entry(what: &str) -> wasmtime::Error {
    wasmtime::Error::msg(format!("this instance was not loaded for {what}"))
}

pub(crate) fn job_to_guest(job: Job) -> worker::wasmhost::job::types::Job {
    worker::wasmhost::job::types::Job {
        id: job.id,
        queue: job.queue,
        attempt: job.attempt,
        attempts: job.attempts,
        content_type: job.content_type,
        payload: job.payload,
        metadata: job.metadata,
    }
}

pub(crate) fn failure_from_guest(failure: worker::wasmhost::job::types::Failure) -> JobFailure {
    use worker::wasmhost::job::types::Failure;
    match failure {
        Failure::Retry(message) => JobFailure::Retry(message),
        Failure::RetryAfter((ms, message)) => JobFailure::RetryAfter(Duration::from_millis(ms), message),
        Failure::Bury(message) => JobFailure::Bury(message),
    }
}

pub(crate) fn tick_to_guest(tick: Tick) -> ticker::wasmhost::clock::types::Tick {
    ticker::wasmhost::clock::types::Tick {
        schedule: tick.schedule,
        nominal_ms: tick.nominal_ms,
        manual: tick.manual,
    }
}
