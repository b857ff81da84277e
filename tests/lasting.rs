//! Tasks without which a host is none: where one ends, the host says so, finishes what it can, and stops with an error.

use std::fs;

use crate::harness::{Formation, Host};

/// The tasks of such a host that last as long as it does.
const TASKS: [&str; 6] = [
    "the supervisor",
    "the ingress",
    "the admin API",
    "the queue trigger of \"worker\"",
    "the schedule of \"clock\"",
    "what deletes old jobs",
];

fn formation(fault: &str, task: &str) -> Formation {
    let formation = Formation::web("count = 2").process("worker", "job-test", "queue = \"q\"").process(
        "clock",
        "tick-test",
        "schedule = \"@daily\"",
    );
    let file = formation.path("now");
    formation.variable(fault, format!("{task}:{}", file.display()))
}

fn now(formation: &Formation) {
    fs::write(formation.path("now"), "").unwrap();
}

#[test]
fn a_host_that_loses_a_task_stops_with_an_error_that_names_it() {
    for task in TASKS {
        let formation = formation("WASMHOST_FAULT_END", task);
        let host = Host::run(&formation);
        now(&formation);
        let ended = host.wait().failed(1, &format!("{task} has ended"));
        assert!(ended.stderr.contains("defect"), "{ended:#?}");
    }
}

#[test]
fn a_listener_that_accepts_no_more_is_a_loss() {
    for fault in ["WASMHOST_FAULT_END", "WASMHOST_FAULT_PANIC"] {
        let formation = Formation::web("").http("listen = [\"127.0.0.1:0\", \"unix:app.sock\"]");
        let task = format!("what accepts connections at unix:{}", formation.path("app.sock").display());
        let file = formation.path("now").display().to_string();
        let formation = formation.variable(fault, format!("{task}:{file}"));
        let host = Host::run(&formation);
        now(&formation);
        let ended = host.wait();
        assert!(ended.code == 1 && ended.stderr.contains(&format!("{task} has ")), "{ended:#?}");
    }
}

#[test]
fn a_host_whose_supervisor_panics_answers_what_it_has_begun() {
    let formation = formation("WASMHOST_FAULT_PANIC", "the supervisor");
    let host = Host::run(&formation);
    let held = host.hold();
    now(&formation);
    host.stderr().wait_for("the supervisor has panicked (a test wants it)");
    held.end();
    assert_eq!(host.wait().code, 1);
}

#[test]
fn tasks_that_end_because_the_host_does_are_no_loss() {
    let host = Host::run(&formation("UNUSED", ""));
    let ended = host.stop();
    assert!(!ended.stderr.contains("can't do without"), "{ended:#?}");
    ended.done();
}
