//! Completions, asked for by a real shell.

use std::ffi::OsString;
use std::process::{Command, Stdio};

use crate::harness::{Formation, Host, command, eventually};

/// Bash's offers for the last word of a line, with the cursor behind it.
fn offered(formation: &Formation, line: &str) -> Vec<String> {
    let binary = command(formation.folder(), ["completions", "bash"], &[]);
    let folder = std::path::Path::new(binary.get_program()).parent().unwrap();
    // As bash itself does it: the words of the line, the place of the last one, and what is to be completed.
    let script = r#"
        source <(wasmhost completions bash) || exit 1
        [[ $(complete -p wasmhost) == *"-F _clap_complete_wasmhost wasmhost" ]] || exit 2
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9
        _clap_complete_wasmhost wasmhost "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let path: OsString = std::env::join_paths(
        [folder.to_owned()].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    )
    .unwrap();
    let ended = Command::new("bash")
        .args(["--norc", "-c", script, "bash"])
        .args(line.split(' '))
        .current_dir(formation.folder())
        .env("PATH", path)
        .env_remove("WASMHOST_FILE")
        .env_remove("WASMHOST_HOST")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(ended.status.success(), "{line}: {ended:?}");
    let offered = String::from_utf8(ended.stdout).unwrap();
    offered.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// The same without options.
fn names(formation: &Formation, line: &str) -> Vec<String> {
    offered(formation, line).into_iter().filter(|word| !word.starts_with('-')).collect()
}

/// The host's names are offered. Bash doesn't wait for a busy host for long, and then has the names of the formation.
#[track_caller]
fn come_to_be_offered(formation: &Formation, line: &str, expected: &[&str]) {
    eventually(&format!("{line}: {expected:?}"), || {
        let mut offered = names(formation, line);
        offered.sort();
        (offered == expected).then_some(())
    });
}

fn formation() -> Formation {
    Formation::web("count = 2")
        .process("worker", "job-test", "queue = { mail = 1, letters = 2 }")
        .process(
            "nightly",
            "tick-test",
            "schedule = \"@yearly\"\ndirs = [{ host = \"out\", guest = \"/out\", access = \"write\" }]",
        )
        .directory("out")
}

#[test]
fn bash_completes_verbs_and_options() {
    let formation = Formation::new();
    assert_eq!(offered(&formation, "wasmhost sc"), ["scale"]);
    assert_eq!(offered(&formation, "wasmhost jobs re"), ["retry", "resume"]);
    assert_eq!(offered(&formation, "wasmhost logs --fo"), ["--follow"]);
    assert_eq!(offered(&formation, "wasmhost logs host --level w"), ["warn"]);
    let verbs = names(&formation, "wasmhost ");
    assert!(verbs.contains(&"run".to_owned()) && !verbs.contains(&"man".to_owned()), "{verbs:?}");
}

#[test]
fn bash_completes_names_that_the_running_host_knows() {
    let formation = formation();
    let host = Host::run(&formation);
    come_to_be_offered(&formation, "wasmhost scale w", &["web=", "worker="]);
    come_to_be_offered(&formation, "wasmhost restart web", &["web", "web.1", "web.2"]);
    assert_eq!(names(&formation, "wasmhost ps n"), ["nightly"]);
    assert_eq!(names(&formation, "wasmhost tick "), ["nightly"]);
    eventually("instances can be followed", || {
        let targets = names(&formation, "wasmhost logs -f ");
        ["web", "web.1", "worker.1", "host"]
            .iter()
            .all(|name| targets.contains(&name.to_string()))
            .then_some(())
    });
    assert_eq!(names(&formation, "wasmhost exec ni"), ["nightly"]);
    for line in ["wasmhost rollback ", "wasmhost releases show v"] {
        come_to_be_offered(&formation, line, &["v1"]);
    }
    // A queue that the formation doesn't name.
    host.enqueue("letterbox", "ok");
    come_to_be_offered(&formation, "wasmhost jobs pause le", &["letterbox", "letters"]);
    assert_eq!(names(&formation, "wasmhost jobs ls --queue ma"), ["mail"]);
    // The names come from another formation, which the line names.
    let elsewhere = Formation::new();
    let file = formation.file();
    let file = file.to_str().unwrap();
    assert_eq!(names(&elsewhere, &format!("wasmhost -f {file} ps we")), ["web"]);
    come_to_be_offered(&elsewhere, &format!("wasmhost logs -F {file} web."), &["web.1", "web.2"]);
    // Releases are known without it, too.
    host.stop().done();
    assert_eq!(names(&formation, "wasmhost releases show "), ["v1"]);
}

#[test]
fn without_a_host_the_formation_says_the_names() {
    let formation = formation();
    assert_eq!(names(&formation, "wasmhost ps "), ["web", "worker", "nightly"]);
    assert_eq!(names(&formation, "wasmhost tick "), ["nightly"]);
    let mut queues = names(&formation, "wasmhost enqueue ");
    queues.sort();
    assert_eq!(queues, ["letters", "mail"]);
    // Without a formation too, or with a broken one, nothing is said.
    assert_eq!(names(&Formation::new(), "wasmhost ps "), [""; 0]);
    std::fs::write(formation.file(), "nonsense").unwrap();
    assert_eq!(names(&formation, "wasmhost ps "), [""; 0]);
}

#[test]
fn each_shell_has_a_script_that_asks_the_program() {
    let formation = Formation::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = formation.cli(["completions", shell]).done();
        assert!(script.contains("WASMHOST_COMPLETE") && script.contains("wasmhost"), "{shell}: {script}");
    }
    formation.cli(["completions", "csh"]).failed(2, "possible values: bash");
}
