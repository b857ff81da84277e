//! Three hosts with one PostgreSQL, and faults at random: a host is killed, or stands still; the server is restarted, killed,
//! or stays away; a host is killed in the middle of a deploy that it runs. All the while jobs are posted, a clock ticks each
//! second, and a count is scaled. After each fault, what was promised must hold.
//!
//! `WASMHOST_FAULT_HOSTS=50` makes it longer (`cargo xtask test --faults`), `WASMHOST_FAULT_SEED=...` repeats which faults come
//! and where, not what the machine makes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::Signal;

use crate::harness::http::{Answer, Failed, Request};
use crate::harness::postgres::Server;
use crate::harness::{Formation, Host, Load, eventually, setting};
use crate::hosts::{holders, joined, settled, wait};

/// Faults that are over soon. Where there are as few rounds as in every test run, only these come, each of them once.
const SHORT: [Fault; 3] = [Fault::KilledInDeploy, Fault::Restarted, Fault::Killed];

const ALL: [Fault; 6] =
    [Fault::KilledInDeploy, Fault::Restarted, Fault::Killed, Fault::ServerKilled, Fault::Frozen, Fault::Away];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// `kill -9` of a host, which is started again.
    Killed,
    /// The same of one that runs a deploy.
    KilledInDeploy,
    /// A host stands still for longer than others wait for it.
    Frozen,
    /// The server ends in order, and starts again.
    Restarted,
    /// The server is killed, and starts again.
    ServerKilled,
    /// The server is away for longer than operations wait for it.
    Away,
}

#[test]
fn whatever_was_promised_holds_over_faults_of_hosts_and_of_the_store() {
    let rounds = setting("WASMHOST_FAULT_HOSTS", SHORT.len());
    let seed = setting("WASMHOST_FAULT_SEED", fastrand::usize(..));
    println!("WASMHOST_FAULT_SEED={seed} WASMHOST_FAULT_HOSTS={rounds}");
    let Some(server) = Server::start() else { return };
    let mut random = Rng::with_seed(seed as u64);
    let mut faults = SHORT.to_vec();
    random.shuffle(&mut faults);
    if rounds > SHORT.len() {
        faults.extend((SHORT.len()..rounds).map(|_| *random.choice(&ALL).unwrap()));
    }
    let mut cluster = Cluster::start(server);
    for (round, fault) in faults.into_iter().take(rounds).enumerate() {
        let begun = Instant::now();
        cluster.round(fault, &mut random);
        println!("round {round}: {fault:?} in {:.1} s", begun.elapsed().as_secs_f64());
    }
    cluster.stop();
}

/// The hosts, those who ask them, and what these were promised.
struct Cluster {
    server: Server,
    formations: Vec<Formation>,
    hosts: Vec<Option<Peer>>,
    acknowledged: Arc<Mutex<BTreeSet<i64>>>,
    /// The version of `web` that is live.
    version: u64,
    /// The highest that a deploy was made of.
    built: u64,
}

/// A host and its clients.
struct Peer {
    host: Host,
    is_killed: Arc<AtomicBool>,
    loads: Vec<Load>,
}

impl Cluster {
    fn start(server: Server) -> Cluster {
        let formations = [(); 3].map(|()| formation(&server)).into();
        let mut cluster =
            Cluster { server, formations, hosts: vec![], acknowledged: Arc::default(), version: 1, built: 1 };
        // The second and third find the release of the first.
        for at in 0..3 {
            let peer = cluster.boot(at);
            cluster.hosts.push(Some(peer));
        }
        cluster.is_whole();
        cluster
    }

    fn boot(&self, at: usize) -> Peer {
        let host = Host::run(&self.formations[at]);
        // A host that has just started has its share only when others have heard of it.
        wait(&host, "it has its share", |ps| {
            settled(ps) && joined(ps) == 1 + self.hosts.iter().flatten().count()
        });
        let is_killed = Arc::new(AtomicBool::new(false));
        let loads = vec![gets(&host, &is_killed), posts(&host, &is_killed, &self.acknowledged)];
        Peer { host, is_killed, loads }
    }

    fn host(&self, at: usize) -> &Host {
        &self.hosts[at].as_ref().unwrap().host
    }

