//! A host that can't start says why, in one error, and exits with the right code.
//!
//! tests/scenarios has a folder for each formation that is wrong by itself: `formation.toml`, what `wasmhost run`
//! prints on stderr (`stderr`), and the exit codes of `run` and `check` (`exit`). `$DIR` and `$GUESTS` stand for
//! folders that differ from run to run. With `BLESS=1` the tests write `stderr` instead of comparing it.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::{Ended, Formation, Host, guests, repository};

macro_rules! scenarios {
    ($($name:ident)*) => {
        const SCENARIOS: &[&str] = &[$(stringify!($name)),*];
        $(#[test] fn $name() { run_scenario(stringify!($name)); })*
    };
}

scenarios! {
    a_component_that_is_a_directory
    a_core_module_for_an_http_type
    a_directory_that_is_not_there
    a_variable_that_the_host_sets
    a_file_that_is_not_wasm
    a_formation_without_types
    a_schedule_that_nothing_exported_serves
    a_store_at_a_directory
    a_store_below_a_file
    a_store_that_is_another_kind_of_file
    a_syntax_error
    a_worker_that_exports_http
    a_web_that_exports_nothing
    an_import_that_nothing_provides
    an_unknown_key
    components_that_are_missing
    more_instances_than_there_is_room_for
    several_mistakes
    state_below_a_file
    two_types_with_one_route
    two_types_with_one_default_route
}

fn scenarios() -> PathBuf {
    repository().join("tests/scenarios")
}

#[test]
fn every_scenario_is_run() {
    let folders =
        fs::read_dir(scenarios()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut folders: Vec<_> = folders.collect();
    folders.sort();
    let mut run = SCENARIOS.to_vec();
    run.sort_unstable();
    assert_eq!(folders, run);
}

#[track_caller]
fn run_scenario(name: &str) {
    let scenario = scenarios().join(name);
    let formation = Formation::new();
    copy_all(&scenario, formation.folder());
    let exit = fs::read_to_string(scenario.join("exit")).unwrap();
    let code = |verb: &str| -> i32 {
        let line = exit.lines().find_map(|line| line.strip_prefix(verb));
        line.unwrap_or_else(|| panic!("{name}/exit says nothing about {verb}")).trim().parse().unwrap()
    };

    let ran = formation.run_to_end().never_panicked();
    let said = ran.stderr.replace(formation.folder().to_str().unwrap(), "$DIR");
    let said = said.replace(guests().to_str().unwrap(), "$GUESTS");
    if std::env::var_os("BLESS").is_some() {
        fs::write(scenario.join("stderr"), &said).unwrap();
    }
    assert_eq!(said, fs::read_to_string(scenario.join("stderr")).unwrap_or_default());
    assert_eq!(said.matches("error: ").count(), 1, "one error: {said}");
    assert_eq!((ran.code, ran.stdout.as_str()), (code("run"), ""), "{ran:#?}");

    let checked = formation.cli(["check"]).never_panicked();
    assert_eq!(checked.code, code("check"), "{checked:#?}");
    // A fault that both of them find is told by both in the same words.
    if checked.code != 0 {
        assert_eq!(checked.stderr, ran.stderr);
    }
}

fn copy_all(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => {
                fs::create_dir_all(&target).unwrap();
                copy_all(&entry.path(), &target);
            }
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[test]
fn a_missing_file_is_named() {
    let formation = Formation::new();
    formation.cli(["run", "nowhere.toml"]).failed(2, "nowhere.toml: no such file");
    formation.cli(["check", "nowhere.toml"]).failed(2, "nowhere.toml: no such file");
    // It was never written.
    formation.run_to_end().failed(2, "formation.toml: no such file");
}

#[test]
fn a_directory_is_not_a_formation() {
    let formation = Formation::web("").directory("app");
    formation.cli(["run", "app"]).failed(2, "app: found a directory, expected a formation file");
    formation.cli(["check", "app"]).failed(2, "app/formation.toml");
}

#[test]
fn a_wasm_file_in_place_of_a_formation_is_recognised() {
    let formation = Formation::web("");
    fs::copy(guests().join("web-test.wasm"), formation.path("web.wasm")).unwrap();
    formation.cli(["check", "web.wasm"]).failed(2, "web.wasm");
}

#[test]
fn a_port_in_use_is_an_error_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let formation = Formation::web("").replace("127.0.0.1:0", &address);
    let ended = formation.run_to_end().failed(3, &format!("can't listen on {address}"));
    assert!(ended.stderr.contains("another program listens there"), "{ended:#?}");
    formation.cli(["check"]).done();
}

#[test]
fn a_place_that_the_formation_names_twice_is_not_blamed_on_another_program() {
    // The file alone doesn't show it.
    let formation = Formation::web("").directory("real");
    std::os::unix::fs::symlink("real", formation.path("link")).unwrap();
    let formation = formation.http("listen = [\"unix:real/app.sock\", \"unix:link/app.sock\"]");
    let [real, link] = ["real", "link"].map(|folder| formation.path(folder).join("app.sock"));
    let expected = format!(
        "can't listen on unix:{} and on unix:{}, which are one place: remove one of the two from `listen`",
        link.display(),
        real.display()
    );
    let ended = formation.run_to_end().failed(3, &expected);
    assert!(!ended.stderr.contains("another program"), "{ended:#?}");
    formation.cli(["check"]).done();

    let formation = Formation::web("");
    let host = Host::run(&formation);
    let port = host.address().port();
    let formation = formation.http(&format!("listen = [\"127.0.0.1:{port}\", \"0.0.0.0:{port}\"]"));
    let expected = format!("can't listen on 0.0.0.0:{port} and on 127.0.0.1:{port}, which are one place");
    let ended = formation.cli(["deploy"]).failed(1, &expected);
    assert!(!ended.stderr.contains("another program"), "{ended:#?}");

    let formation = Formation::web("").http("listen = [\"fd:web\", \"fd:web\"]");
    formation.cli(["check"]).failed(2, "http.listen: the place \"fd:web\" is given twice");
}

#[test]
fn a_second_host_of_one_formation_is_refused_and_the_first_serves_on() {
    let formation = Formation::web("");
    let host = Host::run(&formation);
    formation.run_to_end().failed(3, "another wasmhost runs this formation already");
    assert_eq!(host.get("/ok").ok(), "ok\n");
    host.cli(["ps"]).done();
    host.stop().done();
}

#[test]
fn what_a_dead_host_left_is_no_obstacle() {
    let formation = Formation::web("");
    Host::run(&formation).kill();
    assert!(formation.path(".wasmhost/admin.sock").exists(), "kill -9 leaves the socket");
    let host = Host::run(&formation);
    assert_eq!(host.get("/ok").ok(), "ok\n");
    assert_eq!(host.stop().code, 0);
    assert!(!formation.path(".wasmhost/admin.sock").exists(), "an orderly end removes it");
}

#[test]
fn the_file_may_be_given_in_each_way() {
    let formation = Formation::web("");
    for arguments in [["run", "formation.toml"], ["-f", "formation.toml"]] {
        let mut arguments = arguments.to_vec();
        if arguments[0] == "-f" {
            arguments.push("run");
        }
        let process = crate::harness::Process::start(formation.folder(), arguments);
        process.stderr.wait_for("all instances are up");
    }
}

#[test]
fn check_prints_the_formation_as_it_is_understood() {
    let formation = Formation::web("count = 3\nenv = { SECRET = { file = \"secret\" } }");
    fs::write(formation.path("secret"), "the-secret-itself\n").unwrap();
    let text = formation.cli(["check"]).done();
    assert!(text.contains("[process.web]") && text.contains("count = 3"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&formation.cli(["check", "--json"]).done()).unwrap();
    assert_eq!(json["name"], "test");
    assert!(!format!("{text}{json}").contains("the-secret-itself"), "{text}{json}");
}

#[test]
fn what_check_prints_is_a_formation() {
    let formation = Formation::web("count = 3\nroute = [\"/a\", \"b.example/c\"]").process(
        "job",
        "job-test",
        "queue = \"q\"",
    );
    // The comments say what was inferred: that is in the printed text itself.
    let keys =
        |text: String| text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    let text = formation.cli(["check"]).done();
    let again = formation.with_text(&text);
    assert_eq!(keys(again.cli(["check"]).done()), keys(text));
}

#[test]
fn variables_come_from_the_environment_and_then_from_dotenv() {
    let formation =
        Formation::web("env = { A = \"${FROM_DOTENV}\", B = \"${NOWHERE:-else}\", C = \"$${x}\" }");
    fs::write(formation.path(".env"), "FROM_DOTENV=dotenv\n").unwrap();
    let host = Host::run(&formation);
    let env = host.get("/env").ok();
    for line in ["A=dotenv", "B=else", "C=${x}"] {
        assert!(env.lines().any(|found| found == line), "{line} in {env}");
    }
}

#[test]
fn a_missing_variable_is_an_error_that_names_it() {
    let formation = Formation::web("env = { A = \"${NOT_SET_ANYWHERE}\" }");
    let ended: Ended = formation.run_to_end().failed(2, "NOT_SET_ANYWHERE");
    assert!(ended.stderr.contains("process.web.env.A"), "{ended:#?}");
}

/// Each thread of a host: its name, and the cores that it may run on.
#[cfg(target_os = "linux")]
fn threads(host: &Host) -> Vec<(String, String)> {
    let tasks = fs::read_dir(format!("/proc/{}/task", host.pid())).unwrap();
    // One that has ended meanwhile has no files.
    let threads = tasks.filter_map(|task| {
        let task = task.unwrap().path();
        let name = fs::read_to_string(task.join("comm")).ok()?;
        Some((name.trim().to_owned(), cores(&fs::read_to_string(task.join("status")).ok()?)))
    });
    threads.collect()
}

#[cfg(target_os = "linux")]
fn cores(status: &str) -> String {
    status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim().to_owned()
}

#[test]
#[cfg(target_os = "linux")]
fn io_threads_have_a_core_each_and_all_others_any() {
    let count = std::thread::available_parallelism().unwrap().get();
    let cores_all = rustix::thread::sched_getaffinity(None).unwrap().count() as usize;
    // One core shows nothing, and where a quota is below the cores none are kept.
    if count == 1 || count < cores_all {
        return;
    }
    let any = cores(&fs::read_to_string("/proc/self/status").unwrap());
    // The threads that compile, and those that write, are there too.
    let formation = Formation::web("").http("access_log = \"json\"").variable("WASMHOST_CACHE", "off");
    let host = Host::run(&formation);
    host.get("/ok").ok();
    crate::harness::eventually("each thread is in its place", || {
        let threads = threads(&host);
        let computing = threads.iter().filter(|(name, _)| name.starts_with("wasmhost-comp")).count();
        let kept: Vec<_> = threads.iter().filter(|(_, cores)| *cores != any).collect();
        let places: BTreeSet<_> = kept.iter().map(|(_, cores)| cores).collect();
        let are_io = kept.iter().all(|(name, _)| name == "wasmhost-io");
        (computing == count && are_io && kept.len() == count && places.len() == count).then_some(())
    });
}

/// In which an instance that touches a byte would take 2 MiB.
#[test]
#[cfg(target_os = "linux")]
fn a_host_has_no_huge_pages() {
    let host = Host::run(&Formation::web(""));
    let status = fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
    // Which kernels before 5.0 don't tell.
    if let Some(enabled) = status.lines().find_map(|line| line.strip_prefix("THP_enabled:")) {
        assert_eq!(enabled.trim(), "0");
    }
}

/// As Linux makes it larger in a process with threads, it holds them up.
#[test]
#[cfg(target_os = "linux")]
fn a_hosts_table_of_files_has_room_for_its_connections() {
    let table = |connections: &str| {
        let host = Host::run(&Formation::web("").http(connections));
        let status = fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
        size.trim().parse::<u64>().unwrap()
    };
    let files_max = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let wanted = files_max.map_or(10_000, |files| files.min(10_000));
    let (default, few) = (table(""), table("max_connections = 10"));
    assert!(default >= wanted, "{default} of {wanted}");
    assert!(few < 4_096, "{few}");
}

#[test]
fn instances_that_may_use_more_memory_than_there_is_are_warned_of() {
    let formation = Formation::web("count = 1000\nmemory = \"4GiB\"").top("max_instances = 1000");
    let checked = formation.cli(["check"]);
    assert_eq!(checked.code, 0, "{checked:#?}");
    assert!(checked.stderr.contains("4000 GiB of memory (web 1000 x 4 GiB)"), "{checked:#?}");
    let checked = Formation::web("count = 2\nmemory = \"16MiB\"").cli(["check"]);
    assert!(!checked.stderr.contains("of memory"), "{checked:#?}");
}

#[test]
fn a_script_waits_until_a_host_serves() {
    let formation = Formation::web("count = 3").process("tool", "cmd-test", "run = \"never\"");
    formation.cli(["ps", "--wait", "--timeout", "200ms"]).failed(5, "after 0.2 s no host runs");
    let waiting = formation.start(["ps", "--wait", "--timeout", "170s"]);
    let host = Host::spawn(&formation);
    let table = waiting.wait().done();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().take(4).collect()).collect();
    assert!(rows.contains(&vec!["web", "http", "3", "3"]), "{table}");
    let view = formation.cli(["ps", "--wait", "web", "--json"]).done();
    let view: Value = serde_json::from_str(&view).unwrap();
    assert_eq!((view["types"].as_array().unwrap().len(), &view["types"][0]["actual"]), (1, &3.into()));
    formation.cli(["ps", "--wait", "wbe"]).failed(1, "there is no process type \"wbe\"");
    formation.cli(["ps", "--timeout", "1s"]).failed(2, "--wait");
    host.stop().done();

    // Its start function loops.
    let formation = Formation::new().process("web", "spin-start", "");
    let host = Host::launch(&formation);
    formation.cli(["ps", "--wait", "--timeout", "1s"]).failed(1, "after 1 s web has 0 of 1 instances");
    host.kill();
}
