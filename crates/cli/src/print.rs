//! The printing of verbs: answers on standard output, and reasons for a failure on standard error.
//!
//! Printing never ends a verb that has something to do. A reader that has gone (`| head`) is no failure; a standard
//! output that can't be written (a full disk) is one, which is told at the end ([`end`]). All of it passes through
//! [`shown`], so that nothing that comes from guests, jobs or components acts on a terminal.

use std::fmt::Display;
use std::io::ErrorKind;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Reset, Style};
use clap::error::ContextValue;
use serde::Serialize;
use wasmhost_config::shown;
use wasmhost_host::{until, write_all};

use crate::exit::{Exit, Failed, Outcome};

const RED: Style = AnsiColor::Red.on_default().bold();
const RESET: Reset = Reset;

/// Bytes of a message about a failure.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// How long a standard error that takes nothing is waited for.
const ERROR_WAIT_MAX: Duration = Duration::from_secs(1);

/// Why standard output couldn't be written, as soon as it couldn't.
static BROKEN: OnceLock<std::io::Error> = OnceLock::new();

/// Prints lines, each with its end.
pub(crate) fn text(lines: &str) {
    raw(&shown_lines(lines));
}

/// Prints one line.
pub(crate) fn line(line: impl Display) {
    text(&format!("{line}\n"));
}

/// Prints JSON on one line.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failed> {
    raw(&format!("{}\n", shown::json(&serde_json::to_string(value)?)));
    Ok(())
}

/// Prints JSON that a person can read.
pub(crate) fn pretty_json(value: &impl Serialize) -> Result<(), Failed> {
    raw(&format!("{}\n", shown::json(&serde_json::to_string_pretty(value)?)));
    Ok(())
}

/// Prints what is fit for a terminal already.
pub(crate) fn raw(text: &str) {
    if BROKEN.get().is_some() {
        return;
    }
    let (_, err) = write_all(std::io::stdout(), text.as_bytes(), || false);
    if let Some(err) = err {
        let _ = BROKEN.set(err);
    }
}

/// Whether anybody has what is printed from now on: a verb that only prints may end.
pub(crate) fn is_broken() -> bool {
    BROKEN.get().is_some()
}

/// Says on standard error why something failed, as far as that is possible.
pub(crate) fn error(message: impl Display) {
    let message = message.to_string();
    styled(&format!("{RED}error:{RESET} {}\n", shown_lines(shown::cut(&message, ERROR_BYTES_MAX))));
}

/// A line on standard error.
pub(crate) fn note(message: impl Display) {
    styled(&format!("{}\n", shown_lines(&message.to_string())));
}

/// Text on standard error whose colours are for a terminal that wants them.
fn styled(text: &str) {
    let stderr = std::io::stderr();
    let text = match anstream::AutoStream::choice(&stderr) {
        anstream::ColorChoice::Never => anstream::adapter::strip_str(text).to_string(),
        _ => text.to_owned(),
    };
    // Nobody else can be told.
    let _ = write_all(stderr, text.as_bytes(), until(Instant::now() + ERROR_WAIT_MAX));
}

/// Prints what clap has to say: help and versions are what was asked for, the rest is an error.
pub(crate) fn usage(mut said: clap::Error) -> Outcome {
    // Arguments may be names of files, which a shell has put there: all but clap's own colours becomes fit for a terminal.
    let foreign: Vec<_> = said.context().map(|(kind, value)| (kind, fit(value))).collect();
    for (kind, value) in foreign.into_iter().filter_map(|(kind, value)| Some((kind, value?))) {
        said.insert(kind, value);
    }
    let text = said.render();
    if said.use_stderr() {
        styled(&text.ansi().to_string());
        return Ok(Exit::Usage);
    }
    match anstream::AutoStream::choice(&std::io::stdout()) {
        anstream::ColorChoice::Never => raw(&text.to_string()),
        _ => raw(&text.ansi().to_string()),
    }
    Ok(Exit::Done)
}

/// A part of what clap has to say, where it is a text.
fn fit(value: &ContextValue) -> Option<ContextValue> {
    let one_line = |text: &String| shown::one_line(text, shown::MESSAGE_BYTES_MAX).into_owned();
    match value {
        ContextValue::String(text) => Some(ContextValue::String(one_line(text))),
        ContextValue::Strings(texts) => Some(ContextValue::Strings(texts.iter().map(one_line).collect())),
        _ => None,
    }
}

/// How the program ends: told if it failed, or if what it printed is lost.
pub(crate) fn end(outcome: Outcome) -> ExitCode {
    match outcome {
        Err(failed) => {
            error(failed.message);
            failed.exit.into()
        }
        Ok(Exit::Done) => match BROKEN.get() {
            Some(err) if err.kind() != ErrorKind::BrokenPipe => {
                error(format!("standard output can't be written: {err}"));
                Exit::Failed.into()
            }
            _ => Exit::Done.into(),
        },
        Ok(exit) => exit.into(),
    }
}

/// Lines of our own making, in which something foreign may be.
pub(crate) fn shown_lines(lines: &str) -> String {
    let shown: Vec<_> = lines.split('\n').map(|line| shown::lines(line, usize::MAX)).collect();
    shown.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_and_what_acts_on_a_terminal_does_not() {
        assert_eq!(shown_lines("a\n  b\u{1b}[2J\n\nc\td\n"), "a\n  b\\u{1b}[2J\n\nc\td\n");
    }
}
