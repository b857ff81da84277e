//! How long an instance is kept: `max_calls`, `max_age`, `isolation`, `cpu`, and the ends that a call may find.

use crate::harness::http::{Client, Request};
use crate::harness::{Formation, Host, Load, eventually};

/// The third line of `/instance`: how many calls of it this instance's memory remembers.
fn remembered(answer: &str) -> u64 {
    answer.lines().nth(2).unwrap().parse().unwrap()
}

#[test]
fn no_instance_serves_more_calls_than_it_may_and_no_request_fails() {
    let host = Host::run(&Formation::web("count = 3\nmax_calls = 50"));
    let load = Load::start(
        host.address(),
        3,
        |_| Request::get("/instance"),
        |_, answer| match answer {
            Ok(answer) if answer.status == 200 && remembered(&answer.text()) <= 50 => Ok(true),
            other => Err(format!("{other:?}")),
        },
    );
    for _ in 0..10 {
        load.wait_for(100);
        let ps = host.ps();
        let serving = ps.number("web", "actual") as usize + ps.in_state("web", "starting");
        assert_eq!(serving, 3, "a successor counts apart from those that serve: {ps:#?}");
        assert_eq!(ps.in_state("web", "replacing") as u64, ps.number("web", "replacing"), "{ps:#?}");
    }
    let answered = load.stop();
    let ps = host.ps();
    let recycled = ps.number("web", "recycled");
    // At most a fifth early by the jitter, and a tenth because the successor was there.
    assert!(recycled + 3 >= answered / 50 && recycled <= answered / 32 + 3, "{answered} {ps:#?}");
    assert_eq!((ps.number("web", "restarts"), &ps.process("web")["last_end"]), (0, &serde_json::Value::Null));
    eventually("exactly three serve again", || {
        let ps = host.ps();
        (ps.number("web", "actual") == 3 && ps.instances("web").len() == 3).then_some(())
    });
}

#[test]
fn instances_that_began_together_do_not_leave_together() {
    let host = Host::run(&Formation::web("count = 8\nmax_calls = 1000"));
    // By turns, so that all have as many calls.
    let mut clients: Vec<_> = (0..8).map(|_| host.connect()).collect();
    let mut lives = Vec::new();
    let mut calls = [0_u64; 9];
    while lives.len() < 8 {
        for client in &mut clients {
            client.send_raw(b"GET /instance HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        }
        for client in &mut clients {
            let answer = client.read_answer(false).unwrap().ok();
            let index: usize = answer.lines().nth(1).unwrap().trim_start_matches("web.").parse().unwrap();
            let now = remembered(&answer);
            // Answers of one instance may have overtaken each other, by a few calls.
            if now + 100 < calls[index] {
                lives.push(calls[index]);
                calls[index] = now;
            }
            calls[index] = calls[index].max(now);
        }
    }
    let (least, most) = (lives.iter().min().unwrap(), lives.iter().max().unwrap());
    assert!(most - least >= 10, "they leave at the same call: {lives:?}");
}

#[test]
fn idle_instances_are_replaced_when_they_are_old() {
    let host = Host::run(&Formation::web("count = 2\nmax_age = \"1s\""));
    assert_eq!(remembered(&host.get("/instance").ok()), 1);
    let load = Load::get(host.address(), 1, "/ok");
    eventually("each was replaced twice", || {
        let ps = host.ps();
        let instances = ps.instances("web").iter().filter(|instance| instance["state"] != "replacing");
        let replaced = instances.filter(|instance| instance["recycled"].as_u64().unwrap() >= 2).count();
        (replaced == 2).then_some(())
    });
    assert_eq!(host.ps().number("web", "restarts"), 0);
    load.stop();
}

#[test]
fn a_call_that_is_under_way_when_its_instance_is_old_is_finished() {
    let host = Host::run(&Formation::web("max_age = \"1s\""));
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| host.get("/sleep?ms=3000").ok());
        eventually("its successor serves", || (host.ps().number("web", "recycled") >= 1).then_some(()));
        assert_eq!(host.get("/ok").ok(), "ok\n");
        assert_eq!(slow.join().unwrap(), "slept\n");
    });
}

#[test]
fn many_are_restarted_in_batches() {
    let host = Host::run(&Formation::web("count = 40").top("max_instances = 40"));
    let load = Load::get(host.address(), 2, "/ok");
    let said = host.cli(["restart", "web"]).done();
    assert!(said.contains("restarted 40 instances of web"), "{said}");
    load.stop();
    let ps = host.ps();
    assert_eq!((ps.number("web", "actual"), ps.number("web", "recycled")), (40, 40), "{ps:#?}");
    assert_eq!(ps.number("web", "restarts"), 0);
}

