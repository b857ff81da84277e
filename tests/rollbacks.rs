//! Rollbacks, and the list of what there was.

use crate::harness::{Host, Load, eventually, versioned_web};

#[test]
fn a_rollback_goes_to_what_was_live_before_without_a_failed_request() {
    let formation = versioned_web("one", "count = 4");
    let host = Host::run(&formation);
    let load = host.load_of_versions(4, &["one", "two"]);
    load.wait_for(50);
    formation.build("web", "web-test", "two");
    host.cli(["deploy"]).done();
    // The file of the first version is no more.
    let said = host.cli(["rollback"]).done();
    assert!(said.ends_with("v3 is live (rollback to v1)\n"), "{said}");
    assert_eq!(host.version(), "one");
    load.wait_for(50);
    load.stop();
    // Once more is back to the other.
    host.cli(["rollback"]).done();
    assert_eq!((host.live(), host.version().as_str()), (4, "two"));
    host.stop().done();
}

#[test]
fn any_release_that_is_kept_can_be_gone_back_to() {
    let formation = versioned_web("one", "");
    let host = Host::run(&formation);
    for version in ["two", "three", "four"] {
        formation.build("web", "web-test", version);
        host.cli(["deploy"]).done();
    }
    std::fs::remove_file(formation.path("web.wasm")).unwrap();
    for (release, version) in [("v2", "two"), ("1", "one"), ("v4", "four"), ("V3", "three")] {
        host.cli(["rollback", release]).done();
        assert_eq!(host.version(), version);
    }
    let ended = host.cli(["rollback", "v9"]).failed(1, "there is no release v9; the nearest is v8");
    assert!(ended.stdout.is_empty(), "{ended:#?}");
    host.cli(["rollback", "v8"]).failed(1, "error: v8 is live already\n");
    assert_eq!((host.live(), host.version().as_str()), (8, "three"));
}

#[test]
fn what_failed_is_not_gone_back_to() {
    let formation = versioned_web("one", "");
    let host = Host::run(&formation);
    std::fs::copy(crate::harness::guest_file("trap-start"), formation.path("web.wasm")).unwrap();
    host.cli(["deploy"]).failed(1, "web");
    formation.build("web", "web-test", "three");
    host.cli(["deploy"]).done();
    let said = host.cli(["rollback"]).done();
    assert_eq!(said.lines().last(), Some("v4 is live (rollback to v1)"), "{said}");
    assert_eq!((host.live(), host.version().as_str()), (4, "one"));
    host.cli(["rollback", "v2"]).failed(1, "v2 failed and was never live");
    assert_eq!(host.version(), "one");
}

#[test]
fn counts_and_the_whole_formation_go_back_but_what_was_scaled_stays() {
    let formation = versioned_web("one", "count = 2\nenv = { COLOUR = \"red\" }");
    let host = Host::run(&formation);
    let formation = formation.replace("count = 2", "count = 3").replace("red", "blue").process(
        "other",
        "web-test",
        "route = \"/ok\"",
    );
    host.cli(["deploy"]).done();
    assert!(host.get("/env").ok().contains("COLOUR=blue"));
    host.cli(["scale", "web=5"]).done();
    host.cli(["rollback"]).done();
    assert!(host.get("/env").ok().contains("COLOUR=red"));
    let ps = eventually("the other type is gone", || {
        Some(host.ps()).filter(|ps| ps.0["types"].as_array().unwrap().len() == 1)
    });
    assert_eq!(["desired", "in_file"].map(|field| ps.number("web", field)), [5, 2]);
    drop(formation);
}

#[test]
fn a_rollback_runs_no_release_steps() {
    let step = "args = [\"echo\", \"prepared\"]\nrun = \"release\"";
    let formation = versioned_web("one", "").process("prepare", "cmd-test", step);
    let host = Host::run(&formation);
    formation.build("web", "web-test", "two");
    host.cli(["deploy"]).done();
    eventually("it was run again", || (host.stdout().count("prepared") == 2).then_some(()));
    host.cli(["rollback"]).done();
    assert_eq!(host.version(), "one");
    assert_eq!(host.stdout().count("prepared"), 2);
}

