//! Counts that change while the formation runs.

use std::time::{Duration, Instant};

use crate::harness::http::{Connection, Request};
use crate::harness::{Formation, Host, Load, Shop, eventually, setting};

/// `CYCLES=500` makes it longer.
#[test]
fn no_request_fails_and_no_order_is_lost_while_the_shop_is_scaled() {
    let cycles = setting("CYCLES", 50);
    let formation = Formation::shop();
    let host = Host::run(&formation);
    let shop = Shop::default();
    let pages = Load::get(host.address(), 2, "/");
    let orders = shop.orders(host.address(), 2, false);
    let live = |process: &str, count: u64| {
        let ps = host.ps();
        assert_eq!((ps.number(process, "desired"), ps.number(process, "actual")), (count, count), "{ps:#?}");
        let states =
            [ps.in_state(process, "idle"), ps.in_state(process, "busy")].iter().sum::<usize>() as u64;
        let draining = ps.in_state(process, "draining") as u64;
        assert_eq!((states, draining), (count, ps.number(process, "draining")), "{ps:#?}");
        assert_eq!(ps.instances(process).len() as u64, count + draining, "{ps:#?}");
    };
    for _ in 0..cycles {
        assert_eq!(host.cli(["scale", "web=20", "worker=8"]).done(), "web=20 worker=8 clock=1\n");
        live("web", 20);
        live("worker", 8);
        assert_eq!(host.cli(["scale", "web=1", "worker=1"]).done(), "web=1 worker=1 clock=1\n");
        live("web", 1);
        live("worker", 1);
        assert_eq!(host.cli(["scale", "--reset"]).done(), "web=4 worker=2 clock=1\n");
        live("web", 4);
        live("worker", 2);
    }
    orders.wait_for(10);
    assert!(pages.stop() > cycles as u64);
    assert!(orders.stop() > cycles as u64);
    shop.has_all_receipts(&formation);
    // Scaling is no restart.
    assert_eq!((host.ps().number("web", "restarts"), host.ps().number("worker", "restarts")), (0, 0));
    host.stop().done();
}

/// Such requests are admitted before they have an instance, and those that are idle leave meanwhile.
#[test]
fn no_request_that_waits_for_a_compute_thread_fails_while_its_type_is_scaled() {
    let host = Host::run(&Formation::web("count = 16"));
    host.compute_until_known();
    let load = Load::get(host.address(), 24, "/spin?ms=1");
    load.wait_for(50);
    for count in [1, 16, 2, 9, 1, 16] {
        host.cli(["scale", &format!("web={count}")]).done();
        load.wait_for(30);
    }
    load.stop();
    eventually("all are idle", || (host.ps().in_state("web", "idle") == 16).then_some(()));
}

#[test]
fn counts_are_set_raised_and_lowered() {
    let host = Host::run(&Formation::web("").process("worker", "job-test", "queue = \"q\""));
    assert_eq!(host.cli(["scale", "web=3", "worker+2"]).done(), "web=3 worker=3\n");
    assert_eq!(host.cli(["scale", "web-1", "worker-9"]).done(), "web=2 worker=0\n");
    assert_eq!(host.cli(["scale"]).done(), "wasmhost scale web=2 worker=0\n");
    let json: serde_json::Value = serde_json::from_str(&host.cli(["scale", "--json"]).done()).unwrap();
    assert_eq!(json["types"][0]["process"], "web");
    assert_eq!((&json["types"][0]["desired"], &json["settled"]), (&2.into(), &true.into()));
    let text = host.cli(["ps"]).done();
    assert!(text.contains("2 (1)") && text.contains("0 (1)"), "desired (file): {text}");
    assert_eq!(host.cli(["scale", "--reset", "web"]).done(), "web=1 worker=0\n");
    assert_eq!(host.cli(["scale", "--reset"]).done(), "web=1 worker=1\n");
}

