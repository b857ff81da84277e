//! Directories whose grant has `max_bytes`: guests put no more in them, in whatever way they try, and are told so as by a
//! full disk.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::harness::http::Answer;
use crate::harness::{Formation, Host, eventually, setting};

/// The bound of the directory `data`: 64 entries, or 63 pieces of 4 KiB in a file.
const DATA: &str =
    "dirs = [{ host = \"data\", guest = \"/data\", access = \"write\", max_bytes = \"256KiB\" }]";
const MAX: u64 = 256 << 10;

/// As guests of each version are told.
const NO_SPACE: [&str; 2] = ["InsufficientSpace", "insufficient-space"];

fn hostile(version: &str, keys: &str) -> Formation {
    Formation::new().process("web", &format!("hostile{version}"), keys).directory("data").directory("other")
}

/// The amount that the guest says it could, and why no more.
fn done(answer: Answer) -> (String, String) {
    let text = answer.ok();
    let mut lines = text.lines().map(str::to_owned);
    (lines.next().unwrap_or_default(), lines.next().unwrap_or_default())
}

#[track_caller]
fn is_full_after(host: &Host, target: &str, count: &str) {
    let (found, why) = done(host.get(target));
    assert_eq!(found, count, "{target}: {why}");
    assert!(NO_SPACE.iter().any(|code| why.contains(code)), "{target}: {why}");
}

/// Bytes of files, and 4 KiB for each entry.
fn used(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| {
            let found = fs::symlink_metadata(&path).unwrap();
            let inside = match found.is_dir() {
                true => used(&path),
                false if found.is_file() && found.nlink() == 1 => found.len(),
                false => 0,
            };
            4096 + inside
        })
        .sum()
}

#[test]
fn a_directory_takes_no_more_than_max_bytes_and_that_is_told_once() {
    for version in ["02", "03"] {
        let formation = hostile(version, DATA);
        let host = Host::run(&formation);
        is_full_after(&host, "/append?1000", "63");
        for _ in 0..3 {
            is_full_after(&host, "/append?1", if version == "02" { "0" } else { "63" });
        }
        assert_eq!(used(&formation.path("data")), MAX);
        host.stderr().wait_for(
            "web can't add to /data, which holds as much as max_bytes of its grant allows (256KiB)",
        );
        assert_eq!(host.stderr().count("can't add to"), 1);
        // To remove something makes room.
        fs::write(formation.path("data/new"), "").unwrap();
        is_full_after(&host, "/append?1000", "63");
        fs::remove_file(formation.path("data/new")).unwrap();
        is_full_after(&host, "/create?1000", "64");
        assert_eq!(used(&formation.path("data")), MAX);
    }
}

#[test]
fn there_is_no_way_around_it() {
    for (target, count) in [
        ("/zeroes?1000", "63"),
        ("/later?1000", "63"),
        ("/directories?1000", "64"),
        ("/symlinks?1000", "64"),
        ("/links?1000", "63"),
        ("/size?258049", "0"),
        ("/size?4000000000", "0"),
        ("/write-at?258048", "0"),
        ("/write-at?4000000000", "0"),
    ] {
        let formation = hostile("02", DATA);
        let host = Host::run(&formation);
        is_full_after(&host, target, count);
        assert!(used(&formation.path("data")) <= MAX, "{target}");
        assert_eq!(host.get("/ok").ok(), "ok\n");
    }
    for (target, count) in
        [("/write?1000", "63"), ("/directories?1000", "64"), ("/size?258049", "0"), ("/create?1000", "64")]
    {
        let formation = hostile("03", DATA);
        is_full_after(&Host::run(&formation), target, count);
        assert!(used(&formation.path("data")) <= MAX, "{target}");
    }
    let host = Host::run(&hostile("02", DATA));
    for target in ["/size?258048", "/write-at?258047", "/size?0", "/zeroes?63"] {
        assert_eq!(done(host.get(target)).1, "", "{target}");
    }
}

