//! Requests.

use std::collections::BTreeMap;
use std::thread;

use crate::harness::http::{Connection, Failed, Request};
use crate::harness::{Formation, Host, eventually};

/// The type and instance that answered, and its how many-th call of `/instance` it was.
fn instance(text: &str) -> (String, String, u64) {
    let mut lines = text.lines().map(str::to_owned);
    let mut line = || lines.next().unwrap();
    (line(), line(), line().parse().unwrap())
}

#[test]
fn a_request_goes_by_host_and_by_the_longest_prefix() {
    let host = Host::run(
        &Formation::new()
            .process("any", "web-test", "route = \"/env\"")
            .process("longer", "web-test", "route = \"/env/longer\"")
            .process("named", "web-test", "route = [\"c.example\", \"d.example/env\"]"),
    );
    let served = |target: &str, authority: &str| {
        let answer = host.send(&Request::get(target).header("host", authority));
        let from =
            answer.text().lines().find_map(|line| line.strip_prefix("WASMHOST_TYPE=").map(str::to_owned));
        (answer.status, from)
    };
    let by = |name: &str| (200, Some(name.to_owned()));
    assert_eq!(served("/env", "a.example"), by("any"));
    assert_eq!(served("/env?query", "a.example:8080"), by("any"));
    assert_eq!(served("/env", "c.example"), by("named"));
    assert_eq!(served("/env", "C.Example:80"), by("named"));
    assert_eq!(served("/env", "d.example"), by("named"));
    assert_eq!(host.send(&Request::get("/envy").header("host", "a.example")).text(), "no such page\n");
    // The guest's own 404: nothing was stripped, so that it doesn't know the path.
    assert_eq!(host.get("/env/longer/x").text(), "no such path\n");
    assert_eq!(host.get("/env/other").text(), "no such path\n");
    for (name, calls) in [("any", 3), ("longer", 1), ("named", 3)] {
        host.is_idle_after(name, calls);
    }
}

#[test]
fn what_has_no_route_is_404() {
    let host = Host::run(&Formation::web("route = \"/ok\""));
    let answer = host.get("/elsewhere");
    assert_eq!((answer.status, answer.text().as_str()), (404, "no such page\n"));
    assert_eq!(answer.header("wasmhost-error"), None);
    host.get("/ok").ok();
}

#[test]
fn a_body_comes_back_whole() {
    let host = Host::run(&Formation::web(""));
    assert_eq!(host.post("/echo", "hello").ok(), "hello");
    assert_eq!(host.post("/echo", "").ok(), "");
    let body: Vec<u8> = (0..5 << 20).map(|n: u32| (n % 251) as u8).collect();
    let answer = host.post("/echo", body.clone());
    assert_eq!(answer.status, 200);
    assert!(answer.body == body, "{} of {} bytes", answer.body.len(), body.len());
}

#[test]
fn a_chunked_body_comes_back_whole() {
    let host = Host::run(&Formation::web(""));
    let request = Request::post("/echo", "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")
        .header("transfer-encoding", "chunked");
    assert_eq!(host.send(&request).ok(), "hello world");
}

#[test]
fn a_large_answer_is_streamed() {
    let host = Host::run(&Formation::web("memory = \"16MiB\""));
    let answer = host.get("/big?bytes=50000000");
    assert_eq!((answer.status, answer.body.len()), (200, 50_000_000));
}

#[test]
fn the_guest_sees_the_request_as_the_client_sent_it() {
    let host = Host::run(&Formation::web(""));
    let request = Request::get("/headers?a=b%20c&d").header("Host", "shop.example:8080");
    let request = request.header("X-One", "1").header("x-two", "first").header("x-two", "second");
    let text = host.send(&request).ok();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..4], ["GET", "/headers?a=b%20c&d", "shop.example:8080", "http"], "{text}");
    for line in ["x-one: 1", "x-two: first", "x-two: second"] {
        assert!(lines[4..].contains(&line), "{line} in {text}");
    }
}

#[test]
fn head_has_no_body_and_the_connection_goes_on() {
    let host = Host::run(&Formation::web(""));
    let mut connection = host.connect();
    for target in ["/ok", "/big?bytes=100000"] {
        let answer = connection.send(&Request::head(target)).unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, 0));
    }
    assert_eq!(connection.send(&Request::get("/ok")).unwrap().ok(), "ok\n");
}

#[test]
fn a_status_is_the_guests() {
    let host = Host::run(&Formation::web(""));
    let mut connection = host.connect();
    for status in [201, 204, 304, 404, 418, 500, 503] {
        let answer = connection.send(&Request::get(&format!("/status?code={status}"))).unwrap();
        assert_eq!((answer.status, answer.header("wasmhost-error")), (status, None));
    }
}

