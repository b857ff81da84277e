//! Jobs of WASI 0.3: several at once in one instance.

use crate::harness::{Formation, Host, eventually};

fn worker(keys: &str) -> Formation {
    Formation::new().process("worker", "job-async", &format!("queue = \"default\"\nconcurrency = 4\n{keys}"))
}

#[test]
fn jobs_of_one_instance_wait_side_by_side() {
    let host = Host::run(&worker(""));
    let ids: Vec<i64> = (0..4).map(|_| host.enqueue("default", "together:4")).collect();
    ids.iter().for_each(|id| drop(host.store().wait_for(*id, "done")));
    assert_eq!(host.ps().number("worker", "restarts"), 0);
}

#[test]
fn no_more_than_concurrency_are_in_an_instance() {
    let host = Host::run(&worker(""));
    let ids: Vec<i64> = (0..12).map(|_| host.enqueue("default", "sleep:20\nmost")).collect();
    ids.iter().for_each(|id| drop(host.store().wait_for(*id, "done")));
    let most: Vec<u32> = host.stdout().wait_until("each has told", |lines| {
        let most = lines.iter().filter_map(|line| line.split("most ").nth(1));
        let most: Vec<_> = most.filter_map(|most| most.trim_end_matches(['"', '}']).parse().ok()).collect();
        (most.len() == 12).then_some(most)
    });
    assert!(most.iter().all(|most| (1..=4).contains(most)), "{most:?}");
}

#[test]
fn a_job_that_is_cancelled_leaves_the_others_alone() {
    let host = Host::run(&worker(""));
    let never = host.enqueue("default", "print:begun\nnever");
    host.stdout().wait_for("begun");
    let other = host.enqueue("default", "print:too\nsleep:3000");
    host.stdout().wait_for("too");
    host.cli(["jobs", "cancel", &never.to_string()]).done();
    assert_eq!(host.store().wait_for(other, "done").attempt, 1);
    host.store().wait_for(never, "cancelled");
    // Its instance has made room for another one.
    let next = host.enqueue("default", "ok");
    host.store().wait_for(next, "done");
}

#[test]
fn a_timeout_is_one_jobs_own() {
    let host = Host::run(&worker("timeout = \"300ms\""));
    let never = host.enqueue("default", "never");
    let failed = host.store().wait_for(never, "retrying");
    assert!(failed.last_error.as_deref().is_some_and(|error| error.contains("timeout")), "{failed:?}");
    assert_eq!(failed.crashes, 0);
    let next = host.enqueue("default", "ok");
    host.store().wait_for(next, "done");
}

#[test]
fn a_trap_ends_every_job_of_the_instance_and_is_nobodys_fault() {
    let host = Host::run(&worker(""));
    let beside = host.enqueue("default", "print:begun\nnever");
    host.stdout().wait_for("begun");
    let trap = host.enqueue("default", "trap");
    for id in [beside, trap] {
        let failed = host.store().wait_for(id, "retrying");
        assert_eq!((failed.attempt, failed.crashes), (0, 0));
        let error = failed.last_error.unwrap();
        assert!(error.contains("other jobs were in it") && error.contains("tried alone"), "{error}");
    }
    let next = host.enqueue("default", "ok");
    host.store().wait_for(next, "done");
}

#[test]
fn a_loop_is_ended_by_its_timeout() {
    let host = Host::run(&worker("timeout = \"500ms\""));
    let id = host.enqueue("default", "loop");
    host.store().wait_for(id, "retrying");
    let next = host.enqueue("default", "ok");
    host.store().wait_for(next, "done");
}

#[test]
fn they_enqueue_too_and_fail_as_they_say() {
    let host = Host::run(&worker("enqueue = [\"default\"]"));
    let first = host.enqueue("default", "enqueue:bury:no");
    host.store().wait_for(first, "done");
    let second = host.store().wait_for(first + 1, "dead");
    assert_eq!(second.last_error.as_deref(), Some("no"));
    let waits = host.enqueue("default", "retry-after:60000");
    assert!(host.store().wait_for(waits, "retrying").wait_ms >= 60_000);
}

#[test]
fn a_drain_lets_them_finish() {
    let formation = worker("");
    let host = Host::run(&formation);
    let ids: Vec<i64> = (0..3).map(|_| host.enqueue("default", "print:begun\nsleep:500")).collect();
    eventually("they have begun", || (host.stdout().count("begun") == 3).then_some(()));
    assert_eq!(host.stop().code, 0);
    let store = crate::harness::Store::open(&formation.path(".wasmhost/store.db"));
    let jobs = store.jobs();
    assert!(ids.iter().all(|id| jobs.iter().any(|job| job.id == *id && job.state == "done")), "{jobs:?}");
}

#[test]
fn a_worker_that_takes_no_more_jobs_loses_none() {
    let host = Host::run(&worker(""));
    let ids: Vec<i64> = (0..12).map(|_| host.enqueue("default", "full\nsleep:20")).collect();
    for id in ids {
        let job = host.store().wait_for(id, "done");
        // Those that it didn't take were never begun.
        assert_eq!((job.attempt, job.crashes), (1, 0), "{job:?}");
    }
}

/// One job crashes beside others, whatever way: they are tried again one by one, and it is found out.
#[test]
fn jobs_that_crashed_together_are_tried_alone_and_only_the_guilty_one_dies() {
    for crash in ["trap", "exit", "alloc"] {
        // With a single attempt, too: it was another's fault.
        let keys = "attempts = 1\nbackoff = [\"0s\"]\nmemory = \"32MiB\"";
        let host = Host::run(&worker(keys));
        let innocent: Vec<i64> = (0..3).map(|_| host.enqueue("default", "print:begun\nsleep:1000")).collect();
        eventually("they have begun", || (host.stdout().count("begun") == 3).then_some(()));
        let guilty = host.enqueue("default", crash);
        for id in innocent {
            let job = host.store().wait_for(id, "done");
            assert_eq!((job.attempt, job.crashes), (1, 0), "{crash}");
        }
        let job =
            eventually("it is dead", || Some(host.store().job(guilty)).filter(|job| job.state == "dead"));
        assert_eq!((job.attempt, job.crashes), (1, 1), "{crash}");
        // Others share an instance as before.
        let ids: Vec<i64> = (0..4).map(|_| host.enqueue("default", "together:4")).collect();
        ids.iter().for_each(|id| drop(host.store().wait_for(*id, "done")));
    }
}

#[test]
fn a_job_that_runs_alone_waits_until_an_instance_is_idle() {
    let host = Host::run(&worker("backoff = [\"0s\"]"));
    let long = host.enqueue("default", "print:begun\nsleep:2500");
    host.stdout().wait_for("begun");
    let alone = host.enqueue("default", "print:alone\nmost\nok");
    host.store().wait_for(alone, "done");
    // As if it had crashed in company before.
    host.store().tamper(&format!(
        "UPDATE jobs SET state = 'available', ended_at = NULL, alone = 1 WHERE id = {alone}"
    ));
    let next = host.enqueue("default", "ok");
    host.store().wait_for(next, "done");
    assert_eq!(host.store().wait_for(alone, "done").attempt, 2);
    assert_eq!(host.store().job(long).state, "done", "it had the instance before");
}
