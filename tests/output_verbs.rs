//! The output of verbs, where nobody takes it.

use std::fs::File;
use std::io::{Read, pipe};
use std::process::Stdio;

use crate::harness::{Formation, Host, command};

/// How a verb ended: its exit code, and what it said on standard error.
struct Said {
    code: i32,
    stderr: String,
}

fn run(formation: &Formation, arguments: &[&str], stdout: impl Into<Stdio>, stderr: Option<Stdio>) -> Said {
    let mut command = command(formation.folder(), arguments, &[]);
    let (mut reader, writer) = pipe().unwrap();
    let stderr = stderr.unwrap_or_else(|| writer.into());
    let mut child = command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn().unwrap();
    // The writer's other end is the child's alone.
    drop(command);
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    let code = child.wait().unwrap().code().expect("a signal has ended it");
    Said { code, stderr: said }
}

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

fn closed() -> Stdio {
    pipe().unwrap().1.into()
}

/// Every verb that prints and comes to an end by itself.
const PRINTING: &[&[&str]] = &[
    &["ps"],
    &["ps", "--json"],
    &["check"],
    &["check", "--json"],
    &["scale"],
    &["scale", "--json"],
    &["scale", "web=1"],
    &["restart", "web.1"],
    &["logs"],
    &["logs", "--json"],
    &["jobs", "ls"],
    &["jobs", "ls", "--json"],
    &["jobs", "show", "1"],
    &["jobs", "stats"],
    &["jobs", "pause", "q"],
    &["jobs", "resume", "q"],
    &["jobs", "retry", "--queue", "q"],
    &["enqueue", "q", "ok"],
    &["enqueue", "q", "ok", "--json"],
    &["tick", "clock"],
    &["ticks"],
    &["ticks", "--json"],
    &["completions", "bash"],
    &["--help"],
    &["--version"],
    &["help", "run"],
    &["jobs", "--help"],
];

/// Where the clock notes its ticks.
fn out() -> &'static str {
    "dirs = [{ host = \"out\", guest = \"/out\", access = \"write\" }]"
}

fn formation() -> Formation {
    Formation::web("")
        .process("worker", "job-test", "queue = \"q\"")
        .process("clock", "tick-test", &format!("schedule = \"0 0 1 1 *\"\n{}", out()))
        .directory("out")
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let formation = formation();
    let host = Host::run(&formation);
    host.get("/log?lines=3").ok();
    host.enqueue("q", "ok");
    for verb in PRINTING {
        let said = run(&formation, verb, closed(), None);
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{verb:?}");
    }
    // Those that go on for ever end, too.
    for verb in [&["logs", "--follow"][..], &["jobs", "watch", "--every", "100ms"]] {
        let said = run(&formation, verb, closed(), None);
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{verb:?}");
    }
}

#[test]
fn a_full_disk_is_told_and_no_panic() {
    let formation = formation();
    let host = Host::run(&formation);
    host.get("/log?lines=3").ok();
    host.enqueue("q", "ok");
    for verb in PRINTING {
        let said = run(&formation, verb, full(), None);
        let told = said.stderr.contains("error: standard output can't be written: No space left on device");
        assert!(said.code == 1 && told && said.stderr.lines().count() == 1, "{verb:?}: {}", said.stderr);
        assert_eq!(run(&formation, verb, full(), Some(full())).code, 1, "{verb:?}");
    }
    // The work that they were told to do is done all the same.
    run(&formation, &["enqueue", "q", "print:despite"], full(), None);
    host.stdout().wait_for("despite");
}

#[test]
fn an_error_that_nobody_can_be_told_has_its_exit_code() {
    let formation = formation();
    let cases: [(&[&str], i32); 5] = [
        (&["ps"], 5),
        (&["nonsense"], 2),
        (&["-f", "missing.toml", "check"], 2),
        (&["run", "missing.wasm"], 4),
        (&["-f", "missing.toml", "run"], 2),
    ];
    for (verb, code) in cases {
        for stderr in [full(), closed()] {
            assert_eq!(run(&formation, verb, Stdio::null(), Some(stderr)).code, code, "{verb:?}");
        }
    }
}

#[test]
fn jobs_are_enqueued_to_the_last_whoever_reads_their_ids() {
    let formation = formation();
    let host = Host::run(&formation);
    let lines: String = (0..3_000).map(|n| format!("print:line {n}\n")).collect();
    std::fs::write(formation.path("jobs.txt"), lines).unwrap();
    let said = run(&formation, &["enqueue", "q", "--lines", "--from", "jobs.txt", "--json"], closed(), None);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
    host.stdout().wait_for("line 2999");
}

/// A program has the streams to itself; what the host has to say beside it is lost, and nothing else.
#[test]
fn a_program_that_is_refused_something_goes_on_where_nobody_reads_that() {
    let formation = Formation::new();
    let program = crate::harness::guest_file("cmd-test-core");
    let program = program.to_str().unwrap();
    for stderr in [full(), closed()] {
        let said = run(&formation, &["run", program, "exit", "7"], Stdio::null(), Some(stderr));
        assert_eq!(said.code, 7);
    }
}
