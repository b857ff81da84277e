//! The host's own lines: which of them are written, and how they look. They go through the host's [`Output`], so that
//! no line is waited for, and to its [`HostLog`], which keeps the last of them.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use wasmhost_host::{HostLog, Output, Source};

use crate::exit::{Exit, Failed, Outcome};
use crate::host_line::{HostLine, Said, has_colour};

/// This program's own crates: what they log is for those who run it.
const OWN: &str = "wasmhost";

/// Lines of libraries in a window, as far as nobody asked for them: what clients do can bring about some of them.
const LIBRARY_LINES_MAX: u32 = 20;
const LIBRARY_WINDOW: Duration = Duration::from_secs(60);

/// How long the streams may take at the end for what still waits.
const LAST_LINES_MAX: Duration = Duration::from_secs(1);

/// Runs a host that serves. Its lines are for people on a terminal, otherwise one JSON object each.
pub(crate) fn with(serve: impl FnOnce(&Output) -> Outcome) -> Outcome {
    let look = match std::io::stderr().is_terminal() {
        true => Look::Text { time: true, colour: has_colour() },
        false => Look::Json,
    };
    until_the_end(start(Level::INFO, look)?, serve)
}

/// Runs a program, which has the streams to itself: what it was refused is told, and no more.
pub(crate) fn with_program(run: impl FnOnce() -> Outcome) -> Outcome {
    let look = Look::Text { time: false, colour: std::io::stderr().is_terminal() && has_colour() };
    until_the_end(start(Level::WARN, look)?, |_| run())
}

fn until_the_end(output: Output, run: impl FnOnce(&Output) -> Outcome) -> Outcome {
    let outcome = run(&output);
    output.close(LAST_LINES_MAX);
    outcome
}

fn start(level: Level, look: Look) -> Result<Output, Failed> {
    let variable = std::env::var_os("WASMHOST_LOG").unwrap_or_default();
    let wanted = Wanted::read(&variable.to_string_lossy(), level)
        .map_err(|problem| Failed::new(Exit::Usage, format!("WASMHOST_LOG: {problem}")))?;
    let output = Output::start()?;
    let few = wanted.libraries_are_few.then(|| Mutex::new(Window::new()));
    let lines = HostLines { out: output.own().clone(), log: output.host_log().clone(), look, few };
    tracing_subscriber::registry().with(lines.with_filter(wanted.targets)).init();
    // A fault of this program is told as everything else is, also where nobody reads standard error.
    std::panic::set_hook(Box::new(|panic| tracing::error!("this is a fault of wasmhost: {panic}")));
    Ok(output)
}

/// Which lines are written.
struct Wanted {
    targets: Targets,
    libraries_are_few: bool,
}

impl Wanted {
    /// Reads `WASMHOST_LOG`. Libraries say with `error` whatever is wanted of the host, up to `debug`, which is for those
    /// who look for a fault.
    fn read(variable: &str, default: Level) -> Result<Wanted, String> {
        let mut wanted = Wanted { targets: Targets::new(), libraries_are_few: true };
        let mut own: LevelFilter = default.into();
        let mut rest = LevelFilter::ERROR;
        for directive in variable.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
            match directive.split_once('=') {
                None => {
                    own = level(directive)?;
                    rest = if own > LevelFilter::INFO { own } else { own.min(LevelFilter::ERROR) };
                }
                Some((target, wanted_of_it)) if is_target(target) => {
                    wanted.targets = wanted.targets.with_target(target, level(wanted_of_it)?);
                    wanted.libraries_are_few &= target.starts_with(OWN);
                }
                Some((target, _)) => return Err(not_understood(target)),
            }
        }
        wanted.libraries_are_few &= rest <= LevelFilter::ERROR;
        let named = std::mem::take(&mut wanted.targets);
        wanted.targets = Targets::new().with_default(rest).with_target(OWN, own).with_targets(named);
        Ok(wanted)
    }
}

fn level(text: &str) -> Result<LevelFilter, String> {
    match text.to_ascii_lowercase().as_str() {
        "off" => Ok(LevelFilter::OFF),
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err(not_understood(text)),
    }
}

fn not_understood(found: &str) -> String {
    format!(
        "found \"{found}\", expected off, error, warn, info, debug or trace; or several, each for a part, such as `info,wasmhost_store=debug`"
    )
}

