//! Instances of WASI 0.3, which serve several calls at once.

use std::thread;
use std::time::{Duration, Instant};

use crate::harness::http::{Failed, Request};
use crate::harness::{Formation, Host, eventually};

fn service(keys: &str) -> Host {
    Host::run(&Formation::new().process("web", "wasi03-service", keys))
}

#[test]
fn calls_meet_in_one_instance() {
    let host = service("concurrency = 4");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(host.get("/meet/4").ok(), "met\n"));
        }
    });
    assert_eq!(host.get("/most").ok(), "4");
    assert_eq!(host.ps().number("web", "restarts"), 0);
}

#[test]
fn no_more_calls_are_in_an_instance_than_may_be() {
    let host = service("concurrency = 3");
    // Three wait for a fourth, which waits in the line until one of them gives its seat up.
    let mut waiting: Vec<_> = (0..3).map(|_| host.connect()).collect();
    for client in &mut waiting {
        client.send_raw(b"GET /meet/5 HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    }
    let mut fourth = host.connect();
    eventually("three calls are in it", || (host.ps().instances("web")[0]["calls"] == 3).then_some(()));
    fourth.send_raw(b"GET /meet/1 HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    eventually("the fourth waits", || (host.ps().number("web", "waiting") == 1).then_some(()));
    assert_eq!(host.ps().instances("web")[0]["calls"], 3);
}

#[test]
fn a_trap_ends_every_call_in_the_instance_and_it_is_replaced() {
    let host = service("");
    let mut late = host.connect();
    late.send_raw(b"POST /late HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").unwrap();
    eventually("the call is in it", || (host.ps().instances("web")[0]["calls"] == 1).then_some(()));
    host.send(&Request::post("/trap", "")).is_error(502, "H13");
    late.read_answer(false).unwrap().is_error(502, "H13");
    assert_eq!(host.get("/hello").ok(), "hello\n");
    eventually("it was replaced", || (host.ps().number("web", "restarts") == 1).then_some(()));
}

#[test]
fn one_call_times_out_and_another_in_the_same_instance_ends_well() {
    let host = service("timeout = \"8s\"");
    let mut late = host.connect();
    late.send_raw(b"POST /late HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").unwrap();
    eventually("the call is in it", || (host.ps().instances("web")[0]["calls"] == 1).then_some(()));
    // It begins in the middle of the other's time, and goes on when that is given up.
    thread::sleep(Duration::from_secs(4));
    let mut echo = host.connect();
    echo.send_raw(b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n")
        .unwrap();
    late.read_answer(false).unwrap().is_error(504, "H12");
    echo.send_raw(b"3\r\ncde\r\n0\r\n\r\n").unwrap();
    assert_eq!(echo.read_answer(false).unwrap().ok(), "abcde");
    eventually("the instance has gone", || (host.ps().instances("web")[0]["calls"] == 0).then_some(()));
    assert_eq!(host.get("/hello").ok(), "hello\n");
}

#[test]
fn an_answer_that_takes_too_long_is_cut_off_however_many_calls_come() {
    let host = service("timeout = \"3s\"");
    let mut slow = host.connect();
    // It answers with what it is sent, and waits for the rest.
    slow.send_raw(b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n")
        .unwrap();
    let ended = thread::scope(|scope| {
        let reading = scope.spawn(|| slow.read_answer(false));
        while !reading.is_finished() {
            assert_eq!(host.get("/hello").ok(), "hello\n");
        }
        reading.join().unwrap()
    });
    match ended {
        Err(Failed::Cut(answer)) => assert_eq!((answer.status, answer.text().as_str()), (200, "ab")),
        other => panic!("{other:?}"),
    }
    host.stderr().wait_for("POST /echo, after its answer had begun: the call took longer than its timeout");
}

#[test]
fn an_endless_loop_ends_with_its_timeout() {
    let host = service("timeout = \"2s\"");
    host.get("/loop").is_error(504, "H12");
    assert_eq!(host.get("/hello").ok(), "hello\n");
}

#[test]
fn work_goes_on_after_the_answer() {
    let host = service("");
    assert_eq!(host.get("/after").ok(), "before\n");
    host.stdout().wait_for("after the answer");
    assert_eq!(host.ps().number("web", "restarts"), 0);
}

const FULL: &str = "the guest has set backpressure and has nothing left to do";

/// The guest's doing costs it its instance, and nobody an answer.
#[test]
fn a_guest_that_takes_no_more_calls_is_replaced() {
    for keys in ["", "concurrency = 1", "count = 2"] {
        let host = service(keys);
        for _ in 0..10 {
            assert_eq!(host.get("/full").ok(), "full\n");
            assert_eq!(host.get("/hello").ok(), "hello\n");
        }
        host.stderr().wait_for(FULL);
        assert_eq!(host.stderr().count(FULL), 1, "{}", host.stderr().text());
    }
}

#[test]
fn calls_that_a_guest_does_not_take_any_more_go_to_another_instance() {
    let host = service("");
    let mut full = host.connect();
    full.send_raw(b"GET /full-and-late?ms=4000 HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    eventually("the call is in it", || (host.ps().instances("web")[0]["calls"] == 1).then_some(()));
    // They wait in the instance, which the first call closes for good.
    let send = |request: &'static [u8]| {
        let mut client = host.connect();
        client.send_raw(request).unwrap();
        client
    };
    let mut get = send(b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n");
    // The guest hasn't seen it, so that it may be repeated whatever its method.
    let mut post = send(b"POST /hello HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
    // Its body is gone.
    let mut with_body = send(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nab");
    assert_eq!(full.read_answer(false).unwrap().ok(), "full\n");
    assert_eq!(get.read_answer(false).unwrap().ok(), "hello\n");
    assert_eq!(post.read_answer(false).unwrap().ok(), "hello\n");
    with_body.read_answer(false).unwrap().is_error(503, "H13");
    host.stderr().wait_for("was not begun: the guest has set backpressure");
}

#[test]
fn a_guest_may_take_no_more_calls_for_a_while() {
    let host = service("");
    for _ in 0..3 {
        let begun = Instant::now();
        assert_eq!(host.get("/full-for?ms=200").ok(), "full for a while\n");
        assert_eq!(host.post("/echo", "waited").ok(), "waited");
        assert!(begun.elapsed() >= Duration::from_millis(200));
    }
    host.is_idle_after("web", 6);
    assert_eq!(host.stderr().count(FULL), 0);
}

#[test]
fn a_call_that_a_guest_does_not_take_in_time_times_out() {
    let host = service("timeout = \"2s\"");
    assert_eq!(host.get("/full-for?ms=600000").ok(), "full for a while\n");
    host.get("/hello").is_error(504, "H12");
    assert_eq!(host.get("/hello").ok(), "hello\n");
}

#[test]
fn with_isolation_no_two_calls_meet() {
    let host = service("isolation = \"call\"\ncount = 2");
    for _ in 0..5 {
        assert_eq!(host.get("/meet/1").ok(), "met\n");
        assert_eq!(host.get("/most").ok(), "0");
    }
}

/// Its only instance has two seats, and both are there at the end.
#[test]
fn a_seat_comes_back_however_its_call_ends() {
    let host = service("concurrency = 2");
    let two_meet = || {
        let met = std::sync::atomic::AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    // Two that come one after the other meet nobody: they wait for two more.
                    assert_eq!(host.get("/pair").ok(), "met\n");
                    met.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                });
            }
        });
        assert_eq!(met.into_inner(), 2);
    };
    two_meet();
    for _ in 0..8 {
        // The answer breaks off before it is sent.
        match host.try_send(&Request::get("/said?bytes=9")) {
            Ok(answer) => answer.is_error(502, "H13"),
            // On a busy machine its head is sent before.
            Err(Failed::Cut(answer)) => assert_eq!(answer.status, 200),
            Err(failed) => panic!("{failed:?}"),
        }
    }
    two_meet();
    // The client goes: at once, while the guest works on the head, and while the body comes.
    for (number, target) in
        ["/hello", "/big?bytes=10000000", "/said?bytes=9"].iter().cycle().take(60).enumerate()
    {
        let mut client = host.connect();
        client.send_raw(format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).unwrap();
        thread::sleep(Duration::from_micros(100 * (number as u64 % 20)));
        drop(client);
    }
    eventually("the instance is idle", || (host.ps().in_state("web", "idle") == 1).then_some(()));
    two_meet();
    assert_eq!(host.ps().number("web", "restarts"), 0);
}

#[test]
fn concurrency_is_for_components_that_can() {
    let formation = Formation::web("concurrency = 4");
    let ended = formation.cli(["check"]);
    assert_eq!(ended.code, 4);
    assert!(
        ended.stderr.contains("which serves one call at a time: leave `concurrency` out"),
        "{}",
        ended.stderr
    );
}

#[test]
fn an_instance_that_comes_free_takes_as_many_waiting_calls_as_it_may() {
    let host = service("concurrency = 3");
    let mut held = host.connect();
    held.send_raw(b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    let mut late = host.connect();
    late.send_raw(b"POST /late HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").unwrap();
    eventually("two calls are in it", || (host.ps().instances("web")[0]["calls"] == 2).then_some(()));
    // A call that is given up closes the instance, and the other one keeps it.
    drop(late);
    thread::scope(|scope| {
        let waiting = || {
            // Calls come until one has to wait: the instance is closed then.
            let mut probe = host.connect();
            probe.send_raw(b"GET /most HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
            // With one call in it there would be seats.
            let ps = host.ps();
            let waits = ps.number("web", "waiting") > 0 && ps.instances("web")[0]["calls_now"] == 1;
            waits.then_some(probe)
        };
        let _probe = eventually("the instance takes no more", waiting);
        let three: Vec<_> =
            (0..3).map(|_| scope.spawn(|| assert_eq!(host.get("/meet/3").ok(), "met\n"))).collect();
        eventually("they wait", || (host.ps().number("web", "waiting") >= 4).then_some(()));
        held.send_raw(b"0\r\n\r\n").unwrap();
        three.into_iter().for_each(|call| call.join().unwrap());
    });
}
