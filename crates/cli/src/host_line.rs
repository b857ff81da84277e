//! A line of the host itself: as it is logged, as JSON, and as a person reads it.

use std::fmt::{Debug, Write};

use anstyle::{AnsiColor, Style};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use tracing::Level;
use tracing::field::{Field, Visit};
use wasmhost_config::shown;

/// See the module.
#[derive(Debug, PartialEq)]
pub(crate) struct HostLine {
    /// RFC 3339, UTC.
    pub(crate) time: String,
    pub(crate) level: Level,
    pub(crate) said: Said,
}

/// The text of an event, and its other fields.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Said {
    pub(crate) message: String,
    pub(crate) fields: Vec<(String, Value)>,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Value {
    Text(String),
    /// A text that is shown without quotes: a name, an address.
    Word(String),
    Number(serde_json::Value),
}

/// Whether a person wants colours on a terminal.
pub(crate) fn has_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

impl HostLine {
    /// `2026-11-21T05:10:12.402Z  INFO text name="value"`, without its end.
    pub(crate) fn text(&self, colour: bool, out: &mut String) {
        let dimmed = if colour { Style::new().dimmed() } else { Style::new() };
        // Writing to a String doesn't fail.
        let _ = write!(out, "{dimmed}{}{dimmed:#} ", self.time);
        self.said.text(self.level, colour, out);
    }

    /// `{"time":"2026-11-21T05:10:12.402Z","level":"INFO","message":"text","name":"value"}`, without its end. The fields are
    /// in their order, which a map of serde_json's doesn't keep.
    pub(crate) fn json(&self, out: &mut String) {
        let string = |text: &str| serde_json::Value::from(text).to_string();
        let HostLine { time, level, said } = self;
        let mut line = String::with_capacity(said.message.len() + 128);
        let _ = write!(line, r#"{{"time":"{time}","level":"{level}","message":{}"#, string(&said.message));
        for (name, value) in &said.fields {
            let value = match value {
                Value::Text(text) | Value::Word(text) => string(text),
                Value::Number(number) => number.to_string(),
            };
            let _ = write!(line, ",{}:{value}", string(name));
        }
        line.push('}');
        out.push_str(&shown::json(&line));
    }
}

impl Said {
    /// ` INFO text name="value"`, without its end.
    pub(crate) fn text(&self, level: Level, colour: bool, out: &mut String) {
        let style = |style: Style| if colour { style } else { Style::new() };
        let coloured = style(level_colour(level).on_default());
        let _ = write!(out, "{coloured}{level:>5}{coloured:#} {}", self.message);
        let dimmed = style(Style::new().dimmed());
        for (name, value) in &self.fields {
            let _ = write!(out, " {dimmed}{name}{dimmed:#}=");
            let _ = match value {
                Value::Text(text) => write!(out, "\"{}\"", text.replace('"', "\\\"")),
                Value::Word(word) => write!(out, "{word}"),
                Value::Number(number) => write!(out, "{number}"),
            };
        }
    }

    fn add_text(&mut self, field: &Field, text: &str, value: impl FnOnce(String) -> Value) {
        match field.name() {
            "message" => self.message = shown::lines(text, shown::TEXT_BYTES_MAX).into_owned(),
            name => {
                let text = shown::one_line(text, shown::MESSAGE_BYTES_MAX).into_owned();
                self.fields.push((name.to_owned(), value(text)));
            }
        }
    }

    fn add_number(&mut self, field: &Field, value: impl Into<serde_json::Value>) {
        self.fields.push((field.name().to_owned(), Value::Number(value.into())));
    }
}

fn level_colour(level: Level) -> AnsiColor {
    match level {
        Level::ERROR => AnsiColor::Red,
        Level::WARN => AnsiColor::Yellow,
        Level::INFO => AnsiColor::Green,
        Level::DEBUG => AnsiColor::Blue,
        Level::TRACE => AnsiColor::Magenta,
    }
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add_text(field, value, Value::Text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add_text(field, &format!("{value:?}"), Value::Word);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add_number(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add_number(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add_number(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add_number(field, value);
    }
}

/// Reads what `json` writes. Words have become texts.
impl<'de> Deserialize<'de> for HostLine {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = HostLine;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a line of the host")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<HostLine, A::Error> {
                let mut line = HostLine { time: String::new(), level: Level::INFO, said: Said::default() };
                while let Some((name, value)) = map.next_entry::<String, serde_json::Value>()? {
                    match (name.as_str(), value) {
                        ("time", serde_json::Value::String(time)) => line.time = time,
                        ("level", serde_json::Value::String(level)) => {
                            line.level = level.parse().map_err(A::Error::custom)?;
                        }
                        ("message", serde_json::Value::String(message)) => line.said.message = message,
                        (_, serde_json::Value::String(text)) => {
                            line.said.fields.push((name, Value::Text(text)))
                        }
                        (_, other) => line.said.fields.push((name, Value::Number(other))),
                    }
                }
                Ok(line)
            }
        }
        from.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str) -> HostLine {
        let message = shown::lines(message, shown::TEXT_BYTES_MAX).into_owned();
        let fields = [
            ("code", Value::Text("H13".into())),
            ("remote", Value::Word("::1".into())),
            ("count", Value::Number(3.into())),
        ];
        let fields = fields.map(|(name, value)| (name.to_owned(), value)).into();
        let time = "2026-11-21T05:10:12.402Z".to_owned();
        HostLine { time, level: Level::WARN, said: Said { message, fields } }
    }

    #[test]
    fn a_line_of_text_has_its_fields_behind_it() {
        let mut text = String::new();
        line("it broke\nERROR not a line").text(false, &mut text);
        let shown =
            "2026-11-21T05:10:12.402Z  WARN it broke\n    ERROR not a line code=\"H13\" remote=::1 count=3";
        assert_eq!(text, shown);
    }

    #[test]
    fn a_line_of_json_says_the_time_as_guests_lines_do() {
        let mut json = String::new();
        line("it broke \u{9b}").json(&mut json);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        let expected = serde_json::json!({ "time": value["time"], "level": "WARN", "message": "it broke \\u{9b}",
            "code": "H13", "remote": "::1", "count": 3 });
        assert_eq!(value, expected);
        assert!(json.starts_with("{\"time\":"), "{json}");
    }

    #[test]
    fn a_line_that_was_written_can_be_read_and_written_again() {
        let (mut once, mut twice) = (String::new(), String::new());
        line("it broke").json(&mut once);
        serde_json::from_str::<HostLine>(&once).unwrap().json(&mut twice);
        assert_eq!(once, twice);
        assert!(serde_json::from_str::<HostLine>("{\"level\":\"loud\"}").is_err());
        assert!(serde_json::from_str::<HostLine>("[]").is_err());
    }
}
