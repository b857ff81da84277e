//! How a host and a service manager speak with each other.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Formation, Host, ServiceManager, eventually, versioned_web};

/// A formation whose host tells this manager how it stands.
fn managed(formation: Formation, manager: &ServiceManager) -> Formation {
    formation.variable("NOTIFY_SOCKET", manager.place())
}

fn formation() -> Formation {
    Formation::web("count = 2").process("worker", "job-test", "queue = \"default\"\ncount = 1")
}

#[test]
fn a_manager_is_told_when_the_host_is_up_how_it_stands_and_when_it_stops() {
    let folder = tempfile::tempdir().unwrap();
    for manager in [ServiceManager::in_folder(folder.path()), ServiceManager::abstractly()] {
        let host = Host::spawn(&managed(formation(), &manager));
        manager.wait_for("READY=1");
        host.stderr().wait_for("all instances are up");
        manager.wait_for("STATUS=web=2/2 worker=1/1");
        host.stop().done();
        manager.wait_for("STOPPING=1");
        let all = manager.all();
        assert!(all[0].starts_with("STATUS=starting: "), "{all:?}");
        let at = |message: &str| all.iter().position(|found| found == message).unwrap();
        assert!(at("READY=1") < at("STOPPING=1"), "{all:?}");
        assert_eq!(all.iter().filter(|message| *message == "READY=1").count(), 1, "{all:?}");
        assert!(!all.iter().any(|message| message == "WATCHDOG=1"), "nobody wants it: {all:?}");
    }
}

#[test]
fn a_host_is_not_ready_while_a_type_lacks_an_instance() {
    let formation = Formation::web("").process("late", "trap-start", "route = \"/late\"");
    let manager = ServiceManager::in_folder(formation.folder());
    let host = Host::launch(&managed(formation, &manager));
    manager.wait_for("STATUS=web=1/1 late=0/1");
    assert!(!manager.all().contains(&"READY=1".to_owned()), "{:?}", manager.all());
    host.cli(["scale", "late=0"]).done();
    manager.wait_for("READY=1");
    manager.wait_for("STATUS=web=1/1 late=0/0");
}

#[test]
fn the_status_follows_the_counts_at_most_once_a_second() {
    let formation = formation();
    let manager = ServiceManager::in_folder(formation.folder());
    let host = Host::run(&managed(formation, &manager));
    manager.wait_for("STATUS=web=2/2 worker=1/1");
    let (before, begun) = (manager.times_of("STATUS=web=").len(), Instant::now());
    for count in 3..=10 {
        host.cli(["scale", &format!("web={count}")]).done();
    }
    host.cli(["scale", "web=1"]).done();
    manager.wait_for("STATUS=web=1/1 worker=1/1");
    // Each of nine changes would be worth two: what is wanted, and what has come. A busy machine hears some late.
    let told = manager.times_of("STATUS=web=").len() - before;
    assert!(told as u64 <= begun.elapsed().as_secs() + 2, "{:?}", manager.all());
    host.signal(Signal::USR1);
    manager.wait_for("STATUS=web=1/1 worker=1/1; jobs and ticks are paused");
    host.signal(Signal::USR2);
    manager.wait_until("it goes on", |messages| {
        let last = messages.iter().rfind(|message| message.starts_with("STATUS="));
        (last == Some(&"STATUS=web=1/1 worker=1/1")).then_some(())
    });
}

#[test]
fn a_drain_that_takes_long_asks_for_more_time_and_says_what_it_waits_for() {
    let formation = formation();
    let manager = ServiceManager::in_folder(formation.folder());
    let host = Host::run(&managed(formation, &manager));
    manager.wait_for("READY=1");
    assert!(manager.times_of("EXTEND_TIMEOUT_USEC=").is_empty(), "{:?}", manager.all());
    let held = host.hold();
    host.terminate();
    manager.wait_for("STOPPING=1");
    manager.wait_for("STATUS=draining: 1 call is under way (web 1)");
    let usec: u64 = manager.wait_until("more time, twice", |messages| {
        let mut asked = messages.iter().filter_map(|message| message.strip_prefix("EXTEND_TIMEOUT_USEC="));
        asked.nth(1)?.parse().ok()
    });
    let times = manager.times_of("EXTEND_TIMEOUT_USEC=");
    assert!(times[1] - times[0] < Duration::from_micros(usec), "{:?}", manager.all());
    held.end();
    host.wait().done();
}

