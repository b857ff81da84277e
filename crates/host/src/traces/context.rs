//! W3C Trace Context: the place in a trace that a request or a job has, as headers say it. Pure.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The bytes of a `traceparent` of version 00.
pub(crate) const TRACEPARENT_BYTES: usize = 55;

/// The longest `tracestate` that is passed on, as the recommendation asks for at least.
const STATE_BYTES_MAX: usize = 512;

const SAMPLED: u8 = 1;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Context {
    /// Not 0.
    pub(crate) trace: u128,
    /// The span that whatever comes next belongs to. Not 0.
    pub(crate) span: u64,
    flags: u8,
    /// The vendors' words about it, passed on as they came.
    pub(crate) state: Option<HeaderValue>,
}

impl Context {
    /// A new trace, whose first span is to come.
    pub(crate) fn new() -> Context {
        Context { trace: fastrand::u128(1..), span: new_span(), flags: SAMPLED, state: None }
    }

    /// The context in a `traceparent`, if it is well-formed.
    pub(crate) fn parse(value: &[u8]) -> Option<Context> {
        if !is_traceparent(value) {
            return None;
        }
        let text = std::str::from_utf8(value).ok()?;
        Some(Context {
            trace: u128::from_str_radix(&text[3..35], 16).ok()?,
            span: u64::from_str_radix(&text[36..52], 16).ok()?,
            flags: u8::from_str_radix(&text[53..55], 16).ok()?,
            state: None,
        })
    }

    /// The context in the headers of a request.
    pub(crate) fn of_headers(headers: &HeaderMap) -> Option<Context> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let context = Context::parse(values.next()?.as_bytes())?;
        values.next().is_none().then(|| Context { state: state_of(headers), ..context })
    }

    /// The context in a job's metadata.
    pub(crate) fn of_metadata(metadata: &[(String, String)]) -> Option<Context> {
        let value = |wanted: HeaderName| {
            let found = metadata.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted.as_str()));
            found.map(|(_, value)| value)
        };
        let context = Context::parse(value(TRACEPARENT)?.as_bytes())?;
        let state = value(TRACESTATE).filter(|state| !state.is_empty() && state.len() <= STATE_BYTES_MAX);
        Some(Context { state: state.and_then(|state| HeaderValue::from_str(state).ok()), ..context })
    }

    pub(crate) fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The same, recorded or not.
    pub(crate) fn sampled(self, is_sampled: bool) -> Context {
        let flags = if is_sampled { self.flags | SAMPLED } else { self.flags & !SAMPLED };
        Context { flags, ..self }
    }

    /// The same trace, with another span that what comes next belongs to.
    pub(crate) fn at(&self, span: u64) -> Context {
        Context { span, ..self.clone() }
    }

    /// The flags, as OTLP has them.
    pub(crate) fn flags(&self) -> u8 {
        self.flags
    }

    /// Its `traceparent`.
    pub(crate) fn text(&self) -> [u8; TRACEPARENT_BYTES] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(&self.trace.to_be_bytes(), &mut text[3..35]);
        write_hex(&self.span.to_be_bytes(), &mut text[36..52]);
        write_hex(&[self.flags], &mut text[53..55]);
        text
    }

    /// The same as a header's value.
    pub(crate) fn header(&self) -> HeaderValue {
        // Hexadecimal digits and hyphens are always one.
        HeaderValue::from_maybe_shared(Bytes::copy_from_slice(&self.text()))
            .unwrap_or(HeaderValue::from_static("-"))
    }

    /// The same as text.
    pub(crate) fn string(&self) -> String {
        self.text().iter().map(|byte| char::from(*byte)).collect()
    }

    /// The state as text, if there is any.
    pub(crate) fn state_text(&self) -> Option<&str> {
        self.state.as_ref().and_then(|state| state.to_str().ok())
    }
}

/// The number of a new span.
pub(crate) fn new_span() -> u64 {
    fastrand::u64(1..)
}

