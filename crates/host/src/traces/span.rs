//! A span as it is recorded.

use std::borrow::Cow;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::HeaderValue;

/// The longest text of an attribute, in bytes. A path may have 64 KiB.
const TEXT_BYTES_MAX: usize = 1 << 10;

/// Attributes of one span, and its events, at most.
const ATTRIBUTES_MAX: usize = 32;
const EVENTS_MAX: usize = 64;

/// A span that is over.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) trace: u128,
    pub(crate) id: u64,
    /// 0 where it is the first.
    pub(crate) parent: u64,
    /// Whether the parent is another program's.
    pub(crate) is_remote: bool,
    pub(crate) flags: u8,
    pub(crate) state: Option<HeaderValue>,
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Nanoseconds since 1970.
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
    pub(crate) facts: Facts,
}

/// The kinds of spans, by their numbers in OTLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Internal = 1,
    Server = 2,
    Client = 3,
    Producer = 4,
    Consumer = 5,
}

/// The facts of a span besides its place and its time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    pub(crate) attributes: Vec<(&'static str, Value)>,
    /// With the times since 1970 in nanoseconds.
    pub(crate) events: Vec<(u64, Cow<'static, str>)>,
    /// Whether it failed.
    pub(crate) failed: bool,
    /// Why, for a person.
    pub(crate) message: String,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Text(Cow<'static, str>),
    Whole(i64),
    Real(f64),
    Bool(bool),
}

impl Facts {
    pub(crate) fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        if self.attributes.len() < ATTRIBUTES_MAX {
            self.attributes.push((name, value.into()));
        }
    }

    pub(crate) fn event(&mut self, at_ns: u64, name: impl Into<Cow<'static, str>>) {
        if self.events.len() < EVENTS_MAX {
            self.events.push((at_ns, name.into()));
        }
    }

    /// It failed; `error` is one of few names.
    pub(crate) fn fail(&mut self, error: impl Into<Cow<'static, str>>) {
        if !std::mem::replace(&mut self.failed, true) {
            self.set("error.type", error.into());
        }
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Value {
        Value::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        let text = if text.len() > TEXT_BYTES_MAX {
            wasmhost_config::shown::cut(&text, TEXT_BYTES_MAX).to_owned()
        } else {
            text
        };
        Value::Text(Cow::Owned(text))
    }
}

impl From<Cow<'static, str>> for Value {
    fn from(text: Cow<'static, str>) -> Value {
        match text {
            Cow::Borrowed(text) => text.into(),
            Cow::Owned(text) => text.into(),
        }
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Whole(number)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Whole(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Value {
        Value::Real(number)
    }
}

impl From<bool> for Value {
    fn from(is: bool) -> Value {
        Value::Bool(is)
    }
}

/// One moment by both clocks. All spans of a call have their times from the same one, so that none of them seems to begin
/// before another that it follows, whatever is done to the system's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Base {
    unix: Duration,
    at: Instant,
}

impl Base {
    pub(crate) fn now() -> Base {
        Base { unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), at: Instant::now() }
    }

    pub(crate) fn instant(&self) -> Instant {
        self.at
    }

    /// This moment in nanoseconds since 1970.
    pub(crate) fn ns(&self, at: Instant) -> u64 {
        let unix = match at.checked_duration_since(self.at) {
            Some(since) => self.unix.saturating_add(since),
            None => self.unix.saturating_sub(self.at.saturating_duration_since(at)),
        };
        u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_keep_their_order_and_their_distance() {
        let base = Base::now();
        let (ms, before) = (Duration::from_millis(1), base.at.checked_sub(Duration::from_millis(2)));
        assert_eq!(base.ns(base.at + ms) - base.ns(base.at), 1_000_000);
        if let Some(before) = before {
            assert_eq!(base.ns(base.at) - base.ns(before), 2_000_000);
        }
    }

    #[test]
    fn what_is_known_of_a_span_is_bounded() {
        let mut facts = Facts::default();
        for _ in 0..1_000 {
            facts.set("url.path", "x".repeat(100_000));
            facts.event(0, "compiling");
        }
        assert_eq!((facts.attributes.len(), facts.events.len()), (ATTRIBUTES_MAX, EVENTS_MAX));
        let Value::Text(text) = &facts.attributes[0].1 else { panic!("it is a text") };
        assert!(text.len() <= TEXT_BYTES_MAX);
    }
}
