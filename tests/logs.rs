//! Guests' output and the host's own.

use std::io::{Cursor, Read};
use std::process::Stdio;

use serde_json::Value;

use crate::harness::{Formation, Host, eventually};

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|err| panic!("{err}: {line}"))
}

#[test]
fn a_guests_lines_are_on_stdout_under_its_name() {
    let host = Host::run(&Formation::web(""));
    host.get("/log?lines=2").ok();
    let ended = host.stop();
    let lines: Vec<Value> = ended.stdout.lines().map(json).collect();
    let of = |stream: &str| -> Vec<&str> {
        lines
            .iter()
            .filter(|line| line["stream"] == stream)
            .map(|line| line["line"].as_str().unwrap())
            .collect()
    };
    assert_eq!(of("stdout"), ["stdout 1", "stdout 2", "without its end"]);
    assert_eq!(of("stderr"), ["stderr 1", "stderr 2"]);
    for line in &lines {
        assert_eq!(line["instance"], "web.1");
        let time = line["time"].as_str().unwrap();
        assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    }
    assert!(!ended.stderr.contains("stdout 1") && !ended.stderr.contains("stderr 1"), "{ended:#?}");
}

#[test]
fn the_last_lines_can_be_had_of_all_of_a_type_or_of_an_instance() {
    let formation = Formation::web("count = 2").process("other", "web-test", "route = \"other.example\"");
    let host = Host::run(&formation);
    host.get("/log?lines=3").ok();
    let other = crate::harness::http::Request::get("/log?lines=1").header("host", "other.example");
    host.send(&other).ok();
    let name = host.get("/instance").ok().lines().nth(1).unwrap().to_owned();
    let lines = |ended: crate::harness::Ended| ended.done().lines().map(str::to_owned).collect::<Vec<_>>();

    let all = eventually("all lines", || Some(lines(host.cli(["logs"]))).filter(|all| all.len() == 7 + 3));
    assert!(all[0].contains(&format!("{name}      | stdout 1")), "{all:#?}");
    let of_web = lines(host.cli(["logs", "web"]));
    assert_eq!(of_web.len(), 7);
    assert!(of_web.iter().all(|line| line.contains(&name)), "{of_web:#?}");
    assert_eq!(lines(host.cli(["logs", &name])), of_web);
    assert_eq!(lines(host.cli(["logs", "other"])).len(), 3);
    assert_eq!(lines(host.cli(["logs", "-n", "2", "web"])), of_web[5..]);
    assert_eq!(lines(host.cli(["logs", "-n", "0"])).len(), 0);
    let last = json(lines(host.cli(["logs", "-n", "1", "--json", "web"]))[0].as_str());
    assert_eq!((&last["line"], &last["instance"]), (&"without its end".into(), &name.into()));
}

#[test]
fn logs_of_what_does_not_exist_are_refused() {
    let host = Host::run(&Formation::web(""));
    host.cli(["logs", "wbe"]).failed(1, "wbe");
    host.cli(["logs", "web.x"]).failed(2, "web.x");
    host.cli(["logs", "web.9"]).failed(1, "there is no instance web.9");
    host.cli(["logs", "--follow", "web.9"]).failed(1, "there is no instance web.9");
    // One that has said nothing yet is there.
    assert_eq!(host.cli(["logs", "web.1"]).done(), "");
    for name in ["web", "web.1"] {
        for ended in [host.cli(["logs", "-F", name]), host.cli(["-f", name, "logs"])] {
            let ended = ended.failed(2, &format!("there is no formation file \"{name}\""));
            assert!(ended.stderr.contains(&format!("wasmhost logs -f {name}`")), "{ended:#?}");
        }
    }
    let ended = host.cli(["logs", "-f", "formation.toml"]).failed(2, "\"formation.toml\" is a file");
    assert!(ended.stderr.contains("wasmhost logs -F formation.toml`"), "{ended:#?}");
}

