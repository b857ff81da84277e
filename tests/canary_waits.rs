//! Requests that wait for an instance of a canary, and its end.

use std::time::{Duration, Instant};

use crate::harness::http::Connection;
use crate::harness::{Asked, Host, Outside, eventually, versioned_web};

#[test]
fn requests_that_wait_for_a_canary_that_ends_are_answered_at_once() {
    let outside = Outside::open();
    let keys = format!("count = 2\nqueue_timeout = \"120s\"\n{}", outside.keys());
    for end in ["abort", "promote"] {
        let formation = versioned_web("round 0", &keys);
        let host = Host::run(&formation);
        // An abort leaves them to the live version. A promotion may leave them to either.
        let mut live = "round 0".to_owned();
        // A busy machine has more than one try at being fast.
        let is_fast = (1..=4).any(|round| {
            let canary = format!("round {round}");
            formation.build("web", "web-test", &canary);
            host.cli(["deploy", "--canary", "99%"]).done();
            let held: Vec<_> = (1..=2).map(|busy| hold_canary(&host, &outside, busy)).collect();
            let waiting: Vec<_> = (1..=4).map(|waiting| wait_for_canary(&host, waiting)).collect();
            let since = Instant::now();
            host.cli_of(vec![end]).done();
            let mut expected = vec![live.clone()];
            if end == "promote" {
                live.clone_from(&canary);
                expected.push(canary);
            }
            for mut client in waiting {
                let version = client.read_answer(false).unwrap().ok().trim_end().to_owned();
                assert!(expected.contains(&version), "{end}: {version}");
            }
            let took = since.elapsed();
            for (mut client, asked) in held {
                assert!(!client.has_answer(Duration::from_millis(1)), "{end}: it is held");
                asked.answer();
                assert_eq!(
                    client.read_answer(false).unwrap().ok(),
                    Outside::PASSED_ON,
                    "{end}: it is finished"
                );
            }
            host.is_alone("web", 2);
            took < Duration::from_secs(4)
        });
        assert!(is_fast, "{end}: requests waited each time");
        host.stop().never_panicked().done();
    }
}

/// The promotion waits for calls of the live version, as long as `grace` allows, and the canary's own calls take as long.
#[test]
fn requests_that_wait_for_a_canary_do_not_wait_for_its_promotion() {
    let outside = Outside::open();
    let keys = format!("count = 5\nqueue_timeout = \"120s\"\n{}", outside.keys());
    let formation = versioned_web("one", &keys).top("grace = \"120s\"");
    let host = Host::run(&formation);
    let of_live = [(); 3].map(|()| hold(&host, &outside));
    formation.build("web", "web-test", "two");
    host.cli(["deploy", "--canary", "50%"]).done();
    let of_canary = [1, 2, 3].map(|busy| hold_canary(&host, &outside, busy));
    // A promotion that has too little time leaves the canary as it was, with a line of its own.
    host.cli(["promote", "--timeout", "1s"]).failed(1, "it stays on canary");
    let waiting = [1, 2].map(|waiting| wait_for_canary(&host, waiting));

    let mut promotion = host.cli_beside(["promote", "--timeout", "170s"]);
    for mut client in waiting {
        let version = client.read_answer(false).unwrap().ok();
        assert!(["one", "two"].contains(&version.trim_end()), "{version}");
    }
    assert!(!promotion.has_ended(), "it waits for calls of the live version");
    for (mut client, asked) in of_live.into_iter().chain(of_canary) {
        assert!(!client.has_answer(Duration::from_millis(1)), "it is held");
        asked.answer();
        assert_eq!(client.read_answer(false).unwrap().ok(), Outside::PASSED_ON, "it is finished");
    }
    promotion.wait().done();
    host.is_alone("web", 5);
    assert_eq!(host.version(), "two");
    host.stop().never_panicked().done();
}

/// A request that keeps an instance busy until it is answered from outside.
fn hold(host: &Host, outside: &Outside) -> (Connection, Asked) {
    let mut client = host.connect();
    client.send_raw(format!("GET {} HTTP/1.1\r\nhost: x\r\n\r\n", outside.target()).as_bytes()).unwrap();
    (client, outside.asked())
}

/// A request that keeps an instance of the canary busy, the first or the second, until it is answered from outside.
pub(crate) fn hold_canary(host: &Host, outside: &Outside, busy: usize) -> (Connection, Asked) {
    loop {
        let (mut client, asked) = hold(host, outside);
        let ps = host.ps();
        let instances = ps.canary("web")["instances"].as_array().unwrap();
        if instances.iter().filter(|instance| instance["state"] == "busy").count() == busy {
            return (client, asked);
        }
        // The live version has it, by chance.
        asked.answer();
        client.read_answer(false).unwrap().ok();
    }
}

/// A request that waits for the canary, as one of so many.
fn wait_for_canary(host: &Host, waiting: usize) -> Connection {
    eventually("a request waits for the canary", || {
        let mut client = host.connect();
        client.send_raw(b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        eventually("it waits, or the live version has answered by chance", || {
            let waits = host.ps().canary("web")["waiting"] == waiting;
            (waits || client.has_answer(Duration::from_millis(1))).then_some(waits)
        })
        .then_some(client)
    })
}
