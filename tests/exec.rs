//! `wasmhost exec`: a type's command, run once by hand.

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Ended, Formation, Host, Process, Store, command, eventually, guest_file};
use crate::run_app::{code, output};

fn tool(keys: &str) -> Formation {
    Formation::new().process("tool", "cmd-test", &format!("run = \"never\"\n{keys}"))
}

fn exec<const N: usize>(formation: &Formation, arguments: [&str; N]) -> Ended {
    let arguments: Vec<&str> = ["exec"].into_iter().chain(arguments).collect();
    formation.start_of(arguments).wait()
}

// --- what it is given

#[test]
fn the_files_arguments_are_used_unless_others_are_given() {
    let formation = tool("args = [\"echo\", \"from\", \"the file\"]");
    assert_eq!(exec(&formation, ["tool"]).done(), "from the file\n");
    assert_eq!(exec(&formation, ["tool", "echo", "-n", "--env"]).done(), "-n --env\n");
    assert_eq!(exec(&formation, ["tool", "--", "echo", "--timeout", "1ms"]).done(), "--timeout 1ms\n");
}

#[test]
fn it_has_the_types_variables_those_of_the_command_line_and_its_own_names() {
    let formation = tool("args = [\"env\"]\nenv = { COLOUR = \"red\", SHAPE = \"round\", SIZE = \"big\" }")
        .variable("FROM_HERE", "yes");
    let arguments =
        ["--env", "COLOUR=blue", "--env", "FROM_HERE", "--env", "NOT_HERE", "--env", "SIZE", "tool"];
    let process = formation.start_of(["exec"].into_iter().chain(arguments).collect());
    let pid = process.pid();
    let printed = process.wait().done();
    let mut lines: Vec<&str> = printed.lines().collect();
    lines.sort_unstable();
    let instance = format!("WASMHOST_INSTANCE=tool.exec-{pid}");
    let expected = ["COLOUR=blue", "FROM_HERE=yes", "SHAPE=round", &instance, "WASMHOST_TYPE=tool"];
    assert_eq!(lines, expected);
    exec(&formation, ["--env", "WASMHOST_TYPE=web", "tool"]).failed(2, "the host sets it");
}

#[test]
fn it_has_the_types_directories_and_no_others() {
    let grant = "dirs = [{ host = \"out\", guest = \"/out\", access = \"write\" }]";
    let formation = tool(grant).directory("out").directory("other");
    exec(&formation, ["tool", "touch", "/out/made"]).done();
    assert!(formation.path("out/made").exists());
    let ended = exec(&formation, ["tool", "touch", "/other/made"]);
    assert_eq!(ended.code, 1, "{ended:#?}");
    assert!(!formation.path("other/made").exists());
}

#[test]
fn its_memory_is_the_types() {
    let formation = Formation::new().process("tool", "wasi02", "run = \"never\"\nmemory = \"16MiB\"");
    assert_eq!(exec(&formation, ["tool", "do", "grow", "4"]).done(), "took 4 MiB\n");
    let ended = exec(&formation, ["tool", "do", "grow"]);
    let told = "the limit is 16 MiB): `memory` in [process.tool] grants more\n";
    let begins = "error: tool ran out of the memory granted to it (memory: wanted ";
    assert!(ended.stderr.contains(begins) && ended.stderr.ends_with(told), "{ended:#?}");
    assert_eq!(ended.code, 134);
}

#[test]
fn what_computes_for_longer_than_its_cpu_is_ended() {
    let formation = tool("args = [\"loop\"]\ncpu = \"200ms\"");
    exec(&formation, ["tool"])
        .failed(124, "tool computed for longer than its `cpu` of 200ms in [process.tool], and was ended");
    // Waiting is no computing.
    assert_eq!(exec(&formation, ["tool", "sleep", "400"]).done(), "slept\n");
}

#[test]
fn no_time_at_all_is_refused() {
    let formation = tool("");
    for time in ["0s", "0", "0ms"] {
        let ended = exec(&formation, ["--timeout", time, "tool"]);
        assert!(ended.code == 2 && ended.stdout.is_empty(), "{ended:#?}");
    }
    let ended = exec(&formation, ["--timeout", "0s", "tool"]);
    assert!(ended.stderr.contains("expected more than no time"), "{ended:#?}");
}

