//! Several hosts that share one formation by one PostgreSQL. Each has a folder and a state directory of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::postgres::Server;
use crate::harness::{Formation, Host, eventually};

/// The formation of one more host: its web has six instances, and its component is version 1.
fn formation(server: &Server, more: &str) -> Formation {
    let url = server.url("hosts");
    Formation::new()
        .versioned("web", "web-test", "1", "count = 6")
        .table(&format!("[store]\nurl = {url:?}"))
        .table(more)
}

/// So many hosts that have all heard of each other.
#[track_caller]
fn run(formations: &[Formation]) -> Vec<Host> {
    let hosts: Vec<Host> = formations.iter().map(Host::run).collect();
    for host in &hosts {
        wait(host, "every host knows all others", |ps| {
            joined(ps) == hosts.len() && settled(ps) && holders(ps, "web").len() == hosts.len()
        });
    }
    hosts
}

#[track_caller]
pub(crate) fn wait(host: &Host, what: &str, holds: impl Fn(&Value) -> bool) {
    eventually(what, || holds(&host.ps().0).then_some(()));
}

pub(crate) fn joined(ps: &Value) -> usize {
    let hosts = ps["hosts"].as_array().unwrap();
    hosts.iter().filter(|host| host["state"] == "joined").count()
}

fn type_of<'a>(ps: &'a Value, process: &str) -> &'a Value {
    ps["types"].as_array().unwrap().iter().find(|view| view["process"] == process).unwrap()
}

/// Whether the instances of all hosts come to the counts.
pub(crate) fn settled(ps: &Value) -> bool {
    ps["types"].as_array().unwrap().iter().all(|view| {
        view["actual"] == view["count"] && view["desired"] == view["count"] && view["draining"] == 0
    })
}

/// The indexes that each host has of a type.
pub(crate) fn holders(ps: &Value, process: &str) -> BTreeMap<String, BTreeSet<u64>> {
    let mut holders = BTreeMap::<String, BTreeSet<u64>>::new();
    let instances = type_of(ps, process)["instances"].as_array().unwrap();
    for instance in instances.iter().filter(|instance| instance["state"] != "draining") {
        let host = instance["host"].as_str().unwrap_or_default().to_owned();
        holders.entry(host).or_default().insert(instance["index"].as_u64().unwrap());
    }
    holders
}

/// Waits until every slot has one host, and hosts have as many as each other, but for one.
#[track_caller]
fn is_split_evenly(host: &Host, process: &str, count: u64, hosts: usize) {
    wait(host, "the count is split", |ps| {
        let holders = holders(ps, process);
        let all: Vec<u64> = holders.values().flatten().copied().collect();
        let loads: BTreeSet<usize> = holders.values().map(BTreeSet::len).collect();
        settled(ps)
            && all.len() as u64 == count
            && all.into_iter().collect::<BTreeSet<u64>>() == (1..=count).collect()
            && holders.len() == hosts
            && loads.last().unwrap() - loads.first().unwrap() <= 1
    });
}

#[test]
fn hosts_split_the_counts_and_whichever_is_asked_scales_all_of_them() {
    let Some(server) = Server::start() else { return };
    let formations = [(); 3].map(|()| formation(&server, ""));
    let hosts = run(&formations);
    hosts.iter().for_each(|host| is_split_evenly(host, "web", 6, 3));
    assert_eq!(hosts[1].cli(["scale", "web=10"]).done(), "web=10\n");
    assert_eq!(hosts[2].cli(["scale", "web+5"]).done(), "web=15\n");
    hosts.iter().for_each(|host| is_split_evenly(host, "web", 15, 3));
    assert_eq!(hosts[0].cli(["scale", "web=2"]).done(), "web=2\n");
    let ps = hosts[0].cli(["ps"]).done();
    assert!(ps.contains("HOST") && ps.contains("joined") && ps.contains("here"), "{ps}");
    // The one without a slot has no instance, and says so to requests.
    let idle = hosts.iter().find(|host| {
        host.try_send(&crate::harness::http::Request::get("/")).is_ok_and(|answer| answer.status == 503)
    });
    assert!(idle.is_some(), "two instances on three hosts");
    assert_eq!(hosts[2].cli(["scale", "--reset"]).done(), "web=6\n");
    hosts.iter().for_each(|host| is_split_evenly(host, "web", 6, 3));
    hosts.into_iter().for_each(|host| drop(host.stop().done()));
}

