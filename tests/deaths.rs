//! The report to a person on the last instance that died: how, when, and its last lines.

use serde_json::Value;

use crate::harness::http::Request;
use crate::harness::{Formation, Host, eventually};

/// The report of a type, as soon as there is one in which this text is.
fn report(host: &Host, process: &str, text: &str) -> Value {
    eventually(text, || {
        let crash = host.ps().process(process)["last_crash"].clone();
        crash.to_string().contains(text).then_some(crash)
    })
}

#[test]
fn a_trap_is_told_with_its_backtrace_and_its_last_lines() {
    let host = Host::run(&Formation::web("count = 2"));
    assert_eq!(host.ps().process("web")["last_crash"], Value::Null);
    host.get("/log?lines=30").ok();
    // A request that isn't repeated, and so kills one instance alone.
    host.send(&Request::post("/trap", "")).is_error(502, "H13");
    let crash = report(&host, "web", "unreachable");
    let name = crash["instance"].as_str().unwrap();
    assert_eq!(
        (&crash["cause"], &crash["exit_code"], &crash["starting"]),
        (&"trap".into(), &Value::Null, &false.into())
    );
    assert!(crash["message"].as_str().unwrap().contains("unreachable"), "{crash:#}");
    let backtrace = crash["backtrace"].as_str().unwrap();
    assert!(backtrace.contains("wasm backtrace:") && backtrace.len() <= 16 << 10, "{backtrace}");
    let time = crash["time"].as_str().unwrap();
    assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    let lines = crash["lines"].as_array().unwrap();
    assert!((1..=20).contains(&lines.len()), "{crash:#}");
    assert!(lines.iter().all(|line| line["instance"] == name), "{crash:#}");
    assert!(lines.iter().any(|line| line["line"].as_str().unwrap().contains("asked to trap")), "{crash:#}");

    let text = host.cli(["ps", "web"]).done();
    for part in [
        format!("{name} died "),
        "it trapped".into(),
        "asked to trap".into(),
        format!("lines that {name} wrote"),
    ] {
        assert!(text.contains(&part), "{part} in\n{text}");
    }
    // Where nobody asks for the type, a line says that there is more.
    let text = host.cli(["ps"]).done();
    assert!(
        text.contains(&format!("`wasmhost ps web`: {name} died ")) && !text.contains("asked to trap"),
        "{text}"
    );
}

#[test]
fn a_type_that_was_removed_takes_its_death_along() {
    let formation = Formation::web("").process("other", "web-test", "route = \"/trap\"");
    let host = Host::run(&formation);
    let both = formation.text();
    host.get("/trap").is_error(502, "H13");
    report(&host, "other", "unreachable");
    let one = both.split_once("[process.other]").unwrap().0.to_owned();
    let formation = formation.with_text(&one);
    host.cli(["deploy"]).done();
    eventually("it is gone", || (host.ps().0["types"].as_array().unwrap().len() == 1).then_some(()));
    let _formation = formation.with_text(&both);
    host.cli(["deploy"]).done();
    assert_eq!(host.ps().process("other")["last_crash"], Value::Null);
}

#[test]
fn the_last_twenty_lines_are_those_of_the_one_that_died() {
    let host = Host::run(&Formation::web("count = 1\ntimeout = \"1s\""));
    host.get("/log?lines=30").ok();
    // Not a crash: one of these would be tried again, on an instance that has written nothing.
    host.get("/loop").is_error(504, "H12");
    let crash = report(&host, "web", "timeout");
    let lines = crash["lines"].as_array().unwrap();
    assert_eq!((lines.len(), &lines[19]["line"]), (20, &"without its end".into()), "{crash:#}");
    // Its successor has the same name, and wrote nothing before it died.
    host.get("/exit?code=1").is_error(502, "H13");
    let crash = report(&host, "web", "\"cause\":\"exit\"");
    assert_eq!((&crash["instance"], &crash["lines"]), (&"web.1".into(), &Value::Array(vec![])), "{crash:#}");
    assert!(host.cli(["ps", "web"]).done().contains("It had written no line."));
}

#[test]
fn each_way_to_die_has_its_name() {
    let keys = "memory = \"16MiB\"\ntimeout = \"1s\"\ncount = 1";
    let formation = Formation::web(keys).process("tool", "cmd-test", "args = [\"exit\", \"1\"]");
    let host = Host::launch(&formation);
    for (target, cause, words) in
        [("/alloc", "out_of_memory", "out of memory"), ("/loop", "timeout", "timeout")]
    {
        let answer = eventually("an answer of the guest's", || {
            let answer = host.get(target);
            (answer.status != 503).then_some(answer.status)
        });
        assert!([502, 504].contains(&answer), "{target}: {answer}");
        let crash = report(&host, "web", cause);
        assert_eq!((&crash["cause"], &crash["backtrace"]), (&cause.into(), &Value::Null), "{crash:#}");
        let text = host.cli(["ps", "web"]).done();
        assert!(text.contains(words), "{text}");
    }
    let crash = report(&host, "tool", "exited with code 1");
    assert_eq!((&crash["cause"], &crash["exit_code"]), (&"exit".into(), &1.into()), "{crash:#}");
    assert!(host.cli(["ps", "tool"]).done().contains("it exited with code 1"));
}

#[test]
fn one_type_alone_can_be_shown() {
    let formation = Formation::web("").process("other", "web-test", "route = \"/other\"");
    let host = Host::run(&formation);
    let text = host.cli(["ps", "other"]).done();
    assert!(text.contains("other.1") && !text.contains("web.1"), "{text}");
    let json: Value = serde_json::from_str(&host.cli(["ps", "other", "--json"]).done()).unwrap();
    assert_eq!(json["types"].as_array().unwrap().len(), 1, "{json:#}");
    assert_eq!(json["types"][0]["lines_dropped"], 0, "{json:#}");
    host.cli(["ps", "othre"]).failed(1, "there is no process type \"othre\"; this formation has web, other");
}

#[test]
fn what_a_dead_instance_wrote_fits_eighty_columns_and_does_not_act_on_a_terminal() {
    let host = Host::run(&Formation::new().process("worker", "job-test", "queue = \"q\"\nattempts = 1"));
    host.enqueue("q", &format!("print:\u{1b}[2J{}", "long ".repeat(100)));
    host.stdout().wait_for("long long");
    host.enqueue("q", "trap");
    report(&host, "worker", "unreachable");
    let text = host.cli(["ps", "worker"]).done();
    assert!(text.contains("| \\u{1b}[2Jlong long"), "{text}");
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{} of {line:?}", line.chars().count());
    }
}
