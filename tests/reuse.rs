//! Components that can be called only once, and crashes that only a reused instance has.

use crate::harness::http::Request;
use crate::harness::{Formation, Host, Load, eventually};

/// Its instances trap on their second call.
fn formation(keys: &str) -> Formation {
    Formation::web(&format!("env = {{ ONCE = \"1\" }}\n{keys}"))
}

fn once(keys: &str) -> Host {
    Host::run(&formation(keys))
}

/// So many instances have crashed, which is counted a moment after their requests are answered.
#[track_caller]
fn were_replaced(host: &Host, restarts: u64) {
    let ps = eventually("instances were replaced", || {
        Some(host.ps()).filter(|ps| ps.number("web", "restarts") >= restarts)
    });
    assert_eq!(ps.number("web", "restarts"), restarts, "{ps:#?}");
}

const WARNING: &str = "its instances crash on their second call";

#[test]
fn a_component_that_can_be_called_once_serves_every_get_with_one_warning() {
    for count in [1, 4] {
        let host = once(&format!("count = {count}"));
        for _ in 0..50 {
            assert_eq!(host.get("/ok").ok(), "ok\n");
        }
        let line = host.stderr().wait_for(WARNING);
        // The line is JSON.
        assert!(line.contains(r#"isolation = \"call\""#), "{line}");
        assert!(line.contains("[process.web]"), "{line}");
        // Three are enough to know.
        were_replaced(&host, 3);
        // From then on others are as safe.
        for _ in 0..50 {
            assert_eq!(host.post("/echo", "body").ok(), "body");
        }
        assert_eq!(host.ps().number("web", "restarts"), 3);
        assert_eq!(host.stderr().count(WARNING), 1);
        assert_eq!(host.stderr().count("WARN"), 1, "{}", host.stderr().text());
    }
}

/// A JavaScript component with a `fetch` event doesn't trap on its second call: it returns without an answer.
#[test]
fn returning_without_an_answer_is_a_crash() {
    let formation = Formation::new().process("web", "wasi02-service", "env = { ONCE = \"1\" }\ncount = 2");
    let host = Host::run(&formation);
    for _ in 0..20 {
        assert_eq!(host.get("/hello").ok(), "hello\n");
    }
    host.stderr().wait_for(WARNING);
    assert_eq!(host.stderr().count(WARNING), 1, "{}", host.stderr().text());
    were_replaced(&host, 3);
}

#[test]
fn it_is_learned_under_load_too() {
    let host = once("count = 4");
    let load = Load::get(host.address(), 8, "/ok");
    load.wait_for(500);
    load.stop();
    host.stderr().wait_for(WARNING);
    assert_eq!(host.stderr().count(WARNING), 1, "{}", host.stderr().text());
    let ps = eventually("four are ready", || Some(host.ps()).filter(|ps| ps.in_state("web", "idle") == 4));
    assert_eq!(ps.instances("web").len(), 4, "{ps:#?}");
}

/// Also where nothing else was ever asked, at the beginning, at once, and after the next start; whether the second call
/// traps or returns without an answer.
#[test]
fn no_request_that_can_not_be_repeated_is_lost() {
    for (guest, count) in [("web-test", 1), ("web-test", 3), ("wasi02-service", 2)] {
        let keys = format!("env = {{ ONCE = \"1\" }}\ncount = {count}");
        let formation = Formation::new().process("web", guest, &keys);
        let host = Host::run(&formation);
        for _ in 0..20 {
            assert_eq!(host.post("/echo", "body").ok(), "body");
        }
        // Those that can be repeated come between.
        let load = Load::start(
            host.address(),
            4,
            |number| match number % 5 {
                0 => Request::get("/"),
                _ => Request::post("/echo", "body"),
            },
            |_, answer| match answer {
                Ok(answer) if answer.status < 500 => Ok(true),
                other => Err(format!("{other:?}")),
            },
        );
        load.wait_for(200);
        load.stop();
        host.stop().done();
        let host = Host::run(&formation);
        for _ in 0..20 {
            assert_eq!(host.post("/echo", "body").ok(), "body");
        }
    }
}

#[test]
fn what_was_learned_of_a_component_is_known_at_the_next_start() {
    let formation = formation("count = 2");
    let host = Host::run(&formation);
    for _ in 0..50 {
        assert_eq!(host.get("/ok").ok(), "ok\n");
    }
    host.stderr().wait_for(WARNING);
    eventually("it is kept", || formation.read(".wasmhost/learned").starts_with("once ").then_some(()));
    host.stop().done();
    let host = Host::run(&formation);
    host.stderr().wait_for(WARNING);
    for number in 0..50 {
        assert_eq!(host.get("/ok").ok(), "ok\n", "{number}");
        assert_eq!(host.post("/echo", "body").ok(), "body", "{number}");
    }
    assert_eq!(host.ps().number("web", "restarts"), 0);
    assert_eq!(host.stderr().count(WARNING), 1);
    host.stop().done();
    // Whatever is in the file, it is no reason not to start.
    std::fs::write(formation.path(".wasmhost/learned"), b"once\xff\n").unwrap();
    let host = Host::run(&formation);
    assert_eq!(host.post("/echo", "body").ok(), "body");
    assert_eq!(host.stderr().count(WARNING), 0);
}

#[test]
fn instances_of_a_component_that_can_be_called_twice_are_kept_for_all_requests() {
    let formation = Formation::web("");
    let host = Host::run(&formation);
    let remembered = |host: &Host| {
        let answer = host.post("/instance", "").ok();
        answer.lines().nth(2).unwrap().parse::<u64>().unwrap()
    };
    // Each has an unused instance, until one that may be repeated was answered by a used one.
    assert_eq!([remembered(&host), remembered(&host)], [1, 1]);
    host.get("/instance").ok();
    assert_eq!([remembered(&host), remembered(&host)], [3, 4]);
    eventually("it is kept", || formation.read(".wasmhost/learned").starts_with("proven ").then_some(()));
    host.stop().done();
    let host = Host::run(&formation);
    assert_eq!([remembered(&host), remembered(&host)], [1, 2]);
}

/// Calls that share an instance don't wait until it is unused, which might never be.
#[test]
fn requests_share_instances_of_wasi_0_3_from_the_beginning() {
    let formation = Formation::new().process("web", "wasi03-service", "count = 1");
    let host = Host::run(&formation);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(host.post("/meet/4", "").ok(), "met\n"));
        }
    });
    assert_eq!(host.ps().number("web", "restarts"), 0);
}

