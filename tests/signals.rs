//! The orders of signals to a host, besides its end.

use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{Formation, Host, Process, eventually, guest_file};

fn worker(keys: &str) -> Formation {
    Formation::web("count = 2")
        .process("worker", "job-test", &format!("queue = \"default\"\n{keys}"))
        .directory("out")
        .process(
            "clock",
            "tick-test",
            "schedule = \"* * * * * *\"\ndirs = [{ host = \"out\", guest = \"/out\", access = \"write\" }]",
        )
}

#[test]
fn jobs_and_ticks_are_paused_and_taken_again() {
    let host = Host::run(&worker(""));
    let running = host.enqueue("default", "print:begun\nsleep:1000\nprint:finished");
    host.stdout().wait_for("begun");
    host.signal(Signal::USR1);
    host.stderr().wait_for("jobs and ticks are paused");
    assert_eq!(host.ps().0["paused"], true);
    let ps = host.cli(["ps"]).done();
    assert!(ps.contains("jobs and ticks are paused; SIGUSR2 takes them again"), "{ps}");
    // The one that ran goes on to its end, and nothing else begins.
    let store = host.store();
    store.wait_for(running, "done");
    let waits = host.enqueue("default", "");
    eventually("the tick that ran has ended", || {
        store.ticks("clock").iter().all(|tick| tick.ended).then_some(())
    });
    let ticks = store.ticks("clock").len();
    std::thread::sleep(Duration::from_millis(2_500));
    assert_eq!((store.job(waits).state.as_str(), store.ticks("clock").len()), ("available", ticks));
    assert_eq!(host.get("/ok").ok(), "ok\n", "requests are served");
    host.cli(["tick", "clock"]).done();

    host.signal(Signal::USR2);
    host.stderr().wait_for("jobs and ticks are taken again");
    store.wait_for(waits, "done");
    eventually("the next tick", || (store.ticks("clock").len() > ticks + 1).then_some(()));
    assert_eq!(host.ps().0["paused"], false);
    assert!(!host.cli(["ps"]).done().contains("paused"));
    host.stop().done();
}

#[test]
fn a_pause_survives_no_restart_and_holds_up_no_drain() {
    let formation = worker("");
    let host = Host::run(&formation);
    host.signal(Signal::USR1);
    host.signal(Signal::USR1);
    host.stderr().wait_for("jobs and ticks are paused");
    let waits = host.enqueue("default", "");
    host.stop().done();
    let host = Host::run(&formation);
    host.store().wait_for(waits, "done");
}

#[test]
fn the_first_http_type_is_scaled_by_one() {
    let formation = Formation::new()
        .process("worker", "job-test", "queue = \"default\"")
        .process("web", "web-test", "count = 2")
        .process("other", "web-test", "route = \"/other\"");
    let host = Host::run(&formation);
    let counts = |web: u64| {
        eventually(&format!("{web} instances"), || {
            let ps = host.ps();
            (ps.number("web", "actual") == web && ps.number("web", "desired") == web).then_some(())
        });
    };
    host.signal(Signal::TTIN);
    host.stderr().wait_for("scaled to web=3");
    counts(3);
    for web in [2, 1] {
        host.signal(Signal::TTOU);
        counts(web);
    }
    // Nobody means to switch the app off by a signal.
    host.signal(Signal::TTOU);
    host.stderr().wait_for("web=1 stays as it is");
    let ps = host.ps();
    assert_eq!((ps.number("worker", "desired"), ps.number("other", "desired")), (1, 1));
    // As counts that are set by `scale` do.
    host.stop().done();
    assert_eq!(Host::run(&formation).ps().number("web", "desired"), 1);
}

#[test]
fn a_signal_that_cannot_be_followed_is_told() {
    let host = Host::run(&Formation::web("count = 2").top("max_instances = 2"));
    host.signal(Signal::TTIN);
    let line = host.stderr().wait_for("web is not scaled: ");
    assert!(line.contains("this host has room for 2"), "{line}");
    host.stop().done();
    let host = Host::run(&Formation::new().process("worker", "job-test", "queue = \"default\""));
    host.signal(Signal::TTOU);
    host.stderr().wait_for("no type of this formation serves requests");
    host.stop().done();
}

#[test]
fn a_signal_that_was_ignored_at_start_stays_ignored() {
    let formation = worker("");
    let arguments = ["run"];
    let process = Process::start_after(formation.folder(), "trap '' USR1 TTIN HUP INT", arguments);
    process.stderr.wait_for("all instances are up");
    for signal in [Signal::USR1, Signal::TTIN, Signal::HUP, Signal::INT, Signal::USR2] {
        process.signal(signal);
    }
    // Signals of different kinds aren't handled in their order: the API answers when they have come.
    let waits = formation.cli(["enqueue", "default", ""]).done();
    let store = crate::harness::Store::open(&formation.path(".wasmhost/store.db"));
    store.wait_for(waits.trim().parse().unwrap(), "done");
    process.signal(Signal::TERM);
    let ended = process.wait();
    assert!(!ended.stderr.contains("paused") && !ended.stderr.contains("scaled to"), "{ended:#?}");
    ended.done();
}

#[test]
fn any_signal_that_comes_while_the_host_starts_is_survived() {
    let formation =
        Formation::web("").process("step", "cmd-test", "run = \"release\"\nargs = [\"sleep\", \"2000\"]");
    let host = Host::spawn(&formation);
    eventually("it has begun", || formation.path(".wasmhost/admin.sock").exists().then_some(()));
    for signal in [Signal::USR1, Signal::USR2, Signal::TTIN, Signal::TTOU] {
        host.signal(signal);
    }
    host.stderr().wait_for("all instances are up");
    host.stop().done();
}

/// Fields of `/proc/PID/status`: the threads of a process, and whether it catches HUP.
#[cfg(target_os = "linux")]
fn standing(process: &Process) -> Option<(u32, bool)> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).ok()?;
    let field = |name: &str| status.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
    let caught = u64::from_str_radix(&field("SigCgt:")?, 16).ok()?;
    Some((field("Threads:")?.parse().ok()?, caught & (1 << (Signal::HUP.as_raw() - 1)) != 0))
}

/// Before it has read its file, or has a thread besides the first.
#[test]
#[cfg(target_os = "linux")]
fn a_signal_that_comes_in_the_first_moment_of_a_host_is_heard_when_it_is_up() {
    // Many types, so that the moment is long enough to be seen.
    let many =
        (0..300).map(|n| format!("[process.t{n}]\ncomponent = {:?}\ncount = 0\n", guest_file("cmd-test")));
    let formation = Formation::web("").table(&many.collect::<String>());
    let is_sent = (0..20).any(|_| {
        let process = formation.start(["run"]);
        let (threads, _) =
            eventually("it catches HUP", || standing(&process).filter(|(_, catches)| *catches));
        process.signal(Signal::HUP);
        process.signal(Signal::USR1);
        process.stderr.wait_for("all instances are up");
        process.stderr.wait_for("the formation hasn't changed: v1 stays live");
        process.stderr.wait_for("jobs and ticks are paused");
        process.signal(Signal::TERM);
        process.wait().done();
        threads == 1
    });
    assert!(is_sent, "it caught no signal before it had threads");
}

#[test]
fn a_verb_that_is_no_host_ends_by_a_hang_up() {
    let formation = Formation::web("");
    let _host = Host::run(&formation);
    let following = formation.start(["logs", "-f", "host"]);
    following.stdout.wait_for("all instances are up");
    following.signal(Signal::HUP);
    assert_eq!(following.wait().code, 128 + Signal::HUP.as_raw());
}
