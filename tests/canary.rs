//! Canaries: a release that has a share of requests and jobs, until it is promoted or aborted.

use std::collections::BTreeMap;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::http::{Connection, Request};
use crate::harness::{Formation, Host, eventually, versioned_web, versioned_worker};

/// How many of so many requests each version answers, one after another on one connection.
#[track_caller]
fn answers(host: &Host, requests: usize) -> BTreeMap<String, usize> {
    let mut client = host.connect();
    let mut answers = BTreeMap::new();
    for _ in 0..requests {
        let version = client.send(&Request::get("/version")).unwrap().ok();
        *answers.entry(version.trim_end().to_owned()).or_default() += 1;
    }
    answers
}

#[test]
fn a_canary_has_its_share_of_requests_and_is_promoted_without_a_failed_one() {
    let formation = versioned_web("one", "count = 4");
    let host = Host::run(&formation);
    let load = host.load_of_versions(4, &["one", "two"]);
    formation.build("web", "web-test", "two");
    let said = host.cli(["deploy", "--canary", "25%"]).done();
    assert!(said.contains("v2 is on canary: it has 25% of the requests and jobs of web\n"), "{said}");
    assert!(said.contains("`wasmhost promote`") && said.contains("`wasmhost abort`"), "{said}");
    // A thousand at a quarter: five standard deviations are 68.
    let answers = answers(&host, 1_000);
    assert!((182..=318).contains(&answers["two"]) && answers.len() == 2, "{answers:?}");
    assert_eq!(host.ps().parts("web"), [4, 1]);
    assert_eq!(host.states(), ["canary", "live"]);
    assert_eq!(host.live(), 1);
    load.wait_for(50);
    let said = host.cli(["promote"]).done();
    assert!(said.ends_with("v2 is live\n"), "{said}");
    for _ in 0..8 {
        assert_eq!(host.version(), "two");
    }
    host.is_alone("web", 4);
    load.wait_for(50);
    load.stop();
    assert_eq!(host.states(), ["live", "replaced"]);
    host.stop().never_panicked().done();
}

#[test]
fn jobs_are_done_by_both_versions_and_each_once() {
    let formation =
        versioned_worker(Formation::web("enqueue = [\"default\"]"), "queue = \"default\"\ncount = 4");
    let host = Host::run(&formation);
    formation.build("worker", "job-test", "two");
    host.cli(["deploy", "--canary", "50%"]).done();
    assert_eq!(host.ps().parts("worker"), [2, 2]);
    let enqueue_for = |jobs: usize, ms: u32| {
        for _ in 0..jobs {
            let job = format!("write:log\nsleep:{ms}");
            assert_eq!(host.post("/enqueue?queue=default", job).status, 201);
        }
    };
    let enqueue = |jobs| enqueue_for(jobs, 10);
    // They come faster than one version does them.
    enqueue_for(60, 200);
    let calls = |view: &Value| -> u64 {
        view["instances"].as_array().unwrap().iter().map(|instance| instance["calls"].as_u64().unwrap()).sum()
    };
    eventually("both versions have done some", || {
        let ps = host.ps();
        (calls(ps.process("worker")) > 5 && calls(ps.canary("worker")) > 5).then_some(())
    });
    enqueue(30);
    host.cli(["abort"]).done();
    enqueue(30);
    host.is_alone("worker", 4);
    host.cli(["deploy", "--canary", "50%"]).done();
    enqueue(60);
    host.cli(["promote"]).done();
    enqueue(30);
    host.is_alone("worker", 4);
    eventually("all jobs are done", || {
        host.store().jobs().iter().all(|job| job.state == "done").then_some(())
    });
    assert!(host.store().jobs().iter().all(|job| job.attempt == 1));
    let log = formation.read("out/log");
    let mut ids: Vec<_> = log.lines().map(|line| line.split(' ').next().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), log.lines().count()), (210, 210));
    host.stop().never_panicked().done();
}

