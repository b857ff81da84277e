//! `wasmhost run`: load, start, run until told, drain.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;
use tracing_subscriber::EnvFilter;
use wasmhost_engine::Cache;
use wasmhost_host::{Host, HostOptions, LogFormat, Plan, StartError};

use crate::cache;
use crate::check::{formation_file, plan};
use crate::exit::{Exit, Failed, Outcome};

pub(crate) fn run(file: Option<PathBuf>) -> Outcome {
    log_to_stderr();
    let plan = plan(&formation_file(file))?;
    let cache = cache::from_environment()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("wasmhost-io")
        .on_thread_start(wasmhost_engine::Engine::prepare_thread)
        .build()?;
    runtime.block_on(runtime.spawn(live(plan, cache))).map_err(|err| Failed::new(Exit::Failed, err))?
}

async fn live(plan: Plan, cache: Cache) -> Outcome {
    let mut signals = Signals::new()?;
    let options = HostOptions { log_format: LogFormat::detect(), cache, progress: Box::new(show_progress) };
    let host = tokio::select! {
        started = Host::start(plan, options) => started.map_err(|err| Failed::new(exit_of(&err), err))?,
        () = signals.stop() => return Ok(Exit::Done),
    };
    if let Some(address) = host.http() {
        anstream::eprintln!("Serving HTTP on http://{address}/");
    }
    let stop_asked = host.stop_asked();
    tokio::select! {
        () = async { host.settled().await; info!("all instances are up"); std::future::pending().await } => {}
        () = signals.stop() => {}
        () = stop_asked => {}
    }
    let stopped = host.drain(signals.hurry()).await;
    Ok(if stopped.cut_off == 0 { Exit::Done } else { Exit::CutOff })
}

fn exit_of(err: &StartError) -> Exit {
    match err {
        StartError::Load { .. } => Exit::Component,
        StartError::TooMany(_) => Exit::Usage,
        StartError::Engine(_)
        | StartError::StateDir(_)
        | StartError::Store { .. }
        | StartError::Listen { .. }
        | StartError::Release(_)
        | StartError::Io(_) => Exit::NotStarted,
    }
}

/// The signals that a host listens to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// The terminal has gone.
    hang_up: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the first one that says stop.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }

    /// Waits for a second Ctrl-C.
    async fn hurry(&mut self) {
        self.interrupt.recv().await;
    }
}

/// One line that is written over again, and only where a person sees it.
fn show_progress(done: usize, of: usize) {
    let mut err = std::io::stderr().lock();
    if err.is_terminal() {
        let end = if done == of { "\r\x1b[K" } else { "" };
        let text = if done == of { String::new() } else { format!("\rcompiling components: {done} of {of}") };
        // A terminal that has gone away is no reason not to start.
        let _ = write!(err, "{text}{end}").and_then(|()| err.flush());
    }
}

/// The host's own lines: for people on a terminal, otherwise one JSON object each.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("WASMHOST_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match std::io::stderr().is_terminal() {
        true => builder.compact().init(),
        false => builder.json().flatten_event(true).init(),
    }
}
