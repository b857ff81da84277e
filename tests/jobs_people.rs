//! `wasmhost jobs` and `wasmhost enqueue`, as people use them.

use serde_json::Value;

use crate::harness::{Formation, Host, eventually};

fn worker(keys: &str) -> Formation {
    Formation::new().process("worker", "job-test", &format!("queue = \"default\"\n{keys}"))
}

/// The facts that `jobs show` tells of a job.
#[track_caller]
fn show(host: &Host, id: i64) -> Value {
    serde_json::from_str(&host.cli(["jobs", "show", &id.to_string(), "--json"]).done()).unwrap()
}

#[track_caller]
fn stats(host: &Host, queue: &str) -> Value {
    let stats: Value = serde_json::from_str(&host.cli(["jobs", "stats", "--json"]).done()).unwrap();
    let queues = stats["queues"].as_array().unwrap();
    queues.iter().find(|view| view["queue"] == queue).cloned().unwrap_or_default()
}

/// The ids that `jobs ls --json` prints.
#[track_caller]
fn listed<const N: usize>(host: &Host, arguments: [&str; N]) -> Vec<String> {
    let lines = host.cli(arguments).done();
    let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
    lines.lines().map(id).collect()
}

#[test]
fn a_paused_queue_is_left_alone_until_it_is_resumed() {
    let formation = worker("");
    let host = Host::run(&formation);
    assert_eq!(host.cli(["jobs", "pause", "default"]).done(), "default is paused\n");
    assert_eq!(host.cli(["jobs", "pause", "default"]).done(), "default is paused already\n");
    let id = host.enqueue("default", "print:done");
    host.stop();
    let again = Host::run(&formation);
    assert_eq!(stats(&again, "default")["paused"], true);
    assert_eq!(show(&again, id)["state"], "available");
    assert_eq!(again.cli(["jobs", "resume", "default"]).done(), "default is running\n");
    again.store().wait_for(id, "done");
}

#[test]
fn a_running_job_that_is_cancelled_is_ended() {
    let host = Host::run(&worker(""));
    let id = host.enqueue("default", "print:begun\nloop");
    host.stdout().wait_for("begun");
    let shown = show(&host, id);
    assert_eq!((&shown["state"], &shown["instance"]), (&"leased".into(), &"worker.1".into()));
    let said = host.cli(["jobs", "cancel", &id.to_string()]).done();
    assert_eq!(said, format!("job {id} was leased, and is cancelled\n"));
    // The only instance is free again.
    let next = host.enqueue("default", "ok");
    host.store().wait_for(next, "done");
    let shown = show(&host, id);
    assert_eq!((&shown["state"], &shown["attempts"][0]["end"]), (&"cancelled".into(), &"cancelled".into()));
    assert_eq!(host.cli(["jobs", "cancel", &id.to_string()]).code, 1);
}

