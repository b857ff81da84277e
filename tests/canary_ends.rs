//! Canaries that end: by a promotion, by an abort, with their host, or because they are no good.

use std::fs;
use std::net::TcpListener;

use serde_json::Value;

use crate::canary_waits::hold_canary;
use crate::harness::http::{Answer, Connection, Request};
use crate::harness::{
    Formation, Host, Load, Outside, address_of_its_own, eventually, guest_file, versioned_web,
    versioned_worker,
};

/// A host that serves `one`, with `two` on canary at this share.
fn on_canary(formation: &Formation, share: &str) -> Host {
    let host = Host::run(formation);
    formation.build("web", "web-test", "two");
    host.cli(["deploy", "--canary", share]).done();
    host
}

#[test]
fn an_abort_loses_no_request_and_leaves_what_was() {
    let formation = versioned_web("one", "count = 3");
    let host = Host::run(&formation);
    let before = host.ps().names("web");
    let load = host.load_of_versions(4, &["one", "two"]);
    formation.build("web", "web-test", "two");
    for (round, release) in [(1, 2), (2, 3)] {
        host.cli(["deploy", "--canary", "50"]).done();
        eventually("the canary answers", || (host.version() == "two").then_some(()));
        load.wait_for(50);
        let said = host.cli(["abort"]).done();
        assert_eq!(said, format!("v{release} is aborted, and v1 has all requests and jobs again\n"));
        for _ in 0..8 {
            assert_eq!(host.version(), "one", "round {round}");
        }
        host.is_alone("web", 3);
    }
    load.wait_for(50);
    load.stop();
    assert_eq!(host.ps().names("web"), before);
    assert_eq!(host.ps().number("web", "recycled"), 0, "no instance was touched");
    assert_eq!(host.states(), ["failed", "failed", "live"]);
    assert_eq!(host.release(3)["release"]["why"], "aborted");
    host.stop().never_panicked().done();
}

#[test]
fn requests_that_the_canary_has_begun_are_finished() {
    let outside = Outside::open();
    let formation = versioned_web("one", &format!("count = 2\n{}", outside.keys()));
    for end in ["promote", "abort"] {
        let host = on_canary(&formation, "99%");
        let held: Vec<_> = (1..=2).map(|busy| hold_canary(&host, &outside, busy)).collect();
        host.cli_of(vec![end]).done();
        for (mut client, asked) in held {
            asked.answer();
            assert_eq!(client.read_answer(false).unwrap().ok(), Outside::PASSED_ON);
        }
        host.is_alone("web", 2);
        host.stop().never_panicked().done();
        formation.build("web", "web-test", "one");
        fs::remove_dir_all(formation.path(".wasmhost")).unwrap();
    }
}

#[test]
fn no_more_instances_than_there_is_room_for() {
    let formation = versioned_web("one", "count = 5").top("max_instances = 6");
    let host = Host::run(&formation);
    formation.build("web", "web-test", "two");
    host.cli(["deploy", "--canary", "50%"]).failed(1, "web 5 + web on canary 3 = 8 instances");
    assert_eq!(host.states(), ["live"], "it was refused before there was a release");
    host.cli(["deploy", "--canary", "20%"]).done();
    host.cli(["scale", "web=6"]).failed(1, "web 6 + web on canary 2 = 8 instances");
    assert_eq!(host.ps().parts("web"), [5, 1]);
    host.cli(["promote"]).done();
    host.is_alone("web", 5);
    assert_eq!(host.cli(["scale", "web=6"]).done(), "web=6\n");
}

/// The worker's count is all that there is room for, with a canary or without.
#[test]
fn a_worker_on_canary_needs_no_more_room() {
    let formation =
        versioned_worker(Formation::new(), "queue = \"default\"\ncount = 4").top("max_instances = 4");
    let host = Host::run(&formation);
    for end in ["abort", "promote"] {
        formation.build("worker", "job-test", end);
        host.cli(["deploy", "--canary", "50%"]).done();
        assert_eq!(host.ps().parts("worker"), [2, 2]);
        host.cli_of(vec![end]).done();
        host.is_alone("worker", 4);
    }
}

