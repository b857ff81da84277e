//! A host that runs a formation.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::http::{Answer, Connection, Failed, Request};
use super::{Ended, Formation, Lines, Metrics, PATIENCE, Process, Store, eventually};

/// `wasmhost run`. It is killed when this is dropped, and what it said is shown if the test has failed.
pub(crate) struct Host {
    process: Option<Process>,
    stdout: Lines,
    stderr: Lines,
    pid: u32,
    http: Option<SocketAddr>,
    folder: Arc<TempDir>,
}

impl Host {
    /// Runs a formation, and waits until all of its instances are up.
    #[track_caller]
    pub(crate) fn run(formation: &Formation) -> Host {
        Host::run_within(PATIENCE, formation)
    }

    /// The same for components that take long to compile, as they do in a host that isn't built for speed.
    #[track_caller]
    pub(crate) fn run_within(patience: Duration, formation: &Formation) -> Host {
        Host::spawn(formation).up_within(patience)
    }

    /// `wasmhost dev`, which runs it as soon as it is built.
    #[track_caller]
    pub(crate) fn dev(formation: &Formation) -> Host {
        Host::of(formation, formation.start(["dev"])).up_within(PATIENCE)
    }

    #[track_caller]
    fn up_within(mut self, patience: Duration) -> Host {
        let up = "all instances are up";
        self.stderr
            .wait_within(patience, up, |lines| lines.iter().any(|line| line.contains(up)).then_some(()));
        self.find_address();
        self
    }

    /// Runs a formation, and waits until it can be asked, whatever its instances do.
    #[track_caller]
    pub(crate) fn launch(formation: &Formation) -> Host {
        let mut host = Host::spawn(formation);
        eventually("the host can be asked", || {
            assert!(!host.process.as_mut().unwrap().has_ended(), "it has ended:\n{}", host.stderr.text());
            formation.is_up().then_some(())
        });
        if host.ps().0["http"].as_array().is_some_and(|places| !places.is_empty()) {
            // It was printed before that, and is on its way here.
            host.stderr.wait_for("Serving HTTP on ");
        }
        host.find_address();
        host
    }

    /// Runs a formation, and waits for nothing.
    pub(crate) fn spawn(formation: &Formation) -> Host {
        Host::of(formation, formation.start(["run"]))
    }

    fn of(formation: &Formation, process: Process) -> Host {
        let (stdout, stderr, pid) = (process.stdout.clone(), process.stderr.clone(), process.pid());
        Host { process: Some(process), stdout, stderr, pid, http: None, folder: formation.keep() }
    }

    /// The address is printed before the first instance is up.
    fn find_address(&mut self) {
        let lines = self.stderr.all();
        let line = lines.iter().find_map(|line| line.strip_prefix("Serving HTTP on http://"));
        self.http = line.map(|address| address.trim_end_matches('/').parse().unwrap());
    }

    /// Everywhere that it serves requests, as it printed it.
    pub(crate) fn served_at(&self) -> Vec<String> {
        let lines = self.stderr.all();
        lines.iter().filter_map(|line| line.strip_prefix("Serving HTTP on ").map(str::to_owned)).collect()
    }

    /// Everywhere that it answers probes, as it printed it.
    pub(crate) fn probed_at(&self) -> Vec<String> {
        let lines = self.stderr.all();
        lines.iter().filter_map(|line| line.strip_prefix("Answering probes on ").map(str::to_owned)).collect()
    }

    /// Where it answers probes: the place that it printed last.
    #[track_caller]
    pub(crate) fn health(&self) -> SocketAddr {
        self.stderr.wait_for("Answering probes on http://");
        let places = self.probed_at();
        let last = places.last().unwrap();
        last.trim_start_matches("http://").trim_end_matches('/').parse().unwrap()
    }

    /// Asks where it answers probes, on a connection of its own.
    #[track_caller]
    pub(crate) fn probe(&self, target: &str) -> Answer {
        Connection::open(self.health()).unwrap().send(&Request::get(target)).unwrap()
    }