#[test]
fn jobs_that_wait_can_be_cancelled_and_discarded() {
    let host = Host::run(&worker("count = 0"));
    let ids: Vec<String> = (0..4).map(|_| host.enqueue("default", "ok").to_string()).collect();
    host.cli(["jobs", "cancel", &ids[0]]).done();
    host.cli(["jobs", "discard", &ids[0], &ids[1]]).done();
    assert_eq!(listed(&host, ["jobs", "ls", "--json", "--oldest"]), ids[2..]);
    assert_eq!(host.cli(["jobs", "cancel", "--queue", "default"]).done(), "2 jobs cancelled\n");
    assert_eq!(listed(&host, ["jobs", "ls", "--json", "--state", "cancelled"]).len(), 2);
    let refused = host.cli(["jobs", "discard", "--queue", "default"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert_eq!(host.cli(["jobs", "discard", "--state", "cancelled"]).done(), "2 jobs discarded\n");
    assert!(listed(&host, ["jobs", "ls", "--json"]).is_empty());
    let missing = host.cli(["jobs", "show", &ids[0]]);
    assert!(missing.code == 1 && missing.stderr.contains("there is no job"), "{missing:?}");
}

#[test]
fn dead_jobs_get_all_their_attempts_again() {
    let host = Host::run(&worker("attempts = 1"));
    let ids: Vec<i64> =
        ["bury:broken", "retry:once", "bury:again"].map(|text| host.enqueue("default", text)).into();
    ids.iter().for_each(|id| drop(host.store().wait_for(*id, "dead")));
    let shown = show(&host, ids[0]);
    assert_eq!((&shown["last_error"], &shown["payload"]), (&"broken".into(), &"bury:broken".into()));
    let text = host.cli(["jobs", "show", &ids[1].to_string()]).done();
    assert!(text.contains("attempts  1/1") && text.contains("    once\n"), "{text}");
    host.cli(["jobs", "retry", &ids[0].to_string()]).done();
    let attempts = || show(&host, ids[0])["attempts"].as_array().unwrap().len();
    eventually("it has failed again", || (attempts() == 2).then_some(()));
    assert_eq!(host.cli(["jobs", "retry", "--queue", "default"]).done(), "3 jobs made available\n");
}

#[test]
fn a_job_that_fails_can_be_retried_now() {
    let host = Host::run(&worker(""));
    let id = host.enqueue("default", "done-at:2");
    host.store().wait_for(id, "retrying");
    host.cli(["jobs", "retry", &id.to_string()]).done();
    assert_eq!(host.store().wait_for(id, "done").attempt, 2);
}

#[test]
fn a_crash_is_shown_with_what_the_guest_said_last() {
    let host = Host::run(&worker(""));
    let id = host.enqueue("default", "trap");
    host.store().wait_for(id, "retrying");
    let error = show(&host, id)["last_error"].as_str().unwrap().to_owned();
    assert!(error.contains("unreachable") && error.contains("asked to trap"), "{error}");
}

#[test]
fn whatever_a_worker_does_wrong_is_shown() {
    let formation = worker("count = 4\nmemory = \"64MiB\"");
    let host =
        Host::run(&formation.process("hurried", "job-test", "queue = \"hurried\"\ntimeout = \"500ms\""));
    for (queue, payload, end, told) in [
        ("hurried", "loop", "failed", "took longer than its timeout"),
        ("hurried", "sleep:60000", "failed", "took longer than its timeout"),
        ("default", "exit", "crashed", "exited with code 1"),
        ("default", "alloc", "crashed", "ran out of the memory granted to it"),
        ("default", "trap", "crashed", "asked to trap"),
        ("default", "retry-long:10485760", "failed", "xxxx"),
        ("default", "flood:200\nretry:enough", "failed", "enough"),
    ] {
        let id = host.enqueue(queue, payload);
        host.store().wait_for(id, "retrying");
        let shown = show(&host, id);
        let attempt = &shown["attempts"][0];
        assert_eq!(attempt["end"], end, "{payload}: {shown:#}");
        let error = attempt["error"].as_str().unwrap();
        assert!(error.contains(told) && error.len() <= 4096, "{payload}: {error}");
        assert_eq!(shown["last_error"], error);
    }
}

#[test]
fn each_line_becomes_a_job() {
    let host = Host::run(&worker("count = 0"));
    let lines: String = (0..2500).map(|line| format!("line {line}\n\n")).collect();
    let said = host.cli_with_input(["enqueue", "default", "--lines"], &lines).done();
    assert_eq!(said, "enqueued 2500 jobs\n");
    assert_eq!(stats(&host, "default")["available"], 2500);
    assert_eq!(show(&host, 2500)["payload"], "line 2499");
    assert_eq!(listed(&host, ["jobs", "ls", "--json", "-n", "2200"]).len(), 2200);
}

#[test]
fn lines_that_find_no_room_are_told() {
    let formation = worker("count = 0").table("[queues.default]\nmax_depth = 1500");
    let host = Host::run(&formation);
    let lines = "x\n".repeat(2_500);
    let refused = host.cli_with_input(["enqueue", "default", "--lines"], &lines);
    assert_eq!(refused.code, 1);
    let told = "lines 1001 to 2000: queue \"default\" holds 1000 waiting jobs";
    assert!(
        refused.stderr.contains(told) && refused.stderr.contains("1000 jobs were enqueued"),
        "{refused:?}"
    );
    assert_eq!(stats(&host, "default")["available"], 1000);
}

#[test]
fn bytes_that_are_no_text_come_through() {
    let formation = worker("count = 0");
    let host = Host::run(&formation);
    let raw = formation.path("raw");
    std::fs::write(&raw, b"\xff\x00\xfe").unwrap();
    host.cli(["enqueue", "default", "--from", raw.to_str().unwrap(), "--meta", "tenant=acme"]).done();
    let shown = show(&host, 1);
    assert_eq!((&shown["payload_base64"], &shown["payload_bytes"]), (&"/wD+".into(), &3.into()));
    assert_eq!(shown["metadata"], serde_json::json!([["tenant", "acme"]]));
}

#[test]
fn a_backup_is_a_whole_store() {
    let formation = worker("");
    let host = Host::run(&formation);
    let id = host.enqueue("default", "ok");
    host.store().wait_for(id, "done");
    let file = formation.path("copy.db");
    let file = file.to_str().unwrap();
    host.cli(["jobs", "backup", file]).done();
    assert_eq!(host.cli(["jobs", "backup", file]).code, 1, "it isn't written over");
    host.stop();
    formation.cli(["jobs", "backup", formation.path("other.db").to_str().unwrap()]).done();
    for copy in ["copy.db", "other.db"] {
        let copy = crate::harness::Store::open(&formation.path(copy));
        assert_eq!(copy.jobs()[0].state, "done");
    }
}

#[test]
fn keys_are_held_for_as_long_as_their_scope_says() {
    let formation = worker("count = 0").process("web", "web-test", "enqueue = [\"default\"]");
    let host = Host::run(&formation);
    let enqueue = |key: &str, scope: &str| {
        host.post(&format!("/enqueue?queue=default&key={key}&scope={scope}"), "ok").status
    };
    assert_eq!((enqueue("a", "waiting"), enqueue("a", "running")), (201, 200));
    assert_eq!((enqueue("b", "running"), enqueue("b", "waiting")), (201, 200));
    assert_eq!((enqueue("c", "3600000"), enqueue("c", "3600000")), (201, 200));
    host.cli(["scale", "worker=1"]).done();
    (1..=3).for_each(|id| drop(host.store().wait_for(id, "done")));
    assert_eq!((enqueue("a", "waiting"), enqueue("b", "running"), enqueue("c", "running")), (201, 201, 200));
}
