//! The processes that components are compiled in: their bounds, what becomes of a component that meets them, and of them
//! when somebody else ends.

use std::fs;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::wasm::{command, nested_loops};
use crate::harness::{Formation, Host, Process, eventually, versioned_web};

/// The compiler takes minutes for it, in 80 KB of memory.
fn endless() -> Vec<u8> {
    nested_loops(100_000)
}

/// A release step that has this component, which nothing has compiled before.
fn with_component(wasm: &[u8], compile: &str) -> Formation {
    let table = format!("[process.evil]\ncomponent = \"evil.wasm\"\nrun = \"release\"\n[compile]\n{compile}");
    let formation = Formation::new().table(&table);
    fs::write(formation.path("evil.wasm"), wasm).unwrap();
    formation
}

/// The processes that this one has started.
fn children_of(pid: u32) -> Vec<i32> {
    let parent_of = |stat: &str| stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|child| {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        parent_of(&stat) == Some(pid)
    })
    .collect()
}

/// The processes that compile for this one.
fn compilers_of(pid: u32) -> Vec<i32> {
    let compiles = |child: &i32| {
        fs::read_to_string(format!("/proc/{child}/cmdline"))
            .is_ok_and(|line| line.contains("compile-for-the-host"))
    };
    children_of(pid).into_iter().filter(compiles).collect()
}

/// The one process that compiles for this one, as soon as there is one.
#[track_caller]
fn compiler_of(pid: u32) -> i32 {
    eventually("it has started a process that compiles", || compilers_of(pid).first().copied())
}