#[test]
fn a_reload_that_is_refused_ends_no_other_one() {
    let keys = "ready = \"/read?path=/out/ready\"\n\
                dirs = [{ host = \"out\", guest = \"/out\", access = \"read\" }]";
    let formation = versioned_web("one", keys).directory("out");
    let manager = ServiceManager::in_folder(formation.folder());
    let formation = managed(formation, &manager);
    let host = Host::run(&formation);
    manager.wait_for("READY=1");
    formation.build("web", "web-test", "two");
    host.signal(Signal::HUP);
    manager.wait_until("a reload", |messages| {
        messages.iter().any(|message| message.starts_with("RELOADING=1\nMONOTONIC_USEC=")).then_some(())
    });
    eventually("it is under way", || (host.releases().len() == 2).then_some(()));
    host.signal(Signal::HUP);
    host.stderr().wait_for("the formation is not deployed: another deploy is under way");
    manager.wait_until("a second reload", |messages| {
        let reloads = messages.iter().filter(|message| message.starts_with("RELOADING=1\n"));
        (reloads.count() == 2).then_some(())
    });
    fs::write(formation.path("out/ready"), "yes").unwrap();
    eventually("it is live", || (host.live() == 2).then_some(()));
    // One that is refused while no other reload runs has an end of its own.
    fs::remove_file(formation.path("out/ready")).unwrap();
    formation.build("web", "web-test", "three");
    let deploy = host.cli_beside(["deploy"]);
    deploy.stderr.wait_for("starting a first instance of web");
    host.signal(Signal::HUP);
    manager.wait_until("the end of the third reload", |messages| {
        (messages.iter().filter(|message| **message == "READY=1").count() == 3).then_some(())
    });
    fs::write(formation.path("out/ready"), "yes").unwrap();
    deploy.wait().done();
    host.stop().done();
    let all = manager.all();
    let told = all.iter().filter_map(|message| message.split('=').next());
    let told: Vec<_> = told.filter(|what| ["READY", "RELOADING", "STOPPING"].contains(what)).collect();
    let expected = ["READY", "RELOADING", "RELOADING", "READY", "RELOADING", "READY", "STOPPING"];
    assert_eq!(told, expected, "{all:#?}");
}

// --- the watchdog

#[test]
fn the_watchdog_is_fed_twice_in_its_time() {
    let formation = formation();
    let manager = ServiceManager::in_folder(formation.folder());
    let host = Host::run(&managed(formation, &manager).variable("WATCHDOG_USEC", "6000000"));
    manager.wait_until("three", |messages| {
        (messages.iter().filter(|message| **message == "WATCHDOG=1").count() >= 3).then_some(())
    });
    let fed = manager.times_of("WATCHDOG=1");
    let longest = fed.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(longest < Duration::from_secs(6), "{longest:?}");
    assert!(fed[2] - fed[0] > Duration::from_secs(3), "and not more often: {:?}", fed[2] - fed[0]);
    host.stop().done();
}

#[test]
fn a_watchdog_of_another_process_is_not_fed() {
    let formation = formation();
    let manager = ServiceManager::in_folder(formation.folder());
    let formation = managed(formation, &manager)
        .variable("WATCHDOG_USEC", "100000")
        .variable("WATCHDOG_PID", std::process::id().to_string());
    let host = Host::run(&formation);
    manager.wait_for("STATUS=web=2/2 worker=1/1");
    host.stop().done();
    assert!(manager.times_of("WATCHDOG=1").is_empty(), "{:?}", manager.all());
}

#[test]
fn a_supervisor_that_hangs_feeds_no_watchdog_though_all_else_works() {
    let formation = formation();
    let manager = ServiceManager::in_folder(formation.folder());
    let fault = format!("the supervisor:{}", formation.path("now").display());
    let formation = managed(formation, &manager)
        .variable("WATCHDOG_USEC", "2000000")
        .variable("WASMHOST_FAULT_HANG", fault);
    let host = Host::run(&formation);
    manager.wait_for("WATCHDOG=1");
    fs::write(formation.path("now"), "").unwrap();
    host.stderr().wait_for("the supervisor hangs");
    // One that was on its way may still come.
    let before = manager.times_of("WATCHDOG=1").len();
    sleep(Duration::from_secs(4));
    assert_eq!(host.get("/ok").ok(), "ok\n", "requests are answered");
    let after = manager.times_of("WATCHDOG=1").len();
    assert!(after <= before + 1, "{before} before, {after} after");
    host.kill();
}

#[test]
fn a_manager_that_takes_nothing_holds_nothing_up() {
    let formation = formation();
    let place = formation.path("notify.sock");
    // Nobody reads from it, and it has room for some hundred messages.
    let _socket = UnixDatagram::bind(&place).unwrap();
    let formation = formation.variable("NOTIFY_SOCKET", place).variable("WATCHDOG_USEC", "2000");
    let host = Host::run(&formation);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        assert_eq!(host.get("/ok").ok(), "ok\n");
    }
    host.cli(["scale", "web=3"]).done();
    host.stop().done();
}

#[test]
fn a_socket_that_is_not_there_is_a_warning() {
    for place in ["/nowhere/notify", "relative", "@wasmhost-nobody-listens-here", "vsock:2:99"] {
        let host = Host::run(&formation().variable("NOTIFY_SOCKET", place));
        let line = host.stderr().wait_for("the service manager is not told how the host stands");
        assert!(line.contains(place) && line.contains("NOTIFY_SOCKET"), "{line}");
        host.stop().done();
    }
}

#[test]
fn what_a_manager_tells_the_host_is_given_to_no_guest() {
    let formation = Formation::web("env = { PLACE = { from_env = \"NOTIFY_SOCKET\" } }");
    let manager = ServiceManager::in_folder(formation.folder());
    managed(formation, &manager).run_to_end().failed(2, "NOTIFY_SOCKET");
}
