//! The keys of a formation about queues and their jobs reach them.

use crate::harness::{Formation, Host, eventually};

#[test]
fn a_type_says_how_long_its_failed_jobs_wait() {
    let keys = "queue = \"default\"\nbackoff = [\"1s\", \"2h\"]";
    let host = Host::run(&Formation::new().process("worker", "job-test", keys));
    let id = host.enqueue("default", "retry:no");
    let second = eventually("the second attempt has failed", || {
        let job = host.store().job(id);
        (job.state == "retrying" && job.attempt == 2).then_some(job)
    });
    // From its enqueueing, with up to a tenth more, and the first attempts' time.
    let hours = second.wait_ms as f64 / 3_600_000.0;
    assert!((2.0..2.3).contains(&hours), "{second:?}");
}

#[test]
fn a_queue_runs_as_many_jobs_at_once_as_it_may_over_all_types() {
    let keys =
        "queue = \"mail\"\ncount = 2\ndirs = [{ host = \"out\", guest = \"/out\", access = \"write\" }]";
    let formation = Formation::new()
        .directory("out")
        .table("[queues.mail]\nconcurrency = 1")
        .process("one", "job-test", keys)
        .process("other", "job-test", keys);
    let host = Host::run(&formation);
    let ids: Vec<i64> = (0..6).map(|_| host.enqueue("mail", "write:log\nsleep:100\nwrite:log")).collect();
    for id in ids {
        host.store().wait_for(id, "done");
    }
    let log = formation.read("out/log");
    let begun_and_ended: Vec<_> = log.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(begun_and_ended.len(), 12, "{log}");
    assert!(begun_and_ended.chunks(2).all(|pair| pair[0] == pair[1]), "one began while another ran:\n{log}");
}
