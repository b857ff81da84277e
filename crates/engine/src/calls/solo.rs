//! An instance that serves one call at a time: a job, a tick, a run of `main`. Requests are in [`crate::http`].
//!
//! A call takes the instance and gives it back in [`Over`], unless the call has ended it.

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use wasmtime::Store;
use wasmtime_wasi::p2::bindings::Command;
use wasmtime_wasi::p3::bindings as async_cli;
use wasmtime_wasi_http::p2::bindings::Proxy;

use super::drive::{Drive, Driven, Placed, first_deadline};
use super::guest::{failure_from_guest, job_to_guest, tick_to_guest};
use super::history::TypeHistory;
use super::module;
use super::over::{CallStart, Over, end_of};
use crate::bindings::{ticker, worker};
use crate::call::{CallEnd, CallLimits, DETACHED_MAX, Job, JobFailure, Tick};
use crate::capability::state::{Input, State};
use crate::engine::Engine;
use crate::sandbox::meter::Meter;
use crate::services::Trace;
use crate::threads::compute::Lane;

/// An instance that serves one call at a time: whoever has it may call it.
pub(crate) struct Solo {
    pub(crate) store: Store<State>,
    pub(crate) entry: Entry,
    pub(crate) meter: Arc<Meter>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) history: Arc<TypeHistory>,
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

/// The exit code that buries a job: EX_DATAERR of sysexits.h.
const EXIT_BURY: i32 = 65;

impl Entry {
    fn is_command(&self) -> bool {
        matches!(self, Entry::Command(_) | Entry::AsyncCommand(_) | Entry::Core(_))
    }
}

impl Solo {
    pub(crate) async fn call_job(
        self,
        job: Job,
        limits: CallLimits,
        trace: Trace,
    ) -> Over<Solo, Result<(), JobFailure>> {
        if self.entry.is_command() {
            let mut env = vec![
                ("WASMHOST_JOB_ID".to_owned(), job.id),
                ("WASMHOST_JOB_QUEUE".to_owned(), job.queue),
                ("WASMHOST_JOB_ATTEMPT".to_owned(), job.attempt.to_string()),
            ];
            env.extend(trace.iter().flat_map(|trace| trace.variables()));
            let meter = self.meter.clone();
            let run = self.run_main(Input { stdin: job.payload, env }, limits, trace).await;
            return run.map_exit(|code| match code {
                0 => Ok(()),
                EXIT_BURY => Err(JobFailure::Bury(exited_with(code, &meter))),
                code => Err(JobFailure::Retry(exited_with(code, &meter))),
            });
        }
        let finished = self.on_compute(limits, trace, move |instance| {
            Box::pin(async move {
                let Entry::Job(worker) = &instance.entry else { return Err(wrong_entry("jobs")) };
                let handler = worker.wasmhost_job_handler();
                handler.call_handle(&mut instance.store, &job_to_guest(job)).await
            })
        });
        finished.await.map(|answer| answer.map_err(failure_from_guest))
    }

    pub(crate) async fn call_tick(
        self,
        tick: Tick,
        limits: CallLimits,
        trace: Trace,
    ) -> Over<Solo, Result<(), String>> {
        if self.entry.is_command() {
            let mut env = vec![("WASMHOST_TICK_MS".to_owned(), tick.nominal_ms.to_string())];
            env.extend(trace.iter().flat_map(|trace| trace.variables()));
            let meter = self.meter.clone();
            let run = self.run_main(Input { stdin: vec![], env }, limits, trace).await;
            return run.map_exit(|code| match code {
                0 => Ok(()),
                code => Err(exited_with(code, &meter)),
            });
        }
        let finished = self.on_compute(limits, trace, move |instance| {
            Box::pin(async move {
                let Entry::Tick(ticker) = &instance.entry else { return Err(wrong_entry("ticks")) };
                let handler = ticker.wasmhost_clock_handler();
                handler.call_handle(&mut instance.store, &tick_to_guest(tick)).await
            })
        });
        finished.await
    }

