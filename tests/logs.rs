//! Guests' output and the host's own.

use serde_json::Value;

use crate::harness::{Formation, Host, eventually};

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|err| panic!("{err}: {line}"))
}

#[test]
fn a_guests_lines_are_on_stdout_under_its_name() {
    let host = Host::run(&Formation::web(""));
    host.get("/log?lines=2").ok();
    // The last line has no end: it is whole when the instance is gone.
    let ended = host.stop();
    let lines: Vec<Value> = ended.stdout.lines().map(json).collect();
    let of = |stream: &str| -> Vec<&str> {
        lines
            .iter()
            .filter(|line| line["stream"] == stream)
            .map(|line| line["line"].as_str().unwrap())
            .collect()
    };
    assert_eq!(of("stdout"), ["stdout 1", "stdout 2", "without its end"]);
    assert_eq!(of("stderr"), ["stderr 1", "stderr 2"]);
    for line in &lines {
        assert_eq!(line["instance"], "web.1");
        let time = line["time"].as_str().unwrap();
        assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    }
    assert!(!ended.stderr.contains("stdout 1") && !ended.stderr.contains("stderr 1"), "{ended:#?}");
}

#[test]
fn the_last_lines_can_be_had_of_all_of_a_type_or_of_an_instance() {
    let formation = Formation::web("count = 2").process("other", "web-test", "route = \"other.example\"");
    let host = Host::run(&formation);
    host.get("/log?lines=3").ok();
    let other = crate::harness::http::Request::get("/log?lines=1").header("host", "other.example");
    host.send(&other).ok();
    let name = host.get("/instance").ok().lines().nth(1).unwrap().to_owned();
    let lines = |ended: crate::harness::Ended| ended.done().lines().map(str::to_owned).collect::<Vec<_>>();

    let all = eventually("all lines", || Some(lines(host.cli(["logs"]))).filter(|all| all.len() == 6 + 2));
    assert!(all[0].contains(&format!("{name}      | stdout 1")), "{all:#?}");
    let of_web = lines(host.cli(["logs", "web"]));
    assert_eq!(of_web.len(), 6);
    assert!(of_web.iter().all(|line| line.contains(&name)), "{of_web:#?}");
    assert_eq!(lines(host.cli(["logs", &name])), of_web);
    assert_eq!(lines(host.cli(["logs", "other"])).len(), 2);
    assert_eq!(lines(host.cli(["logs", "-n", "2", "web"])), of_web[4..]);
    assert_eq!(lines(host.cli(["logs", "-n", "0"])).len(), 0);
    let last = json(lines(host.cli(["logs", "-n", "1", "--json", "web"]))[0].as_str());
    assert_eq!((&last["line"], &last["instance"]), (&"stderr 3".into(), &name.into()));
}

#[test]
fn logs_of_what_does_not_exist_are_refused() {
    let host = Host::run(&Formation::web(""));
    host.cli(["logs", "wbe"]).failed(1, "wbe");
    host.cli(["logs", "web.x"]).failed(2, "web.x");
}

#[test]
fn lines_can_be_followed() {
    let host = Host::run(&Formation::web(""));
    host.get("/log?lines=2").ok();
    host.stdout().wait_for("stderr 2");
    let follower = host.cli_beside(["logs", "--follow", "-n", "1", "web"]);
    follower.stdout.wait_for("stderr 2");
    host.get("/log?lines=3").ok();
    follower.stdout.wait_for("stderr 3");
    // It ends with the host, and has missed nothing and repeated nothing.
    host.stop().done();
    let ended = follower.wait();
    let lines: Vec<_> = ended.stdout.lines().map(|line| line.split(" | ").nth(1).unwrap()).collect();
    let first = "without its endstdout 1";
    assert_eq!(lines[..7], ["stderr 2", first, "stderr 1", "stdout 2", "stderr 2", "stdout 3", "stderr 3"]);
}

#[test]
fn a_follower_does_not_hold_the_host_up() {
    let host = Host::run(&Formation::web(""));
    let follower = host.cli_beside(["logs", "--follow"]);
    host.get("/log?lines=1").ok();
    follower.stdout.wait_for("stdout 1");
    let begun = std::time::Instant::now();
    host.stop().done();
    assert!(begun.elapsed().as_secs() < 15, "{:?}", begun.elapsed());
}

#[test]
fn a_guest_that_floods_its_output_is_slowed_and_not_the_host() {
    let formation = Formation::web("timeout = \"60s\"").process("good", "web-test", "route = \"/ok\"");
    let host = Host::run(&formation);
    let before = host.resident_bytes();
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| host.get("/log?lines=100000").ok());
        let mut served = 0;
        while !flood.is_finished() {
            host.get("/ok").ok();
            served += 1;
        }
        assert!(served > 0);
    });
    host.stdout().wait_for("\"stdout 100000\"");
    assert_eq!(host.stdout().count("\"stdout "), 100_000, "no line is lost");
    let grown = host.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more");
    host.stop().done();
}

#[test]
fn a_line_without_an_end_is_bounded() {
    let host = Host::run(&Formation::new().process("worker", "job-test", "queue = \"q\""));
    let long = "x".repeat(100_000);
    host.enqueue_from_input("q", &format!("print:{long}"));
    let line = host.stdout().wait_for("xxxx");
    assert!(line.len() < 70_000, "{} bytes", line.len());
}

#[test]
fn a_trap_leaves_a_backtrace() {
    let host = Host::run(&Formation::web(""));
    host.get("/trap").is_error(502, "H13");
    let line = json(&host.stderr().wait_for("unreachable"));
    let message = line["message"].as_str().unwrap();
    assert!(message.starts_with("GET /trap: ") && message.contains("backtrace"), "{message}");
    assert_eq!((&line["instance"], &line["code"]), (&"web.1".into(), &"H13".into()));
    // What the guest says about it is a line of its own.
    host.stdout().wait_for("asked to trap");
}

#[test]
fn a_job_that_traps_leaves_a_backtrace_with_its_id() {
    let host = Host::run(&Formation::new().process("worker", "job-test", "queue = \"q\""));
    let id = host.enqueue("q", "trap");
    let line = host.stderr().wait_for("unreachable");
    assert!(line.contains(&format!("job {id} of")) && line.contains("worker.1"), "{line}");
}

#[test]
fn the_hosts_own_lines_are_json_but_for_the_address() {
    let host = Host::run(&Formation::web(""));
    host.get("/trap");
    host.stderr().wait_for("unreachable");
    let ended = host.stop();
    for line in ended.stderr.lines().filter(|line| !line.starts_with("Serving HTTP on ")) {
        assert!(json(line)["level"].is_string(), "{line}");
    }
}

#[test]
fn a_closed_stdout_does_not_end_the_host() {
    let formation = Formation::web("");
    let script = format!("{} run | true", env!("CARGO_BIN_EXE_wasmhost"));
    let mut shell = std::process::Command::new("sh")
        .args(["-c", &script])
        .current_dir(formation.folder())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("it serves", || (formation.cli(["ps"]).code == 0).then_some(()));
    let ps: Value = json(&formation.cli(["ps", "--json"]).done());
    let address = ps["http"][0].as_str().unwrap().trim_start_matches("http://").trim_end_matches('/');
    let address = address.parse().unwrap();
    let mut client = crate::harness::http::Client::new(address);
    for _ in 0..3 {
        client.send(&crate::harness::http::Request::get("/log?lines=1000")).unwrap().ok();
    }
    formation.cli(["stop"]).done();
    shell.wait().unwrap();
}