#[test]
fn followers_end_well_with_a_host_that_is_stopped_and_not_with_one_that_is_killed() {
    for is_killed in [false, true] {
        let host = Host::run(&Formation::web(""));
        let followers: Vec<_> = (0..3).map(|_| host.cli_beside(["logs", "-f", "-n", "1000"])).collect();
        host.get("/log?lines=100").ok();
        followers.iter().for_each(|follower| drop(follower.stdout.wait_for("without its end")));
        match is_killed {
            true => host.kill(),
            false => host.cli(["stop"]).done().clear(),
        }
        for follower in followers {
            let ended = follower.wait();
            assert_eq!(ended.code, i32::from(is_killed), "{}", ended.stderr);
            assert_eq!(ended.stdout.lines().count(), 201);
        }
    }
}

#[test]
fn lines_can_be_followed() {
    let host = Host::run(&Formation::web(""));
    host.get("/log?lines=2").ok();
    host.stdout().wait_for("without its end");
    let follower = host.cli_beside(["logs", "--follow", "-n", "1", "web"]);
    follower.stdout.wait_for("without its end");
    host.get("/log?lines=3").ok();
    follower.stdout.wait_for("stderr 3");
    // It ends with the host, well, and has missed nothing and repeated nothing.
    host.stop().done();
    let ended = follower.wait();
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    let lines: Vec<_> = ended.stdout.lines().map(|line| line.split(" | ").nth(1).unwrap()).collect();
    let end = "without its end";
    let all = [end, "stdout 1", "stderr 1", "stdout 2", "stderr 2", "stdout 3", "stderr 3", end];
    assert_eq!(lines, all);
}

#[test]
fn a_formation_is_named_by_a_capital_letter_where_the_small_one_follows() {
    let formation = Formation::web("");
    let file = formation.path("other.toml");
    std::fs::rename(formation.file(), &file).unwrap();
    let formation = formation.variable("WASMHOST_FILE", "other.toml");
    let host = Host::run(&formation);
    host.get("/log?lines=1").ok();
    let file = file.to_str().unwrap();
    let expected = eventually("its lines", || {
        Some(formation.cli(["logs"]).done()).filter(|all| all.lines().count() == 3)
    });
    let elsewhere = Formation::new();
    for arguments in
        [["-f", file, "logs"], ["logs", "-F", file], ["logs", "--file", file], ["-F", file, "logs"]]
    {
        assert_eq!(elsewhere.cli(arguments).done(), expected, "{arguments:?}");
    }
    elsewhere.cli(["ps", "-F", file]).done();
    let follower = elsewhere.start(["logs", "-f", "-F", file, "web"]);
    follower.stdout.wait_for("without its end");
    host.stop().done();
    follower.wait().done();
}

#[test]
fn lines_of_a_time_can_be_had() {
    let host = Host::run(&Formation::web(""));
    let count = |arguments: &[&str]| {
        let arguments = ["logs"].iter().chain(arguments).copied().collect();
        host.cli_of(arguments).done().lines().count()
    };
    host.get("/log?lines=150").ok();
    eventually("the first lines", || (count(&["-n", "1000"]) == 301).then_some(()));
    let between = jiff::Timestamp::now();
    // Lines have milliseconds.
    eventually("the next millisecond", || {
        (jiff::Timestamp::now().as_millisecond() > between.as_millisecond() + 1).then_some(())
    });
    host.get("/log?lines=1").ok();
    eventually("all lines", || (count(&["-n", "1000"]) == 301 + 3).then_some(()));
    assert_eq!(count(&[]), 100, "the last hundred, where nobody says which");
    assert_eq!(count(&["--since", "1h"]), 304, "all of the time");
    assert_eq!(count(&["--since", "1h", "-n", "5"]), 5);
    assert_eq!(count(&["--since", &between.to_string()]), 3);
    assert_eq!(count(&["--until", &between.to_string(), "web"]), 301);
    assert_eq!(count(&["--until", &between.to_string(), "-n", "2", "web.1"]), 2);
    assert_eq!(count(&["--since", "0s"]), 0);
    assert_eq!(count(&["--until", "1h"]), 0);

    host.cli(["logs", "--since", "yesterday"]).failed(2, "found \"yesterday\", expected how long ago");
    host.cli(["logs", "--since", "1m", "--until", "2m"]).failed(2, "is after --until");
    host.cli(["logs", "--until", "2m", "--follow"]).failed(2, "cannot be used with");
}

