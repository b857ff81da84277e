//! Spans and metrics as messages.

use prost::Message;

use super::messages::{
    AnyValue, AnyValueOf, Event, ExportMetricsRequest, ExportTraceRequest, InstrumentationScope, KeyValue,
    Metric, PARENT_IS_KNOWN, PARENT_IS_REMOTE, Resource, ResourceMetrics, ResourceSpans, STATUS_ERROR,
    ScopeMetrics, ScopeSpans, Span as SpanMessage, Status,
};
use crate::traces::{Span, Value};

/// Where they come from.
pub(super) struct Source {
    resource: Resource,
    scope: InstrumentationScope,
}

impl Source {
    /// The attributes are a person's, `service` stands in for a name that they don't say, and the rest is known.
    pub(super) fn new(mut attributes: Vec<(String, String)>, service: &str) -> Source {
        let version = env!("CARGO_PKG_VERSION");
        let known = [
            ("service.name", service.to_owned()),
            ("service.instance.id", instance_id()),
            ("host.name", host_name()),
            ("telemetry.sdk.name", "wasmhost".to_owned()),
            ("telemetry.sdk.language", "rust".to_owned()),
            ("telemetry.sdk.version", version.to_owned()),
        ];
        for (key, value) in known {
            if !value.is_empty() && !attributes.iter().any(|(given, _)| given == key) {
                attributes.push((key.to_owned(), value));
            }
        }
        let attributes = attributes.into_iter().map(|(key, value)| attribute(&key, value.into())).collect();
        let scope = InstrumentationScope { name: "wasmhost".to_owned(), version: version.to_owned() };
        Source { resource: Resource { attributes }, scope }
    }

    pub(super) fn spans(&self, spans: Vec<Span>) -> Vec<u8> {
        let spans = spans.into_iter().map(span).collect();
        let scope_spans = vec![ScopeSpans { scope: Some(self.scope.clone()), spans }];
        let resource_spans = vec![ResourceSpans { resource: Some(self.resource.clone()), scope_spans }];
        ExportTraceRequest { resource_spans }.encode_to_vec()
    }

    pub(super) fn metrics(&self, metrics: Vec<Metric>) -> Vec<u8> {
        let scope_metrics = vec![ScopeMetrics { scope: Some(self.scope.clone()), metrics }];
        let resource_metrics = vec![ResourceMetrics { resource: Some(self.resource.clone()), scope_metrics }];
        ExportMetricsRequest { resource_metrics }.encode_to_vec()
    }
}

/// The machine's name, where the system says it.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}

/// A number for this run of the host, as a random UUID.
fn instance_id() -> String {
    let number = (fastrand::u128(..) & !((0xf << 76) | (0x3 << 62))) | (4 << 76) | (2 << 62);
    let digits = format!("{number:032x}");
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

fn span(span: Span) -> SpanMessage {
    let Span { trace, id, parent, is_remote, flags, state, name, kind, start_ns, end_ns, facts } = span;
    let status = facts.failed.then_some(Status { code: STATUS_ERROR, message: facts.message });
    let events = facts.events.into_iter();
    SpanMessage {
        trace_id: trace.to_be_bytes().to_vec(),
        span_id: id.to_be_bytes().to_vec(),
        trace_state: state.as_ref().and_then(|state| state.to_str().ok()).unwrap_or_default().to_owned(),
        parent_span_id: if parent == 0 { vec![] } else { parent.to_be_bytes().to_vec() },
        name,
        kind: kind as i32,
        start_time_unix_nano: start_ns,
        end_time_unix_nano: end_ns.max(start_ns),
        attributes: facts.attributes.into_iter().map(|(key, value)| attribute(key, value)).collect(),
        events: events.map(|(at, name)| Event { time_unix_nano: at, name: name.into_owned() }).collect(),
        status,
        flags: u32::from(flags) | PARENT_IS_KNOWN | if is_remote { PARENT_IS_REMOTE } else { 0 },
    }
}

pub(crate) fn attribute(key: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => AnyValueOf::Text(text.into_owned()),
        Value::Whole(number) => AnyValueOf::Whole(number),
        Value::Real(number) => AnyValueOf::Real(number),
        Value::Bool(is) => AnyValueOf::Bool(is),
    };
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traces::{Facts, Kind};

    #[test]
    fn what_a_person_says_of_the_source_comes_first() {
        let given = vec![("service.name".to_owned(), "mine".to_owned())];
        let attributes = Source::new(given, "shop").resource.attributes;
        let names: Vec<_> = attributes.iter().filter(|pair| pair.key == "service.name").collect();
        assert_eq!(names, [&attribute("service.name", "mine".into())]);
        let of = |key: &str| attributes.iter().any(|pair| pair.key == key);
        assert!(of("service.instance.id") && of("telemetry.sdk.version"));
    }

    #[test]
    fn a_host_has_a_uuid() {
        let id = instance_id();
        assert_eq!((id.len(), &id[14..15]), (36, "4"), "{id}");
        assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"), "{id}");
    }

    #[test]
    fn a_span_is_what_the_collector_reads() {
        let mut facts = Facts::default();
        facts.set("http.request.method", "GET");
        facts.fail("trap");
        let recorded = Span {
            trace: 1,
            id: 2,
            parent: 3,
            is_remote: true,
            flags: 1,
            state: None,
            name: "GET web".to_owned(),
            kind: Kind::Server,
            start_ns: 10,
            end_ns: 5,
            facts,
        };
        let bytes = Source::new(vec![], "shop").spans(vec![recorded]);
        let request = ExportTraceRequest::decode(&*bytes).unwrap();
        let read = &request.resource_spans[0].scope_spans[0].spans[0];
        assert_eq!(read.trace_id, 1u128.to_be_bytes());
        assert_eq!((read.span_id.len(), read.parent_span_id.as_slice()), (8, &3u64.to_be_bytes()[..]));
        assert_eq!((read.kind, read.flags), (2, 0x301));
        assert_eq!(
            (read.start_time_unix_nano, read.end_time_unix_nano),
            (10, 10),
            "none ends before it begins"
        );
        assert_eq!(read.status.as_ref().unwrap().code, STATUS_ERROR);
        assert_eq!(read.attributes.len(), 2);
    }
}
