//! How a host ends.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::http::{Failed, Request};
use crate::harness::{Formation, Host, Load, Outside, Shop, Store, eventually};

fn worker(keys: &str) -> Formation {
    let dirs = "dirs = [{ host = \"out\", guest = \"/out\", access = \"write\" }]";
    Formation::new().directory("out").process(
        "worker",
        "job-test",
        &format!("queue = \"default\"\n{dirs}\n{keys}"),
    )
}

/// Jobs with `until:go` go on.
fn go(formation: &Formation) {
    std::fs::write(formation.path("out/go"), "").unwrap();
}

fn store(formation: &Formation) -> Store {
    Store::open(&formation.path(".wasmhost/store.db"))
}

/// Clients that ask until nobody listens any more.
fn until_refused(host: &Host, threads: u64, target: &'static str) -> Load {
    let check = move |_, answer| match answer {
        Ok(crate::harness::http::Answer { status: 200, .. }) => Ok(true),
        Err(Failed::Refused(_)) => Ok(false),
        other => Err(format!("GET {target}: {other:?}")),
    };
    Load::start(host.address(), threads, move |_| Request::get(target), check)
}

#[test]
fn every_request_that_was_accepted_is_answered() {
    for _ in 0..5 {
        let host = Host::run(&Formation::web("count = 3"));
        let loads = [until_refused(&host, 3, "/sleep?ms=3"), until_refused(&host, 3, "/ok")];
        loads.iter().for_each(|load| load.wait_for(50));
        host.stop().never_panicked().done();
        for load in loads {
            load.ended();
        }
    }
}

