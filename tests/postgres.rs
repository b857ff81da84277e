//! A host whose store is a schema of a PostgreSQL database. Each test is left out, and says so, where no server is installed.

use crate::harness::postgres::Server;
use crate::harness::{Formation, Host, eventually};

/// A worker that writes files, a clock of each second, and a web type that enqueues, on this server.
fn formation(server: &Server) -> Formation {
    let dirs = "dirs = [{ host = \"out\", guest = \"/out\", access = \"write\" }]";
    Formation::new()
        .directory("out")
        .process("worker", "job-test", &format!("queue = \"default\"\ncount = 2\n{dirs}"))
        .process("clock", "tick-test", &format!("schedule = \"* * * * * *\"\noverlap = \"allow\"\n{dirs}"))
        .process("web", "web-test", "enqueue = [\"default\"]")
        .health()
        .table("[store]\nurl = \"${STORE}\"")
        .variable("STORE", server.url("shop"))
}

fn is_done(server: &Server, id: &str) {
    eventually("the job is done", || {
        let state = server.sql(&format!("SELECT state FROM shop.jobs WHERE id = {id}"));
        (state == "done").then_some(())
    });
}

#[test]
fn jobs_ticks_counts_and_releases_are_kept_over_restarts() {
    let Some(server) = Server::start() else { return };
    let formation = formation(&server);
    let host = Host::run(&formation);
    let by_hand = host.enqueue("default", "write:a");
    is_done(&server, &by_hand.to_string());
    assert!(formation.read("out/a").starts_with(&format!("{by_hand} 1 worker.")));
    let by_guest = host.post("/enqueue?queue=default", "write:b");
    assert_eq!(by_guest.status, 201);
    is_done(&server, by_guest.text().trim());
    eventually("three ticks", || (formation.read("out/ticks").lines().count() >= 3).then_some(()));
    host.cli(["scale", "worker=3"]).done();
    let listed = host.cli(["jobs", "ls", "--json"]).done();
    assert!(listed.lines().count() == 2 && listed.contains("\"default\""), "{listed}");
    assert_eq!(host.probe("/readyz").status, 200);
    let metrics = host.metrics();
    let commits = metrics
        .series
        .iter()
        .find(|(name, _)| name.starts_with("wasmhost_store_commit_duration_seconds_count"));
    assert!(commits.is_some_and(|(_, commits)| *commits > 0.0), "{:?}", metrics.series.keys());
    host.stop().done();

    // A host that was killed leaves leases, which its next boot frees at once.
    let host = Host::run(&formation);
    assert_eq!(host.ps().number("worker", "desired"), 3);
    host.cli(["enqueue", "default", "sleep:60000"]).done();
    let leased = "SELECT count(*) FROM shop.jobs WHERE state = 'leased'";
    eventually("it runs", || (server.sql(leased) == "1").then_some(()));
    host.kill();
    let host = Host::run(&formation);
    host.cli(["deploy"]).done();
    let interrupted = "SELECT outcome FROM shop.attempts";
    eventually("the attempt is known", || (server.sql(interrupted) == "interrupted").then_some(()));
    assert_eq!(server.sql("SELECT count(*) FROM shop.releases WHERE state = 'live'"), "1");
    // Each tick once.
    let ticks = formation.read("out/ticks");
    let mut nominal: Vec<&str> = ticks.lines().filter_map(|line| line.split(' ').next()).collect();
    let all = nominal.len();
    nominal.sort_unstable();
    nominal.dedup();
    assert_eq!(nominal.len(), all, "{ticks}");
    host.kill();
}

#[test]
fn an_outage_stops_jobs_and_no_requests() {
    let Some(mut server) = Server::start() else { return };
    let formation = formation(&server);
    let host = Host::run(&formation);
    let running = host.enqueue("default", "sleep:3000\nwrite:late").to_string();
    let leased = "SELECT count(*) FROM shop.jobs WHERE state = 'leased'";
    eventually("it runs", || (server.sql(leased) == "1").then_some(()));
    server.stop();
    for _ in 0..20 {
        host.get("/ok").ok();
    }
    let refused = host.cli(["enqueue", "default", "ok"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.stderr.contains("can't be reached") || refused.stderr.contains("can't be opened"),
        "{refused:?}"
    );
    assert!(!refused.stderr.contains("c%40r") && !refused.stderr.contains("c@r"), "{refused:?}");
    // As this guest tells of an error.
    assert_eq!(host.post("/enqueue?queue=default", "ok").status, 500);
    assert_eq!(host.probe("/readyz").status, 200);
    assert_eq!(host.ps().in_state("worker", "idle") + host.ps().in_state("worker", "busy"), 2);
    // It ends while nobody can be told.
    eventually("it has ended", || formation.read("out/late").starts_with(&running).then_some(()));
    server.go();
    is_done(&server, &running);
    assert_eq!(server.sql(&format!("SELECT claim FROM shop.jobs WHERE id = {running}")), "1", "it ran once");
    let next = eventually("jobs are taken again", || {
        let enqueued = host.cli(["enqueue", "default", "ok"]);
        (enqueued.code == 0).then(|| enqueued.stdout.trim().to_owned())
    });
    is_done(&server, &next);
    let all = host.stderr().text();
    assert!(!all.contains("c%40r") && !all.contains("c@r"), "{all}");
    host.stop().done();
}

#[test]
fn a_store_that_can_not_be_opened_says_what_to_do() {
    let Some(server) = Server::start() else { return };
    for (from, to, said) in
        [("s%3Ae", "hunter2", "check the user and password"), ("/postgres?", "/orders?", "createdb orders")]
    {
        let formation = formation(&server).variable("STORE", server.url("shop").replace(from, to));
        let ended = formation.run_to_end();
        assert_eq!(ended.code, 3, "{ended:?}");
        assert!(ended.stderr.contains(said), "{ended:?}");
        assert!(!ended.stderr.contains("hunter2") && !ended.stderr.contains("c%40r"), "{ended:?}");
    }
}

#[test]
fn it_is_backed_up_by_its_own_means() {
    let Some(server) = Server::start() else { return };
    let formation = formation(&server);
    let alone = formation.cli(["jobs", "backup", "copy.db"]);
    assert!(alone.code == 1 && alone.stderr.contains("pg_dump"), "{alone:?}");
    let host = Host::run(&formation);
    let refused = host.cli(["jobs", "backup", "copy.db"]);
    assert!(refused.code == 1 && refused.stderr.contains("pg_dump"), "{refused:?}");
    host.stop().done();
    // The password is shown nowhere.
    let shown = formation.cli(["check", "--json"]);
    assert!(!shown.stdout.contains("c%40r"), "{shown:?}");
}