#[test]
fn a_call_whose_client_has_gone_costs_its_instance_but_is_no_crash() {
    let host = Host::run(&Formation::web(""));
    let mut connection = host.connect();
    connection.send_raw(b"GET /sleep?ms=60000 HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    eventually("it is busy", || (host.ps().in_state("web", "busy") == 1).then_some(()));
    drop(connection);
    eventually("it was ended", || (host.ps().number("web", "recycled") == 1).then_some(()));
    assert_eq!(host.ps().number("web", "restarts"), 0);
    assert_eq!(remembered(&host.get("/instance").ok()), 1);
}

// --- isolation = "call"

#[test]
fn no_call_sees_anything_of_another() {
    for keys in ["count = 3\nisolation = \"call\"", "count = 3\nmax_calls = 1"] {
        let host = Host::run(&Formation::web(keys));
        let load = Load::start(
            host.address(),
            6,
            |number| match number % 3 {
                0 => Request::get("/sleep?ms=1"),
                1 => Request::post("/instance", "body"),
                _ => Request::get("/instance"),
            },
            |number, answer| match answer {
                Ok(answer) if answer.status == 200 => {
                    let text = answer.text();
                    match number.is_multiple_of(3) || remembered(&text) == 1 {
                        true => Ok(true),
                        false => Err(format!("it remembers: {text}")),
                    }
                }
                other => Err(format!("{other:?}")),
            },
        );
        load.wait_for(1000);
        load.stop();
        let ps = eventually("three are ready", || {
            Some(host.ps()).filter(|ps| ps.number("web", "actual") == 3 && ps.in_state("web", "idle") == 3)
        });
        assert_eq!((ps.number("web", "restarts"), ps.instances("web").len()), (0, 3), "{ps:#?}");
        let calls: u64 = ps.instances("web").iter().map(|view| view["calls"].as_u64().unwrap()).sum();
        assert!(calls >= 1000, "{ps:#?}");
    }
}

#[test]
fn the_count_bounds_how_many_isolated_calls_run_at_once() {
    let host = Host::run(&Formation::web("count = 2\nisolation = \"call\"\nbacklog = 1"));
    let mut slow: Vec<_> = (0..2).map(|_| host.connect()).collect();
    for client in &mut slow {
        client.send_raw(b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    }
    std::thread::scope(|scope| {
        eventually("two run", || (host.ps().in_state("web", "busy") == 2).then_some(()));
        let third = scope.spawn(|| host.get("/instance").ok());
        eventually("the third waits", || (host.ps().number("web", "waiting") == 1).then_some(()));
        host.get("/ok").is_error(503, "H11");
        for client in &mut slow {
            client.send_raw(b"1\r\nx\r\n0\r\n\r\n").unwrap();
            assert_eq!(client.read_answer(false).unwrap().ok(), "x");
        }
        assert_eq!(remembered(&third.join().unwrap()), 1);
    });
}

#[test]
fn isolated_calls_crash_for_themselves() {
    let host = Host::run(&Formation::web("isolation = \"call\"\ntimeout = \"3s\"\nmemory = \"32MiB\""));
    for (target, status, code) in [("/trap", 502, "H13"), ("/alloc", 502, "H13"), ("/loop", 504, "H12")] {
        host.get(target).is_error(status, code);
        assert_eq!(remembered(&host.get("/instance").ok()), 1);
    }
    eventually("they were replaced", || (host.ps().number("web", "restarts") == 3).then_some(()));
}

#[test]
fn isolated_types_are_scaled_restarted_and_drained_like_others() {
    let host = Host::run(&Formation::web("count = 2\nisolation = \"call\""));
    let load = Load::get(host.address(), 3, "/ok");
    for _ in 0..10 {
        load.wait_for(20);
        host.cli(["scale", "web=6"]).done();
        assert_eq!(host.ps().number("web", "actual"), 6);
        host.cli(["restart", "web"]).done();
        host.cli(["scale", "web=1"]).done();
        assert_eq!(host.ps().number("web", "actual"), 1);
    }
    load.stop();
    assert_eq!(host.ps().number("web", "restarts"), 0);
    host.stop().done();
}

// --- cpu

#[test]
fn a_call_may_compute_for_as_long_as_its_budget_says() {
    let host = Host::run(&Formation::web("cpu = \"100ms\""));
    host.get("/loop").is_error(504, "H12");
    let line = host.stderr().wait_for("/loop");
    assert!(line.contains("used more CPU than its budget (computed "), "{line}");
    assert!(line.contains(" s of 0.1 s)"), "{line}");
    eventually("its instance was replaced", || (host.ps().number("web", "restarts") == 1).then_some(()));
    // To wait costs nothing, and each call has a budget of its own.
    assert_eq!(host.get("/sleep?ms=500").ok(), "slept\n");
    for _ in 0..4 {
        assert_eq!(host.get("/spin?ms=40").ok(), "spun\n");
    }
    assert_eq!(host.ps().number("web", "restarts"), 1);
}

#[test]
fn a_job_past_its_cpu_budget_is_tried_again() {
    let formation = Formation::new().process("worker", "job-test", "queue = \"default\"\ncpu = \"50ms\"");
    let host = Host::run(&formation);
    let id = host.enqueue("default", "loop");
    let job = host.store().wait_for(id, "retrying");
    assert_eq!((job.attempt, job.crashes), (1, 0), "{job:?}");
    assert!(job.last_error.as_ref().unwrap().contains("more CPU than its budget"), "{job:?}");
}

// --- overload

#[test]
fn a_flood_of_refusals_is_counted_in_the_log() {
    let host = Host::run(&Formation::web("backlog = 0"));
    let held = host.hold();
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                let mut client = Client::new(host.address());
                for _ in 0..12 {
                    client.send(&Request::get("/ok")).unwrap().is_error(503, "H11");
                }
            });
        }
        let line = host.stderr().wait_for("more requests within a second ended so");
        assert!(line.contains("H11"), "{line}");
    });
    held.end();
    assert!(host.stderr().count("H11") < 120, "{}", host.stderr().text());
}
