//! The store of a host: whose it is, and what becomes of it when somebody meddles with it.

use std::fs;

use crate::harness::{Formation, Host, Store, eventually};

fn worker(keys: &str) -> Formation {
    Formation::new().process("worker", "job-test", &format!("queue = \"default\"\n{keys}"))
}

#[test]
fn a_store_that_is_deleted_is_told_and_nothing_more_is_enqueued() {
    // Its log holds what isn't in the database yet, and is deleted as easily.
    for name in ["store.db", "store.db-wal"] {
        let formation = worker("count = 0");
        let host = Host::run(&formation);
        let id = host.enqueue("default", "ok");
        fs::remove_file(formation.path(".wasmhost").join(name)).unwrap();
        host.cli(["enqueue", "default", "ok"]).failed(1, "was deleted or moved while this host uses it");
        host.stderr().wait_for("was deleted or moved while this host uses it");
        // A store that is still open can be copied.
        let copy = formation.path("copy.db");
        host.cli(["jobs", "backup", copy.to_str().unwrap()]).done();
        assert_eq!(Store::open(&copy).job(id).state, "available", "{name}");
        host.stop();
    }
}

#[test]
fn two_hosts_do_not_share_a_store() {
    let formation = worker("");
    let host = Host::run(&formation);
    let store = formation.path(".wasmhost/store.db");
    let link = formation.path("link.db");
    std::os::unix::fs::symlink(&store, &link).unwrap();
    for path in [&store, &link] {
        let other = worker("").table(&format!("[store]\nurl = \"sqlite:{}\"", path.display()));
        other.run_to_end().failed(3, "another host uses");
    }
    let id = host.enqueue("default", "ok");
    host.store().wait_for(id, "done");
    host.stop();
    // It was only lent.
    let other = worker("").table(&format!("[store]\nurl = \"sqlite:{}\"", store.display()));
    let host = Host::run(&other);
    assert_eq!(host.cli(["jobs", "show", &id.to_string()]).code, 0);
}

#[test]
fn a_database_that_is_missing_beside_its_log_is_told() {
    let formation = worker("count = 0");
    let host = Host::run(&formation);
    host.enqueue("default", "ok");
    host.kill();
    fs::remove_file(formation.path(".wasmhost/store.db")).unwrap();
    formation.run_to_end().failed(3, "is missing, and its log");
    assert!(formation.path(".wasmhost/store.db-wal").exists());
}

#[test]
fn ids_are_never_used_again_after_a_restore() {
    for everything in [false, true] {
        let formation = worker("count = 0");
        let host = Host::run(&formation);
        host.enqueue("default", "ok");
        let copy = formation.path("copy.db");
        host.cli(["jobs", "backup", copy.to_str().unwrap()]).done();
        let later: Vec<i64> = (0..5).map(|_| host.enqueue("default", "ok")).collect();
        let last = later[4];
        host.stop();
        let state = formation.path(".wasmhost");
        if everything {
            fs::remove_dir_all(&state).unwrap();
            fs::create_dir(&state).unwrap();
        }
        fs::rename(&copy, state.join("store.db")).unwrap();
        let host = Host::run(&formation);
        let next = host.enqueue("default", "ok");
        assert!(next > last, "{next} after {last}");
    }
}

#[test]
fn a_backup_of_a_store_without_a_host_needs_no_right_to_write_it() {
    let formation = worker("count = 0");
    let host = Host::run(&formation);
    let id = host.enqueue("default", "ok");
    host.kill();
    let state = formation.path(".wasmhost");
    let before = fs::read(state.join("store.db")).unwrap();
    let copy = formation.path("copy.db");
    formation.cli(["jobs", "backup", copy.to_str().unwrap()]).done();
    assert_eq!(Store::open(&copy).job(id).state, "available");
    assert_eq!(fs::read(state.join("store.db")).unwrap(), before, "it was only read");
}