#[test]
fn a_host_that_is_killed_starts_with_the_live_release() {
    let formation = versioned_web("one", "count = 2");
    let host = on_canary(&formation, "50%");
    host.kill();
    let host = Host::run(&formation);
    assert_eq!((host.version().as_str(), host.live()), ("one", 1));
    assert_eq!(host.states(), ["failed", "live"]);
    host.stderr().wait_for("v1 runs, as before");
    host.is_alone("web", 2);
    host.cli(["promote"]).failed(1, "no release is on canary");
    host.cli(["deploy", "--canary", "50%"]).done();
    host.cli(["promote"]).done();
    assert_eq!((host.version().as_str(), host.live()), ("two", 3));
}

#[test]
fn a_host_that_stops_drains_both_versions() {
    let formation = versioned_web("one", "count = 2");
    let host = on_canary(&formation, "50%");
    let mut late: Vec<Connection> = (0..3).map(|_| begin_upload(&host)).collect();
    eventually("they are begun or wait", || {
        let ps = host.ps();
        let busy = ps.in_state("web", "busy") as u64 + ps.number("web", "waiting");
        let canary = ps.canary("web");
        let instances = canary["instances"].as_array().unwrap();
        let of_canary = instances.iter().filter(|instance| instance["state"] == "busy").count() as u64;
        (busy + of_canary + canary["waiting"].as_u64().unwrap() == 3).then_some(())
    });
    host.terminate();
    host.stderr().wait_for("draining");
    end_all(&mut late);
    host.wait().never_panicked().done();
    let host = Host::run(&formation);
    assert_eq!((host.version().as_str(), host.live()), ("one", 1));
    let why = host.release(2)["release"]["why"].as_str().unwrap().to_owned();
    assert!(why.contains("stopped while it was on canary (50%)"), "{why}");
}

#[test]
fn a_canary_that_crashes_at_each_call_takes_nobody_with_it() {
    // It answers when it is tried, and traps on the second call of each instance.
    let formation = versioned_web("one", "count = 2\nisolation = \"instance\"");
    let host = Host::run(&formation);
    let text = formation.text();
    let formation = formation.replace("count = 2", "count = 2\nenv = { ONCE = \"1\" }");
    host.cli(["deploy", "--canary", "50%"]).done();
    let mut client = host.connect();
    let mut crashed = 0;
    for _ in 0..200 {
        // A POST isn't repeated.
        match client.send(&Request::post("/echo", "x")).unwrap() {
            Answer { status: 200, .. } => {}
            answer => {
                crashed += 1;
                answer.is_error(502, "H13");
            }
        }
    }
    assert!((10..=100).contains(&crashed), "of about 100 requests every other one crashes: {crashed}");
    let ps = host.ps();
    assert_eq!((ps.number("web", "restarts"), ps.number("web", "actual")), (0, 2));
    assert!(ps.canary("web")["restarts"].as_u64().unwrap() >= 5);
    host.cli(["abort"]).done();
    let load = Load::get(host.address(), 2, "/version");
    load.wait_for(100);
    load.stop();
    host.is_alone("web", 2);
    drop(formation.with_text(&text));
    host.stop().never_panicked().done();
}

/// None of its instances has the memory for any call.
#[test]
fn a_canary_that_crashes_at_each_call_costs_no_safe_request() {
    let formation = versioned_web("one", "count = 4\nmemory = \"64MiB\"");
    let host = Host::run(&formation);
    let load = Load::get(host.address(), 3, "/fill?mib=32");
    load.wait_for(20);
    let _formation = formation.replace("64MiB", "16MiB");
    host.cli(["deploy", "--canary", "50%"]).done();
    eventually("it has crashed", || {
        (host.ps().canary("web")["restarts"].as_u64().unwrap() >= 5).then_some(())
    });
    load.wait_for(20);
    host.stderr().wait_for("was repeated on another instance (web.");
    assert_eq!(host.ps().number("web", "restarts"), 0);
    host.cli(["abort"]).done();
    load.wait_for(20);
    load.stop();
    host.is_alone("web", 4);
    host.stop().never_panicked().done();
}

/// Half of the instances of `flaky-start` don't start: all of them do with a probability of one in a billion.
#[test]
fn a_promotion_whose_instances_die_leaves_the_live_release_and_ends_the_canary() {
    let formation = versioned_web("one", "count = 31");
    let host = Host::run(&formation);
    fs::copy(guest_file("flaky-start"), formation.path("web.wasm")).unwrap();
    let number = flaky_on_canary(&host, "1%");
    let ended = host.cli(["promote"]).failed(1, "v1 is live, as before");
    assert!(ended.stderr.contains(&format!("v{number} failed:")), "{ended:#?}");
    host.is_alone("web", 31);
    assert_eq!((host.version().as_str(), host.live()), ("one", 1));
    host.cli(["promote"]).failed(1, "no release is on canary");
    assert_eq!(host.states()[0], "failed");
    host.stop().never_panicked().done();
}

