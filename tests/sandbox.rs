//! Guests that take what the host has: handles, header fields, names, descriptors, streams. Each gets little, its own
//! call fails or is told so, and the host goes on as if nothing had been.

use std::fs;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::harness::http::Answer;
use crate::harness::{Formation, Host, eventually};

/// Memory that the host may need for what a guest takes, in bytes, beside the guest's own.
const LITTLE: u64 = 96 << 20;

/// The descriptors of the host that one instance may hold.
const DESCRIPTORS: &str = "256";

fn hostile(version: &str, keys: &str) -> Formation {
    Formation::new().process("web", &format!("hostile{version}"), keys).directory("data")
}

/// Both versions of WASI, in a host each.
fn of_each_version(keys: &str, test: impl Fn(&Host)) {
    for version in ["02", "03"] {
        test(&Host::run(&hostile(version, keys)));
    }
}

/// The amount that the guest says it has taken, and why no more.
fn taken(answer: Answer) -> (String, String) {
    let text = answer.ok();
    let mut lines = text.lines().map(str::to_owned);
    (lines.next().unwrap_or_default(), lines.next().unwrap_or_default())
}

/// The host is well, and has not grown by more than little since.
#[track_caller]
fn stands(host: &Host, before: u64) {
    let grown = host.resident_bytes().saturating_sub(before);
    assert!(grown < LITTLE, "{} MiB more", grown >> 20);
    assert_eq!(host.get("/ok").ok(), "ok\n");
}

fn descriptors(host: &Host) -> usize {
    fs::read_dir(format!("/proc/{}/fd", host.pid())).unwrap().count()
}

#[test]
fn header_fields_and_requests_are_bounded_together() {
    for (version, paths) in [("02", &["/fields", "/clones", "/paths"][..]), ("03", &["/fields"])] {
        for path in paths {
            let host = Host::run(&hostile(version, "memory = \"4MiB\""));
            host.get("/ok").ok();
            let before = host.resident_bytes();
            host.get(&format!("{path}?100")).ok();
            host.get(&format!("{path}?10000")).is_error(502, "H13");
            stands(&host, before);
            host.stderr().wait_for("bytes of header fields and requests");
        }
    }
}

#[test]
fn an_authority_and_a_method_are_no_longer_than_those_of_servers() {
    of_each_version("memory = \"64MiB\"", |host| {
        assert_eq!(taken(host.get("/authority?200")).0, "1");
        assert_eq!(taken(host.get("/authority?10000000")).0, "0");
    });
    let host = Host::run(&hostile("02", "memory = \"64MiB\""));
    assert_eq!(taken(host.get("/method?20")).0, "1");
    assert_eq!(taken(host.get("/method?10000000")).0, "0");
}

#[test]
fn bodies_that_are_written_at_once_are_bounded() {
    let host = Host::run(&hostile("02", ""));
    let before = host.resident_bytes();
    assert_eq!(taken(host.get("/bodies?5000")).0, "128");
    stands(&host, before);
}

#[test]
fn a_write_past_what_a_file_permits_traps() {
    let keys = "memory = \"64MiB\"\ndirs = [{ host = \"data\", guest = \"/data\", access = \"write\" }]";
    let host = Host::run(&hostile("02", keys));
    let before = host.resident_bytes();
    host.get("/writes?30000000").is_error(502, "H13");
    stands(&host, before);
    assert_eq!(taken(host.get("/writes?1000")).0, "1");
}

#[test]
fn names_are_cut_before_they_are_logged() {
    of_each_version("memory = \"64MiB\"", |host| {
        let (looked_up, error) = taken(host.get("/lookup?10000000"));
        assert_eq!(looked_up, "0");
        assert!(error.to_lowercase().contains("resolver"), "{error}");
        let line = host.stderr().wait_for("to look up nnnn");
        assert!(line.len() < 2_000, "{} bytes", line.len());
    });
    let host = Host::run(&hostile("02", "memory = \"64MiB\""));
    assert_eq!(taken(host.get("/host?900")).0, "0");
    let line = host.stderr().wait_for("to connect to http://hhhh");
    assert!(line.len() < 2_000, "{} bytes", line.len());
}

