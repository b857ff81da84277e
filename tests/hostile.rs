//! A formation of hostile guests beside a good one: each evil is contained, and the good ones don't notice.

mod evils;

use std::fs;
use std::sync::{Arc, Mutex};
use std::thread::scope;
use std::time::{Duration, Instant};

use crate::harness::http::{Answer, Client, Request};
use crate::harness::{Formation, Host, Load, eventually, setting};
use evils::{Evil, evils};

/// Paths of the guests `hostile02` and `hostile03`, which keep all that they can take until their request ends.
const TAKING: [&str; 14] = [
    "/fields?10000",
    "/clones?10000",
    "/paths?1000",
    "/bodies?1000",
    "/streams?1000",
    "/stdout?100000",
    "/lookup?100000",
    "/error?1000000",
    "/panic?1000000",
    "/tcp?10000",
    "/udp?10000",
    "/poll?100000",
    "/authority?1000000",
    "/method?1000000",
];

/// Memory that the host may have more of after all of it, in bytes: its allocator keeps some of what it gave.
const MORE: u64 = 64 << 20;

#[test]
fn each_evil_program_ends_as_it_should_when_it_is_alone() {
    let all = evils();
    let next = Mutex::new(all.iter());
    // Most wait for their timeout.
    scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(evil) = { next.lock().unwrap().next() } {
                    ends_as_it_should(evil);
                }
            });
        }
    });
}

#[track_caller]
fn ends_as_it_should(evil: &Evil) {
    let formation = Formation::new();
    fs::write(formation.path("evil.wasm"), evil.wasm()).unwrap();
    let (input, process) =
        formation.start_with_stdin(["run", "--timeout", "700ms", "--memory", "8MiB", "evil.wasm"]);
    let ended = process.wait().never_panicked();
    drop(input);
    let (name, said) = (evil.name, ended.stderr.chars().take(1_000).collect::<String>());
    assert_eq!(ended.code, evil.end.code(), "{name}: {said}");
    // Behind what the program itself has written there, which may be much.
    assert!(ended.stderr.contains(evil.said()), "{name}: {said}");
}

/// A good formation: a web type, a worker and a clock.
fn good() -> Formation {
    Formation::new()
        .top("max_instances = 100\ngrace = \"1s\"")
        .process("web", "web-test", "count = 2")
        .process("worker", "job-test", "queue = \"q\"\ncount = 2")
        .process(
            "clock",
            "tick-test",
            "schedule = \"@yearly\"\ndirs = [{ host = \"out\", guest = \"/out\", access = \"write\" }]",
        )
        .directory("out")
}

/// The same with every evil beside it.
fn beside_evils() -> Formation {
    let mut formation = good();
    for evil in evils() {
        let name = evil.name;
        fs::write(formation.path(&format!("{name}.wasm")), evil.wasm()).unwrap();
        formation = formation.table(&format!(
            "[process.{name}]\ncomponent = \"{name}.wasm\"\nrun = \"always\"\nmemory = \"8MiB\"\ntimeout = \"2s\""
        ));
    }
    for version in ["02", "03"] {
        let keys =
            format!("route = \"hostile{version}.example\"\nmemory = \"8MiB\"\ntimeout = \"2s\"\ncount = 2");
        formation = formation.process(&format!("hostile{version}"), &format!("hostile{version}"), &keys);
    }
    formation
}

/// The resources of the system that a host holds.
#[derive(Debug)]
struct Held {
    resident_bytes: u64,
    descriptors: usize,
    threads: usize,
    maps: usize,
}

impl Held {
    fn by(host: &Host) -> Held {
        let count = |what: &str| fs::read_dir(format!("/proc/{}/{what}", host.pid())).unwrap().count();
        let maps = fs::read_to_string(format!("/proc/{}/maps", host.pid())).unwrap().lines().count();
        Held { resident_bytes: host.resident_bytes(), descriptors: count("fd"), threads: count("task"), maps }
    }
}

#[test]
fn good_types_are_served_beside_all_evils_at_once_and_nothing_of_them_stays() {
    let seconds = u64::try_from(setting("HOSTILE_SECONDS", 5)).unwrap();
    let formation = beside_evils();
    let host = Host::launch(&formation);
    host.stderr().wait_for("Serving HTTP");
    host.get("/ok").ok();
    let slowest = Arc::new(Mutex::new(Duration::ZERO));
    let web = web(&host, slowest.clone());
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut jobs = Vec::new();
    scope(|scope| {
        for version in ["02", "03"] {
            let host = &host;
            scope.spawn(move || take_all(host, version, until));
        }
        while Instant::now() < until {
            jobs.push(host.enqueue("q", "print:good"));
            host.cli(["tick", "clock"]).done();
        }
    });
    for job in &jobs {
        host.store().wait_for(*job, "done");
    }
    web.wait_for(20);
    let answered = web.stop();
    assert!(answered > 5 * seconds, "{answered} requests in {seconds} s");
    let slowest = *slowest.lock().unwrap();
    assert!(slowest < Duration::from_secs(10), "a request waited for {slowest:?}");
    let ps = host.ps();
    for process in ["web", "worker", "clock"] {
        assert_eq!(ps.number(process, "restarts"), 0, "{process}: {ps:?}");
    }

    // The evils go by a deploy. All that they held goes with them.
    fs::write(formation.file(), good().text()).unwrap();
    host.cli(["deploy"]).done();
    let before = Host::run(&good());
    before.get("/ok").ok();
    let alone = Held::by(&before);
    before.stop().done();
    eventually("the host holds little more than one that never had them", || {
        let held = Held::by(&host);
        (held.resident_bytes < alone.resident_bytes + MORE
            && held.descriptors <= alone.descriptors + 16
            && held.threads <= alone.threads + 16
            && held.maps < alone.maps + 2_000)
            .then_some(())
    });
    assert_eq!(host.get("/ok").ok(), "ok\n");
    host.stop();
}

/// Requests to the good type, every one of which is answered as it should. Notes how long one took at most.
fn web(host: &Host, slowest: Arc<Mutex<Duration>>) -> Load {
    let begun = Mutex::new(Instant::now());
    let check = move |_, answer| {
        let now = Instant::now();
        let took = now.duration_since(std::mem::replace(&mut *begun.lock().unwrap(), now));
        let mut slowest = slowest.lock().unwrap();
        *slowest = took.max(*slowest);
        match answer {
            Ok(Answer { status: 200, .. }) => Ok(true),
            other => Err(format!("{other:?}")),
        }
    };
    Load::start(host.address(), 1, |_| Request::get("/ok"), check)
}

/// Asks a hostile type for all of its evils, over and over. It may answer as it likes.
fn take_all(host: &Host, version: &str, until: Instant) {
    for path in TAKING.iter().cycle() {
        if Instant::now() >= until {
            return;
        }
        let request = Request::get(path).header("host", &format!("hostile{version}.example"));
        let _ = Client::new(host.address()).send(&request);
    }
}