#[test]
fn streams_are_passed_byte_by_byte() {
    let formation = tool("args = [\"cat\"]");
    let input: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut exec = command(formation.folder(), ["exec", "tool"], &[]);
    exec.stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = output(exec, &input);
    assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout == input, "{} bytes", output.stdout.len());
}

// --- how it ends

#[test]
fn its_exit_code_is_passed_on() {
    let formation = Formation::new().process("tool", "cmd-test-core", "run = \"never\"");
    for wanted in [0, 1, 7, 255] {
        let ended = exec(&formation, ["tool", "exit", &wanted.to_string()]);
        assert_eq!((ended.code, ended.stderr.as_str()), (wanted, ""), "{ended:#?}");
    }
}

#[test]
fn a_trap_is_134_with_its_backtrace() {
    let ended = exec(&tool(""), ["tool", "trap"]);
    assert_eq!(ended.code, 134, "{ended:#?}");
    assert!(ended.stderr.contains("tool trapped: ") && ended.stderr.contains("backtrace"), "{ended:#?}");
}

#[test]
fn a_time_limit_is_124_and_the_command_lines_goes_before_the_files() {
    let formation = tool("args = [\"loop\"]\ntimeout = \"200ms\"");
    exec(&formation, ["tool"]).failed(124, "tool took longer than its `timeout` of 200ms in [process.tool]");
    let begun = Instant::now();
    exec(&formation, ["--timeout", "1s", "tool"]).failed(124, "tool took longer than its --timeout");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(exec(&formation, ["--timeout", "1m", "tool", "sleep", "400"]).done(), "slept\n");
}

#[test]
fn a_signal_ends_it_with_the_code_that_shells_say() {
    let formation = waiting();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        for arguments in [["wait", "/out/there"].as_slice(), &["loop"]] {
            let process = formation.start_of([["exec", "tool"].as_slice(), arguments].concat());
            if arguments[0] == "wait" {
                process.stdout.wait_for("waits");
            } else {
                eventually("it has begun to compute", || (cpu_s(process.pid()) > 0.3).then_some(()));
            }
            process.signal(signal);
            let ended = process.wait().never_panicked();
            assert_eq!((ended.code, ended.stderr.as_str()), (code, ""), "{ended:#?}");
        }
    }
}

/// The CPU time that a process has used, in seconds.
fn cpu_s(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    let fields: Vec<f64> = after_name.split(' ').map(|field| field.parse().unwrap_or(0.0)).collect();
    (fields[11] + fields[12]) / 100.0
}

#[test]
fn an_interrupt_that_was_ignored_at_start_stays_ignored() {
    let formation = waiting();
    let process = Process::start_after(formation.folder(), "trap '' INT", ["exec", "tool"]);
    process.stdout.wait_for("waits");
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
    assert!(u64::from_str_radix(ignored, 16).unwrap() & 0b10 != 0, "{status}");
    process.signal(Signal::INT);
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code, 143);
}

/// `tool` says so when it has begun, and never ends.
fn waiting() -> Formation {
    let formation = tool("args = [\"wait\", \"/out/there\"]\ndirs = [{ host = \"out\", guest = \"/out\" }]");
    let formation = formation.directory("out");
    fs::write(formation.path("out/there"), "").unwrap();
    formation
}

// --- which types

#[test]
fn a_type_with_a_main_is_run_whatever_calls_it_in_the_formation() {
    for keys in ["run = \"always\"", "run = \"release\"", "queue = \"default\"", "schedule = \"@daily\""] {
        let formation = Formation::new().process("tool", "cmd-test", keys);
        assert_eq!(exec(&formation, ["tool", "echo", "hi"]).done(), "hi\n", "{keys}");
    }
}