#[test]
fn the_hosts_own_lines_can_be_had_by_level() {
    let host = Host::run(&Formation::web(""));
    host.get("/trap").is_error(502, "H13");
    host.stderr().wait_for("unreachable");
    let own = |arguments: &[&str]| {
        let arguments = ["logs", "host"].iter().chain(arguments).copied().collect();
        host.cli_of(arguments).done()
    };
    let all = own(&[]);
    assert!(all.contains(" INFO all instances are up\n") && all.contains(" WARN GET /trap: "), "{all}");
    assert!(all.contains(" code=\"H13\" instance=\"web.1\""), "{all}");
    // As they are on standard error.
    let written = host.stderr().wait_for("unreachable");
    assert_eq!(own(&["--json", "--level", "warn", "-n", "1"]).trim_end(), written);
    let warned = own(&["--level", "warn"]);
    assert!(warned.contains(" WARN GET /trap: ") && !warned.contains(" INFO "), "{warned}");
    assert_eq!(own(&["--level", "error"]), "");
    assert_eq!(own(&["--until", "1h"]), "");
    assert_eq!(own(&["--since", "1h", "-n", "1"]).matches(" WARN ").count(), 1);
    // Guests' lines are others.
    assert!(!host.cli(["logs"]).done().contains("WARN"));
    host.cli(["logs", "web", "--level", "warn"]).failed(2, "guests' lines have no level");
    host.cli(["logs", "host", "--level", "loud"]).failed(2, "possible values: error, warn, info");
}

#[test]
fn the_hosts_own_lines_can_be_followed() {
    let host = Host::run(&Formation::web(""));
    let follower = host.cli_beside(["logs", "host", "-f", "--level", "warn"]);
    // One that follows all says when it is there, and both are told the same.
    let all = host.cli_beside(["logs", "host", "-f"]);
    all.stdout.wait_for("all instances are up");
    host.get("/trap").is_error(502, "H13");
    follower.stdout.wait_for("GET /trap");
    all.stdout.wait_for("GET /trap");
    host.stop().done();
    let (few, all) = (follower.wait().done(), all.wait().done());
    assert!(!few.contains(" INFO ") && all.contains(" INFO draining: "), "{all}");
}

#[test]
fn a_follower_that_does_not_read_is_told_how_many_lines_it_missed() {
    let formation =
        Formation::web("timeout = \"120s\"").process("quiet", "web-test", "route = \"quiet.example\"");
    let host = Host::run(&formation);
    let quiet = crate::harness::http::Request::get("/log?lines=1").header("host", "quiet.example");
    host.send(&quiet).ok();
    host.get("/log?lines=1").ok();
    let mut command = crate::harness::command(formation.folder(), ["logs", "-f", "web"], &[]);
    let mut follower = command.stdout(Stdio::piped()).spawn().unwrap();
    let beside = host.cli_beside(["logs", "-f", "quiet"]);
    beside.stdout.wait_for("without its end");
    // It has begun, and stops to read.
    let (mut stdout, mut first) = (follower.stdout.take().unwrap(), [0]);
    stdout.read_exact(&mut first).unwrap();

    // More than what a follower's queue, the sockets and the pipe hold.
    let lines = 60_000;
    host.get(&format!("/log?lines={lines}")).ok();
    host.stdout().wait_for(&format!("\"stdout {lines}\""));
    host.send(&quiet).ok();
    let reading = crate::harness::Lines::read(Cursor::new(first).chain(stdout));
    let (told, missed) = reading.wait_until("all are told or counted", |read| {
        let missed: Vec<u64> = read
            .iter()
            .filter_map(|line| line.split_once(" lines came faster")?.0.rsplit(' ').next()?.parse().ok())
            .collect();
        let told = read.iter().filter(|line| line.contains(" web.1 ")).count() as u64;
        let missed = missed.iter().sum::<u64>();
        (told + missed == 3 + 2 * lines + 1).then_some((told, missed))
    });
    assert!(told > 10_000 && missed > 10_000, "{told} were told and {missed} missed");
    host.stop().done();
    follower.wait().unwrap();
    // The other type's follower has missed none.
    let beside = beside.wait().done();
    assert!(beside.lines().count() == 6 && !beside.contains("faster"), "{beside}");
}

