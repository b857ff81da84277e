//! Guests that misbehave cost their own call and their own instance, and nothing else.

use std::thread;

use crate::harness::http::{Client, Request};
use crate::harness::{Formation, Host, Load, Ps, eventually, setting};

#[test]
fn a_trap_costs_its_request_and_its_instance() {
    let host = Host::run(&Formation::web("count = 3"));
    host.get("/trap").is_error(502, "H13");
    host.get("/exit?code=1").is_error(502, "H13");
    eventually("two were replaced, and all three are idle again", || {
        let ps = host.ps();
        (ps.in_state("web", "idle") == 3 && ps.number("web", "restarts") == 2).then_some(())
    });
    // The successor begins with a memory of its own.
    for _ in 0..3 {
        let before = host.get("/instance").ok();
        assert!(before.lines().nth(2).unwrap().parse::<u64>().unwrap() >= 1, "{before}");
    }
}

#[test]
fn an_endless_loop_ends_at_its_timeout() {
    let host = Host::run(&Formation::web("timeout = \"2s\""));
    host.get("/loop").is_error(504, "H12");
    host.get("/sleep?ms=60000").is_error(504, "H12");
    assert_eq!(host.get("/ok").ok(), "ok\n");
}

#[test]
fn memory_without_end_ends_at_its_limit() {
    let host = Host::run(&Formation::web("memory = \"32MiB\""));
    host.get("/alloc").is_error(502, "H13");
    assert_eq!(host.get("/ok").ok(), "ok\n");
    let line = host.stderr().wait_for("/alloc");
    assert!(line.contains("ran out of the memory granted to it (memory: wanted "), "{line}");
    assert!(line.contains(", the limit is 32 MiB)"), "{line}");
}

/// `CRASHES=1000` makes it longer.
#[test]
fn after_hundreds_of_crashes_the_host_is_as_it_was() {
    let crashes = setting("CRASHES", 300);
    let formation = Formation::new()
        .process("loops", "web-test", "route = \"loops.example\"\ncount = 3\ntimeout = \"100ms\"")
        .process("bad", "web-test", "route = \"bad.example\"\ncount = 3\nmemory = \"32MiB\"")
        .process("good", "web-test", "count = 2");
    let host = Host::run(&formation);
    let others = Load::get(host.address(), 1, "/ok");
    crash(&host, crashes / 2);
    settle(&host);
    let before = host.resident_bytes();
    crash(&host, crashes);
    settle(&host);
    let after = host.resident_bytes();

    assert!(others.stop() > 100, "others were served");
    let restarts = |ps: &Ps| ps.number("bad", "restarts") + ps.number("loops", "restarts");
    let all = (crashes + crashes / 2) as u64;
    let ps = eventually("all crashes are counted", || Some(host.ps()).filter(|ps| restarts(ps) >= all));
    assert_eq!((ps.number("good", "restarts"), ps.number("good", "actual")), (0, 2), "{ps:?}");
    assert_eq!(restarts(&ps), all, "{ps:?}");
    let grown = after.saturating_sub(before);
    assert!(grown < 16 << 20, "{before} bytes before, {after} after {crashes} crashes");
}

/// So many requests, a third of each kind, three at a time.
fn crash(host: &Host, crashes: usize) {
    let kinds = [
        ("/trap", "bad.example", 502, "H13"),
        ("/loop", "loops.example", 504, "H12"),
        ("/alloc", "bad.example", 502, "H13"),
    ];
    std::thread::scope(|scope| {
        for client in 0..3 {
            let kinds = &kinds;
            scope.spawn(move || {
                let mut http = Client::new(host.address());
                for number in (client..crashes).step_by(3) {
                    let (target, host, status, code) = kinds[(number / 3) % 3];
                    let request = Request::get(target).header("host", host);
                    http.send(&request).unwrap().is_error(status, code);
                }
            });
        }
    });
}

fn settle(host: &Host) {
    eventually("exactly the count is idle", || {
        let ps = host.ps();
        let idle = |process| ps.in_state(process, "idle") == 3 && ps.instances(process).len() == 3;
        (idle("bad") && idle("loops")).then_some(())
    });
}