#[test]
fn a_type_without_a_main_is_refused_with_what_it_exports() {
    let formation = Formation::web("").process("worker", "job-test", "queue = \"default\"").process(
        "clock",
        "tick-test",
        "schedule = \"@daily\"",
    );
    for (process, exported) in [("web", "wasi:http/"), ("worker", "wasmhost:job/"), ("clock", "wasmhost:")] {
        let ended = exec(&formation, [process]).failed(2, &format!("process.{process}: "));
        assert!(ended.stderr.contains(exported) && ended.stderr.contains("needs a `main`"), "{ended:#?}");
    }
    exec(&formation, ["wbe"])
        .failed(2, "process.wbe: there is no such process type; this formation has web, worker, clock");
}

#[test]
fn other_types_need_not_be_there_yet() {
    let formation = tool("args = [\"echo\", \"ready\"]");
    let formation = formation.table("[process.web]\ncomponent = \"not-built-yet.wasm\"");
    assert_eq!(exec(&formation, ["tool"]).done(), "ready\n");
    exec(&formation, ["web"]).failed(4, "not-built-yet.wasm doesn't exist");
}

#[test]
fn a_formation_that_is_wrong_is_refused() {
    exec(&tool("argz = []"), ["tool"]).failed(2, "argz");
    exec(&tool("dirs = [{ host = \".\", guest = \"/all\" }]"), ["tool"])
        .failed(2, "process.tool: dirs grants");
    let nested = "dirs = [{ host = \"out/in\", guest = \"/in\" }]";
    let writer = "dirs = [{ host = \"out\", guest = \"/out\", access = \"write\" }]";
    let formation = tool(nested).directory("out/in").process("web", "web-test", writer);
    exec(&formation, ["tool"]).failed(2, "\"web\" may write");
    let ended = exec(&Formation::web(""), []);
    assert!(ended.code == 2 && ended.stderr.contains("<TYPE>"), "{ended:#?}");
}

// --- beside a host, and without one

#[test]
fn it_runs_beside_the_host_and_is_none_of_its_instances() {
    let formation = waiting().process("web", "web-test", "");
    let host = Host::run(&formation);
    let process = formation.start(["exec", "tool"]);
    process.stdout.wait_for("waits");
    assert_eq!(host.ps().instances("tool").len(), 0);
    assert_eq!(host.get("/ok").ok(), "ok\n");
    host.stop().done();
    drop(process);
}

#[test]
fn a_new_component_is_run_at_once() {
    let formation = tool("args = [\"echo\", \"old\"]");
    let path = formation.path("tool.wasm");
    fs::copy(guest_file("empty"), &path).unwrap();
    let formation = formation.replace(&format!("{:?}", guest_file("cmd-test")), "\"tool.wasm\"");
    exec(&formation, ["tool"]).failed(2, "needs a `main`");
    fs::copy(guest_file("cmd-test"), &path).unwrap();
    assert_eq!(exec(&formation, ["tool"]).done(), "old\n");
}

// --- what it asks of the host

/// `tool` may enqueue on `default`, which `worker` works.
fn producer(tables: &str) -> Formation {
    let out = "dirs = [{ host = \"out\", guest = \"/out\", access = \"write\" }]";
    Formation::new()
        .directory("out")
        .process("worker", "job-test", &format!("queue = \"default\"\n{out}"))
        .process("tool", "cmd-queue", "run = \"never\"\nenqueue = [\"default\", \"small\"]")
        .table(&format!("[queues.small]\nmax_depth = 1\n{tables}"))
}

fn store(formation: &Formation) -> Store {
    Store::open(&formation.path(".wasmhost/store.db"))
}

/// The text of each line about its job.
fn said(ended: Ended) -> Vec<String> {
    let printed = ended.done();
    printed.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
}

/// A job has written its file.
#[track_caller]
fn is_done(formation: &Formation, job: usize) {
    eventually("it is done", || (!formation.read(&format!("out/{job}")).is_empty()).then_some(()));
}

