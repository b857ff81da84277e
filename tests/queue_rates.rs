//! `max_per_second`: a storm of one producer's is refused, and others enqueue as before.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use crate::harness::http::Request;
use crate::harness::{Formation, Host, PATIENCE, eventually};

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
