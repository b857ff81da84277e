//! Types that compete for computing time get it in proportion to their weights.

use std::fs;
use std::num::NonZero;
use std::thread::available_parallelism;

use crate::harness::http::Connection;
use crate::harness::{Formation, Host, eventually, versioned_web};

/// Loops of each type: several times as many as there are threads that compute.
fn loops() -> usize {
    8.max(4 * available_parallelism().map_or(1, NonZero::get))
}

/// The lighter type is waited for until it has computed for so long: some hundreds of turns.
const COMPUTED_S: f64 = 0.6;

fn formation(one: u32, other: u32) -> Formation {
    let count = loops();
    let keys = |name: &str, weight| {
        format!("route = \"{name}.example\"\ncount = {count}\ntimeout = \"1h\"\nweight = {weight}")
    };
    Formation::new().top("grace = \"0s\"").process("one", "web-test", &keys("one", one)).process(
        "other",
        "web-test",
        &keys("other", other),
    )
}

fn begin_loops(host: &Host, process: &str) -> Vec<Connection> {
    let begin = || {
        let mut connection = host.connect();
        let request = format!("GET /loop HTTP/1.1\r\nhost: {process}.example\r\n\r\n");
        connection.send_raw(request.as_bytes()).unwrap();
        connection
    };
    let begun = (0..loops()).map(|_| begin()).collect();
    eventually("all of them loop", || (host.ps().in_state(process, "busy") == loops()).then_some(()));
    begun
}

/// How many times as long as `light` does `heavy` compute.
fn ratio(host: &Host, heavy: &str, light: &str) -> f64 {
    let before = host.ps();
    eventually("both have computed", || {
        let now = host.ps();
        let spent = |process| now.cpu_s(process) - before.cpu_s(process);
        (spent(light) >= COMPUTED_S).then(|| spent(heavy) / spent(light))
    })
}

#[test]
fn types_that_compute_have_time_by_their_weights_and_a_deploy_changes_them_while_instances_stay() {
    let of_before = formation(4, 1);
    let host = Host::run(&of_before);
    let ps = host.ps();
    assert_eq!((ps.number("one", "weight"), ps.number("other", "weight")), (4, 1));
    let _loops = (begin_loops(&host, "one"), begin_loops(&host, "other"));
    let found = ratio(&host, "one", "other");
    assert!((3.0..5.5).contains(&found), "{found} to 1");

    fs::write(of_before.file(), formation(1, 4).text()).unwrap();
    let said = host.cli(["deploy"]).done();
    assert!(said.contains("weight 4 -> 1") && said.contains("weight 1 -> 4"), "{said}");
    let ps = host.ps();
    assert_eq!((ps.number("one", "weight"), ps.number("other", "weight")), (1, 4));
    for process in ["one", "other"] {
        assert_eq!(ps.in_state(process, "busy"), loops(), "{process} loops on: {ps:?}");
    }
    let found = ratio(&host, "other", "one");
    assert!((3.0..5.5).contains(&found), "{found} to 1 after the deploy");
}

#[test]
fn a_canary_has_the_weight_of_its_type_until_it_is_promoted() {
    let formation = versioned_web("one", "count = 2\nweight = 3");
    let host = Host::run(&formation);
    formation.build("web", "web-test", "two");
    let _formation = formation.replace("weight = 3", "weight = 9");
    host.cli(["deploy", "--canary", "50%"]).done();
    let ps = host.ps();
    assert_eq!((&ps.process("web")["weight"], &ps.canary("web")["weight"]), (&3.into(), &3.into()));
    host.cli(["promote"]).done();
    assert_eq!(host.ps().number("web", "weight"), 9);
}