#[test]
fn a_limit_of_a_queue_holds_across_both_versions() {
    let formation = versioned_worker(
        Formation::new().table("[queues.default]\nconcurrency = 2"),
        "queue = \"default\"\ncount = 6",
    );
    let host = Host::run(&formation);
    formation.build("worker", "job-test", "two");
    host.cli(["deploy", "--canary", "50%"]).done();
    let jobs: Vec<_> = (0..12).map(|_| host.enqueue("default", "sleep:100")).collect();
    eventually("all are done", || {
        let leased = host.store().jobs().iter().filter(|job| job.state == "leased").count();
        assert!(leased <= 2, "{leased} run at once");
        jobs.iter().all(|id| host.store().job(*id).state == "done").then_some(())
    });
}

#[test]
fn counts_are_split_and_a_scale_follows() {
    let formation = versioned_worker(versioned_web("one", "count = 4"), "queue = \"default\"\ncount = 4");
    let host = Host::run(&formation);
    formation.build("web", "web-test", "two");
    formation.build("worker", "job-test", "two");
    host.cli(["deploy", "--canary", "25%"]).done();
    let ps = host.ps();
    assert_eq!((ps.parts("web"), ps.parts("worker")), ([4, 1], [3, 1]));
    assert_eq!(ps.names("web"), ["web.1", "web.2", "web.3", "web.4", "web.5"]);
    assert_eq!(ps.process("worker")["count"], 4);
    assert_eq!(host.cli(["scale"]).done(), "wasmhost scale web=4 worker=4\n");
    assert_eq!(host.cli(["scale", "web=8", "worker+4"]).done(), "web=8 worker=8\n");
    let ps = host.ps();
    assert_eq!((ps.parts("web"), ps.parts("worker")), ([8, 2], [6, 2]));
    let table = host.cli(["ps"]).done();
    for row in [["web", "v1", "8", "(4)"], ["worker", "v1", "6/8", "(4)"]] {
        assert!(table.lines().any(|line| line.split_whitespace().take(4).eq(row)), "{row:?} in {table}");
    }
    let mut names = ps.names("web");
    names.dedup();
    assert_eq!(names.len(), 10, "{names:?}");
    assert_eq!(host.cli(["scale", "worker=1", "web=0"]).done(), "web=0 worker=1\n");
    eventually("they have left", || {
        let ps = host.ps();
        ((ps.parts("web"), ps.parts("worker")) == ([0, 0], [1, 1]) && ps.names("worker").len() == 2)
            .then_some(())
    });
    host.get("/version").is_error(503, "H14");
    assert_eq!(host.cli(["scale", "--reset"]).done(), "web=4 worker=4\n");
    host.cli(["scale", "web=6"]).done();
    host.cli(["promote"]).done();
    host.is_alone("web", 6);
    host.is_alone("worker", 4);
    assert_eq!(host.version(), "two");
    host.stop().never_panicked().done();
}