#[test]
fn a_follower_does_not_hold_the_host_up() {
    let host = Host::run(&Formation::web("").top("grace = \"10m\""));
    let follower = host.cli_beside(["logs", "--follow"]);
    host.get("/log?lines=1").ok();
    follower.stdout.wait_for("stdout 1");
    let begun = std::time::Instant::now();
    host.stop().done();
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
}

#[test]
fn a_guest_that_floods_its_output_is_slowed_and_not_the_host() {
    let formation = Formation::web("timeout = \"120s\"").process("good", "web-test", "route = \"/ok\"");
    let host = Host::run(&formation);
    let before = host.resident_bytes();
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| host.get("/log?lines=40000").ok());
        let mut served = 0;
        while !flood.is_finished() {
            host.get("/ok").ok();
            served += 1;
        }
        assert!(served > 0);
    });
    host.stdout().wait_for("\"stdout 40000\"");
    assert_eq!(host.stdout().count("\"stdout "), 40_000, "no line is lost");
    let grown = host.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more");
    host.stop().done();
}

/// Lines of `worker`, once the last of them is this one.
fn lines_of_worker(host: &Host, last: &str) -> Vec<String> {
    let line = |line: &String| json(line)["line"].as_str().unwrap().to_owned();
    host.stdout().wait_until(last, |lines| {
        let lines: Vec<_> = lines.iter().map(line).collect();
        lines.last().is_some_and(|line| line == last).then_some(lines)
    })
}

#[test]
fn a_line_that_is_too_long_is_cut_between_characters() {
    let host = Host::run(&Formation::new().process("worker", "job-test", "queue = \"q\""));
    let long = "ä€🙂x".repeat(5_000);
    host.enqueue_from_input("q", &format!("print:{long}\nprint:end"));
    let lines = lines_of_worker(&host, "end");
    let pieces = &lines[..lines.len() - 1];
    assert!(
        pieces.iter().all(|piece| (16_380..=16_384).contains(&piece.len()) || Some(piece) == pieces.last())
    );
    assert_eq!(pieces.concat(), long);
}

#[test]
fn a_line_as_long_as_a_line_may_be_is_one_line() {
    let host = Host::run(&Formation::new().process("worker", "job-test", "queue = \"q\""));
    let most = "x".repeat(16_384);
    host.enqueue_from_input("q", &format!("print:{most}\nprint:end"));
    assert_eq!(lines_of_worker(&host, "end"), [&most, "end"]);
}

