//! Starts that take long, and what somebody who ends them, or waits for them, meets.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::wasm::nested_loops;
use crate::harness::{Formation, Process, Store, eventually};

/// A host whose release step takes ten minutes, as soon as that has begun.
fn in_release_step(formation: &Formation) -> Process {
    let host = formation.start(["run"]);
    eventually("it runs the step", || {
        let ended = formation.cli(["ps"]);
        ended.stdout.contains("running the release step \"step\"").then_some(())
    });
    host
}

#[test]
fn a_start_is_stopped_within_a_second_or_two_although_its_store_hangs() {
    let step = "run = \"release\"\nargs = [\"sleep\", \"600000\"]";
    let formation = Formation::web("").process("step", "cmd-test", step);
    // A busy machine has more than one try at being fast.
    let is_fast = (0..4).any(|_| {
        let host = in_release_step(&formation);
        let store = Store::open(&formation.path(".wasmhost/store.db"));
        // The store waits for a lock for five seconds.
        store.hold();
        let since = Instant::now();
        host.signal(Signal::INT);
        host.wait().never_panicked().done();
        let took = since.elapsed();
        store.release();
        took < Duration::from_secs(4)
    });
    assert!(is_fast, "it was waited for each time");
    let listed = formation.cli(["releases", "--json"]).done();
    let release: Value = serde_json::from_str(listed.lines().next().unwrap()).unwrap();
    assert_eq!(release["state"], "failed", "{listed}");
}

#[test]
fn requests_that_wait_for_a_start_shut_out_none_that_ends_it() {
    // The compiler takes minutes for it.
    let formation = Formation::new().table("[process.evil]\ncomponent = \"evil.wasm\"\nrun = \"never\"");
    fs::write(formation.path("evil.wasm"), nested_loops(100_000)).unwrap();
    let host = formation.start(["run"]);
    let is_compiling = || formation.cli(["ps"]).stdout.contains("compiling components: 0 of 1").then_some(());
    eventually("it compiles", is_compiling);
    let ask = || {
        let mut stream = UnixStream::connect(formation.path(".wasmhost/admin.sock")).unwrap();
        stream.write_all(b"GET /v1/queues HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        stream
    };
    // More than there are connections.
    let waiting: Vec<UnixStream> = (0..300).map(|_| ask()).collect();
    eventually("it says how far it is", is_compiling);
    formation.cli(["stop"]).done();
    host.wait().never_panicked().done();
    let answers: Vec<String> = waiting
        .into_iter()
        .map(|mut stream| {
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
            answer
        })
        .collect();
    let count = |said: &str| answers.iter().filter(|answer| answer.contains(said)).count();
    let (past, told) =
        (count("200 requests wait until it has"), count("the host didn't start: it was told to stop"));
    assert_eq!((past, told), (100, 200));
}
