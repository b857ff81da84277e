//! Deploys, canaries, rollbacks, scales and broken deploys in random order, under load on two web types and a stream of
//! jobs; and `kill -9` at a random moment of a deploy.
//!
//! `WASMHOST_FAULT_DEPLOYS=200` makes it longer (`cargo xtask test --faults`): so many deploys, half as many rollbacks and
//! scales, a fifth as many canaries, and a tenth as many deploys that are broken in each way. `WASMHOST_FAULT_SEED=...` repeats their order and the
//! moments of kills.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use serde_json::json;

use crate::harness::http::{Answer, Request};
use crate::harness::{Formation, Host, Load, eventually, guest_file, setting};

const VERSIONS: [&str; 2] = ["one", "two"];

/// Deploys where nobody says how many: a tenth of what `--faults` does.
const DEPLOYS_DEFAULT: usize = 20;

/// Kills where nobody says how many.
const KILLS_DEFAULT: usize = 10;

/// The host's holdings are measured after so many deploys, and at the end.
const DEPLOYS_FIRST: usize = 10;

/// Its holdings are looked at after each of so many.
const LOOK_EVERY: usize = 50;

/// One step of a run.
#[derive(Debug, Clone, Copy)]
enum Act {
    Deploy,
    Canary,
    Rollback,
    Scale,
    Broken(Broken),
}

/// A way to fail.
#[derive(Debug, Clone, Copy)]
enum Broken {
    Errors,
    Missing,
    NoComponent,
    TrapsAtStart,
    DiesInTheMove,
    NeverReady,
    StepFails,
    StepHangs,
    NoRoom,
    ListenerTaken,
}

const ALL_BROKEN: [Broken; 10] = [
    Broken::Errors,
    Broken::Missing,
    Broken::NoComponent,
    Broken::TrapsAtStart,
    Broken::DiesInTheMove,
    Broken::NeverReady,
    Broken::StepFails,
    Broken::StepHangs,
    Broken::NoRoom,
    Broken::ListenerTaken,
];

#[test]
fn no_deploy_whatever_becomes_of_it_costs_a_request_or_a_job() {
    let deploys = setting("WASMHOST_FAULT_DEPLOYS", DEPLOYS_DEFAULT);
    let mut random = seeded();
    let site = Site::new();
    let host = Host::run(&site.formation);
    let orders = Orders::default();
    let loads = [
        versions(host.address(), 2, "any.example"),
        versions(host.address(), 2, "side.example"),
        orders.place(host.address()),
    ];
    let mut held = vec![];
    let mut made = 0;
    for act in acts(deploys, &mut random) {
        println!("{act:?}");
        site.act(&host, act, &mut random);
        made += usize::from(matches!(act, Act::Deploy));
        if matches!(act, Act::Deploy) && (made == DEPLOYS_FIRST || made % LOOK_EVERY == 0) {
            held.push((made, site.holdings(&host)));
        }
    }
    held.push((made, site.holdings(&host)));
    loads.iter().for_each(|load| load.wait_for(20));
    let answered: u64 = loads.into_iter().map(Load::stop).sum();
    let jobs = orders.were_each_done_once(&host, &site.formation);
    println!("{answered} requests were answered, {jobs} jobs were done; {held:#?}");
    let [(_, first), .., (_, last)] = &held[..] else {
        panic!("at least {DEPLOYS_FIRST} deploys: {deploys}")
    };
    last.is_no_more_than(first);
    report(deploys, answered, jobs, &held);
    host.stop().never_panicked().done();
}

/// For whoever asked for it: `cargo xtask test --faults` makes a page of it.
fn report(deploys: usize, answered: u64, jobs: usize, held: &[(usize, Holdings)]) {
    let Some(file) = std::env::var_os("WASMHOST_FAULT_DEPLOYS_REPORT") else { return };
    let held: Vec<_> = held.iter().map(|(deploys, held)| (deploys, held.to_string())).collect();
    let report = json!({
        "deploys": deploys, "rollbacks": deploys / 2, "scales": deploys / 2,
        "broken": deploys / 10 * ALL_BROKEN.len(), "answered": answered, "jobs": jobs,
        "held": held,
    });
    fs::write(file, report.to_string()).unwrap();
}