#[test]
fn ps_and_releases_show_both_versions() {
    let formation = versioned_worker(versioned_web("one", "count = 4"), "queue = \"default\"\ncount = 4");
    let host = Host::run(&formation);
    formation.build("web", "web-test", "two");
    host.cli(["deploy", "--canary", "10%"]).done();
    let table = host.cli(["ps"]).done();
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(table.lines().next().unwrap().contains("v1  v2 on canary (10%)"), "{table}");
    let head = lines.iter().position(|line| line.first() == Some(&"TYPE")).unwrap();
    assert_eq!(lines[head][1], "RELEASE", "{table}");
    assert_eq!(lines[head + 1][..4], ["web", "v1", "4", "4"], "{table}");
    assert_eq!(lines[head + 2][..5], ["web", "v2", "(10%)", "1", "1"], "{table}");
    assert_eq!(lines[head + 3][..4], ["worker", "v1", "4", "4"], "{table}");
    assert!(lines.iter().any(|line| line.starts_with(&["web.5", "v2"])), "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    for ended in [host.cli(["ps", "nope"]), host.cli(["logs", "nope"])] {
        let ended = ended.failed(1, "there is no process type \"nope\"; this formation has web, worker");
        assert_eq!(ended.stderr.matches("web").count(), 1, "{ended:#?}");
    }
    host.cli(["restart", "nope"]).failed(1, "there is no process type \"nope\"");
    assert!(!host.stderr().text().contains("restarting nope"));
    let one = host.cli(["ps", "web"]).done();
    assert!(one.contains("web.1") && one.contains("web.5") && !one.contains("worker"), "{one}");
    let view: Value = serde_json::from_str(&host.cli(["ps", "web", "--json"]).done()).unwrap();
    assert_eq!(view["canary"], serde_json::json!({ "release": 2, "percent": 10 }));
    let versions: Vec<_> = view["types"].as_array().unwrap().iter().map(|view| &view["release"]).collect();
    assert_eq!(versions, [1, 2]);
    let releases = host.cli(["releases"]).done();
    assert!(releases.lines().nth(1).unwrap().contains("canary (10%)"), "{releases}");
    assert!(releases.lines().all(|line| line.chars().count() <= 80), "{releases}");
    let shown = host.cli(["releases", "show", "v2"]).done();
    assert!(shown.starts_with("v2  canary (10%)\n") && shown.contains("changed since v1:"), "{shown}");
    let detail = host.release(2);
    assert_eq!(
        (&detail["release"]["state"], &detail["release"]["canary_percent"]),
        (&"canary".into(), &10.into())
    );
    // A restart is of both.
    let restarted: Value = serde_json::from_str(&host.cli(["restart", "web", "--json"]).done()).unwrap();
    assert_eq!((&restarted["restarted"], &restarted["settled"]), (&5.into(), &true.into()));
    host.cli(["restart", "web.5"]).done();
    let ps = host.ps();
    assert_eq!((&ps.canary("web")["recycled"], &ps.process("web")["recycled"]), (&2.into(), &4.into()));
    host.cli(["abort"]).done();
    eventually("the canary has left", || (!host.cli(["ps"]).done().contains("v2")).then_some(()));
}

#[test]
fn ps_tells_a_version_that_leaves_from_the_one_that_stays() {
    let formation = versioned_web("one", "count = 1");
    let host = Host::run(&formation);
    formation.build("web", "web-test", "two");
    host.cli(["deploy", "--canary", "99%"]).done();
    let mut held = host.connect();
    eventually("the canary has a request", || {
        held = host.connect();
        held.send_raw(HELD).unwrap();
        let is_of_canary = eventually("it is begun", || {
            let ps = host.ps();
            let is_busy = |view: &Value| view["instances"][0]["state"] == "busy";
            (is_busy(ps.canary("web")) || is_busy(ps.process("web"))).then(|| is_busy(ps.canary("web")))
        });
        if !is_of_canary {
            end(&mut held);
        }
        is_of_canary.then_some(())
    });
    host.cli(["abort"]).done();
    let table = host.cli(["ps"]).done();
    let mut rows = table.lines().map(|line| line.split_whitespace().take(4).collect::<Vec<_>>());
    assert_eq!(rows.find(|row| row.first() == Some(&"TYPE")).unwrap()[1], "RELEASE", "{table}");
    assert_eq!(rows.next().unwrap(), ["web", "v1", "1", "1"], "{table}");
    assert_eq!(rows.next().unwrap(), ["web", "v2", "leaving", "0"], "{table}");
    end(&mut held);
    eventually("the canary has left", || host.cli(["ps"]).done().contains("TRIGGER").then_some(()));
}

/// A request that keeps an instance busy until its end is sent.
const HELD: &[u8] = b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";

#[track_caller]
fn end(held: &mut Connection) {
    held.send_raw(b"1\r\nx\r\n0\r\n\r\n").unwrap();
    assert_eq!(held.read_answer(false).unwrap().ok(), "x");
}

