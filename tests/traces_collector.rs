//! Collectors that are gone, slow, or don't take what they are sent; the variables of OpenTelemetry; metrics by OTLP.

use std::collections::BTreeSet;

use crate::harness::{Collector, Formation, Host, address_of_its_own, eventually};

/// The fate of spans, as metrics say it.
fn spans(host: &Host, result: &str) -> f64 {
    host.metrics().get(&format!("wasmhost_otlp_spans_total{{result=\"{result}\"}}"))
}

#[test]
fn metrics_are_those_that_are_scraped() {
    let collector = Collector::open();
    let formation = crate::metrics::every_trigger().variable("OTEL_RESOURCE_ATTRIBUTES", "team=a%20b");
    let host = Host::run(&collector.of(formation));
    for _ in 0..3 {
        host.get("/ok").ok();
    }
    let scraped = eventually("three are counted", || {
        let metrics = host.metrics();
        (metrics.get("wasmhost_http_request_duration_seconds_count{type=\"web\"}") == 3.0).then_some(metrics)
    });
    let sent = collector.metrics("the metrics have come", |metrics| {
        let requests = metrics.get("wasmhost_http_request_duration_seconds")?;
        (requests.points.get("type=web") == Some(&3.0)).then(|| metrics.clone())
    });
    let labels = scraped.labels();
    let names: BTreeSet<&str> = labels.keys().copied().collect();
    assert_eq!(sent.keys().map(String::as_str).collect::<BTreeSet<_>>(), names);
    for (name, metric) in &sent {
        assert_eq!(metric.kind, scraped.families[name], "{name}");
        assert!(metric.is_cumulative, "{name}");
    }
    let units = [
        "wasmhost_cpu_seconds_total",
        "wasmhost_memory_bytes",
        "wasmhost_jobs_total",
        "wasmhost_canary_ratio",
    ];
    assert_eq!(units.map(|name| sent[name].unit.as_str()), ["s", "By", "", "1"]);
    assert_eq!(sent["wasmhost_instances_desired"].points["type=web"], 2.0);
    let service = collector.span("a request", |span| span.name == "GET web").resource;
    assert_eq!((service["service.name"].as_str(), service["team"].as_str()), ("test", "a b"));
    assert!(service.contains_key("service.instance.id") && service.contains_key("telemetry.sdk.version"));
}

#[test]
fn spans_that_are_left_are_sent_before_the_host_ends() {
    let collector = Collector::open();
    let formation = collector.of(Formation::web("")).variable("OTEL_BSP_SCHEDULE_DELAY", "3600000");
    let formation =
        formation.variable("OTEL_METRIC_EXPORT_INTERVAL", "3600000").variable("OTEL_SERVICE_NAME", "shop");
    let host = Host::run(&formation);
    host.get("/ok").ok();
    assert_eq!(collector.spans(), []);
    assert_eq!(host.stop().code, 0);
    let spans = collector.spans();
    assert_eq!(spans.len(), 3, "{spans:#?}");
    assert!(spans.iter().all(|span| span.resource["service.name"] == "shop"));
    collector.metrics("the last metrics", |metrics| {
        metrics.get("wasmhost_cpu_seconds_total")?.points.get("type=web").copied()
    });
}

#[test]
fn a_collector_that_is_busy_is_asked_again() {
    let collector = Collector::open();
    collector.will_answer(&["503 No\r\nretry-after: 0\r\n\r\n", "429 No\r\nretry-after: 0\r\n\r\n"]);
    let formation = collector.of(Formation::web("").health()).variable("OTEL_METRICS_EXPORTER", "none");
    let host = Host::run(&formation);
    host.get("/ok").ok();
    collector.span("the request", |span| span.name == "GET web");
    eventually("all three are there", || (spans(&host, "sent") >= 3.0).then_some(()));
    assert_eq!((spans(&host, "failed"), spans(&host, "dropped")), (0.0, 0.0));
    assert!(collector.requests("/v1/metrics").is_empty());
}

#[test]
fn a_collector_that_refuses_is_told_of_once() {
    let collector = Collector::open();
    let formation = collector.of(Formation::web("").health()).variable("OTEL_METRICS_EXPORTER", "none");
    let host = Host::run(&formation);
    collector.will_answer(&["400 No\r\n\r\n"; 100]);
    host.get("/ok").ok();
    let line = host.stderr().wait_for("spans are lost");
    assert!(line.contains("/v1/traces doesn't take: the answer was 400"), "{line}");
    let batches = || host.metrics().get("wasmhost_otlp_export_failures_total{signal=\"traces\"}");
    eventually("more are lost", || {
        host.get("/ok").ok();
        (batches() >= 2.0 && spans(&host, "failed") >= 4.0).then_some(())
    });
    assert_eq!(host.stderr().all().iter().filter(|line| line.contains("are lost")).count(), 1);
}

