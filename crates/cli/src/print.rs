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
use clap::error::{ContextKind, ContextValue, ErrorKind as ErrorOfClap};
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
    let message = with_arguments_shown(&message.to_string(), &arguments());
    styled(&format!("{RED}error:{RESET} {}\n", shown_lines(shown::cut(&message, ERROR_BYTES_MAX))));
}

/// A line on standard error.
pub(crate) fn note(message: impl Display) {
    styled(&format!("{}\n", shown_lines(&with_arguments_shown(&message.to_string(), &arguments()))));
}

/// The arguments of this command, and the values behind the `=` of some.
fn arguments() -> Vec<String> {
    let whole = std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned());
    let parts = |whole: String| {
        let value = whole.split_once('=').map(|(_, value)| value.to_owned());
        std::iter::once(whole).chain(value)
    };
    whole.flat_map(parts).collect()
}

/// A message in which arguments are on one line: names that a person or a shell has given, which a message repeats, may have
/// an end of a line in them, and what follows would look like a line of our own.
fn with_arguments_shown(message: &str, arguments: &[String]) -> String {
    let mut message = message.to_owned();
    for argument in arguments.iter().filter(|argument| argument.trim().contains(['\n', '\r'])) {
        message = message.replace(argument.as_str(), &shown::one_line(argument, usize::MAX));
    }
    message
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
    advise_on_number(&mut said);
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

/// A number behind a `-` is meant as `tail -5` has it, or as a count. clap would have it passed behind `--`, where it means
/// nothing either.
fn advise_on_number(said: &mut clap::Error) {
    let is_number = |found: &String| {
        let digits = found.strip_prefix('-').unwrap_or_default();
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    let Some(ContextValue::String(found)) = said.get(ContextKind::InvalidArg) else { return };
    if said.kind() != ErrorOfClap::UnknownArgument || !is_number(found) {
        return;
    }
    let advice = format!("where a verb takes a number of lines or rows, it is `-n {}`", &found[1..]);
    said.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![advice.into()]));
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
    fn an_argument_that_a_message_repeats_is_on_one_line() {
        let arguments = ["exec", "we\nb", "plain"].map(str::to_owned);
        let shown = with_arguments_shown("there is no \"we\nb\";\nplain is there", &arguments);
        assert_eq!(shown, "there is no \"we\\nb\";\nplain is there");
    }

    #[test]
    fn lines_stay_and_what_acts_on_a_terminal_does_not() {
        assert_eq!(shown_lines("a\n  b\u{1b}[2J\n\nc\td\n"), "a\n  b\\u{1b}[2J\n\nc\td\n");
    }
}