#[test]
fn connections_that_come_at_the_last_moment_are_answered_or_refused() {
    for _ in 0..5 {
        let host = Host::run(&Formation::web("count = 2"));
        let address = host.address();
        let clients: Vec<_> = (0..4)
            .map(|_| {
                thread::spawn(move || {
                    let mut answered = 0;
                    loop {
                        // A fresh connection each time: nothing excuses that it is not answered.
                        let mut connection = match crate::harness::http::Connection::open(address) {
                            Ok(connection) => connection,
                            Err(_) => return answered,
                        };
                        match connection.send(&Request::get("/ok")) {
                            Ok(answer) if answer.status == 200 => answered += 1,
                            other => panic!("after {answered}: {other:?}"),
                        }
                    }
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(fastrand::u64(50..200)));
        host.stop().done();
        for client in clients {
            client.join().unwrap();
        }
    }
}

#[test]
fn accepted_orders_survive_a_drain() {
    let formation = Formation::shop();
    let host = Host::run(&formation);
    let shop = Shop::default();
    let orders = shop.orders(host.address(), 4, true);
    orders.wait_for(100);
    host.stop().done();
    orders.ended();
    assert!(store(&formation).jobs().iter().all(|job| job.state != "leased"));
    let host = Host::run(&formation);
    shop.has_all_receipts(&formation);
    assert!(store(&formation).jobs().iter().all(|job| job.attempt == 1), "no attempt was used up");
    host.stop().done();
}

#[test]
fn a_request_under_way_is_finished() {
    let outside = Outside::open();
    let host = Host::run(&Formation::web(&outside.keys()));
    let mut connection = host.connect();
    let request = format!("GET {} HTTP/1.1\r\nhost: x\r\n\r\n", outside.target());
    connection.send_raw(request.as_bytes()).unwrap();
    let asked = outside.asked();
    host.terminate();
    host.stderr().wait_for("draining");
    asked.answer();
    let answer = connection.read_answer(false).unwrap();
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(answer.ok(), Outside::PASSED_ON);
    host.wait().done();
}

#[test]
fn requests_that_wait_in_the_line_are_answered() {
    let host = Host::run(&Formation::web(""));
    let held = host.hold();
    let mut waiting: Vec<_> = (0..3).map(|_| host.connect()).collect();
    for connection in &mut waiting {
        connection.send_raw(b"GET /sleep?ms=300 HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    }
    eventually("three wait", || (host.ps().number("web", "waiting") == 3).then_some(()));
    host.terminate();
    host.stderr().wait_for("draining");
    held.end();
    for connection in &mut waiting {
        assert_eq!(connection.read_answer(false).unwrap().ok(), "slept\n");
    }
    host.wait().done();
}

#[test]
fn a_request_that_takes_longer_than_grace_is_cut_off() {
    let host = Host::run(&Formation::web("").top("grace = \"200ms\""));
    let mut connection = host.connect();
    connection.send_raw(b"GET /sleep?ms=600000 HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    eventually("it is busy", || (host.ps().in_state("web", "busy") == 1).then_some(()));
    let ended = host.stop().never_panicked();
    assert_eq!(ended.code, 124, "{ended:#?}");
    assert!(ended.stderr.contains("1 calls were cut off"), "{ended:#?}");
    connection.read_answer(false).unwrap().is_error(503, "H13");
}

#[test]
fn an_endless_loop_does_not_outlive_grace() {
    let host = Host::run(&Formation::web("").top("grace = \"200ms\""));
    let mut connection = host.connect();
    connection.send_raw(b"GET /loop HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    eventually("it is busy", || (host.ps().in_state("web", "busy") == 1).then_some(()));
    assert_eq!(host.stop().code, 124);
}

#[test]
fn silent_connections_do_not_hold_the_host_up() {
    let host = Host::run(&Formation::web("").top("grace = \"10m\"").http("idle_timeout = \"10m\""));
    let silent = host.connect();
    let mut used = host.connect();
    used.send(&Request::get("/ok")).unwrap().ok();
    let begun = Instant::now();
    host.stop().done();
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    drop((silent, used));
}

#[test]
fn half_a_request_does_not_hold_the_host_up() {
    let host = Host::run(&Formation::web("").top("grace = \"10m\"").http("header_timeout = \"1s\""));
    let mut halfway = host.connect();
    halfway.send_raw(b"GET /ok HT").unwrap();
    let begun = Instant::now();
    host.stop().done();
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[test]
fn who_never_answers_does_not_hold_the_host_up() {
    for grace in ["0s", "1s", "30s"] {
        let host = Host::run(&Formation::web("").top(&format!("grace = {grace:?}")));
        let mut connections: Vec<_> = (0..4).map(|_| host.connect()).collect();
        // Half a head, half a head behind a whole request, and clients of HTTP/2 that never read.
        connections[0].send_raw(b"GET /ok HTTP/1.1\r\nhost: x\r\n").unwrap();
        connections[1].send(&Request::get("/ok")).unwrap().ok();
        connections[1].send_raw(b"GE").unwrap();
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        connections[2].send_raw(preface).unwrap();
        connections[3].send_raw(&[preface.as_slice(), &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat()).unwrap();
        let begun = Instant::now();
        host.stop().done();
        // It was 5 s and more, beyond grace.
        assert!(begun.elapsed() < Duration::from_secs(5), "{grace}: {:?}", begun.elapsed());
    }
}

#[test]
fn the_listener_stays_open_for_the_drain_delay() {
    let host = Host::run(&Formation::web("").top("drain_delay = \"5s\""));
    let begun = Instant::now();
    host.terminate();
    host.stderr().wait_for("draining");
    let answer = host.get("/ok");
    assert_eq!(answer.header("connection"), Some("close"));
    answer.ok();
    host.wait().done();
    assert!(begun.elapsed() >= Duration::from_secs(5));
}

#[test]
fn a_job_under_way_is_finished() {
    let formation = worker("");
    let host = Host::run(&formation);
    let id = host.enqueue("default", "print:begun\nuntil:go\nwrite:a");
    let behind = host.enqueue("default", "write:b");
    host.stdout().wait_for("begun");
    host.terminate();
    host.stderr().wait_for("draining");
    go(&formation);
    host.wait().done();
    assert_eq!(store(&formation).job(id).state, "done");
    assert_eq!(formation.read("out/a"), format!("{id} 1 worker.1\n"));
    // A job that hasn't begun stays where it is.
    assert_eq!(store(&formation).job(behind).state, "available");
    assert_eq!(formation.read("out/b"), "");
}

#[test]
fn a_job_that_takes_longer_than_grace_goes_back_with_no_attempt_used_up() {
    let formation = worker("attempts = 1").top("grace = \"200ms\"");
    for payload in ["print:begun\nsleep:60000", "print:begun\nloop"] {
        let host = Host::run(&formation);
        let id = host.enqueue("default", payload);
        host.stdout().wait_for("begun");
        let ended = host.stop().never_panicked();
        assert_eq!(ended.code, 124, "{ended:#?}");
        let job = store(&formation).job(id);
        assert_eq!((job.state.as_str(), job.attempt, job.crashes), ("available", 0, 0), "{job:?}");
        std::fs::remove_dir_all(formation.path(".wasmhost")).unwrap();
    }
}

#[test]
fn a_second_interrupt_ends_it_at_once() {
    let formation = worker("").top("grace = \"10m\"");
    let host = Host::run(&formation);
    let id = host.enqueue("default", "print:begun\nsleep:600000");
    host.stdout().wait_for("begun");
    host.signal(Signal::INT);
    host.stderr().wait_for("draining");
    let begun = Instant::now();
    host.signal(Signal::INT);
    assert_eq!(host.wait().never_panicked().code, 124);
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    assert_eq!(store(&formation).job(id).attempt, 0);
}

#[test]
fn a_second_terminate_ends_it_at_once() {
    let host = Host::run(&Formation::web("timeout = \"10m\"").top("grace = \"10m\""));
    let _held = host.hold();
    host.terminate();
    host.stderr().wait_for("draining");
    let begun = Instant::now();
    host.terminate();
    assert_eq!(host.wait().never_panicked().code, 124);
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[test]
fn a_terminate_behind_an_interrupt_goes_on_draining() {
    // A terminal interrupts a process manager and its children; the manager then terminates the children.
    let host = Host::run(&Formation::web(""));
    let held = host.hold();
    host.signal(Signal::INT);
    host.stderr().wait_for("draining");
    host.terminate();
    // The same for a drain that began by the API.
    let other = Host::run(&Formation::web(""));
    let other_held = other.hold();
    let stop = other.cli_beside(["stop"]);
    other.stderr().wait_for("draining");
    other.terminate();
    // The signals have come by the time that both have answered.
    host.ps();
    other.ps();
    held.end();
    other_held.end();
    host.wait().done();
    other.wait().done();
    stop.wait().done();
}

#[test]
fn stop_returns_when_the_host_is_gone() {
    let formation = Formation::web("");
    let host = Host::run(&formation);
    host.cli(["stop"]).done();
    assert!(!formation.path(".wasmhost/admin.sock").exists());
    host.wait().done();
    formation.cli(["stop"]).failed(5, "no host runs formation.toml");
}

#[test]
fn stop_says_when_calls_go_on() {
    let formation = worker("");
    let host = Host::run(&formation);
    host.enqueue("default", "print:begun\nuntil:go");
    host.stdout().wait_for("begun");
    host.cli(["stop", "--timeout", "3s"]).failed(1, "still finishes calls");
    go(&formation);
    host.wait().done();
}

#[test]
fn a_host_that_drains_refuses_changes() {
    let formation = worker("");
    let host = Host::run(&formation);
    host.enqueue("default", "print:begun\nuntil:go");
    host.stdout().wait_for("begun");
    host.terminate();
    host.stderr().wait_for("draining");
    host.cli(["scale", "worker=3"]).failed(1, "the host is stopping");
    host.cli(["restart", "worker"]).failed(1, "the host is stopping");
    go(&formation);
    host.wait().done();
}

#[test]
fn an_interrupt_while_it_starts_ends_it() {
    let formation =
        Formation::web("").process("step", "cmd-test", "run = \"release\"\nargs = [\"sleep\", \"600000\"]");
    for signal in [Signal::INT, Signal::TERM] {
        let host = Host::spawn(&formation);
        eventually("it has begun", || formation.path(".wasmhost/admin.sock").exists().then_some(()));
        host.signal(signal);
        assert_eq!(host.wait().never_panicked().code, 0);
    }
    // Those who wait for an answer are told, and so is who looks at its release.
    let host = Host::spawn(&formation);
    let waiting = eventually("it has begun", || {
        let verb = formation.start(["jobs", "stats"]);
        let told = verb.stderr.wait_until("the verb waits, or has ended", |lines| {
            lines.iter().find(|line| line.contains("is starting") || line.contains("error: ")).cloned()
        });
        told.contains("the host is starting (").then_some(verb)
    });
    host.terminate();
    waiting.wait().failed(1, "the host didn't start: it was told to stop before it had started");
    assert_eq!(host.wait().never_panicked().code, 0);
    let listed = formation.cli(["releases"]).done();
    assert!(listed.contains("failed") && listed.contains("it was told to stop before"), "{listed}");
}