#[test]
fn a_type_that_is_switched_off_says_so() {
    let host = Host::run(&Formation::web("count = 0"));
    host.get("/ok").is_error(503, "H14");
    host.cli(["scale", "web=1"]).done();
    host.get("/ok").ok();
    host.cli(["scale", "web=0"]).done();
    host.get("/ok").is_error(503, "H14");
}

#[test]
fn each_instance_has_its_own_memory_and_name() {
    let host = Host::run(&Formation::web("count = 4"));
    let seen = thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut connection = host.connect();
                    let mut seen = Vec::new();
                    for _ in 0..50 {
                        // Something slow, so that the others need another instance.
                        connection.send(&Request::get("/sleep?ms=1")).unwrap().ok();
                        seen.push(instance(&connection.send(&Request::get("/instance")).unwrap().ok()));
                    }
                    seen
                })
            })
            .collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    let mut calls: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (process, name, call) in seen {
        assert_eq!(process, "web");
        calls.entry(name).or_default().push(call);
    }
    assert!(calls.len() > 1, "{calls:?}");
    for (name, mut calls) in calls {
        assert!(["web.1", "web.2", "web.3", "web.4"].contains(&name.as_str()), "{name}");
        calls.sort_unstable();
        assert_eq!(calls, (1..=calls.len() as u64).collect::<Vec<_>>(), "{name} counts for itself");
    }
}

#[test]
fn the_instance_that_was_used_last_is_used_next() {
    let host = Host::run(&Formation::web("count = 4"));
    // A client has its answer a moment before the instance is back.
    let is_back = || eventually("all are idle", || (host.ps().in_state("web", "idle") == 4).then_some(()));
    let (_, first, _) = instance(&host.get("/instance").ok());
    for call in 2..=20 {
        is_back();
        assert_eq!(instance(&host.get("/instance").ok()), ("web".into(), first.clone(), call));
    }
    is_back();
    // While it is busy another one answers, which is then the one used last.
    let held = host.hold();
    let (_, second, call) = instance(&host.get("/instance").ok());
    assert_ne!(second, first);
    assert_eq!(call, 1);
    held.end();
}

#[test]
fn the_line_is_bounded() {
    let host = Host::run(&Formation::web("backlog = 1\nqueue_timeout = \"30s\""));
    let held = host.hold();
    thread::scope(|scope| {
        scope.spawn(|| assert_eq!(host.get("/ok").ok(), "ok\n"));
        eventually("one waits", || (host.ps().number("web", "waiting") == 1).then_some(()));
        host.get("/ok").is_error(503, "H11");
        held.end();
    });
    host.stderr().wait_for("H11");
}