#[test]
fn what_is_written_anew_or_emptied_before_takes_no_more_room() {
    let formation = hostile("02", DATA);
    let host = Host::run(&formation);
    assert_eq!(done(host.get("/overwrite?500")).0, "500");
    assert_eq!(done(host.get("/zeroes?50")).0, "50");
    assert_eq!(done(host.get("/zeroes?50")).0, "50");
    is_full_after(&host, "/append?100", "11");
    assert_eq!(done(host.get("/truncate?new")).0, "1");
    assert_eq!(done(host.get("/append?60")).0, "60");
    assert_eq!(done(host.get("/unlink?new")).0, "1");
    assert_eq!(done(host.get("/append?60")).0, "60");
    host.stderr().wait_for("web can't add to /data");
    assert_eq!(host.stderr().count("can't add to"), 1);
}

#[test]
fn a_file_that_was_removed_counts_while_it_is_open() {
    let formation = hostile("02", DATA);
    let host = Host::run(&formation);
    for _ in 0..2 {
        assert_eq!(done(host.get("/hold?100000")).0, "1");
    }
    is_full_after(&host, "/hold?100000", "0");
    assert_eq!(used(&formation.path("data")), 4096, "the file that could not be held");
    host.cli(["restart", "web"]).done();
    eventually("the instance that held them is gone", || {
        (done(host.get("/hold?100000")).0 == "1").then_some(())
    });
}

#[test]
fn files_that_were_there_count_and_types_share_the_bound() {
    let formation =
        hostile("02", DATA).process("worker", "hostile03", &format!("route = \"b.example\"\n{DATA}"));
    fs::create_dir(formation.path("data/below")).unwrap();
    fs::write(formation.path("data/below/large"), [0; 92 << 10]).unwrap();
    let host = Host::run(&formation);
    assert_eq!(done(host.get("/append?20")).0, "20");
    let other = crate::harness::http::Request::get("/directories?100").header("host", "b.example");
    let (count, why) = done(host.send(&other));
    // A directory and a file took 25 of 64 units of 4 KiB, and another file 21.
    assert!(count == "18" && why.contains("InsufficientSpace"), "{count} {why}");
    is_full_after(&host, "/append?1", "0");
}

#[test]
fn types_that_share_a_directory_name_one_bound() {
    let keys = "route = \"/b\"\ndirs = [{ host = \"data/.\", guest = \"/d\", access = \"write\"MAX }]";
    for (max, shown) in [("", "none"), (", max_bytes = \"1MiB\"", "1MiB")] {
        let formation = hostile("02", DATA).process("worker", "hostile02", &keys.replace("MAX", max));
        let ended = formation.cli(["check"]).failed(2, "process.worker: dirs grants ");
        let said = format!("with another max_bytes ({shown}) than \"web\" has for it (256KiB)");
        assert!(ended.stderr.contains(&said), "{ended:#?}");
    }
    let same = keys.replace("MAX", ", max_bytes = \"256KiB\"");
    hostile("02", DATA).process("worker", "hostile02", &same).cli(["check"]).done();
}

#[test]
fn files_do_not_come_from_another_grant_uncounted() {
    let two = DATA.replace("}]", "}, { host = \"other\", guest = \"/other\", access = \"write\" }]");
    for (version, target) in [("02", "/move?file"), ("02", "/link?file"), ("03", "/move?file")] {
        let formation = hostile(version, &two);
        fs::write(formation.path("other/file"), "text").unwrap();
        let (count, why) = done(Host::run(&formation).get(target));
        let is_across = ["CrossDevice", "cross-device"].iter().any(|code| why.contains(code));
        assert!(count == "0" && is_across, "{version} {target}: {count} {why}");
        assert_eq!(formation.read("other/file"), "text");
    }
}