#[test]
fn others_are_served_while_all_instances_of_a_type_loop() {
    let formation = Formation::new()
        .process("bad", "web-test", "route = \"bad.example\"\ncount = 4")
        .process("good", "web-test", "");
    let host = Host::run(&formation);
    let loops: Vec<_> = (0..4)
        .map(|_| {
            let mut connection = host.connect();
            connection.send_raw(b"GET /loop HTTP/1.1\r\nhost: bad.example\r\n\r\n").unwrap();
            connection
        })
        .collect();
    eventually("all four loop", || (host.ps().in_state("bad", "busy") == 4).then_some(()));
    for _ in 0..100 {
        assert_eq!(host.get("/ok").ok(), "ok\n");
    }
    drop(loops);
}

/// One instruction of a guest fills a memory, and nothing can interrupt it.
#[test]
fn others_are_served_while_guests_fill_large_memories() {
    const OTHERS: usize = 100;
    let host = Host::run(
        &Formation::new()
            .process("large", "web-test", "route = \"/fill\"\nmemory = \"600MiB\"\ncount = 2")
            .process("web", "web-test", "queue_timeout = \"1m\""),
    );
    let before = host.cpu_ticks();
    thread::scope(|scope| {
        let fill = || assert_eq!(host.get("/fill?mib=450").ok(), "filled\n");
        let filling = [scope.spawn(fill), scope.spawn(fill)];
        // So many that they cost little beside the fills, which a busy machine may let wait for long.
        for _ in 0..OTHERS {
            if filling.iter().all(|filling| filling.is_finished()) {
                break;
            }
            assert_eq!(host.get("/ok").ok(), "ok\n");
        }
    });
    let after = host.cpu_ticks();
    let spent = |thread: &str| after.get(thread).unwrap_or(&0) - before.get(thread).unwrap_or(&0);
    // How many of the others are served meanwhile is the machine's; to fill a memory must hold up no thread that reads.
    let (reading, computing) = (spent("wasmhost-io"), spent("wasmhost-comput"));
    assert!(4 * computing > reading, "{reading} ticks on I/O threads, {computing} on compute threads");
}

#[test]
fn calls_that_compute_share_a_few_instances() {
    let formation = Formation::web("count = 16\nbacklog = 0");
    let host = on_one_core(|| Host::run(&formation));
    host.compute_until_known();
    let load = Load::get(host.address(), 12, "/spin?ms=1");
    load.wait_for(300);
    let ps = host.ps();
    // Nobody was refused.
    load.stop();
    let called = ps.instances("web").iter().filter(|instance| instance["calls"] != 0).count();
    assert!((1..=8).contains(&called), "{called} of 16 instances were called: {ps:?}");
}

/// By its `memory` the type may run on the threads that read requests, until one instruction has held one for long.
#[cfg(target_os = "linux")]
#[test]
fn a_type_that_has_held_a_thread_computes_where_it_holds_up_nobody() {
    // A fresh memory each time: its pages have to be found, which takes long.
    let host = Host::run(&Formation::web("isolation = \"call\"\ncount = 2"));
    let fill = || assert_eq!(host.get("/fill?mib=100").ok(), "filled\n");
    (0..3).for_each(|_| fill());
    let before = host.cpu_ticks();
    (0..20).for_each(|_| fill());
    let after = host.cpu_ticks();
    let spent = |thread: &str| after.get(thread).unwrap_or(&0) - before.get(thread).unwrap_or(&0);
    let (reading, computing) = (spent("wasmhost-io"), spent("wasmhost-comput"));
    assert!(computing > 2 * reading, "{reading} ticks on I/O threads, {computing} on compute threads");
}

/// On one core one of them computes, and others only begin if it is often interrupted, and has used up its turns.
#[cfg(target_os = "linux")]
#[test]
fn calls_that_wait_or_never_end_keep_none_of_their_type_from_computing() {
    let host = on_one_core(|| Host::run(&Formation::web("count = 12\ntimeout = \"10m\"")));
    host.compute_until_known();
    let held: Vec<_> = ["/sleep?ms=60000", "/loop"]
        .into_iter()
        .flat_map(|target| [target; 5])
        .map(|target| {
            let mut connection = host.connect();
            connection.send_raw(format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).unwrap();
            connection
        })
        .collect();
    eventually("all of them are under way", || (host.ps().in_state("web", "busy") == 10).then_some(()));
    let load = Load::get(host.address(), 4, "/spin?ms=1");
    load.wait_for(20);
    load.stop();
    drop(held);
}

