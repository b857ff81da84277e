//! `wasmhost run app.wasm`: one app without a formation, as a person would run any other program.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;

use crate::harness::http::{Connection, Request};
use crate::harness::{Ended, Process, guest_file};

/// `wasmhost run GUEST ARGUMENTS` in a folder of its own.
pub(crate) struct App {
    pub(crate) folder: tempfile::TempDir,
}

impl App {
    pub(crate) fn new() -> App {
        App { folder: tempfile::Builder::new().prefix("wasmhost-app-").tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self, guest: &str, arguments: &[&str]) -> Process {
        let guest = guest_file(guest);
        let arguments = arguments.iter().map(OsStr::new);
        Process::start(
            self.folder.path(),
            [OsStr::new("run"), guest.as_os_str()].into_iter().chain(arguments),
        )
    }

    pub(crate) fn run(&self, guest: &str, arguments: &[&str]) -> Ended {
        self.start(guest, arguments).wait()
    }

    /// As a shell would start it: all of the bytes, and nothing between.
    fn command(&self, guest: &str, arguments: &[&str]) -> Command {
        self.command_of(&guest_file(guest), arguments)
    }

    pub(crate) fn command_of(&self, file: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wasmhost"));
        command.arg("run").arg(file).args(arguments).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for variable in ["WASMHOST_CACHE", "WASMHOST_CACHE_SIZE", "WASMHOST_FILE", "WASMHOST_LOG"] {
            command.env_remove(variable);
        }
        command.env("WASMHOST_CACHE_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled"));
        command
    }

    fn output(&self, guest: &str, arguments: &[&str], input: &[u8]) -> Output {
        output(self.command(guest, arguments), input)
    }
}

pub(crate) fn output(mut command: Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // Beside the reading, since neither pipe holds much.
    let writing = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    // Who doesn't read all of it may end before.
    let _ = writing.join().unwrap();
    output
}

pub(crate) fn code(output: &Output) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    output.status.code().or(output.status.signal().map(|signal| 128 + signal)).unwrap()
}

/// A busy machine takes so long to compile that it is told.
fn tells_of_compiling(line: &str) -> bool {
    line.contains("\"message\":\"compil")
}

/// An app that is served.
pub(crate) struct Served {
    process: Process,
    pub(crate) address: SocketAddr,
    _app: App,
}

impl Served {
    pub(crate) fn start(guest: &str, arguments: &[&str]) -> Served {
        let app = App::new();
        let arguments: Vec<_> = ["--listen", "127.0.0.1:0"].iter().chain(arguments).copied().collect();
        let process = app.start(guest, &arguments);
        let is_first = |line: &&String| !tells_of_compiling(line);
        let first = process.stderr.wait_until("a first line", |lines| lines.iter().find(is_first).cloned());
        let address = first.strip_prefix("Serving HTTP on http://").and_then(|rest| rest.strip_suffix('/'));
        let address = address.unwrap_or_else(|| panic!("the first line is {first:?}")).parse().unwrap();
        Served { process, address, _app: app }
    }

    pub(crate) fn get(&self, target: &str) -> String {
        Connection::open(self.address).unwrap().send(&Request::get(target)).unwrap().text()
    }
}

// --- a command's own streams, arguments, grants and exit code

#[test]
fn a_command_has_the_streams_to_itself_byte_by_byte() {
    for guest in ["wasi02", "wasi03"] {
        let output = App::new().output(guest, &["do", "bytes"], b"");
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(output.stdout, all);
        assert_eq!(output.stderr, all.into_iter().rev().collect::<Vec<_>>());
        assert_eq!(code(&output), 0);
    }
}

#[test]
fn all_of_standard_input_reaches_a_command_as_it_is() {
    let input: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 253) as u8).collect();
    for (guest, arguments) in
        [("wasi02", &["do", "cat"][..]), ("cmd-test", &["cat"]), ("cmd-test-core", &["cat"])]
    {
        let output = App::new().output(guest, arguments, &input);
        assert!(output.stdout == input, "{guest}: {} bytes of {}", output.stdout.len(), input.len());
        assert!(output.stderr.is_empty() && code(&output) == 0, "{guest}: {output:?}");
    }
}

#[test]
fn a_command_talks_with_whoever_is_at_its_input() {
    let app = App::new();
    let mut child = app.command("wasi02", &["do", "ask"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    for name in ["Ann", "Ben"] {
        // Each answer comes while the input is still open.
        assert_eq!(lines.next().unwrap(), "name?");
        writeln!(stdin, "{name}").unwrap();
        assert_eq!(lines.next().unwrap(), format!("hello {name}"));
    }
    drop(stdin);
    assert_eq!(lines.next().unwrap(), "name?");
    assert!(lines.next().is_none() && child.wait().unwrap().success());
}

#[test]
fn a_command_may_end_before_its_input_does() {
    for guest in ["wasi02", "wasi03"] {
        let app = App::new();
        let mut child = app.command(guest, &["do", "take", "4"]).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"abcdef").unwrap();
        // The input stays open: nothing waits for it.
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.stdout.as_slice(), code(&output)), (&b"abcd"[..], 0), "{guest}");
    }
}

