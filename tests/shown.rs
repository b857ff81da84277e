//! The output for people and programs: tables that fit, JSON of one shape, and words that say what to do.

use serde_json::Value;

use crate::harness::{Ended, Formation, Host, eventually};

fn json(ended: Ended) -> Value {
    let text = ended.done();
    serde_json::from_str(&text).unwrap_or_else(|err| panic!("{err}: {text}"))
}

/// The clock writes there.
const OUT: &str = "dirs = [{ host = \"out\", guest = \"/out\", access = \"write\" }]";

/// The whole shop of triggers, with names that are longer than most.
fn formation() -> Formation {
    Formation::web("count = 2")
        .process(
            "mail-worker",
            "job-test",
            "queue = { newsletters = 1, password-resets = 2 }\nattempts = 4\nbackoff = [\"0s\"]",
        )
        .process("nightly", "tick-test", &format!("schedule = \"@yearly\"\n{OUT}"))
        .directory("out")
}

#[test]
fn each_verb_with_output_has_json_of_one_shape() {
    let host = Host::run(&formation());
    for arguments in
        [vec!["scale", "--json"], vec!["scale", "web=1", "--json"], vec!["scale", "--reset", "--json"]]
    {
        let scaled = json(host.cli_of(arguments));
        assert_eq!(scaled["settled"], true, "{scaled}");
        assert_eq!(scaled["types"][0]["process"], "web", "{scaled}");
    }
    let restarted = json(host.cli(["restart", "web", "--json"]));
    assert_eq!((&restarted["restarted"], &restarted["settled"]), (&2.into(), &true.into()));
    for (verb, paused) in [("pause", true), ("resume", false)] {
        let lines = host.cli(["jobs", verb, "newsletters", "password-resets", "--json"]).done();
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1]["queue"], "password-resets");
        assert_eq!((&lines[0]["paused"], &lines[0]["changed"]), (&paused.into(), &true.into()));
    }
    let backup = json(host.cli(["jobs", "backup", "copy.db", "--json"]));
    assert!(backup["file"].as_str().unwrap().ends_with("/copy.db") && backup["bytes"].as_u64().unwrap() > 0);
    for arguments in
        [["jobs", "stats", "--json"], ["tick", "nightly", "--json"], ["ticks", "nightly", "--json"]]
    {
        json(host.cli(arguments));
    }
    json(host.cli(["ps", "--json"]));
    json(host.cli(["check", "--json"]));
    assert_eq!(json(host.cli(["stop", "--json"]))["stopped"], true);
    host.wait().done();
}

#[test]
fn tables_fit_eighty_columns() {
    let formation =
        formation().process("crashing-command", "cmd-test", "args = [\"exit\", \"3\"]\ncount = 2");
    let host = Host::launch(&formation);
    for _ in 0..3 {
        host.enqueue(
            "newsletters",
            "retry:it broke, and this says at length how and why, since errors are like that",
        );
    }
    host.cli([
        "enqueue",
        "password-resets",
        "x",
        "--in",
        "1h",
        "--priority",
        "3",
        "--unique",
        "a-rather-long-key",
    ])
    .done();
    host.cli(["tick", "nightly"]).done();
    host.cli(["jobs", "pause", "password-resets"]).done();
    eventually("a command waits to be started again", || {
        (host.ps().in_state("crashing-command", "backoff") > 0).then_some(())
    });
    for arguments in [vec!["ps"], vec!["jobs", "stats"], vec!["jobs", "ls"], vec!["ticks"]] {
        let text = host.cli_of(arguments.clone()).done();
        for line in text.lines() {
            assert!(
                line.chars().count() <= 80,
                "{arguments:?}: {} of {line:?}\n{text}",
                line.chars().count()
            );
        }
        for name in ["mail-worker", "password-resets", "nightly"] {
            let is_shown = text.contains(name) || !text.contains(&name[..4]);
            assert!(is_shown, "a name is whole: {arguments:?}\n{text}");
        }
    }
    // A wider terminal shows more.
    let wide = formation.variable("COLUMNS", "300").cli(["jobs", "ls"]).done();
    assert!(wide.contains("since errors are"), "{wide}");
}