#[test]
fn a_host_that_is_killed_in_a_deploy_serves_one_whole_release_when_it_starts_again() {
    let kills = setting("WASMHOST_FAULT_KILLS", KILLS_DEFAULT);
    let mut random = seeded();
    let site = Site::new();
    let mut deployed = 0;
    for round in 0..kills {
        let host = Host::run(&site.formation);
        let before = site.served_whole(&host);
        let next = VERSIONS[usize::from(before == VERSIONS[0])];
        site.build(next);
        let deploy = host.cli_beside(["deploy"]);
        // From before it has begun until after its end.
        thread::sleep(Duration::from_micros(random.u64(0..600_000)));
        host.kill();
        drop(deploy);
        let host = Host::run(&site.formation);
        let after = site.served_whole(&host);
        deployed += usize::from(after == next);
        println!("round {round}: {before} -> {after}");
        host.stop().done();
    }
    println!("{deployed} of {kills} had the new version");
}

fn seeded() -> Rng {
    let seed = setting("WASMHOST_FAULT_SEED", fastrand::usize(..));
    println!("WASMHOST_FAULT_SEED={seed}");
    Rng::with_seed(seed as u64)
}

/// All there is to do, the first deploys first, the rest in any order.
fn acts(deploys: usize, random: &mut Rng) -> Vec<Act> {
    let (half, tenth) = (deploys / 2, deploys / 10);
    let mut acts = vec![Act::Deploy; deploys.saturating_sub(DEPLOYS_FIRST)];
    acts.extend(vec![Act::Canary; deploys / 5]);
    acts.extend(vec![Act::Rollback; half]);
    acts.extend(vec![Act::Scale; half]);
    ALL_BROKEN.into_iter().for_each(|broken| acts.extend(vec![Act::Broken(broken); tenth]));
    random.shuffle(&mut acts);
    [vec![Act::Deploy; deploys.min(DEPLOYS_FIRST)], acts].concat()
}

/// Two web types and a worker of one version.
struct Site {
    formation: Formation,
    text: String,
}

impl Site {
    fn new() -> Site {
        let worker = "queue = \"default\"\ncount = 4\nmemory = \"16MiB\"\n\
                      dirs = [{ host = \"out\", guest = \"/out\", access = \"write\" }]";
        let web = "memory = \"16MiB\"\ncount = 4\nenqueue = [\"default\"]";
        let formation = Formation::new()
            .top("max_instances = 100")
            .directory("out")
            .versioned("web", "web-test", VERSIONS[0], web)
            .versioned("side", "web-test", VERSIONS[0], &format!("route = \"side.example/\"\n{web}"))
            .versioned("worker", "job-test", VERSIONS[0], worker);
        let text = formation.text();
        Site { formation, text }
    }

    fn build(&self, version: &str) {
        self.formation.build("web", "web-test", version);
        self.formation.build("side", "web-test", version);
        self.formation.build("worker", "job-test", version);
    }

    fn write(&self, text: &str) {
        fs::write(self.formation.file(), text).unwrap();
    }

    fn act(&self, host: &Host, act: Act, random: &mut Rng) {
        match act {
            Act::Deploy => {
                let next = self.other_than(self.served_whole(host));
                self.build(next);
                host.cli(["deploy"]).done();
                assert_eq!(self.served_whole(host), next);
            }
            Act::Canary => self.share(host, random),
            Act::Rollback => {
                host.cli(["rollback"]).done();
                self.served_whole(host);
            }
            Act::Scale => {
                let counts = ["web", "side", "worker"].map(|name| format!("{name}={}", random.u32(1..=8)));
                host.cli(["scale", &counts[0], &counts[1], &counts[2]]).done();
            }
            Act::Broken(broken) => self.fail(host, broken),
        }
    }