#[test]
fn what_was_rolled_back_from_stays_away_until_it_is_changed() {
    let formation = versioned_web("good", "");
    let host = Host::run(&formation);
    formation.build("web", "web-test", "bad");
    host.cli(["deploy"]).done();
    host.cli(["rollback"]).done();
    host.stop().done();
    // Stopped or killed: the file is still the bad one.
    for kill in [true, false] {
        let host = Host::run(&formation);
        assert_eq!((host.version().as_str(), host.live()), ("good", 3));
        let told = host.stderr().wait_for("v3");
        assert!(told.contains("deploy"), "it says what to do: {told}");
        if kill { host.kill() } else { drop(host.stop().done()) }
    }
    formation.build("web", "web-test", "mended");
    let host = Host::run(&formation);
    assert_eq!((host.version().as_str(), host.live()), ("mended", 4));
    host.stop().done();
}

#[test]
fn who_wants_the_bad_version_again_deploys_it() {
    let formation = versioned_web("good", "");
    let host = Host::run(&formation);
    formation.build("web", "web-test", "bad");
    host.cli(["deploy"]).done();
    host.cli(["rollback"]).done();
    host.cli(["deploy"]).done();
    assert_eq!((host.version().as_str(), host.live()), ("bad", 4));
    host.stop().done();
    let host = Host::run(&formation);
    assert_eq!(host.version(), "bad");
}

#[test]
fn a_start_makes_a_release_where_the_file_has_changed() {
    let formation = versioned_web("one", "");
    Host::run(&formation).stop().done();
    let host = Host::run(&formation);
    assert_eq!(host.live(), 1, "the same file is the same release");
    host.stop().done();
    formation.build("web", "web-test", "two");
    let host = Host::run(&formation);
    assert_eq!((host.live(), host.version().as_str()), (2, "two"));
    host.cli(["rollback"]).done();
    assert_eq!((host.live(), host.version().as_str()), (3, "one"));
}

#[test]
fn only_so_many_releases_are_kept() {
    let formation = versioned_web("0", "").top("keep_releases = 3");
    let host = Host::run(&formation);
    for version in ["1", "2", "3", "4"] {
        formation.build("web", "web-test", version);
        host.cli(["deploy"]).done();
    }
    let numbers: Vec<_> = host.releases().iter().map(|release| release["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [5, 4, 3]);
    let ended = host.cli(["rollback", "v2"]).failed(1, "there is no release v2; the nearest is v3");
    assert!(ended.stdout.is_empty());
    host.cli(["rollback", "v3"]).done();
    assert_eq!(host.version(), "2");
}

#[test]
fn releases_are_listed_and_shown() {
    let formation = versioned_web("one", "count = 2");
    let host = Host::run(&formation);
    formation.build("web", "web-test", "two");
    let formation = formation.replace("count = 2", "count = 3");
    host.cli(["deploy"]).done();
    host.cli(["rollback", "v1"]).done();
    let table = host.cli(["releases"]).done();
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("RELEASE  STATE"), "{table}");
    for (line, words) in lines[1..].iter().zip([
        ["v3 ", "live", "rollback to v1", "web"],
        ["v2 ", "replaced", "deploy", "web"],
        ["v1 ", "replaced", "start", ""],
    ]) {
        assert!(words.iter().all(|word| line.contains(word)), "{words:?} in {table}");
    }
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    assert_eq!(host.cli(["releases", "-n", "1"]).done().lines().count(), 2);
    assert_eq!(host.cli(["releases", "-n", "0"]).code, 2);

    let shown = host.cli(["releases", "show", "2"]).done();
    for text in ["v2  replaced", "author   deploy", "changed since v1:", "web.wasm", "TYPE  DIGEST"] {
        assert!(shown.contains(text), "{text} in {shown}");
    }
    let text = host.cli(["releases", "show", "v2", "--formation"]).done();
    assert_eq!(text, formation.text());
    let detail = host.release(2);
    assert_eq!(
        (&detail["before"], &detail["release"]["author"]),
        (&1.into(), &"deploy".into()),
        "{detail:#}"
    );
    assert!(host.release(1)["before"].is_null());
}

#[test]
fn a_rollback_under_load_of_requests_that_compute_fails_none() {
    let formation = versioned_web("one", "count = 3");
    let host = Host::run(&formation);
    host.compute_until_known();
    let load = Load::get(host.address(), 4, "/spin?ms=2");
    for version in ["two", "three"] {
        formation.build("web", "web-test", version);
        host.cli(["deploy"]).done();
        host.cli(["rollback"]).done();
        load.wait_for(20);
    }
    assert_eq!(host.version(), "one");
    load.stop();
}