fn is_there(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn a_component_that_takes_too_long_to_compile_is_not_loaded() {
    let expected = "can't be compiled within its bounds: it took more than 1s of CPU time; `cpu` in [compile] of the formation, or `wasmhost compile --cpu`, allows more";
    let formation = with_component(&endless(), "cpu = \"1s\"");
    formation.run_to_end().failed(4, expected);
    formation.cli(["compile", "evil.wasm", "--cpu", "1s"]).failed(4, expected);
    assert!(!formation.path("evil.cwasm").exists());
}

#[test]
fn a_component_that_takes_too_much_memory_to_compile_is_not_loaded() {
    let expected = "can't be compiled within its bounds: it took more than 96MiB of memory; `memory` in [compile] of the formation, or `wasmhost compile --memory`, allows more";
    let formation = with_component(&command(b"", 200_000), "memory = \"96MiB\"");
    formation.run_to_end().failed(4, expected);
    formation.cli(["compile", "evil.wasm", "--memory", "96MiB"]).failed(4, expected);
}

#[test]
fn a_component_that_the_compiler_refuses_is_told_as_before() {
    let formation = with_component(&command(b"\x41\x01", 1), "");
    for ended in [formation.run_to_end(), formation.cli(["compile", "evil.wasm"])] {
        let ended = ended.never_panicked();
        assert_eq!((ended.code, ended.stderr.matches("can't be compiled: ").count()), (4, 1), "{ended:#?}");
        assert!(ended.stderr.contains("values remaining on stack"), "{ended:#?}");
    }
}

#[test]
fn a_deploy_whose_component_explodes_in_the_compiler_fails_alone() {
    let formation =
        versioned_web("one", "").table("[process.tool]\ncomponent = \"tool.wasm\"\nrun = \"never\"");
    fs::write(formation.path("tool.wasm"), command(b"", 1)).unwrap();
    let formation = formation.table("[compile]\ncpu = \"1s\"");
    let host = Host::run(&formation);
    let load = host.load_of_versions(2, &["one"]);
    load.wait_for(20);
    fs::write(formation.path("tool.wasm"), endless()).unwrap();
    let ended = host.cli(["deploy"]).failed(1, "it took more than 1s of CPU time");
    assert!(ended.stderr.contains("v1 is live, as before"), "{ended:#?}");
    load.wait_for(20);
    load.stop();
    let why = host.release(2)["release"]["why"].as_str().unwrap().to_owned();
    assert!(why.contains("more than 1s of CPU time"), "{why}");
    // A component that is right can be deployed after that.
    fs::write(formation.path("tool.wasm"), command(b"\x01", 1)).unwrap();
    host.cli(["deploy"]).done();
    assert!(children_of(host.pid()).is_empty());
    host.stop().done();
}

#[test]
fn a_deploy_that_is_given_up_leaves_no_compiler_behind() {
    // One more than may be compiled at once.
    let names = ["tool-0", "tool-1", "tool-2"];
    let put = |formation: &Formation, name: &str, wasm: &[u8]| {
        // Each is another component.
        let marked = [wasm, &[0, 2, 1, name.as_bytes()[5]]].concat();
        fs::write(formation.path(&format!("{name}.wasm")), marked).unwrap();
    };
    let formation = names.iter().fold(versioned_web("one", ""), |formation, name| {
        put(&formation, name, &command(b"", 1));
        formation.table(&format!("[process.{name}]\ncomponent = \"{name}.wasm\"\nrun = \"never\""))
    });
    let host = Host::run(&formation);
    names.iter().for_each(|name| put(&formation, name, &endless()));
    let deploy = host.cli_beside(["deploy", "--timeout", "10s"]);
    let compilers = eventually("as many compile as may", || {
        let compilers = compilers_of(host.pid());
        (compilers.len() == 2).then_some(compilers)
    });
    let ended = deploy.wait().failed(1, "it wasn't done within 10s: its components were being compiled");
    assert!(ended.stderr.contains("v1 is live, as before"), "{ended:#?}");
    eventually("they have ended", || (!compilers.iter().any(|pid| is_there(*pid))).then_some(()));
    // They hold up no other component, nor does the one that waited for its turn.
    names.iter().for_each(|name| put(&formation, name, &command(b"\x01", 1)));
    host.cli(["deploy"]).done();
    eventually("none is left", || children_of(host.pid()).is_empty().then_some(()));
    host.stop().done();
}

#[test]
fn a_host_that_compiles_says_so_and_is_stopped_at_once() {
    let formation = Formation::web("").table("[process.evil]\ncomponent = \"evil.wasm\"\nrun = \"never\"");
    fs::write(formation.path("evil.wasm"), endless()).unwrap();
    let host = formation.start(["run"]);
    let view: Value = eventually("it says how far it is", || {
        let ended = formation.cli(["ps", "--json"]);
        let view: Value = serde_json::from_str(&ended.stdout).ok()?;
        (view["starting"] == "compiling components: 1 of 2").then_some(view)
    });
    assert_eq!((&view["types"], &view["pid"]), (&serde_json::json!([]), &host.pid().into()));
    let compiler = compiler_of(host.pid());
    for arguments in [vec!["ps"], vec!["ps", "web"]] {
        let text = formation.start_of(arguments).wait().done();
        assert!(text.starts_with("test  starting  pid "), "{text}");
        assert!(text.ends_with("\n\ncompiling components: 1 of 2\n"), "{text}");
    }
    formation.cli(["scale"]).failed(1, "the host is starting (compiling components: 1 of 2)");
    let follower = formation.start(["logs", "-f"]);
    follower.stderr.wait_for("the host is starting (compiling components: 1 of 2)");
    formation
        .cli(["ps", "--wait", "--timeout", "3s"])
        .failed(1, "after 3 s the host was still starting (compiling components: 1 of 2)");
    // All else waits until it has started, and says so.
    let waiting = [["jobs", "stats"], ["ps", "--wait"]].map(|verb| formation.start(verb));
    for verb in &waiting {
        verb.stderr.wait_for("the host is starting (compiling components: 1 of 2): waiting until it has");
    }
    formation.cli(["stop"]).done();
    for verb in waiting {
        verb.wait().failed(1, "the host didn't start: it was told to stop before it had started");
    }
    follower.wait().done();
    host.wait().never_panicked().done();
    eventually("its compiler has ended", || (!is_there(compiler)).then_some(()));
    let listed = formation.cli(["releases", "--json"]).done();
    let release: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((&release["number"], &release["state"]), (&1.into(), &"failed".into()));
}

#[test]
fn a_host_that_does_not_answer_is_not_waited_for_longer_than_was_said() {
    let formation = Formation::web("");
    let host = Host::run(&formation);
    host.signal(Signal::STOP);
    let begun = Instant::now();
    formation.cli(["stop", "--timeout", "1s"]).failed(1, "the host has not answered after 1 s");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    let waiting = [
        formation.start(["deploy", "--timeout", "1s"]),
        formation.start(["rollback", "--timeout", "1s"]),
        formation.start(["scale", "web=2", "--timeout", "1s"]),
        formation.start(["restart", "web", "--timeout", "1s"]),
    ];
    for verb in waiting {
        verb.wait().failed(1, "the host has not answered for 10 s, and may still do what it was asked for");
    }
    host.signal(Signal::CONT);
    host.kill();
}

#[test]
fn a_host_in_a_release_step_says_so_and_is_stopped_at_once() {
    let step = "run = \"release\"\nargs = [\"sleep\", \"600000\"]";
    let formation = Formation::web("").process("step", "cmd-test", step);
    let host = formation.start(["run"]);
    eventually("it says what it does", || {
        let ended = formation.cli(["ps"]);
        ended.stdout.contains("running the release step \"step\"").then_some(())
    });
    formation.cli(["stop"]).done();
    host.wait().never_panicked().done();
}

/// The file may have been read before it.
#[test]
fn a_hang_up_while_a_host_starts_is_a_deploy_when_it_serves() {
    let step = "run = \"release\"\nargs = [\"sleep\", \"3000\"]";
    let formation = Formation::web("").process("step", "cmd-test", step);
    let host = formation.start(["run"]);
    eventually("it says what it does", || {
        let ended = formation.cli(["ps"]);
        ended.stdout.contains("running the release step \"step\"").then_some(())
    });
    let formation = formation.replace("[process.step]", "[process.other-step]");
    host.signal(Signal::HUP);
    host.stderr.wait_for("v2 is live");
    formation.cli(["stop"]).done();
    host.wait().never_panicked().done();
}

#[test]
fn lines_are_had_while_a_host_compiles_and_followed_until_it_serves() {
    let formation = Formation::web("").process("talk", "cmd-test", "args = [\"echo\", \"hello\"]");
    // These are compiled from now on.
    Host::launch(&formation).stop().done();
    let formation = formation.table("[process.slow]\ncomponent = \"slow.wasm\"\nrun = \"never\"");
    fs::write(formation.path("slow.wasm"), never_compiled(nested_loops(6_000))).unwrap();
    let host = formation.start(["run"]);
    let compiler = Pid::from_raw(compiler_of(host.pid())).unwrap();
    kill_process(compiler, Signal::STOP).unwrap();
    eventually("all else is there", || {
        formation.cli(["ps"]).stdout.contains("compiling components: 2 of 3").then_some(())
    });
    let starting = "the host is starting (compiling components: 2 of 3)";
    let of_host = eventually("the host has written a line", || {
        let ended = formation.cli(["logs", "host"]);
        ended.stdout.contains("compiling slow").then_some(ended)
    });
    assert!(of_host.stderr.contains(starting), "{of_host:#?}");
    let of_web = formation.cli(["logs", "web"]);
    assert!(of_web.stdout.is_empty() && of_web.stderr.contains(starting), "{of_web:#?}");
    formation
        .cli(["logs", "wbe"])
        .failed(1, "there is no process type \"wbe\"; this formation has web, talk, slow");
    let followers = ["talk", "host"].map(|target| {
        let follower = formation.start(["logs", "-f", target]);
        follower.stderr.wait_for(starting);
        follower
    });
    kill_process(compiler, Signal::CONT).unwrap();
    followers[0].stdout.wait_for("hello");
    followers[1].stdout.wait_for("compiled slow");
    formation.cli(["stop"]).done();
    for follower in followers {
        follower.wait().done();
    }
    host.wait().done();
}

/// A component with a section that no other has.
fn never_compiled(mut wasm: Vec<u8>) -> Vec<u8> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
    // A custom section of 18 bytes: the length of its name, the name, the rest.
    wasm.extend([0, 18, 1, b'n']);
    wasm.extend(now.to_le_bytes());
    wasm
}

