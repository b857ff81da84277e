//! The examples in languages other than the SDK's run as they are, by instances that are kept between calls.
//!
//! A test is ignored here if its guests need tools of another language than Rust. `cargo xtask test` runs those whose
//! guests it can build, and names the others: C wherever there is a compiler for it, TypeScript, Python and Go once
//! `cargo xtask guests --all` has built them.

use std::fs;
use std::time::Duration;

use crate::grants::outside;
use crate::harness::http::Request;
use crate::harness::{Formation, Host, eventually};

/// Enough for what one call leaves behind to be seen by later ones, and for a garbage collector to come by.
const CALLS: u64 = 300;

/// Nothing has compiled these components before: a whole interpreter takes minutes where the machine is busy.
const COMPILING: Duration = Duration::from_secs(600);

/// Runs an example with one web instance, which then answers one request after another. The server that it asks isn't
/// itself, as in its formation, but [`outside`].
fn run(example: &str, components: &[&str]) -> Host {
    let mut formation = Formation::example(example, components).directory("public");
    fs::write(formation.path("public/about.txt"), "a file\n").unwrap();
    let lines = formation.text();
    let lines = lines.lines().filter(|line| !line.starts_with("count = "));
    let outside = outside().to_string();
    let lines = lines.map(|line| match line.starts_with("env = ") || line.starts_with("outbound = ") {
        true => line.replace("127.0.0.1:0", &outside),
        false => line.to_owned(),
    });
    formation = formation.with_text(&lines.collect::<Vec<_>>().join("\n"));
    let host = Host::run_within(COMPILING, &formation);
    for call in 1..=CALLS {
        let answer = host.get("/");
        assert_eq!((answer.status, answer.text().as_str()), (200, "Hello, world!\n"), "call {call}");
    }
    assert_eq!(host.send(&Request::head("/")).ok(), "");
    assert_eq!(host.get("/elsewhere").status, 404);
    host
}

/// All calls were of one instance, which is still there.
#[track_caller]
fn was_kept(host: &Host) {
    let ps = host.ps();
    assert_eq!(ps.number("web", "restarts"), 0, "{ps:#?}");
    let calls = ps.instances("web")[0]["calls"].as_u64().unwrap();
    assert!(calls > CALLS, "{calls} calls");
}

/// A worker does one job, and refuses another for good.
#[track_caller]
fn works(host: &Host, queue: &str, job: &str, says: &str, refused: &str, because: &str) {
    let id = host.enqueue(queue, job);
    host.store().wait_for(id, "done");
    assert!(host.stdout().wait_for(says).contains(&id.to_string()));
    let id = host.enqueue_from_input(queue, refused);
    let job = eventually("it is dead", || Some(host.store().job(id)).filter(|job| job.state == "dead"));
    assert_eq!((job.attempt, job.crashes), (1, 0), "{job:?}");
    assert!(job.last_error.as_deref().is_some_and(|error| error.contains(because)), "{job:?}");
    assert_eq!(host.ps().number("worker", "restarts"), 0);
}

/// An exception in a web process is answered by its guest, by 500, and costs neither the instance nor a repetition.
#[track_caller]
fn answers_exceptions(host: &Host, targets: &[&str]) {
    for target in targets {
        let answer = host.get(target);
        assert_eq!((answer.status, answer.header("wasmhost-error")), (500, None), "{target}");
        assert_eq!(answer.text().trim(), "Internal Server Error", "{target}");
        host.get("/").ok();
    }
    assert_eq!(host.ps().number("web", "restarts"), 0);
}

/// An exception in a worker has the job tried again as often as its attempts say: it isn't a crash.
#[track_caller]
fn retries_exceptions(host: &Host, queue: &str, job: &str, because: &str) {
    let id = host.enqueue(queue, job);
    let job = eventually("it is tried again", || {
        Some(host.store().job(id)).filter(|job| job.state == "retrying" || job.state == "dead")
    });
    assert_eq!((job.state.as_str(), job.attempt, job.crashes), ("retrying", 1, 0), "{job:?}");
    assert!(job.last_error.as_deref().is_some_and(|error| error.contains(because)), "{job:?}");
    assert_eq!(host.ps().number("worker", "restarts"), 0);
}

/// It asks another server.
#[track_caller]
fn asks_outside(host: &Host) {
    let answer = host.get("/upstream").ok();
    assert!(answer.contains("200") && answer.contains("hello from outside"), "{answer}");
}

/// It asks another server, and serves files of the directory that it was granted and no others.
#[track_caller]
fn reaches_what_it_was_granted(host: &Host) {
    asks_outside(host);
    assert_eq!(host.get("/files/about.txt").ok(), "a file\n");
    for other in ["/files/none.txt", "/files/..%2Fformation.toml", "/files/%2Fetc%2Fpasswd"] {
        assert_eq!(host.get(other).status, 404, "{other}");
    }
}

#[test]
fn rust_for_wasi_0_3() {
    let host = run("hello-async", &["hello-async"]);
    assert_eq!(host.post("/shout", "hello").ok(), "HELLO");
    assert_eq!(host.post("/shout", vec![b'x'; 2 << 20]).status, 413);
    assert_eq!(host.get("/together").ok(), "1\n");
    asks_outside(&host);
    was_kept(&host);
}