#[test]
fn a_change_that_can_not_be_made_changes_nothing() {
    let host = Host::run(&Formation::web("").top("max_instances = 10").process(
        "worker",
        "job-test",
        "queue = \"q\"",
    ));
    let ended = host.cli(["scale", "worker=2", "wbe=3"]).failed(1, "no process type \"wbe\"");
    assert!(ended.stderr.contains("web, worker"), "{ended:#?}");
    let ended = host.cli(["scale", "worker=2", "web=9"]).failed(1, "web 9 + worker 2 = 11 instances");
    assert!(ended.stderr.contains("room for 10") && ended.stderr.contains("max_instances"), "{ended:#?}");
    assert_eq!(host.cli(["scale"]).done(), "wasmhost scale web=1 worker=1\n");
    host.cli(["scale", "web=9"]).done();
    host.cli(["scale", "web+1"]).failed(1, "web 10 + worker 1 = 11 instances");
    host.cli(["scale", "web=99999999"]).failed(1, "instances");
    assert_eq!(host.ps().number("web", "actual"), 9);
    host.cli(["scale", "--reset", "wbe"]).failed(1, "wbe");
    assert_eq!(host.ps().number("web", "actual"), 9);
}

#[test]
fn what_is_no_count_is_a_mistake_in_the_command() {
    let host = Host::run(&Formation::web(""));
    for change in ["web", "web=", "web=x", "=3", "-1"] {
        let ended = host.cli(["scale", change]);
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.stderr.contains("expected a type and a count"), "{ended:?}");
    }
    host.cli(["scale", "web=-1"]).failed(2, "a count is 0 or more; `web-1` takes 1 away, and `web=0` all");
    for slip in [["scale", "web", "-1"], ["logs", "web", "-5"], ["restart", "web", "-1"]] {
        let ended = host.cli(slip);
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(!ended.stderr.contains("'-- -"), "it means nothing there: {ended:?}");
    }
    host.cli(["logs", "web", "-5"]).failed(2, "it is `-n 5`");
}

#[test]
fn who_waits_in_vain_is_told_what_lacks() {
    let host = Host::run(&Formation::web("").process("spin", "spin-start", "route = \"/spin\"\ncount = 0"));
    let ended =
        host.cli(["scale", "spin=2", "web=2", "--timeout", "500ms"]).failed(1, "spin has 0 of 2 instances");
    assert!(ended.stderr.contains("the host goes on trying"), "{ended:#?}");
    eventually("the others are up", || (host.ps().number("web", "actual") == 2).then_some(()));
    host.cli(["scale", "spin=0"]).done();
    eventually("none is left", || host.ps().instances("spin").is_empty().then_some(()));
}

#[test]
fn who_waits_for_what_traps_learns_why() {
    let host = Host::run(&Formation::web("").process("bad", "trap-start", "route = \"/bad\"\ncount = 0"));
    let ended = host.cli(["scale", "bad=1", "--timeout", "3s"]).failed(1, "bad has 0 of 1 instances");
    assert!(ended.stderr.contains("failed to start"), "{ended:#?}");
}

#[test]
fn who_does_not_wait_gets_an_answer_at_once() {
    let host = Host::run(&Formation::web("").process("spin", "spin-start", "route = \"/spin\"\ncount = 0"));
    // With a wait it would fail, after a minute.
    host.cli(["scale", "spin=1", "--no-wait"]).done();
    assert_eq!((host.ps().number("spin", "desired"), host.ps().number("spin", "actual")), (1, 0));
}

#[test]
fn counts_that_were_set_survive_a_restart_of_the_host() {
    let formation = Formation::web("count = 2").process("worker", "job-test", "queue = \"q\"");
    let host = Host::run(&formation);
    host.cli(["scale", "web=5"]).done();
    host.stop().done();
    let host = Host::run(&formation);
    let ps = host.ps();
    assert_eq!(
        (ps.number("web", "desired"), ps.number("web", "in_file"), ps.number("web", "actual")),
        (5, 2, 5)
    );
    host.kill();
    let host = Host::run(&formation);
    assert_eq!(host.ps().number("web", "actual"), 5);
    host.cli(["scale", "--reset"]).done();
    host.stop().done();
    let host = Host::run(&formation);
    assert_eq!(host.ps().number("web", "actual"), 2);
}