    /// Where the admin API is served by TCP: the place that it printed last.
    #[track_caller]
    pub(crate) fn admin(&self) -> SocketAddr {
        let said = "Serving the admin API on http";
        self.stderr.wait_for(said);
        let lines = self.stderr.all();
        let last = lines.iter().rfind(|line| line.starts_with(said)).unwrap();
        last.rsplit_once("//").unwrap().1.trim_end_matches('/').parse().unwrap()
    }

    /// Its metrics at present.
    #[track_caller]
    pub(crate) fn metrics(&self) -> Metrics {
        Metrics::read(&self.probe("/metrics").ok())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Guests' lines.
    pub(crate) fn stdout(&self) -> &Lines {
        &self.stdout
    }

    /// The host's own lines.
    pub(crate) fn stderr(&self) -> &Lines {
        &self.stderr
    }

    /// Resident memory in bytes, without the pages of files: code that runs for the first time is nobody's doing.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.memory_bytes("RssAnon:") + self.memory_bytes("RssShmem:")
    }

    /// The most resident memory that it has had, in bytes.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.memory_bytes("VmHWM:")
    }

    fn memory_bytes(&self, which: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(which)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(&self.folder.path().join(".wasmhost/store.db"))
    }

    // --- by HTTP

    pub(crate) fn address(&self) -> SocketAddr {
        self.http.expect("it serves no HTTP")
    }

    /// A connection to it.
    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.address()).unwrap()
    }

    #[track_caller]
    pub(crate) fn get(&self, target: &str) -> Answer {
        self.send(&Request::get(target))
    }

    /// CPU time of the host's threads by their names (15 characters of them), in ticks of the system.
    #[cfg(target_os = "linux")]
    pub(crate) fn cpu_ticks(&self) -> HashMap<String, u64> {
        let mut ticks = HashMap::new();
        for task in fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap().flatten() {
            // A thread may end meanwhile.
            let Ok(stat) = fs::read_to_string(task.path().join("stat")) else { continue };
            let (name, rest) = stat.split_once('(').unwrap().1.rsplit_once(')').unwrap();
            let fields: Vec<&str> = rest.split_whitespace().collect();
            let time = |at: usize| fields[at].parse::<u64>().unwrap();
            *ticks.entry(name.to_owned()).or_default() += time(11) + time(12);
        }
        ticks
    }

    /// Has the type `web` (of `web-test`) compute until the host knows that its calls do.
    #[track_caller]
    pub(crate) fn compute_until_known(&self) {
        for _ in 0..20 {
            self.get("/spin?ms=2").ok();
        }
    }

    #[track_caller]
    pub(crate) fn post(&self, target: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.send(&Request::post(target, body))
    }

    /// Sends a request on a connection of its own.
    #[track_caller]
    pub(crate) fn send(&self, request: &Request) -> Answer {
        self.try_send(request)
            .unwrap_or_else(|failed| panic!("{} {}: {failed:?}", request.method, request.target))
    }

    pub(crate) fn try_send(&self, request: &Request) -> Result<Answer, Failed> {
        Connection::open(self.address())?.send(request)
    }

    /// A request that keeps an instance of `web` busy until it is let go. No other may be busy.
    #[track_caller]
    pub(crate) fn hold(&self) -> Held {
        let mut connection = self.connect();
        // The host would wait for the rest of a small body that says its length before it asks an instance.
        connection.send_raw(b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
        eventually("an instance is busy", || (self.ps().in_state("web", "busy") == 1).then_some(()));
        Held(connection)
    }

    // --- by command line

    pub(crate) fn cli<const N: usize>(&self, arguments: [&str; N]) -> Ended {
        Process::start(self.folder.path(), arguments).wait()
    }

    /// A verb whose arguments are not known ahead.
    pub(crate) fn cli_of(&self, arguments: Vec<&str>) -> Ended {
        Process::start(self.folder.path(), arguments).wait()
    }

    /// A verb that runs on beside the test.
    pub(crate) fn cli_beside<const N: usize>(&self, arguments: [&str; N]) -> Process {
        Process::start(self.folder.path(), arguments)
    }

    /// A verb with something on its standard input.
    pub(crate) fn cli_with_input<const N: usize>(&self, arguments: [&str; N], input: &str) -> Ended {
        Process::start_with_input(self.folder.path(), arguments, input).wait()
    }

    /// Puts a job on a queue; its id.
    #[track_caller]
    pub(crate) fn enqueue(&self, queue: &str, payload: &str) -> i64 {
        self.cli(["enqueue", queue, payload]).done().trim().parse().unwrap()
    }

    /// The same for a payload that is too long for an argument.
    #[track_caller]
    pub(crate) fn enqueue_from_input(&self, queue: &str, payload: &str) -> i64 {
        self.cli_with_input(["enqueue", queue], payload).done().trim().parse().unwrap()
    }

    /// How things stand.
    #[track_caller]
    pub(crate) fn ps(&self) -> Ps {
        Ps(serde_json::from_str(&self.cli(["ps", "--json"]).done()).unwrap())
    }

    /// Waits until all instances of a type are idle, and have had so many calls in all: an answer comes a moment before its
    /// instance is back.
    #[track_caller]
    pub(crate) fn is_idle_after(&self, process: &str, calls: u64) {
        eventually("its instances are back", || {
            let ps = self.ps();
            let had: u64 = ps.instances(process).iter().map(|one| one["calls"].as_u64().unwrap()).sum();
            (had == calls && ps.in_state(process, "idle") == ps.instances(process).len()).then_some(())
        });
    }

    /// Waits until a type's one instance has had a call, which may have cost it, and is idle. A look may be too late to see
    /// it busy.
    #[track_caller]
    pub(crate) fn is_idle_after_a_call(&self, process: &str) {
        eventually("its call is over", || {
            let ps = self.ps();
            let had = ps.number(process, "restarts") + ps.number(process, "recycled");
            let had = had + ps.instances(process)[0]["calls"].as_u64().unwrap();
            (had > 0 && ps.in_state(process, "idle") == 1).then_some(())
        });
    }

    // --- its end

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.as_ref().unwrap().signal(signal);
    }

    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Ended {
        self.process.take().unwrap().wait()
    }

    /// SIGTERM, and waits for its end.
    #[track_caller]
    pub(crate) fn stop(self) -> Ended {
        self.terminate();
        self.wait()
    }

    /// `kill -9`
    pub(crate) fn kill(self) {
        self.signal(Signal::KILL);
        self.wait();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.process.take());
        if std::thread::panicking() {
            let lines = self.stderr.all();
            let last = &lines[lines.len().saturating_sub(40)..];
            eprintln!("--- the host's last lines\n{}\n---", last.join("\n"));
        }
    }
}