#[test]
fn messages_are_cut_and_escaped_before_they_are_logged() {
    of_each_version("memory = \"64MiB\"", |host| {
        assert_eq!(host.get("/error?20000000").status, 500);
        host.stderr().wait_for("false line");
        host.get("/ok").ok();
        for line in host.stderr().all() {
            assert!(!line.starts_with("false line") && !line.contains('\u{1b}'), "{line:.200}");
            assert!(line.len() < 10_000, "{} bytes", line.len());
        }
    });
    let host = Host::run(&hostile("02", "memory = \"64MiB\""));
    host.get("/panic?10000000").is_error(502, "H13");
    host.stderr().wait_for("H13");
    assert!(host.stderr().all().iter().all(|line| line.len() < 40_000));
}

#[test]
fn sockets_and_files_are_bounded_and_given_back() {
    let keys = "dirs = [{ host = \"data\", guest = \"/data\" }]";
    for version in ["02", "03"] {
        let formation = hostile(version, keys);
        fs::write(formation.path("data/file"), "text").unwrap();
        let host = Host::run(&formation);
        host.get("/ok").ok();
        let before = descriptors(&host);
        for path in ["/tcp", "/udp", "/files"] {
            let (count, error) = taken(host.get(&format!("{path}?5000")));
            assert!(count == DESCRIPTORS && !error.is_empty(), "{version} {path}: {count} {error}");
            let again = taken(host.get(&format!("{path}?50")));
            assert_eq!(again, ("50".to_owned(), String::new()), "{version} {path}");
        }
        // Each is of a file that the guest has dropped, which the stream holds open.
        for _ in 0..3 {
            assert_eq!(taken(host.get("/file-streams?200")).0, "200", "{version}");
        }
        eventually("descriptors are given back", || (descriptors(&host) <= before + 4).then_some(()));
    }
}

#[test]
fn errors_of_too_many_are_those_that_wasi_knows() {
    let keys = "dirs = [{ host = \"data\", guest = \"/data\" }]";
    let formation = hostile("02", keys);
    fs::write(formation.path("data/file"), "text").unwrap();
    let host = Host::run(&formation);
    assert!(taken(host.get("/tcp?5000")).1.contains("new-socket-limit"));
    assert!(taken(host.get("/files?5000")).1.contains("quota"));
}