#[test]
fn an_output_that_nobody_reads_is_an_error_of_the_commands() {
    for (guest, why) in [("wasi02", "closed\n"), ("wasi03", "ErrorCode::Pipe\n")] {
        let app = App::new();
        let mut child = app.command(guest, &["do", "flood"]).spawn().unwrap();
        child.stdout.take().unwrap().read_exact(&mut [0; 100]).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((String::from_utf8_lossy(&output.stderr).as_ref(), code(&output)), (why, 3));
    }
}

#[test]
fn pipes_and_files_are_no_terminals() {
    let output = App::new().output("wasi02", &["do", "terminals"], b"");
    assert_eq!(output.stdout, b"stdin false stdout false stderr false\n");
}

#[test]
fn the_exit_code_is_the_commands_own() {
    let app = App::new();
    assert_eq!(code(&app.output("wasi03", &["do", "return", "err"], b"")), 1);
    for (arguments, expected) in [
        (&["do", "exit", "ok"][..], 0),
        (&["do", "exit", "err"], 1),
        (&["do", "exit", "0"], 0),
        (&["do", "exit", "42"], 42),
        (&["do", "exit", "255"], 255),
    ] {
        for guest in ["wasi02", "wasi03"] {
            let output = app.output(guest, arguments, b"");
            assert_eq!((code(&output), output.stderr.len()), (expected, 0), "{guest} {arguments:?}");
        }
    }
    // A component of the usual adapter can say 0 or 1, and a core module anything.
    for (guest, said, expected) in [
        ("cmd-test", "7", 1),
        ("cmd-test-core", "7", 7),
        ("cmd-test-core", "200", 200),
        ("cmd-test-core", "0", 0),
    ] {
        assert_eq!(code(&app.output(guest, &["exit", said], b"")), expected, "{guest} {said}");
    }
}

#[test]
fn a_command_that_traps_leaves_a_backtrace_and_134() {
    for guest in ["cmd-test", "cmd-test-core"] {
        let ended = App::new().run(guest, &["trap"]);
        assert_eq!((ended.code, ended.stdout.as_str()), (134, ""), "{ended:#?}");
        assert!(ended.stderr.contains("asked to trap"), "its own words come first: {ended:#?}");
        let error = ended.stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
        assert!(
            error.ends_with(&format!(
                "{guest}.wasm trapped: wasm trap: wasm `unreachable` instruction executed"
            ))
        );
        assert!(
            ended.stderr.contains("wasm backtrace:") && ended.stderr.contains("rust_panic"),
            "{ended:#?}"
        );
    }
}

#[test]
fn a_command_that_takes_too_much_memory_or_time_is_ended() {
    let app = App::new();
    let ended = app.run("wasi02", &["--memory", "32MiB", "do", "grow"]);
    assert_eq!(ended.code, 134, "{ended:#?}");
    assert!(ended.stderr.contains("wasi02.wasm ran out of the memory granted to it (memory: wanted "));
    assert!(ended.stderr.contains(", the limit is 32 MiB): --memory grants more"), "{ended:#?}");
    for (guest, act) in [("wasi02", "wait"), ("wasi02", "spin"), ("wasi03", "wait"), ("wasi03", "spin")] {
        let ended = app.run(guest, &["--timeout", "1s", "do", act]);
        let ended = ended.failed(124, &format!("{guest}.wasm took longer than its --timeout, and was ended"));
        assert!(!ended.stdout.is_empty(), "it had begun: {ended:#?}");
    }
    // Nor does an output that nobody takes hold it.
    let mut child = app.command("wasi02", &["--timeout", "300ms", "do", "flood"]).spawn().unwrap();
    let stdout = child.stdout.take().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(124));
    drop(stdout);
}

#[test]
fn a_command_may_have_more_memory_than_a_formation_gives() {
    let ended = App::new().run("wasi02", &["do", "grow", "300"]);
    assert_eq!(ended.done(), "took 300 MiB\n");
}

#[test]
fn signals_end_a_command_as_they_end_any_program() {
    for (signal, expected) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        for act in ["wait", "spin"] {
            let app = App::new();
            let process = app.start("wasi02", &["do", act]);
            process.stdout.wait_until("it runs", |lines| (!lines.is_empty()).then_some(()));
            process.signal(signal);
            let begun = Instant::now();
            assert_eq!(process.wait().code, expected, "{act}");
            assert!(begun.elapsed() < Duration::from_secs(10));
        }
    }
}

