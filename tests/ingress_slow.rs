//! Clients that take their time: they keep neither instances nor all connections from others.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::harness::http::{Connection, Request};
use crate::harness::{Formation, Host, eventually};

#[test]
fn a_small_body_that_comes_slowly_keeps_no_instance() {
    let host = Host::run(&Formation::web("count = 2\nbacklog = 1\nqueue_timeout = \"1s\""));
    let mut slow: Vec<Connection> = (0..8).map(|_| host.connect()).collect();
    for connection in &mut slow {
        let head = "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n01234";
        connection.send_raw(head.as_bytes()).unwrap();
    }
    for _ in 0..50 {
        assert_eq!(host.get("/ok").ok(), "ok\n");
    }
    eventually("both are idle", || (host.ps().in_state("web", "idle") == 2).then_some(()));
    for connection in &mut slow {
        connection.send_raw(b"56").unwrap();
        connection.send_raw(b"789").unwrap();
        assert_eq!(connection.read_answer(false).unwrap().ok(), "0123456789");
    }
}

#[test]
fn a_large_body_is_streamed_to_its_guest() {
    let host = Host::run(&Formation::web(""));
    let mut connection = host.connect();
    let head = format!("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", (64 << 10) + 1);
    connection.send_raw(head.as_bytes()).unwrap();
    eventually("its guest waits for it", || (host.ps().in_state("web", "busy") == 1).then_some(()));
    connection.send_raw(&vec![b'x'; (64 << 10) + 1]).unwrap();
    assert_eq!(connection.read_answer(false).unwrap().body.len(), (64 << 10) + 1);
}

#[test]
fn a_body_has_to_come_at_a_rate() {
    let host = Host::run(&Formation::web("count = 2").http("body_timeout = \"1s\""));
    for framing in ["content-length: 100000", "content-length: 1000", "transfer-encoding: chunked"] {
        let head = format!("POST /insist HTTP/1.1\r\nhost: x\r\n{framing}\r\n\r\n");
        let begun = Instant::now();
        assert_eq!(drip(&host, &head), 408, "{framing}");
        // A thousand bytes would take longer.
        assert!(begun.elapsed() < Duration::from_secs(45), "{:?}", begun.elapsed());
    }
    eventually("the instances are free", || (host.ps().in_state("web", "idle") == 2).then_some(()));
}

/// Sends a head, and then a byte each 50 ms for as long as nothing is answered; the status.
fn drip(host: &Host, head: &str) -> u16 {
    let mut stream = TcpStream::connect(host.address()).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let piece: &[u8] = if head.contains("chunked") { b"1\r\nx\r\n" } else { b"x" };
    let mut bytes = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            Err(err) if err.kind() == std::io::ErrorKind::WouldBlock => {
                let _ = stream.write_all(piece);
            }
            Err(_) => break,
        }
        if bytes.len() > 12 {
            break;
        }
    }
    String::from_utf8_lossy(&bytes)[9..12].parse().unwrap()
}

#[test]
fn an_address_has_a_part_of_all_connections() {
    let host = Host::run(&Formation::web("").http("max_connections_per_address = 3"));
    let mut held: Vec<Connection> = (0..3).map(|_| host.connect()).collect();
    for connection in &mut held {
        connection.send(&Request::get("/ok")).unwrap().ok();
    }
    let mut refused = host.connect();
    assert!(refused.send(&Request::get("/ok")).is_err(), "it is closed at once");
    host.stderr().wait_for("max_connections_per_address");
    held.pop();
    eventually("there is room again", || {
        let mut connection = host.connect();
        connection.send(&Request::get("/ok")).ok()
    });
    // Proxies that are trusted stand for many clients.
    let keys = "max_connections_per_address = 1\ntrusted_proxies = [\"127.0.0.1\"]";
    let host = Host::run(&Formation::web("").http(keys));
    let mut held: Vec<Connection> = (0..3).map(|_| host.connect()).collect();
    for connection in &mut held {
        connection.send(&Request::get("/ok")).unwrap().ok();
    }
}
