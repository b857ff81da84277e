//! All verbs, found by walking through what `--help` lists: each has an example, fits 80 columns, and has JSON and a man
//! page. A new verb with `--json` is added to [`with_json`].

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::harness::{Formation, Host, guest_file};

/// Verbs whose output is a program's, a shell's or a file's, that go on for as long as a host does, or have others below.
const WITHOUT_JSON: [&str; 8] =
    ["run", "dev", "exec", "completions", "componentize", "jobs", "export", "top"];

/// A verb, with those above it.
type Verb = Vec<String>;

fn help(formation: &Formation, verb: &[String], flag: &str) -> String {
    let arguments = verb.iter().map(String::as_str).chain([flag]).collect();
    formation.start_of(arguments).wait().done()
}

/// The verbs below this one.
fn below(formation: &Formation, verb: &[String]) -> Vec<Verb> {
    let help = help(formation, verb, "--help");
    let Some((_, commands)) = help.split_once("Commands:\n") else { return vec![] };
    let names = commands.lines().take_while(|line| !line.is_empty()).filter_map(|line| {
        let name = line.strip_prefix("  ")?.split(' ').next()?;
        (!name.is_empty() && name != "help").then(|| name.to_owned())
    });
    let mut verbs = vec![];
    for name in names {
        let verb: Verb = verb.iter().cloned().chain([name]).collect();
        verbs.extend(below(formation, &verb));
        verbs.push(verb);
    }
    verbs
}

fn all(formation: &Formation) -> Vec<Verb> {
    let verbs = below(formation, &[]);
    assert!(verbs.len() > 20, "{verbs:?}");
    verbs
}

#[test]
fn each_verb_has_an_example_and_fits_eighty_columns() {
    let formation = Formation::new();
    let mut verbs = all(&formation);
    verbs.push(vec![]);
    for verb in verbs {
        for flag in ["--help", "-h"] {
            let help = help(&formation, &verb, flag);
            for line in help.lines() {
                let length = line.chars().count();
                assert!(length <= 80, "{verb:?} {flag} has a line of {length} characters: {line}");
            }
            let example = format!("\n  wasmhost {}", verb.join(" "));
            let examples = help.split_once("\nExamples:\n").or_else(|| help.split_once("\nExample:\n"));
            let (_, examples) = examples.unwrap_or_else(|| panic!("{verb:?}: {help}"));
            assert!(format!("\n{examples}").contains(&example), "{verb:?} has no example with it: {help}");
        }
    }
}

#[test]
fn each_verb_has_a_man_page() {
    let formation = Formation::new();
    let written = formation.cli(["man", "pages/man1"]).done();
    let mut verbs = all(&formation);
    verbs.push(vec![]);
    let mut expected = BTreeSet::new();
    for verb in &verbs {
        let name =
            ["wasmhost"].into_iter().chain(verb.iter().map(String::as_str)).collect::<Vec<_>>().join("-");
        let page = formation.read(&format!("pages/man1/{name}.1"));
        for section in [".TH ", ".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH EXAMPLES\n.nf\n"] {
            assert!(page.contains(section), "{section} of {name} in\n{page}");
        }
        expected.insert(format!("pages/man1/{name}.1"));
    }
    assert_eq!(written.lines().map(str::to_owned).collect::<BTreeSet<_>>(), expected);
    // No page of what is hidden.
    assert!(!formation.path("pages/man1/wasmhost-man.1").exists());
    fs::write(formation.path("file"), "").unwrap();
    formation.cli(["man", "file/man1"]).failed(1, "can't write to file/man1");
}

/// How each verb with `--json` is called, so that it comes to an end. Those that stop the host come last.
fn with_json(component: &str) -> Vec<Vec<&str>> {
    vec![
        vec!["check"],
        vec!["compile", component, "-o", "compiled.cwasm"],
        vec!["new", "fresh", "--lang", "c"],
        vec!["build", "-f", "built.toml"],
        vec!["init", "-f", "found.toml"],
        vec!["import", "-o", "imported.toml"],
        vec!["import", "-o", "-"],
        vec!["export", "systemd", "units"],
        vec!["export", "procfile"],
        vec!["export", "procfile", "-o", "Procfile.exported"],
        vec!["ps"],
        vec!["ps", "web"],
        vec!["scale"],
        vec!["scale", "web=2"],
        vec!["scale", "--reset"],
        vec!["scale", "web=1", "--no-wait"],
        vec!["logs"],
        vec!["logs", "host"],
        vec!["restart", "web"],
        vec!["enqueue", "q", "ok"],
        vec!["tick", "clock"],
        vec!["ticks"],
        vec!["jobs", "ls"],
        vec!["jobs", "show", "1"],
        vec!["jobs", "retry", "--all"],
        vec!["jobs", "cancel", "--all"],
        vec!["jobs", "discard", "--all"],
        vec!["jobs", "pause", "q"],
        vec!["jobs", "resume", "q"],
        vec!["jobs", "stats"],
        vec!["jobs", "backup", "copy.db"],
        vec!["deploy", "--canary", "50%"],
        vec!["abort"],
        vec!["deploy", "--canary", "50%"],
        vec!["promote"],
        vec!["rollback"],
        vec!["deploy", "--canary", "50%"],
        vec!["promote"],
        vec!["rollback"],
        vec!["deploy", "--canary", "50%"],
        vec!["abort"],
        vec!["releases"],
        vec!["releases", "show", "1"],
        vec!["stop"],
    ]
}

#[test]
fn what_each_verb_prints_as_json_can_be_read() {
    let formation = Formation::web("")
        .process("worker", "job-test", "queue = \"q\"")
        .process(
            "clock",
            "tick-test",
            "schedule = \"@yearly\"\ndirs = [{ host = \"out\", guest = \"/out\", access = \"write\" }]",
        )
        .directory("out")
        .with_guest("cmd-test", "tools.wasm")
        .with_file("Procfile", "tools: tools.wasm\n")
        .with_file(
            "built.toml",
            "[process.tools]\ncomponent = \"built.wasm\"\nbuild = \"cp tools.wasm built.wasm\"\n",
        );
    let component = guest_file("cmd-test-core");
    let calls = with_json(component.to_str().unwrap());
    for verb in all(&formation) {
        let words: Vec<_> = verb.iter().map(String::as_str).collect();
        // It goes on until a person ends it.
        let is_watch = [&["jobs", "watch"][..], &["events"], &["dashboard"]].contains(&words.as_slice());
        let has_json = help(&formation, &verb, "--help").contains("--json");
        assert!(has_json || WITHOUT_JSON.contains(&verb.join(" ").as_str()), "{verb:?} has no --json");
        let is_called = calls.iter().any(|call| call.starts_with(&words));
        assert!(
            is_called || !has_json || is_watch,
            "{verb:?} has --json, and this test doesn't know how to call it"
        );
    }
    let host = Host::run(&formation);
    host.get("/log?lines=1").ok();
    // So that there is something to deploy, and to go back from.
    formation.replace("[process.worker]\n", "[process.worker]\nenv = { NEW = \"1\" }\n");
    for mut call in calls {
        call.push("--json");
        let ended = host.cli_of(call.clone());
        assert!([0, 1].contains(&ended.code), "{call:?}: {ended:#?}");
        let whole = serde_json::from_str::<Value>(&ended.stdout).is_ok();
        let lines = ended.stdout.lines().all(|line| serde_json::from_str::<Value>(line).is_ok());
        assert!((whole || lines) && !ended.stdout.is_empty(), "{call:?}: {ended:#?}");
    }
    host.wait().done();
}