    pub(crate) async fn run_main(
        mut self,
        input: Input,
        limits: CallLimits,
        trace: Trace,
    ) -> Over<Solo, i32> {
        let start = self.begin(limits, trace);
        // Without any input it sees what it was started with.
        let unchanged = input.stdin.is_empty() && input.env.is_empty();
        if !unchanged {
            self.store.data_mut().give(input);
        }
        let runs_on =
            if self.store.data().sandbox.program.is_some() { RunsOn::Here } else { RunsOn::Compute };
        let finished = self.drive(runs_on, start, |instance| {
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
        Over { instance: None, ..finished.await }
    }

    /// Every call begins with this.
    pub(crate) fn begin(&mut self, limits: CallLimits, trace: Trace) -> CallStart {
        self.store.set_epoch_deadline(first_deadline());
        self.store.data_mut().go_on_in(trace);
        let start = Instant::now();
        let call = self.meter.begin_call(limits.deadline(start), limits.cpu);
        CallStart { at: start, call, cpu: self.meter.cpu() }
    }

    /// Runs `call` on the compute threads: jobs, ticks and commands are expected to take their time.
    fn on_compute<T, F>(mut self, limits: CallLimits, trace: Trace, call: F) -> Placed<Over<Solo, T>>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Solo) -> BoxFuture<'a, wasmtime::Result<T>> + Send + 'static,
    {
        let start = self.begin(limits, trace);
        self.drive(RunsOn::Compute, start, call)
    }

    fn drive<T, F>(self, runs_on: RunsOn, start: CallStart, call: F) -> Placed<Over<Solo, T>>
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
        match runs_on {
            RunsOn::Compute => Placed::on_compute(work, &lane),
            RunsOn::Here => Placed::Alone(Box::pin(work)),
        }
    }
}

/// Where a call that takes its time is run.
#[derive(Debug, Clone, Copy)]
enum RunsOn {
    /// On the compute threads, whose priority is low.
    Compute,
    /// On the thread that made the call: a program that a person runs has nobody to give way to.
    Here,
}

/// Makes the report of a call that has ended, and decides whether the instance may take another.
pub(crate) fn finish<T>(
    driven: Driven<(Solo, wasmtime::Result<T>)>,
    start: CallStart,
    meter: &Meter,
) -> Over<Solo, T> {
    match driven {
        Driven::Ended((instance, Ok(answer))) => {
            instance.store.data().end_lines();
            // A guest that ran into its limit and coped has fragments of that in its memory: a fresh one is better.
            let instance = Some(instance).filter(|_| !meter.memory_refused());
            Over { instance, ..Over::ended(start, meter, CallEnd::Returned(answer)) }
        }
        Driven::Ended((instance, Err(err))) => {
            meter.fail_call();
            drop(instance);
            Over::ended(start, meter, end_of(err, meter))
        }
        Driven::Cut(cut) => Over::ended(start, meter, cut.into()),
    }
}

/// With what a program that fails says on standard error.
fn exited_with(code: i32, meter: &Meter) -> String {
    let words = meter.last_words();
    let before = if words.is_empty() { "" } else { "\n" };
    format!("exited with code {code}{before}{words}")
}

pub(crate) fn wrong_entry(what: &str) -> wasmtime::Error {
    wasmtime::Error::msg(format!("this instance was not loaded for {what}"))
}

/// Ends a call that nobody waits for, after a second.
pub(crate) fn end_soon(meter: &Arc<Meter>, call: u64) {
    let Ok(runtime) = Handle::try_current() else {
        return meter.interrupt_call(call);
    };
    let meter = meter.clone();
    runtime.spawn(async move {
        tokio::time::sleep(DETACHED_MAX).await;
        meter.interrupt_call(call);
    });
}
