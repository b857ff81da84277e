//! Texts of guests, components, jobs and files are data: whatever is in them, a terminal shows it and does nothing else. And
//! the values of secrets are in no text at all.

use std::fs;

use crate::harness::{Ended, Formation, Host, eventually};

/// Clears a screen, sets a title, turns the order of letters around, ends a line, and looks like a line of the log.
const EVIL: &str =
    "\u{1b}[2J\u{9b}2J\u{1b}]0;title\u{7}\u{202e}\u{2066}\u{200b}\r2026-11-21T05:10:12Z ERROR lost";

/// Whether a terminal would do something else with a character than show it.
fn acts(c: char) -> bool {
    let invisible = ['\u{202e}', '\u{2066}', '\u{200b}', '\u{feff}'];
    c.is_control() && c != '\n' && c != '\t' || invisible.contains(&c)
}

#[track_caller]
fn is_fit(what: &str, text: &str) {
    assert!(!text.contains(acts), "{what}: {text:?}");
    assert!(text.len() < 64 << 10, "{what}: {} bytes", text.len());
}

#[track_caller]
fn fit(what: &str, ended: Ended) -> Ended {
    is_fit(what, &ended.stdout);
    is_fit(what, &ended.stderr);
    ended.never_panicked()
}

/// A command that traps in a function of this name.
fn trapping(name: &str) -> Vec<u8> {
    let name: String = name.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    wat::parse_str(format!("(module (func $\"{name}\" (export \"_start\") unreachable))")).unwrap()
}

#[test]
fn names_of_functions_in_a_backtrace_are_shown_and_do_nothing() {
    let long = format!("{EVIL}{}", "x".repeat(90_000));
    for name in [EVIL, &long] {
        let formation = Formation::new().table("[process.evil]\ncomponent = \"evil.wasm\"\nrun = \"always\"");
        fs::write(formation.path("evil.wasm"), trapping(name)).unwrap();
        let ran = fit("run app", formation.cli(["run", "evil.wasm"]));
        assert!(ran.code == 134 && ran.stderr.contains("\\u{1b}[2J\\u{9b}2J"), "{ran:#?}");
        let ran = fit("exec", formation.cli(["exec", "evil"]));
        assert!(ran.code == 134 && ran.stderr.contains("\\u{202e}"), "{ran:#?}");
        let host = Host::launch(&formation);
        eventually("it has crashed", || {
            fit("ps TYPE", host.cli(["ps", "evil"])).stdout.contains("\\u{1b}[2J").then_some(())
        });
        fit("ps --json", host.cli(["ps", "--json"]));
        fit("logs host", host.cli(["logs", "host"]));
        for line in fit("the host", host.stop()).stderr.lines() {
            assert!(!line.starts_with("2026-11-21"), "{line:?}");
        }
    }
}

#[test]
fn names_of_files_are_shown_and_do_nothing() {
    let name = "a\u{1b}[2J\u{202e}b.wasm";
    let table = format!("[process.tool]\ncomponent = {}\nrun = \"never\"", serde_json::json!(name));
    let formation = Formation::new().table(&table);
    fit("it lacks", formation.cli(["check"])).failed(4, "a\\u{1b}[2J\\u{202e}b.wasm doesn't exist");
    fit("it lacks", formation.cli(["compile", name])).failed(4, "doesn't exist");
    fit("it lacks", formation.cli(["run", name]));
    fs::write(formation.path(name), "text").unwrap();
    fit("it is none", formation.cli(["check"])).failed(4, "is not WebAssembly");
    fit("it is none", formation.cli(["compile", name])).failed(4, "is not WebAssembly");
    fs::write(formation.path(name), trapping("main")).unwrap();
    for verb in [
        vec!["check"],
        vec!["check", "--json"],
        vec!["compile", name],
        vec!["run", name],
        vec!["exec", "tool"],
    ] {
        let what = format!("{verb:?}");
        fit(&what, formation.start_of(verb).wait());
    }
    let host = Host::run(&formation);
    let more = formation.table("[process.more]\ncomponent = \"\\u001b[2J.wasm\"\nrun = \"never\"");
    fit("a deploy", host.cli(["deploy"])).failed(1, "\\u{1b}[2J.wasm doesn't exist");
    fs::write(more.path("\u{1b}[2J.wasm"), trapping("main")).unwrap();
    for verb in [
        vec!["deploy", "--dry-run"],
        vec!["deploy"],
        vec!["ps"],
        vec!["releases"],
        vec!["releases", "show", "v2"],
        vec!["releases", "show", "v2", "--json"],
        vec!["rollback"],
        vec!["logs", "host"],
    ] {
        let what = format!("{verb:?}");
        fit(&what, host.cli_of(verb));
    }
    fit("the host", host.stop());
}

