//! Deploys that change where a host listens, and how. The host's own sockets are never in its way.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::harness::http::{Connection, Request};
use crate::harness::{Formation, Host, address_of_its_own, eventually, guest_file};
use crate::ingress_listen::{activated, exchange};

const GET: &[u8] = b"GET /ok HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n";

/// A web type at this place. A place that a release leaves is served for longer than a test takes.
fn served_at(place: &str) -> Formation {
    Formation::web("").top("drain_delay = \"5m\"").http(&format!("listen = \"{place}\""))
}

#[track_caller]
fn answers(address: SocketAddr) {
    let mut connection = Connection::open(address).unwrap_or_else(|failed| panic!("{address}: {failed:?}"));
    assert_eq!(connection.send(&Request::get("/ok")).unwrap().ok(), "ok\n", "{address}");
}

fn is_closed(address: SocketAddr) -> bool {
    Connection::open(address).is_err()
}

#[test]
fn an_address_that_was_just_left_can_be_had_again() {
    let (one, two) = (address_of_its_own(), address_of_its_own());
    let mut formation = served_at(&one.to_string());
    let host = Host::run(&formation);
    for (old, new) in [(one, two), (two, one), (one, two)] {
        formation = formation.replace(&old.to_string(), &new.to_string());
        let said = host.cli(["deploy"]).done();
        assert!(said.starts_with(&format!("http.listen {old} -> {new}\n")), "{said}");
        // The one that was left is for those who haven't heard of it.
        [old, new].into_iter().for_each(answers);
    }
    host.cli(["rollback"]).done();
    [one, two].into_iter().for_each(answers);
    assert_eq!(host.live(), 5);
}

#[test]
fn an_address_that_is_left_closes_when_its_time_is_over() {
    let (one, two) = (address_of_its_own(), address_of_its_own());
    let formation = served_at(&one.to_string()).replace("5m", "0s");
    let host = Host::run(&formation);
    let formation = formation.replace(&one.to_string(), &two.to_string());
    host.cli(["deploy"]).done();
    eventually("it is closed", || is_closed(one).then_some(()));
    // The time is that of the release that leaves it.
    let formation = formation.replace(&two.to_string(), &one.to_string()).replace("0s", "5m");
    host.cli(["deploy"]).done();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(500) {
        [one, two].into_iter().for_each(answers);
    }
    // A host that ends doesn't wait for it.
    let _formation = formation.replace("5m", "0s");
    host.cli(["deploy"]).done();
    let begun = Instant::now();
    host.stop().done();
    assert!(begun.elapsed() < Duration::from_secs(120), "{:?}", begun.elapsed());
}

#[test]
fn an_address_may_be_made_wider_and_narrower() {
    let one = address_of_its_own();
    let all = SocketAddr::from(([0, 0, 0, 0], one.port()));
    let mut formation = served_at(&one.to_string());
    let host = Host::run(&formation);
    for (old, new) in [(one, all), (all, one)] {
        formation = formation.replace(&format!("\"{old}\""), &format!("\"{new}\""));
        host.cli(["deploy"]).done();
        answers(one);
        let served: Vec<_> = host.ps().0["http"].as_array().unwrap().clone();
        assert_eq!(served, [format!("http://{new}/")]);
    }
}

#[test]
fn a_deploy_that_fails_gives_its_listeners_back() {
    let (one, two) = (address_of_its_own(), address_of_its_own());
    let formation = served_at(&one.to_string());
    let host = Host::run(&formation);
    let formation = formation.replace(&one.to_string(), &two.to_string());
    let text = formation.text();
    let component = guest_file("cmd-test");
    let dying = format!("\n[process.extra]\ncomponent = {component:?}\nargs = [\"exit\", \"1\"]\n");
    let formation = formation.with_text(&format!("{text}{dying}"));
    for _ in 0..2 {
        host.cli(["deploy"]).failed(1, "extra.1 exited with code 1");
        eventually("it is closed", || is_closed(two).then_some(()));
        answers(one);
    }
    let _formation = formation.with_text(&text);
    host.cli(["deploy"]).done();
    answers(two);
}

#[test]
fn the_mode_of_a_socket_changes_alone() {
    let formation = served_at("unix:app.sock");
    let path = formation.path("app.sock");
    let host = Host::run(&formation);
    let standing = || {
        let found = fs::metadata(&path).unwrap();
        (found.ino(), found.permissions().mode() & 0o777)
    };
    let (inode, mode) = standing();
    assert_eq!(mode, 0o660);
    let formation = formation.replace("app.sock\"", "app.sock\"\nsocket_mode = \"0606\"");
    let said = host.cli(["deploy"]).done();
    assert!(said.starts_with("http.socket_mode 0660 -> 0606\n"), "{said}");
    assert_eq!(standing(), (inode, 0o606));
    assert!(exchange(UnixStream::connect(&path).unwrap(), GET).starts_with("HTTP/1.1 200 "));
    drop(formation);
}