#[test]
fn where_the_formation_says_it_nothing_is_learned() {
    let host = once("isolation = \"instance\"");
    for _ in 0..20 {
        assert_eq!(host.get("/ok").ok(), "ok\n");
    }
    eventually("each second call has crashed", || (host.ps().number("web", "restarts") >= 10).then_some(()));
    let host_of_calls = once("isolation = \"call\"");
    for _ in 0..20 {
        assert_eq!(host_of_calls.get("/ok").ok(), "ok\n");
    }
    assert_eq!(host_of_calls.ps().number("web", "restarts"), 0);
    assert_eq!(host.stderr().count(WARNING) + host_of_calls.stderr().count(WARNING), 0);
}

#[test]
fn a_request_that_is_to_blame_itself_teaches_nothing() {
    let host = Host::run(&Formation::web(""));
    for _ in 0..5 {
        assert_eq!(host.get("/ok").ok(), "ok\n");
        // It crashes a fresh instance as well.
        host.get("/trap").is_error(502, "H13");
    }
    assert_eq!(host.stderr().count(WARNING), 0, "{}", host.stderr().text());
    // Each was repeated once.
    were_replaced(&host, 10);
}

#[test]
fn what_http_does_not_let_a_proxy_repeat_is_not_repeated() {
    let host = Host::run(&Formation::web(""));
    // With a body even a GET can't be: nobody has it any more.
    let requests = [
        "POST /trap HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
        "POST /trap HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nbody",
        "GET /trap HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nbody",
    ];
    for (number, request) in (1..).zip(requests) {
        host.get("/ok").ok();
        host.get("/ok").ok();
        let mut connection = host.connect();
        connection.send_raw(request.as_bytes()).unwrap();
        connection.read_answer(false).unwrap().is_error(502, "H13");
        were_replaced(&host, number);
    }
    // A timeout may have done its work by then, and would take twice as long.
    let host = Host::run(&Formation::web("timeout = \"2s\""));
    host.get("/ok").ok();
    host.get("/loop").is_error(504, "H12");
    were_replaced(&host, 1);
}
