//! The lines that tell an operator of requests that the host refuses by itself.

use serde_json::Value;

use crate::harness::http::Request;
use crate::harness::{Formation, Host};

/// A type for one name, that refuses bodies above 1 KiB.
fn formation(keys: &str) -> Formation {
    let formation = Formation::new().http(keys);
    formation.process("shop", "web-test", "route = \"shop.example\"\nmax_body = \"1KiB\"")
}

/// The one line with this text, which is for information.
#[track_caller]
fn line(host: &Host, text: &str) -> Value {
    let line = host.stderr().wait_for(text);
    assert_eq!(host.stderr().count(text), 1, "one line");
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["level"], &line["code"]), (&Value::from("INFO"), &Value::Null), "{line}");
    line
}

/// Sends these bytes to a host, and sees what it answers and what it logs of that.
#[track_caller]
fn refuses(host: &Host, id: &str, bytes: &str, status: u16, message: &str) {
    let mut connection = host.connect();
    let (first, rest) = bytes.split_once("\r\n").unwrap();
    connection.send_raw(format!("{first}\r\nx-request-id: {id}\r\n{rest}").as_bytes()).unwrap();
    assert_eq!(connection.read_answer(false).unwrap().status, status, "{id}");
    let line = line(host, id);
    assert_eq!(
        (&line["status"], &line["remote"], &line["request_id"], &line["message"]),
        (&Value::from(status), &Value::from("127.0.0.1"), &Value::from(id), &Value::from(message)),
        "{line}"
    );
}

#[test]
fn a_request_that_the_host_refuses_has_a_line() {
    let host = Host::run(&formation("body_timeout = \"300ms\""));
    let refuses = |id, bytes: &str, status, message: &str| refuses(&host, id, bytes, status, message);
    refuses("no-route", "GET /x?secret=1 HTTP/1.1\r\nhost: a\r\n\r\n", 404, "GET /x: no such page");
    // A line has no more of a path than tells what was asked for.
    refuses(
        "long",
        &format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(10_000)),
        404,
        &format!("GET /{}...: no such page", "x".repeat(255)),
    );
    refuses(
        "no-host",
        "GET /ok HTTP/1.1\r\nhost: a/b\r\n\r\n",
        400,
        "GET /ok: the request doesn't name one host",
    );
    refuses(
        "two-lengths",
        "POST /ok HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "POST /ok: the request says the length of its body twice: Content-Length and Transfer-Encoding",
    );
    refuses(
        "bare-lf",
        "GET /ok HTTP/1.1\r\nhost: shop.example\nfoo: y\r\n\r\n",
        400,
        "GET /ok: a line of the request's head ends with LF alone; it must be CR LF",
    );
    refuses(
        "wonders",
        "GET /ok HTTP/1.1\r\nhost: shop.example\r\nexpect: wonders\r\n\r\n",
        417,
        "GET /ok: no expectation is met but 100-continue",
    );
    refuses(
        "upgrade",
        "GET /ok HTTP/1.1\r\nhost: shop.example\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        501,
        "GET /ok: CONNECT and upgrades are not supported",
    );
    let too_long = "POST /write: the request's body is too long";
    let post = "POST /write?path=/x HTTP/1.1\r\nhost: shop.example\r\n";
    refuses("announced", &format!("{post}content-length: 1025\r\n\r\n"), 413, too_long);
    let chunk = format!("transfer-encoding: chunked\r\n\r\n800\r\n{}\r\n0\r\n\r\n", "x".repeat(0x800));
    refuses("unannounced", &format!("{post}{chunk}"), 413, too_long);
    let stalled = "POST /write: the rest of the request's body didn't come";
    refuses("stalled", &format!("{post}content-length: 100\r\n\r\nsome"), 408, stalled);
    let broken = "POST /write: the request's body can't be read to its end";
    refuses("broken", &format!("{post}transfer-encoding: chunked\r\n\r\nno number\r\n"), 400, broken);
    assert_eq!(host.send(&Request::get("/ok").header("host", "shop.example")).status, 200);
}

