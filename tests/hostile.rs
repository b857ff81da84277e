//! A formation of hostile guests beside a good one: each evil is contained, and the good ones don't notice. How fast the
//! good ones are beside hostile ones is measured by `cargo xtask bench isolation`, and what an hour does to the host by
//! `cargo xtask hostile`.

mod evils;

use std::collections::VecDeque;
use std::fs;
use std::sync::Mutex;
use std::thread::scope;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::http::{Client, Request};
use crate::harness::{Formation, Host, Load, setting};
use evils::{End, Evil, evils};

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

/// How often it is looked at what the host holds, within the time that the evils have.
const LOOKS: u32 = 60;

/// Jobs that are looked at later: that many more are enqueued meanwhile.
const JOBS_UNDERWAY: usize = 20;

/// Memory that the host may have more of after all of it, in bytes, beside the lines that it keeps: the pages of its binary
/// that it has run by then, and some that its allocator keeps.
const MORE: u64 = 64 << 20;

/// How long all that the evils held may take to go.
const GONE_MAX: Duration = Duration::from_secs(60);

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
    // Whatever else ends one has the time that a busy machine takes for it.
    let timeout = if evil.end == End::Timeout { "700ms" } else { "5m" };
    let (input, process) =
        formation.start_with_stdin(["run", "--timeout", timeout, "--memory", "8MiB", "evil.wasm"]);
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

    fn to_json(&self) -> Value {
        let Held { resident_bytes, descriptors, threads, maps } = self;
        json!({ "resident_bytes": resident_bytes, "descriptors": descriptors, "threads": threads, "maps": maps })
    }
}

/// The host's holdings, at times in seconds since the evils began.
struct Looks {
    begun: Instant,
    every: Duration,
    next: Instant,
    held: Vec<Value>,
}

impl Looks {
    fn begin(time: Duration) -> Looks {
        let begun = Instant::now();
        Looks { begun, every: time / LOOKS, next: begun, held: vec![] }
    }

    fn look(&mut self, host: &Host) {
        if Instant::now() >= self.next {
            self.next = Instant::now() + self.every;
            let mut held = Held::by(host).to_json();
            held["at_s"] = self.begun.elapsed().as_secs_f64().into();
            self.held.push(held);
        }
    }
}

#[test]
fn good_types_are_served_beside_all_evils_at_once_and_nothing_of_them_stays() {
    let time = Duration::from_secs(setting("WASMHOST_HOSTILE_SECONDS", 5) as u64);
    let formation = beside_evils();
    let host = Host::launch(&formation);
    host.stderr().wait_for("Serving HTTP");
    host.get("/ok").ok();
    // Every request is answered as it should be.
    let web = Load::get(host.address(), 1, "/ok");
    let mut looks = Looks::begin(time);
    let until = looks.begun + time;
    let (mut jobs, mut done) = (VecDeque::new(), 0);
    let mut end_first = |jobs: &mut VecDeque<i64>| {
        if let Some(job) = jobs.pop_front() {
            host.store().wait_for(job, "done");
            done += 1;
        }
    };
    scope(|scope| {
        for version in ["02", "03"] {
            let host = &host;
            scope.spawn(move || take_all(host, version, until));
        }
        while Instant::now() < until {
            jobs.push_back(host.enqueue("q", "print:good"));
            if jobs.len() > JOBS_UNDERWAY {
                end_first(&mut jobs);
            }
            host.cli(["tick", "clock"]).done();
            looks.look(&host);
        }
    });
    while !jobs.is_empty() {
        end_first(&mut jobs);
    }
    web.wait_for(20);
    let answered = web.stop();
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
    // Those of types that have gone are among them: `crates/host/src/logs` bounds all of them.
    let lines = host.cli(["logs", "-n", "1000000"]).done().len() as u64;
    let is_little_more = |held: &Held| {
        held.resident_bytes < alone.resident_bytes + lines + MORE
            && held.descriptors <= alone.descriptors + 16
            && held.threads <= alone.threads + 16
            && held.maps < alone.maps + 2_000
    };
    let until = Instant::now() + GONE_MAX;
    let mut after = Held::by(&host);
    while !is_little_more(&after) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
        after = Held::by(&host);
    }
    // Also where it fails: an hour's figures are worth a look.
    report(json!({
        "seconds": time.as_secs(), "evils": evils().len() + TAKING.len(), "answered": answered, "jobs": done,
        "looks": looks.held, "after": after.to_json(), "alone": alone.to_json(),
    }));
    assert!(
        is_little_more(&after),
        "after the evils: {after:?}, with {lines} bytes of lines; one that never had them: {alone:?}"
    );
    assert_eq!(host.get("/ok").ok(), "ok\n");
    host.stop();
}

/// For whoever asked for it: `cargo xtask hostile` makes a page of it.
fn report(found: Value) {
    if let Some(file) = std::env::var_os("WASMHOST_HOSTILE_REPORT") {
        fs::write(file, found.to_string()).unwrap();
    }
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
