//! `kill -9` of the host at random moments, again and again on one state directory: as it starts, as jobs of all kinds
//! run, and as many clients enqueue, so that it dies in a group commit. After each, what was promised must still hold.
//!
//! `WASMHOST_FAULT_ROUNDS=300` makes it longer (`cargo xtask test --faults`), `WASMHOST_FAULT_SEED=...` repeats what is
//! random in a run: phases, moments and payloads; not what the machine makes of them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use serde_json::json;

use crate::harness::http::{Client, Failed, Request};
use crate::harness::{Formation, Host, Ledger, Promise, Store, eventually, setting};

/// Rounds on one state directory; then all its jobs are waited for, and the next begins.
const ROUNDS_OF_A_LIFE: usize = 20;

const STORE: &str = ".wasmhost/store.db";

/// Where the host is, when it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// In its first moments: it opens the store, frees leases, starts instances.
    Start,
    /// Jobs that take a while, fail, or crash their instance, by a few clients.
    Running,
    /// As many small jobs as it takes.
    Committing,
}

/// The counts that a run has come to.
#[derive(Default)]
struct Tally {
    acknowledged: usize,
    killed_in_start: usize,
    killed_in_running: usize,
    killed_in_committing: usize,
}

#[test]
fn whatever_was_acknowledged_survives_kills_at_any_moment() {
    let rounds = setting("WASMHOST_FAULT_ROUNDS", ROUNDS_OF_A_LIFE);
    let seed = setting("WASMHOST_FAULT_SEED", fastrand::usize(..));
    println!("WASMHOST_FAULT_SEED={seed} WASMHOST_FAULT_ROUNDS={rounds}");
    let mut random = Rng::with_seed(seed as u64);
    let mut tally = Tally::default();
    let mut left = rounds;
    while left > 0 {
        let mut life = Life::new();
        let of_this_life = left.min(ROUNDS_OF_A_LIFE);
        for _ in 0..of_this_life {
            let phase = *random.choice(&[Phase::Start, Phase::Running, Phase::Committing]).unwrap();
            life.round(phase, &mut random, &mut tally);
        }
        tally.acknowledged += life.ledger.get_mut().unwrap().acknowledged();
        life.settle();
        left -= of_this_life;
        tally.report(seed, rounds - left);
    }
}

/// A state directory, and the hosts that run on it one after the other.
struct Life {
    formation: Formation,
    ledger: Mutex<Ledger>,
}

impl Life {
    fn new() -> Life {
        let worker = "queue = \"default\"\ncount = 8\nmemory = \"16MiB\"\n\
                      dirs = [{ host = \"out\", guest = \"/out\", access = \"write\" }]";
        let formation = Formation::new()
            .directory("out")
            .process("web", "web-test", "count = 32\nenqueue = [\"default\"]")
            .process("worker", "job-test", worker);
        Life { formation, ledger: Mutex::default() }
    }

    /// Ends with a host that was killed.
    fn round(&self, phase: Phase, random: &mut Rng, tally: &mut Tally) {
        if phase == Phase::Start {
            for _ in 0..random.usize(1..=3) {
                let host = Host::spawn(&self.formation);
                thread::sleep(Duration::from_micros(random.u64(0..80_000)));
                host.kill();
                self.bury_owners();
                tally.killed_in_start += 1;
            }
        }
        let host = Host::run(&self.formation);
        self.check(&host.store());
        let (clients, time) = match phase {
            Phase::Start => (2, random.u64(1..50)),
            Phase::Running => (8, random.u64(1..400)),
            Phase::Committing => (32, random.u64(1..400)),
        };
        self.load(host, phase, clients, Duration::from_millis(time), random);
        match phase {
            Phase::Committing => tally.killed_in_committing += 1,
            Phase::Start | Phase::Running => tally.killed_in_running += 1,
        }
    }

    /// Has clients enqueue until the host is killed under them.
    fn load(&self, host: Host, phase: Phase, clients: usize, time: Duration, random: &mut Rng) {
        let (address, killed) = (host.address(), AtomicBool::new(false));
        let ledger = &self.ledger;
        thread::scope(|scope| {
            for _ in 0..clients {
                let mut random = Rng::with_seed(random.u64(..));
                let killed = &killed;
                scope.spawn(move || {
                    let mut client = Client::new(address);
                    loop {
                        let (payload, attempts, promise) = job(phase, &mut random);
                        let target = format!("/enqueue?queue=default{attempts}");
                        match client.send(&Request::post(&target, payload)) {
                            Ok(answer) if answer.status == 201 => {
                                let id = answer.text().trim().parse().unwrap();
                                ledger.lock().unwrap().acknowledge(id, promise);
                            }
                            // Who isn't answered, because the host is dead, was promised nothing.
                            Err(Failed::Refused(_) | Failed::Unanswered(_) | Failed::Cut(_)) => break,
                            other => panic!("a job was not enqueued: {other:?}"),
                        }
                    }
                    assert!(killed.load(Relaxed), "the host has ended by itself");
                });
            }
            thread::sleep(time);
            killed.store(true, Relaxed);
            host.kill();
        });
        self.bury_owners();
    }