#[test]
fn a_job_that_died_with_attempts_left_says_why() {
    let host = Host::run(&formation());
    let crashing = host.enqueue("newsletters", "trap");
    host.store().wait_for(crashing, "dead");
    let text = host.cli(["jobs", "show", &crashing.to_string()]).done();
    assert!(text.contains("attempts  3/4") && text.contains("because   it crashed 3 times"), "{text}");
    let buried = host.enqueue("newsletters", "bury:no such address");
    host.store().wait_for(buried, "dead");
    let text = host.cli(["jobs", "show", &buried.to_string()]).done();
    assert!(text.contains("because   its handler buried it"), "{text}");
    let failed = host.enqueue("newsletters", "retry:again");
    host.store().wait_for(failed, "dead");
    let text = host.cli(["jobs", "show", &failed.to_string()]).done();
    assert!(text.contains("attempts  4/4") && !text.contains("because"), "{text}");
}

#[test]
fn a_drain_says_how_many_calls_it_waits_for() {
    let host = Host::run(&Formation::web("count = 2"));
    let held = host.hold();
    host.terminate();
    host.stderr().wait_for("draining: 1 call is under way (web 1)");
    held.end();
    host.wait().done();
    let idle = Host::run(&Formation::web(""));
    let ended = idle.stop();
    assert!(ended.stderr.contains("draining: no call is under way"), "{ended:#?}");
}

