//! The trace that this command is part of, where the program that called it has said so: `TRACEPARENT` and `TRACESTATE` in the
//! environment, as OpenTelemetry has them for programs. A host that keeps traces goes on with it.

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

/// A variable, and the field of a request that says the same.
const NAMES: [(&str, HeaderName); 2] = [
    ("TRACEPARENT", HeaderName::from_static("traceparent")),
    ("TRACESTATE", HeaderName::from_static("tracestate")),
];

/// The longest value that is passed on, in bytes: that of a `tracestate`.
const BYTES_MAX: usize = 512;

/// Adds the trace to a request. The host leaves alone what isn't well-formed, as everybody does with these fields.
pub(super) fn pass_on(fields: &mut HeaderMap) {
    pass_on_from(fields, &|name| std::env::var(name).ok());
}

fn pass_on_from(fields: &mut HeaderMap, variable: &dyn Fn(&str) -> Option<String>) {
    for (variable, name) in NAMES.map(|(of, name)| (variable(of), name)) {
        let value = variable.filter(|value| !value.is_empty() && value.len() <= BYTES_MAX);
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            fields.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_no_field_may_have_are_left_out() {
        let fields = |parent: &str, state: &str| {
            let (parent, state) = (parent.to_owned(), state.to_owned());
            let mut fields = HeaderMap::new();
            pass_on_from(&mut fields, &|name| match name {
                "TRACEPARENT" => Some(parent.clone()),
                "TRACESTATE" => Some(state.clone()),
                _ => None,
            });
            NAMES.map(|(_, name)| fields.get(name).map(|value| value.to_str().unwrap().to_owned()))
        };
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(fields(parent, "a=1"), [Some(parent.to_owned()), Some("a=1".to_owned())]);
        assert_eq!(fields("00\r\nx: y", ""), [None, None]);
        assert_eq!(fields(parent, &"a".repeat(BYTES_MAX + 1)), [Some(parent.to_owned()), None]);
    }
}
