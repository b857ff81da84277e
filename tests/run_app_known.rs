//! Which files `wasmhost run` takes for an app, in which forms, and what it refuses.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use crate::harness::{Process, guest_file};
use crate::run_app::{App, code, output};

#[test]
fn what_is_no_app_is_refused_and_says_why() {
    let app = App::new();
    fs::write(app.path("text.wasm"), "hello").unwrap();
    fs::write(app.path("cut"), b"\0asm\x0d\0\x01\0\x07").unwrap();
    let guests = crate::harness::guests();
    let guest = |name: &str| guests.join(name).display().to_string();
    let job = guest("job-test.wasm");
    for (arguments, code, text) in [
        (
            &["missing.wasm"][..],
            4,
            "can't read missing.wasm: No such file or directory (os error 2); build it, or correct the path",
        ),
        (
            &["text.wasm"],
            4,
            "text.wasm is not WebAssembly: it begins with \"hello\", where a component begins with \\0asm",
        ),
        (&["cut"], 4, "cut is not a valid component: "),
        (
            &[&job],
            4,
            "which needs a formation: a file that names the component and, with `queue` or `schedule`, what calls it; `wasmhost run formation.toml` runs that",
        ),
        (
            &[&guest("empty.wasm")],
            4,
            "exports nothing, and an app exports wasi:http/incoming-handler@0.2.x or wasi:cli/run@0.2.x",
        ),
        (&[&guest("core.wasm")], 4, "is a core WebAssembly module without a function `_start`"),
        (&[&guest("imports-unknown.wasm")], 4, "which nothing here provides"),
        (
            &[&guest("cmd-test.wasm"), "--listen", "127.0.0.1:0"],
            2,
            "--listen is for an app that serves HTTP, and ",
        ),
        (&[&guest("cmd-test.wasm"), "--count", "2"], 2, "--count is for an app that serves HTTP, and "),
        (
            &[&guest("wasi02-service.wasm"), "--listen", "nowhere"],
            2,
            "--listen: found \"nowhere\", expected a host and a port",
        ),
        (
            &[&guest("wasi02-service.wasm"), "--env", "WASMHOST_TYPE=x"],
            2,
            "--env WASMHOST_TYPE: the host sets it",
        ),
        (
            &[&guest("cmd-test.wasm"), "--dir", "missing"],
            2,
            "--dir: missing doesn't exist: create it, or correct the path",
        ),
        (
            &[&guest("cmd-test.wasm"), "--dir", "cut"],
            2,
            "--dir: cut is not a directory: create it, or correct the path",
        ),
        (
            &[&guest("cmd-test.wasm"), "--outbound", "example.com"],
            2,
            "expected \"https://HOST\", \"http://HOST\" or \"HOST:PORT\"",
        ),
        (&[&guest("cmd-test.wasm"), "--memory", "128"], 2, "such as \"128MiB\""),
        (&[&guest("cmd-test.wasm"), "--netwrok"], 2, "--network"),
    ] {
        let arguments = ["run"].iter().chain(arguments);
        Process::start(app.folder.path(), arguments).wait().failed(code, text);
    }
}

#[test]
fn flags_of_an_app_are_refused_for_a_formation() {
    let formation = crate::harness::Formation::web("");
    let text = "--env is for an app (a .wasm file), and formation.toml is a formation: write it there";
    formation.cli(["run", "--env", "A=1"]).failed(2, text);
    formation.cli(["run", "formation.toml", "--env", "A=1"]).failed(2, text);
}

#[test]
fn a_port_that_is_taken_names_the_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = App::new().run("wasi02-service", &["--listen", &address]);
    ended.failed(3, &format!("can't listen on {address}: Address already in use (os error 98); --listen takes another address, or port 0 for any free one"));
}

#[test]
fn an_app_is_known_by_its_first_bytes_whatever_its_name() {
    let app = App::new();
    fs::copy(guest_file("cmd-test"), app.path("tool")).unwrap();
    let folder: &Path = app.folder.path();
    assert_eq!(Process::start(folder, ["run", "tool", "echo", "hello"]).wait().done(), "hello\n");
    assert_eq!(Process::start(folder, ["-f", "tool", "run"]).wait().done(), "done\n");
}