fn is_target(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

/// How a line looks.
#[derive(Clone, Copy)]
enum Look {
    /// `2026-11-21T05:10:12.402Z  INFO text name="value"`, or without the time.
    Text { time: bool, colour: bool },
    /// `{"time":"2026-11-21T05:10:12.402Z","level":"INFO","message":"text","name":"value"}`
    Json,
}

/// Takes what the host logs.
struct HostLines {
    out: Source,
    log: Arc<HostLog>,
    look: Look,
    /// Set where lines of libraries are to be few.
    few: Option<Mutex<Window>>,
}

struct Window {
    begun: Instant,
    lines: u32,
    left_out: u64,
}

impl<S: Subscriber> Layer<S> for HostLines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        if !self.has_room(event.metadata()) {
            return;
        }
        let mut said = Said::default();
        event.record(&mut said);
        self.write(*event.metadata().level(), said);
    }
}

impl HostLines {
    fn write(&self, level: Level, said: Said) {
        let now = jiff::Timestamp::now();
        let line = HostLine { time: format!("{now:.3}"), level, said };
        let mut json = String::new();
        line.json(&mut json);
        let mut text = String::new();
        match self.look {
            Look::Json => text.push_str(&json),
            Look::Text { time: true, colour } => line.text(colour, &mut text),
            Look::Text { time: false, colour } => line.said.text(level, colour, &mut text),
        }
        text.push('\n');
        self.log.keep(wasmhost_host::HostLine { time: line.time, level, json });
        self.out.put(text);
    }

    /// Whether there may be a line of this origin. The count of those that may not is told with the first one that may.
    fn has_room(&self, metadata: &Metadata<'_>) -> bool {
        let Some(few) = self.few.as_ref().filter(|_| !metadata.target().starts_with(OWN)) else {
            return true;
        };
        let mut window = few.lock().unwrap_or_else(|poison| poison.into_inner());
        if window.begun.elapsed() >= LIBRARY_WINDOW {
            let left_out = std::mem::replace(&mut *window, Window::new()).left_out;
            if left_out > 0 {
                let message = format!("{left_out} more lines of libraries within a minute were left out");
                self.write(Level::WARN, Said { message, fields: vec![] });
            }
        }
        let has_room = window.lines < LIBRARY_LINES_MAX;
        match has_room {
            true => window.lines += 1,
            false => window.left_out += 1,
        }
        has_room
    }
}

impl Window {
    fn new() -> Window {
        Window { begun: Instant::now(), lines: 0, left_out: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_wanted(variable: &str, target: &str, level: Level) -> bool {
        Wanted::read(variable, Level::INFO).unwrap().targets.would_enable(target, &level)
    }

    #[test]
    fn a_level_is_for_the_host_and_debug_is_for_everything() {
        for variable in ["", " ", "info", "INFO", "info,"] {
            assert!(is_wanted(variable, "wasmhost_host::pool", Level::INFO), "{variable:?}");
            assert!(!is_wanted(variable, "wasmhost_host::pool", Level::DEBUG), "{variable:?}");
            assert!(!is_wanted(variable, "h2::proto", Level::WARN), "{variable:?}");
            assert!(is_wanted(variable, "h2::proto", Level::ERROR), "{variable:?}");
        }
        assert!(is_wanted("debug", "h2::proto", Level::DEBUG));
        assert!(!is_wanted("off", "wasmhost", Level::ERROR) && !is_wanted("off", "h2", Level::ERROR));
        assert!(is_wanted("warn,wasmhost_store=trace", "wasmhost_store::sqlite", Level::TRACE));
        assert!(!is_wanted("warn,wasmhost_store=trace", "wasmhost_host", Level::INFO));
        assert!(is_wanted("h2=debug", "h2::proto", Level::DEBUG));
        assert!(is_wanted("h2=debug", "wasmhost_host", Level::INFO));
    }

    #[test]
    fn what_is_no_level_is_refused_with_what_is() {
        for variable in ["verbose", "info,verbose", "wasmhost=loud", "=info", "a b=info", "[span]=info", "3"]
        {
            let problem =
                Wanted::read(variable, Level::INFO).err().unwrap_or_else(|| panic!("{variable} is taken"));
            assert!(problem.contains("found \"") && problem.contains("debug or trace"), "{problem}");
        }
    }
}
