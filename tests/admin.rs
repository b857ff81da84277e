//! The admin API as a program meets it: bounds, refusals, and connections that stall.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Formation, Host, PATIENCE, eventually};

/// The store belongs to another process for longer than the host waits for it.
#[test]
fn counts_that_can_not_be_stored_are_503_and_stay_as_they_were() {
    let api = Api::new();
    let store = api.host.store();
    store.hold();
    for body in [r#"{"changes": [{"process": "web", "to": {"count": 2}}]}"#, r#"{"reset_all": true}"#] {
        let why = api.refused(503, "POST", "/v1/scale", body);
        assert!(why.starts_with("the counts could not be saved, and were not changed: "), "{why}");
    }
    let ended = api.host.cli(["scale", "web=2"]).failed(1, "the counts could not be saved");
    assert_eq!(ended.stdout, "");
    store.release();
    assert_eq!(api.host.ps().number("web", "desired"), 1);
    assert_eq!(api.host.cli(["scale", "web=2"]).done(), "web=2 clock=1\n");
}

#[test]
fn a_canary_is_asked_for_in_whole_percents_and_ended_where_there_is_one() {
    let api = Api::new();
    for percent in ["0", "100", "1000"] {
        let why = api.refused(400, "POST", "/v1/deploy", &format!("{{\"canary_percent\": {percent}}}"));
        assert_eq!(why, format!("canary_percent: found {percent}, expected from 1 to 99"));
    }
    for percent in ["-1", "0.5", "\"10%\""] {
        api.refused(400, "POST", "/v1/deploy", &format!("{{\"canary_percent\": {percent}}}"));
    }
    for target in ["/v1/promote", "/v1/abort"] {
        let why = api.refused(409, "POST", target, "{}");
        assert!(why.starts_with("no deploy is under way, and no release is on canary"), "{why}");
        assert!(api.refused(400, "POST", target, "{\"nonsense\": 1}").contains("nonsense"));
    }
}

struct Api {
    formation: Formation,
    host: Host,
}