    fn round(&mut self, fault: Fault, random: &mut Rng) {
        let at = random.usize(0..3);
        let other = (at + 1) % 3;
        // Whether it is done before the fault, or at all, is left to chance.
        let count = format!("worker={}", random.u64(3..=9));
        let scale = self.host(other).cli_beside(["scale", &count]);
        let posted = self.acknowledged.lock().unwrap().len();
        eventually("jobs are posted", || {
            (self.acknowledged.lock().unwrap().len() >= posted + 5).then_some(())
        });
        match fault {
            Fault::Killed => {
                self.kill(at);
                // Some start again before others have noticed.
                thread::sleep(Duration::from_millis(random.u64(0..15_000)));
                self.hosts[at] = Some(self.boot(at));
            }
            Fault::KilledInDeploy => self.kill_in_deploy(at, random),
            Fault::Frozen => {
                self.host(at).signal(Signal::STOP);
                thread::sleep(Duration::from_secs(random.u64(15..=45)));
                self.host(at).signal(Signal::CONT);
            }
            Fault::Restarted => {
                self.server.stop();
                self.server.go();
            }
            Fault::ServerKilled => {
                self.server.kill();
                self.server.go();
            }
            Fault::Away => {
                self.server.stop();
                thread::sleep(Duration::from_secs(15));
                self.server.go();
            }
        }
        let ended = Instant::now();
        // It may have failed.
        scale.wait().never_panicked();
        self.is_whole();
        println!("  whole after {:.1} s", ended.elapsed().as_secs_f64());
        self.check();
        println!("  checked after {:.1} s", ended.elapsed().as_secs_f64());
    }

    /// Kills a host under its clients.
    fn kill(&mut self, at: usize) {
        let Peer { host, is_killed, loads } = self.hosts[at].take().unwrap();
        is_killed.store(true, Relaxed);
        host.kill();
        loads.into_iter().for_each(|load| assert!(load.ended() > 0));
    }

    /// A deploy whose host is killed before it, in it, or after it: it is everywhere, or nowhere.
    fn kill_in_deploy(&mut self, at: usize, random: &mut Rng) {
        self.built += 1;
        self.formations[at].build("web", "web-test", &self.built.to_string());
        let before = self.server.sql("SELECT max(number) FROM hosts.releases");
        let deploy = self.host(at).cli_beside(["deploy"]);
        thread::sleep(Duration::from_millis(random.u64(0..4_000)));
        self.kill(at);
        let ended = deploy.wait();
        self.hosts[at] = Some(self.boot(at));
        let state = self.server.sql(&format!("SELECT state FROM hosts.releases WHERE number > {before}"));
        println!("  the deploy ended with {} and is {state:?}", ended.code);
        assert!(ended.code != 0 || state == "live", "it was said to be live: {ended:?}");
        // One that was left pending fails when the next deploy begins.
        assert!(["", "live", "failed", "pending"].contains(&state.as_str()), "it is {state}");
        if state == "live" {
            self.version = self.built;
        }
    }

    /// Waits until all hosts have their share, of the live release.
    fn is_whole(&self) {
        let kept = self.server.sql("SELECT count FROM hosts.counts WHERE process_type = 'worker'");
        for Peer { host, .. } in self.hosts.iter().flatten() {
            wait(host, "every host has its share", |ps| {
                joined(ps) == 3 && settled(ps) && slots_are_right(ps)
            });
            assert!(kept.is_empty() || kept == host.ps().number("worker", "count").to_string());
            // The others follow within seconds after the host that deploys.
            let version = self.version.to_string();
            eventually("it runs the live release", || (host.version() == version).then_some(()));
        }
    }

    fn check(&self) {
        // No client of a host that lived has failed.
        for peer in self.hosts.iter().flatten() {
            assert_eq!(peer.host.version(), self.version.to_string());
            peer.loads.iter().for_each(|load| load.wait_for(3));
        }
        let acknowledged = self.acknowledged.lock().unwrap().clone();
        eventually("all jobs that were acknowledged are done", || {
            thread::sleep(Duration::from_millis(100));
            let done = self.server.sql("SELECT id FROM hosts.jobs WHERE state = 'done'");
            let done: BTreeSet<i64> = done.lines().map(|id| id.parse().unwrap()).collect();
            acknowledged.is_subset(&done).then_some(())
        });
        // A call is noted after its claim, so notes are read first.
        let mut runs = BTreeMap::<i64, i64>::new();
        for line in self.notes("out/log") {
            *runs.entry(line.split(' ').next().unwrap().parse().unwrap()).or_default() += 1;
        }
        let claims = self.server.sql("SELECT id, claim FROM hosts.jobs");
        let claims: BTreeMap<i64, i64> = claims
            .lines()
            .filter_map(|line| line.split_once('|'))
            .map(|(id, claim)| (id.parse().unwrap(), claim.parse().unwrap()))
            .collect();
        for (id, runs) in &runs {
            let claims = claims.get(id).copied().unwrap_or(0);
            assert!(*runs <= claims, "job {id} ran {runs} times by {claims} claims");
        }
        let never = acknowledged.iter().find(|id| !runs.contains_key(*id));
        assert_eq!(never, None, "a job is done that nobody ran");
        let mut ticks = BTreeSet::new();
        for line in self.notes("out/ticks") {
            let nominal = line.split(' ').next().unwrap().to_owned();
            assert!(ticks.insert(nominal), "a tick came twice: {line}");
        }
        let states = ["scheduled", "available", "leased", "retrying", "done", "dead", "cancelled"];
        let counted = states.map(|state| format!("count(*) FILTER (WHERE state = '{state}')")).join(", ");
        let wrong = format!(
            "SELECT * FROM (SELECT queue, {} FROM hosts.queues EXCEPT SELECT queue, {counted} FROM hosts.jobs GROUP BY queue) AS wrong",
            states.join(", ")
        );
        assert_eq!(self.server.sql(&wrong), "", "the numbers of a queue are not those of its jobs");
    }