#[test]
fn a_calls_end_ends_its_line() {
    let host = Host::run(&Formation::web("count = 1"));
    host.get("/log?lines=1").ok();
    host.get("/log?lines=1").ok();
    let lines = host.stdout().wait_until("both calls have ended", |lines| {
        (lines.iter().filter(|line| line.contains("without its end")).count() == 2).then(|| lines.to_vec())
    });
    let texts: Vec<_> = lines.iter().map(|line| json(line)["line"].clone()).collect();
    let each = ["stdout 1", "stderr 1", "without its end"];
    assert_eq!(texts, [each, each].concat());
    // The same for jobs of WASI 0.2 and 0.3.
    for guest in ["job-test", "job-async"] {
        let host = Host::run(&Formation::new().process("worker", guest, "queue = \"q\""));
        for payload in ["part:one\nok", "part:two\nretry:later", "print:end"] {
            let id = host.enqueue("q", payload).to_string();
            eventually("it has been tried", || {
                let job = json(&host.cli(["jobs", "show", &id, "--json"]).done());
                matches!(job["state"].as_str(), Some("done" | "retrying")).then_some(())
            });
        }
        assert_eq!(lines_of_worker(&host, "end"), ["one", "two", "end"], "{guest}");
    }
}

#[test]
fn a_type_that_writes_a_lot_leaves_the_lines_of_others() {
    let formation =
        Formation::web("timeout = \"60s\"").process("quiet", "web-test", "route = \"quiet.example\"");
    let host = Host::run(&formation);
    let quiet = crate::harness::http::Request::get("/log?lines=1").header("host", "quiet.example");
    host.send(&quiet).ok();
    host.get("/log?lines=12000").ok();
    host.stdout().wait_for("\"stdout 12000\"");
    let logs = host.cli(["logs", "quiet"]).done();
    assert!(logs.contains("| stdout 1\n") && logs.lines().count() == 3, "{logs}");
    // The last lines of the type that writes a lot are kept.
    let logs = host.cli(["logs", "web", "-n", "1000000"]).done();
    assert!(logs.lines().count() == 10_000 && logs.contains("| stdout 12000\n"), "{}", logs.lines().count());
}

/// The members of the kind: escape sequences, C1, a return, bidirectional and invisible characters.
#[test]
fn what_a_guest_prints_does_not_act_on_a_terminal() {
    let host = Host::run(&Formation::new().process("worker", "job-test", "queue = \"q\""));
    let text = "\u{1b}[2J\u{9b}2J \r \u{202e}abc\u{2066} \u{feff}\u{200b} \u{7f} ü\ttab";
    host.enqueue_from_input("q", &format!("print:{text}\nprint:end"));
    assert_eq!(lines_of_worker(&host, "end"), [text, "end"]);
    let acts = |c: char| (c.is_control() && c != '\n') || "\u{202e}\u{2066}\u{feff}\u{200b}".contains(c);
    assert!(!host.stdout().text().contains(acts), "{:?}", host.stdout().text());
    assert!(!host.cli(["logs", "--json"]).done().contains(acts));
    let logs = host.cli(["logs"]).done();
    let shown = "\\u{1b}[2J\\u{9b}2J \\r \\u{202e}abc\\u{2066} \\u{feff}\\u{200b} \\u{7f} ü\ttab";
    assert!(logs.contains(shown), "{logs}");
}

#[test]
fn a_level_that_is_none_is_refused_with_those_that_are() {
    for value in ["verbose", "info,loud", "wasmhost=2", "[x]"] {
        let formation = Formation::web("").variable("WASMHOST_LOG", value);
        let ended = formation.run_to_end().failed(2, "WASMHOST_LOG: found \"");
        assert!(ended.stderr.contains("off, error, warn, info, debug or trace"), "{ended:#?}");
    }
    let quiet = Formation::web("").variable("WASMHOST_LOG", "ERROR");
    let host = Host::launch(&quiet);
    assert!(!host.stop().stderr.contains("INFO"));
}

#[test]
fn a_trap_leaves_a_backtrace() {
    let host = Host::run(&Formation::web(""));
    host.get("/trap").is_error(502, "H13");
    let line = json(&host.stderr().wait_for("unreachable"));
    let message = line["message"].as_str().unwrap();
    assert!(message.starts_with("GET /trap: ") && message.contains("backtrace"), "{message}");
    assert_eq!((&line["instance"], &line["code"]), (&"web.1".into(), &"H13".into()));
    // The guest's own message about it is a line of its own.
    host.stdout().wait_for("asked to trap");
}