#[test]
fn a_unix_socket_whose_file_is_gone_is_made_again() {
    let formation = served_at("unix:app.sock");
    let path = formation.path("app.sock");
    let host = Host::run(&formation);
    fs::remove_file(&path).unwrap();
    let formation = formation.replace("app.sock\"", "app.sock\"\nmax_header = \"8KiB\"");
    host.cli(["deploy"]).done();
    assert!(exchange(UnixStream::connect(&path).unwrap(), GET).starts_with("HTTP/1.1 200 "));
    drop(formation);
}

#[test]
fn new_settings_hold_for_every_connection_that_comes_after_the_deploy() {
    let one = address_of_its_own();
    let place = format!("\"{one}\"");
    let formation = served_at(&one.to_string()).replace(&place, &format!("{place}\nmax_header = \"8KiB\""));
    let host = Host::run(&formation);
    let long = "x".repeat(16 << 10);
    let ask = || {
        let mut connection = Connection::open(one).unwrap();
        connection.send(&Request::get("/ok").header("x-long", &long)).unwrap().status
    };
    assert_eq!(ask(), 431);
    let formation = formation.replace("8KiB", "64KiB");
    host.cli(["deploy"]).done();
    // With two that accept, some of these would go to the one from before.
    let statuses: Vec<_> = (0..100).map(|_| ask()).collect();
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    drop(formation);
}

#[test]
fn sockets_that_were_handed_over_can_be_left_and_had_again() {
    let [one, two] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [at_one, at_two] = [&one, &two].map(|socket| socket.local_addr().unwrap());
    let mut formation = Formation::web("").http("listen = \"fd:one\"");
    let mut host = activated(&formation, &[one.as_fd(), two.as_fd()], "one:two");
    answers(at_one);
    for (old, new, left) in [("one", "two", at_one), ("two", "one", at_two)] {
        formation = formation.replace(&format!("fd:{old}"), &format!("fd:{new}"));
        formation.cli(["deploy"]).done();
        answers(if left == at_one { at_two } else { at_one });
    }
    // A client that comes while nobody listens waits, as before the host was there.
    formation = formation.replace("fd:one", "fd:two");
    formation.cli(["deploy"]).done();
    let mut waiting = eventually("the socket that was left is silent", || {
        let mut connection = Connection::open(at_one).unwrap();
        connection.send_raw(GET).unwrap();
        let is_silent = formation.cli(["ps"]).code == 0 && !connection.has_answer(Duration::from_millis(300));
        is_silent.then_some(connection)
    });
    // One that a failed deploy took isn't lost either.
    let component = guest_file("cmd-test");
    let text = formation.text();
    let dying = format!("\n[process.extra]\ncomponent = {component:?}\nargs = [\"exit\", \"1\"]\n");
    formation = formation.with_text(&format!("{}{dying}", text.replace("fd:two", "systemd")));
    formation.cli(["deploy"]).failed(1, "extra.1 exited with code 1");
    answers(at_two);
    formation = formation.with_text(&text.replace("fd:two", "systemd"));
    formation.cli(["deploy"]).done();
    assert_eq!(waiting.read_answer(false).unwrap().ok(), "ok\n");
    [at_one, at_two].into_iter().for_each(answers);
    formation.cli(["stop"]).done();
    assert!(host.wait().unwrap().success());
}

#[test]
fn the_last_web_type_serves_as_long_as_its_address_is_open() {
    let one = address_of_its_own();
    let formation = served_at(&one.to_string()).process("worker", "job-test", "queue = \"default\"");
    let host = Host::run(&formation);
    let all = formation.text();
    let (top, rest) = all.split_once("[process.web]").unwrap();
    let worker = rest.split_once("[process.worker]").unwrap().1;
    let formation = formation.with_text(&format!("{top}\n[process.worker]{worker}"));
    host.cli(["deploy"]).done();
    // Longer than it takes to let a type go.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        answers(one);
    }
    let formation = formation.with_text(&all);
    host.cli(["deploy"]).done();
    answers(one);
    // Without any delay it is gone at once.
    let formation = formation.with_text(&format!("{}\n[process.worker]{worker}", top.replace("5m", "0s")));
    host.cli(["deploy"]).done();
    eventually("it is closed", || is_closed(one).then_some(()));
    drop(formation);
}
