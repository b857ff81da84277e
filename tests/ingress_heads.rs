//! A request's head on its way to the guest, and what is logged of it.

use serde_json::Value;

use crate::harness::http::{Answer, Request};
use crate::harness::{Formation, Host};

/// The header fields that `/headers` tells of a request.
struct Told(String);

impl Told {
    #[track_caller]
    fn by(answer: Answer) -> Told {
        Told(answer.ok())
    }

    /// Method, target, authority and scheme.
    fn request(&self) -> Vec<&str> {
        self.0.lines().take(4).collect()
    }

    fn header(&self, name: &str) -> Vec<&str> {
        let lines = self.0.lines().skip(4).filter_map(|line| line.split_once(": "));
        lines.filter(|(found, _)| *found == name).map(|(_, value)| value).collect()
    }
}

/// A request as proxies send it on.
fn forwarded() -> Request {
    Request::get("/headers")
        .header("host", "inner.example")
        .header("x-forwarded-for", "198.51.100.1, 203.0.113.7")
        .header("x-forwarded-proto", "https")
        .header("x-forwarded-host", "shop.example")
        .header("x-forwarded-port", "8443")
        .header("forwarded", "for=198.51.100.1")
}

#[test]
fn anybody_may_not_say_whom_a_request_came_from() {
    let host = Host::run(&Formation::web(""));
    let told = Told::by(host.send(&forwarded()));
    assert_eq!(told.request()[2..], ["inner.example", "http"]);
    assert_eq!(told.header("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(told.header("x-forwarded-proto"), ["http"]);
    assert_eq!(told.header("x-forwarded-host"), ["inner.example"]);
    assert!(told.header("x-forwarded-port").is_empty() && told.header("forwarded").is_empty());
}

#[test]
fn a_trusted_proxy_may() {
    let host = Host::run(&Formation::web("").http("trusted_proxies = [\"127.0.0.0/8\"]"));
    let told = Told::by(host.send(&forwarded()));
    assert_eq!(told.request()[2..], ["shop.example", "https"]);
    assert_eq!(told.header("x-forwarded-for"), ["198.51.100.1, 203.0.113.7, 127.0.0.1"]);
    assert_eq!(told.header("x-forwarded-proto"), ["https"]);
    assert_eq!(told.header("x-forwarded-host"), ["shop.example"]);
    assert_eq!(told.header("x-forwarded-port"), ["8443"]);
    let bad = Request::get("/headers").header("x-forwarded-host", "a b");
    assert_eq!(host.send(&bad).status, 400);
}

#[test]
fn routes_are_for_the_host_that_the_client_asked_for() {
    let formation = Formation::new().http("trusted_proxies = [\"127.0.0.1\"]").process(
        "shop",
        "web-test",
        "route = \"shop.example\"",
    );
    let host = Host::run(&formation);
    assert_eq!(host.send(&forwarded()).status, 200);
    assert_eq!(host.send(&Request::get("/ok").header("host", "inner.example")).status, 404);
}

#[test]
fn each_request_has_an_id_and_a_trace() {
    let host = Host::run(&Formation::web(""));
    let answer = host.get("/headers");
    let id = answer.header("x-request-id").unwrap().to_owned();
    let told = Told::by(answer);
    assert_eq!(told.header("x-request-id"), [id.as_str()]);
    assert_eq!(told.header("traceparent")[0].split('-').nth(1), Some(id.as_str()));
    assert_ne!(host.get("/headers").header("x-request-id"), Some(id.as_str()));

    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let named = Request::get("/headers").header("x-request-id", "mine-1").header("traceparent", trace);
    let answer = host.send(&named.clone().header("tracestate", "a=1"));
    assert_eq!(answer.header("x-request-id"), Some("mine-1"));
    let told = Told::by(answer);
    assert_eq!((told.header("traceparent"), told.header("tracestate")), (vec![trace], vec!["a=1"]));

    let long = "x".repeat(129);
    let told = Told::by(host.send(&Request::get("/headers").header("x-request-id", &long)));
    assert_eq!(told.header("x-request-id")[0].len(), 32);
}

#[test]
fn an_error_is_logged_with_the_requests_id() {
    let logged = |host: &Host, target: &str, id: &str, code: &str| {
        let answer = host.send(&Request::get(target).header("x-request-id", id));
        assert_eq!((answer.header("wasmhost-error"), answer.header("x-request-id")), (Some(code), Some(id)));
        let line: Value = serde_json::from_str(&host.stderr().wait_for(id)).unwrap();
        assert_eq!((&line["code"], &line["request_id"]), (&Value::from(code), &Value::from(id)), "{line}");
        assert_eq!(host.stderr().count(id), 1, "one line");
        line["message"].as_str().unwrap().to_owned()
    };
    let host = Host::run(&Formation::web("timeout = \"2s\""));
    assert!(logged(&host, "/trap", "trapped", "H13").contains("GET /trap"));
    assert!(logged(&host, "/sleep?ms=5000", "ran-too-long", "H12").contains("longer than its timeout"));
    let host = Host::run(&Formation::web("queue_timeout = \"50ms\""));
    let held = host.hold();
    assert!(logged(&host, "/ok", "waited-too-long", "H12").contains("waited for an instance"));
    held.end();
}

#[test]
fn the_access_log_has_a_line_for_each_request() {
    let formation = Formation::web("").http("access_log = \"json\"\ntrusted_proxies = [\"127.0.0.1\"]");
    let host = Host::run(&formation);
    host.send(&Request::get("/big?bytes=100000&secret=1").header("x-request-id", "big-one")).ok();
    let line: Value = serde_json::from_str(&host.stderr().wait_for("big-one")).unwrap();
    for (field, value) in [
        ("remote", Value::from("127.0.0.1")),
        ("method", "GET".into()),
        ("path", "/big".into()),
        ("version", "HTTP/1.1".into()),
        ("status", 200.into()),
        ("bytes", 100_000.into()),
        ("type", "web".into()),
        ("instance", "web.1".into()),
        ("request_id", "big-one".into()),
    ] {
        assert_eq!(line[field], value, "{field} in {line}");
    }
    assert!(line["duration_ms"].as_f64().unwrap() > 0.0 && line["time"].is_string(), "{line}");
    assert!(line["code"].is_null(), "{line}");

    host.send(
        &Request::get("/trap").header("x-request-id", "trapped").header("x-forwarded-for", "203.0.113.7"),
    );
    let line = host.stderr().wait_until("the line of the trap", |lines| {
        let line = lines.iter().find(|line| line.contains("\"trapped\"") && line.contains("duration_ms"));
        line.map(|line| serde_json::from_str::<Value>(line).unwrap())
    });
    assert_eq!(
        (&line["status"], &line["code"], &line["remote"]),
        (&502.into(), &"H13".into(), &"203.0.113.7".into())
    );

    assert_eq!(host.send(&Request::get("/none").header("host", "a b")).status, 400);
    host.stderr().wait_for("\"status\":400");
    host.stop().done();
}

#[test]
fn the_access_log_is_for_people_too_and_off_where_nobody_asks() {
    let host = Host::run(&Formation::web("").http("access_log = \"text\""));
    host.send(&Request::get("/ok").header("x-request-id", "one")).ok();
    let line = host.stderr().wait_for("request_id=one");
    assert!(line.contains(" 127.0.0.1 GET /ok HTTP/1.1 200 3B "), "{line}");
    assert!(line.ends_with("ms type=web instance=web.1 request_id=one"), "{line}");
    let host = Host::run(&Formation::web(""));
    host.send(&Request::get("/ok").header("x-request-id", "one")).ok();
    assert!(!host.stop().stderr.contains("one\""));
}

#[test]
fn expectations_and_upgrades_are_met_or_refused() {
    let host = Host::run(&Formation::web(""));
    let mut connection = host.connect();
    connection
        .send_raw(
            b"POST /write?path=/x HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n",
        )
        .unwrap();
    assert_eq!(connection.read_answer(true).unwrap().status, 100);
    connection.send_raw(b"hello").unwrap();
    assert_eq!(connection.read_answer(false).unwrap().status, 500, "the guest may not write files");
    assert_eq!(host.send(&Request::get("/ok").header("expect", "wonders")).status, 417);
    let h2c = Request::get("/ok").header("connection", "upgrade, http2-settings").header("upgrade", "h2c");
    assert_eq!(host.send(&h2c.header("http2-settings", "AAMAAABkAAQAoAAAAAIAAAAA")).ok(), "ok\n");
}

#[test]
fn http_1_0_is_served() {
    let host = Host::run(&Formation::web(""));
    let mut connection = host.connect();
    connection.send_raw(b"GET /headers HTTP/1.0\r\n\r\n").unwrap();
    let answer = connection.read_answer(false).unwrap();
    assert_eq!(answer.header("transfer-encoding"), None);
    // Nobody said whom it is for: whom it came to.
    assert_eq!(Told::by(answer).request()[2], host.address().to_string());
    let mut connection = host.connect();
    connection.send_raw(b"GET /big?bytes=100000 HTTP/1.0\r\nhost: x\r\n\r\n").unwrap();
    let answer = connection.read_answer(false).unwrap();
    assert_eq!((answer.header("transfer-encoding"), answer.body.len()), (None, 100_000));
    let mut connection = host.connect();
    for _ in 0..2 {
        connection.send_raw(b"GET /ok HTTP/1.0\r\nhost: x\r\nconnection: keep-alive\r\n\r\n").unwrap();
        assert_eq!(connection.read_answer(false).unwrap().ok(), "ok\n");
    }
}

#[test]
fn what_was_for_the_next_hop_does_not_reach_the_guest() {
    let host = Host::run(&Formation::web(""));
    let request = Request::get("/headers")
        .header("connection", "keep-alive, x-hop")
        .header("keep-alive", "timeout=5")
        .header("proxy-connection", "keep-alive")
        .header("x-hop", "1")
        .header("x-end", "2");
    let told = Told::by(host.send(&request));
    for name in ["connection", "keep-alive", "proxy-connection", "x-hop"] {
        assert!(told.header(name).is_empty(), "{name} in {}", told.0);
    }
    assert_eq!(told.header("x-end"), ["2"]);
}
