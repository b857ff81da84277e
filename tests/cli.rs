//! The command line apart from running and scaling, and its answers where no host runs.

use crate::harness::{Formation, Host, eventually};

#[test]
fn every_verb_explains_itself() {
    let formation = Formation::new();
    let verbs = [
        "run",
        "check",
        "compile",
        "ps",
        "scale",
        "deploy",
        "rollback",
        "releases",
        "logs",
        "dashboard",
        "top",
        "restart",
        "stop",
        "enqueue",
        "tick",
        "new",
        "build",
        "dev",
        "componentize",
        "init",
        "import",
        "export",
        "completions",
    ];
    let help = formation.cli(["--help"]).done();
    for verb in verbs {
        assert!(help.contains(&format!("  {verb} ")), "{verb} in {help}");
        assert!(formation.cli([verb, "--help"]).done().contains("Usage: wasmhost"), "{verb}");
    }
    assert!(formation.cli(["--version"]).done().starts_with("wasmhost "));
    assert_eq!(formation.cli(["rnu"]).code, 2);
}

#[test]
fn shells_can_complete() {
    let formation = Formation::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(formation.cli(["completions", shell]).done().contains("wasmhost"), "{shell}");
    }
}

#[test]
fn without_a_host_each_verb_says_how_to_start_one() {
    let formation = Formation::web("");
    let failed = |ended: crate::harness::Ended| {
        ended.failed(5, "no host runs formation.toml: start one with `wasmhost run formation.toml`");
    };
    failed(formation.cli(["ps"]));
    failed(formation.cli(["scale"]));
    failed(formation.cli(["scale", "web=2"]));
    failed(formation.cli(["deploy"]));
    failed(formation.cli(["rollback", "v2"]));
    failed(formation.cli(["releases"]));
    failed(formation.cli(["logs"]));
    failed(formation.cli(["restart", "web"]));
    failed(formation.cli(["stop"]));
    failed(formation.cli(["enqueue", "default", "x"]));
    failed(formation.cli(["tick", "clock"]));
}

#[test]
fn without_a_formation_each_verb_says_so() {
    let formation = Formation::new();
    formation.cli(["ps"]).failed(2, "no such file");
    formation.cli(["-f", "elsewhere.toml", "ps"]).failed(2, "elsewhere.toml");
}

#[test]
fn ps_tells_of_each_type_and_instance() {
    let formation = Formation::web("count = 2").process("clock", "tick-test", "schedule = \"@yearly\"");
    let host = Host::run(&formation);
    host.get("/spin?ms=60").ok();
    let ps = eventually("it is idle again", || Some(host.ps()).filter(|ps| ps.in_state("web", "idle") == 2));
    assert_eq!((&ps.0["name"], ps.0["pid"].as_u64()), (&"test".into(), Some(u64::from(host.pid()))));
    assert_eq!(ps.0["http"][0], format!("http://{}/", host.address()));
    let view = ps.process("web");
    assert_eq!((&view["trigger"], &view["desired"], &view["actual"]), (&"http".into(), &2.into(), &2.into()));
    let names: Vec<_> =
        ps.instances("web").iter().map(|instance| instance["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["web.1", "web.2"]);
    let used = ps.instances("web").iter().find(|instance| instance["calls"] == 1).unwrap();
    assert!((0.001..5.0).contains(&used["cpu_s"].as_f64().unwrap()), "{used}");
    assert!(used["memory_bytes"].as_u64().unwrap() >= 1 << 16, "{used}");
    assert!(used["uptime_s"].as_f64().unwrap() > 0.0, "{used}");

    let text = host.cli(["ps"]).done();
    for word in ["TYPE", "DESIRED", "web.1", "web.2", "clock.1", "idle", "schedule"] {
        assert!(text.contains(word), "{word} in {text}");
    }
}

#[test]
fn a_host_whose_formation_was_broken_meanwhile_can_still_be_asked() {
    let formation = Formation::web("");
    let host = Host::run(&formation);
    std::fs::write(formation.file(), "this is no formation").unwrap();
    host.cli(["ps"]).done();
    host.cli(["scale", "web=2"]).done();
    host.cli(["stop"]).done();
    host.wait().done();
}

#[test]
fn a_host_is_found_from_any_folder() {
    let formation = Formation::web("").directory("deep");
    let _host = Host::run(&formation);
    let file = formation.file();
    let elsewhere = Formation::new();
    elsewhere.cli(["-f", file.to_str().unwrap(), "ps"]).done();
    elsewhere.cli(["ps", "--file", file.to_str().unwrap()]).done();
}

#[test]
fn the_admin_socket_is_the_users_alone() {
    use std::os::unix::fs::PermissionsExt;
    let formation = Formation::web("");
    let _host = Host::run(&formation);
    let mode = formation.path(".wasmhost/admin.sock").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
}

#[test]
fn a_mistaken_job_is_refused() {
    let host = Host::run(&Formation::web(""));
    host.cli(["enqueue", "default", "x", "--attempts", "0"]).failed(2, "attempt");
    let long = "x".repeat((1 << 20) + 1);
    host.cli_with_input(["enqueue", "default"], &long).failed(2, "1048576");
    assert_eq!(host.cli(["enqueue", "default", "x", "--in", "soon"]).code, 2);
}

#[test]
fn a_queues_name_is_taken_as_it_is() {
    let host = Host::run(&Formation::web(""));
    // None of these is a path, a query or a second request.
    for queue in ["a b", "a/b", "a?b", "ä", "a%2Fb"] {
        let ended = host.cli(["enqueue", queue, "x"]).never_panicked();
        assert!([0, 1, 2].contains(&ended.code), "{queue}: {ended:?}");
        if ended.code == 0 {
            continue;
        }
        assert!(ended.stderr.contains(queue), "the error names it: {ended:?}");
    }
    host.get("/ok").ok();
}
