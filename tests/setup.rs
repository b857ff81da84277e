//! The verbs that write files: `import`, `init` and `export`.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::harness::{Formation, Host};

fn procfile() -> Formation {
    Formation::new()
        .with_guest("web-test", "web.wasm")
        .with_guest("job-test", "worker.wasm")
        .with_guest("cmd-test", "tools.wasm")
        .with_file(
            "Procfile",
            "# serves\nweb: web.wasm --flag 'a b' ${NAME:-x}\nworker: LEVEL=\"high $KEY\" worker.wasm\nonce: tools.wasm echo\nrelease: tools.wasm echo $KEY\n",
        )
        .with_file(".env", "KEY=s3cret\nPORT=0\n")
}

/// What `check` understands of a file.
#[track_caller]
fn understood(formation: &Formation, file: &str) -> Value {
    serde_json::from_str(&formation.cli(["check", "--json", file]).done()).unwrap()
}

#[test]
fn what_is_imported_is_understood_as_the_procfile_is() {
    let formation = procfile();
    let before = understood(&formation, "Procfile");
    let said = formation.cli(["import"]).done();
    assert!(said.starts_with("wrote formation.toml with 4 process types"), "{said}");
    let text = formation.read("formation.toml");
    assert!(text.contains("# serves\n[process.web]\n") && !text.contains("s3cret"), "{text}");
    let after = understood(&formation, "formation.toml");
    assert_eq!(before, after, "{text}");
    assert_eq!(after["process"]["web"]["enqueue"][0], "default");

    formation.cli(["import"]).failed(2, "formation.toml is there already");
    assert_eq!(formation.read("formation.toml"), text);
    formation.cli(["import", "--force", "-m", "web=3,worker=2"]).done();
    assert_eq!(understood(&formation, "formation.toml")["process"]["web"]["count"], 3);
    let printed = formation.cli(["import", "-o", "-", "--formation", "all=2"]).done();
    assert_eq!(printed.matches("count = 2").count(), 4, "{printed}");
    formation.cli(["import", "-m", "wbe=3"]).failed(2, "no such type; there are web, worker, once, release");
    formation
        .cli(["import", "-o", "/tmp/formation.toml"])
        .failed(2, "expected a file in the folder of Procfile");
    formation.cli(["import", "formation.toml"]).failed(2, "expected a Procfile");
    let host = Host::run(&formation);
    host.get("/ok").ok();
}