impl Api {
    fn new() -> Api {
        let formation = Formation::web("").process("clock", "tick-test", "schedule = \"@yearly\"");
        let host = Host::run(&formation);
        Api { formation, host }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.formation.path(".wasmhost/admin.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// The status, and the answer's JSON.
    #[track_caller]
    fn send(&self, method: &str, target: &str, body: &[u8]) -> (u16, Value) {
        let mut stream = self.connect();
        let length = body.len();
        let head = format!(
            "{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        // A body that is too long may be refused before it is sent.
        let _ = stream.write_all(body);
        read(&mut stream, &format!("{method} {target}"))
    }

    #[track_caller]
    fn refused(&self, status: u16, method: &str, target: &str, body: &str) -> String {
        let (found, answer) = self.send(method, target, body.as_bytes());
        assert_eq!(found, status, "{method} {target} {body}: {answer}");
        assert_eq!(answer["status"], status, "{method} {target} {body}: {answer}");
        for text in ["type", "title", "detail"] {
            assert!(answer[text].is_string(), "{method} {target} {body}: no {text} in {answer}");
        }
        answer["detail"].as_str().unwrap().to_owned()
    }
}

#[track_caller]
fn read(stream: &mut UnixStream, what: &str) -> (u16, Value) {
    let mut text = Vec::new();
    // A reset after the answer is no answer's end, and none of its text.
    let _ = stream.read_to_end(&mut text);
    let text = String::from_utf8(text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{what}: no answer in {text:?}"));
    let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
    let expected = if status < 400 { "application/json" } else { "application/problem+json" };
    let fields = format!("{}\r\n", head.to_lowercase());
    let is_json = fields.contains(&format!("\r\ncontent-type: {expected}\r\n"));
    let body = if is_json { serde_json::from_str(body).unwrap() } else { Value::String(body.to_owned()) };
    (status, body)
}

#[test]
fn a_request_is_an_object_of_known_fields() {
    let api = Api::new();
    let object = "expected an object";
    for target in [
        "/v1/scale",
        "/v1/restart",
        "/v1/jobs/retry",
        "/v1/jobs/cancel",
        "/v1/jobs/discard",
        "/v1/store/backup",
    ] {
        for body in ["[]", "[[]]", "null", "5", "\"web\"", "[\"web\"]"] {
            let why = api.refused(400, "POST", target, body);
            assert!(why.contains(object), "{target} {body}: {why}");
        }
        assert!(api.refused(400, "POST", target, "{\"nonsense\": 1}").contains("unknown field `nonsense`"));
        api.refused(400, "POST", target, "");
        api.refused(400, "POST", target, "{");
    }
    api.refused(400, "POST", "/v1/scale", "{\"changes\": [[\"web\", {\"count\": 2}]]}");
    // Nor does a list that came out empty mean all types.
    assert_eq!(
        api.send("POST", "/v1/scale", br#"{"changes": [{"process": "web", "to": {"count": 2}}]}"#).0,
        200
    );
    let empty = api.refused(400, "POST", "/v1/scale", r#"{"reset": []}"#);
    assert!(empty.contains("reset: found an empty list, expected at least one type"), "{empty}");
    api.refused(400, "POST", "/v1/scale", r#"{"reset": ["web"], "reset_all": true}"#);
    let (status, left) = api.send("POST", "/v1/scale", b"{}");
    assert_eq!((status, &left["types"][0]["desired"]), (200, &Value::from(2)), "{left}");
    let (status, reset) = api.send("POST", "/v1/scale", br#"{"reset_all": true}"#);
    assert_eq!((status, &reset["types"][0]["desired"]), (200, &Value::from(1)), "{reset}");
    api.refused(400, "POST", "/v1/queues/default/jobs", "[[\"payload\"]]");
    api.refused(400, "POST", "/v1/queues/default/jobs", "[5]");
    api.refused(400, "POST", "/v1/queues/default/jobs", "{\"payloda\": \"x\"}");
    assert_eq!(api.host.ps().number("web", "desired"), 1);
    assert_eq!(api.host.cli(["jobs", "ls"]).done().lines().count(), 1, "the head alone");
}

#[test]
fn a_request_without_fields_takes_none() {
    let api = Api::new();
    for target in [
        "/v1/queues/default/pause",
        "/v1/queues/default/resume",
        "/v1/schedules/clock/ticks",
        "/v1/jobs/1/retry",
        "/v1/jobs/1/cancel",
        "/v1/stop",
    ] {
        assert!(api.refused(400, "POST", target, "{\"nonsense\": 1}").contains("nonsense"));
        api.refused(400, "POST", target, "[]");
        api.refused(400, "POST", &format!("{target}?nonsense=1"), "");
    }
    api.refused(400, "GET", "/v1/formation?nonsense=1", "");
    api.refused(400, "GET", "/v1/logs?nonsense=1", "");
    api.refused(400, "POST", "/v1/scale?nonsense=1", "{}");
    for body in ["", "{}", "null"] {
        assert_eq!(api.send("POST", "/v1/queues/default/pause", body.as_bytes()).0, 200);
    }
}

#[test]
fn refusals_of_every_kind_are_problems() {
    let api = Api::new();
    api.refused(404, "GET", "/v1/nothing", "");
    api.refused(404, "PUT", "/v1/formation", "");
    api.refused(400, "GET", "/v1/jobs/%ff", "");
    api.refused(400, "GET", "/v1/logs?n=many", "");
    api.refused(404, "GET", "/v1/jobs/77", "");
}

/// A client's own text is a part of many refusals, and a person may see it on a terminal.
#[test]
fn a_refusal_shows_foreign_text_as_codes_and_cut() {
    let api = Api::new();
    let escaped = r#"{"\u001b[2J\u202e": 1}"#;
    for target in ["/v1/scale", "/v1/restart", "/v1/deploy", "/v1/stop", "/v1/queues/mail/jobs"] {
        let why = api.refused(400, "POST", target, escaped);
        assert!(why.contains(r"\u{1b}[2J\u{202e}"), "{target}: {why}");
    }
    let why = api.refused(400, "GET", "/v1/jobs?%1b%5b2J=1", "");
    assert!(why.contains(r"\u{1b}[2J"), "{why}");
    let why = api.refused(400, "POST", "/v1/scale", &format!("{{\"{}\": 1}}", "x".repeat(1 << 20)));
    assert!(why.contains("unknown field `xxx") && why.len() < 20_000, "{} bytes", why.len());
}

#[test]
fn a_program_is_told_which_bound_was_reached_and_when_to_try_again() {
    let formation = Formation::web("")
        .process("clock", "tick-test", "schedule = \"@yearly\"")
        .table("[queues.deep]\nmax_depth = 1\n[queues.wide]\nmax_bytes = \"2MiB\"\n[queues.fast]\nmax_per_second = 1");
    let host = Host::run(&formation);
    let api = Api { formation, host };
    let bound = |queue: &str, jobs: &str, status: u16, kind: &str, limit: Value| {
        let target = format!("/v1/queues/{queue}/jobs");
        api.refused(status, "POST", &target, jobs);
        let (_, problem) = api.send("POST", &target, jobs.as_bytes());
        assert_eq!(problem["type"], format!("urn:wasmhost:problem:{kind}"), "{problem}");
        assert_eq!(problem["limit"], limit, "{problem}");
        assert!(problem["retry_after_s"].as_u64().is_some_and(|seconds| seconds >= 1), "{problem}");
    };
    bound("deep", "[{}, {}]", 503, "queue-full", json!({ "name": "max_depth", "max": 1 }));
    let large = json!({ "payload": "x".repeat(900 << 10) });
    let three = json!([large, large, large]).to_string();
    bound("wide", &three, 503, "queue-full", json!({ "name": "max_bytes", "max": 2 << 20 }));
    // Taken whole, and a debt of a minute.
    let minute = json!(vec![json!({}); 60]).to_string();
    assert_eq!(api.send("POST", "/v1/queues/fast/jobs", minute.as_bytes()).0, 201);
    bound("fast", "[{}, {}, {}]", 429, "too-fast", json!({ "name": "max_per_second", "max": 1 }));
    let (_, other) = api.send("GET", "/v1/nothing", b"");
    assert_eq!((&other["type"], &other["title"]), (&json!("about:blank"), &json!("Not Found")), "{other}");
}

#[test]
fn a_body_has_32_mib_at_most() {
    const MAX: usize = 32 << 20;
    let api = Api::new();
    let body = |length: usize| {
        let mut body = b"{\"changes\": []}".to_vec();
        body.resize(length, b' ');
        body
    };
    assert_eq!(api.send("POST", "/v1/scale", &body(MAX)).0, 200);
    for target in ["/v1/scale", "/v1/queues/default/jobs", "/v1/stop"] {
        let (status, answer) = api.send("POST", target, &body(MAX + 1));
        assert_eq!(status, 413, "{target}: {answer}");
        assert!(answer["detail"].as_str().unwrap().contains("32 MiB"), "{target}: {answer}");
        assert_eq!(answer["type"], "urn:wasmhost:problem:body-too-long");
        assert_eq!(answer["limit"], json!({ "name": "body_bytes", "max": MAX }));
    }

    // The same without a length.
    let mut stream = api.connect();
    stream.write_all(b"POST /v1/scale HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 20, " ".repeat(1 << 20));
    for _ in 0..33 {
        if stream.write_all(chunk.as_bytes()).is_err() {
            break;
        }
    }
    let (status, answer) = read(&mut stream, "chunks");
    assert_eq!(status, 413, "{answer}");
    assert!(answer["detail"].as_str().unwrap().contains("32 MiB"), "{answer}");
    api.host.cli(["ps"]).done();
}

#[test]
fn a_connection_that_stalls_is_closed() {
    let api = Api::new();
    let begun = Instant::now();
    let stalled: Vec<_> = ["", "GET /v1/formation HT", "GET /v1/formation HTTP/1.1\r\nhost: x\r\nx-", "\r\n"]
        .map(|begin| {
            let mut stream = api.connect();
            stream.write_all(begin.as_bytes()).unwrap();
            stream
        })
        .into();
    // One that was used, and is idle since.
    let mut idle = api.connect();
    idle.write_all(b"GET /v1/formation HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    api.host.cli(["ps"]).done();
    for mut stream in stalled.into_iter().chain([idle]) {
        // It ends, or is reset: an error other than that is this test's patience at its end.
        let mut rest = Vec::new();
        if let Err(err) = stream.read_to_end(&mut rest) {
            assert_eq!(err.kind(), std::io::ErrorKind::ConnectionReset, "{err}");
        }
    }
    assert!(begun.elapsed() >= Duration::from_secs(9), "it had its time: {:?}", begun.elapsed());
}

#[test]
fn connections_are_bounded_and_those_that_stall_give_way() {
    let api = Api::new();
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", api.host.pid())).unwrap().count();
    let before = descriptors();
    // More than are served at once, and fewer than may wait.
    let stalled: Vec<_> = (0..300)
        .map(|_| {
            let mut stream = api.connect();
            stream.write_all(b"GET /v1/formation HT").unwrap();
            stream
        })
        .collect();
    // The host may have closed some of what it began with.
    eventually("most of those are served that may be", || (descriptors() >= before + 200).then_some(()));
    assert!(descriptors() <= before + 256 + 8, "{} more", descriptors() - before);
    // The request waits until others have had their time.
    assert_eq!(api.send("GET", "/v1/formation", b"").0, 200);
    assert!(descriptors() <= before + 256 + 8, "{} more", descriptors() - before);
    drop(stalled);
}