#[test]
fn commands_and_core_modules_are_bounded_as_others_are() {
    for guest in ["cmd-test", "cmd-test-core"] {
        let formation =
            Formation::new().process("tool", guest, &format!("run = \"never\"\n{DATA}")).directory("data");
        let run = |arguments: &[&str]| {
            let arguments = [&["exec", "tool", "--"], arguments].concat();
            formation.start_of(arguments).wait().done()
        };
        let full = |said: String, count: &str| {
            let is_full = said.contains("No space left on device");
            assert!(said.starts_with(&format!("{count}: ")) && is_full, "{guest}: {said}");
        };
        full(run(&["fill", "/data/new", "1000"]), "63");
        assert_eq!(used(&formation.path("data")), MAX);
        full(run(&["place", "/data/new", "300000"]), "0");
        full(run(&["resize", "/data/new", "300000"]), "0");
        assert_eq!(run(&["place", "/data/new", "5"]), "1: enough\n");
        assert_eq!(run(&["resize", "/data/new", "100"]), "1: enough\n");
        full(run(&["make", "/data", "1000"]), "62");
        assert_eq!(run(&["list", "/data"]), "63\n");
    }
}

#[test]
fn a_directory_of_many_entries_is_listed_in_little_memory() {
    let entries = setting("LISTED_ENTRIES", 60_000);
    let formation = hostile("02", "memory = \"16MiB\"\ntimeout = \"10m\"\ndirs = [{ host = \"data\", guest = \"/data\" }]")
        .process("other", "hostile03", "route = \"b.example\"\ntimeout = \"10m\"\nmemory = \"1GiB\"\ndirs = [{ host = \"data\", guest = \"/data\" }]")
        .process("tool", "cmd-test-core", "run = \"never\"\ndirs = [{ host = \"data\", guest = \"/data\" }]");
    fs::write(formation.path("data/0"), "").unwrap();
    for entry in 1..entries {
        // Links are made faster, but no file may have this many.
        let file = formation.path(&format!("data/{}", entry / 30_000 * 30_000));
        match entry % 30_000 {
            0 => fs::write(file, "").unwrap(),
            _ => fs::hard_link(file, formation.path(&format!("data/{entry}"))).unwrap(),
        }
    }
    let host = Host::run(&formation);
    host.get("/ok").ok();
    let before = host.peak_bytes();
    assert_eq!(done(host.get("/list")).0, entries.to_string());
    let grown = host.peak_bytes().saturating_sub(before);
    assert!(grown < 24 << 20, "{} MiB more", grown >> 20);
    let other = crate::harness::http::Request::get("/list").header("host", "b.example");
    assert_eq!(done(host.send(&other)), (entries.to_string(), "Ok(())".to_owned()));
    // The library would read all of it for each piece that a core module asks for.
    let before = host.peak_bytes();
    let listed = formation.start_of(vec!["exec", "tool", "--", "list", "/data"]).wait();
    assert!(listed.code != 0 && listed.stderr.contains("Out of memory"), "{listed:#?}");
    let grown = host.peak_bytes().saturating_sub(before);
    assert!(grown < 24 << 20, "{} MiB more", grown >> 20);
}

#[test]
fn ps_shows_how_full_a_directory_is() {
    let formation = hostile("02", DATA);
    fs::write(formation.path("data/old"), [0; 10 << 10]).unwrap();
    let host = Host::run(&formation);
    assert_eq!(done(host.get("/append?20")).0, "20");
    assert_eq!(used(&formation.path("data")), 98 << 10);
    let expected = serde_json::json!([
        { "guest": "/data", "bytes": 98 << 10, "bytes_max": MAX, "entries": 2, "entries_max": 1_000_000 }
    ]);
    assert_eq!(host.ps().process("web")["directories"], expected);
    let table = host.cli(["ps", "web"]).done();
    let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert!(rows.any(|row| row == ["DIRECTORY", "USED", "LIMIT", "ENTRIES", "LIMIT"]), "{table}");
    assert_eq!(rows.next().unwrap(), ["/data", "98.0KiB", "256KiB", "2", "1000000"], "{table}");
}