#[test]
fn an_import_fills_in_what_a_procfile_cannot_say() {
    let formation = Formation::new()
        .with_guest("web-test", "web.wasm")
        .with_guest("tick-test", "clock.wasm")
        .with_file("Procfile", "api: web.wasm\nweb: web.wasm\nclock: clock.wasm\n");
    formation.cli(["import"]).done();
    let text = formation.read("formation.toml");
    for line in [
        "route = \"/api\"    # a guess",
        "route = \"/\"\n",
        "schedule = \"0 * * * *\"    # a guess: each hour",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    formation.cli(["check"]).done();
    let formation = formation.with_file("Procfile", "web: web.wasm\nlater: not-built.wasm\n");
    formation.cli(["import", "--force"]).done();
    assert!(formation.read("formation.toml").contains("not-built.wasm can't be read yet"));
}

#[test]
fn a_folder_of_components_gets_a_formation_that_runs() {
    let formation = Formation::new()
        .with_guest("web-test", "target/wasm32-wasip2/release/web_app.wasm")
        .with_guest("web-test", "target/wasm32-wasip2/debug/web_app.wasm")
        .with_guest("web-test", "admin.wasm")
        .with_guest("job-test", "worker.wasm")
        .with_guest("tick-test", "clock.wasm")
        .with_guest("cmd-test", "tools.wasm")
        .with_guest("empty", "empty.wasm")
        .with_guest("imports-unknown", "odd.wasm")
        .with_file("notes.wasm", "no component");
    let said = formation.cli(["init"]).done();
    assert!(said.contains("wrote formation.toml with 5 process types; next: `wasmhost run`"), "{said}");
    let text = formation.read("formation.toml");
    for line in [
        "[process.admin]\ncomponent = \"admin.wasm\"\nroute = \"/\"\nenqueue = [\"default\"]\n",
        "[process.clock]\ncomponent = \"clock.wasm\"\nschedule = \"0 * * * *\"",
        "[process.tools]\ncomponent = \"tools.wasm\"\nrun = \"always\"",
        "[process.web-app]\ncomponent = \"target/wasm32-wasip2/release/web_app.wasm\"\nroute = \"/web-app\"",
        "[process.worker]\ncomponent = \"worker.wasm\"\nqueue = \"default\"",
        "# Left out: empty.wasm exports nothing",
        "# Left out: notes.wasm is not WebAssembly",
        "# Left out: odd.wasm imports ",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    formation.cli(["check"]).done();
    formation.cli(["init"]).failed(2, "formation.toml is there already, and stays as it is");
    assert_eq!(formation.read("formation.toml"), text);
    formation.cli(["-f", "other.toml", "init"]).done();
    formation.cli(["-f", "other.toml", "check"]).done();
}

#[test]
fn a_folder_without_components_gets_nothing() {
    let formation = Formation::new().with_guest("empty", "empty.wasm");
    formation.cli(["init"]).failed(4, "found no component that can be called");
    formation.cli(["init", "nowhere"]).failed(1, "can't look into nowhere");
    assert!(!formation.file().exists());
    Formation::new().cli(["init"]).failed(4, "found no .wasm file");
}

#[test]
fn a_procfile_comes_back_from_what_was_imported_of_it() {
    let formation = procfile();
    let before = understood(&formation, "Procfile");
    formation.cli(["import"]).done();
    let exported = formation.cli(["export", "procfile"]);
    assert_eq!(
        exported.stdout,
        "web: web.wasm --flag 'a b' x\nworker: LEVEL='high '\"${KEY}\" worker.wasm\nonce: tools.wasm echo\nrelease: tools.wasm echo \"${KEY}\"\n"
    );
    assert!(
        exported.stderr.contains("process.web: the value of env.KEY, which belongs in .env"),
        "{exported:?}"
    );
    fs::write(formation.path("Procfile"), &exported.stdout).unwrap();
    assert_eq!(understood(&formation, "Procfile"), before);
    formation.cli(["export", "procfile", "-o", "Procfile"]).failed(2, "Procfile is there already");
    formation.cli(["export", "procfile", "-o", "Procfile", "--force"]).done();
}

/// A formation whose folder is none of those that a service doesn't see by itself.
fn served() -> Formation {
    Formation::web("dirs = [{ host = \"out 100%\", guest = \"/out\", access = \"write\" }]\nenv = { A = { from_env = \"FROM_SHELL\" } }")
        .directory("out 100%")
        .http("listen = [\"127.0.0.1:8099\", \"unix:web.sock\", \"fd:more\"]")
        .top("grace = \"1m\"")
        .variable("FROM_SHELL", "x")
}

#[test]
fn units_are_written_with_what_to_do_next() {
    let formation = served();
    let said = formation.cli(["export", "systemd", "units", "--user", "shop"]).done();
    for part in [
        "wrote units/test.service",
        "wrote units/test.socket",
        "wrote units/test-more.socket",
        "useradd --system",
        "install -d -o shop -m 0700 ",
        "a line for each: FROM_SHELL=...",
        "systemctl enable --now test.service test.socket test-more.socket",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let folder = fs::canonicalize(formation.folder()).unwrap();
    let service = formation.read("units/test.service");
    for line in [
        "User=shop".to_owned(),
        "TimeoutStopSec=75s".to_owned(),
        "Sockets=test.socket test-more.socket".to_owned(),
        format!("WorkingDirectory={}", folder.display()),
        // Its folder is below /tmp, which the service has one of its own of.
        format!("BindReadOnlyPaths={}", folder.display()),
        format!("BindPaths={}/.wasmhost", folder.display()),
        format!("BindPaths=\"{}/out 100%%\"", folder.display()),
    ] {
        assert!(service.lines().any(|found| found == line), "{line} in {service}");
    }
    let socket = formation.read("units/test.socket");
    for line in
        ["ListenStream=127.0.0.1:8099".to_owned(), format!("ListenStream={}/web.sock", folder.display())]
    {
        assert!(socket.lines().any(|found| found == line), "{line} in {socket}");
    }
    assert!(formation.read("units/test-more.socket").contains("FileDescriptorName=more\n"));
    formation.cli(["export", "systemd", "units"]).failed(2, "test.service is there already");
    let refused = formation.cli(["export", "systemd", "units", "--force", "--user", "a b"]);
    assert!(refused.code == 2 && refused.stderr.contains("expected the name of a user"), "{refused:?}");
}

#[test]
fn a_path_that_no_unit_can_name_is_refused() {
    let formation = Formation::web("dirs = [{ host = \"it's\", guest = \"/out\", access = \"write\" }]")
        .directory("it's");
    formation
        .cli(["export", "systemd", "units"])
        .failed(2, "the path has a quote, a backslash or a control character");
    assert!(!formation.path("units").exists(), "nothing is half done");
}

#[test]
fn systemd_takes_the_units_and_finds_them_safe() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        println!("LEFT OUT: there is no systemd-analyze here, so that nobody has looked at the units");
        return;
    }
    let formation = served();
    formation.cli(["export", "systemd", "units", "--user", "shop"]).done();
    let units = ["units/test.service", "units/test.socket", "units/test-more.socket"]
        .map(|unit| formation.path(unit));
    let verified =
        Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&units).output().unwrap();
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    let about_ours: Vec<_> =
        said.lines().filter(|line| line.contains("test.") || line.contains("test-more")).collect();
    assert!(verified.status.success() && about_ours.is_empty(), "{said}");

    let mut security = Command::new("systemd-analyze");
    let security =
        security.args(["security", "--offline=true", "--no-pager"]).arg(&units[0]).output().unwrap();
    let said = String::from_utf8_lossy(&security.stdout).into_owned();
    let exposure = said.lines().find_map(|line| line.split_once("Overall exposure level for test.service: "));
    let exposure =
        exposure.unwrap_or_else(|| panic!("{said}\n{security:?}")).1.split_whitespace().next().unwrap();
    assert!(exposure.parse::<f64>().unwrap() < 2.0, "{said}");
}
