//! How a guest's line is printed.

use std::io::IsTerminal;

use wasmhost_config::shown;

use crate::admin::api::LogLine;

/// A line has 16 KiB at most, which its characters' codes make longer.
const SHOWN_BYTES_MAX: usize = 64 << 10;

/// How lines are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `12:00:00 web.1 | text`, for people.
    Plain,
    /// The same, in one colour for each type.
    Coloured,
    /// One JSON object a line, for programs.
    Json,
}

impl LogFormat {
    /// The format that suits the standard output, honouring `NO_COLOR`.
    pub fn detect() -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        match std::io::stdout().is_terminal() {
            true if no_colour => LogFormat::Plain,
            true => LogFormat::Coloured,
            false => LogFormat::Json,
        }
    }
}

/// Adds a line as it is printed. A guest can't move a person's cursor with it, or retitle the window.
pub fn render(line: &LogLine, format: LogFormat, out: &mut String) {
    let text = || shown::lines(&line.line, SHOWN_BYTES_MAX);
    match format {
        LogFormat::Json => {
            out.push_str(&shown::json(&serde_json::to_string(line).unwrap_or_default()));
        }
        LogFormat::Plain => {
            out.push_str(&format!("{} {:<10} | {}", clock(&line.time), line.instance, text()));
        }
        LogFormat::Coloured => {
            let style = anstyle::Style::new().fg_color(Some(colour(&line.instance).into()));
            let (time, instance) = (clock(&line.time), &line.instance);
            out.push_str(&format!("{style}{time} {instance:<10} |{style:#} {}", text()));
        }
    }
    out.push('\n');
}

/// `12:00:00` of `2026-01-01T12:00:00.000Z`.
fn clock(time: &str) -> &str {
    time.get(11..19).unwrap_or(time)
}

/// The same colour for all instances of a type.
fn colour(instance: &str) -> anstyle::AnsiColor {
    use anstyle::AnsiColor::{Blue, Cyan, Green, Magenta, Red, Yellow};
    let process = instance.split('.').next().unwrap_or(instance);
    let sum = process.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
    [Cyan, Yellow, Green, Magenta, Blue, Red][sum % 6]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str, format: LogFormat) -> String {
        let line = LogLine {
            time: "2026-01-01T12:00:01.000Z".into(),
            instance: "web.1".into(),
            stream: "stdout".into(),
            line: text.into(),
        };
        let mut out = String::new();
        render(&line, format, &mut out);
        out
    }

    #[test]
    fn people_see_the_time_the_instance_and_the_text() {
        assert_eq!(rendered("hello", LogFormat::Plain), "12:00:01 web.1      | hello\n");
    }

    #[test]
    fn characters_that_act_on_a_terminal_do_not_reach_it() {
        let text = "\x1b]0;title\x07\tok \u{9b}2J \u{202e}";
        let shown = "12:00:01 web.1      | \\u{1b}]0;title\\u{7}\tok \\u{9b}2J \\u{202e}\n";
        assert_eq!(rendered(text, LogFormat::Plain), shown);
        let json = rendered(text, LogFormat::Json);
        assert!(json.trim_end().chars().all(|c| (' '..='~').contains(&c)), "{json}");
        assert_eq!(serde_json::from_str::<LogLine>(&json).unwrap().line, text);
    }
}