    /// All owners of leases in the file of a killed host are dead.
    fn bury_owners(&self) {
        let file = self.formation.path(STORE);
        // It may have been killed before there was one, or anything in it.
        if file.exists() {
            let store = Store::open(&file);
            if store.has_tables() {
                self.ledger.lock().unwrap().bury_owners(&store);
            }
        }
    }

    fn check(&self, store: &Store) {
        let executions = || self.formation.read("out/log");
        self.ledger.lock().unwrap().check(store, executions).unwrap_or_else(|found| panic!("{found}"));
    }

    /// Runs until nothing is left to do: then all is as it was promised.
    fn settle(self) {
        let host = Host::run(&self.formation);
        let store = host.store();
        let last = store.jobs().last().map_or(0, |job| job.id);
        let mut left = usize::MAX;
        while left > 0 {
            // There may be thousands: each has the time that one may take.
            left = eventually("another job has ended", || {
                if store.hasten_all() > 0 {
                    // The host looks by itself only now and then.
                    assert_eq!(host.post("/enqueue?queue=default", "write:log").status, 201);
                }
                let jobs = store.jobs().into_iter().take_while(|job| job.id <= last);
                let still = jobs.filter(|job| !["done", "dead"].contains(&job.state.as_str())).count();
                (still < left).then_some(still)
            });
        }
        self.check(&store);
        self.ledger.lock().unwrap().settled().unwrap_or_else(|found| panic!("{found}"));
        host.stop().done();
    }
}

/// A payload, more for the query, and how it is to end.
fn job(phase: Phase, random: &mut Rng) -> (&'static str, &'static str, Promise) {
    if phase == Phase::Committing {
        return ("write:log", "", Promise::Done);
    }
    match random.u8(0..10) {
        0 => ("write:log\ndone-at:2", "", Promise::Done),
        1 => ("write:log\nretry:no", "&attempts=2", Promise::Dead),
        2 => ("write:log\nbury:no", "", Promise::Dead),
        3 => ("write:log\ntrap", "&attempts=2", Promise::Dead),
        4 => ("write:log\nalloc", "", Promise::Dead),
        5 | 6 => ("write:log\nsleep:40", "", Promise::Done),
        _ => ("write:log", "", Promise::Done),
    }
}

impl Tally {
    /// For whoever asked for it: `cargo xtask test --faults` makes a page of it.
    fn report(&self, seed: usize, rounds: usize) {
        let Tally { acknowledged, killed_in_start, killed_in_running, killed_in_committing } = self;
        let report = json!({
            "seed": seed.to_string(), "rounds": rounds, "acknowledged": acknowledged, "killed_in_start": killed_in_start,
            "killed_in_running": killed_in_running, "killed_in_committing": killed_in_committing,
        });
        println!("{report}");
        if let Some(file) = std::env::var_os("WASMHOST_FAULT_REPORT") {
            std::fs::write(file, report.to_string()).unwrap();
        }
    }
}

/// That none of this is found says nothing of a check that finds nothing.
#[test]
fn what_must_not_happen_is_noticed() {
    let mut life = Life::new();
    let host = Host::run(&life.formation);
    for (id, state, payload) in [(1, "done", "write:log"), (2, "done", "write:log"), (3, "dead", "bury:no")] {
        assert_eq!(host.enqueue("default", payload), id);
        let promise = if state == "done" { Promise::Done } else { Promise::Dead };
        life.ledger.get_mut().unwrap().acknowledge(id, promise);
        eventually("it has ended", || (host.store().job(id).state == state).then_some(()));
    }
    host.stop().done();
    life.check(&Store::open(&life.formation.path(STORE)));
    life.ledger.get_mut().unwrap().settled().unwrap();

    let log = life.formation.read("out/log");
    let mut copies = 0..;
    for (sql, more, found) in [
        ("DELETE FROM jobs WHERE id = 1", "", "job 1 was acknowledged and is gone"),
        ("UPDATE jobs SET state = 'available' WHERE id = 2", "", "had ended as"),
        ("UPDATE jobs SET state = 'dead' WHERE id = 2", "", "had ended as"),
        ("UPDATE jobs SET state = 'leased', lease_owner = 'host/1' WHERE id = 2", "", "host/1 is dead, and"),
        ("UPDATE jobs SET attempt = 0 WHERE id = 2", "", "attempt 1 ran of"),
        ("UPDATE queues SET done = done - 1", "", "the counts kept of queue default"),
        ("UPDATE jobs SET state = state", "2 1 worker.1\n", "attempt 1 of job 2 ran twice"),
    ] {
        let copy = life.formation.path(&format!("copy {}.db", copies.next().unwrap()));
        std::fs::copy(life.formation.path(STORE), &copy).unwrap();
        let store = Store::open(&copy);
        store.tamper(sql);
        if sql.contains("host/1") {
            life.ledger.get_mut().unwrap().bury_owners(&store);
        }
        let error = life.ledger.get_mut().unwrap().check(&store, || log.clone() + more).unwrap_err();
        assert!(error.contains(found), "{sql}: {error}");
    }
}