#[test]
fn a_place_in_the_line_is_free_when_who_had_it_has_left() {
    let host = Host::run(&Formation::web("backlog = 1\nqueue_timeout = \"30s\""));
    let held = host.hold();
    let mut waits = host.connect();
    waits.send_raw(b"GET /ok HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    eventually("one waits", || (host.ps().number("web", "waiting") == 1).then_some(()));
    drop(waits);
    eventually("nobody waits", || (host.ps().number("web", "waiting") == 0).then_some(()));
    let mut next = host.connect();
    next.send_raw(b"GET /ok HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    eventually("another one waits", || (host.ps().number("web", "waiting") == 1).then_some(()));
    host.get("/ok").is_error(503, "H11");
    held.end();
    assert_eq!(next.read_answer(false).unwrap().ok(), "ok\n");
}

#[test]
fn who_waits_too_long_is_told() {
    let host = Host::run(&Formation::web("queue_timeout = \"50ms\""));
    let held = host.hold();
    host.get("/ok").is_error(504, "H12");
    held.end();
    eventually("it is free", || (host.ps().in_state("web", "idle") == 1).then_some(()));
    host.get("/ok").ok();
}

/// A client goes away while its request is under way: its instance is free again long before any timeout.
fn goes_away(request: &str) {
    let host = Host::run(&Formation::web("count = 2\ntimeout = \"10m\"").http("body_timeout = \"10m\""));
    let mut connection = host.connect();
    connection.send_raw(request.as_bytes()).unwrap();
    eventually("an instance is busy", || (host.ps().in_state("web", "busy") == 1).then_some(()));
    drop(connection);
    assert_eq!(host.get("/ok").ok(), "ok\n");
    eventually("two instances are idle", || (host.ps().in_state("web", "idle") == 2).then_some(()));
    assert_eq!(host.get("/ok").ok(), "ok\n");
}

#[test]
fn a_client_may_go_away_while_its_call_waits() {
    goes_away("GET /sleep?ms=600000 HTTP/1.1\r\nhost: x\r\n\r\n");
}

#[test]
fn a_client_may_go_away_while_its_call_computes() {
    goes_away("GET /loop HTTP/1.1\r\nhost: x\r\n\r\n");
}

#[test]
fn a_client_may_go_away_while_it_is_answered() {
    goes_away("GET /big?bytes=100000000000 HTTP/1.1\r\nhost: x\r\n\r\n");
}

#[test]
fn a_client_may_go_away_before_its_request_is_whole() {
    goes_away("POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsome\r\n");
}

/// The guest sends a head and some of the body, and then no more.
fn cut_off(target: &str) -> Host {
    let host = Host::run(&Formation::web(""));
    match host.try_send(&Request::get(target)) {
        Err(Failed::Cut(answer)) => assert_eq!((answer.status, answer.text().as_str()), (200, "some")),
        // As long as nothing was sent it may still become an error.
        Ok(answer) => answer.is_error(502, "H13"),
        other => panic!("{target}: {other:?}"),
    }
    host.get("/ok").ok();
    host
}

#[test]
fn an_answer_that_a_trap_cut_off_does_not_look_whole() {
    let host = cut_off("/trap-late");
    // Nobody but the log can tell that client why.
    assert!(host.stderr().wait_for("GET /trap-late").contains("wasm backtrace"));
}

#[test]
fn an_answer_that_its_guest_cut_off_does_not_look_whole() {
    cut_off("/cut");
}

#[test]
fn an_answer_that_a_timeout_cut_off_does_not_look_whole() {
    let host = Host::run(&Formation::web("timeout = \"2s\""));
    let mut connection = host.connect();
    connection.send_raw(b"GET /big?bytes=1000000000 HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    // Nobody reads it.
    eventually("the call was ended", || (host.ps().number("web", "restarts") == 1).then_some(()));
    match connection.read_answer(false) {
        Err(Failed::Cut(answer)) => assert_eq!(answer.status, 200),
        other => panic!("{:?}", other.map(|answer| (answer.status, answer.body.len()))),
    }
    host.stderr().wait_for("GET /big, after its answer had begun: the call took longer than its timeout");
}

#[test]
fn a_guest_may_work_on_after_its_answer() {
    let host = Host::run(&Formation::web(""));
    // The client has gone by then, with all that it came for.
    assert_eq!(host.get("/late?ms=1500").ok(), "sent\n");
    host.stdout().wait_for("late end");
    host.get("/ok").ok();
    assert_eq!(host.ps().number("web", "restarts"), 0);
}

#[test]
fn a_connection_serves_on_after_a_crash() {
    let host = Host::run(&Formation::web(""));
    let mut connection = host.connect();
    for _ in 0..3 {
        connection.send(&Request::get("/trap")).unwrap().is_error(502, "H13");
        assert_eq!(connection.send(&Request::get("/ok")).unwrap().ok(), "ok\n");
    }
}

#[test]
fn a_request_names_one_host() {
    let host = Host::run(&Formation::web(""));
    for head in ["GET /ok HTTP/1.1\r\n\r\n", "GET /ok HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"] {
        let mut connection = host.connect();
        connection.send_raw(head.as_bytes()).unwrap();
        assert_eq!(connection.read_answer(false).unwrap().status, 400, "{head:?}");
    }
}

#[test]
fn what_is_not_http_is_answered_with_an_error_or_not_at_all() {
    let host = Host::run(&Formation::web(""));
    for bytes in
        ["\u{16}\u{3}\u{1}", "GET\r\n\r\n", "GET /ok HTTP/1.1\r\nbad header\r\n\r\n", "\r\n\r\n\r\n\0\0\0\0"]
    {
        let mut connection: Connection = host.connect();
        connection.send_raw(bytes.as_bytes()).unwrap();
        connection.finish();
        match connection.read_answer(false) {
            Ok(answer) => assert!((400..500).contains(&answer.status), "{bytes:?}: {answer:?}"),
            Err(Failed::Unanswered(_)) => {}
            other => panic!("{bytes:?}: {other:?}"),
        }
    }
    let mut connection = host.connect();
    let long = "x".repeat(1 << 20);
    let _ = connection.send_raw(format!("GET /ok HTTP/1.1\r\nhost: x\r\nlong: {long}\r\n\r\n").as_bytes());
    match connection.read_answer(false) {
        Ok(answer) => assert_eq!(answer.status, 431),
        // It may have hung up before all of it was sent.
        Err(Failed::Unanswered(_)) => {}
        other => panic!("{other:?}"),
    }
    host.get("/ok").ok();
}

#[test]
fn upgrades_are_refused() {
    let host = Host::run(&Formation::web(""));
    let request = Request::get("/ok").header("connection", "upgrade").header("upgrade", "websocket");
    assert_eq!(host.send(&request).status, 501);
}