#[test]
fn jobs_go_to_the_host_that_runs() {
    let formation = producer("");
    let host = Host::run(&formation);
    assert_eq!(said(exec(&formation, ["tool", "default", "many", "3"])), ["new", "new", "new"]);
    (0..3).for_each(|job| is_done(&formation, job));
    assert_eq!(said(exec(&formation, ["tool", "default", "later", "3600000"])), ["new"]);
    let job = host.store().jobs().pop().unwrap();
    assert_eq!(job.state, "scheduled");
    // The wait is counted from another millisecond than the one in which the guest asked for it.
    assert!((3_590_000..=3_600_000).contains(&job.wait_ms), "{} ms", job.wait_ms);
    host.stop().done();
}

#[test]
fn jobs_go_to_the_store_where_no_host_runs() {
    let formation = producer("");
    assert_eq!(said(exec(&formation, ["tool", "default", "many", "3"])), ["new", "new", "new"]);
    let states: Vec<String> = store(&formation).jobs().into_iter().map(|job| job.state).collect();
    assert_eq!(states, ["available"; 3]);
    let host = Host::run(&formation);
    (0..3).for_each(|job| is_done(&formation, job));
    host.stop().done();
}

#[test]
fn refusals_are_the_same_with_a_host_and_without_one() {
    for with_host in [false, true] {
        let formation = producer("");
        let host = with_host.then(|| Host::run(&formation));
        let what = |arguments: [&str; 4]| {
            let printed = exec(&formation, arguments).done();
            printed.split_once([' ', ':']).unwrap().0.to_owned()
        };
        assert_eq!(said(exec(&formation, ["tool", "small", "key", "a"])), ["new"]);
        assert_eq!(said(exec(&formation, ["tool", "small", "key", "a"])), ["known"], "{with_host}");
        assert_eq!(what(["tool", "small", "key", "b"]), "full", "{with_host}");
        assert_eq!(what(["tool", "default", "bytes", "1048577"]), "invalid", "{with_host}");
        let refused = exec(&formation, ["tool", "other", "key", "a"]);
        assert!(refused.stdout.starts_with("denied"), "{refused:#?}");
        assert!(refused.stderr.contains("under [process.tool] this would: enqueue"), "{refused:#?}");
        drop(host);
    }
}

#[test]
fn a_host_may_come_and_go_while_it_runs() {
    let formation = producer("");
    let (mut stdin, process) = formation.start_with_stdin(["exec", "tool", "default", "lines"]);
    let mut enqueue = |job: usize| {
        writeln!(stdin, "write:{job}").unwrap();
        process.stdout.wait_until("it is enqueued", |lines| (lines.len() > job).then_some(()));
    };
    enqueue(0);
    let host = Host::run(&formation);
    is_done(&formation, 0);
    enqueue(1);
    is_done(&formation, 1);
    host.stop().done();
    enqueue(2);
    assert_eq!(store(&formation).jobs().len(), 3);
    let host = Host::run(&formation);
    is_done(&formation, 2);
    drop(stdin);
    assert_eq!(said(process.wait()), ["new", "new", "new"]);
    host.stop().done();
}

#[test]
fn a_host_starts_while_one_offs_use_the_store() {
    const JOBS: usize = 100;
    let formation = producer("");
    let lines = "sleep:0\n".repeat(JOBS);
    std::thread::scope(|scope| {
        let one_off = || {
            let arguments = ["exec", "tool", "default", "lines"];
            said(Process::start_with_input(formation.folder(), arguments, &lines).wait())
        };
        let one_offs = [scope.spawn(one_off), scope.spawn(one_off)];
        for _ in 0..3 {
            Host::run(&formation).stop().done();
        }
        for one_off in one_offs {
            assert_eq!(one_off.join().unwrap(), vec!["new"; JOBS]);
        }
    });
    assert_eq!(store(&formation).jobs().len(), 2 * JOBS);
}

#[test]
fn a_store_that_only_a_host_has_is_unavailable_without_one() {
    let formation = producer("\n[store]\nurl = \"memory:\"");
    let printed = exec(&formation, ["tool", "default", "key", "a"]).done();
    assert!(printed.starts_with("unavailable") && printed.contains("no host runs"), "{printed}");
    let host = Host::run(&formation);
    assert_eq!(said(exec(&formation, ["tool", "default", "key", "a"])), ["new"]);
    host.stop().done();
}
