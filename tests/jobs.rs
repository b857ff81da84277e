//! Queues.

use crate::harness::{Formation, Host, eventually};

fn worker(keys: &str) -> Formation {
    let dirs = "dirs = [{ host = \"out\", guest = \"/out\", access = \"write\" }]";
    Formation::new().directory("out").process(
        "worker",
        "job-test",
        &format!("queue = \"default\"\n{dirs}\n{keys}"),
    )
}

/// With a web type that may put jobs on the queue too.
fn web_and_worker(keys: &str) -> Formation {
    worker(keys).process("web", "web-test", "enqueue = [\"default\"]")
}

#[test]
fn a_job_from_the_command_line_is_done() {
    let formation = worker("");
    let host = Host::run(&formation);
    let id = host.enqueue("default", "write:a");
    let job = host.store().wait_for(id, "done");
    assert_eq!((job.attempt, job.crashes, job.last_error), (1, 0, None));
    assert_eq!(formation.read("out/a"), format!("{id} 1 worker.1\n"));
}

#[test]
fn a_payload_may_come_by_standard_input() {
    let formation = worker("");
    let host = Host::run(&formation);
    let id: i64 =
        host.cli_with_input(["enqueue", "default"], "write:a\nwrite:b").done().trim().parse().unwrap();
    host.store().wait_for(id, "done");
    assert_eq!(formation.read("out/b"), format!("{id} 1 worker.1\n"));
}

#[test]
fn a_job_from_a_guest_is_done() {
    let formation = web_and_worker("");
    let host = Host::run(&formation);
    let answer = host.post("/enqueue?queue=default", "write:a");
    assert_eq!(answer.status, 201);
    let id = answer.text().trim().parse().unwrap();
    host.store().wait_for(id, "done");
    assert_eq!(formation.read("out/a"), format!("{id} 1 worker.1\n"));
}

#[test]
fn a_job_that_fails_is_tried_again_after_a_while() {
    let formation = worker("");
    let host = Host::run(&formation);
    let id = host.enqueue("default", "write:a\ndone-at:2");
    let job = host.store().wait_for(id, "retrying");
    assert_eq!((job.attempt, job.crashes), (1, 0));
    assert_eq!(job.last_error.as_deref(), Some("not done before attempt 2"));
    // From its enqueueing. The next wait would be 31 s.
    assert!((16_000..31_000).contains(&job.wait_ms), "n^4 + 15 s: {job:?}");
    host.store().hasten(id);
    host.enqueue("default", "ok");
    assert_eq!(host.store().wait_for(id, "done").attempt, 2);
    assert_eq!(formation.read("out/a"), format!("{id} 1 worker.1\n{id} 2 worker.1\n"));
}

#[test]
fn a_job_may_say_when_it_wants_to_be_tried_again() {
    let host = Host::run(&worker("attempts = 3"));
    let id = host.enqueue("default", "retry-after:20");
    let job = eventually("it is dead", || Some(host.store().job(id)).filter(|job| job.state == "dead"));
    assert_eq!((job.attempt, job.attempts_max, job.crashes), (3, Some(3), 0), "{job:?}");
    assert_eq!(job.last_error.as_deref(), Some("asked to wait"));
}

#[test]
fn a_job_may_be_buried() {
    let host = Host::run(&worker(""));
    let id = host.enqueue("default", "bury:it makes no sense");
    let job = eventually("it is dead", || Some(host.store().job(id)).filter(|job| job.state == "dead"));
    assert_eq!((job.attempt, job.last_error.as_deref()), (1, Some("it makes no sense")));
}