#[test]
#[ignore = "run by `cargo xtask test` where there is a compiler for it"]
fn c() {
    let host = run("c", &["web", "worker"]);
    assert_eq!(host.get("/primes?below=100").ok(), "25\n");
    assert_eq!(host.get("/primes?below=1000000").ok(), "78498\n");
    assert_eq!(host.get("/primes?below=1000001").status, 400);
    assert_eq!(host.get("/primes").status, 400);
    assert_eq!(host.post("/rot13", "Hello").ok(), "Uryyb");
    let long = "Why did the chicken cross the road? ".repeat(100_000);
    let rotated = host.post("/rot13", long.clone()).ok();
    assert_eq!(host.post("/rot13", rotated).ok(), long);
    asks_outside(&host);
    was_kept(&host);
    works(&host, "texts", "to be or not", "4 words", "a\0b", "zero byte");
    host.enqueue("texts", "one\ntwo words\nthree words here\n");
    host.stdout().wait_for("3 words");
}

#[test]
#[ignore = "run by `cargo xtask test` where `cargo xtask guests --all` has built it"]
fn typescript() {
    let host = run("typescript", &["web", "worker"]);
    assert_eq!(host.get("/greet/Ann?times=2").ok(), r#"{"greetings":["Hello, Ann!","Hello, Ann!"]}"#);
    assert_eq!(host.post("/sum", "[1, 2, 3.5]").ok(), r#"{"sum":6.5}"#);
    assert_eq!(host.post("/sum", "{}").status, 400);
    let long = format!("[{}0]", "1,".repeat(100_000));
    assert_eq!(host.post("/sum", long).ok(), r#"{"sum":100000}"#);
    assert_eq!(host.get("/visits").ok(), r#"{"visits":1}"#);
    assert_eq!(host.get("/visits").ok(), r#"{"visits":2}"#);
    reaches_what_it_was_granted(&host);
    answers_exceptions(&host, &["/fail", "/fail?how=error"]);
    was_kept(&host);
    let job = r#"{"image": "a.png", "width": 80}"#;
    works(&host, "thumbnails", job, "a.png at 80 pixels", "no JSON", "expected");
    host.enqueue("thumbnails", r#"{"image": "b.png", "width": [10, 20]}"#);
    host.stdout().wait_for("b.png at 10 pixels");
    host.stdout().wait_for("b.png at 20 pixels");
    retries_exceptions(&host, "thumbnails", r#"{"image": "c.png", "width": -1}"#, "RangeError");
}

#[test]
#[ignore = "run by `cargo xtask test` where `cargo xtask guests --all` has built it"]
fn python() {
    let host = run("python", &["web", "worker"]);
    assert_eq!(host.get("/greet/Ann?times=2").ok(), r#"{"greetings": ["Hello, Ann!", "Hello, Ann!"]}"#);
    assert_eq!(host.get("/greet/Ann?times=x").status, 400);
    let words = host.post("/words", r#"{"text": "a tale of two cities"}"#).ok();
    assert_eq!(words, r#"{"words": 5, "longest": ["cities", "tale", "two"]}"#);
    assert_eq!(host.post("/words", "x").status, 400);
    assert_eq!(host.post("/words", vec![b'x'; 2 << 20]).status, 413);
    assert_eq!(host.get("/words").header("allow"), Some("POST"));
    assert_eq!(host.get("/visits").ok(), r#"{"visits": 1}"#);
    assert_eq!(host.get("/visits").ok(), r#"{"visits": 2}"#);
    reaches_what_it_was_granted(&host);
    answers_exceptions(&host, &["/fail"]);
    was_kept(&host);
    let job = r#"{"to": "ann@example.com", "subject": "hi"}"#;
    works(&host, "mail", job, "mail to ann at example.com: hi", "{}", "expected");
    host.enqueue("mail", r#"{"to": ["bob@example.com", "eve@example.com"], "subject": "hello"}"#);
    host.stdout().wait_for("mail to bob at example.com: hello");
    host.stdout().wait_for("mail to eve at example.com: hello");
    retries_exceptions(&host, "mail", r#"{"to": "nobody", "subject": "hi"}"#, "ValueError");
}

#[test]
#[ignore = "run by `cargo xtask test` where `cargo xtask guests --all` has built it"]
fn go() {
    let host = run("go", &["web", "worker"]);
    assert_eq!(host.get("/greet/Ann?times=2").ok(), "{\"greetings\":[\"Hello, Ann!\",\"Hello, Ann!\"]}\n");
    assert_eq!(
        host.post("/words", r#"{"text": "to be or not to be"}"#).ok().trim(),
        r#"{"be":2,"not":1,"or":1,"to":2}"#
    );
    assert_eq!(host.post("/words", "x").status, 400);
    let text = |words: usize| format!("{{\"text\": \"{}\"}}", "ab ".repeat(words));
    assert_eq!(host.post("/words", text(300_000)).ok().trim(), r#"{"ab":300000}"#);
    assert_eq!(host.post("/words", text(600_000)).status, 413);
    assert_eq!(host.get("/words").header("allow"), Some("POST"));
    assert_eq!(host.get("/visits").ok(), "1\n");
    assert_eq!(host.get("/visits").ok(), "2\n");
    reaches_what_it_was_granted(&host);
    answers_exceptions(&host, &["/fail"]);
    was_kept(&host);
    let id = host.enqueue("texts", r#"{"text": "to be or not"}"#);
    host.store().wait_for(id, "done");
    host.stdout().wait_for("4 words, the first is");
    retries_exceptions(&host, "texts", r#"{"text": ""}"#, "index out of range");
}
