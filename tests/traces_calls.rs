//! Traces of calls that fail, and of those that are beside each other in one instance.

use std::collections::BTreeSet;

use crate::harness::http::Request;
use crate::harness::{Collector, Formation, Host, Kind, Outside, Span, address_of_its_own, eventually};

fn attribute<'a>(span: &'a Span, name: &str) -> Option<&'a str> {
    span.attributes.get(name).map(String::as_str)
}

#[test]
fn a_call_that_fails_says_how_and_so_does_its_request() {
    let collector = Collector::open();
    let formation = Formation::web("")
        .process("slow", "web-test", "route = \"/loop\"\ntimeout = \"500ms\"")
        .process("off", "web-test", "route = \"/off\"\ncount = 0");
    let host = Host::run(&collector.of(formation));
    host.post("/trap", "x").is_error(502, "H13");
    host.post("/loop", "x").is_error(504, "H12");
    host.get("/off").is_error(503, "H14");
    assert_eq!(host.get("/status?code=500").status, 500);
    assert_eq!(host.get("/status?code=404").status, 404);
    assert_eq!(host.send(&Request::get("/ok").header("expect", "much")).status, 417);
    assert_eq!(host.stop().code, 0);
    let spans = collector.spans();
    let of = |path: &str| {
        let found =
            spans.iter().find(|span| attribute(span, "url.path") == Some(path) && span.kind == Kind::Server);
        found.unwrap_or_else(|| panic!("no {path} in {spans:#?}"))
    };
    for (path, name, error) in [
        ("/trap", "POST web", Some("H13")),
        ("/loop", "POST slow", Some("H12")),
        ("/off", "GET off", Some("H14")),
        ("/ok", "GET", None),
    ] {
        let span = of(path);
        assert_eq!(
            (span.name.as_str(), attribute(span, "error.type"), span.failed),
            (name, error, error.is_some())
        );
    }
    let statuses: Vec<_> =
        spans.iter().filter(|span| attribute(span, "url.path") == Some("/status")).collect();
    for (status, failed) in [("500", true), ("404", false)] {
        let span = statuses.iter().find(|span| attribute(span, "http.response.status_code") == Some(status));
        assert_eq!(span.unwrap().failed, failed, "{span:#?}");
    }
    for (path, name, error) in [("/trap", "call web", "trap"), ("/loop", "call slow", "timeout")] {
        let request = of(path);
        let call = spans.iter().find(|span| span.parent == request.id && span.name == name).unwrap();
        assert_eq!((attribute(call, "error.type"), call.failed), (Some(error), true), "{call:#?}");
    }
}

#[test]
fn a_request_that_is_repeated_has_a_span_for_each_call() {
    let collector = Collector::open();
    let host = Host::run(&collector.of(Formation::web("env = { ONCE = \"1\" }")));
    host.get("/ok").ok();
    host.get("/ok").ok();
    assert_eq!(host.stop().code, 0);
    let spans = collector.spans();
    let calls: Vec<&Span> = spans.iter().filter(|span| span.name == "call web").collect();
    let failed: Vec<_> = calls.iter().filter(|span| span.failed).collect();
    assert_eq!((calls.len(), failed.len()), (3, 1), "{calls:#?}");
    assert_eq!(
        calls.iter().filter(|span| span.parent == failed[0].parent).count(),
        2,
        "one request has both"
    );
}

#[test]
fn a_request_that_a_guest_gave_up_or_could_not_send_says_so() {
    let (collector, outside) = (Collector::open(), Outside::open());
    let gone = address_of_its_own();
    let keys = outside.keys().replace("10m", "1s");
    let formation = Formation::web(&format!("outbound = [\"http://{gone}\"]")).process(
        "slow",
        "web-test",
        &format!("route = \"slow.example\"\n{keys}"),
    );
    let host = Host::run(&collector.of(formation));
    assert_eq!(host.get(&format!("/fetch?url=http://{gone}/")).status, 500);
    let refused = collector.span("one that could not be sent", |span| span.kind == Kind::Client);
    assert_eq!((attribute(&refused, "error.type"), refused.failed), (Some("ConnectionRefused"), true));
    host.send(&Request::get(&outside.target()).header("host", "slow.example")).is_error(504, "H12");
    let given_up =
        |span: &Span| span.kind == Kind::Client && attribute(span, "error.type") == Some("cancelled");
    collector.span("one that was given up", given_up);
}

/// Each is in the trace of its own job, though both are in one instance.
#[test]
fn what_jobs_in_one_instance_send_is_part_of_their_own_traces() {
    let collector = Collector::open();
    let worker =
        format!("queue = \"default\"\nconcurrency = 4\nenqueue = [\"default\"]\n{}", collector.outbound());
    let host = Host::run(&collector.of(Formation::new().process("worker", "job-async", &worker)));
    let ids = ["/a", "/b"].map(|path| {
        let lines = format!("together:2\nfetch:{}\nenqueue:print:{path}\nsleep:5", collector.url(path));
        host.enqueue("default", &lines)
    });
    ids.iter().for_each(|id| drop(host.store().wait_for(*id, "done")));
    host.stdout().wait_for("/a");
    host.stdout().wait_for("/b");
    let mut traces = BTreeSet::new();
    for (id, path) in ids.iter().zip(["/a", "/b"]) {
        let is_it = |span: &Span| {
            span.name == "process default" && attribute(span, "messaging.message.id") == Some(&id.to_string())
        };
        let job = collector.span("the job", is_it);
        let asked = collector.asked(path).headers["traceparent"].clone();
        let sent = collector.span("its request", |span| asked.contains(&span.id));
        assert_eq!((&sent.trace, &sent.parent, sent.kind), (&job.trace, &job.id, Kind::Client), "{path}");
        collector.span("the job that it made", |span| span.parent == job.id && span.name == "send default");
        traces.insert(job.trace);
    }
    assert_eq!(traces.len(), 2);
}

#[test]
fn a_guest_of_wasi_0_3_goes_on_in_the_trace_of_its_request() {
    let collector = Collector::open();
    let keys = format!("concurrency = 4\n{}", collector.outbound());
    let host = Host::run(&collector.of(Formation::new().process("web", "wasi03-service", &keys)));
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = Request::get(&format!("/forward?{}", collector.url("/called")))
        .header("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01"));
    assert_eq!(host.send(&request).status, 200);
    let call = collector.span("the call", |span| span.name == "call web");
    let sent = collector.span("its request", |span| span.kind == Kind::Client);
    assert_eq!((sent.trace.as_str(), &sent.parent), (trace, &call.id));
    assert_eq!(collector.asked("/called").headers["traceparent"], format!("00-{trace}-{}-01", sent.id));
}

#[test]
fn a_client_that_leaves_ends_its_span() {
    let collector = Collector::open();
    let host = Host::run(&collector.of(Formation::web("")));
    let mut connection = host.connect();
    connection.send_raw(b"GET /sleep?ms=600000 HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    eventually("it is served", || (host.ps().in_state("web", "busy") == 1).then_some(()));
    drop(connection);
    let gone = collector.span("the request", |span| span.kind == Kind::Server);
    assert_eq!(attribute(&gone, "error.type"), Some("client_gone"));
    assert_eq!(attribute(&gone, "http.response.status_code"), None);
}