#[test]
fn a_compiler_that_somebody_kills_says_nothing_of_the_component() {
    let formation = with_component(&endless(), "");
    let process = formation.start(["run"]);
    kill(compiler_of(process.pid()));
    process
        .wait()
        .failed(3, "could not be compiled: its process was killed: the system may have run out of memory");
}

#[test]
fn a_compiler_ends_with_the_process_that_started_it() {
    let formation = with_component(&endless(), "");
    let process = formation.start(["run"]);
    let compiler = compiler_of(process.pid());
    process.signal(Signal::KILL);
    eventually("it has ended, too", || (!is_there(compiler)).then_some(()));
    process.wait();
    // Its release isn't on its way any more.
    let release: Value = serde_json::from_str(&formation.cli(["releases", "--json"]).done()).unwrap();
    assert_eq!(
        (&release["state"], &release["why"]),
        (&"failed".into(), &"its host ended before it was live".into())
    );
}

#[test]
fn a_compiler_knows_nothing_of_the_hosts_environment() {
    let formation = with_component(&endless(), "").variable("STRIPE_KEY", "sk_live_secret");
    let process = formation.start(["run"]);
    let compiler = compiler_of(process.pid());
    let environment = fs::read_to_string(format!("/proc/{compiler}/environ")).unwrap();
    assert!(!environment.contains("sk_live"), "{environment}");
    eventually("it has bounded itself", || {
        let limits = fs::read_to_string(format!("/proc/{compiler}/limits")).unwrap();
        let limit =
            |name: &str| limits.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim_start();
        (limit("Max cpu time").starts_with("300 ") && limit("Max core file size").starts_with("0 "))
            .then_some(())
    });
    drop(process);
}

#[test]
fn no_more_than_two_components_are_compiled_at_once() {
    let formation = (0..4).fold(Formation::new().table("[compile]\ncpu = \"1s\""), |formation, n| {
        // Each is another component.
        let mut wasm = endless();
        wasm.extend([0, 2, 1, b'0' + n]);
        fs::write(formation.path(&format!("evil-{n}.wasm")), wasm).unwrap();
        formation.table(&format!("[process.evil-{n}]\ncomponent = \"evil-{n}.wasm\"\nrun = \"release\""))
    });
    let mut process = formation.start(["run"]);
    let mut most = 0;
    while !process.has_ended() {
        most = most.max(children_of(process.pid()).len());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!((1..=2).contains(&most), "{most}");
    process.wait().failed(4, "more than 1s of CPU time");
}

#[test]
fn the_argument_of_a_compiler_is_of_no_use_to_a_person() {
    let formation = Formation::new();
    for arguments in [vec!["compile-for-the-host"], vec!["compile-for-the-host", "1000", "1", "1"]] {
        let ended = Process::start(formation.folder(), arguments).wait();
        assert!(ended.code == 1 && ended.stdout.is_empty(), "{ended:#?}");
        assert!(!ended.stderr.is_empty(), "{ended:#?}");
    }
}