/// Deploys `flaky-start` as a canary until its instances start by chance. Returns the release.
fn flaky_on_canary(host: &Host, share: &str) -> u64 {
    eventually("its instances start by chance", || {
        let ended = host.cli(["deploy", "--canary", share]).never_panicked();
        (ended.code == 0).then_some(())
    });
    host.ps().0["canary"]["release"].as_u64().unwrap()
}

#[test]
fn a_canary_whose_instances_do_not_start_hands_its_share_to_the_live_version() {
    let formation = versioned_web("one", "count = 2");
    let host = Host::run(&formation);
    fs::copy(guest_file("flaky-start"), formation.path("web.wasm")).unwrap();
    flaky_on_canary(&host, "50%");
    let standing = || {
        let ps = host.ps();
        let canary = ps.canary("web");
        let waits = canary["instances"][0]["state"] == "backoff";
        waits.then(|| canary["restarts"].as_u64().unwrap())
    };
    eventually("all requests are answered while no instance of the canary starts", || {
        let Some(before) = standing() else {
            // Its instance serves, and a call ends it.
            let _ = host.try_send(&Request::get("/version"));
            return None;
        };
        let mut client = host.connect();
        let answers: Vec<Answer> = (0..20).map(|_| client.send(&Request::get("/version")).unwrap()).collect();
        // Unless it was started again meanwhile.
        if standing() != Some(before) {
            return None;
        }
        let versions: Vec<_> = answers.into_iter().map(|answer| answer.ok()).collect();
        assert!(versions.iter().all(|version| version.trim_end() == "one"), "{versions:?}");
        Some(())
    });
    host.cli(["abort"]).done();
    assert_eq!(host.version(), "one");
    host.stop().never_panicked().done();
}

#[test]
fn a_promotion_that_can_not_begin_leaves_the_canary() {
    let formation = versioned_web("one", "count = 2");
    let host = Host::run(&formation);
    let text = formation.text();
    formation.build("web", "web-test", "two");
    let taken = TcpListener::bind(address_of_its_own()).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let formation = formation.replace("127.0.0.1:0", &address);
    let said = host.cli(["deploy", "--canary", "50%"]).done();
    assert!(said.contains("formation waits for the promotion\n"), "{said}");
    let ended = host.cli(["promote"]).failed(1, &address);
    assert!(ended.stderr.contains("it stays on canary") && ended.stderr.contains("v1 is live"), "{ended:#?}");
    assert_eq!(host.states(), ["canary", "live"]);
    drop(taken);
    host.cli(["promote"]).done();
    assert_eq!(host.states(), ["live", "replaced"]);
    let answer = Connection::open(address.parse().unwrap()).unwrap().send(&Request::get("/version")).unwrap();
    assert_eq!(answer.ok().trim_end(), "two");
    drop(formation.with_text(&text));
}

#[test]
fn a_promotion_that_is_given_too_little_time_leaves_the_canary() {
    for timeout in ["1ms", "1s"] {
        let formation = versioned_web("one", "count = 4\ntimeout = \"10m\"").top("grace = \"5s\"");
        let host = on_canary(&formation, "50%");
        // More instances of the live version than may leave at once have calls that take longer than the move may.
        let mut held = [1, 2].map(|busy| hold_live(&host, busy));
        let ended = host.cli(["promote", "--timeout", timeout]);
        let said = ended.failed(1, &format!("it wasn't done within {timeout}: ")).stderr;
        assert!(said.contains("it stays on canary") && said.contains("v1 is live, as before"), "{said}");
        assert_eq!((host.states(), host.ps().parts("web")), (vec!["canary".into(), "live".into()], [4, 2]));
        end_all(&mut held);
        let load = host.load_of_versions(2, &["one", "two"]);
        load.wait_for(50);
        host.cli(["promote"]).done();
        load.wait_for(50);
        load.stop();
        let states = host.states();
        assert_eq!((host.version().as_str(), states), ("two", vec!["live".into(), "replaced".into()]));
        host.is_alone("web", 4);
        host.stop().never_panicked().done();
    }
}

