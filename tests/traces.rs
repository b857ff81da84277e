//! Traces: a client's, through the guests and the jobs that they make, to what those ask.

use std::collections::BTreeMap;

use crate::harness::http::Request;
use crate::harness::{Collector, Formation, Host, Kind, Process, Span, address_of_its_own, eventually};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT: &str = "00f067aa0ba902b7";

/// A client's `traceparent`.
fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{CLIENT}-{flags}")
}

/// Trace, span and flags of a `traceparent` that came.
fn parts(traceparent: &str) -> (String, String, String) {
    let parts: Vec<&str> = traceparent.split('-').collect();
    assert_eq!((parts.len(), parts[0]), (4, "00"), "{traceparent}");
    (parts[1].to_owned(), parts[2].to_owned(), parts[3].to_owned())
}

/// As a query has it.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// The span below this one that has this name.
#[track_caller]
fn below(collector: &Collector, parent: &Span, name: &str, kind: Kind) -> Span {
    let is_it = |span: &Span| span.parent == parent.id && span.name == name && span.trace == parent.trace;
    let span = collector.span(&format!("{name} below {}", parent.name), is_it);
    assert_eq!(span.kind, kind, "{span:?}");
    assert!(span.start <= span.end, "{span:?}");
    span
}

fn attribute<'a>(span: &'a Span, name: &str) -> &'a str {
    span.attributes.get(name).unwrap_or_else(|| panic!("no {name} in {span:#?}"))
}

/// A web type of two instances at a known place, and a worker; both may ask each other and the collector.
fn chain(collector: &Collector) -> (Formation, String) {
    let here = address_of_its_own();
    let outbound = format!("outbound = [\"http://{here}\", \"{}\"]", collector.url(""));
    let formation = Formation::web(&format!("count = 2\nenqueue = [\"mail\"]\n{outbound}"))
        .http(&format!("listen = \"{here}\""))
        .process("worker", "job-test", &format!("queue = \"mail\"\n{outbound}"));
    (collector.of(formation), here.to_string())
}

/// Client -> web -> web -> job -> worker -> outside.
#[test]
fn a_request_the_job_that_it_made_and_what_that_called_are_one_trace() {
    let collector = Collector::open();
    let (formation, here) = chain(&collector);
    let host = Host::run(&formation);
    let job = format!("fetch:{}", collector.url("/outside?secret=1"));
    let inner = format!("http://{here}/enqueue?queue=mail&secret=2");
    let target = format!("/send?method=POST&url={}&body={}", encoded(&inner), encoded(&job));
    let request = Request::get(&target)
        .header("traceparent", &traceparent("01"))
        .header("tracestate", "vendor=a")
        .header("authorization", "Bearer secret");
    assert!(host.send(&request).ok().starts_with("201\n"));

    let outer = collector.span("the client's request", |span| span.parent == CLIENT);
    assert_eq!((outer.trace.as_str(), outer.name.as_str(), outer.kind), (TRACE, "GET web", Kind::Server));
    assert_eq!((outer.state.as_str(), outer.flags), ("vendor=a", 0x301));
    assert_eq!(outer.resource["service.name"], "test");
    let wait = below(&collector, &outer, "wait web", Kind::Internal);
    let call = below(&collector, &outer, "call web", Kind::Internal);
    assert!(outer.start <= wait.start && wait.end <= call.start && call.start <= outer.end, "{outer:?}");
    let sent = below(&collector, &call, "POST", Kind::Client);
    let inner = below(&collector, &sent, "POST web", Kind::Server);
    let call = below(&collector, &inner, "call web", Kind::Internal);
    let enqueued = below(&collector, &call, "send mail", Kind::Producer);
    let waited = below(&collector, &enqueued, "wait mail", Kind::Internal);
    let job = below(&collector, &enqueued, "process mail", Kind::Consumer);
    assert_eq!(waited.end, job.start);
    let asked = below(&collector, &job, "GET", Kind::Client);
    let outside = collector.asked("/outside?secret=1");
    assert_eq!(parts(&outside.headers["traceparent"]), (TRACE.into(), asked.id.clone(), "01".into()));
    assert_eq!(outside.headers["tracestate"], "vendor=a");

    for (span, name, value) in [
        (&outer, "http.request.method", "GET"),
        (&outer, "url.path", "/send"),
        (&outer, "url.scheme", "http"),
        (&outer, "http.response.status_code", "200"),
        (&outer, "wasmhost.type", "web"),
        (&outer, "client.address", "127.0.0.1"),
        (&outer, "server.address", here.split(':').next().unwrap()),
        (&inner, "http.response.status_code", "201"),
        (&sent, "http.request.method", "POST"),
        (&sent, "http.response.status_code", "201"),
        (&asked, "server.address", "127.0.0.1"),
        (&asked, "url.full", &collector.url("/outside")),
        (&enqueued, "messaging.destination.name", "mail"),
        (&enqueued, "messaging.operation.type", "send"),
        (&job, "messaging.operation.type", "process"),
        (&job, "messaging.message.id", attribute(&enqueued, "messaging.message.id")),
        (&job, "wasmhost.instance", "worker.1"),
        (&job, "wasmhost.job.attempt", "1"),
        (&job, "wasmhost.job.result", "done"),
    ] {
        assert_eq!(attribute(span, name), value, "{name} of {}", span.name);
    }
    let spans = collector.spans();
    assert!(spans.iter().all(|span| span.trace == TRACE && !span.failed), "{spans:#?}");
    let secrets = ["secret", "Bearer"];
    assert!(!secrets.iter().any(|secret| format!("{spans:?}").contains(secret)), "{spans:#?}");
}