#[test]
fn three_crashes_bury_a_job() {
    for (payload, error) in
        [("trap", "unreachable"), ("exit", "exited with code 1"), ("alloc", "ran out of the memory")]
    {
        let host = Host::run(&worker("memory = \"16MiB\""));
        let id = host.enqueue("default", payload);
        for crashes in 1..=2 {
            let job = host.store().wait_for(id, "retrying");
            assert_eq!((job.attempt, job.crashes), (crashes, crashes), "{payload}");
            host.store().hasten(id);
            let other = host.enqueue("default", "ok");
            host.store().wait_for(other, "done");
        }
        let job = eventually("it is dead", || Some(host.store().job(id)).filter(|job| job.state == "dead"));
        assert_eq!((job.attempt, job.crashes), (3, 3), "{payload}");
        assert!(job.last_error.as_ref().unwrap().contains(error), "{job:?}");
        eventually("its instances were replaced", || {
            (host.ps().number("worker", "restarts") == 3).then_some(())
        });
    }
}

#[test]
fn a_job_that_takes_too_long_is_ended_and_tried_again() {
    let host = Host::run(&worker("timeout = \"100ms\""));
    for payload in ["loop", "sleep:60000"] {
        let id = host.enqueue("default", payload);
        let job = host.store().wait_for(id, "retrying");
        assert_eq!((job.attempt, job.crashes), (1, 0), "{payload}");
        let error = job.last_error.unwrap();
        let ran = error.strip_prefix("took longer than its timeout (ran ");
        let ran = ran.and_then(|rest| rest.strip_suffix(" s of 0.1 s)")).unwrap_or_else(|| panic!("{error}"));
        assert!(ran.parse::<f64>().unwrap() >= 0.1, "{error}");
    }
    let id = host.enqueue("default", "ok");
    host.store().wait_for(id, "done");
}

#[test]
fn attempts_may_be_set_for_one_job() {
    let host = Host::run(&worker("attempts = 9"));
    host.cli(["enqueue", "default", "retry:no", "--attempts", "1"]).done();
    let job = eventually("it is dead", || Some(host.store().job(1)).filter(|job| job.state == "dead"));
    assert_eq!((job.attempt, job.attempts_max), (1, Some(1)));
}

#[test]
fn a_delayed_job_waits() {
    let host = Host::run(&worker(""));
    host.cli(["enqueue", "default", "ok", "--in", "1h"]).done();
    host.cli(["enqueue", "default", "ok", "--in", "300ms"]).done();
    host.store().wait_for(2, "done");
    let waiting = host.store().job(1);
    assert_eq!((waiting.state.as_str(), waiting.attempt), ("scheduled", 0));
    // The wait is counted from a later moment than the one in which it was asked for.
    assert!((3_540_000..=3_600_000).contains(&waiting.wait_ms), "{waiting:?}");
}

#[test]
fn higher_priority_runs_earlier() {
    let formation = worker("count = 0");
    let host = Host::run(&formation);
    for priority in ["-5", "10", "0"] {
        host.cli(["enqueue", "default", "write:log", "--priority", priority]).done();
    }
    host.cli(["scale", "worker=1"]).done();
    for id in 1..=3 {
        host.store().wait_for(id, "done");
    }
    assert_eq!(formation.read("out/log"), "2 1 worker.1\n3 1 worker.1\n1 1 worker.1\n");
}

#[test]
fn a_unique_key_makes_one_job_of_two() {
    let host = Host::run(&web_and_worker("count = 0"));
    let enqueue = || -> serde_json::Value {
        serde_json::from_str(&host.cli(["enqueue", "default", "ok", "--unique", "k", "--json"]).done())
            .unwrap()
    };
    let first = enqueue();
    assert_eq!(first["created"], true);
    let second = enqueue();
    assert_eq!((&second["created"], &second["id"]), (&false.into(), &first["id"]));
    let third = host.post("/enqueue?queue=default&key=k", "ok");
    assert_eq!((third.status, third.text().trim()), (200, first["id"].as_str().unwrap()));
    // Once it has ended the key is free.
    host.cli(["scale", "worker=1"]).done();
    host.store().wait_for(first["id"].as_str().unwrap().parse().unwrap(), "done");
    assert_eq!(enqueue()["created"], true);
}

