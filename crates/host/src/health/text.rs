//! The text format of Prometheus, version 0.0.4.

use std::fmt::Write;

use super::families::{Family, Kind};
use super::sink::{Sink, Value};

/// The media type of what [`Text`] writes.
pub(super) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics as they are written. Families come one after another, each with all of its series.
#[derive(Default)]
pub(super) struct Text {
    out: String,
    family: Option<&'static Family>,
}

impl Sink for Text {
    fn family(&mut self, family: &'static Family) {
        let (name, help) = (family.name, family.help.replace('\\', "\\\\").replace('\n', "\\n"));
        // Writing to a String doesn't fail.
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {}", family.kind.name());
        self.family = Some(family);
    }

    fn put(&mut self, labels: &[&str], value: Value) {
        self.line("", labels, None, value);
    }

    fn buckets(&mut self, labels: &[&str], bounds: &[f64], counts: &[u64], sum: f64) {
        let mut below = 0;
        for (at, count) in counts.iter().enumerate() {
            below += count;
            let bound = bounds.get(at).map_or("+Inf".to_owned(), f64::to_string);
            self.line("_bucket", labels, Some(&bound), Value::Whole(below));
        }
        self.line("_sum", labels, None, Value::Real(sum));
        self.line("_count", labels, None, Value::Whole(below));
    }
}

impl Text {
    fn line(&mut self, suffix: &str, values: &[&str], bound: Option<&str>, value: Value) {
        let Some(family) = self.family else { return };
        debug_assert_eq!(family.labels.len(), values.len(), "{}", family.name);
        debug_assert_eq!(family.kind == Kind::Histogram, !suffix.is_empty(), "{}", family.name);
        self.out.push_str(family.name);
        self.out.push_str(suffix);
        let labels = family.labels.iter().copied().zip(values.iter().copied());
        for (at, (label, value)) in labels.chain(bound.map(|bound| ("le", bound))).enumerate() {
            self.out.push(if at == 0 { '{' } else { ',' });
            let _ = write!(self.out, "{label}=\"");
            for c in value.chars() {
                match c {
                    '\\' => self.out.push_str("\\\\"),
                    '"' => self.out.push_str("\\\""),
                    '\n' => self.out.push_str("\\n"),
                    c => self.out.push(c),
                }
            }
            self.out.push('"');
        }
        if !values.is_empty() || bound.is_some() {
            self.out.push('}');
        }
        let _ = match value {
            Value::Whole(value) => writeln!(self.out, " {value}"),
            Value::Real(value) => writeln!(self.out, " {value}"),
        };
    }

    pub(super) fn into_string(self) -> String {
        self.out
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::health::families::{CALL_WAIT, DESIRED, RELEASE};
    use crate::measures::histogram::{Buckets, REQUESTS};

    #[test]
    fn series_are_written_as_the_format_has_them() {
        let mut text = Text::default();
        text.single(&RELEASE, 7u64);
        text.family(&DESIRED);
        text.value(&["a\"b\\c\nd"], 1.5);
        let text = text.into_string();
        assert!(text.contains("# TYPE wasmhost_release_number gauge\nwasmhost_release_number 7\n"), "{text}");
        assert!(text.ends_with("\nwasmhost_instances_desired{type=\"a\\\"b\\\\c\\nd\"} 1.5\n"), "{text}");
    }

    #[test]
    fn buckets_are_those_at_or_below_their_bound() {
        let buckets = Buckets::default();
        for time in [Duration::from_micros(50), Duration::from_millis(1), Duration::from_secs(100)] {
            buckets.note(&REQUESTS, time);
        }
        let mut text = Text::default();
        text.family(&CALL_WAIT);
        text.histogram(&["web"], &REQUESTS, &buckets.read());
        let text = text.into_string();
        for line in [
            "_bucket{type=\"web\",le=\"0.0001\"} 1",
            "_bucket{type=\"web\",le=\"0.001\"} 2",
            "_bucket{type=\"web\",le=\"30\"} 2",
            "_bucket{type=\"web\",le=\"+Inf\"} 3",
            "_sum{type=\"web\"} 100.00105",
            "_count{type=\"web\"} 3",
        ] {
            assert!(text.contains(&format!("\nwasmhost_call_wait_seconds{line}\n")), "{line} in {text}");
        }
    }
}
