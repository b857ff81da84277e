//! A Procfile is run as it is, and what is wrong with it is told by line.

use crate::harness::{Formation, Host, eventually};

/// A folder with a Procfile of three lines, and no formation.
fn three_lines() -> Formation {
    Formation::new()
        .with_guest("web-test", "web.wasm")
        .with_guest("job-test", "bin/worker.wasm")
        .with_guest("cmd-test", "tools.wasm")
        .with_file(
            "Procfile",
            "# the shop\nweb: web.wasm\nworker: LEVEL=high bin/worker.wasm # mails\nrelease: tools.wasm echo \"prepared, $GREETING\" it\\'s\n",
        )
        .with_file(".env", "GREETING=hello you\nPORT=0\n")
}

#[test]
fn three_lines_with_variables_run() {
    let host = Host::run(&three_lines());
    host.stdout().wait_for("prepared, hello you it's");
    let environment = host.get("/env").ok();
    for line in ["GREETING=hello you", "PORT=0", "WASMHOST_TYPE=web"] {
        assert!(environment.lines().any(|found| found == line), "{line} in {environment}");
    }
    assert!(!environment.contains("LEVEL"), "{environment}");
    assert_eq!(host.post("/enqueue?queue=default", "print:a job\nok").status, 201);
    host.stdout().wait_for("a job");

    // Each verb finds the host, with the Procfile's name and without.
    host.cli(["-f", "Procfile", "scale", "web=2"]).done();
    host.cli(["restart", "worker"]).done();
    let ps = host.ps();
    assert_eq!((ps.number("web", "actual"), ps.number("worker", "actual")), (2, 1));
    assert_eq!(ps.process("worker")["trigger"], "queue");
    host.cli(["-f", "Procfile", "stop"]).done();
    host.wait().done();
}

#[test]
fn a_formation_goes_before_a_procfile() {
    let formation = three_lines().process("only", "web-test", "");
    let text = formation.cli(["check"]).done();
    assert!(text.contains("[process.only]") && !text.contains("[process.worker]"), "{text}");
    let text = formation.cli(["check", "Procfile"]).done();
    assert!(text.contains("[process.worker]") && !text.contains("[process.only]"), "{text}");
}

#[test]
fn a_procfile_for_another_platform_is_told_what_is_expected() {
    let formation = Formation::new().with_file(
        "Procfile",
        "web: bundle exec puma -p $PORT\nworker: exec worker.wasm\n\nclock: cron.wasm | tee log\nrelease: a.wasm $NEVER_SET\n",
    );
    let said = formation
        .run_to_end()
        .failed(2, "Procfile:1:6: found \"bundle\", expected the path of a component")
        .stderr;
    for line in [
        "Procfile:2:9: found \"exec\", expected the component first, without a program that starts it: write \"worker: worker.wasm\"",
        "Procfile:4:18: found \"|\", a pipe, and no shell is run",
        "3 problems",
    ] {
        assert!(said.contains(line), "{line} in {said}");
    }
    formation.cli(["check", "-f", "Procfile"]).failed(2, "Procfile:1:6:");
    let formation = formation.with_file("Procfile", "release: a.wasm $NEVER_SET\n");
    formation
        .run_to_end()
        .failed(2, "Procfile:1:1: process.release.args: the environment variable NEVER_SET is not set");
}

#[test]
fn what_a_procfile_cannot_say_is_told_with_what_to_do() {
    let formation =
        Formation::new().with_guest("web-test", "web.wasm").with_guest("tick-test", "clock.wasm").with_file(
            "Procfile",
            "web: web.wasm\napi: web.wasm\n\nclock: clock.wasm\nrelease: web.wasm\ngone: gone.wasm\n",
        );
    let said = formation
        .cli(["check"])
        .failed(2, "Procfile:2: process.api: the route / belongs to \"web\" already")
        .stderr;
    for part in [
        "Procfile:4: process.clock: ",
        "doesn't say what calls it",
        "Procfile:5: process.release: ",
        "Procfile:6: process.gone: the component ",
        "a Procfile can't say that: `wasmhost import` writes a formation.toml for it, which can",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[test]
fn a_procfile_and_its_formation_have_one_state() {
    let formation = three_lines();
    let host = Host::run(&formation);
    let id = host.enqueue("elsewhere", "kept");
    host.stop().done();
    formation.cli(["import"]).done();
    let host = Host::run(&formation);
    let text = host.cli(["jobs", "show", &id.to_string()]).done();
    assert!(text.contains("elsewhere"), "{text}");
    // A verb that names the other file is not for this host.
    host.cli(["-f", "Procfile", "ps"]).failed(5, "runs");
    eventually("it serves", || (host.get("/ok").status == 200).then_some(()));
}