#[test]
fn slots_move_at_once_from_a_host_that_stops_and_soon_from_one_that_is_killed() {
    let Some(server) = Server::start() else { return };
    let formations = [(); 3].map(|()| formation(&server, ""));
    let mut hosts = run(&formations);
    hosts.remove(2).stop().done();
    wait(&hosts[0], "its slots have moved", |ps| settled(ps) && holders(ps, "web").len() == 2);
    is_split_evenly(&hosts[1], "web", 6, 2);
    hosts.remove(1).kill();
    wait(&hosts[0], "its slots have moved", |ps| settled(ps) && holders(ps, "web").len() == 1);
    is_split_evenly(&hosts[0], "web", 6, 1);
    // Its next boot has its share again.
    let again = Host::run(&formations[1]);
    wait(&again, "both have their share", |ps| settled(ps) && holders(ps, "web").len() == 2);
    is_split_evenly(&hosts[0], "web", 6, 2);
    again.stop().done();
}

#[test]
fn jobs_are_done_once_and_ticks_come_once_while_a_host_is_killed() {
    let Some(server) = Server::start() else { return };
    let guest = |name: &str| crate::harness::guest_file(name);
    let (job, tick) = (guest("job-test"), guest("tick-test"));
    let more = format!(
        "[process.worker]\ncomponent = {job:?}\nqueue = \"mail\"\ncount = 6\n\n[process.clock]\ncomponent = {tick:?}\nschedule = \"* * * * * *\""
    );
    let formations = [(); 3].map(|()| formation(&server, &more));
    let mut hosts = run(&formations);
    let ids: BTreeSet<i64> = (0..60).map(|n| hosts[n % 3].enqueue("mail", "ok")).collect();
    assert_eq!(ids.len(), 60);
    let ps = hosts[0].ps().0;
    let clock = type_of(&ps, "clock")["instances"][0]["host"].clone();
    let names = ps["hosts"].as_array().unwrap().iter();
    let pid = names.clone().find(|host| host["name"] == clock).unwrap()["pid"].as_u64().unwrap();
    let killed = hosts.iter().position(|host| u64::from(host.pid()) == pid).unwrap();
    hosts.remove(killed).kill();
    let before: u64 = server.sql("SELECT count(*) FROM hosts.ticks").parse().unwrap();
    eventually("all jobs are done", || {
        (server.sql("SELECT count(*) FROM hosts.jobs WHERE state = 'done'") == "60").then_some(())
    });
    // Another host has the clock's slot, and goes on where the killed one ended.
    eventually("ticks go on", || {
        let ticks: u64 = server.sql("SELECT count(*) FROM hosts.ticks").parse().unwrap();
        (ticks > before + 20).then_some(())
    });
    let gaps = "SELECT (max(nominal) - min(nominal)) / 1000 + 1 - count(*) FROM hosts.ticks";
    assert_eq!(server.sql(gaps), "0", "each second has one tick");
    hosts.into_iter().for_each(|host| drop(host.stop().done()));
}