/// On one core, so that there is one compute thread to share.
#[cfg(target_os = "linux")]
#[test]
fn a_type_full_of_loops_computes_no_more_than_another_type() {
    const LOOPS: usize = 60;
    let formation = Formation::new()
        .process("bad", "web-test", &format!("route = \"bad.example\"\ncount = {LOOPS}\ntimeout = \"10m\""))
        .process("good", "web-test", "count = 4");
    let host = on_one_core(|| Host::run(&formation));
    let loops: Vec<_> = (0..LOOPS)
        .map(|_| {
            let mut connection = host.connect();
            connection.send_raw(b"GET /loop HTTP/1.1\r\nhost: bad.example\r\n\r\n").unwrap();
            connection
        })
        .collect();
    eventually("all of them loop", || (host.ps().in_state("bad", "busy") == LOOPS).then_some(()));
    // So long that a client's moment between two of them doesn't count.
    let others = Load::get(host.address(), 4, "/spin?ms=500");
    others.wait_for(4);
    let before = host.ps();
    others.wait_for(12);
    let after = host.ps();
    others.stop();
    let spent = |process| after.cpu_s(process) - before.cpu_s(process);
    // It is half each but for the moments in which no request is there. Turns by call would be 15 to 1.
    let (bad, good) = (spent("bad"), spent("good"));
    assert!(good > 0.0 && bad < 4.0 * good, "the loops have computed for {bad} s, the others for {good} s");
    drop(loops);
}

/// Starts something that stays on one of the cores that this thread may run on.
#[cfg(target_os = "linux")]
fn on_one_core<T>(start: impl FnOnce() -> T) -> T {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let all = sched_getaffinity(None).unwrap();
    let mut one = CpuSet::new();
    one.set((0..CpuSet::MAX_CPU).find(|core| all.is_set(*core)).unwrap());
    sched_setaffinity(None, &one).unwrap();
    let started = start();
    sched_setaffinity(None, &all).unwrap();
    started
}

#[test]
fn a_type_that_traps_at_its_start_backs_off_and_others_serve() {
    let formation = Formation::web("").process(
        "never",
        "trap-start",
        "route = \"never.example\"\ncount = 2\nqueue_timeout = \"10ms\"",
    );
    let host = Host::launch(&formation);
    let request = Request::get("/").header("host", "never.example");
    eventually("it is in backoff", || {
        assert_eq!(host.get("/ok").ok(), "ok\n");
        let answer = host.send(&request);
        // While one is being started there is something to wait for.
        assert!([503, 504].contains(&answer.status), "{answer:?}");
        (answer.status == 503).then(|| answer.is_error(503, "H10"))
    });
    let ps = eventually("ps says why", || Some(host.ps()).filter(|ps| ps.in_state("never", "backoff") == 2));
    let note = ps.instances("never")[0]["note"].as_str().unwrap();
    assert!(note.contains("failed to start") && note.contains("unreachable"), "{note}");
    assert_eq!((ps.number("never", "actual"), ps.number("web", "restarts")), (0, 0));
    assert_eq!(host.stop().never_panicked().code, 0);
}

#[test]
fn a_type_that_loops_at_its_start_backs_off_and_others_serve() {
    let formation = Formation::web("").process(
        "never",
        "spin-start",
        "route = \"never.example\"\nqueue_timeout = \"10ms\"",
    );
    let host = Host::launch(&formation);
    let request = Request::get("/").header("host", "never.example");
    eventually("it is in backoff", || {
        assert_eq!(host.get("/ok").ok(), "ok\n");
        let answer = host.send(&request);
        (answer.status == 503).then(|| answer.is_error(503, "H10"))
    });
    assert_eq!(host.ps().number("never", "actual"), 0);
    host.cli(["scale", "never=0"]).done();
    host.send(&request).is_error(503, "H14");
    assert_eq!(host.stop().never_panicked().code, 0);
}