/// A request that keeps an instance of the live version busy, the first or the second. None of the canary may be.
#[track_caller]
fn hold_live(host: &Host, busy: usize) -> Connection {
    loop {
        let mut held = begin_upload(host);
        let is_of_live = eventually("it is begun", || {
            let ps = host.ps();
            let count = |view: &Value| {
                let instances = view["instances"].as_array().unwrap();
                instances.iter().filter(|instance| instance["state"] == "busy").count()
            };
            let is_of_live = count(ps.process("web")) == busy;
            (is_of_live || count(ps.canary("web")) > 0).then_some(is_of_live)
        });
        if is_of_live {
            return held;
        }
        end_all(std::slice::from_mut(&mut held));
    }
}

/// A request that is under way, or waits in the line, until its body is whole.
fn begin_upload(host: &Host) -> Connection {
    let mut client = host.connect();
    client.send_raw(b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    client
}

/// Sends the rest of all of these, some of which may wait for others, and has their answers.
#[track_caller]
fn end_all(uploads: &mut [Connection]) {
    for client in &mut *uploads {
        client.send_raw(b"1\r\nx\r\n0\r\n\r\n").unwrap();
    }
    for client in uploads {
        assert_eq!(client.read_answer(false).unwrap().ok(), "x");
    }
}

#[test]
fn programs_are_told_of_each_step_and_the_api_refuses_what_makes_no_sense() {
    let formation = versioned_web("one", "");
    let host = Host::run(&formation);
    formation.build("web", "web-test", "two");
    let events = |verb: Vec<&str>| -> Vec<Value> {
        let lines = host.cli_of(verb).done();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let canary = events(vec!["deploy", "--canary", "1%", "--json"]);
    assert_eq!(
        canary.last().unwrap(),
        &serde_json::json!({ "event": "canary", "release": 2, "percent": 1, "types": ["web"], "waits": [] })
    );
    let aborted = events(vec!["abort", "--json"]);
    assert_eq!(aborted, [serde_json::json!({ "event": "aborted", "release": 2, "live": 1 })]);
    host.cli(["deploy", "--canary", "1%", "--no-wait"]).done();
    eventually("it is on canary", || (host.states()[0] == "canary").then_some(()));
    let promoted = events(vec!["promote", "--json"]);
    assert_eq!(promoted.last().unwrap(), &serde_json::json!({ "event": "live", "release": 3 }));
    assert!(promoted.iter().any(|event| event["event"] == "moving"), "{promoted:#?}");
}

#[test]
fn where_the_canary_is_full_the_live_version_answers() {
    let formation = versioned_web("one", "count = 1\nbacklog = 1");
    let host = on_canary(&formation, "99%");
    // Each of them may go to the live version too, by chance.
    eventually("a request comes while the canary is full", || {
        let mut late: Vec<Connection> = (0..2).map(|_| begin_upload(&host)).collect();
        eventually("both are begun or wait", || {
            let ps = host.ps();
            let [live, canary] = [ps.process("web"), ps.canary("web")].map(|view| {
                let is_busy = view["instances"][0]["state"] == "busy";
                u64::from(is_busy) + view["waiting"].as_u64().unwrap()
            });
            (live + canary >= 2).then_some(())
        });
        let is_full = host.ps().canary("web")["waiting"] == 1;
        if is_full {
            assert_eq!(host.version(), "one");
        }
        end_all(&mut late);
        is_full.then_some(())
    });
}

#[test]
fn types_that_keep_instances_in_other_ways_have_canaries_too() {
    for (guest, keys, path) in [
        ("wasi03-service", "count = 2\nconcurrency = 8", "/hello"),
        ("web-test", "count = 2\nisolation = \"call\"", "/version"),
        ("web-test", "count = 2\nmax_calls = 20", "/spin?ms=1"),
        ("web-test", "count = 2", "/spin?ms=20"),
    ] {
        let formation = Formation::new().versioned("web", guest, "one", keys);
        let host = Host::run(&formation);
        let load = Load::get(host.address(), 4, path);
        for end in ["abort", "promote"] {
            formation.build("web", guest, end);
            host.cli(["deploy", "--canary", "50%"]).done();
            load.wait_for(60);
            eventually("the canary has its share", || {
                let ps = host.ps();
                let canary = ps.canary("web");
                // Calls begin anew with a replacement.
                (canary["instances"][0]["calls"] != 0 || canary["recycled"] != 0).then_some(())
            });
            host.cli_of(vec![end]).done();
            load.wait_for(30);
        }
        load.stop();
        host.is_alone("web", 2);
        host.stop().never_panicked().done();
    }
}