#[test]
fn a_trace_that_is_not_recorded_goes_on_all_the_same() {
    let collector = Collector::open();
    let (formation, _) = chain(&collector);
    let host = Host::run(&formation);
    let get = |path: &str, flags: &str| {
        let target = format!("/fetch?url={}", encoded(&collector.url(path)));
        host.send(&Request::get(&target).header("traceparent", &traceparent(flags))).ok();
        parts(&collector.asked(path).headers["traceparent"])
    };
    let (trace, _, flags) = get("/unrecorded", "00");
    assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "00"));
    let job = format!("fetch:{}", collector.url("/by-job"));
    let request = Request::post("/enqueue?queue=mail", job).header("traceparent", &traceparent("00"));
    assert_eq!(host.send(&request).status, 201);
    let (trace, _, flags) = parts(&collector.asked("/by-job").headers["traceparent"]);
    assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "00"));
    let (_, _, flags) = get("/recorded", "01");
    assert_eq!(flags, "01");
    // All that was recorded before is there by the time that the host has ended.
    assert_eq!(host.stop().code, 0);
    let first: Vec<Span> = collector.spans().into_iter().filter(|span| span.parent == CLIENT).collect();
    assert_eq!(first.len(), 1, "{first:#?}");
    assert!(collector.spans().iter().all(|span| !span.name.contains("mail")), "{:#?}", collector.spans());
}

#[test]
fn a_trace_that_begins_here_is_sampled_as_the_variable_says() {
    let collector = Collector::open();
    let formation =
        collector.of(Formation::web("")).variable("OTEL_TRACES_SAMPLER", "parentbased_always_off");
    let host = Host::run(&formation);
    let told = |request: Request| {
        let headers = host.send(&request).ok();
        let line = headers.lines().find_map(|line| line.strip_prefix("traceparent: "));
        parts(line.unwrap_or_else(|| panic!("{headers}")))
    };
    let (trace, _, flags) = told(Request::get("/headers"));
    assert_eq!((trace.len(), flags.as_str()), (32, "00"));
    let (trace, span, flags) = told(Request::get("/headers").header("traceparent", &traceparent("01")));
    assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "01"));
    assert_eq!(host.stop().code, 0);
    let spans = collector.spans();
    assert!(spans.iter().all(|other| other.trace == TRACE), "{spans:#?}");
    let call = spans.iter().find(|other| other.id == span).unwrap();
    assert_eq!(call.name, "call web", "the guest was told of the span that it runs in");
}

#[test]
fn a_trace_goes_on_where_no_sampler_records_it() {
    let collector = Collector::open();
    let formation = collector.of(Formation::web("")).variable("OTEL_TRACES_SAMPLER", "always_off");
    let host = Host::run(&formation);
    let request = Request::get("/headers").header("traceparent", &traceparent("01"));
    let headers = host.send(&request).ok();
    assert!(headers.contains(&format!("traceparent: {}\n", traceparent("00"))), "{headers}");
    assert_eq!(host.stop().code, 0);
    assert_eq!(collector.spans(), []);
}

#[test]
fn a_jobs_trace_is_kept_when_the_host_starts_again() {
    let collector = Collector::open();
    let (formation, _) = chain(&collector);
    let host = Host::run(&formation);
    host.cli(["jobs", "pause", "mail"]).done();
    host.enqueue("mail", &format!("fetch:{}", collector.url("/later")));
    let sent = collector.span("the enqueue", |span| span.name == "send mail");
    assert_eq!(sent.parent, "", "the command line has no trace");
    assert_eq!(host.stop().code, 0);
    let host = Host::run(&formation);
    host.cli(["jobs", "resume", "mail"]).done();
    let job = below(&collector, &sent, "process mail", Kind::Consumer);
    let asked = below(&collector, &job, "GET", Kind::Client);
    let (trace, span, _) = parts(&collector.asked("/later").headers["traceparent"]);
    assert_eq!((trace, span), (sent.trace, asked.id));
}

