//! `wasmhost run`: load, start, run until told, drain.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;
use tracing_subscriber::EnvFilter;
use wasmhost_engine::Cache;
use wasmhost_host::{
    GrantedBy, HandedOver, Host, HostOptions, LogFormat, Plan, ServedAt, StartError,
    make_room_for_connections,
};

use crate::app;
use crate::args::Run;
use crate::cache;
use crate::check::{formation_file, plan};
use crate::exit::{Exit, Failed, Outcome};
use crate::threads::Places;

pub(crate) fn run(run: Run, file: Option<PathBuf>) -> Outcome {
    let file = formation_file(run.file.or(file));
    if app::is_app(&file) {
        return app::run(&file, run.app);
    }
    if let Some(flag) = run.app.first() {
        let file = file.display();
        return Err(Failed::new(
            Exit::Usage,
            format!("{flag} is for an app (a .wasm file), and {file} is a formation: write it there"),
        ));
    }
    log_to_stderr();
    serve(plan(&file)?, GrantedBy::Formation)
}

/// Serves a plan until it is told to stop.
pub(crate) fn serve(plan: Plan, granted_by: GrantedBy) -> Outcome {
    let cache = cache::from_environment()?;
    let handed_over = HandedOver::from_env();
    use_small_pages();
    // Before there are threads.
    make_room_for_connections(&plan);
    let places = Places::new();
    let begin_thread = {
        let places = places.clone();
        move || places.begin_thread()
    };
    let mut runtime = runtime();
    let runtime = runtime.worker_threads(places.io_threads()).on_thread_start(begin_thread).build()?;
    places.wait();
    // Not on a thread of the runtime: see `threads`.
    runtime.block_on(live(plan, cache, granted_by, handed_over))
}

/// Keeps the system from backing memory by huge pages. Where it does so for all, as on Debian, each instance would take
/// one of 2 MiB as it first touches its memory: 2.1 GB for a thousand instances of 30 KiB.
#[cfg(target_os = "linux")]
fn use_small_pages() {
    // A system that can't be told has none, or will have them.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

#[cfg(not(target_os = "linux"))]
fn use_small_pages() {}

pub(crate) fn runtime() -> Builder {
    let mut runtime = Builder::new_multi_thread();
    runtime.enable_all().thread_name("wasmhost-io");
    runtime
}

async fn live(plan: Plan, cache: Cache, granted_by: GrantedBy, handed_over: HandedOver) -> Outcome {
    let mut signals = Signals::new()?;
    let options = HostOptions {
        log_format: LogFormat::detect(),
        cache,
        progress: Box::new(show_progress),
        serving: Box::new(show_address),
        granted_by,
        handed_over,
    };
    let host = tokio::select! {
        started = Host::start(plan, options) => started.map_err(|err| failed(&err, granted_by))?,
        () = signals.stop() => return Ok(Exit::Done),
    };
    let (stop_asked, lost) = (host.stop_asked(), host.lost());
    tokio::select! {
        () = async { host.settled().await; info!("all instances are up"); std::future::pending().await } => {}
        () = signals.stop() => {}
        () = stop_asked => {}
        _ = lost => {}
    }
    let stopped = host.drain(signals.hurry()).await;
    match stopped.lost {
        Some(lost) => Err(Failed::new(Exit::Failed, lost)),
        None if stopped.cut_off > 0 => Ok(Exit::CutOff),
        None => Ok(Exit::Done),
    }
}

fn failed(err: &StartError, granted_by: GrantedBy) -> Failed {
    let message = match (err, granted_by) {
        (StartError::Listen { listen, err }, GrantedBy::Flags) => {
            format!(
                "can't listen on {listen}: {err}; --listen takes another address, or port 0 for any free one"
            )
        }
        (StartError::Load { component, err, .. }, GrantedBy::Flags) => format!("{component} {err}"),
        _ => err.to_string(),
    };
    Failed::new(exit_of(err), message)
}

pub(crate) fn exit_of(err: &StartError) -> Exit {
    match err {
        StartError::Load { .. } => Exit::Component,
        StartError::TooMany(_) => Exit::Usage,
        StartError::Engine(_)
        | StartError::StateDir(_)
        | StartError::Store { .. }
        | StartError::Listen { .. }
        | StartError::Certificates(_)
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

fn show_address(place: &ServedAt) {
    anstream::eprintln!("Serving HTTP on {place}");
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

/// What is logged where `WASMHOST_LOG` doesn't say. The library for `wasi:http` has a line for whatever a client or a
/// server breaks off, without saying whose request that was.
const LOGGED: &str = "info,wasmtime_wasi_http=error";

/// The host's own lines: for people on a terminal, otherwise one JSON object each.
pub(crate) fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("WASMHOST_LOG").unwrap_or_else(|_| EnvFilter::new(LOGGED));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match std::io::stderr().is_terminal() {
        true => builder.compact().init(),
        false => builder.json().flatten_event(true).init(),
    }
}
