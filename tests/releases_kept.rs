//! The things that are kept of releases: their components, the way they came about, and which kind of file they were.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use serde_json::Value;

use crate::harness::{Formation, Host, eventually, guest_file, variant, versioned_web};

/// Where the component of a release is kept. A start keeps it in the background.
#[track_caller]
fn kept(host: &Host, formation: &Formation, number: u64) -> PathBuf {
    let digest = host.release(number)["release"]["components"][0]["digest"].as_str().unwrap().to_owned();
    let path = formation.path(".wasmhost/components").join(digest);
    eventually("it is kept", || path.is_file().then(|| path.clone()))
}

/// Number, state and author of each release, the newest first.
fn listed(host: &Host) -> Vec<(u64, String, String)> {
    let text = |release: &Value, field: &str| release[field].as_str().unwrap().to_owned();
    let releases = host.releases();
    let releases = releases.iter();
    releases.map(|one| (one["number"].as_u64().unwrap(), text(one, "state"), text(one, "author"))).collect()
}

fn release(number: u64, state: &str, author: &str) -> (u64, String, String) {
    (number, state.to_owned(), author.to_owned())
}

// --- starts that fail

#[test]
fn a_start_that_fails_has_one_number_however_often_it_is_tried_and_says_why() {
    let formation = versioned_web("one", "");
    Host::run(&formation).stop().done();
    let step = "args = [\"exit\", \"1\"]\nrun = \"release\"";
    let formation = formation.process("prepare", "cmd-test", step);
    for _ in 0..3 {
        formation.run_to_end().failed(3, "the release step \"prepare\" exited with code 1");
    }
    let formation = formation.replace("\"exit\", \"1\"", "\"echo\", \"prepared\"");
    let host = Host::run(&formation);
    assert_eq!(
        listed(&host),
        [release(3, "live", "start"), release(2, "failed", "start"), release(1, "replaced", "start")]
    );
    let why = host.release(2)["release"]["why"].as_str().unwrap().to_owned();
    assert!(why.contains("the release step \"prepare\" exited with code 1"), "{why}");
    // It never was live: the way back is to the one before it.
    let said = host.cli(["rollback"]).done();
    assert!(said.ends_with("v4 is live (rollback to v1)\n"), "{said}");
}

#[test]
fn a_start_that_is_tried_again_with_success_keeps_its_number() {
    let out = "dirs = [{ host = \"out\", guest = \"/out\", access = \"write\" }]";
    let step = format!("args = [\"touch\", \"/out/later/made\"]\nrun = \"release\"\n{out}");
    let formation = versioned_web("one", "").directory("out").process("prepare", "cmd-test", &step);
    formation.run_to_end().failed(3, "the release step \"prepare\" exited with code 1");
    let formation = formation.directory("out/later");
    let host = Host::run(&formation);
    assert_eq!(listed(&host), [release(1, "live", "start")]);
    assert!(host.release(1)["release"]["why"].is_null());
    assert!(formation.path("out/later/made").exists());
}

// --- components

#[test]
fn a_kept_component_that_is_not_what_it_was_is_named_and_put_back_by_a_deploy() {
    let formation = versioned_web("one", "");
    let host = Host::run(&formation);
    let path = kept(&host, &formation, 1);
    formation.build("web", "web-test", "two");
    host.cli(["deploy"]).done();
    let one = variant("web-test", "one");
    let mut changed = one.clone();
    *changed.last_mut().unwrap() ^= 1;
    let other = fs::read(guest_file("job-test")).unwrap();
    for (bytes, what) in [
        (&one[..one.len() / 2], "it isn't whole"),
        (&changed, "it has the digest "),
        (&other, "it has the digest "),
        (b"no component", "it is not WebAssembly"),
        (b"", "it is "),
    ] {
        fs::write(&path, bytes).unwrap();
        let ended =
            host.cli(["rollback", "v1"]).failed(1, "v1 can't be run again: process.web: the kept component ");
        let said = &ended.stderr;
        let parts = [
            path.to_str().unwrap(),
            "isn't what it was",
            "a deploy of the same component puts it back",
            "v2 is live",
        ];
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
        assert!(what == "it isn't whole" || said.contains(what), "{what} in {said}");
        assert_eq!((host.live(), host.version().as_str()), (2, "two"));
    }
    fs::remove_file(&path).unwrap();
    host.cli(["rollback", "v1"]).failed(1, "isn't kept any more in ");
    assert_eq!(listed(&host), [release(2, "live", "deploy"), release(1, "replaced", "start")]);

    fs::write(&path, b"damaged").unwrap();
    formation.build("web", "web-test", "one");
    host.cli(["deploy"]).done();
    assert!(fs::read(&path).unwrap() == one, "it is whole again");
    host.cli(["rollback", "v2"]).done();
    host.cli(["rollback", "v1"]).done();
    assert_eq!((host.live(), host.version().as_str()), (5, "one"));
}

#[test]
fn a_start_keeps_a_component_again_that_was_cut_short() {
    let formation = versioned_web("one", "");
    let host = Host::run(&formation);
    let path = kept(&host, &formation, 1);
    host.kill();
    fs::write(&path, b"cut short").unwrap();
    let _host = Host::run(&formation);
    eventually("it is whole", || (fs::read(&path).unwrap() == variant("web-test", "one")).then_some(()));
}