#[test]
fn each_attempt_of_a_job_is_a_span_of_its_trace_and_says_how_it_failed() {
    let collector = Collector::open();
    let (formation, _) = chain(&collector);
    let host = Host::run(&formation);
    host.enqueue("mail", "retry-after:1");
    let sent = collector.span("the enqueue", |span| span.name == "send mail");
    let attempt = |number: &str| {
        let is_it = |span: &Span| {
            span.parent == sent.id
                && span.attributes.get("wasmhost.job.attempt").is_some_and(|found| found == number)
        };
        collector.span(&format!("attempt {number}"), is_it)
    };
    for number in ["1", "2"] {
        let attempt = attempt(number);
        assert!(attempt.failed && attribute(&attempt, "error.type") == "retry", "{attempt:#?}");
        assert_eq!(attribute(&attempt, "wasmhost.job.result"), "retrying");
    }
    let waits = || {
        let spans = collector.spans();
        let waits: Vec<Span> = spans.into_iter().filter(|span| span.name == "wait mail").collect();
        (waits.len() >= 2).then_some(waits)
    };
    eventually("each has waited", waits);
}

#[test]
fn a_tick_is_a_trace_of_its_own() {
    let collector = Collector::open();
    let out = "dirs = [{ host = \"out\", guest = \"/out\", access = \"write\" }]";
    let clock = format!("schedule = \"0 0 1 1 *\"\n{out}");
    let formation = Formation::new().directory("out").process("clock", "tick-test", &clock);
    let host = Host::run(&collector.of(formation));
    host.cli(["tick", "clock"]).done();
    let tick = collector.span("the tick", |span| span.name == "tick clock");
    assert_eq!((tick.parent.as_str(), tick.kind, tick.failed), ("", Kind::Internal, false));
    assert_eq!(attribute(&tick, "wasmhost.tick.manual"), "true");
    assert_eq!(attribute(&tick, "wasmhost.tick.result"), "done");
    below(&collector, &tick, "wait clock", Kind::Internal);
    let call = below(&collector, &tick, "call clock", Kind::Internal);
    assert_eq!(attribute(&call, "wasmhost.instance"), "clock.1");
}

#[test]
fn a_deploy_is_a_trace_of_its_own_with_its_steps() {
    let collector = Collector::open();
    let formation = collector.of(Formation::new().versioned("web", "web-test", "1", ""));
    let host = Host::run(&formation);
    formation.build("web", "web-test", "2");
    host.cli(["deploy", "--dry-run"]).done();
    host.cli(["deploy"]).done();
    let deploy = collector.span("the deploy", |span| span.name == "deploy");
    assert_eq!((deploy.parent.as_str(), deploy.failed), ("", false));
    assert_eq!(
        (attribute(&deploy, "wasmhost.deploy.result"), attribute(&deploy, "wasmhost.release")),
        ("live", "2")
    );
    for event in ["changes", "begun v2", "trying web"] {
        assert!(deploy.events.iter().any(|found| found == event), "{event} in {deploy:#?}");
    }
    host.cli(["rollback"]).done();
    let back = collector.span("the rollback", |span| span.name == "rollback");
    assert_eq!(attribute(&back, "wasmhost.deploy.result"), "live");
    let names: BTreeMap<String, usize> =
        collector.spans().into_iter().fold(BTreeMap::new(), |mut names, span| {
            *names.entry(span.name).or_default() += 1;
            names
        });
    assert_eq!(names.get("deploy"), Some(&1), "a dry run is none");
}

#[test]
fn a_job_that_a_person_enqueues_goes_on_with_the_trace_of_the_environment() {
    let collector = Collector::open();
    let (formation, _) = chain(&collector);
    let _host = Host::run(&formation);
    let enqueue = |payload: &str, parent: &str| {
        let variables =
            [("TRACEPARENT".to_owned(), parent.into()), ("TRACESTATE".to_owned(), "vendor=a".into())];
        Process::start_with(&formation.path(""), ["enqueue", "mail", payload], "", &variables).wait().done()
    };
    enqueue("ok", &traceparent("01"));
    let sent = collector.span("the enqueue", |span| span.parent == CLIENT);
    assert_eq!((sent.name.as_str(), sent.kind, sent.trace.as_str()), ("send mail", Kind::Producer, TRACE));
    assert_eq!(sent.state, "vendor=a");
    below(&collector, &sent, "process mail", Kind::Consumer);
    // One that isn't well-formed is nobody's trace, and no reason not to enqueue.
    enqueue("ok", "00-0-0-0");
    collector.span("another enqueue", |span| span.name == "send mail" && span.trace != TRACE);
}
