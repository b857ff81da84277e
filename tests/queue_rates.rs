//! `max_per_second`: a storm of one producer's is refused, and others enqueue as before.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::http::Request;
use crate::harness::{Formation, Host, PATIENCE, Process, eventually};

const SLOWED: &str = "enqueues faster on \\\"q\\\" than its max_per_second of 1 allows";

fn formation() -> Formation {
    let keys = "route = \"other.example\"\nenqueue = [\"q\", \"free\"]";
    Formation::web("enqueue = [\"q\", \"free\"]")
        .process("other", "web-test", keys)
        .table("[queues.q]\nmax_per_second = 1")
}

/// Puts so many jobs on a queue by the admin API. The answer, with its head.
fn post(formation: &Formation, queue: &str, jobs: usize) -> String {
    let mut stream = UnixStream::connect(formation.path(".wasmhost/admin.sock")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let body = format!("[{}]", vec!["{}"; jobs].join(","));
    let head = format!("POST /v1/queues/{queue}/jobs HTTP/1.1\r\nhost: x\r\nconnection: close");
    write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.to_lowercase()
}

#[test]
fn a_guest_that_enqueues_without_end_is_refused_and_others_are_not() {
    let host = Host::run(&formation());
    let refused = eventually("a job is refused", || {
        let answer = host.post("/enqueue?queue=q", "x");
        (answer.status == 503).then_some(answer)
    });
    let said = refused.text();
    assert!(said.contains("has a max_per_second of 1, which web has used up: try again in 1 s"), "{said}");
    for _ in 0..20 {
        host.post("/enqueue?queue=q", "x");
        assert_eq!(host.post("/enqueue?queue=free", "x").status, 201);
    }
    let other = Request::post("/enqueue?queue=q", "x").header("host", "other.example");
    assert_eq!(host.send(&other).status, 201);
    let line = host.stderr().wait_for(SLOWED);
    assert!(line.contains("web enqueues"), "{line}");
    assert_eq!(host.stderr().count(SLOWED), 1);
    // A client that waits goes on.
    eventually("a job is taken again", || (host.post("/enqueue?queue=q", "x").status == 201).then_some(()));
}

#[test]
fn the_admin_api_says_when_to_come_again() {
    let formation = formation();
    let host = Host::run(&formation);
    // Taken whole, and a debt of 500 seconds.
    assert!(post(&formation, "q", 500).starts_with("http/1.1 201"));
    let refused = post(&formation, "q", 1);
    assert!(refused.starts_with("http/1.1 429"), "{refused}");
    let line = refused.lines().find(|line| line.starts_with("retry-after: ")).unwrap_or_default();
    let seconds: u64 = line.trim_start_matches("retry-after: ").parse().unwrap();
    assert!((400..=500).contains(&seconds), "{refused}");
    assert!(refused.contains("the admin api has used up"), "{refused}");
    host.cli(["enqueue", "q", "x"]).failed(1, "has a max_per_second of 1");
    assert!(post(&formation, "free", 500).starts_with("http/1.1 201"));
    // Its debt isn't a guest's.
    assert_eq!(host.post("/enqueue?queue=q", "x").status, 201);
    host.stderr().wait_for("the admin API enqueues faster");
}

#[test]
fn lines_wait_until_the_queue_takes_them_and_none_is_lost_or_doubled() {
    let formation = Formation::web("").table("[queues.q]\nmax_per_second = 500");
    let host = Host::run(&formation);
    let lines: String = (0..2_500).map(|line| format!("line {line}\n")).collect();
    let ended = host.cli_with_input(["enqueue", "q", "--lines"], &lines);
    // Never, where the machine was slow enough.
    let told = ended.stderr.matches("wait, until Ctrl-C: queue \"q\" has a max_per_second of 500").count();
    assert!(told <= 1, "{ended:#?}");
    assert_eq!(ended.done(), "enqueued 2500 jobs\n");
    assert_eq!(waiting(&host), 2_500);
    for id in [1, 1_000, 1_001, 2_000, 2_001, 2_500] {
        let job = host.cli_of(vec!["jobs", "show", &id.to_string(), "--json"]).done();
        let job: Value = serde_json::from_str(&job).unwrap();
        assert_eq!(job["payload"], format!("line {}", id - 1));
    }
}

/// Jobs on the queue `q`.
fn waiting(host: &Host) -> u64 {
    let stats: Value = serde_json::from_str(&host.cli(["jobs", "stats", "--json"]).done()).unwrap();
    let queues = stats["queues"].as_array().unwrap();
    queues.iter().find(|view| view["queue"] == "q").unwrap()["available"].as_u64().unwrap()
}

#[test]
fn lines_that_wait_are_given_up_by_ctrl_c_which_says_how_far_they_came() {
    let formation = formation();
    let host = Host::run(&formation);
    let lines = "x\n".repeat(1_500);
    let process = Process::start_with_input(formation.folder(), ["enqueue", "q", "--lines"], &lines);
    process.stderr.wait_for("lines 1001 to 1500 wait, until Ctrl-C: queue \"q\" has a max_per_second of 1");
    let ended = interrupt(process);
    assert_eq!(ended, "interrupted: 1000 jobs were enqueued, up to line 1000");
    assert_eq!(waiting(&host), 1_000);
    // The same where nothing comes to be read.
    let verb = ["enqueue", "free", "--lines", "--json"];
    let (mut input, process) = Process::start_with_stdin(formation.folder(), verb, &[]);
    input.write_all("x\n".repeat(1_000).as_bytes()).unwrap();
    process.stdout.wait_until("all are enqueued", |lines| (lines.len() == 1_000).then_some(()));
    assert_eq!(interrupt(process), "interrupted: 1000 jobs were enqueued, up to line 1000");
    drop(input);
}

/// Its last line on standard error.
fn interrupt(process: Process) -> String {
    process.signal(Signal::INT);
    let ended = process.wait().never_panicked();
    assert_eq!(ended.code, 130, "{ended:#?}");
    ended.stderr.lines().last().unwrap_or_default().to_owned()
}
