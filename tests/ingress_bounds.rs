//! The bounds on what clients may take: time, memory, connections.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::http::{Answer, Connection, Failed, Request};
use crate::harness::{Formation, Host, Load, PATIENCE, eventually};

fn connect(host: &Host) -> TcpStream {
    let stream = TcpStream::connect(host.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Everything until the host hangs up, which it does.
fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(err) if err.kind() == io::ErrorKind::WouldBlock => panic!("it doesn't hang up"),
        _ => String::from_utf8_lossy(&bytes).into_owned(),
    }
}

#[test]
fn a_head_has_to_come_in_time() {
    let host = Host::run(&Formation::web("").http("header_timeout = \"300ms\""));
    let mut slow = connect(&host);
    let begun = Instant::now();
    slow.write_all(b"GET /ok HTTP/1.1\r\nhost: x\r\n").unwrap();
    let mut writer = slow.try_clone().unwrap();
    let dripping = thread::spawn(move || {
        while writer.write_all(b"a: b\r\n").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    assert!(read_to_end(&mut slow).starts_with("HTTP/1.1 408 "));
    assert!(begun.elapsed() >= Duration::from_millis(300));
    dripping.join().unwrap();
    // A second head counts from its own first byte.
    let mut connection = host.connect();
    connection.send(&Request::get("/sleep?ms=400")).unwrap().ok();
    connection.send(&Request::get("/ok")).unwrap().ok();
    connection.send_raw(b"GET").unwrap();
    assert_eq!(connection.read_answer(false).unwrap().status, 408);
}

#[test]
fn a_connection_may_be_idle_for_longer_than_a_head_may_take() {
    let host = Host::run(&Formation::web("").http("header_timeout = \"200ms\"\nidle_timeout = \"3s\""));
    let mut used = host.connect();
    used.send(&Request::get("/ok")).unwrap().ok();
    thread::sleep(Duration::from_millis(500));
    used.send(&Request::get("/ok")).unwrap().ok();
    let begun = Instant::now();
    assert_eq!(read_to_end(&mut connect(&host)), "", "a fresh one is idle, too");
    assert!(begun.elapsed() >= Duration::from_millis(2_900), "{:?}", begun.elapsed());
    assert!(matches!(used.read_answer(false), Err(Failed::Unanswered(_))));
}

#[test]
fn a_thousand_heads_that_never_end_stop_nobody() {
    let host = Host::run(&Formation::web("").http("header_timeout = \"3s\""));
    let before = host.resident_bytes();
    let mut slow: Vec<_> = (0..1000).map(|_| connect(&host)).collect();
    for stream in &mut slow {
        stream.write_all(b"GET /ok HTTP/1.1\r\nhost: x\r\nx-").unwrap();
    }
    let load = Load::get(host.address(), 4, "/ok");
    load.wait_for(200);
    let after = host.resident_bytes();
    assert!(after < before + (64 << 20), "{before} -> {after}");
    for stream in &mut slow {
        assert!(read_to_end(stream).starts_with("HTTP/1.1 408 "));
    }
    load.stop();
}

#[test]
fn a_body_that_stops_coming_is_408() {
    let formation = Formation::web("").http("body_timeout = \"1s\"").directory("out");
    let host = Host::run(&formation);
    let mut connection = host.connect();
    // The guest reads all of it before it answers.
    connection
        .send_raw(b"POST /write?path=/x HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nsome")
        .unwrap();
    let answer = connection.read_answer(false).unwrap();
    assert_eq!((answer.status, answer.header("connection")), (408, Some("close")), "{answer:?}");
    eventually("the instance is free", || (host.ps().in_state("web", "idle") == 1).then_some(()));
}

/// It takes longer than a body may stall. Between its pieces is time enough for a client that the system lets wait.
#[test]
fn a_body_that_comes_slowly_comes() {
    let host = Host::run(&Formation::web("").http("body_timeout = \"4s\""));
    let mut connection = host.connect();
    connection.send_raw(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 8000\r\n\r\n").unwrap();
    for _ in 0..8 {
        thread::sleep(Duration::from_millis(600));
        connection.send_raw(&[b'x'; 1000]).unwrap();
    }
    assert_eq!(connection.read_answer(false).unwrap().ok(), "x".repeat(8000));
}

#[test]
fn an_answer_that_nobody_reads_ends_with_its_call() {
    let host = Host::run(&Formation::web("timeout = \"10m\"").http("body_timeout = \"500ms\""));
    let mut stream = connect(&host);
    stream.write_all(b"GET /big?bytes=100000000000 HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    host.is_idle_after_a_call("web");
    // The part that it got in time is not the whole.
    let read = read_to_end(&mut stream).len();
    assert!((1..100_000_000).contains(&read), "{read}");
    host.get("/ok").ok();
}

/// How many clients are slow at a time, each with an instance of its own: enough that the first use of things, by whichever
/// thread, is little beside what they may cost.
const SLOW: usize = 16;

/// As many clients send this head and do what is slow; each costs less than this, in the mean.
#[track_caller]
fn costs_less(host: &Host, bytes_each: u64, head: &str, slow: impl Fn(&TcpStream)) {
    let before = host.resident_bytes();
    let clients: Vec<_> = (0..SLOW)
        .map(|_| {
            let mut stream = connect(host);
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    let mut most = before;
    for _ in 0..10 {
        clients.iter().for_each(&slow);
        thread::sleep(Duration::from_millis(50));
        most = most.max(host.resident_bytes());
    }
    let grown = most - before;
    assert!(grown < SLOW as u64 * bytes_each, "{grown}");
    assert_eq!(host.ps().in_state("web", "busy"), SLOW, "they are under way");
}

#[test]
fn who_reads_a_gigabyte_slowly_costs_little() {
    for (guest, keys) in [("web-test", ""), ("wasi03-service", "concurrency = 1")] {
        let host = Host::run(&Formation::new().process("web", guest, &format!("count = {SLOW}\n{keys}")));
        // The cost of the guests themselves and of the first use of everything is not the clients' doing.
        let mut warm: Vec<_> = (0..SLOW).map(|_| host.connect()).collect();
        for connection in &mut warm {
            connection.send_raw(b"GET /big?bytes=2000000 HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        }
        for mut connection in warm {
            assert_eq!(connection.read_answer(false).unwrap().body.len(), 2_000_000);
        }
        costs_less(&host, 1 << 20, "GET /big?bytes=1073741824 HTTP/1.1\r\nhost: x\r\n\r\n", |mut stream| {
            let _ = stream.read(&mut [0; 1000]).unwrap();
        });
    }
}

const GIGABYTE: &str = "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 1073741824\r\n\r\n";

/// A host that has had to do with large bodies.
fn that_echoes() -> Host {
    let host = Host::run(&Formation::web(&format!("count = {SLOW}")));
    let mut warm: Vec<_> = (0..SLOW).map(|_| host.connect()).collect();
    for connection in &mut warm {
        connection.send_raw(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 400000\r\n\r\n").unwrap();
    }
    // Together, so that each instance has had one.
    eventually("all are busy", || (host.ps().in_state("web", "busy") == SLOW).then_some(()));
    for mut connection in warm {
        connection.send_raw(&[b'x'; 400_000]).unwrap();
        assert_eq!(connection.read_answer(false).unwrap().body.len(), 400_000);
    }
    host
}

#[test]
fn who_writes_a_gigabyte_slowly_costs_little() {
    costs_less(&that_echoes(), 1 << 20, GIGABYTE, |mut stream| stream.write_all(&[b'x'; 1000]).unwrap());
}

#[test]
fn who_writes_as_fast_as_it_can_and_reads_nothing_costs_little() {
    let chunk = vec![b'x'; 1 << 20];
    // Buffers on the way in and on the way out are full, of 256 KiB and less each: 1.0 to 1.4 MiB in all.
    costs_less(&that_echoes(), 2 << 20, GIGABYTE, |mut stream| {
        stream.set_nonblocking(true).unwrap();
        while stream.write(&chunk).is_ok() {}
    });
}

#[test]
fn a_body_may_be_as_long_as_max_body() {
    let host = Host::run(&Formation::web("max_body = \"1KiB\""));
    assert_eq!(host.post("/echo", vec![b'x'; 1024]).ok().len(), 1024);
    let refused = |answer: Answer| {
        assert_eq!((answer.status, answer.header("connection")), (413, Some("close")), "{answer:?}");
        assert_eq!(answer.header("wasmhost-error"), None);
    };
    refused(host.post("/echo", vec![b'x'; 1025]));
    // A long one that is sent whole, by a client that reads only then.
    refused(host.post("/echo", vec![b'x'; 500_000]));
    // No instance was asked.
    host.is_idle_after("web", 1);
    // Without a length it's known when it has come.
    let chunked = format!("800\r\n{}\r\n0\r\n\r\n", "x".repeat(0x800));
    refused(host.send(&Request::post("/write?path=/x", chunked).header("transfer-encoding", "chunked")));
    host.get("/ok").ok();
}

#[test]
fn malformed_requests_are_refused() {
    let host = Host::run(&Formation::web(""));
    for (bytes, what) in [
        ("GET /ok HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", "two lengths"),
        ("POST /ok HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", "a negative length"),
        ("POST /ok HTTP/1.1\r\nhost: x\r\ncontent-length: 1x\r\n\r\n", "no number"),
        ("POST /ok HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n", "no chunks"),
        ("POST /ok HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, gzip\r\n\r\n", "chunks inside"),
        (
            "POST /ok HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "a length and an encoding",
        ),
        ("GET /ok HTTP/1.1\nhost: x\n\n", "bare LFs"),
        ("GET /ok HTTP/1.1\r\nhost: x\nfoo: y\r\n\r\n", "a bare LF"),
        ("GET /ok HTTP/1.1\r\nhost : x\r\n\r\n", "a space before the colon"),
        ("GET /ok HTTP/1.1\r\n host: x\r\n\r\n", "a folded line"),
        ("GET /ok HTTP/1.1\r\nhost: x\r\nbad\0name: 1\r\n\r\n", "a zero byte"),
        ("GET /ok HTTP/1.1\r\nhost: x\rfoo: y\r\n\r\n", "a bare CR"),
        ("GET /o k HTTP/1.1\r\nhost: x\r\n\r\n", "a space in the target"),
        ("GET /ok HTTP/9.9\r\nhost: x\r\n\r\n", "a version that nobody knows"),
        ("G\u{1}T /ok HTTP/1.1\r\nhost: x\r\n\r\n", "no method"),
        ("GET /ok HTTP/1.1\r\nhost: a/b\r\n\r\n", "no host"),
    ] {
        let mut connection: Connection = host.connect();
        connection.send_raw(bytes.as_bytes()).unwrap();
        match connection.read_answer(false) {
            Ok(answer) => assert!(matches!(answer.status, 400 | 501), "{what}: {answer:?}"),
            Err(Failed::Unanswered(_)) => {}
            other => panic!("{what}: {other:?}"),
        }
    }
    for (bytes, what) in [
        ("xyz\r\nhello\r\n0\r\n\r\n", "no number"),
        ("5\r\nhelloworld\r\n0\r\n\r\n", "a chunk that is too long"),
        ("ffffffffffffffffff\r\nhello\r\n", "a number that is too large"),
        ("5\nhello\r\n0\r\n\r\n", "a bare LF"),
    ] {
        let mut connection = host.connect();
        let head = "POST /write?path=/x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
        connection.send_raw(format!("{head}{bytes}").as_bytes()).unwrap();
        match connection.read_answer(false) {
            Ok(answer) => assert_eq!(answer.status, 400, "{what}: {answer:?}"),
            Err(Failed::Unanswered(_) | Failed::Cut(_)) => {}
            other => panic!("{what}: {other:?}"),
        }
    }
    host.get("/ok").ok();
    assert_eq!(host.ps().number("web", "restarts"), 0);
}

#[test]
fn a_head_may_be_as_long_as_max_header() {
    let host = Host::run(&Formation::web("").http("max_header = \"16KiB\""));
    let with = |bytes: usize| host.send(&Request::get("/ok").header("x-long", &"x".repeat(bytes))).status;
    assert_eq!((with(15 << 10), with(17 << 10)), (200, 431));
    let target = format!("/ok?{}", "x".repeat(17 << 10));
    assert!(matches!(host.send(&Request::get(&target)).status, 414 | 431));
    let many: String = (0..200).map(|n| format!("h{n}: 1\r\n")).collect();
    let mut connection = host.connect();
    connection.send_raw(format!("GET /ok HTTP/1.1\r\nhost: x\r\n{many}\r\n").as_bytes()).unwrap();
    assert_eq!(connection.read_answer(false).unwrap().status, 431);
}

#[test]
fn four_times_what_can_be_served_is_refused_in_time_and_takes_no_memory() {
    let keys = "count = 2\nbacklog = 4\nqueue_timeout = \"300ms\"";
    let host = Host::run(&Formation::web(keys));
    Load::get(host.address(), 2, "/sleep?ms=20").stop();
    let check = |_, answer| match answer {
        Ok(Answer { status: 200, .. }) => Ok(true),
        Ok(answer) if [Some("H11"), Some("H12")].contains(&answer.header("wasmhost-error")) => Ok(true),
        other => Err(format!("{other:?}")),
    };
    // Two instances, and room for four to wait.
    let overload = || Load::start(host.address(), 32, |_| Request::get("/sleep?ms=20"), check);
    let load = overload();
    load.wait_for(500);
    let before = host.resident_bytes();
    load.wait_for(4_000);
    let after = host.resident_bytes();
    load.stop();
    assert!(after < before + (4 << 20), "{before} -> {after}");
    host.stderr().wait_for("H11");
    assert_eq!(host.ps().number("web", "restarts"), 0);
    host.get("/ok").ok();
}
