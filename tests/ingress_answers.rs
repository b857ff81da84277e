//! The framing of answers: whatever a guest does, what goes out is HTTP.

use crate::harness::http::{Answer, Failed, Request};
use crate::harness::http2::Http2;
use crate::harness::{Formation, Host};

const FILE: &str = "/answer?header=content-length:6";

#[test]
fn an_answer_to_head_has_a_length_and_no_content() {
    let host = Host::run(&Formation::web(""));
    let http2 = Http2::open(host.address());
    let mut connection = host.connect();
    for (target, length) in [
        (FILE, Some("6")),
        ("/ok", Some("3")),
        ("/answer?body=some", Some("4")),
        ("/answer?stream=some", Some("4")),
        ("/answer?status=304&header=content-length:6", Some("6")),
        ("/answer?status=404&header=content-length:6", Some("6")),
        ("/answer?status=204&header=content-length:6&body=sixsix", None),
        ("/answer", None),
        ("/big?bytes=1000000", None),
        ("/no-such-path", Some("13")),
    ] {
        let answer = connection.send(&Request::head(target)).unwrap();
        assert_ne!(answer.status, 502, "{target}: {answer:?}");
        assert_eq!(answer.header("content-length"), length, "{target}: {answer:?}");
        let answer = http2.send("HEAD", &format!("http://a{target}"), &[], "").unwrap();
        assert_ne!(answer.status, 502, "{target}: {answer:?}");
        assert_eq!((answer.header("content-length"), answer.body.len()), (length, 0), "{target}: {answer:?}");
    }
    // The host's own answers, too.
    let host = Host::run(&Formation::web("count = 0"));
    let answer = Http2::open(host.address()).send("HEAD", "http://a/", &[], "").unwrap();
    assert_eq!((answer.status, answer.body.len()), (503, 0));
    assert_eq!(host.connect().send(&Request::head("/ok")).unwrap().status, 503);
}

#[test]
fn an_answer_without_content_has_none() {
    let host = Host::run(&Formation::web(""));
    let http2 = Http2::open(host.address());
    let mut connection = host.connect();
    for (target, status, length) in [
        ("/answer?status=204", 204, None),
        ("/answer?status=204&body=done", 204, None),
        ("/answer?status=204&stream=done", 204, None),
        ("/answer?status=204&header=content-length:0", 204, None),
        ("/answer?status=304&header=content-length:6", 304, Some("6")),
        ("/answer?status=304&body=some", 304, None),
        ("/answer?status=304", 304, None),
    ] {
        let answer = connection.send(&Request::get(target)).unwrap();
        let told = (answer.status, answer.header("content-length"), answer.header("transfer-encoding"));
        assert_eq!(told, (status, length, None), "{target}: {answer:?}");
        let answer = http2.send("GET", &format!("http://a{target}"), &[], "").unwrap();
        let told = (answer.status, answer.header("content-length"), answer.body.len());
        assert_eq!(told, (status, length, 0), "{target}: {answer:?}");
    }
    for target in ["/answer?status=205", "/answer?status=205&body=some", "/answer?status=205&stream=some"] {
        let answer = connection.send(&Request::get(target)).unwrap();
        assert_eq!(
            (answer.status, answer.header("content-length")),
            (205, Some("0")),
            "{target}: {answer:?}"
        );
        let answer = http2.send("GET", &format!("http://a{target}"), &[], "").unwrap();
        assert_eq!((answer.status, answer.body.len()), (205, 0), "{target}: {answer:?}");
    }
    // The connection goes on behind each of them.
    assert_eq!(connection.send(&Request::get("/ok")).unwrap().ok(), "ok\n");
    assert_eq!(host.ps().number("web", "restarts"), 0);
}

