//! The names that a request is known by in every log: its id, and the trace that it belongs to. They are kept where they
//! are well-formed, and made otherwise.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

const REQUEST_ID_BYTES_MAX: usize = 128;

/// Which of the headers are there that name a request.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) request_id: bool,
    pub(super) traceparent: bool,
    pub(super) tracestate: bool,
}

/// Keeps what names the request, or makes it. A request without either gets one number for both, so that logs and
/// traces can be put together.
pub(super) fn identify(headers: &mut HeaderMap, seen: &Names) -> HeaderValue {
    let kept_id = if seen.request_id { only(headers, &X_REQUEST_ID, is_request_id) } else { None };
    let kept_trace =
        if seen.traceparent { only(headers, &TRACEPARENT, is_traceparent).is_some() } else { false };
    if let (Some(id), true) = (&kept_id, kept_trace) {
        return id.clone();
    }
    let (trace, number) = make_trace();
    if !kept_trace {
        headers.insert(TRACEPARENT, trace);
        if seen.tracestate {
            // It belongs to a trace that nobody knows.
            headers.remove(TRACESTATE);
        }
    }
    match kept_id {
        Some(id) => id,
        None => {
            headers.insert(X_REQUEST_ID, number.clone());
            number
        }
    }
}

/// The only value of a header, if it is well-formed.
fn only(headers: &HeaderMap, name: &HeaderName, is_sound: fn(&[u8]) -> bool) -> Option<HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().filter(|value| is_sound(value.as_bytes()))?;
    values.next().is_none().then(|| value.clone())
}

fn is_request_id(value: &[u8]) -> bool {
    (1..=REQUEST_ID_BYTES_MAX).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic)
}

/// `00-<trace id>-<parent id>-<flags>`, in lower case: W3C Trace Context, section 3.2. Later versions may go on after
/// a `-`.
fn is_traceparent(value: &[u8]) -> bool {
    let hex = |range: std::ops::Range<usize>| {
        value[range].iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let zero = |range: std::ops::Range<usize>| value[range].iter().all(|byte| *byte == b'0');
    value.len() >= 55
        && (value.len() == 55 || (&value[..2] != b"00" && value[55] == b'-'))
        && [2, 35, 52].iter().all(|at| value[*at] == b'-')
        && [0..2, 3..35, 36..52, 53..55].into_iter().all(hex)
        && &value[..2] != b"ff"
        && !zero(3..35)
        && !zero(36..52)
}

/// A new trace, and its number. It is marked as sampled, which leaves the choice to whoever records it: unmarked, most
/// would record nothing of it.
fn make_trace() -> (HeaderValue, HeaderValue) {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-01";
    write_hex(&fastrand::u128(1..).to_be_bytes(), &mut text[3..35]);
    write_hex(&fastrand::u64(1..).to_be_bytes(), &mut text[36..52]);
    let text = Bytes::copy_from_slice(&text);
    let value = |text: Bytes| HeaderValue::from_maybe_shared(text).unwrap_or(HeaderValue::from_static("-"));
    (value(text.clone()), value(text.slice(3..35)))
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
    use super::*;

    #[test]
    fn a_trace_of_another_form_is_none() {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_traceparent(trace.as_bytes()));
        assert!(is_traceparent(format!("cc{}-later", &trace[2..]).as_bytes()));
        for bad in [
            trace.to_uppercase(),
            format!("{trace}-more"),
            format!("ff{}", &trace[2..]),
            trace.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            trace.replace("00f067aa0ba902b7", &"0".repeat(16)),
            trace[..54].to_owned(),
            String::new(),
        ] {
            assert!(!is_traceparent(bad.as_bytes()), "{bad}");
        }
    }
}
