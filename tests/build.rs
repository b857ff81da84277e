//! `wasmhost build`, and `wasmhost componentize`, which builds call.

use std::fs;

use rustix::process::{Pid, Signal, test_kill_process};
use serde_json::Value;

use crate::harness::{Formation, eventually, guest_file};

/// A type whose build counts its runs in a file that is no source.
fn counted(keys: &str) -> Formation {
    Formation::new()
        .table(&format!("[process.web]\ncomponent = \"web.wasm\"\n{keys}"))
        .with_guest("web-test", "src/web.wasm")
        .with_file(".gitignore", "runs\n")
}

const COPY: &str = "build = \"echo run >> runs; echo copying; cp src/web.wasm web.wasm\"";

fn runs(formation: &Formation) -> usize {
    formation.read("runs").lines().count()
}

#[test]
fn a_component_is_built_when_its_sources_or_its_command_change() {
    let formation = counted(COPY);
    formation.cli(["check"]).failed(4, "web.wasm doesn't exist: `wasmhost build` builds it");
    let ended = formation.cli(["build"]);
    assert!(ended.stderr.contains("web        | copying\n"), "{ended:#?}");
    assert!(ended.done().starts_with("web: built "));
    formation.cli(["check"]).done();
    let again = formation.cli(["build", "web"]).done();
    assert!(again.contains("its sources haven't changed"), "{again}");
    assert_eq!(runs(&formation), 1);

    let told: Value = serde_json::from_str(&formation.cli(["build", "--json"]).done()).unwrap();
    assert_eq!((&told["process"], &told["built"]), (&"web".into(), &false.into()), "{told}");
    formation.cli(["build", "--force"]).done();
    assert_eq!(runs(&formation), 2);
    // A new file, another component, and another command.
    let formation = formation.with_file("src/note", "1");
    formation.cli(["build"]).done();
    assert_eq!(runs(&formation), 3);
    fs::write(formation.path("web.wasm"), "broken").unwrap();
    formation.cli(["build"]).done();
    assert_eq!(runs(&formation), 4);
    let formation = formation.replace("echo copying", "true");
    formation.cli(["build"]).done();
    assert_eq!(runs(&formation), 5);
    // Neither the formation's other keys nor what a build leaves out.
    let formation = formation.replace("[process.web]", "[process.web]\ncount = 2").with_file("target/x", "x");
    formation.cli(["build"]).done();
    assert_eq!(runs(&formation), 5);
}

#[test]
fn a_file_that_a_build_adds_is_no_change() {
    let formation = counted("build = \"echo run >> runs; echo 1 > lock; cp src/web.wasm web.wasm\"");
    formation.cli(["build"]).done();
    formation.cli(["build"]).done();
    assert_eq!(runs(&formation), 1);
}

#[test]
fn types_with_one_command_are_built_together() {
    let both = "build = \"echo run >> runs; cp src/web.wasm web.wasm; cp src/web.wasm api.wasm\"";
    let formation =
        counted(both).table(&format!("[process.api]\ncomponent = \"api.wasm\"\nroute = \"/api\"\n{both}"));
    let said = formation.cli(["build"]).done();
    assert!(said.contains("web: built ") && said.contains("api: built "), "{said}");
    assert_eq!(runs(&formation), 1);
    fs::remove_file(formation.path("api.wasm")).unwrap();
    let said = formation.cli(["build", "web"]).done();
    assert!(said.contains("web: its sources") && !said.contains("api"), "{said}");
    formation.cli(["build"]).done();
    assert_eq!(runs(&formation), 2);
}

#[test]
fn a_build_that_fails_says_why_and_what_to_do() {
    let failed = |build: &str, text: &str| {
        let formation = counted(&format!("build = {build:?}"));
        formation.cli(["build"]).failed(1, text);
        formation
    };
    failed(
        "echo oops >&2; exit 3",
        "the build of web failed: `echo oops >&2; exit 3` failed (exit status: 3)",
    );
    failed("no-such-compiler -O2", "no-such-compiler is missing: install it, or correct `build`");
    // As where these tools aren't installed.
    failed(
        "echo 'sh: 1: npm: not found'; exit 127",
        "npm is missing: on Debian, as root: `apt-get install nodejs npm`",
    );
    let said = "echo 'note: the wasm32-wasip2 target may not be installed' >&2; exit 101";
    failed(said, "`rustup target add wasm32-wasip2`");
    let formation = failed("true", "web.wasm isn't there: `component` of web names it");
    formation.cli(["build", "wbe"]).failed(2, "there is no process type wbe; there are web");
    // Tried again, since nothing was built.
    formation.cli(["build"]).failed(1, "isn't there");

    let formation = Formation::web("");
    formation.cli(["build"]).failed(2, "no type has a `build`");
    formation.cli(["build", "web"]).failed(2, "web has no `build`");
    Formation::new().cli(["build"]).failed(2, "formation.toml");
}

#[test]
fn an_interrupted_build_ends_with_all_that_it_started() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let formation = counted("build = \"sleep 1000 & echo $! > child; mv child runs; wait\"");
        let process = formation.start(["build"]);
        let child = eventually("the build runs", || formation.read("runs").trim().parse().ok());
        process.signal(signal);
        assert_eq!(process.wait().code, code);
        let child = Pid::from_raw(child).unwrap();
        eventually("its child has ended", || is_gone(child).then_some(()));
    }
}

/// Whether a process has ended. The process that takes note of an orphan's end may be slow to do so.
pub(crate) fn is_gone(process: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).unwrap_or_default();
    let state = status.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
    test_kill_process(process).is_err() || state == Some(Some('Z'))
}

#[test]
fn a_core_module_becomes_a_component_that_runs() {
    let formation = Formation::new();
    let core = guest_file("cmd-test-core");
    formation.cli(["componentize", core.to_str().unwrap(), "-o", "tool.wasm"]).done();
    let said = formation.cli(["run", "tool.wasm", "echo", "said"]).done();
    assert!(said.contains("said"), "{said}");
    // Text, with the world that it is for, which its compiler doesn't write into it.
    let formation = formation
        .with_file(
            "adds.wat",
            "(module (func (export \"add\") (param i32 i32) (result i32) local.get 0 local.get 1 i32.add))",
        )
        .with_file(
            "adds.wit",
            "package test:adds;\nworld adder { export add: func(a: u32, b: u32) -> u32; }\n",
        );
    formation
        .cli(["componentize", "adds.wat", "--wit", "adds.wit", "--world", "adder", "-o", "adds.wasm"])
        .done();
    formation.cli(["run", "adds.wasm"]).failed(4, "add");
}

#[test]
fn what_is_no_core_module_is_refused_with_what_it_is() {
    let formation = Formation::new().with_file("text.wasm", "hello").with_file("empty.wit", "package a:b;");
    let refused = |module: &str, wit: Option<&str>, text: &str| {
        let mut arguments = vec!["componentize", module, "-o", "out.wasm"];
        arguments.extend(wit.into_iter().flat_map(|wit| ["--wit", wit]));
        formation.start_of(arguments).wait().failed(4, text);
        assert!(!formation.path("out.wasm").exists());
    };
    let component = guest_file("web-test");
    refused(component.to_str().unwrap(), None, "is a component already, expected a core module");
    refused("text.wasm", None, "text.wasm is no core module");
    refused("missing.wasm", None, "can't read missing.wasm");
    let core = guest_file("cmd-test-core");
    refused(core.to_str().unwrap(), Some("empty.wit"), "the world can't be taken from empty.wit");
    refused(core.to_str().unwrap(), Some("nowhere"), "the world can't be taken from nowhere");
}