/// See [`Host::hold`]. Its body is still to come.
pub(crate) struct Held(Connection);

impl Held {
    /// Sends the rest, and has its answer.
    #[track_caller]
    pub(crate) fn end(mut self) {
        self.0.send_raw(b"1\r\nx\r\n0\r\n\r\n").unwrap();
        assert_eq!(self.0.read_answer(false).unwrap().ok(), "x");
    }
}

/// The answer of `wasmhost ps --json`.
#[derive(Debug)]
pub(crate) struct Ps(pub(crate) Value);

impl Ps {
    #[track_caller]
    pub(crate) fn process(&self, name: &str) -> &Value {
        let types = self.0["types"].as_array().unwrap();
        types.iter().find(|view| view["process"] == name).unwrap_or_else(|| panic!("no {name} in {self:#?}"))
    }

    /// One of a type's numbers, such as `actual`.
    #[track_caller]
    pub(crate) fn number(&self, name: &str, field: &str) -> u64 {
        self.process(name)[field].as_u64().unwrap()
    }

    /// The time that a type's instances have computed, in seconds.
    #[track_caller]
    pub(crate) fn cpu_s(&self, name: &str) -> f64 {
        self.instances(name).iter().map(|instance| instance["cpu_s"].as_f64().unwrap()).sum()
    }

    #[track_caller]
    pub(crate) fn instances(&self, name: &str) -> &[Value] {
        self.process(name)["instances"].as_array().unwrap()
    }

    /// How many instances of a type are in this state.
    #[track_caller]
    pub(crate) fn in_state(&self, name: &str, state: &str) -> usize {
        self.instances(name).iter().filter(|instance| instance["state"] == state).count()
    }
}
