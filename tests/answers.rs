//! The fate of an answer, by what its guest does about it.

use std::time::{Duration, Instant};

use crate::harness::http::{Failed, Request};
use crate::harness::{Formation, Host, eventually};

fn service(guest: &str, keys: &str) -> Host {
    Host::run(&Formation::new().process("web", guest, keys))
}

const BOTH: [&str; 2] = ["wasi02-service", "wasi03-service"];

/// A handle that is never dropped is usual in languages that collect their garbage.
#[test]
fn an_answer_that_its_guest_forgot_to_finish_ends_with_the_call() {
    for (guest, paths) in [(BOTH[0], &["/forget", "/forget-stream"][..]), (BOTH[1], &["/forget"])] {
        for keys in ["", "isolation = \"call\""] {
            let host = service(guest, keys);
            let mut connection = host.connect();
            // Each would take as long as its timeout.
            let begun = Instant::now();
            for path in paths.iter().chain(paths) {
                let answer = connection.send(&Request::get(path)).unwrap();
                assert_eq!(answer.ok(), "forgotten\n", "{guest} {path}");
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "{guest} {:?}", begun.elapsed());
            assert_eq!(host.ps().number("web", "restarts"), 0, "{guest}");
            host.stop().done();
        }
    }
}

#[test]
fn an_answer_that_does_not_come_to_its_length_is_none() {
    let host = service(BOTH[0], "");
    host.get("/forget-short").is_error(502, "H13");
    host.get("/length").is_error(502, "H13");
}

#[test]
fn an_answer_without_a_body_may_promise_a_length() {
    let host = service(BOTH[0], "");
    let mut connection = host.connect();
    for _ in 0..3 {
        let answer = connection.send(&Request::head("/length")).unwrap();
        assert_eq!((answer.status, answer.header("content-length")), (200, Some("6")), "{answer:?}");
    }
    assert_eq!(host.ps().number("web", "restarts"), 0);
}

#[test]
fn an_answer_that_was_finished_is_sent_whole_however_its_call_ends() {
    let cases: [(&str, &[(&str, usize)]); 2] = [
        (BOTH[0], &[("/finish-and-trap", 10), ("/finish-and-exit", 10), ("/finish-big-and-trap", 100_000)]),
        (BOTH[1], &[("/finish-and-trap", 10)]),
    ];
    for (guest, paths) in cases {
        for keys in ["", "isolation = \"call\"", "count = 2"] {
            let host = service(guest, keys);
            for (path, bytes) in paths {
                // On a fresh instance, and on one that was called before.
                host.get("/hello").ok();
                let answer = host.get(path);
                assert_eq!((answer.status, answer.body.len()), (200, *bytes), "{guest} {path} {keys}");
                let answer = host.post(path, "");
                assert_eq!((answer.status, answer.body.len()), (200, *bytes), "{guest} {path} {keys}");
                // The instance goes, and the log says why.
                host.stderr().wait_for(&format!("GET {path}, after its answer had begun: "));
            }
            let ended = 2 * paths.len() as u64;
            eventually("they were replaced", || (host.ps().number("web", "restarts") == ended).then_some(()));
        }
    }
}

#[test]
fn an_answer_that_was_not_finished_is_none_if_its_guest_traps() {
    for guest in BOTH {
        let host = service(guest, "");
        for _ in 0..3 {
            host.send(&Request::post("/cut-and-trap", "")).is_error(502, "H13");
        }
        assert_eq!(host.get("/hello").ok(), "hello\n");
    }
}

#[test]
fn an_error_code_is_an_answer() {
    for guest in BOTH {
        let host = service(guest, "");
        host.get("/hello").ok();
        for _ in 0..3 {
            host.get("/error").is_error(500, "H15");
        }
        // Each was called once, and the instance is as good as before.
        host.is_idle_after("web", 4);
        assert_eq!(host.ps().number("web", "restarts"), 0, "{guest}");
        let line = host.stderr().wait_for("GET /error: ");
        assert!(line.contains("the guest answered with the error internal-error: asked to fail"), "{line}");
        assert!(line.contains("H15") && !line.contains("crashed"), "{line}");
    }
}

/// Its guest is done long before the answer is.
#[test]
fn an_answer_that_a_guest_passes_on_comes_to_its_own_end() {
    let elsewhere = service(BOTH[0], "");
    let url = format!("http://{}", elsewhere.address());
    let host = service(BOTH[1], &format!("outbound = [\"{url}\"]"));
    for _ in 0..2 {
        let answer = host.get(&format!("/forward?{url}/events?count=4&ms=200"));
        assert_eq!(answer.ok(), "0\n1\n2\n3\n");
    }
}

/// As server-sent events do.
#[test]
fn an_answer_may_take_longer_than_the_timeout_as_long_as_it_goes_on() {
    for guest in BOTH {
        let host = service(guest, "timeout = \"4s\"");
        let begun = Instant::now();
        let answer = host.get("/events?count=12&ms=450");
        assert_eq!(answer.ok().lines().count(), 12, "{guest}");
        assert!(begun.elapsed() > Duration::from_secs(4));
        assert_eq!(host.ps().number("web", "restarts"), 0, "{guest}");
    }
}

#[test]
fn an_answer_that_stalls_is_cut_off_at_the_timeout() {
    for guest in BOTH {
        let host = service(guest, "timeout = \"3s\"");
        match host.try_send(&Request::get("/events?count=2&ms=600000")) {
            Err(Failed::Cut(answer)) => assert_eq!((answer.status, answer.text().as_str()), (200, "0\n")),
            other => panic!("{guest}: {other:?}"),
        }
        host.stderr().wait_for("after its answer had begun: the call took longer than its timeout");
    }
}