#[test]
fn a_worker_may_enqueue_a_typed_payload_and_read_it() {
    let formation = worker("enqueue = [\"default\"]");
    let host = Host::run(&formation);
    let id = host.enqueue("default", "json:write:a,write:b");
    host.store().wait_for(id, "done");
    host.store().wait_for(id + 1, "done");
    for file in ["out/a", "out/b"] {
        assert_eq!(formation.read(file), format!("{} 1 worker.1\n", id + 1));
    }
}

#[test]
fn a_payload_that_is_not_what_a_worker_reads_buries_its_job() {
    let host = Host::run(&web_and_worker(""));
    let cases: [(&str, &[u8], &str); 3] = [
        ("application/json", b"ok", "isn't the JSON that is expected: expected value at line 1 column 1"),
        ("application/json", b"{}", "isn't the JSON that is expected: missing field `lines`"),
        ("text/plain", b"ok\xff", "isn't text: invalid utf-8"),
    ];
    for (content_type, payload, because) in cases {
        let answer = host.post(&format!("/enqueue?queue=default&type={content_type}"), payload);
        let id = answer.text().trim().parse().unwrap();
        let job = eventually("it is dead", || Some(host.store().job(id)).filter(|job| job.state == "dead"));
        assert_eq!((job.attempt, job.crashes), (1, 0), "{job:?}");
        assert!(job.last_error.as_ref().unwrap().contains(because), "{job:?}");
    }
}

#[test]
fn a_worker_may_enqueue_with_a_unique_key() {
    let host = Host::run(&worker("enqueue = [\"default\"]"));
    let id = host.enqueue("default", "unique:running:k:sleep:60000\nunique:running:k:ok");
    let first = host.stdout().wait_for("unique k");
    assert!(first.contains(&format!("unique k {} new", id + 1)), "{first}");
    host.stdout().wait_for(&format!("unique k {} taken", id + 1));
}

#[test]
fn of_a_message_the_beginning_is_kept() {
    let host = Host::run(&worker(""));
    let id = host.enqueue("default", "retry-long:10485760");
    let job = host.store().wait_for(id, "retrying");
    assert_eq!((job.attempt, job.crashes), (1, 0));
    assert_eq!(job.last_error, Some("x".repeat(4096)));
}

#[test]
fn a_queue_that_was_not_granted_is_refused_and_that_is_logged_once() {
    let host = Host::run(&web_and_worker(""));
    for _ in 0..3 {
        assert_eq!(host.post("/enqueue?queue=secret", "ok").status, 403);
    }
    let line = host.stderr().wait_for("which the formation doesn't grant");
    assert!(line.contains("[process.web]") && line.contains("enqueue = [\\\"secret\\\"]"), "{line}");
    assert_eq!(host.stderr().count("which the formation doesn't grant"), 1);
    assert_eq!(host.store().jobs(), []);
}

#[test]
fn a_payload_has_a_limit() {
    let host = Host::run(&web_and_worker("count = 0"));
    assert_eq!(host.post("/enqueue?queue=default", vec![b'x'; 1 << 20]).status, 201);
    let refused = host.post("/enqueue?queue=default", vec![b'x'; (1 << 20) + 1]);
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("1048576"), "{refused:?}");
    assert_eq!(host.store().jobs().len(), 1);
}

#[test]
fn a_full_queue_says_so() {
    let host = Host::run(&web_and_worker("count = 0").table("[queues.default]\nmax_depth = 2"));
    let statuses: Vec<u16> = (0..3).map(|_| host.post("/enqueue?queue=default", "ok").status).collect();
    assert_eq!(statuses, [201, 201, 503]);
    host.cli(["enqueue", "default", "ok"]).failed(1, "default");
}

#[test]
fn weights_and_several_queues_are_served_by_one_type() {
    let host =
        Host::run(&Formation::new().process("worker", "job-test", "queue = { often = 3, seldom = 1 }"));
    let ids = [host.enqueue("often", "ok"), host.enqueue("seldom", "ok")];
    for id in ids {
        host.store().wait_for(id, "done");
    }
    let other = host.enqueue("nobodys", "ok");
    let last = host.enqueue("often", "ok");
    host.store().wait_for(last, "done");
    assert_eq!(host.store().job(other).state, "available");
}

