//! The ways to write an address: in none of them does a guest get where its grants don't lead.

use std::net::{SocketAddr, TcpListener};

use crate::grants::outside;
use crate::harness::{Formation, Host};

/// This machine, as getaddrinfo(3), a URL or an RFC may have it.
const THIS_MACHINE: [&str; 27] = [
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.0x0.0x0.0x1",
    "0x7f.1",
    "0177.0.0.1",
    "0177.1",
    "017700000001",
    "127.255.255.254",
    "0.0.0.0",
    "0",
    "localhost",
    "localhost.",
    "LocalHost",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "127.0.0.1%2eexample.com",
    "localhost%00.example.com",
];

/// The address at which a cloud tells its machines who they are.
const METADATA: [&str; 9] = [
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "[::ffff:169.254.169.254]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:a9fe:a9fe::]",
    "[fd00:ec2::254]",
    "metadata.google.internal",
];

/// Listeners on this machine, of both families where it has them, on one port.
fn listeners() -> (Vec<TcpListener>, u16) {
    let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = v4.local_addr().unwrap().port();
    let v6 = TcpListener::bind(("::1", port));
    let listeners: Vec<_> = [v4].into_iter().chain(v6).collect();
    listeners.iter().for_each(|listener| listener.set_nonblocking(true).unwrap());
    (listeners, port)
}

#[track_caller]
fn nobody_came(listeners: &[TcpListener], to: &str) {
    for listener in listeners {
        assert!(listener.accept().is_err(), "{to} led to {:?}", listener.local_addr());
    }
}

/// Tries to get there by a request, and by a socket.
#[track_caller]
fn does_not_lead(host: &Host, listeners: &[TcpListener], to: &str, port: u16) {
    for target in [format!("/fetch?url=http://{to}:{port}/"), format!("/connect?addr={to}:{port}")] {
        let answer = host.get(&target);
        assert_eq!(answer.status, 500, "{target}: {answer:?}");
        nobody_came(listeners, &target);
    }
}

#[test]
fn no_form_of_this_machine_leads_there_without_a_grant() {
    let (listeners, port) = listeners();
    let grants =
        format!("outbound = [\"*.example.com:{port}\", \"192.0.2.1:{port}\", \"http://192.0.2.1:{port}\"]");
    let host = Host::run(&Formation::web(&grants));
    for to in THIS_MACHINE {
        does_not_lead(&host, &listeners, to, port);
    }
    assert_eq!(host.get("/ok").ok(), "ok\n");
}

#[test]
fn no_form_of_a_metadata_service_leads_there_without_a_grant() {
    let host = Host::run(&Formation::web("outbound = [\"*.example.com:80\", \"https://api.example.com\"]"));
    for to in METADATA {
        let answer = host.get(&format!("/fetch?url=http://{to}/latest/meta-data/"));
        assert!(answer.status == 500 && answer.text().contains("HttpRequestDenied"), "{to}: {answer:?}");
        let answer = host.get(&format!("/connect?addr={to}:80"));
        assert_eq!(answer.status, 500, "{to}: {answer:?}");
    }
}

#[test]
fn a_grant_of_one_form_is_for_that_form_alone() {
    let (listeners, port) = listeners();
    let host = Host::run(&Formation::web(&format!("outbound = [\"http://127.0.0.1:{port}\"]")));
    for to in THIS_MACHINE.iter().filter(|to| !to.starts_with("127.0.0.1")) {
        let answer = host.get(&format!("/fetch?url=http://{to}:{port}/"));
        assert_eq!(answer.status, 500, "{to}: {answer:?}");
        nobody_came(&listeners, to);
    }
}

/// A name that getaddrinfo(3) takes for a number.
#[test]
fn a_wildcard_does_not_lead_to_this_machine_by_a_number() {
    let (listeners, port) = listeners();
    let host = Host::run(&Formation::web(&format!("outbound = [\"*.0x0.0x0.0x1:{port}\"]")));
    does_not_lead(&host, &listeners, "0x7f.0x0.0x0.0x1", port);
    let line = host.stderr().wait_for("which leads to this machine");
    assert!(line.contains("since a wildcard doesn't"), "{line}");
    // Named outright, it does.
    let outside = outside();
    let port = outside.port();
    let host = Host::run(&Formation::web(&format!("outbound = [\"0x7f.0x0.0x0.0x1:{port}\"]")));
    let answer = host.get(&format!("/fetch?url=http://0x7f.0x0.0x0.0x1:{port}/"));
    assert!(answer.status == 200 || answer.text().contains("DnsError"), "{answer:?}");
}

#[test]
fn a_redirect_is_the_guests_to_follow_and_is_asked_for_anew() {
    let (elsewhere, port) = listeners();
    let redirecting = redirecting(&format!("http://127.0.0.1:{port}/secret"));
    let host = Host::run(&Formation::web(&format!("outbound = [\"http://{redirecting}\"]")));
    let answer = host.get(&format!("/fetch?url=http://{redirecting}/")).ok();
    assert!(answer.starts_with("302\n"), "{answer}");
    does_not_lead(&host, &elsewhere, "127.0.0.1", port);
}

/// A server that sends everybody elsewhere.
fn redirecting(location: &str) -> SocketAddr {
    use std::io::{Read, Write};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = format!(
        "HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}
