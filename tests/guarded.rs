//! Directories that a formation can't grant: those that hold what the host itself works from.

use std::fs;
use std::os::unix::fs::symlink;

use crate::harness::{Ended, Formation, Process, guest_file};
use crate::run_app::{App, Served};

/// A formation whose `web` may have a directory, with its own component beside the file.
fn granting(host: &str, access: &str) -> Formation {
    let keys = format!("dirs = [{{ host = {host:?}, guest = \"/g\", access = {access:?} }}]");
    let formation = Formation::web(&keys).directory("data").directory("app");
    fs::copy(guest_file("web-test"), formation.path("app/web.wasm")).unwrap();
    let guest = format!("{:?}", guest_file("web-test"));
    formation.replace(&guest, "\"app/web.wasm\"")
}

#[track_caller]
fn refused(formation: &Formation, named: &str) -> Ended {
    let checked = formation.cli(["check"]).failed(2, "process.web: dirs grants ");
    assert!(checked.stderr.contains(named), "{named} in {checked:#?}");
    assert_eq!(formation.run_to_end().stderr, checked.stderr);
    checked
}

#[test]
fn the_hosts_own_files_are_granted_to_nobody() {
    for access in ["read", "write"] {
        let formation = granting(".", access);
        let folder = formation.folder().display().to_string();
        for named in [
            format!("the state directory {folder}/.wasmhost"),
            format!("the formation {folder}/formation.toml"),
            format!("the file of variables {folder}/.env"),
        ] {
            refused(&formation, &named);
        }
        refused(&granting("/", access), "the state directory ");
        refused(&granting(".wasmhost", access).directory(".wasmhost"), "the state directory ");
        refused(&granting("app/..", access), "the formation ");

        let formation = granting("elsewhere", access).directory("elsewhere/deep");
        let top = "name = \"test\"\nstate_dir = \"elsewhere/deep/state\"";
        refused(&formation.replace("name = \"test\"", top), "elsewhere/deep/state");
        let formation =
            granting("data", access).replace("[http]", "[store]\nurl = \"sqlite:data/jobs.db\"\n[http]");
        refused(&formation, "the store ");
        let formation = granting("data", access);
        let formation = formation.variable("WASMHOST_CACHE_DIR", "data/compiled");
        refused(&formation, "the cache of compiled components ");
        // Nothing is kept there.
        let formation = formation.variable("WASMHOST_CACHE", "off");
        formation.cli(["check"]).done();
    }
}

#[test]
fn components_certificates_and_keys_can_be_read_and_not_written() {
    refused(&granting("app", "write"), "the component ");
    granting("app", "read").cli(["check"]).done();
    granting("data", "write").cli(["check"]).done();

    let tls = "[http.tls]\nlisten = \"127.0.0.1:0\"\ncert = \"CERT/a.pem\"\nkey = \"KEY/a.key\"";
    for (cert, key, named) in [("data", "app", "the certificate "), ("app", "data", "the key ")] {
        let tls = tls.replace("CERT", cert).replace("KEY", key);
        refused(&granting("data", "write").replace("[http]", &format!("{tls}\n[http]")), named);
        granting("data", "read").replace("[http]", &format!("{tls}\n[http]")).cli(["check"]).done();
    }
}

#[test]
fn processes_are_granted_to_nobody() {
    for (path, access) in [("/proc", "read"), ("/proc/self", "write"), ("link", "read")] {
        let formation = granting(path, access);
        symlink("/proc/self", formation.path("link")).unwrap();
        refused(&formation, "where the system shows its processes");
    }
    let ended = App::new().run("cmd-test", &["--dir", "/proc::/host::ro"]);
    let said = "can't open the granted directory /proc: the system shows its processes there";
    assert!(ended.code == 2 && ended.stderr.contains(said), "{ended:#?}");
}

#[test]
fn a_link_hides_nothing() {
    // The granted directory is a link to the folder; it is above a link to it; the component is behind a link.
    let formation = granting("link", "read");
    symlink(".", formation.path("link")).unwrap();
    refused(&formation, "the formation ");

    let formation = granting("current", "write").directory("releases/1");
    fs::rename(formation.path("app/web.wasm"), formation.path("releases/1/web.wasm")).unwrap();
    symlink("releases/1", formation.path("current")).unwrap();
    let formation = formation.replace("app/web.wasm", "current/web.wasm");
    refused(&formation, "current/web.wasm");
    refused(&formation.replace("host = \"current\"", "host = \"releases\""), "current/web.wasm");

    // The component is a link in the granted directory, and leads out of it.
    let formation = granting("data", "write");
    symlink("../app/web.wasm", formation.path("data/web.wasm")).unwrap();
    refused(&formation.replace("app/web.wasm", "data/web.wasm"), "data/web.wasm");
}

#[test]
fn an_app_is_not_granted_the_cache_to_write_in() {
    let formation = Formation::new().directory("data");
    let guest = guest_file("cmd-test");
    let cache = [("WASMHOST_CACHE_DIR".to_owned(), "data/compiled".into())];
    let run = |dir: &str| {
        let arguments = ["run", guest.to_str().unwrap(), "--dir", dir, "exit", "0"];
        Process::start_with(formation.folder(), arguments, "", &cache).wait()
    };
    run("data").failed(2, "--dir grants ").failed(2, "the cache of compiled components ");
    run(".::/all").failed(2, "the cache of compiled components ");
    run("data::/data::ro").done();
}

/// Directories that have /proc below them, as an app that may read everything has.
#[test]
fn what_is_mounted_below_a_directory_shows_no_processes_either() {
    if !fs::exists("/proc/self/environ").unwrap() {
        return println!("LEFT OUT: there is no /proc, so that no guest could reach it");
    }
    for guest in ["hostile02", "hostile03"] {
        let served = Served::start(guest, &["--dir", "/::/host::ro"]);
        for path in ["proc/self/environ", "proc/self/mem", "proc/self/", "proc", "proc/1/environ"] {
            let said = served.get(&format!("/open?{path}"));
            assert!(
                said.starts_with("0\n") && said.to_lowercase().contains("access"),
                "{guest} {path}: {said}"
            );
        }
        assert_eq!(served.get("/open?etc/passwd"), "1\n", "{guest}");
    }
    for guest in ["cmd-test", "cmd-test-core"] {
        let app = App::new();
        let open = |path: &str| app.run(guest, &["--dir", "/::/host::ro", "--", "open", path, "1"]).done();
        let said = open("/host/proc/self/environ");
        assert!(said.starts_with("0 at once: Permission denied"), "{guest}: {said}");
        assert_eq!(open("/host/etc/passwd"), "1 at once: enough\n1 one after another\n", "{guest}");
    }
}