#[test]
fn arguments_follow_the_app_with_or_without_dashes() {
    let app = App::new();
    for (arguments, expected) in [
        (&["do", "arguments", "a b", ""][..], "do arguments|a b|"),
        (&["--", "do", "arguments", "--network", "-x"], "do arguments|--network|-x"),
        (&["do", "arguments", "--network", "--", "-f"], "do arguments|--network|--|-f"),
        (&["do", "arguments", "--help"], "do arguments|--help"),
    ] {
        let printed = app.run("wasi02", arguments).done();
        let printed: Vec<_> = printed.lines().collect();
        assert_eq!(printed[0], "wasi02.wasm");
        assert_eq!(format!("do {}", printed[2..].join("|")), expected);
    }
}

/// As behind `wasmtime run app.wasm`.
#[test]
fn an_option_that_is_not_the_hosts_begins_the_arguments_of_a_command() {
    let app = App::new();
    for (arguments, its_own) in [
        (&["--help"][..], &["--help"][..]),
        (&["-V"], &["-V"]),
        (&["--env", "A=1", "--version", "--env", "B=2"], &["--version", "--env", "B=2"]),
        (&["--", "--help"], &["--help"]),
        (&["-f", "x"], &["-f", "x"]),
    ] {
        let ended = app.run("cmd-test", arguments);
        // The guest says what it got, escaped twice.
        let told = ended.stderr.replace('\\', "");
        assert!(told.contains(&format!("nothing this command does: {its_own:?}")), "{ended:?}");
    }
    // This program's own are before the app.
    let help = Process::start(app.folder.path(), ["run", "--help"]).wait().done();
    assert!(help.contains("Usage: wasmhost run"), "{help}");
}

#[test]
fn an_app_that_is_served_has_the_hosts_help_and_its_errors() {
    let app = App::new();
    let help = app.run("web-test", &["--help"]).done();
    assert!(help.contains("Usage: wasmhost run"), "{help}");
    let ended = app.run("web-test", &["--lisen", "127.0.0.1:0"]);
    assert!(ended.code == 2 && ended.stderr.contains("'--listen'"), "{ended:?}");
}

#[test]
fn a_command_sees_the_environment_that_it_is_given_and_no_other() {
    let app = App::new();
    assert_eq!(app.run("wasi02", &["do", "environment"]).done(), "");
    let given = ["--env", "A=1=2", "--env", "GUESTS", "--env", "NOT_SET_ANYWHERE", "do", "environment"];
    let printed = app.run("wasi02", &given).done();
    // The harness sets GUESTS.
    let guests = crate::harness::guests();
    assert_eq!(printed, format!("A=1=2\nGUESTS={}\n", guests.display()));
    assert_eq!(app.run("cmd-test-core", &["--env", "A=1", "env"]).done(), "A=1\n");
}

#[test]
fn a_command_writes_in_the_directories_that_it_is_given() {
    let app = App::new();
    fs::create_dir(app.path("here")).unwrap();
    for guest in ["cmd-test", "cmd-test-core"] {
        app.run(guest, &["--dir", "here::/there", "touch", "/there/a"]).done();
        app.run(guest, &["--dir", "here", "touch", "here/b"]).done();
        let ended = app.run(guest, &["--dir", "here::/there::ro", "touch", "/there/c"]);
        assert_eq!(ended.code, 1, "{ended:#?}");
        assert_eq!(app.run(guest, &["touch", "here/d"]).code, 1);
        let mut names: Vec<_> =
            fs::read_dir(app.path("here")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["a", "b"]);
        fs::remove_dir_all(app.path("here")).unwrap();
        fs::create_dir(app.path("here")).unwrap();
    }
}

/// Nobody reads from the FIFO, or writes to it: whoever opened it would wait, and hold a thread.
#[test]
fn a_command_opens_files_and_directories_alone() {
    let app = App::new();
    fs::create_dir(app.path("data")).unwrap();
    fs::write(app.path("data/file"), "text").unwrap();
    mknodat(CWD, app.path("data/fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    for guest in ["cmd-test", "cmd-test-core"] {
        let run = |arguments: &[&str]| {
            let arguments: Vec<_> = ["--dir", "data::/data"].iter().chain(arguments).copied().collect();
            app.run(guest, &arguments)
        };
        assert_eq!(
            run(&["open", "/data/file", "100"]).done(),
            "100 at once: enough\n100 one after another\n"
        );
        assert_eq!(run(&["touch", "/data/fifo"]).code, 1, "{guest}");
        let opened = run(&["open", "/data/fifo", "1"]).done();
        assert!(
            opened.starts_with("0 at once: ") && opened.ends_with("\n0 one after another\n"),
            "{guest}: {opened}"
        );
    }
}

#[test]
fn a_command_connects_where_it_may_and_a_refusal_names_the_flag() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let app = App::new();
    assert_eq!(app.run("wasi02", &["--outbound", &address, "do", "connect", &address]).done(), "connected\n");
    assert_eq!(app.run("wasi02", &["--network", "do", "connect", &address]).done(), "connected\n");
    let refused = app.run("wasi02", &["do", "connect", &address]);
    assert_eq!(refused.code, 1, "{refused:#?}");
    let expected = format!(
        "wasi02.wasm tried to connect to {address}, which is not granted; this would: --outbound {address}"
    );
    assert_eq!(refused.stderr.matches(&expected).count(), 1, "{refused:#?}");
}

