//! A host whose standard output or standard error can't be written, or isn't read.

use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, pipe};
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::http::{Connection, Request};
use crate::harness::{Formation, Lines, PATIENCE, command, eventually};

/// More than a host with `grace = "0s"` takes to end, also where two streams are stalled and the machine is busy.
const END_MAX: Duration = Duration::from_secs(20);

/// A host with streams that the test has made. It is killed when this is dropped.
struct Host<'a> {
    child: Child,
    formation: &'a Formation,
}

impl<'a> Host<'a> {
    #[track_caller]
    fn run(formation: &'a Formation, stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Host<'a> {
        let mut command = command(formation.folder(), ["run"], &[]);
        let child = command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn().unwrap();
        let host = Host { child, formation };
        eventually("its instances are up", || {
            let types = host.ps()?["types"].as_array()?.clone();
            types.iter().all(|view| view["actual"] == view["desired"]).then_some(())
        });
        host
    }

    /// How things stand, once it has started.
    fn ps(&self) -> Option<Value> {
        let ps = self.formation.cli(["ps", "--json"]);
        let view: Option<Value> = (ps.code == 0).then(|| serde_json::from_str(&ps.stdout).unwrap());
        view.filter(|view| view["starting"].is_null())
    }

    fn address(&self) -> SocketAddr {
        let ps = self.ps().unwrap();
        let place = ps["http"][0].as_str().unwrap();
        place.trim_start_matches("http://").trim_end_matches('/').parse().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end; its exit code.
    #[track_caller]
    fn wait(&mut self) -> i32 {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap();
            }
            assert!(begun.elapsed() < PATIENCE + END_MAX, "it doesn't end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGTERM; it ends soon, and well.
    #[track_caller]
    fn stop(&mut self) {
        self.signal(Signal::TERM);
        let begun = Instant::now();
        assert_eq!(self.wait(), 0);
        assert!(begun.elapsed() < END_MAX, "{:?}", begun.elapsed());
    }
}

impl Drop for Host<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn get(address: SocketAddr, target: &str) -> crate::harness::http::Answer {
    Connection::open(address).unwrap().send(&Request::get(target)).unwrap()
}

/// A request to the first type that is under way until its body is whole.
#[track_caller]
fn hold(address: SocketAddr, ps: impl Fn() -> Option<Value>) -> Connection {
    let mut held = Connection::open(address).unwrap();
    held.send_raw(b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    let is_busy = |ps: &Value| ps["types"][0]["instances"][0]["state"] == "busy";
    eventually("it is under way", || ps().filter(is_busy).map(drop));
    held
}

/// Sends its rest once nobody listens there any more, and has its answer.
#[track_caller]
fn finish(mut held: Connection, address: SocketAddr) {
    eventually("the host drains", || Connection::open(address).is_err().then_some(()));
    held.send_raw(b"1\r\nx\r\n0\r\n\r\n").unwrap();
    assert_eq!(held.read_answer(false).unwrap().ok(), "x");
}

/// A pipe whose reader is gone: EPIPE.
fn closed() -> PipeWriter {
    pipe().unwrap().1
}

/// A full disk: ENOSPC.
fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

/// A file that is open for reading alone: EBADF.
fn unwritable() -> File {
    File::open("/dev/null").unwrap()
}

fn read(stream: PipeReader) -> Lines {
    Lines::read(stream)
}

/// How many lines of `source` were dropped, as the host's own lines say.
fn dropped(lines: &[String], source: &str) -> u64 {
    let message = |line: &String| {
        let line: Value = serde_json::from_str(line).ok()?;
        line["message"].as_str().map(str::to_owned)
    };
    let count = |message: String| {
        let (count, rest) = message.split_once(' ')?;
        let is_told = rest.contains(&format!("of {source} w")) && rest.contains("dropped");
        is_told.then(|| count.parse::<u64>().unwrap())
    };
    lines.iter().filter_map(message).filter_map(count).sum()
}

/// The members of the kind: a reader that has gone, a full disk, a descriptor that can't be written to. (For a terminal
/// that was closed see below.)
#[test]
fn a_stream_that_cannot_be_written_ends_no_request_no_job_and_no_drain() {
    let formation = Formation::web("timeout = \"60s\"")
        .process("worker", "job-test", "queue = \"q\"\nattempts = 9\nbackoff = [\"0s\"]")
        .http("access_log = \"text\"");
    let streams: [fn() -> Stdio; 3] = [|| closed().into(), || full().into(), || unwritable().into()];
    for (number, stream) in streams.iter().enumerate() {
        let mut host = Host::run(&formation, stream(), stream());
        let address = host.address();
        for _ in 0..3 {
            get(address, "/trap").is_error(502, "H13");
            get(address, "/log?lines=10").ok();
        }
        // Three crashes bury a job, long before a lease would have expired.
        let id = formation.cli(["enqueue", "q", "trap"]).done();
        eventually("the job is dead", || {
            let shown: Value =
                serde_json::from_str(&formation.cli(["jobs", "show", id.trim(), "--json"]).done()).unwrap();
            (shown["state"] == "dead" && shown["crashes"] == 3).then_some(())
        });
        // A request that is under way is finished.
        let held = hold(address, || host.ps());
        host.signal(Signal::TERM);
        finish(held, address);
        assert_eq!(host.wait(), 0, "stream {number}");
    }
}

/// Writing to it is EIO. A host that leaves SIGHUP alone goes on without it.
#[test]
fn a_terminal_that_was_closed_ends_no_request_and_no_drain() {
    let formation = Formation::web("timeout = \"60s\"").http("access_log = \"text\"");
    let binary = command(formation.folder(), [""; 0], &[]);
    // The terminal's other end is `script`'s, of the package bsdutils, which every Debian has.
    let line = "trap '' HUP; exec script -qfc 'exec \"$WASMHOST\" run' /dev/null";
    let mut script = std::process::Command::new("sh");
    script.args(["-c", line]).current_dir(formation.folder()).env("WASMHOST", binary.get_program());
    script.envs(binary.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let child = script.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut terminal = Host { child, formation: &formation };
    eventually("it serves", || terminal.ps().filter(|ps| ps["types"][0]["actual"] == 1).map(drop));
    let address = terminal.address();
    let pid = terminal.ps().unwrap()["pid"].as_i64().and_then(|pid| Pid::from_raw(pid as i32)).unwrap();
    terminal.child.kill().unwrap();
    terminal.child.wait().unwrap();
    for _ in 0..3 {
        get(address, "/trap").is_error(502, "H13");
        get(address, "/log?lines=10").ok();
    }
    let held = hold(address, || terminal.ps());
    kill_process(pid, Signal::TERM).unwrap();
    finish(held, address);
    eventually("it has ended", || terminal.ps().is_none().then_some(()));
}

#[test]
fn a_standard_error_that_nobody_reads_stalls_nothing_and_what_is_lost_is_told() {
    let formation = Formation::web("count = 2\nmax_calls = 100000").http("access_log = \"text\"");
    let (stderr, writer) = pipe().unwrap();
    let mut host = Host::run(&formation, Stdio::null(), writer);
    let address = host.address();
    // More than the pipe and the host's own bound hold together.
    let long = format!("/ok?{}", "x".repeat(10));
    let target = format!("/ok/{}{long}", "y".repeat(4_000));
    let mut connection = Connection::open(address).unwrap();
    let requests = 1_500;
    for n in 0..requests {
        if n % 500 == 0 {
            get(address, "/trap").is_error(502, "H13");
        }
        assert_eq!(connection.send(&Request::get(&target)).unwrap().status, 404);
    }
    get(address, "/ok").ok();
    // Somebody reads again.
    let lines = read(stderr);
    let written = |lines: &[String]| lines.iter().filter(|line| line.contains(" GET /ok/yyy")).count() as u64;
    lines.wait_until("all lines are there or told", |lines| {
        let lost = dropped(lines, "the access log");
        (lost > 0 && written(lines) + lost >= requests).then_some(())
    });
    assert!(
        lines.count("all instances are up") == 1 && lines.count("wasm trap") >= 1,
        "the host's lines have a bound of their own"
    );
    host.stop();
}

#[test]
fn a_standard_error_that_is_never_read_does_not_hold_a_stop_up() {
    let formation = Formation::web("").http("access_log = \"json\"").top("grace = \"0s\"");
    let (_stderr, writer) = pipe().unwrap();
    let mut host = Host::run(&formation, Stdio::null(), writer);
    let address = host.address();
    let mut connection = Connection::open(address).unwrap();
    (0..1_000).for_each(|_| drop(connection.send(&Request::get("/ok")).unwrap().ok()));
    host.stop();
}

#[test]
fn a_stalled_standard_output_slows_its_writer_for_a_moment_and_nobody_else() {
    let formation = Formation::web("timeout = \"60s\"")
        .process("good", "web-test", "route = \"/ok\"")
        .top("grace = \"4s\"");
    let ((_stdout, out), (stderr, err)) = (pipe().unwrap(), pipe().unwrap());
    let mut host = Host::run(&formation, out, err);
    let lines = read(stderr);
    let address = host.address();
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let begun = Instant::now();
            get(address, "/log?lines=30000").ok();
            begun.elapsed()
        });
        let mut slowest = Duration::ZERO;
        while !flood.is_finished() {
            let begun = Instant::now();
            get(address, "/ok").ok();
            slowest = slowest.max(begun.elapsed());
        }
        let took = flood.join().unwrap();
        assert!(took >= Duration::from_secs(1), "it didn't wait at all: {took:?}");
        // Far below the second that the other type waits for.
        assert!(slowest < Duration::from_millis(900), "{slowest:?}");
    });
    lines.wait_until("what was dropped is told", |lines| (dropped(lines, "\"web\"") > 0).then_some(()));
    // A person who asks sees all of it, and the lines of others.
    let logs = formation.cli(["logs", "web"]).done();
    assert!(logs.contains("without its end"), "{logs}");
    // And how many of them nobody read.
    let lost = host.ps().unwrap()["types"][0]["lines_dropped"].as_u64().unwrap();
    assert!(lost >= lines.wait_until("the count", |lines| Some(dropped(lines, "\"web\""))), "{lost}");
    let text = formation.cli(["ps", "web"]).done();
    assert!(text.contains("lines that it wrote were dropped: nobody read them fast enough"), "{text}");
    assert_eq!(host.ps().unwrap()["types"][1]["lines_dropped"], 0);
    let warned = formation.cli(["logs", "host", "--level", "warn"]).done();
    assert!(warned.contains(" of \"web\" were dropped: nobody reads stdout fast enough"), "{warned}");
    // At the end there is a moment for what still waits, and no more.
    let begun = Instant::now();
    host.stop();
    assert!(begun.elapsed() < END_MAX, "{:?}", begun.elapsed());
}

#[test]
fn lines_that_a_stalled_standard_output_lost_are_counted() {
    let formation = Formation::web("timeout = \"60s\"");
    let ((stdout, out), (stderr, err)) = (pipe().unwrap(), pipe().unwrap());
    let mut host = Host::run(&formation, out, err);
    let errors = read(stderr);
    let address = host.address();
    get(address, "/log?lines=30000").ok();
    let lines = read(stdout);
    // No line that is written now is lost.
    eventually("there is room again", || lines.text().contains("stdout 1\"").then_some(()));
    get(address, "/log?lines=5").ok();
    host.stop();
    errors.wait_until("the host has ended", |lines| {
        lines.iter().any(|line| line.contains("draining")).then_some(())
    });
    eventually("each line is there or counted", || {
        let there = lines.all().iter().filter(|line| line.contains("\"instance\":\"web.1\"")).count() as u64;
        let lost = dropped(&errors.all(), "\"web\"");
        (lost > 0 && there + lost == 2 * 30_000 + 1 + 2 * 5 + 1).then_some(())
    });
}

#[test]
fn a_line_does_not_stand_behind_all_that_another_type_has_written() {
    const FLOOD: usize = 3_000;
    let formation =
        Formation::web("timeout = \"60s\"").process("good", "web-test", "route = \"good.example\"");
    let ((stdout, out), (_stderr, err)) = (pipe().unwrap(), pipe().unwrap());
    let mut host = Host::run(&formation, out, err);
    let address = host.address();
    // Nobody reads yet. There is room for all of it.
    get(address, &format!("/log?lines={FLOOD}")).ok();
    let request = Request::get("/log?lines=1").header("host", "good.example");
    Connection::open(address).unwrap().send(&request).unwrap().ok();
    let mut lines = BufReader::new(stdout).lines().map(Result::unwrap);
    let before = lines.by_ref().take_while(|line| !line.contains("\"instance\":\"good.1\"")).count();
    // The flood's first lines are in the pipe, and some more of them in what is written together.
    assert!(before < FLOOD, "{before} of {} lines came before", 2 * FLOOD);
    // All of them come, each stream's in its order.
    let of_flood = lines.filter(|line| line.contains("\"web.1\"") && line.contains("\"stdout\""));
    let numbers =
        of_flood.filter_map(|line| line.split_once("stdout ")?.1.trim_end_matches(['"', '}']).parse().ok());
    let numbers: Vec<usize> = numbers.take_while(|number| *number < FLOOD).collect();
    assert!(numbers.is_sorted() && numbers.len() > FLOOD / 4, "{} {numbers:?}", numbers.len());
    host.stop();
}

#[test]
fn a_standard_output_that_does_not_block_loses_nothing_while_it_is_read() {
    let formation = Formation::web("timeout = \"60s\"");
    let (stdout, out) = pipe().unwrap();
    rustix::io::ioctl_fionbio(&out, true).unwrap();
    let (_stderr, err) = pipe().unwrap();
    let mut host = Host::run(&formation, out, err);
    let address = host.address();
    std::thread::scope(|scope| {
        scope.spawn(|| get(address, "/log?lines=20000").ok());
        let mut count = 0;
        let mut lines = BufReader::new(stdout).lines();
        while count < 2 * 20_000 + 1 {
            let line = lines.next().expect("it has ended").unwrap();
            count += usize::from(line.contains("\"instance\":\"web.1\""));
        }
    });
    host.stop();
}

#[test]
fn a_signal_that_was_ignored_at_start_is_left_alone() {
    let formation = Formation::web("");
    for (ignored, name) in [(Signal::HUP, "HUP"), (Signal::INT, "INT")] {
        // As `nohup`, or a shell that starts a program in the background, leaves it.
        let script = format!("trap '' {name}; exec \"$0\" run");
        let mut shell = std::process::Command::new("sh");
        let command = command(formation.folder(), [""; 0], &[]);
        shell.args(["-c", &script]).arg(command.get_program()).current_dir(formation.folder());
        shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let child = shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut host = Host { child, formation: &formation };
        eventually("it serves", || host.ps().map(drop));
        host.signal(ignored);
        let address = host.address();
        // A signal that ends a host does so before the next answers are through.
        (0..50).for_each(|_| drop(get(address, "/ok").ok()));
        assert!(host.child.try_wait().unwrap().is_none(), "{name} has ended it");
        let closing = get(address, "/ok");
        assert_eq!(closing.header("connection"), None, "{name} has it drain");
        host.stop();
    }
}