    /// A canary of all types, which is scaled, and then promoted or aborted.
    fn share(&self, host: &Host, random: &mut Rng) {
        let before = self.served_whole(host);
        let next = self.other_than(before);
        self.build(next);
        host.cli(["deploy", "--canary", &format!("{}%", random.u32(1..=99))]).done();
        self.act(host, Act::Scale, random);
        if random.bool() {
            host.cli(["promote"]).done();
            assert_eq!(self.served_whole(host), next);
        } else {
            host.cli(["abort"]).done();
            self.build(before);
            assert_eq!(self.served_whole(host), before);
        }
    }

    /// A deploy that fails. Afterwards the file is whole again.
    fn fail(&self, host: &Host, broken: Broken) {
        let before = self.served_whole(host);
        self.build(self.other_than(before));
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = format!("\"{}\"", taken.local_addr().unwrap());
        let ready = |path: &str| self.text.replace("enqueue =", &format!("ready = \"{path}\"\nenqueue ="));
        let step = |args: &str| {
            let component = guest_file("cmd-test");
            format!(
                "{}\n[process.step]\ncomponent = {component:?}\nrun = \"release\"\nargs = {args}\n",
                self.text
            )
        };
        let file = self.formation.path("web.wasm");
        let mut timeout = "5m";
        match broken {
            Broken::Errors => self.write(&self.text.replace("memory", "memroy")),
            Broken::Missing => fs::remove_file(&file).unwrap(),
            Broken::NoComponent => fs::write(&file, "this is no component").unwrap(),
            Broken::TrapsAtStart => drop(fs::copy(guest_file("trap-start"), &file).unwrap()),
            // Types that take requests move beside it. One that dies in a call costs that call, and would be no fair test.
            Broken::DiesInTheMove => {
                let component = guest_file("cmd-test");
                let extra = format!("[process.extra]\ncomponent = {component:?}\nargs = [\"exit\", \"1\"]\n");
                self.write(&format!("{}\n{extra}", self.text));
            }
            Broken::NeverReady => {
                self.write(&ready("/status?code=503"));
                timeout = "500ms";
            }
            Broken::StepFails => self.write(&step("[\"exit\", \"1\"]")),
            Broken::StepHangs => {
                self.write(&step("[\"loop\"]"));
                timeout = "500ms";
            }
            Broken::NoRoom => {
                let crowd =
                    "[process.crowd]\ncomponent = \"web.wasm\"\nroute = \"crowd.example/\"\ncount = 100\n";
                self.write(&format!("{}\n{crowd}", self.text));
            }
            Broken::ListenerTaken => self.write(&self.text.replace("\"127.0.0.1:0\"", &listen)),
        }
        let live = host.live();
        let ended = host.cli(["deploy", "--timeout", timeout]).failed(1, "as before");
        self.write(&self.text);
        self.build(before);
        assert_eq!(host.live(), live, "{ended:#?}");
        assert_eq!(self.served_whole(host), before, "{ended:#?}");
    }

    fn other_than(&self, version: &str) -> &'static str {
        VERSIONS[usize::from(version == VERSIONS[0])]
    }

    /// The one version of which all types are.
    #[track_caller]
    fn served_whole(&self, host: &Host) -> &'static str {
        let ask = |authority: &str| {
            host.send(&Request::get("/version").header("host", authority)).ok().trim_end().to_owned()
        };
        let (web, side) = (ask("any.example"), ask("side.example"));
        assert_eq!(web, side, "a mix of two releases serves");
        let digest = |release: u64| {
            let release = host.release(release);
            release["release"]["components"].as_array().unwrap()[0]["digest"].as_str().unwrap().to_owned()
        };
        let version = VERSIONS.into_iter().find(|version| *version == web).expect("another version serves");
        let live = host.live();
        let file = crate::harness::variant("web-test", version);
        assert_eq!(digest(live), sha256(&file), "v{live} is live, and {version} serves");
        version
    }

    /// The host's holdings while nothing is deployed, with the counts of the file. A pool's slot that was used once has
    /// more maps than another, so that all of them are used before.
    fn holdings(&self, host: &Host) -> Holdings {
        host.cli(["scale", "web=60", "side=24", "worker=16"]).done();
        for name in ["web", "side"] {
            host.cli(["restart", name]).done();
        }
        host.cli(["scale", "--reset"]).done();
        eventually("what drains has left", || {
            let ps = host.ps();
            ["web", "side", "worker"].iter().all(|name| ps.instances(name).len() == 4).then_some(())
        });
        Holdings::of(host)
    }
}

