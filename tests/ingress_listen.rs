//! Where a host listens.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::harness::http::{Connection, Request};
use crate::harness::{Formation, Host, PATIENCE, eventually};

/// Sends these bytes, and reads until the host hangs up.
pub(crate) fn exchange(mut stream: impl Read + Write, bytes: &[u8]) -> String {
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

const GET: &[u8] = b"GET /headers HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n";

fn address(served_at: &str) -> std::net::SocketAddr {
    served_at.trim_start_matches("http://").trim_end_matches('/').parse().unwrap()
}

#[test]
fn a_host_listens_in_several_places_and_prints_them_all() {
    let formation = Formation::web("").http("listen = [\"127.0.0.1:0\", \"[::1]:0\", \"unix:app.sock\"]");
    let host = Host::run(&formation);
    let socket = formation.path("app.sock");
    let served_at = host.served_at();
    assert_eq!((served_at.len(), &served_at[2]), (3, &format!("unix:{}", socket.display())));
    for place in &served_at[..2] {
        let mut connection = Connection::open(address(place)).unwrap();
        assert_eq!(connection.send(&Request::get("/ok")).unwrap().ok(), "ok\n", "{place}");
    }
    let answer = exchange(UnixStream::connect(&socket).unwrap(), GET);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("shop.example\nhttp\n"), "{answer}");
    assert!(!answer.contains("x-forwarded-for"), "nobody knows the address of a socket's peer: {answer}");
    let ps = host.cli(["ps"]).done();
    served_at.iter().for_each(|place| assert!(ps.contains(place), "{place} in {ps}"));
    host.stop().done();
    assert!(!socket.exists());
}