#[test]
fn a_queue_that_nobody_works_is_told_with_the_one_that_was_meant() {
    let told =
        "no process type works the queue \"defualt\", so that its jobs wait; did you mean \"default\"?";
    let formation = worker("count = 0").process("web", "web-test", "enqueue = [\"defualt\"]");
    let checked = formation.cli(["check"]);
    assert_eq!(checked.code, 0);
    assert!(checked.stderr.contains(&format!("process.web.enqueue: {told}")), "{checked:?}");
    let host = Host::run(&formation);
    // In JSON, where quotes look otherwise.
    host.stderr().wait_for("process.web.enqueue: no process type works the queue");
    let enqueued = host.cli(["enqueue", "defualt", "ok"]);
    assert_eq!(enqueued.stderr, format!("warning: {told}\n"));
    let lines = host.cli_with_input(["enqueue", "defualt", "--lines"], "a\nb\n");
    assert_eq!((lines.stderr, lines.stdout.as_str()), (format!("warning: {told}\n"), "enqueued 2 jobs\n"));
    assert_eq!(host.cli(["enqueue", "default", "ok"]).stderr, "");
}

#[test]
fn a_retry_that_changes_nothing_says_why() {
    let formation = worker("");
    let host = Host::run(&formation);
    let dead = host.cli(["enqueue", "default", "bury:no", "--unique", "k"]).done().trim().parse().unwrap();
    host.store().wait_for(dead, "dead");
    host.cli(["scale", "worker=0"]).done();
    let holder = host.cli(["enqueue", "default", "ok", "--unique", "k"]).done();
    let holder = holder.trim();
    let why = format!(
        "1 dead job was passed over, since other jobs hold the same unique keys: that of job {dead} is held by job {holder}"
    );
    for which in [["--queue", "default"], ["--key", "k"], ["--state", "dead"]] {
        let retried = host.cli(["jobs", "retry", which[0], which[1]]);
        assert_eq!((retried.code, retried.stdout.as_str()), (1, "0 jobs made available\n"), "{retried:?}");
        assert!(retried.stderr.contains(&why), "{retried:?}");
    }
    host.cli(["jobs", "cancel", holder]).done();
    assert_eq!(host.cli(["jobs", "retry", "--queue", "default"]).done(), "1 job made available\n");
}

#[test]
fn what_can_not_be_asked_for_is_refused_in_our_own_words() {
    let host = Host::run(&worker("count = 0"));
    for (arguments, told) in [
        (["--at", "tomorrow"], "run_at: found \"tomorrow\", expected a time within ten years"),
        (["--at", "9999-12-31T23:59:59Z"], "expected a time within ten years"),
        (["--at", "2999-01-01T00:00:00Z"], "a job can be put off for 3650 days at most"),
        (["--in", "4000d"], "a job can be put off for 3650 days at most"),
        (["--attempts", "100000"], "100000 attempts; 1000 is the most"),
    ] {
        let refused = host.cli(["enqueue", "default", "ok", arguments[0], arguments[1]]);
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.stderr.contains(told), "{refused:?}");
    }
    // One that was due long ago is due now, and not before all others.
    let first = host.enqueue("default", "ok");
    let late = host.cli(["enqueue", "default", "ok", "--at", "0001-01-01T00:00:00Z"]).done();
    host.cli(["scale", "worker=1"]).done();
    let late = late.trim().parse().unwrap();
    assert_eq!(host.store().wait_for(late, "done").wait_ms, 0);
    assert_eq!(host.store().wait_for(first, "done").wait_ms, 0);
}

#[test]
fn a_job_goes_on_while_its_store_can_not_be_written_for_longer_than_its_lease() {
    // A lease lasts 30 s, and what holds the store up is a person's transaction.
    let formation = worker("attempts = 1");
    let host = Host::run(&formation);
    let id = host.enqueue("default", "print:begun\nsleep:36000");
    host.stdout().wait_for("begun");
    let store = host.store();
    store.tamper("BEGIN IMMEDIATE");
    let held = std::time::Instant::now();
    eventually("its lease has passed", || (held.elapsed().as_secs() >= 33).then_some(()));
    store.tamper("ROLLBACK");
    // It comes to nothing that another claim is made meanwhile.
    let next = host.enqueue("default", "ok");
    assert_eq!(host.store().wait_for(id, "done").attempt, 1);
    host.store().wait_for(next, "done");
    assert_eq!(host.stdout().count("begun"), 1, "it ran once");
}