#[test]
fn a_collector_that_takes_a_part_says_why() {
    let collector = Collector::open();
    // partial_success { rejected: 1, error_message: "too old" }
    collector.will_answer(&["200 OK\r\n\r\n\x0a\x0b\x08\x01\x12\x07too old"]);
    let formation = collector.of(Formation::web("").health()).variable("OTEL_METRICS_EXPORTER", "none");
    let host = Host::run(&formation);
    host.get("/ok").ok();
    let line = host.stderr().wait_for("has taken spans but for 1");
    assert!(line.contains("too old"), "{line}");
    eventually("it is counted", || (spans(&host, "rejected") == 1.0).then_some(()));
}

#[test]
fn a_collector_that_never_answers_is_not_felt_and_what_it_does_not_take_is_dropped() {
    let collector = Collector::open();
    collector.be_silent();
    let formation = collector.of(Formation::web("").health());
    let formation =
        formation.variable("OTEL_BSP_MAX_QUEUE_SIZE", "10").variable("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "5");
    let host = Host::run(&formation);
    for _ in 0..100 {
        host.get("/ok").ok();
    }
    host.stderr().wait_for("spans are dropped");
    assert!(spans(&host, "dropped") >= 100.0);
    assert_eq!(host.stop().code, 0);
}

#[test]
fn a_collector_that_is_gone_is_not_felt() {
    let gone = address_of_its_own();
    let formation =
        Formation::web("").health().variable("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{gone}"));
    let formation =
        formation.variable("OTEL_BSP_SCHEDULE_DELAY", "10").variable("OTEL_BSP_EXPORT_TIMEOUT", "100");
    let host = Host::run(&formation);
    for _ in 0..10 {
        host.get("/ok").ok();
    }
    let line = host.stderr().wait_for("spans are lost");
    assert!(line.contains("onnect"), "{line}");
    eventually("they are counted", || (spans(&host, "failed") >= 30.0).then_some(()));
    assert_eq!(host.stop().code, 0);
}

#[test]
fn headers_are_sent_and_shown_nowhere() {
    let collector = Collector::open();
    let formation = collector.of(Formation::web(""));
    let formation =
        formation.variable("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20swordfish,x-b=c");
    let host = Host::run(&formation.variable("WASMHOST_LOG", "trace"));
    host.get("/ok").ok();
    let request = collector.asked("/v1/traces");
    assert_eq!(request.headers["authorization"], "Bearer swordfish");
    assert_eq!(request.headers["x-b"], "c");
    assert_eq!(request.headers["content-type"], "application/x-protobuf");
    let ended = host.stop();
    assert!(!format!("{}{}", ended.stdout, ended.stderr).contains("swordfish"), "{ended:#?}");
}

#[test]
fn variables_that_cannot_be_used_are_told_before_the_host_starts() {
    for (name, value, told) in [
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "grpc",
            "OTEL_EXPORTER_OTLP_PROTOCOL: found \"grpc\", and only \"http/protobuf\" is there",
        ),
        (
            "OTEL_TRACES_EXPORTER",
            "jaeger",
            "OTEL_TRACES_EXPORTER: found \"jaeger\", expected \"otlp\" or \"none\"",
        ),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=b,swordfish", "OTEL_EXPORTER_OTLP_HEADERS: entry 2 isn't"),
    ] {
        let formation = Formation::web("").variable("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
        let ended = formation.variable(name, value).run_to_end();
        assert_eq!(ended.code, 2, "{ended:#?}");
        assert!(ended.stderr.contains(told) && !ended.stderr.contains("swordfish"), "{ended:#?}");
    }
    let formation = Formation::web("").variable("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
    let formation = formation.variable("OTEL_EXPORTER_OTLP_CERTIFICATE", "nowhere.pem");
    let ended = formation.run_to_end();
    assert_eq!(ended.code, 3, "{ended:#?}");
    assert!(ended.stderr.contains("OTEL_EXPORTER_OTLP_CERTIFICATE: nowhere.pem can't be used"), "{ended:#?}");
}

#[test]
fn numbers_that_cannot_be_used_are_told_once_and_the_host_starts() {
    let collector = Collector::open();
    let formation = collector.of(Formation::web("")).variable("OTEL_BSP_MAX_QUEUE_SIZE", "many");
    let host = Host::run(&formation.variable("OTEL_TRACES_SAMPLER", "some"));
    host.get("/ok").ok();
    collector.span("the request", |span| span.name == "GET web");
    for told in ["OTEL_BSP_MAX_QUEUE_SIZE: found", "OTEL_TRACES_SAMPLER: found"] {
        assert_eq!(host.stderr().all().iter().filter(|line| line.contains(told)).count(), 1, "{told}");
    }
}

#[test]
fn nothing_is_sent_where_it_is_turned_off() {
    let collector = Collector::open();
    let host = Host::run(&collector.of(Formation::web("")).variable("OTEL_SDK_DISABLED", "true"));
    host.get("/ok").ok();
    assert_eq!(host.stop().code, 0);
    assert!(collector.requests("/v1/traces").is_empty() && collector.requests("/v1/metrics").is_empty());
}