/// `00-<trace id>-<parent id>-<flags>`, in lower case: W3C Trace Context, section 3.2. Later versions may go on after
/// a `-`.
pub(crate) fn is_traceparent(value: &[u8]) -> bool {
    let hex = |range: std::ops::Range<usize>| {
        value[range].iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let zero = |range: std::ops::Range<usize>| value[range].iter().all(|byte| *byte == b'0');
    value.len() >= TRACEPARENT_BYTES
        && (value.len() == TRACEPARENT_BYTES || (&value[..2] != b"00" && value[55] == b'-'))
        && [2, 35, 52].iter().all(|at| value[*at] == b'-')
        && [0..2, 3..35, 36..52, 53..55].into_iter().all(hex)
        && &value[..2] != b"ff"
        && !zero(3..35)
        && !zero(36..52)
}

/// All lines of `tracestate` as one, if they aren't too long.
fn state_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut lines = headers.get_all(TRACESTATE).iter();
    let first = lines.next()?;
    let state = match lines.next() {
        None => first.clone(),
        Some(_) => {
            let lines: Vec<&[u8]> = headers.get_all(TRACESTATE).iter().map(HeaderValue::as_bytes).collect();
            HeaderValue::from_bytes(&lines.join(&b","[..])).ok()?
        }
    };
    (!state.is_empty() && state.len() <= STATE_BYTES_MAX && state.to_str().is_ok()).then_some(state)
}

fn write_hex(bytes: &[u8], out: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, digits) in bytes.iter().zip(out.chunks_exact_mut(2)) {
        digits[0] = DIGITS[usize::from(byte >> 4)];
        digits[1] = DIGITS[usize::from(byte & 15)];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_trace_of_another_form_is_none() {
        assert!(is_traceparent(TRACE.as_bytes()));
        assert!(is_traceparent(format!("cc{}-later", &TRACE[2..]).as_bytes()));
        for bad in [
            TRACE.to_uppercase(),
            format!("{TRACE}-more"),
            format!("ff{}", &TRACE[2..]),
            TRACE.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            TRACE.replace("00f067aa0ba902b7", &"0".repeat(16)),
            TRACE[..54].to_owned(),
            String::new(),
        ] {
            assert!(!is_traceparent(bad.as_bytes()), "{bad}");
            assert_eq!(Context::parse(bad.as_bytes()), None);
        }
    }

    #[test]
    fn a_trace_says_its_numbers_and_its_flag() {
        let context = Context::parse(TRACE.as_bytes()).unwrap();
        assert_eq!((context.trace, context.span), (0x4bf92f3577b34da6a3ce929d0e0e4736, 0x00f067aa0ba902b7));
        assert!(context.is_sampled());
        let context = context.at(1).sampled(false);
        assert_eq!(context.string(), "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000001-00");
    }

    #[test]
    fn the_state_goes_with_the_trace_in_one_line_and_only_with_one_trace() {
        let mut headers = HeaderMap::new();
        headers.append(TRACESTATE, HeaderValue::from_static("a=1"));
        assert_eq!(Context::of_headers(&headers), None);
        headers.append(TRACEPARENT, HeaderValue::from_static(TRACE));
        headers.append(TRACESTATE, HeaderValue::from_static("b=2"));
        assert_eq!(Context::of_headers(&headers).unwrap().state_text(), Some("a=1,b=2"));
        headers.append(TRACESTATE, HeaderValue::from_str(&"x".repeat(600)).unwrap());
        assert_eq!(Context::of_headers(&headers).unwrap().state, None);
        headers.append(TRACEPARENT, HeaderValue::from_static(TRACE));
        assert_eq!(Context::of_headers(&headers), None, "nobody knows which");
    }

    #[test]
    fn a_jobs_metadata_says_it_too() {
        let entry = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let metadata = [entry("x", "y"), entry("traceparent", TRACE), entry("tracestate", "a=1")];
        let context = Context::of_metadata(&metadata).unwrap();
        assert_eq!((context.string().as_str(), context.state_text()), (TRACE, Some("a=1")));
        assert_eq!(Context::of_metadata(&[entry("traceparent", "mine")]), None);
    }

    proptest! {
        #[test]
        fn a_context_is_read_as_it_was_written(trace in 1u128.., span in 1u64.., flags: u8) {
            let context = Context { trace, span, flags, state: None };
            prop_assert_eq!(Context::parse(&context.text()), Some(context.clone()));
            let (header, string) = (context.header(), context.string());
            prop_assert_eq!(header.as_bytes(), string.as_bytes());
        }

        #[test]
        fn no_bytes_are_too_strange(bytes: Vec<u8>) {
            if let Some(context) = Context::parse(&bytes) {
                prop_assert!(context.trace != 0 && context.span != 0);
            }
        }

        #[test]
        fn no_text_like_it_is_too_strange(text in "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-x)?") {
            let context = Context::parse(text.as_bytes());
            prop_assert_eq!(context.is_some(), is_traceparent(text.as_bytes()));
        }
    }
}