#[test]
fn a_busy_instance_finishes_its_call_before_it_leaves() {
    let host = Host::run(&Formation::web("count = 2"));
    let held = host.hold();
    host.cli(["scale", "web=0"]).done();
    let ps = host.ps();
    assert_eq!((ps.number("web", "actual"), ps.number("web", "draining")), (0, 1), "{ps:#?}");
    held.end();
    eventually("it has left", || host.ps().instances("web").is_empty().then_some(()));
}

#[test]
fn a_restart_replaces_every_instance_without_a_gap() {
    let host = Host::run(&Formation::web("count = 3"));
    let load = Load::get(host.address(), 2, "/ok");
    for round in 1..=20 {
        load.wait_for(10);
        let said = host.cli(["restart", "web"]).done();
        assert!(said.contains("restarted 3 instances of web"), "{said}");
        let ps = host.ps();
        assert_eq!((ps.number("web", "actual"), ps.number("web", "recycled")), (3, 3 * round), "{ps:#?}");
        assert_eq!(ps.number("web", "restarts"), 0, "a planned one is no crash: {ps:#?}");
    }
    assert!(host.cli(["restart", "web.2"]).done().contains("restarted 1 instance of web.2"));
    load.stop();
    // A fresh memory counts from 1.
    assert_eq!(host.get("/instance").ok().lines().nth(2), Some("1"));
    host.cli(["restart", "web.9"]).failed(1, "no web.9");
    host.cli(["restart", "wbe"]).failed(1, "wbe");
    host.cli(["restart", "web.x"]).failed(2, "web.x");
}

#[test]
fn many_changes_at_once_end_in_one_of_them() {
    let host = Host::run(&Formation::web(""));
    let load = Load::start(
        host.address(),
        1,
        |_| Request::get("/ok"),
        |_, answer| match answer {
            Ok(answer) if answer.status == 200 => Ok(true),
            other => Err(format!("{other:?}")),
        },
    );
    std::thread::scope(|scope| {
        for count in 1..=6 {
            let host = &host;
            scope.spawn(move || {
                for _ in 0..3 {
                    host.cli(["scale", &format!("web={count}")]).done();
                }
            });
        }
    });
    load.stop();
    let ps = host.ps();
    let desired = ps.number("web", "desired");
    assert!((1..=6).contains(&desired), "{ps:#?}");
    assert_eq!(ps.number("web", "actual"), desired, "{ps:#?}");
}

/// The store is another process's at that moment, as it is while a backup or `sqlite3` writes.
#[test]
fn the_host_answers_while_a_scale_waits_for_the_store() {
    let host = Host::run(&Formation::web("").process("worker", "job-test", "queue = \"q\""));
    let store = host.store();
    store.hold();
    std::thread::scope(|scope| {
        let scale = scope.spawn(|| host.cli(["scale", "web=3"]));
        // The next one begins with what the first one comes to.
        let more = scope.spawn(|| host.cli(["scale", "worker=2", "--no-wait"]));
        // The store gives up after 5 s.
        for _ in 0..2 {
            assert_eq!(host.ps().number("web", "desired"), 1);
            host.cli(["restart", "web"]).done();
        }
        assert!(!scale.is_finished() && !more.is_finished());
        store.release();
        scale.join().unwrap().done();
        more.join().unwrap().done();
    });
    assert_eq!(host.cli(["scale"]).done(), "wasmhost scale web=3 worker=2\n");
}

/// Requests whose bodies aren't whole yet, each in an instance of `web`.
fn hold(host: &Host, count: usize) -> Vec<Connection> {
    let held = |_| {
        let mut connection = host.connect();
        let head = b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
        connection.send_raw(head).unwrap();
        connection
    };
    let connections = (0..count).map(held).collect();
    eventually("they are in their instances", || (host.ps().in_state("web", "busy") == count).then_some(()));
    connections
}