#[test]
fn a_job_that_traps_leaves_a_backtrace_with_its_id() {
    let host = Host::run(&Formation::new().process("worker", "job-test", "queue = \"q\""));
    let id = host.enqueue("q", "trap");
    let line = host.stderr().wait_for("unreachable");
    assert!(line.contains(&format!("job {id} of")) && line.contains("worker.1"), "{line}");
}

#[test]
fn a_job_that_fails_or_dies_has_a_line_that_says_what_comes_next() {
    let keys = "queue = \"q\"\nattempts = 3\nbackoff = [\"0s\"]";
    let host = Host::run(&Formation::new().process("worker", "job-test", keys));
    let (failing, buried) = (host.enqueue("q", "retry:no \u{202e}tea"), host.enqueue("q", "bury:bad data"));
    let crashing = host.enqueue("q", "trap");
    let expected = [
        format!("job {failing} of \\\"q\\\" failed (1 of 3): no \\\\u{{202e}}tea; again in "),
        format!("job {failing} of \\\"q\\\" failed (2 of 3): no"),
        format!("job {failing} of \\\"q\\\" is dead (3 of 3): no"),
        format!("job {buried} of \\\"q\\\" is dead (buried by its handler): bad data"),
        format!("job {crashing} of \\\"q\\\" failed (1 of 3): wasm trap"),
        format!("job {crashing} of \\\"q\\\" is dead (3 of 3): wasm trap"),
    ];
    for text in &expected {
        let line = json(&host.stderr().wait_for(text));
        assert_eq!((&line["level"], &line["instance"]), (&"WARN".into(), &"worker.1".into()));
    }
}

#[test]
fn jobs_that_fail_in_masses_are_counted() {
    let host = Host::run(&Formation::new().process("worker", "job-test", "queue = \"q\""));
    let jobs = 2_000;
    let lines: String = (0..jobs).map(|n| format!("bury:{n}\n")).collect();
    host.cli_with_input(["enqueue", "q", "--lines"], &lines).done();
    host.stderr().wait_until("each has a line or is counted", |lines| {
        let told = lines.iter().filter(|line| line.contains("is dead (buried")).count();
        let counted: usize = lines
            .iter()
            .filter_map(|line| {
                json(line)["message"].as_str()?.split_once(" more jobs of")?.0.parse::<usize>().ok()
            })
            .sum();
        (counted > 0 && told + counted == jobs).then_some(())
    });
}

#[test]
fn the_hosts_own_lines_are_json_but_for_the_address() {
    let host = Host::run(&Formation::web(""));
    host.get("/trap");
    host.stderr().wait_for("unreachable");
    let ended = host.stop();
    for line in ended.stderr.lines().filter(|line| !line.starts_with("Serving HTTP on ")) {
        let line = json(line);
        assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
        // As guests' lines say it.
        let time = line["time"].as_str().unwrap();
        assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    }
}

#[test]
fn a_closed_stdout_does_not_end_the_host() {
    let formation = Formation::web("");
    let script = format!("{} run | true", env!("CARGO_BIN_EXE_wasmhost"));
    let mut shell = std::process::Command::new("sh")
        .args(["-c", &script])
        .current_dir(formation.folder())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("it serves", || formation.is_up().then_some(()));
    let ps: Value = json(&formation.cli(["ps", "--json"]).done());
    let address = ps["http"][0].as_str().unwrap().trim_start_matches("http://").trim_end_matches('/');
    let address = address.parse().unwrap();
    let mut client = crate::harness::http::Client::new(address);
    for _ in 0..3 {
        client.send(&crate::harness::http::Request::get("/log?lines=1000")).unwrap().ok();
    }
    formation.cli(["stop"]).done();
    shell.wait().unwrap();
}