#[test]
fn a_damaged_component_of_the_live_release_is_put_back_where_nothing_else_changes() {
    let formation = versioned_web("one", "");
    let host = Host::run(&formation);
    let path = kept(&host, &formation, 1);
    let one = variant("web-test", "one");
    let mut changed = one.clone();
    *changed.last_mut().unwrap() ^= 1;
    for damaged in [&changed[..], &one[..one.len() / 2]] {
        fs::write(&path, damaged).unwrap();
        host.cli(["deploy", "--dry-run"]).done();
        assert!(fs::read(&path).unwrap() == damaged, "a dry run changes nothing");
        let said = host.cli(["deploy"]).done();
        let put_back = "web: the kept component was damaged, and is put back\n";
        assert_eq!(said, format!("{put_back}nothing else changes: v1 is live\n"));
        assert!(fs::read(&path).unwrap() == one, "it is whole again");
        assert_eq!(host.cli(["deploy"]).done(), "nothing changes: v1 is live\n");
    }
    host.stop().done();
    // The right length: a look at that alone doesn't show it.
    fs::write(&path, &changed).unwrap();
    let host = Host::run(&formation);
    host.stderr().wait_for("web: the kept component was damaged, and is put back");
    assert!(fs::read(&path).unwrap() == one, "it is whole again");
    assert_eq!(host.live(), 1);
}