#[test]
fn a_drain_counts_each_of_the_calls_that_share_an_instance() {
    let formation = Formation::new().top("grace = \"1s\"").process("web", "wasi03-service", "count = 1");
    let host = Host::run(&formation);
    let mut clients: Vec<_> = (0..3).map(|_| host.connect()).collect();
    for client in &mut clients {
        client.send_raw(b"GET /late HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    }
    eventually("all calls are in it", || (host.ps().instances("web")[0]["calls_now"] == 3).then_some(()));
    host.terminate();
    host.stderr().wait_for("draining: 3 calls are under way (web 3)");
    assert_eq!(host.wait().code, 124);
}

#[test]
fn an_error_says_who_named_the_file() {
    let formation = Formation::new().variable("WASMHOST_FILE", "nowhere/formation.toml");
    for arguments in [vec!["ps"], vec!["check"], vec!["run"], vec!["jobs", "ls"], vec!["stop"]] {
        let ended = formation.start_of(arguments).wait().failed(2, "nowhere/formation.toml: no such file");
        assert!(
            ended.stderr.contains("the environment variable WASMHOST_FILE names nowhere/formation.toml"),
            "{ended:#?}"
        );
    }
    // Another one that is named is not the variable's.
    let ended = formation.cli(["-f", "elsewhere.toml", "ps"]).failed(2, "elsewhere.toml: no such file");
    assert!(!ended.stderr.contains("WASMHOST_FILE"), "{ended:#?}");

    let formation = Formation::web("");
    std::fs::rename(formation.file(), formation.path("other.toml")).unwrap();
    let formation = formation.variable("WASMHOST_FILE", "other.toml");
    let ended = formation.cli(["ps"]).failed(5, "no host runs other.toml");
    assert!(ended.stderr.contains("WASMHOST_FILE names other.toml"), "{ended:#?}");
    let process = formation.start(["run"]);
    process.stderr.wait_for("running other.toml, which the environment variable WASMHOST_FILE names");
}

#[test]
fn what_a_later_version_has_is_refused_with_words_that_say_so() {
    let formation = Formation::web("");
    formation.cli(["rnu"]).failed(2, "unrecognized subcommand 'rnu'");
    let formation = Formation::web("").replace("[http]", "[packages]\ntrust = []\n[http]");
    formation.cli(["check"]).failed(2, "packages: not supported yet by this version");
    Formation::web("count = { min = 1, max = 4 }")
        .cli(["check"])
        .failed(2, "not supported yet by this version");
    let formation = Formation::new().table("[process.web]\ncomponent = \"oci://registry.example/web:1\"");
    formation.cli(["check"]).failed(2, "not supported yet by this version");
}

#[test]
fn check_shows_what_was_inferred_and_every_default() {
    let formation = Formation::web("count = 3")
        .process("worker", "job-test", "queue = \"default\"")
        .process("tool", "cmd-test", "");
    let text = formation.cli(["check"]).done();
    for line in [
        "route = \"/\"",
        "timeout = \"30s\"",
        "timeout = \"15m\"",
        "run = \"always\"",
        "# called by wasi:http/incoming-handler@0.2.x, which it exports: `route` and `timeout` follow from that",
        "# backlog = 150, 50 for each instance",
        "# isolation = \"instance\", unless the component turns out to serve one call alone",
        "# isolation = \"call\": a command's main can be entered once",
        "# no bound: cpu, max_calls, max_age, max_body",
        "# nothing granted: env, dirs, outbound, enqueue",
        "# max_instances = 1000, from the counts and what this machine allows",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    let whole = json(formation.cli(["check", "--json"]));
    let web = &whole["process"]["web"];
    assert_eq!((&web["backlog"], &web["isolation"]), (&150.into(), &"instance".into()), "{whole}");
    assert_eq!((&web["timeout"], &whole["max_instances"]), (&"30s".into(), &1000.into()), "{whole}");
    assert_eq!(whole["process"]["tool"]["isolation"], "call", "{whole}");
}

#[test]
fn check_shows_readiness_and_refuses_it_where_no_request_comes() {
    let formation = Formation::web("ready = \"/healthz\"").top("keep_releases = 3");
    let text = formation.cli(["check"]).done();
    assert!(text.contains("\nready = \"/healthz\"\n") && text.contains("\nkeep_releases = 3\n"), "{text}");
    Formation::new()
        .process("tool", "cmd-test", "ready = \"/healthz\"")
        .cli(["check"])
        .failed(2, "and `ready` is only for a type that requests call: leave it out");
}

#[test]
fn no_value_of_a_variable_or_a_file_is_shown() {
    let keys = "env = { A = \"${SECRET}\", B = { from_env = \"SECRET\" }, C = { file = \"secret\" }, D = \"x-${SECRET}-y\" }\n\
                args = [\"--key\", \"${SECRET}\"]";
    let formation = Formation::web(keys).variable("SECRET", "s3cr3t-Value");
    std::fs::write(formation.path("secret"), "s3cr3t-Value\n").unwrap();
    let text = formation.cli(["check"]).done();
    assert!(text.contains("A = \"${SECRET}\"") && text.contains("D = \"x-${SECRET}-y\""), "{text}");
    assert!(text.contains("args = [\"--key\", \"${SECRET}\"]"), "{text}");
    let json = formation.cli(["check", "--json"]).done();
    assert!(!format!("{text}{json}").contains("s3cr3t"), "{text}{json}");
    // Nor in an error, wherever it is.
    for key in [
        "outbound = [\"${SECRET}\"]",
        "route = \"${SECRET}//\"",
        "memory = \"${SECRET}\"",
        "queue = \"${SECRET}\"",
    ] {
        let formation = Formation::web(key).variable("SECRET", "s3cr3t-Value");
        let ended = formation.cli(["check"]).failed(2, "${SECRET}");
        assert!(!ended.stderr.to_lowercase().contains("s3cr3t"), "{ended:#?}");
    }
    std::fs::write(formation.path(".env"), "KEY=a\ns3cr3t-Value\n").unwrap();
    let ended = formation.cli(["check"]).failed(2, ".env:2:1");
    assert!(!ended.stderr.contains("s3cr3t"), "{ended:#?}");
}

#[test]
fn a_type_that_was_removed_is_shown_as_leaving_until_its_last_call_is_over() {
    let formation = Formation::web("count = 2").process("other", "web-test", "route = \"/ok\"");
    let host = Host::run(&formation);
    let held = host.hold();
    let text = formation.text();
    let (before, rest) = text.split_once("[process.web]").unwrap();
    let (_, other) = rest.split_once("[process.other]").unwrap();
    let formation = formation.with_text(&format!("{before}[process.other]{other}"));
    host.cli(["deploy"]).done();
    let table = host.cli(["ps"]).done();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().take(4).collect()).collect();
    assert!(rows.contains(&vec!["web", "http", "leaving", "0"]), "{table}");
    assert!(rows.contains(&vec!["other", "http", "1", "1"]), "{table}");
    let ps = host.ps();
    assert_eq!(
        (&ps.process("web")["leaving"], &ps.process("other")["leaving"]),
        (&true.into(), &false.into())
    );
    assert_eq!((ps.number("web", "desired"), ps.number("web", "draining")), (0, 1));
    assert_eq!(host.cli(["scale"]).done(), "wasmhost scale other=1\n", "it has no count any more");
    held.end();
    eventually("it has left", || (host.ps().versions("web") == 0).then_some(()));
    drop(formation);
    host.stop().done();
}