#[test]
fn no_job_is_claimed_before_an_instance_is_idle() {
    let host = Host::run(&worker("count = 2"));
    let ids: Vec<_> = (0..5).map(|_| host.enqueue("default", "sleep:60000")).collect();
    eventually("both are busy", || (host.ps().in_state("worker", "busy") == 2).then_some(()));
    let states: Vec<_> = ids.iter().map(|id| host.store().job(*id).state).collect();
    assert_eq!(states, ["leased", "leased", "available", "available", "available"]);
}

#[test]
fn jobs_survive_a_restart_of_the_host() {
    let formation = worker("count = 0");
    let host = Host::run(&formation);
    let id = host.enqueue("default", "write:a");
    host.stop().done();
    let formation = formation.replace("count = 0", "count = 1");
    let host = Host::run(&formation);
    host.store().wait_for(id, "done");
}

// --- commands as workers

fn command(guest: &str, arguments: &str) -> Formation {
    Formation::new().process("worker", guest, &format!("queue = \"default\"\nargs = {arguments}"))
}

#[test]
fn a_command_gets_the_payload_on_its_standard_input() {
    let host = Host::run(&command("cmd-test", "[\"cat\"]"));
    let id = host.enqueue("default", "the payload");
    host.store().wait_for(id, "done");
    let line = host.stdout().wait_for("the payload");
    assert!(line.contains("\"worker.1\""), "{line}");
    let again = host.enqueue("default", "another payload");
    assert_eq!(host.store().wait_for(again, "done").attempt, 1);
}

#[test]
fn a_command_learns_which_job_it_is() {
    let host = Host::run(&command("cmd-test", "[\"env\"]"));
    let id = host.enqueue("default", "");
    host.store().wait_for(id, "done");
    for line in [
        format!("WASMHOST_JOB_ID={id}"),
        "WASMHOST_JOB_QUEUE=default".into(),
        "WASMHOST_JOB_ATTEMPT=1".into(),
    ] {
        host.stdout().wait_for(&line);
    }
}

#[test]
fn a_command_that_exits_with_a_failure_is_tried_again() {
    let host = Host::run(&command("cmd-test", "[\"exit\", \"1\"]"));
    let id = host.enqueue("default", "");
    let job = host.store().wait_for(id, "retrying");
    assert_eq!((job.attempt, job.crashes), (1, 0), "an exit code is an answer, not a crash: {job:?}");
    assert!(job.last_error.as_ref().unwrap().contains('1'), "{job:?}");
}

#[test]
fn a_core_command_gets_the_payload_on_its_standard_input() {
    let host = Host::run(&command("cmd-test-core", "[\"cat\"]"));
    let id = host.enqueue("default", "the payload");
    host.store().wait_for(id, "done");
    host.stdout().wait_for("the payload");
}

#[test]
fn a_core_command_that_exits_with_a_failure_is_tried_again() {
    let host = Host::run(&command("cmd-test-core", "[\"exit\", \"3\"]"));
    let id = host.enqueue("default", "");
    let job = host.store().wait_for(id, "retrying");
    assert_eq!((job.attempt, job.crashes), (1, 0), "{job:?}");
    assert!(job.last_error.as_ref().unwrap().contains('3'), "{job:?}");
}

#[test]
fn a_core_command_may_bury_its_job() {
    let host = Host::run(&command("cmd-test-core", "[\"exit\", \"65\"]"));
    let id = host.enqueue("default", "");
    eventually("it is dead", || (host.store().job(id).state == "dead").then_some(()));
    assert_eq!(host.store().job(id).attempt, 1);
}

#[test]
fn a_command_that_traps_has_crashed() {
    let host = Host::run(&command("cmd-test", "[\"trap\"]"));
    let id = host.enqueue("default", "");
    assert_eq!(host.store().wait_for(id, "retrying").crashes, 1);
}