#[test]
fn texts_of_a_formation_and_of_jobs_are_shown_and_do_nothing() {
    let formation = Formation::new()
        .top("")
        .process("worker", "job-test", "queue = \"q\"\nattempts = 2\nbackoff = [\"0s\"]")
        .replace("name = \"test\"", "name = \"a\u{202e}b\u{200b}\"");
    fit("check", formation.cli(["check"])).done();
    fit("check", formation.cli(["check", "--json"])).done();
    let host = Host::run(&formation);
    let id = host.enqueue("q", &format!("retry:{EVIL}"));
    host.store().wait_for(id, "dead");
    let unique = format!("{EVIL}{}", "k".repeat(100));
    fit("enqueue", host.cli(["enqueue", "q", "x", "--unique", &unique, "--in", "1h"]));
    let number = id.to_string();
    for verb in [
        vec!["ps"],
        vec!["ps", "worker"],
        vec!["jobs", "ls"],
        vec!["jobs", "ls", "--json"],
        vec!["jobs", "show", &number],
        vec!["jobs", "show", &number, "--json"],
        vec!["enqueue", EVIL, "x"],
        vec!["jobs", "pause", EVIL],
        vec!["scale", &format!("{EVIL}=2")],
        vec!["scale", &format!("worker={EVIL}")],
        vec!["jobs", "show", EVIL],
        vec!["logs", "--since", EVIL],
        vec!["logs", EVIL],
        vec!["exec", EVIL],
        vec!["tick", EVIL],
        vec!["releases", "show", EVIL],
    ] {
        let what = format!("{verb:?}");
        fit(&what, host.cli_of(verb));
    }
    fit("the host", host.stop());
}

#[test]
fn the_values_of_secrets_are_in_no_text() {
    const SECRET: &str = "s3cr3t-Value-of-1";
    let keys = "env = { A = \"${SECRET}\", B = { from_env = \"SECRET\" }, C = { file = \"secret\" }, D = \"x-${DOTENV}-y\" }";
    let formation = Formation::web(keys)
        .process("tool", "cmd-test", "run = \"never\"\nenv = { A = { from_env = \"SECRET\" } }")
        .variable("SECRET", SECRET)
        .variable("WASMHOST_LOG", "debug")
        .with_file("secret", &format!("{SECRET}\n"))
        .with_file(".env", &format!("DOTENV={SECRET}\n"));
    let host = Host::run(&formation);
    let tells = |what: &str, ended: &Ended| {
        let text = format!("{}{}", ended.stdout, ended.stderr).to_lowercase();
        assert!(!text.contains("s3cr3t"), "{what}: {ended:#?}");
    };
    // Other values, which a deploy compares with these.
    fs::write(formation.path("secret"), "s3cr3t-other\n").unwrap();
    fs::write(formation.path(".env"), "DOTENV=s3cr3t-other\n").unwrap();
    for verb in [
        vec!["ps"],
        vec!["ps", "web"],
        vec!["ps", "--json"],
        vec!["check"],
        vec!["check", "--json"],
        vec!["deploy", "--dry-run"],
        vec!["deploy"],
        vec!["releases"],
        vec!["releases", "show", "v1"],
        vec!["releases", "show", "v2"],
        vec!["releases", "show", "v2", "--json"],
        vec!["releases", "show", "v2", "--formation"],
        vec!["export", "procfile"],
        vec!["exec", "tool", "--", "exit", "3"],
        vec!["exec", "tool", "--", "trap"],
        vec!["exec", "web"],
        vec!["logs", "host"],
        vec!["jobs", "stats"],
    ] {
        tells(&format!("{verb:?}"), &host.cli_of(verb));
    }
    tells("the host", &host.stop());
}

#[test]
fn names_of_the_command_line_are_shown_on_one_line() {
    let evil = format!("web\nerror: forged\n{EVIL}");
    let formation = Formation::web("");
    let _host = Host::run(&formation);
    let change = format!("{evil}=2");
    let queue = ["enqueue", evil.as_str(), "x"];
    for arguments in [
        ["exec", &evil, "x"],
        ["restart", &evil, "--json"],
        ["ps", &evil, "--json"],
        ["tick", &evil, "--json"],
        ["ticks", &evil, "--json"],
        ["logs", &evil, "--json"],
        ["scale", &change, "--json"],
        ["scale", "--reset", &evil],
        ["rollback", &evil, "--json"],
        ["compile", &evil, "--json"],
        ["check", &evil, "--json"],
        ["-f", &evil, "ps"],
        ["-H", &evil, "ps"],
        queue,
    ] {
        let ended = formation.cli(arguments);
        assert_ne!(ended.code, 0, "{ended:#?}");
        let ended = fit(&format!("{arguments:?}"), ended);
        let forged: Vec<_> = ended.stderr.lines().filter(|line| line.starts_with("error: forged")).collect();
        assert!(forged.is_empty(), "{arguments:?}: {ended:#?}");
    }
}