#[test]
fn nothing_is_left_behind_and_nothing_of_the_host_is_seen() {
    let app = App::new();
    let folder = app.path("tmp");
    fs::create_dir(&folder).unwrap();
    let output = app.command("wasi02", &["do", "exit", "ok"]).env("TMPDIR", &folder).output().unwrap();
    assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    assert_eq!(fs::read_dir(app.folder.path()).unwrap().count(), 1, "only `tmp`");
}

// --- what is served

#[test]
fn an_http_app_is_served_and_says_first_where() {
    let served = Served::start("wasi02-service", &[]);
    assert_eq!(served.get("/hello"), "hello\n");
    assert_eq!(served.get("/seen/x?y"), format!("Method::Get Scheme::Http {} /seen/x?y", served.address));
    served.process.signal(Signal::TERM);
    assert_eq!(served.process.wait().never_panicked().code, 0);
}

#[test]
fn the_first_line_says_where_also_when_instances_trap_at_once() {
    // They may never get ready, and the address is known before.
    let served = Served::start("trap-start", &[]);
    served.process.stderr.wait_for("unreachable");
}

#[test]
fn a_served_app_has_as_many_instances_and_the_grants_that_flags_say() {
    let app = App::new();
    let tmp = app.path("tmp");
    fs::create_dir(&tmp).unwrap();
    let arguments =
        ["--count", "web=3", "--env", "A=1", "--memory", "64MiB", "--timeout", "2s", "--", "an argument"];
    let served = Served::start("wasi02-service", &arguments);
    let seen = served.get("/env");
    for line in ["A=1", "WASMHOST_TYPE=web", "an argument"] {
        assert!(seen.lines().any(|found| found == line), "{line} in {seen}");
    }
    // Its temporary state directory answers like any host's, by its lock's place.
    served.process.stderr.wait_for("all instances are up");
    let late = Connection::open(served.address).unwrap().send(&Request::get("/late")).unwrap();
    assert_eq!(late.status, 504, "--timeout is each request's");
}

#[test]
fn lines_of_a_served_app_bear_its_name() {
    let served = Served::start("wasi02-service", &[]);
    served.get("/print");
    for line in ["one", "two"] {
        let found = served.process.stdout.wait_for(&format!("\"line\":\"{line}\""));
        assert!(found.contains("\"instance\":\"web.") && found.contains("\"stdout\""), "{found}");
    }
    assert!(served.process.stdout.wait_for("three").contains("\"stderr\""));
}

#[test]
fn a_served_app_that_is_refused_a_host_is_told_which_flag_grants_it() {
    let other = Served::start("wasi02-service", &[]);
    let url = format!("http://{}", other.address);
    let served = Served::start("wasi02-service", &[]);
    for _ in 0..2 {
        assert_eq!(served.get(&format!("/fetch?{url}/hello")), "ErrorCode::HttpRequestDenied\n");
    }
    let expected =
        format!("web tried to connect to {url}, which is not granted; this would: --outbound {url}");
    served.process.stderr.wait_for(&expected);
    for grant in [&["--outbound", &url][..], &["--network"]] {
        assert_eq!(Served::start("wasi02-service", grant).get(&format!("/fetch?{url}/hello")), "200\n");
    }
    served.process.signal(Signal::INT);
    let ended = served.process.wait();
    assert_eq!((ended.code, ended.stderr.matches(&expected).count()), (0, 1), "once: {ended:#?}");
}

#[test]
fn a_served_app_takes_its_state_with_it() {
    let app = App::new();
    let tmp = app.path("tmp");
    fs::create_dir(&tmp).unwrap();
    let child = app
        .command("wasi02-service", &["--listen", "127.0.0.1:0"])
        .env("TMPDIR", &tmp)
        .stdout(Stdio::null())
        .spawn();
    let mut child = child.unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let first = lines.find(|line| !tells_of_compiling(line)).unwrap();
    assert!(first.starts_with("Serving HTTP on http://127.0.0.1:"), "{first}");
    assert_eq!(fs::read_dir(&tmp).unwrap().count(), 1);
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    lines.for_each(drop);
    assert!(child.wait().unwrap().success());
    assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0);
    assert!(!app.path(".wasmhost").exists());
}