#[test]
fn instances_that_drain_take_no_room_from_replacements_of_another_type() {
    // Room for ten, and for ten more that come or go.
    let formation = Formation::web("count = 9\ntimeout = \"10m\"").top("max_instances = 10\ngrace = \"10m\"");
    let host = Host::run(&formation.process("worker", "job-test", "queue = \"q\""));
    let mut held = hold(&host, 9);
    host.cli(["scale", "web=0"]).done();
    host.cli(["scale", "web=9"]).done();
    held.extend(hold(&host, 9));
    host.cli(["scale", "web=0"]).done();
    assert_eq!(host.ps().number("web", "draining"), 18);
    host.cli(["restart", "worker", "--timeout", "2m"]).done();
    let ps = host.ps();
    assert_eq!((ps.number("worker", "recycled"), ps.number("web", "draining")), (1, 18), "{ps:#?}");
    // Members of the first type wait for room, and have it as soon as others have left.
    host.cli(["scale", "web=3", "--no-wait"]).done();
    for mut connection in held {
        connection.send_raw(b"0\r\n\r\n").unwrap();
        connection.read_answer(false).unwrap().ok();
    }
    eventually("there is room again", || (host.ps().number("web", "actual") == 3).then_some(()));
    assert_eq!(host.ps().number("web", "restarts"), 0);
}

#[test]
fn a_restart_of_what_waits_after_a_failure_starts_one_instance_that_scale_ends() {
    let dirs = "dirs = [{ host = \"out\", guest = \"/out\" }]";
    let keys = format!("args = [\"wait\", \"/out/go\"]\n{dirs}");
    let formation = Formation::new().directory("out").process("idle", "cmd-test", &keys);
    let host = Host::launch(&formation);
    // 0, 1, 2 and 4 s have passed, and 8 s begin: longer than a restart takes.
    let again_in_s = eventually("it waits for longer", || {
        let ps = host.ps();
        let note = ps.instances("idle")[0]["note"].as_str()?.to_owned();
        let seconds: u64 = note.split("again in ").nth(1)?.trim_end_matches(" s").parse().ok()?;
        (ps.number("idle", "restarts") >= 5 && seconds >= 5).then_some(seconds)
    });
    std::fs::write(formation.path("out/go"), "").unwrap();
    host.cli(["restart", "idle"]).done();
    let past = Instant::now() + Duration::from_secs(again_in_s + 2);
    while Instant::now() < past {
        let ps = host.ps();
        assert_eq!((ps.number("idle", "actual"), ps.instances("idle").len()), (1, 1), "{ps:#?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(host.stdout().count("waits"), 1, "{}", host.stdout().text());
    host.cli(["scale", "idle=0"]).done();
    eventually("it has left", || host.ps().instances("idle").is_empty().then_some(()));
}

#[test]
fn scaling_down_under_load_leaves_the_supervisor_whole() {
    let host = Host::run(&Formation::web("count = 200"));
    let load = Load::get(host.address(), 8, "/ok");
    for _ in 0..10 {
        host.cli(["scale", "web=2"]).done();
        host.cli(["scale", "web=200"]).done();
    }
    load.stop();
    let ps = host.ps();
    assert_eq!((ps.number("web", "actual"), ps.number("web", "restarts")), (200, 0));
}

#[test]
fn a_deploy_tells_of_counts_that_are_not_the_files() {
    let formation =
        Formation::new().process("web", "web-test", "count = 3").process("side", "web-test", SIDE);
    let host = Host::run(&formation);
    host.cli(["scale", "web=0"]).done();
    let formation = formation.replace("[process.web]", "[process.front]");
    host.cli(["deploy"]).done();
    let formation = formation.replace("[process.front]", "[process.web]");
    let said = host.cli(["deploy"]).done();
    assert!(said.contains("web: its count is 0, which `scale` has set, and not 3; "), "{said}");
    // Types that have gone are reset, too.
    host.cli(["scale", "side=2"]).done();
    let formation = formation.replace("[process.web]", "[process.front]");
    host.cli(["deploy"]).done();
    assert_eq!(host.cli(["scale", "--reset"]).done(), "front=3 side=1\n");
    let formation = formation.replace("[process.front]", "[process.web]");
    let said = host.cli(["deploy"]).done();
    assert!(!said.contains("its count is"), "{said}");
    assert_eq!(host.ps().number("web", "desired"), 3);
    host.stop().done();
    drop(formation);
}

/// The keys of a second http type.
const SIDE: &str = "route = \"side.example/\"";
