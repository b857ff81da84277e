//! The names that a request is known by in every log: its id, and the trace that it belongs to. They are kept where they
//! are well-formed, and made otherwise.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::traces::{Context, TRACEPARENT, TRACESTATE, is_traceparent};

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

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

/// A new trace, and its number. It is marked as sampled, which leaves the choice to whoever records it: unmarked, most
/// would record nothing of it.
fn make_trace() -> (HeaderValue, HeaderValue) {
    let text = Bytes::copy_from_slice(&Context::new().text());
    let value = |text: Bytes| HeaderValue::from_maybe_shared(text).unwrap_or(HeaderValue::from_static("-"));
    (value(text.clone()), value(text.slice(3..35)))
}