#[test]
fn a_start_never_takes_what_was_rolled_back_from_for_a_release_that_is_lost() {
    let formation = versioned_web("good", "");
    let host = Host::run(&formation);
    let path = kept(&host, &formation, 1);
    formation.build("web", "web-test", "bad");
    host.cli(["deploy"]).done();
    host.cli(["rollback"]).done();
    host.stop().done();
    fs::write(&path, b"damaged").unwrap();
    let said = formation.run_to_end().failed(3, "v3 was live, and can't be run again: process.web: ").stderr;
    for part in [
        path.to_str().unwrap(),
        "is that of v2, which was rolled back from",
        "change it, or build a component again",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    formation.build("web", "web-test", "mended");
    let host = Host::run(&formation);
    assert_eq!((host.live(), host.version().as_str()), (4, "mended"));
}

#[test]
fn a_link_in_place_of_the_kept_components_is_refused() {
    let formation = versioned_web("one", "").directory("theirs").with_file("theirs/precious", "text");
    let host = Host::run(&formation);
    kept(&host, &formation, 1);
    let components = formation.path(".wasmhost/components");
    fs::remove_dir_all(&components).unwrap();
    symlink("../theirs", &components).unwrap();
    formation.build("web", "web-test", "two");
    host.cli(["deploy"]).failed(1, "components is a symbolic link");
    host.cli(["rollback"]).failed(1, "no release that was live before this one is kept");
    assert_eq!(host.version(), "one");
    host.stop().done();
    formation.run_to_end().failed(3, "components is a symbolic link");
    let left: Vec<_> =
        fs::read_dir(formation.path("theirs")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!((left, formation.read("theirs/precious").as_str()), (vec!["precious".into()], "text"));
    fs::remove_file(&components).unwrap();
    Host::run(&formation).stop().done();
}

// --- kinds of files

#[test]
fn a_procfile_and_its_import_are_gone_back_to_from_each_other() {
    let formation = Formation::new().with_guest("web-test", "web.wasm").with_guest("job-test", "worker.wasm");
    let formation =
        formation.with_file("Procfile", "web: web.wasm\nworker: worker.wasm\n").with_file(".env", "PORT=0\n");
    let host = Host::run(&formation);
    formation.cli(["import", "--force"]).done();
    // The host runs the Procfile still, and is named by it.
    let other = formation.cli(["ps"]).failed(5, "name it with -f, or stop that host and start it again");
    assert!(!other.stderr.contains("`state_dir`"), "{other:#?}");
    formation.cli(["-f", "Procfile", "ps"]).done();
    host.stop().done();
    formation.build("web", "web-test", "imported");
    let host = Host::run(&formation);
    assert_eq!((host.live(), host.version().as_str()), (2, "imported"));

    host.cli(["rollback"]).done();
    assert_ne!(host.version(), "imported");
    // The rules of a Procfile hold again: its types share a queue.
    assert_eq!(host.post("/enqueue?queue=default", "print:a job\nok").status, 201);
    host.stdout().wait_for("a job");
    host.cli(["rollback", "v2"]).done();
    host.cli(["rollback", "v1"]).done();
    // The file is still the host's own: the formation.toml.
    let said = host.cli(["deploy"]).done();
    assert!(said.ends_with("v6 is live\n"), "{said}");
    assert_eq!(host.version(), "imported");
    assert_eq!(host.cli(["releases", "show", "v6", "--formation"]).done(), formation.read("formation.toml"));
    assert_eq!(host.cli(["releases", "show", "v5", "--formation"]).done(), formation.read("Procfile"));
    host.stop().done();

    // The same from the other file.
    fs::remove_file(formation.file()).unwrap();
    let host = Host::run(&formation);
    assert_eq!(host.live(), 7);
    host.cli(["rollback", "v2"]).done();
    assert_eq!(host.version(), "imported");
    // A start with the file that was rolled back from runs the formation.toml's release.
    host.kill();
    let host = Host::run(&formation);
    assert_eq!(host.live(), 8);
    host.stderr().wait_for("Procfile is that of v7, which was rolled back from: v8 runs");
    host.cli(["deploy"]).done();
    assert_eq!(host.release(9)["formation"], formation.read("Procfile"));
}

// --- without a host

#[test]
fn releases_are_read_from_the_store_where_no_host_runs() {
    let formation = versioned_web("one", "");
    for arguments in [vec!["releases"], vec!["releases", "show", "v1"]] {
        formation.start_of(arguments).wait().failed(5, "no host runs formation.toml: start one with");
    }
    let host = Host::run(&formation);
    formation.build("web", "web-test", "two");
    host.cli(["deploy"]).done();
    let (listed, shown) = (host.releases(), host.release(2));
    let reads_the_same = || {
        let ended = formation.cli(["releases", "--json"]);
        let said = "no host runs formation.toml: this is what its store has";
        assert!(ended.stderr.contains(said), "{ended:#?}");
        let lines = ended.done();
        let found: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(found, listed);
        let detail = formation.cli(["releases", "show", "v2", "--json"]).done();
        assert_eq!(serde_json::from_str::<Value>(&detail).unwrap(), shown);
        formation.cli(["releases", "show", "v9"]).failed(1, "there is no release v9; the nearest is v2");
        assert_eq!(formation.cli(["releases", "-n", "1", "--json"]).done().lines().count(), 1);
    };
    host.stop().done();
    reads_the_same();
    // A host that is killed leaves a part of it in the store's log.
    Host::run(&formation).kill();
    reads_the_same();
    // Where the file has errors, the store is most likely in the usual place.
    let formation = formation.with_text("[process");
    assert_eq!(formation.cli(["releases", "--json"]).done().lines().count(), 2);
}

#[test]
fn a_store_of_another_formation_is_neither_read_nor_copied() {
    let formation = versioned_web("one", "").top("state_dir = \"state\"");
    fs::write(formation.path("other.toml"), formation.text()).unwrap();
    Host::run(&formation).stop().done();
    let ours = formation.file().display().to_string();
    for arguments in [
        vec!["-f", "other.toml", "releases"],
        vec!["-f", "other.toml", "releases", "show", "v1"],
        vec!["-f", "other.toml", "jobs", "backup", "copy.db"],
    ] {
        let expected = format!("holds the jobs and releases of {ours}, and this is");
        let ended = formation.start_of(arguments).wait().failed(1, &expected);
        assert!(ended.stdout.is_empty() && ended.stderr.contains("other.toml"), "{ended:#?}");
    }
    assert!(!formation.path("copy.db").exists());
    formation.cli(["jobs", "backup", "copy.db"]).done();
    assert!(formation.path("copy.db").exists());
}

#[test]
fn a_release_whose_predecessor_is_not_kept_says_so() {
    let formation = versioned_web("one", "").top("keep_releases = 2");
    let host = Host::run(&formation);
    for version in ["two", "three"] {
        formation.build("web", "web-test", version);
        host.cli(["deploy"]).done();
    }
    let releases = host.releases();
    assert_eq!(releases.len(), 2);
    assert_eq!((&releases[0]["changed"][0], &releases[0]["gone"]), (&"web".into(), &Value::Null));
    assert_eq!((&releases[1]["changed"], &releases[1]["gone"]), (&serde_json::json!([]), &1.into()));
    let table = host.cli(["releases"]).done();
    assert!(table.lines().nth(2).unwrap().contains("(v1 is gone)"), "{table}");
    let shown = host.cli(["releases", "show", "v2"]).done();
    assert!(shown.contains("it isn't known what it changed: v1, the one before it, isn't kept"), "{shown}");
}

// --- many

#[test]
fn a_release_has_as_many_types_as_a_formation_may() {
    let lines: String = (0..100).map(|n| format!("type-{n}: tools.wasm sleep 100000\n")).collect();
    let formation = Formation::new().with_guest("cmd-test", "tools.wasm").with_file("Procfile", &lines);
    let host = Host::run(&formation);
    assert_eq!(host.releases()[0]["components"].as_array().unwrap().len(), 100);
}

#[test]
fn a_list_that_is_cut_says_what_its_last_release_changed() {
    let formation = versioned_web("one", "");
    let host = Host::run(&formation);
    formation.build("web", "web-test", "two");
    host.cli(["deploy"]).done();
    fs::write(formation.path("web.wasm"), b"no component").unwrap();
    host.cli(["deploy"]).failed(1, "is not WebAssembly");
    let line = host.cli(["releases", "-n", "1", "--json"]).done();
    let one: Value = serde_json::from_str(line.trim()).unwrap();
    assert_eq!((&one["number"], &one["changed"][0]), (&2.into(), &"web".into()), "{line}");
}