/// Resources that must not grow.
#[derive(Debug)]
struct Holdings {
    resident_mib: u64,
    descriptors: usize,
    maps: usize,
    threads: usize,
}

impl fmt::Display for Holdings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Holdings { resident_mib, descriptors, maps, threads } = self;
        write!(f, "{resident_mib} MiB resident, {descriptors} descriptors, {maps} maps, {threads} threads")
    }
}

impl Holdings {
    fn of(host: &Host) -> Holdings {
        let proc = format!("/proc/{}", host.pid());
        let entries = |name: &str| fs::read_dir(format!("{proc}/{name}")).unwrap().count();
        Holdings {
            resident_mib: host.resident_bytes() >> 20,
            descriptors: entries("fd"),
            maps: fs::read_to_string(format!("{proc}/maps")).unwrap().lines().count(),
            threads: entries("task"),
        }
    }

    /// Requests and jobs come and go meanwhile, and so do the threads of blocking work.
    #[track_caller]
    fn is_no_more_than(&self, before: &Holdings) {
        assert!(
            self.resident_mib <= before.resident_mib + before.resident_mib / 4 + 16,
            "{before:?} -> {self:?}"
        );
        assert!(self.descriptors <= before.descriptors + 16, "{before:?} -> {self:?}");
        assert!(self.maps <= before.maps + before.maps / 10 + 64, "{before:?} -> {self:?}");
        assert!(self.threads <= before.threads + 16, "{before:?} -> {self:?}");
    }
}

/// Clients of one of the two web types.
fn versions(address: SocketAddr, threads: u64, authority: &'static str) -> Load {
    let check = |_, answer| match answer {
        Ok(Answer { status: 200, body, .. })
            if VERSIONS.contains(&String::from_utf8_lossy(&body).trim_end()) =>
        {
            Ok(true)
        }
        other => Err(format!("{other:?}")),
    };
    Load::start(address, threads, move |_| Request::get("/version").header("host", authority), check)
}

/// Jobs that were acknowledged.
#[derive(Clone, Default)]
struct Orders(Arc<Mutex<Vec<i64>>>);

impl Orders {
    /// A client that enqueues a job every few milliseconds; some of them take a while.
    fn place(&self, address: SocketAddr) -> Load {
        let orders = self.clone();
        let request = |number| {
            thread::sleep(Duration::from_millis(5));
            let work = if number % 8 == 0 { "write:log\nsleep:50" } else { "write:log" };
            Request::post("/enqueue?queue=default", work)
        };
        Load::start(address, 1, request, move |_, answer| match answer {
            Ok(answer) if answer.status == 201 => {
                orders.0.lock().unwrap().push(answer.text().trim().parse().unwrap());
                Ok(true)
            }
            other => Err(format!("a job was not enqueued: {other:?}")),
        })
    }

    #[track_caller]
    fn were_each_done_once(&self, host: &Host, formation: &Formation) -> usize {
        let store = host.store();
        let undone = || store.jobs().into_iter().filter(|job| job.state != "done").count();
        let mut left = usize::MAX;
        while left > 0 {
            left = eventually("another job has ended", || Some(undone()).filter(|now| *now < left));
        }
        let mut runs: BTreeMap<i64, usize> = BTreeMap::new();
        for line in formation.read("out/log").lines() {
            *runs.entry(line.split(' ').next().unwrap().parse().unwrap()).or_default() += 1;
        }
        let orders = self.0.lock().unwrap();
        assert!(!orders.is_empty());
        let wrong: Vec<_> = orders.iter().filter(|id| runs.get(id) != Some(&1)).collect();
        assert!(wrong.is_empty(), "of {} jobs these were not done once: {wrong:?}", orders.len());
        orders.len()
    }
}

/// As `sha256sum` has it: what a release says of its component is held against something that isn't ours.
fn sha256(bytes: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    let said = std::process::Command::new("sha256sum").arg(file.path()).output().unwrap();
    String::from_utf8_lossy(&said.stdout).split(' ').next().unwrap().to_owned()
}