#[test]
fn a_unix_socket_is_for_whom_its_mode_says() {
    let formation = Formation::web("").http("listen = \"unix:app.sock\"\nsocket_mode = \"0606\"");
    let _host = Host::run(&formation);
    let mode = fs::metadata(formation.path("app.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o606);
}

#[test]
fn a_dead_hosts_socket_is_replaced() {
    let formation = Formation::web("").http("listen = \"unix:app.sock\"");
    Host::run(&formation).kill();
    assert!(formation.path("app.sock").exists());
    let _host = Host::run(&formation);
    let answer = exchange(UnixStream::connect(formation.path("app.sock")).unwrap(), GET);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn what_another_process_has_is_left_alone() {
    let formation = Formation::web("").http("listen = \"unix:app.sock\"");
    let path = formation.path("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    formation.run_to_end().failed(3, "another program listens there");
    UnixStream::connect(&path).unwrap();
    drop(listener);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "mine").unwrap();
    formation.run_to_end().failed(3, "there is a file that isn't a socket");
    assert_eq!(formation.read("app.sock"), "mine");
}

#[test]
fn a_unix_socket_drains_without_a_reset() {
    for _ in 0..3 {
        let formation = Formation::web("count = 2").http("listen = \"unix:app.sock\"");
        let host = Host::run(&formation);
        let path = formation.path("app.sock");
        let answered = Arc::new(AtomicU64::new(0));
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let (path, answered) = (path.clone(), answered.clone());
                std::thread::spawn(move || {
                    while let Ok(stream) = UnixStream::connect(&path) {
                        let answer =
                            exchange(stream, b"GET /ok HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
                        // In a chunk, where the guest was interrupted between the head and the end.
                        let is_whole =
                            answer.ends_with("\r\n\r\nok\n") || answer.ends_with("ok\n\r\n0\r\n\r\n");
                        assert!(is_whole, "after {answered:?}: {answer:?}");
                        answered.fetch_add(1, Relaxed);
                    }
                })
            })
            .collect();
        eventually("an answer", || (answered.load(Relaxed) > 0).then_some(()));
        std::thread::sleep(Duration::from_millis(fastrand::u64(20..100)));
        host.stop().done();
        clients.into_iter().for_each(|client| client.join().unwrap());
    }
}

/// `wasmhost run` with these sockets as its descriptors 3 and 4, as systemd would start it.
pub(crate) fn activated(formation: &Formation, sockets: &[BorrowedFd<'_>], names: &str) -> Child {
    // Copies that the shell inherits, with numbers that none of its redirections takes.
    let copies: Vec<_> =
        sockets.iter().map(|socket| rustix::io::fcntl_dupfd_cloexec(socket, 10).unwrap()).collect();
    for copy in &copies {
        rustix::io::fcntl_setfd(copy, rustix::io::FdFlags::empty()).unwrap();
    }
    let redirects: String =
        (3..).zip(&copies).map(|(to, socket)| format!(" {to}<&{}", socket.as_raw_fd())).collect();
    let script = format!(
        "LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES={names} exec {} run{redirects}",
        sockets.len(),
        env!("CARGO_BIN_EXE_wasmhost")
    );
    let mut command = Command::new("bash");
    command.args(["-c", &script]).current_dir(formation.folder());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn sockets_that_were_handed_over_are_served_and_outlive_the_host() {
    let formation = Formation::web("").http("listen = [\"fd:tcp\", \"systemd\"]");
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let path = formation.path("handed-over.sock");
    let unix = UnixListener::bind(&path).unwrap();
    for _ in 0..2 {
        let mut host = activated(&formation, &[unix.as_fd(), tcp.as_fd()], "unix:tcp");
        // A client that connects before the host is there waits for it.
        let mut connection = Connection::open(tcp.local_addr().unwrap()).unwrap();
        assert_eq!(connection.send(&Request::get("/ok")).unwrap().ok(), "ok\n");
        let answer = exchange(UnixStream::connect(&path).unwrap(), GET);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        formation.cli(["stop"]).done();
        assert!(host.wait().unwrap().success());
        assert!(path.exists(), "it isn't the host's");
    }
    // The next host would answer it.
    TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
}

#[test]
fn a_socket_that_was_handed_over_is_known_by_its_address() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = |listener: &TcpListener| listener.local_addr().unwrap();
    let formation =
        Formation::web("").http(&format!("listen = [\"systemd\", \"{}\", \"127.0.0.1:0\"]", place(&tcp)));
    let mut host = activated(&formation, &[tcp.as_fd(), other.as_fd()], "one:two");
    for listener in [&tcp, &other] {
        let mut connection = Connection::open(place(listener)).unwrap();
        assert_eq!(connection.send(&Request::get("/ok")).unwrap().ok(), "ok\n");
    }
    let ps: serde_json::Value = serde_json::from_str(&formation.cli(["ps", "--json"]).done()).unwrap();
    let served = ps["http"].as_array().unwrap();
    assert_eq!(served.len(), 3, "{ps}");
    assert_eq!(served[1], format!("http://{}/", place(&tcp)));
    formation.cli(["stop"]).done();
    assert!(host.wait().unwrap().success());
    TcpStream::connect(place(&tcp)).unwrap();
}

#[test]
fn a_socket_that_was_not_handed_over_is_missed() {
    let formation = Formation::web("").http("listen = \"systemd\"");
    formation.run_to_end().failed(3, "no socket was handed over");
}

#[test]
fn no_more_connections_are_served_at_once_than_may_be() {
    let host = Host::run(&Formation::web("").http("max_connections = 2"));
    let mut first = host.connect();
    let mut second = host.connect();
    for connection in [&mut first, &mut second] {
        connection.send(&Request::get("/ok")).unwrap().ok();
    }
    let mut third = host.connect();
    third.send_raw(b"GET /ok HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    host.stderr().wait_for("2 connections are open");
    first.send(&Request::get("/ok")).unwrap().ok();
    drop(second);
    assert_eq!(third.read_answer(false).unwrap().ok(), "ok\n");
    assert_eq!(host.stderr().count("connections are open"), 1);
}

#[test]
fn clients_that_come_at_once_wait_for_a_place_and_not_for_a_second_try() {
    // More than the 128 that are usual.
    const CLIENTS: usize = 200;
    let host = Host::run(&Formation::web("").http("max_connections = 1"));
    let mut first = host.connect();
    first.send(&Request::get("/ok")).unwrap().ok();
    // Without a place these would fail: nobody accepts them, however often they try.
    let connect = || TcpStream::connect_timeout(&host.address(), PATIENCE).unwrap();
    let waiting: Vec<_> = (0..CLIENTS).map(|_| connect()).collect();
    drop(first);
    for stream in waiting {
        assert!(exchange(stream, GET).starts_with("HTTP/1.1 200 "));
    }
}
