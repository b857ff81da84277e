//! Types whose component is a command: `run = "always"`, `"release"`, `"never"`.

use std::time::{Duration, Instant};

use crate::harness::{Formation, Host, eventually};

fn with_out(keys: &str) -> String {
    format!("{keys}\ndirs = [{{ host = \"out\", guest = \"/out\", access = \"write\" }}]")
}

#[test]
fn a_command_that_exits_is_started_again_with_longer_and_longer_waits() {
    let begun = Instant::now();
    let host =
        Host::launch(&Formation::new().process("echo", "cmd-test", "args = [\"echo\", \"hello\", \"you\"]"));
    host.stdout().wait_until("three runs", |lines| {
        (lines.iter().filter(|line| line.contains("hello you")).count() >= 3).then_some(())
    });
    // 0 s, then 1 s.
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    let ps = eventually("it waits", || Some(host.ps()).filter(|ps| ps.in_state("echo", "backoff") == 1));
    let note = ps.instances("echo")[0]["note"].as_str().unwrap();
    assert!(note.contains("exited with code 0"), "{note}");
    assert!(ps.number("echo", "restarts") >= 3, "{ps:?}");
    assert_eq!(host.stop().never_panicked().code, 0);
}

#[test]
fn each_instance_of_a_command_runs() {
    let host =
        Host::run(&Formation::new().process("idle", "cmd-test", "args = [\"sleep\", \"600000\"]\ncount = 3"));
    let ps = host.ps();
    assert_eq!((ps.number("idle", "actual"), ps.in_state("idle", "busy")), (3, 3), "{ps:?}");
    host.cli(["scale", "idle=1"]).done();
    assert_eq!(host.ps().number("idle", "actual"), 1);
    eventually("the others have left", || (host.ps().instances("idle").len() == 1).then_some(()));
    // Nothing can ask a command to finish, so that ending it is no failure.
    let begun = Instant::now();
    host.stop().done();
    assert!(begun.elapsed().as_secs() < 20, "it waited for what never ends: {:?}", begun.elapsed());
}

#[test]
fn a_core_command_runs_like_a_component() {
    let host =
        Host::launch(&Formation::new().process("echo", "cmd-test-core", "args = [\"echo\", \"from core\"]"));
    host.stdout().wait_for("from core");
}

#[test]
fn a_command_that_traps_leaves_a_backtrace_and_is_started_again() {
    let host = Host::launch(&Formation::new().process("bad", "cmd-test", "args = [\"trap\"]"));
    let line = host.stderr().wait_for("trapped: ");
    assert!(line.contains("bad.1") && line.contains("unreachable") && line.contains("backtrace"), "{line}");
    host.stdout().wait_until("it runs twice", |lines| {
        (lines.iter().filter(|line| line.contains("asked to trap")).count() >= 2).then_some(())
    });
}

#[test]
fn a_command_that_loops_for_ever_leaves_room_for_others() {
    let formation = Formation::web("").process("bad", "cmd-test", "args = [\"loop\"]\ncount = 3");
    let host = Host::run(&formation);
    for _ in 0..100 {
        assert_eq!(host.get("/ok").ok(), "ok\n");
    }
    host.stop().done();
}

#[test]
fn a_release_step_runs_before_anything_serves() {
    let formation = Formation::new()
        .directory("out")
        .process("web", "web-test", &with_out(""))
        .process("first", "cmd-test", &with_out("run = \"release\"\nargs = [\"touch\", \"/out/one\"]"))
        .process("second", "cmd-test", &with_out("run = \"release\"\nargs = [\"echo\", \"second\"]"));
    let host = Host::run(&formation);
    assert_eq!(host.get("/read?path=/out/one").ok(), "");
    host.stdout().wait_for("second");
    let ps = host.ps();
    assert_eq!(
        (ps.process("first")["trigger"].as_str(), ps.number("first", "desired")),
        (Some("release"), 0)
    );
    host.cli(["scale", "first=1"]).failed(1, "first");
}

#[test]
fn a_release_step_that_fails_keeps_the_release_from_going_live() {
    for (keys, why) in [
        ("args = [\"exit\", \"1\"]", "exited with code 1"),
        ("args = [\"trap\"]", "unreachable"),
        ("args = [\"loop\"]\ntimeout = \"100ms\"", "timeout"),
    ] {
        let formation = Formation::web("").process("step", "cmd-test", &format!("run = \"release\"\n{keys}"));
        let ended = formation.run_to_end().failed(3, "the release step \"step\"");
        assert!(ended.stderr.contains(why), "{ended:#?}");
        assert!(!ended.stderr.contains("Serving HTTP"), "{ended:#?}");
        formation.cli(["ps"]).failed(5, "no host runs formation.toml");
    }
}

#[test]
fn a_type_that_never_runs_does_not_run() {
    let formation =
        Formation::web("").process("tool", "cmd-test", "run = \"never\"\nargs = [\"echo\", \"I ran\"]");
    let host = Host::run(&formation);
    host.get("/ok").ok();
    let ps = host.ps();
    assert_eq!((ps.process("tool")["trigger"].as_str(), ps.instances("tool").len()), (Some("manual"), 0));
    host.cli(["scale", "tool=1"]).failed(1, "tool");
    assert!(!host.stop().stdout.contains("I ran"));
}

#[test]
fn a_command_sees_its_arguments_its_grants_and_its_name() {
    let keys = "args = [\"env\"]\nenv = { COLOUR = \"red\" }";
    let host = Host::launch(&Formation::new().process("env", "cmd-test", keys));
    for line in ["COLOUR=red", "WASMHOST_TYPE=env", "WASMHOST_INSTANCE=env.1"] {
        host.stdout().wait_for(line);
    }
    assert_eq!(host.stdout().count("PATH="), 0);
}

/// The tool that makes a component of the other guest has a lower bound of its own.
#[test]
fn a_core_module_holds_no_more_files_than_a_component_may() {
    let keys = "args = [\"open\", \"/out/file\", \"1000\"]\ndirs = [{ host = \"out\", guest = \"/out\" }]";
    let formation = Formation::new().process("tool", "cmd-test-core", keys).directory("out");
    std::fs::write(formation.path("out/file"), "text").unwrap();
    let host = Host::launch(&formation);
    let line = host.stdout().wait_for(" at once: ");
    assert!(line.contains("256 at once: ") && !line.contains("enough"), "{line}");
    host.stdout().wait_for("1000 one after another");
}