#[test]
fn an_answer_in_http_1_0_is_framed_alike() {
    let host = Host::run(&Formation::web(""));
    for (request, length) in [
        ("HEAD /answer?header=content-length:6", Some("6")),
        ("GET /answer?status=304&header=content-length:6", Some("6")),
        ("GET /answer?status=204&body=done", None),
    ] {
        let mut connection = host.connect();
        connection.send_raw(format!("{request} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
        let answer = connection.read_answer(request.starts_with("HEAD")).unwrap();
        assert_eq!(answer.header("content-length"), length, "{request}: {answer:?}");
        assert_eq!(answer.header("transfer-encoding"), None, "{request}: {answer:?}");
    }
}

#[test]
fn a_status_that_is_none_of_an_answer_is_an_error_of_the_guest() {
    let host = Host::run(&Formation::new().process("web", "wasi02-service", ""));
    let http2 = Http2::open(host.address());
    let mut connection = host.connect();
    for status in [100, 101, 103, 199, 600, 999] {
        let target = format!("/status/{status}");
        connection.send(&Request::get(&target)).unwrap().is_error(502, "H13");
        http2.send("GET", &format!("http://a{target}"), &[], "").unwrap().is_error(502, "H13");
        let line = host.stderr().wait_for(&format!("GET {target}"));
        let message = format!("the guest answered with the status {status}, expected one from 200 to 599");
        assert!(line.contains(&message), "{line}");
    }
    assert_eq!(connection.send(&Request::get("/status/599")).unwrap().status, 599);
    assert_eq!(host.ps().number("web", "restarts"), 0, "no instance was lost");
}

#[test]
fn a_status_is_refused_where_a_guest_sets_it() {
    let host = Host::run(&Formation::web(""));
    for status in [103, 199, 600, 99, 0] {
        host.get(&format!("/answer?status={status}")).is_error(500, "H15");
        host.stdout().wait_for(&format!("{status} is no status of a response, which is from 200 to 599"));
    }
}

/// A guest's answer of another length than it said becomes an error, unless its head has gone out before: then it is cut
/// off, at its length or before. Only a machine that gives the guest no
/// time sends the head first.
#[track_caller]
fn is_told_or_cut<E: std::fmt::Debug>(send: impl Fn() -> Result<Answer, E>, is_cut: impl Fn(&E) -> bool) {
    const TRIES: usize = 100;
    for _ in 0..TRIES {
        match send() {
            Ok(answer) if answer.status == 502 => return answer.is_error(502, "H13"),
            Ok(answer) => {
                let said = answer.header("content-length").and_then(|length| length.parse().ok());
                assert_eq!(said, Some(answer.body.len()), "{answer:?}");
                assert_eq!(answer.text(), "som");
            }
            Err(failed) => assert!(is_cut(&failed), "{failed:?}"),
        }
    }
    panic!("of {TRIES} answers none was told as an error");
}

#[test]
fn content_is_as_long_as_its_length_says() {
    let host = Host::run(&Formation::web(""));
    let http2 = Http2::open(host.address());
    for target in
        [FILE, "/answer?header=content-length:3&body=some", "/answer?header=content-length:9&stream=some"]
    {
        is_told_or_cut(|| host.try_send(&Request::get(target)), |failed| matches!(failed, Failed::Cut(_)));
        let url = format!("http://a{target}");
        is_told_or_cut(|| http2.send("GET", &url, &[], ""), |_| true);
    }
    let shared = Host::run(&Formation::new().process("web", "wasi03-service", ""));
    for target in ["/said?bytes=3", "/said?bytes=9"] {
        is_told_or_cut(|| shared.try_send(&Request::get(target)), |failed| matches!(failed, Failed::Cut(_)));
    }
    assert_eq!(shared.get("/said?bytes=4").ok(), "some");
    let target = "/answer?header=content-length:4&stream=some";
    assert_eq!(host.get(target).ok(), "some");
    assert_eq!(http2.send("GET", &format!("http://a{target}"), &[], "").unwrap().ok(), "some");
    // A guest that writes more than it said fails, and what went out is whole or cut off.
    match host.try_send(&Request::get("/answer?header=content-length:2&stream=some")) {
        Ok(answer) if answer.status == 502 => {}
        Ok(answer) => {
            assert_eq!((answer.header("content-length"), answer.text().as_str()), (Some("2"), "so"))
        }
        Err(Failed::Cut(_)) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(host.get("/ok").ok(), "ok\n");
}

#[test]
fn the_hosts_own_header_is_not_a_guests_to_send() {
    let host = Host::run(&Formation::web("").http("access_log = \"json\""));
    let named =
        Request::get("/answer?header=wasmhost-error:H11&header=x-end:1").header("x-request-id", "pretends");
    let answer = host.send(&named);
    assert_eq!(
        (answer.status, answer.header("wasmhost-error"), answer.header("x-end")),
        (200, None, Some("1"))
    );
    let line = host.stderr().wait_for("pretends");
    assert!(!line.contains("H11") && !line.contains("\"code\""), "{line}");
}