#[test]
fn of_two_mains_the_later_is_run() {
    assert_eq!(App::new().run("wasi03-main", &[]).done(), "the main of 0.3\n");
}

#[test]
fn an_app_may_come_through_a_pipe() {
    let app = App::new();
    let run = |input: &[u8]| output(app.command_of(Path::new("/dev/stdin"), &["echo", "hello"]), input);
    for guest in ["cmd-test", "cmd-test-core"] {
        let ran = run(&fs::read(guest_file(guest)).unwrap());
        assert_eq!((code(&ran), ran.stdout.as_slice()), (0, b"hello\n".as_slice()), "{ran:?}");
    }
    let formation = run(b"[process.web]\ncomponent = \"web.wasm\"\n");
    let said = String::from_utf8(formation.stderr.clone()).unwrap();
    assert_eq!(code(&formation), 2, "{formation:?}");
    assert!(said.contains("/dev/stdin doesn't begin as WebAssembly does"), "{said}");
    let broken = run(b"\0asm, or not");
    let said = String::from_utf8(broken.stderr.clone()).unwrap();
    assert!(code(&broken) == 4 && said.contains("error: /dev/stdin"), "{broken:?}");
}

#[test]
fn an_app_may_be_text() {
    let app = App::new();
    let exits = r#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (func (export "_start") (call $exit (i32.const 7))))"#;
    fs::write(app.path("exit.wat"), exits).unwrap();
    assert_eq!(code(&output(app.command_of(Path::new("exit.wat"), &[]), b"")), 7);
    fs::write(app.path("broken.wat"), "(module\n(func").unwrap();
    Process::start(app.folder.path(), ["run", "broken.wat"]).wait().failed(4, "broken.wat:2:");
}

#[test]
fn compiled_code_runs_where_it_is_trusted() {
    let app = App::new();
    let folder = app.folder.path();
    fs::copy(guest_file("cmd-test"), app.path("tool.wasm")).unwrap();
    Process::start(folder, ["compile", "tool.wasm"]).wait().done();
    Process::start(folder, ["run", "tool.cwasm"])
        .wait()
        .failed(4, "is compiled code, which runs outside of the sandbox");
    let ended = Process::start(folder, ["run", "tool.cwasm", "--trust-cwasm", "echo", "compiled"]).wait();
    assert_eq!(ended.done(), "compiled\n");
    fs::copy(guest_file("cmd-test-core"), app.path("core.wasm")).unwrap();
    Process::start(folder, ["compile", "core.wasm"]).wait().done();
    Process::start(folder, ["run", "core.cwasm", "exit", "7"])
        .wait()
        .failed(4, "is compiled code, which runs outside of the sandbox");
    let ended = Process::start(folder, ["run", "core.cwasm", "--trust-cwasm", "exit", "7"]).wait();
    assert_eq!((ended.code, ended.stderr.as_str()), (7, ""), "{ended:#?}");
}

#[test]
fn a_command_whose_start_never_ends_is_ended_by_its_own_timeout_or_by_that_of_any_start() {
    let endless = r#"(module (func $spin (loop br 0)) (start $spin) (func (export "_start")))"#;
    let app = App::new();
    fs::write(app.path("endless.wat"), endless).unwrap();
    let by_its_own = "endless.wat took longer than its --timeout, and was ended (ran ";
    let by_any = "endless.wat took longer to start than a program may, and was ended (ran ";
    let runs = [(&["--timeout", "1s"][..], by_its_own), (&["--timeout", "1h"], by_any), (&[], by_any)];
    let runs = runs.map(|(arguments, told)| {
        let arguments = [&["run", "endless.wat"], arguments].concat();
        (Process::start(app.folder.path(), arguments), told)
    });
    for (process, told) in runs {
        process.wait().failed(124, told);
    }
}