#[test]
fn a_guest_that_crashes_over_a_body_that_broke_off_is_not_to_blame() {
    let host = Host::run(&formation("body_timeout = \"300ms\""));
    let insist = "POST /insist HTTP/1.1\r\nhost: shop.example\r\n";
    // Its second call is where a guest that can't be kept would crash.
    let whole = host.send(&Request::post("/insist", "x").header("host", "shop.example"));
    assert_eq!(whole.ok(), "1\n");
    // Which the client hears of, though it goes on sending.
    let flood = format!("no number\r\n{}", "x".repeat(1 << 20));
    for (id, body, status, why) in [
        ("flood", flood, 400, "can't be read to its end"),
        ("too-long", format!("800\r\n{}\r\n0\r\n\r\n", "x".repeat(0x800)), 413, "is too long"),
        ("broken", "no number\r\n".to_owned(), 400, "can't be read to its end"),
    ] {
        let message = format!("POST /insist: the request's body {why}");
        refuses(&host, id, &format!("{insist}transfer-encoding: chunked\r\n\r\n{body}"), status, &message);
    }
    assert_eq!(host.send(&Request::get("/ok").header("host", "shop.example")).status, 200);
    assert_eq!((host.stderr().count("H13"), host.stderr().count("isolation")), (0, 0));
}

#[test]
fn a_head_that_cannot_be_read_has_a_line() {
    let host = Host::run(&formation("header_timeout = \"300ms\"\nmax_header = \"128KiB\""));
    let long = |bytes| "x".repeat(bytes);
    for (bytes, status, message) in [
        (
            "GET /ok HTTP/1.1\r\n host: x\r\n\r\n",
            400,
            "a request's head can't be read: invalid HTTP header parsed",
        ),
        // A client that speaks TLS where nobody does.
        (
            "\x16\x03\x01\x02\x00\x01\r\n\r\n",
            400,
            "a request's head can't be read: invalid HTTP method parsed",
        ),
        (
            &format!("GET /ok HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", long(140 << 10)),
            431,
            "a request's head is too long: message head is too large",
        ),
        (
            &format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", long(70 << 10)),
            414,
            "a request's target is too long: URI too long",
        ),
        ("GET /ok HTTP/1.1\r\nhost: x\r\n", 408, "the rest of a request's head didn't come"),
    ] {
        let mut connection = host.connect();
        connection.send_raw(bytes.as_bytes()).unwrap();
        assert_eq!(connection.read_answer(false).unwrap().status, status, "{message}");
        drop(connection);
        let line = line(&host, message);
        assert_eq!(
            (&line["status"], &line["remote"], &line["message"]),
            (&Value::from(status), &Value::from("127.0.0.1"), &Value::from(message))
        );
    }
}

#[test]
fn the_line_names_the_client_behind_a_trusted_proxy() {
    let host = Host::run(&formation("trusted_proxies = [\"127.0.0.1\"]"));
    let request =
        Request::get("/ok").header("x-request-id", "by-proxy").header("x-forwarded-for", "203.0.113.7");
    assert_eq!(host.send(&request).status, 404);
    assert_eq!(line(&host, "by-proxy")["remote"], "203.0.113.7");
}

#[test]
fn who_looks_for_open_doors_does_not_fill_the_log() {
    let host = Host::run(&formation(""));
    let mut connection = host.connect();
    for door in 0..50 {
        let request = Request::get(&format!("/door-{door}"));
        assert_eq!(connection.send(&request).unwrap().status, 404);
    }
    let stderr = host.stop().stderr;
    assert_eq!(stderr.matches("/door-").count(), 20, "{stderr}");
    let rest = stderr.lines().find(|line| line.contains("30 more requests within a minute were refused"));
    let rest: Value = serde_json::from_str(rest.expect(&stderr)).unwrap();
    assert_eq!((&rest["status"], &rest["level"]), (&404.into(), &"INFO".into()), "{rest}");
}