    /// The whole lines that guests of all hosts wrote to this file.
    fn notes(&self, file: &str) -> Vec<String> {
        let texts = self.formations.iter().map(|formation| formation.read(file));
        let whole = |text: &str| -> Vec<String> {
            text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned).collect()
        };
        texts.flat_map(|text| whole(&text)).collect()
    }

    fn stop(mut self) {
        for Peer { host, loads, .. } in self.hosts.drain(..).flatten() {
            loads.into_iter().for_each(|load| assert!(load.stop() > 0));
            host.stop().never_panicked().done();
        }
    }
}

/// A host of the formation: requests, jobs that are noted, and a clock.
fn formation(server: &Server) -> Formation {
    let dirs = "dirs = [{ host = \"out\", guest = \"/out\", access = \"write\" }]";
    let url = server.url("hosts");
    Formation::new()
        .directory("out")
        .versioned("web", "web-test", "1", "count = 6\nenqueue = [\"default\"]")
        .process("worker", "job-test", &format!("queue = \"default\"\ncount = 3\n{dirs}"))
        .process("clock", "tick-test", &format!("schedule = \"* * * * * *\"\n{dirs}"))
        .table(&format!("[store]\nurl = {url:?}"))
}

/// Each slot has one instance on one host.
fn slots_are_right(ps: &serde_json::Value) -> bool {
    ["web", "worker", "clock"].into_iter().all(|process| {
        let all: Vec<u64> = holders(ps, process).into_values().flatten().collect();
        let slots: BTreeSet<u64> = all.iter().copied().collect();
        slots.len() == all.len() && slots == (1..=all.len() as u64).collect()
    })
}

/// Requests that touch no store: none may fail while the host lives.
fn gets(host: &Host, is_killed: &Arc<AtomicBool>) -> Load {
    let is_killed = is_killed.clone();
    let paced = |_| {
        thread::sleep(Duration::from_millis(20));
        Request::get("/version")
    };
    Load::start(host.address(), 1, paced, move |number, answer| match answer {
        Ok(Answer { status: 200, .. }) => Ok(true),
        Err(Failed::Refused(_) | Failed::Unanswered(_) | Failed::Cut(_)) if is_killed.load(Relaxed) => {
            Ok(false)
        }
        other => Err(format!("request {number}: {other:?}")),
    })
}

/// Jobs that are enqueued by guests. While the store is away they are refused.
fn posts(host: &Host, is_killed: &Arc<AtomicBool>, acknowledged: &Arc<Mutex<BTreeSet<i64>>>) -> Load {
    let (is_killed, acknowledged) = (is_killed.clone(), acknowledged.clone());
    let paced = |_| {
        thread::sleep(Duration::from_millis(100));
        Request::post("/enqueue?queue=default", "write:log\nsleep:20")
    };
    Load::start(host.address(), 1, paced, move |number, answer| match answer {
        Ok(answer) if answer.status == 201 => {
            let id = answer.text().trim().parse().unwrap();
            let is_new = acknowledged.lock().unwrap().insert(id);
            if is_new { Ok(true) } else { Err(format!("job {id} was given to two")) }
        }
        // As this guest tells of a store that is away; and what a host says that stood still meanwhile.
        Ok(Answer { status: 500 | 504, .. }) => Ok(true),
        Err(Failed::Refused(_) | Failed::Unanswered(_) | Failed::Cut(_)) if is_killed.load(Relaxed) => {
            Ok(false)
        }
        other => Err(format!("job {number}: {other:?}")),
    })
}