#[test]
fn a_deploy_is_on_all_hosts_or_on_none_and_one_that_comes_later_runs_it() {
    let Some(server) = Server::start() else { return };
    let formations = [(); 3].map(|()| formation(&server, ""));
    let hosts = run(&formations[..2]);
    formations[0].build("web", "web-test", "2");
    assert!(hosts[0].cli(["deploy"]).done().contains("v2 is live"));
    hosts.iter().for_each(|host| {
        eventually("it has moved", || (host.version() == "2").then_some(()));
    });
    // The file of the third is still the first one.
    let third = Host::run(&formations[2]);
    wait(&third, "it has its share", |ps| joined(ps) == 3 && settled(ps) && holders(ps, "web").len() == 3);
    assert_eq!(third.version(), "2");
    assert!(third.stderr().text().contains("the other hosts run v2"), "{}", third.stderr().text());
    assert!(third.cli(["rollback"]).done().contains("v3 is live"));
    for host in hosts.iter().chain([&third]) {
        eventually("it has moved back", || (host.version() == "1").then_some(()));
    }
    // A component that no host can start changes nothing on any.
    std::fs::copy(crate::harness::guest_file("trap-start"), formations[1].path("web.wasm")).unwrap();
    let failed = hosts[1].cli(["deploy"]);
    assert_eq!(failed.code, 1, "{failed:?}");
    for host in hosts.iter().chain([&third]) {
        assert_eq!(host.version(), "1");
    }
}

/// Whether a host has said something so often.
fn said(host: &Host, what: &str, times: usize) -> bool {
    host.stderr().all().iter().filter(|line| line.contains(what)).count() >= times
}

#[test]
fn a_store_that_is_away_moves_nothing_and_requests_are_answered_all_the_while() {
    let Some(mut server) = Server::start() else { return };
    let formations = [(); 2].map(|()| formation(&server, ""));
    let hosts = run(&formations);
    let before = holders(&hosts[0].ps().0, "web");
    server.stop();
    let begun = Instant::now();
    // It is said at once, and again each ten seconds: so long that each host would be silent to the other.
    let trouble = "the store doesn't say how other hosts stand";
    for host in &hosts {
        eventually("the store is away for long", || {
            assert_eq!(host.get("/version").ok().trim_end(), "1");
            said(host, trouble, 2).then_some(())
        });
    }
    let away = begun.elapsed().as_secs_f64();
    server.go();
    wait(&hosts[0], "all is heard of again", |ps| joined(ps) == 2 && settled(ps));
    let ps = hosts[0].ps().0;
    assert_eq!(holders(&ps, "web"), before);
    for instance in type_of(&ps, "web")["instances"].as_array().unwrap() {
        assert!(instance["uptime_s"].as_f64().unwrap() > away, "{ps:#}");
    }
    assert!(hosts.iter().all(|host| !said(host, "is silent", 1)));
    hosts.into_iter().for_each(|host| drop(host.stop().done()));
}

#[test]
fn a_deploy_goes_on_without_a_host_that_is_killed_while_it_prepares() {
    let Some(server) = Server::start() else { return };
    let formations = [(); 3].map(|()| formation(&server, ""));
    let mut hosts = run(&formations);
    // A host that is stopped in its tracks prepares nothing, and is waited for until it is silent.
    let frozen = hosts.remove(2);
    frozen.signal(Signal::STOP);
    formations[0].build("web", "web-test", "2");
    assert!(hosts[0].cli(["deploy"]).done().contains("v2 is live"));
    for host in &hosts {
        eventually("it has moved", || (host.version() == "2").then_some(()));
    }
    frozen.signal(Signal::CONT);
    eventually("it follows as it wakes", || (frozen.version() == "2").then_some(()));
    wait(&hosts[0], "all have their share", |ps| joined(ps) == 3 && settled(ps));
    frozen.stop().done();
}

#[test]
fn a_copy_of_a_state_directory_is_another_host() {
    let Some(server) = Server::start() else { return };
    let formations = [(); 2].map(|()| formation(&server, ""));
    let first = Host::run(&formations[0]);
    let id = |formation: &Formation| std::fs::read_to_string(formation.path(".wasmhost/host_id")).unwrap();
    std::fs::create_dir(formations[1].path(".wasmhost")).unwrap();
    set_private(&formations[1].path(".wasmhost"));
    std::fs::copy(formations[0].path(".wasmhost/host_id"), formations[1].path(".wasmhost/host_id")).unwrap();
    let second = Host::run(&formations[1]);
    assert_ne!(id(&formations[0]), id(&formations[1]));
    wait(&first, "both have their share", |ps| settled(ps) && holders(ps, "web").len() == 2);
    second.stop().done();
}

fn set_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
}
