//! `wasmhost dev`: builds, runs, watches, deploys.
//!
//! Most builds here copy one of two versions of a guest, so that they take no time: what is compiled is in `new.rs`.

use std::fs;

use rustix::process::{Pid, Signal};

use crate::build::is_gone;
use crate::harness::{Formation, Host, compile_ahead, eventually, variant};

const COPY: &str = "cp src/web.wasm web.wasm";

/// A web type whose component is a copy of `src/web.wasm`.
fn project(build: &str, keys: &str) -> Formation {
    let formation = Formation::new()
        .table(&format!("[process.web]\ncomponent = \"web.wasm\"\nbuild = {build:?}\n{keys}"))
        .directory("src");
    edit(&formation, "one");
    formation
}

/// Saves another version, as an editor does.
fn edit(formation: &Formation, version: &str) {
    let beside = formation.path("src/.web.wasm.swp");
    fs::write(&beside, variant("web-test", version)).unwrap();
    fs::rename(beside, formation.path("src/web.wasm")).unwrap();
}

fn answers(host: &Host, version: &str) {
    eventually(&format!("version {version} answers"), || (host.version() == version).then_some(()));
}

#[test]
fn an_edit_is_built_and_deployed_and_no_request_fails() {
    compile_ahead("one");
    compile_ahead("two");
    let formation = project(COPY, "count = 2");
    let host = Host::dev(&formation);
    assert_eq!(host.version(), "one");
    let load = host.load_of_versions(2, &["one", "two"]);
    for version in ["two", "one", "two"] {
        load.wait_for(50);
        edit(&formation, version);
        answers(&host, version);
    }
    load.wait_for(50);
    load.stop();
    // Not built again without a change: neither of what the build nor of what the host wrote.
    assert_eq!(host.stderr().count("building web"), 4, "{}", host.stderr().text());
    assert_eq!(host.states(), ["live", "replaced", "replaced", "replaced"]);
    host.signal(Signal::INT);
    host.wait().done();
}

#[test]
fn a_build_that_fails_leaves_the_version_before_it_up_and_says_why() {
    let formation = project("echo looking; test ! -e src/broken && cp src/web.wasm web.wasm", "");
    let host = Host::dev(&formation);
    host.stderr().wait_for("looking");
    edit(&formation, "two");
    answers(&host, "two");
    let formation = formation.with_file("src/broken", "");
    let said = host.stderr().wait_for("the build of web failed");
    assert!(said.contains("failed (exit status: 1)"), "{said}");
    assert_eq!((host.version().as_str(), host.live()), ("two", 2));
    // It was broken for a while, and no attempt is made until something changes.
    let failures = host.stderr().count("the build of web failed");
    assert_eq!(failures, 1);
    fs::remove_file(formation.path("src/broken")).unwrap();
    edit(&formation, "three");
    answers(&host, "three");
    host.stop().done();
}

#[test]
fn a_changed_formation_is_deployed_and_one_with_errors_is_told() {
    let formation = project(COPY, "env = { NAME = { from_env = \"NAME_OF_TEST\" } }")
        .with_file(".env", "NAME_OF_TEST=ann\n");
    let host = Host::dev(&formation);
    let has = |name: &str| {
        eventually(&format!("it greets {name}"), || {
            host.get("/env").ok().contains(&format!("NAME={name}")).then_some(())
        });
    };
    has("ann");
    let formation = formation.with_file(".env", "NAME_OF_TEST=bob\n");
    has("bob");
    let formation = formation.replace("[process.web]", "[process.web]\ncount = 3");
    host.is_alone("web", 3);
    let live = host.live();
    let formation = formation.replace("count = 3", "cuont = 3");
    host.stderr().wait_for("did you mean \\\"count\\\"?");
    assert_eq!((host.live(), host.version().as_str()), (live, "one"));
    // An edit meanwhile isn't built by a formation with errors, and not lost either.
    edit(&formation, "two");
    formation.replace("cuont = 3", "count = 1");
    answers(&host, "two");
    host.is_alone("web", 1);
    host.stop().done();
}

#[test]
fn it_waits_until_there_is_something_to_run() {
    let formation = project(COPY, "colour = 1");
    fs::remove_file(formation.path("src/web.wasm")).unwrap();
    let process = formation.start(["dev"]);
    process.stderr.wait_for("process.web.colour: unknown key");
    process.stderr.wait_for("waiting for a change");
    let formation = formation.replace("colour = 1", "");
    process.stderr.wait_for("the build of web failed");
    fs::write(formation.path("src/web.wasm"), "no component").unwrap();
    process.stderr.wait_for("web.wasm ");
    edit(&formation, "one");
    process.stderr.wait_for("all instances are up");
    formation.cli(["stop"]).done();
    process.wait().done();
}

#[test]
fn a_change_while_a_build_runs_begins_it_again() {
    let formation = project("cp src/web.wasm web.wasm && . src/then", "").with_file("src/then", ":");
    let host = Host::dev(&formation);
    let formation = formation.with_file("src/then", "echo $$ > target/pid; sleep 1000").directory("target");
    edit(&formation, "two");
    let hangs: i32 = eventually("the build hangs", || formation.read("target/pid").trim().parse().ok());
    assert_eq!(host.version(), "one");
    let _formation = formation.with_file("src/then", ":");
    answers(&host, "two");
    eventually("the first build has ended", || is_gone(Pid::from_raw(hangs).unwrap()).then_some(()));
    host.stop().done();
}

#[test]
fn a_signal_ends_a_build_too() {
    // While the host serves, and before there is one.
    for (then, code) in [(":", 0), ("echo $$ > target/pid; sleep 1000", 130)] {
        let formation = project("cp src/web.wasm web.wasm && . src/then", "");
        let formation = formation.with_file("src/then", then).directory("target");
        let process = formation.start(["dev"]);
        if code == 0 {
            process.stderr.wait_for("all instances are up");
        }
        let formation = formation.with_file("src/then", "echo $$ > target/pid; sleep 1000");
        let hangs: i32 = eventually("the build hangs", || formation.read("target/pid").trim().parse().ok());
        process.signal(Signal::INT);
        assert_eq!(process.wait().code, code);
        eventually("the build has ended", || is_gone(Pid::from_raw(hangs).unwrap()).then_some(()));
    }
}

#[test]
fn a_component_that_another_program_builds_is_deployed_too() {
    let formation = Formation::new().versioned("web", "web-test", "one", "");
    let host = Host::dev(&formation);
    assert_eq!(host.version(), "one");
    formation.build("web", "web-test", "two");
    answers(&host, "two");
    host.stop().done();
}

#[test]
fn what_guests_write_and_what_git_ignores_is_no_change() {
    let formation = project(COPY, "dirs = [{ host = \"data\", guest = \"/data\", access = \"write\" }]")
        .directory("data")
        .with_file(".gitignore", "*.log\n");
    let host = Host::dev(&formation);
    host.post("/write?path=/data/a", "b").ok();
    let formation = formation.with_file("debug.log", "x").with_file("src/new/deep", "y");
    // A folder that is new is watched, too.
    eventually("it is built for the new folder", || (host.stderr().count("built web") == 2).then_some(()));
    let _formation = formation.with_file("src/new/deep", "z");
    eventually("and for the file in it", || (host.stderr().count("built web") == 3).then_some(()));
    assert_eq!(host.live(), 1, "the component is the same");
    host.stop().done();
}
