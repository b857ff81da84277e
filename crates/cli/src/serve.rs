//! The life of a host that serves a plan: load, start, wait until it is told to stop, drain.

use std::io::IsTerminal;

use tokio::runtime::Builder;
use tracing::{info, warn};
use wasmhost_config::shown;
use wasmhost_engine::{Cache, LoadError};
use wasmhost_host::{
    GrantedBy, HandedOver, Host, HostOptions, LogFormat, Output, Plan, Progress, ServedAt, ServiceManager,
    StartError, TelemetrySettings, make_room_for_connections,
};

use crate::cache;
use crate::dev::Dev;
use crate::exit::{Exit, Failed, Outcome};
use crate::memory;
use crate::signals::{Order, Signals};
use crate::table::size;
use crate::threads::Places;

/// Serves a plan until it is told to stop. Meanwhile `dev` follows changes, where it is there.
pub(crate) fn serve(plan: Plan, granted_by: GrantedBy, output: &Output, dev: Option<Dev>) -> Outcome {
    let cache = cache::from_environment()?;
    let telemetry = telemetry()?;
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
    let outcome =
        runtime.block_on(live(plan, cache, granted_by, handed_over, telemetry, output.clone(), dev));
    // A thread may hang in the system, in a read of a disk that doesn't answer, say. Nobody waits for it.
    runtime.shutdown_background();
    outcome
}

/// Where traces and metrics are sent, as the environment says.
fn telemetry() -> Result<TelemetrySettings, Failed> {
    let variable = |name: &str| std::env::var(name).ok();
    let (settings, warnings) =
        TelemetrySettings::read(&variable).map_err(|err| Failed::new(Exit::Usage, err.to_string()))?;
    warnings.iter().for_each(|warning| warn!("{warning}"));
    Ok(settings)
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

async fn live(
    plan: Plan,
    cache: Cache,
    granted_by: GrantedBy,
    handed_over: HandedOver,
    telemetry: TelemetrySettings,
    output: Output,
    dev: Option<Dev>,
) -> Outcome {
    tokio::spawn(memory::give_back());
    let mut signals = Signals::new()?;
    let manager = ServiceManager::from_env();
    let [progress, serving, answering, administering] = [(); 4].map(|()| output.clone());
    let told = manager.clone();
    let options = HostOptions {
        output,
        log_format: LogFormat::detect(),
        cache,
        cache_directory: cache::directory(),
        progress: Box::new(move |now| {
            if let Progress::Done { done, of } = now {
                told.status(&format!("starting: {done} of {of} components are loaded"));
            }
            show_progress(&progress, now);
        }),
        serving: Box::new(move |place| say_place(&serving, "Serving HTTP on", place)),
        answering: Box::new(move |place| say_place(&answering, "Answering probes on", place)),
        administering: Box::new(move |place| say_place(&administering, "Serving the admin API on", place)),
        granted_by,
        handed_over,
        manager: manager.clone(),
        telemetry,
    };
    let host = match Host::start(plan, options, signals.stop()).await {
        Err(StartError::Stopped) => return Ok(Exit::Done),
        started => started.map_err(|err| failed(&err, granted_by))?,
    };
    let (stop_asked, lost) = (host.stop_asked(), host.lost());
    let up = async {
        host.settled().await;
        info!("all instances are up");
        manager.ready();
        std::future::pending().await
    };
    let followed = async {
        if let Some(mut dev) = dev {
            dev.follow(&host).await;
        }
        std::future::pending().await
    };
    let stop_ordered = async {
        loop {
            match signals.order().await {
                Order::Stop => return,
                order => order.give(&host),
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = followed => {}
        () = stop_ordered => {}
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

fn say_place(output: &Output, what: &str, place: &ServedAt) {
    let place = place.to_string();
    output.own().put(format!("{what} {}\n", shown::one_line(&place, shown::MESSAGE_BYTES_MAX)));
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
        StartError::Load { err: LoadError::NoCompiler(_), .. } => Exit::NotStarted,
        StartError::Load { .. } => Exit::Component,
        StartError::TooMany(_) => Exit::Usage,
        StartError::Engine(_)
        | StartError::StateDir(_)
        | StartError::Store { .. }
        | StartError::NotJoined(_)
        | StartError::Listen { .. }
        | StartError::ListenApart { .. }
        | StartError::Admin(_)
        | StartError::ListenTwice { .. }
        | StartError::Certificates(_)
        | StartError::Lost(_)
        | StartError::Stopped
        | StartError::Release(_)
        | StartError::Io(_) => Exit::NotStarted,
    }
}

/// On a terminal one line that is written over again, otherwise a line for each component that takes long.
fn show_progress(output: &Output, progress: Progress<'_>) {
    let is_terminal = std::io::stderr().is_terminal();
    match progress {
        Progress::Done { done, of } if is_terminal => output.own().put(match done == of {
            true => "\r\x1b[K".to_owned(),
            false => format!("\rcompiling components: {done} of {of}"),
        }),
        Progress::Slow { process, bytes } if !is_terminal => {
            info!("compiling {process} ({}), which takes a while the first time", size(bytes));
        }
        Progress::SlowDone { process, bytes, took } if !is_terminal => {
            info!("compiled {process} ({}) in {:.1} s", size(bytes), took.as_secs_f64());
        }
        _ => {}
    }
}