#[test]
fn a_fifo_a_socket_and_a_device_are_not_opened() {
    let keys = "timeout = \"5s\"\ndirs = [{ host = \"data\", guest = \"/data\" }]";
    for version in ["02", "03"] {
        let formation = hostile(version, keys);
        mknodat(CWD, formation.path("data/fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let _listener = UnixListener::bind(formation.path("data/socket")).unwrap();
        std::os::unix::fs::symlink("fifo", formation.path("data/link")).unwrap();
        fs::write(formation.path("data/file"), "text").unwrap();
        let mut paths = vec!["fifo", "socket", "link"];
        // Only root can make one.
        let device = mknodat(CWD, formation.path("data/null"), FileType::CharacterDevice, Mode::RWXU, 0x103);
        paths.extend(device.is_ok().then_some("null"));
        let host = Host::run(&formation);
        for path in paths {
            assert_eq!(taken(host.get(&format!("/open?{path}"))).0, "0", "{version} {path}");
        }
        assert_eq!(taken(host.get("/open?file")).0, "1");
        assert_eq!(host.stop().code, 0);
    }
}

#[test]
fn directories_that_are_listed_at_once_are_bounded() {
    let keys = "dirs = [{ host = \"data\", guest = \"/data\" }]";
    for version in ["02", "03"] {
        let formation = hostile(version, keys);
        for n in 0..500 {
            fs::write(formation.path(&format!("data/{n}")), "").unwrap();
        }
        let host = Host::run(&formation);
        let before = host.resident_bytes();
        let (count, said) = taken(host.get("/listings?2000"));
        match version {
            "02" => assert!(count.parse::<u32>().unwrap() <= 512 && said.contains("quota"), "{count} {said}"),
            _ => assert_eq!((count.as_str(), said.as_str()), ("500", "Ok(())")),
        }
        stands(&host, before);
    }
}

#[test]
fn a_write_past_what_standard_output_permits_traps_at_once() {
    let host = Host::run(&hostile("02", "memory = \"64MiB\""));
    let before = host.resident_bytes();
    let begun = Instant::now();
    host.get("/stdout?30000000").is_error(502, "H13");
    stands(&host, before);
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
}

#[test]
fn streams_of_standard_output_without_end_take_little() {
    let host = Host::run(&hostile("02", ""));
    let before = host.resident_bytes();
    assert_eq!(taken(host.get("/streams?100")).0, "100");
    stands(&host, before);
}

#[test]
fn what_a_guest_waits_for_in_one_call_is_bounded() {
    let host = Host::run(&hostile("02", "memory = \"64MiB\""));
    let before = host.resident_bytes();
    assert_eq!(host.get("/poll?5000").ok(), "5000\n");
    host.get("/poll?4000000").is_error(502, "H13");
    stands(&host, before);
}

#[test]
fn timers_of_one_instance_are_bounded() {
    let host = Host::run(&hostile("03", "memory = \"128MiB\""));
    let before = host.resident_bytes();
    host.get("/timers?1000").ok();
    host.get("/timers?300000").is_error(502, "H13");
    // The guest's own share of them is in its memory.
    let grown = host.resident_bytes().saturating_sub(before);
    assert!(grown < (128 << 20) + LITTLE, "{} MiB more", grown >> 20);
    assert_eq!(host.get("/ok").ok(), "ok\n");
}

#[test]
fn a_granted_directory_stays_the_one_that_was_there_at_the_start() {
    let keys = "max_calls = 1\ndirs = [{ host = \"data\", guest = \"/data\" }]";
    for version in ["02", "03"] {
        let formation = hostile(version, keys).directory("other");
        fs::write(formation.path("data/file"), "text").unwrap();
        fs::write(formation.path("other/secret"), "secret").unwrap();
        let host = Host::run(&formation);
        fs::rename(formation.path("data"), formation.path("moved")).unwrap();
        std::os::unix::fs::symlink("other", formation.path("data")).unwrap();
        for _ in 0..3 {
            assert_eq!(taken(host.get("/open?file")).0, "1", "{version}");
            assert_eq!(taken(host.get("/open?secret")).0, "0", "{version}");
        }
    }
}

#[test]
fn a_grant_inside_a_writable_one_is_refused_by_name() {
    let grant = |host: &str, access: &str| {
        format!("dirs = [{{ host = {host:?}, guest = \"/given\", access = {access:?} }}]")
    };
    let formation = |worker: String, web: String| {
        let formation = Formation::new()
            .process("worker", "hostile02", &format!("route = \"/worker\"\n{worker}"))
            .process("web", "hostile02", &web)
            .directory("data/public")
            .directory("site");
        std::os::unix::fs::symlink("data/public", formation.path("link")).unwrap();
        std::os::unix::fs::symlink("../site", formation.path("data/out")).unwrap();
        formation
    };
    for inner in ["data/public", "link", "data/out", "site/../data/public"] {
        for access in ["read", "write"] {
            let formation = formation(grant("data", "write"), grant(inner, access));
            for ended in [formation.cli(["check"]), formation.run_to_end()] {
                assert_eq!(ended.code, 2, "{inner}: {ended:#?}");
                let said = "where \"worker\" may write";
                assert!(
                    ended.stderr.contains("process.web: dirs grants") && ended.stderr.contains(said),
                    "{ended:#?}"
                );
            }
        }
    }
    // One directory for a type that writes and another that reads; and one in another that is read alone.
    for (worker, web) in [
        (grant("data", "write"), grant("data", "read")),
        (grant("data", "write"), grant("data/../data", "write")),
        (grant("data", "read"), grant("data/public", "write")),
        (grant("data/public", "write"), grant("data", "read")),
        (grant("data", "write"), grant("site", "write")),
    ] {
        let checked = formation(worker, web).cli(["check"]);
        assert_eq!(checked.code, 0, "{checked:#?}");
    }
}

#[test]
fn one_type_with_both_grants_is_refused_too() {
    let keys = "dirs = [{ host = \"data\", guest = \"/data\", access = \"write\" }, { host = \"data/public\", guest = \"/public\" }]";
    let formation = hostile("02", keys).directory("data/public");
    let ended = formation.cli(["check"]);
    assert!(ended.code == 2 && ended.stderr.contains("where \"web\" may write"), "{ended:#?}");
}

#[test]
fn a_change_below_a_directory_that_is_only_read_is_told_once() {
    of_each_version("dirs = [{ host = \"data\", guest = \"/data\" }]", |host| {
        for _ in 0..3 {
            assert_eq!(taken(host.get("/change?new")).0, "0");
        }
        let line = host.stderr().wait_for("tried to write below /data");
        assert!(line.contains("in the entry of `dirs` whose guest is"), "{line}");
        assert_eq!(host.stderr().count("tried to write below"), 1);
    });
}

#[test]
fn links_and_names_that_a_guest_makes_lead_nowhere_outside() {
    let keys = "dirs = [{ host = \"data\", guest = \"/data\", access = \"write\" }, { host = \"other\", guest = \"/other\", access = \"write\" }]";
    let formation = hostile("02", keys).directory("other").directory("data/below");
    fs::write(formation.path("secret"), "a secret").unwrap();
    fs::write(formation.path("data/file"), "text").unwrap();
    fs::write(formation.path("data/below/secret"), "text").unwrap();
    let host = Host::run(&formation);
    for to in ["../secret", "/etc/passwd", "../../../../../../etc/passwd", "/proc/self/environ", ".."] {
        // One that the library doesn't let a guest make is as good as one that leads nowhere.
        let (made, _) = taken(host.get(&format!("/swap?file&{to}")));
        for path in ["file", "file/secret", "file/../secret"] {
            assert_eq!(taken(host.get(&format!("/open?{path}"))).0, "0", "{to} {path}");
        }
        assert_eq!(fs::symlink_metadata(formation.path("data/file")).is_ok(), made == "1", "{to}");
        let _ = fs::remove_file(formation.path("data/file"));
        fs::write(formation.path("data/file"), "text").unwrap();
    }
    // A directory that was looked at becomes a link.
    assert_eq!(taken(host.get("/open?below/secret")).0, "1");
    fs::remove_file(formation.path("data/swapped")).unwrap();
    host.get("/swap?below&..").ok();
    assert_eq!(taken(host.get("/open?below/secret")).0, "0");
    for target in [
        "/move?../secret",
        "/link?../secret",
        "/move?./../secret",
        "/truncate?../secret",
        "/unlink?../secret",
    ] {
        assert_eq!(taken(host.get(target)).0, "0", "{target}");
    }
    assert_eq!(formation.read("secret"), "a secret");
    // From one grant to the other both go.
    fs::write(formation.path("other/mine"), "mine").unwrap();
    assert_eq!(taken(host.get("/link?mine")).0, "1");
    assert_eq!(taken(host.get("/unlink?mine")).0, "1");
    assert_eq!(taken(host.get("/move?mine")).0, "1");
    assert_eq!(formation.read("data/mine"), "mine");
}
