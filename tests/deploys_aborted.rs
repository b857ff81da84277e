//! `wasmhost abort` while a deploy is under way.

use crate::harness::http::Connection;
use crate::harness::{Formation, Host, eventually, versioned_web};

/// A host of version `one`, and the formation of a deploy that waits for its release step until it is ended.
fn with_a_step_that_hangs() -> (Host, Formation) {
    let step = "args = [\"echo\", \"prepared\"]\nrun = \"release\"";
    let formation = versioned_web("one", "").process("prepare", "cmd-test", step);
    let host = Host::run(&formation);
    let formation = formation.replace("[\"echo\", \"prepared\"]", "[\"loop\"]");
    (host, formation)
}

#[test]
fn a_deploy_that_hangs_in_its_step_is_ended() {
    let (host, formation) = with_a_step_that_hangs();
    formation.build("web", "web-test", "two");
    let deploy = host.cli_beside(["deploy"]);
    deploy.stderr.wait_for("running the release step \"prepare\"");
    let aborted = host.cli(["abort"]).done();
    assert_eq!(aborted, "v2 is aborted, and v1 has all requests and jobs again\n");
    deploy.wait().failed(1, "v2 failed: aborted\nv1 is live, as before");
    assert_eq!((host.live(), host.version().as_str()), (1, "one"));
    assert!(host.cli(["releases"]).done().contains("aborted"));
    // There is nothing left to abort, and room for the next one.
    host.cli(["abort"]).failed(1, "no deploy is under way, and no release is on canary");
    let _formation = formation.replace("[\"loop\"]", "[\"echo\", \"again\"]");
    host.cli(["deploy"]).done();
    assert_eq!((host.live(), host.version().as_str()), (3, "two"));
    host.stop().never_panicked().done();
}

#[test]
fn instances_that_have_moved_come_back() {
    let formation = versioned_web("one", "count = 4\ntimeout = \"2m\"");
    let host = Host::run(&formation);
    let slow = two_slow_calls(&host);
    formation.build("web", "web-test", "two");
    let deploy = host.cli_beside(["deploy"]);
    // How many of them is told now and then, and one may be told after three.
    deploy.stderr.wait_until("some have moved", |lines| {
        lines.iter().any(|line| line.contains("of 4") && !line.contains("moving instances: 0")).then_some(())
    });
    host.cli(["abort"]).done();
    deploy.wait().failed(1, "v2 failed: aborted");
    for _ in 0..8 {
        assert_eq!(host.version(), "one");
    }
    assert_eq!(host.live(), 1);
    drop(slow);
}

#[test]
fn a_promotion_that_is_ended_ends_the_canary() {
    let formation = versioned_web("one", "count = 4\ntimeout = \"2m\"");
    let host = Host::run(&formation);
    let slow = two_slow_calls(&host);
    formation.build("web", "web-test", "two");
    host.cli(["deploy", "--canary", "50%"]).done();
    let promotion = host.cli_beside(["promote"]);
    promotion.stderr.wait_for("moving instances");
    let aborted = host.cli(["abort"]).done();
    assert_eq!(aborted, "v2 is aborted, and v1 has all requests and jobs again\n");
    promotion.wait().failed(1, "aborted");
    assert_eq!((host.live(), host.version().as_str()), (1, "one"));
    host.cli(["promote"]).failed(1, "no release is on canary");
    drop(slow);
}

/// Calls that hold a move up, as long as their clients stay.
fn two_slow_calls(host: &Host) -> Vec<Connection> {
    let mut slow: Vec<_> = (0..2).map(|_| host.connect()).collect();
    for connection in &mut slow {
        connection.send_raw(b"GET /sleep?ms=60000 HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    }
    eventually("two are busy", || (host.ps().in_state("web", "busy") == 2).then_some(()));
    slow
}