#[test]
fn nothing_else_is_deployed_while_a_canary_stands() {
    let formation = versioned_web("one", "");
    let host = Host::run(&formation);
    for verb in ["promote", "abort"] {
        let ended =
            host.cli_of(vec![verb]).failed(1, "no release is on canary: `wasmhost deploy --canary 10%`");
        assert!(ended.stdout.is_empty(), "{ended:#?}");
    }
    formation.build("web", "web-test", "two");
    host.cli(["deploy", "--canary", "10%"]).done();
    formation.build("web", "web-test", "three");
    for verb in [vec!["deploy"], vec!["deploy", "--canary", "20%"], vec!["rollback"]] {
        let ended = host.cli_of(verb).failed(1, "v2 is on canary (10%): promote it");
        assert!(ended.stdout.is_empty(), "{ended:#?}");
    }
    host.signal(Signal::HUP);
    host.stderr().wait_for("the formation is not deployed: v2 is on canary (10%)");
    // Who only looks may.
    let said = host.cli(["deploy", "--dry-run"]).done();
    assert!(said.ends_with("v1 is live: this was a dry run, and nothing was changed\n"), "{said}");
    assert_eq!(host.states(), ["canary", "live"]);
    host.cli(["promote"]).done();
    assert_eq!(host.version(), "two");
    host.cli(["deploy"]).done();
    assert_eq!((host.version().as_str(), host.live()), ("three", 3));
}

#[test]
fn a_share_makes_sense_and_there_is_something_to_share() {
    let formation = versioned_worker(versioned_web("one", "count = 2"), "queue = \"default\"").process(
        "clock",
        "tick-test",
        "schedule = \"@yearly\"\ndirs = [{ host = \"out\", guest = \"/out\", access = \"write\" }]",
    );
    let host = Host::run(&formation);
    for share in ["0%", "100%", "-1", "0.5%", "half"] {
        let ended = host.cli(["deploy", &format!("--canary={share}")]).never_panicked();
        assert_eq!(ended.code, 2, "{ended:#?}");
        assert!(ended.stderr.contains("expected a share from 1% to 99%"), "{ended:#?}");
    }
    assert_eq!(host.cli(["deploy", "--canary", "10%"]).done(), "nothing changes: v1 is live\n");
    // Settings, a schedule and a type that is new: no instance of those that are asked changes.
    let text = formation.text();
    let formation = formation
        .replace("count = 2", "count = 3\ntimeout = \"7s\"")
        .replace("\"@yearly\"", "\"@monthly\"")
        .process("other", "web-test", "route = \"/ok\"");
    for verb in [vec!["deploy", "--canary", "10%"], vec!["deploy", "--canary", "10%", "--dry-run"]] {
        host.cli_of(verb).failed(1, "deploy it without --canary");
    }
    assert_eq!(host.releases().len(), 1, "it was refused before there was a release");
    let formation = formation.with_text(&text);
    formation.build("web", "web-test", "two");
    let ended = host.cli(["deploy", "--canary", "10%", "--dry-run"]).done();
    assert!(ended.contains("web: component"), "{ended}");
    assert_eq!(host.releases().len(), 1);
}

#[test]
fn what_is_not_shared_waits_for_the_promotion() {
    let formation = versioned_worker(versioned_web("one", "count = 2"), "queue = \"default\"");
    let host = Host::run(&formation);
    let text = formation.text();
    formation.build("web", "web-test", "two");
    let formation = formation
        .replace("queue = \"default\"", "queue = \"other\"")
        .replace("count = 2", "count = 3\nroute = \"/version\"")
        .process("extra", "web-test", "route = \"/instance\"");
    let said = host.cli(["deploy", "--canary", "99%"]).done();
    assert!(said.contains("worker, extra wait for the promotion\n"), "{said}");
    eventually("the canary answers", || (host.version() == "two").then_some(()));
    assert!(host.get("/instance").ok().starts_with("web\n"), "the routes are the live release's");
    assert_eq!(host.ps().process("web")["in_file"], 2);
    let job = host.enqueue("default", "write:log");
    host.store().wait_for(job, "done");
    host.cli(["promote"]).done();
    assert!(host.get("/instance").ok().starts_with("extra\n"));
    assert_eq!(host.get("/ok").status, 404);
    let job = host.enqueue("other", "write:log");
    host.store().wait_for(job, "done");
    host.is_alone("web", 3);
    drop(formation.with_text(&text));
}
