//! The reach of a sandbox: what the formation grants, and nothing else.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use crate::harness::{Formation, Host, PATIENCE};

const REFUSED: &str = "which the formation doesn't grant";

fn with_dirs() -> Formation {
    let dirs = "dirs = [{ host = \"public\", guest = \"/public\" }, { host = \"data\", guest = \"/data\", access = \"write\" }]";
    let formation = Formation::web(dirs).directory("public").directory("data");
    fs::write(formation.path("public/page"), "a page").unwrap();
    fs::write(formation.path("secret"), "a secret").unwrap();
    formation
}

#[test]
fn a_directory_can_be_read_and_written_as_granted() {
    let formation = with_dirs();
    let host = Host::run(&formation);
    assert_eq!(host.get("/read?path=/public/page").ok(), "a page");
    assert_eq!(host.post("/write?path=/data/new", "new text").ok(), "written\n");
    assert_eq!(formation.read("data/new"), "new text");
    assert_eq!(host.get("/read?path=/data/new").ok(), "new text");

    assert_eq!(host.post("/write?path=/public/page", "changed").status, 500);
    assert_eq!(host.post("/write?path=/public/new", "new").status, 500);
    assert_eq!(formation.read("public/page"), "a page");
    assert!(!formation.path("public/new").exists());
}

#[test]
fn nothing_outside_a_granted_directory_can_be_reached() {
    let formation = with_dirs();
    std::os::unix::fs::symlink(formation.path("secret"), formation.path("public/absolute")).unwrap();
    std::os::unix::fs::symlink("../secret", formation.path("data/relative")).unwrap();
    std::os::unix::fs::symlink("/", formation.path("data/root")).unwrap();
    let host = Host::run(&formation);
    for path in [
        "/secret",
        "/public/../secret",
        "/public/../../../../etc/passwd",
        "/etc/passwd",
        "/public/absolute",
        "/data/relative",
        "/data/root/etc/passwd",
        "/proc/self/environ",
        "formation.toml",
        "/data/../formation.toml",
    ] {
        let answer = host.get(&format!("/read?path={path}"));
        assert_eq!(answer.status, 500, "{path}: {answer:?}");
        assert!(!answer.text().contains("secret\n"), "{path}: {answer:?}");
        assert_eq!(host.post(&format!("/write?path={path}"), "x").status, 500, "{path}");
    }
    assert_eq!(formation.read("secret"), "a secret");
}

#[test]
fn without_a_grant_there_is_no_directory() {
    let host = Host::run(&Formation::web(""));
    for path in ["/", ".", "/tmp", "/etc/passwd"] {
        assert_eq!(host.get(&format!("/read?path={path}")).status, 500, "{path}");
    }
    assert_eq!(host.post("/write?path=/tmp/x", "x").status, 500);
}

#[test]
fn the_environment_is_what_was_granted() {
    let formation =
        Formation::web("env = { A = \"1\", FROM = { from_env = \"GUESTS\" }, TOKEN = { file = \"token\" } }");
    fs::write(formation.path("token"), "s3cret\n").unwrap();
    let host = Host::run(&formation);
    let env = host.get("/env").ok();
    let mut names: Vec<_> = env.lines().map(|line| line.split('=').next().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["A", "FROM", "TOKEN", "WASMHOST_INSTANCE", "WASMHOST_TYPE"]);
    assert!(env.contains("TOKEN=s3cret\n") && env.contains("WASMHOST_INSTANCE=web.1\n"), "{env}");
}

/// A server that answers each request with `hello from outside`; the port is free again when the test ends.
pub(crate) fn outside() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                    head.extend_from_slice(&byte);
                }
                let body = "hello from outside";
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
            });
        }
    });
    address
}

/// The request that a server is sent: the head, and the body as it was framed. The server answers `ok`, and hangs up.
fn received(listener: &TcpListener) -> String {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut sent = String::new();
    let mut byte = [0];
    loop {
        if let Some((head, body)) = sent.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let is_whole = match length {
                Some(length) => body.len() >= length.parse().unwrap(),
                None => !head.contains("chunked") || body.ends_with("0\r\n\r\n"),
            };
            if is_whole {
                break;
            }
        }
        stream.read_exact(&mut byte).unwrap();
        sent.push(char::from(byte[0]));
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").unwrap();
    sent
}

#[test]
fn a_request_that_a_guest_makes_says_how_long_its_body_is() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let host = Host::run(&Formation::web(&format!("outbound = [\"{url}\"]")));
    for (query, lines, body) in [
        ("method=GET", &[][..], ""),
        ("method=GET&body=", &[], ""),
        ("method=GET&body=query", &["content-length: 5"], "query"),
        ("method=POST", &["content-length: 0"], ""),
        ("method=PUT", &["content-length: 0"], ""),
        ("method=DELETE", &[], ""),
    ] {
        let sent = std::thread::scope(|scope| {
            let sent = scope.spawn(|| received(&listener));
            assert_eq!(host.get(&format!("/send?{query}&url={url}/")).ok(), "200\nok", "{query}");
            sent.join().unwrap()
        });
        let (head, sent_body) = sent.split_once("\r\n\r\n").unwrap();
        let framing: Vec<_> = head
            .lines()
            .filter(|line| line.starts_with("content-length") || line.starts_with("transfer"))
            .collect();
        assert_eq!((framing.as_slice(), sent_body), (lines, body), "{query}: {sent}");
    }
}

#[test]
fn a_password_in_an_authority_does_not_go_out() {
    let outside = outside();
    let host = Host::run(&Formation::web(&format!("outbound = [\"http://{outside}\"]")));
    let answer = host.get(&format!("/fetch?url=http://me:secret@{outside}/"));
    assert_eq!(answer.status, 500);
    assert!(answer.text().contains("HttpRequestUriInvalid"), "{answer:?}");
}

#[test]
fn a_grant_names_a_host_with_or_without_the_dot_at_its_end() {
    let outside = outside();
    let port = outside.port();
    for (granted, asked) in
        [("localhost", "localhost."), ("localhost.", "LocalHost"), ("LOCALHOST", "LocalHost.")]
    {
        let keys = format!("outbound = [\"http://{granted}:{port}\", \"{granted}:{port}\"]");
        let host = Host::run(&Formation::web(&keys));
        let fetched = host.get(&format!("/fetch?url=http://{asked}:{port}/")).text();
        let connected = host.get(&format!("/connect?addr={asked}:{port}")).text();
        // A machine may not know the name with its dot, which isn't a refusal.
        let is_known = fetched == "200\nhello from outside" && connected == "connected\n";
        let is_unknown =
            asked.ends_with('.') && fetched.contains("DnsError") && connected == "name-unresolvable\n";
        assert!(is_known || is_unknown, "{granted} {asked}: {fetched} {connected}");
    }
}

#[test]
fn a_request_goes_where_it_was_granted() {
    let outside = outside();
    let host = Host::run(&Formation::web(&format!("outbound = [\"http://{outside}\"]")));
    assert_eq!(host.get(&format!("/fetch?url=http://{outside}/path")).ok(), "200\nhello from outside");
    // A grant for requests is none for sockets.
    assert_eq!(host.get(&format!("/connect?addr={outside}")).status, 500);
}

#[test]
fn a_body_that_its_guest_sends_and_does_not_finish_does_not_look_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let host = Host::run(&Formation::web(&format!("outbound = [\"{url}\"]")));
    let mut waiting = host.connect();
    waiting
        .send_raw(format!("GET /upload-and-trap?url={url} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())
        .unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut sent = Vec::new();
    while !sent.ends_with(b"some\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        sent.extend_from_slice(&byte);
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
    waiting.read_answer(false).unwrap().is_error(502, "H13");
    // Not the last chunk of a body that is whole.
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert_eq!(rest, b"");
}

#[test]
fn a_request_elsewhere_is_refused_and_logged_once_with_the_line_that_would_grant_it() {
    let (granted, other) = (outside(), outside());
    let host = Host::run(&Formation::web(&format!("count = 2\noutbound = [\"http://{granted}\"]")));
    for _ in 0..3 {
        let answer = host.get(&format!("/fetch?url=http://{other}/"));
        assert_eq!(answer.status, 500);
        assert!(answer.text().contains("HttpRequestDenied"), "{answer:?}");
    }
    let line = host.stderr().wait_for(REFUSED);
    assert!(
        line.contains("[process.web]") && line.contains(&format!("outbound = [\\\"http://{other}\\\"]")),
        "{line}"
    );
    assert_eq!(host.stderr().count(REFUSED), 1);
}

#[test]
fn the_line_that_is_logged_grants_it() {
    let outside = outside();
    let formation = Formation::web("");
    let host = Host::run(&formation);
    assert_eq!(host.get(&format!("/fetch?url=http://{outside}/")).status, 500);
    assert_eq!(host.get(&format!("/connect?addr={outside}")).status, 500);
    let message = |part: &str| {
        let line = host.stderr().wait_for(part);
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        json["message"].as_str().unwrap().split("would: ").nth(1).unwrap().to_owned()
    };
    let (request, socket) = (message("connect to http://"), message(&format!("connect to {outside}")));
    host.stop().done();
    let host = Host::run(&Formation::web(&request));
    host.get(&format!("/fetch?url=http://{outside}/")).ok();
    let host = Host::run(&Formation::web(&socket));
    assert_eq!(host.get(&format!("/connect?addr={outside}")).ok(), "connected\n");
}

#[test]
fn a_socket_connects_where_it_was_granted() {
    let (granted, other) = (outside(), outside());
    let host = Host::run(&Formation::web(&format!("outbound = [\"{granted}\"]")));
    assert_eq!(host.get(&format!("/connect?addr={granted}")).ok(), "connected\n");
    // It is for requests too.
    host.get(&format!("/fetch?url=http://{granted}/")).ok();
    for _ in 0..2 {
        let answer = host.get(&format!("/connect?addr={other}"));
        assert_eq!(answer.status, 500);
        assert!(answer.text().contains("access-denied"), "{answer:?}");
    }
    host.stderr().wait_for(&format!("outbound = [\\\"{other}\\\"]"));
    assert_eq!(host.stderr().count(REFUSED), 1);
}

#[test]
fn a_name_is_granted_by_its_name() {
    let outside = outside();
    let port = outside.port();
    let host = Host::run(&Formation::web(&format!("outbound = [\"localhost:{port}\"]")));
    // The address counts only under the name that it was asked by.
    assert_eq!(host.get(&format!("/connect?addr={outside}")).status, 500);
    let answer = host.get(&format!("/connect?addr=localhost:{port}"));
    // `localhost` may be ::1 first, where nobody listens: that is no refusal.
    assert!(answer.status == 200 || answer.text().contains("connection-refused"), "{answer:?}");
    assert_eq!(host.get("/connect?addr=elsewhere.example:1").status, 500);
    host.stderr().wait_for("elsewhere.example");
}

#[test]
fn the_whole_network_can_be_granted() {
    let outside = outside();
    let host = Host::run(&Formation::web("network = \"all\""));
    host.get(&format!("/fetch?url=http://{outside}/")).ok();
    assert_eq!(host.get(&format!("/connect?addr={outside}")).ok(), "connected\n");
    assert_eq!(host.stderr().count(REFUSED), 0);
}

#[test]
fn a_grant_is_for_its_type_alone() {
    let outside = outside();
    let formation = Formation::web("").process(
        "other",
        "web-test",
        &format!("route = \"other.example\"\noutbound = [\"{outside}\"]\nenv = {{ A = \"1\" }}"),
    );
    let host = Host::run(&formation);
    assert_eq!(host.get(&format!("/connect?addr={outside}")).status, 500);
    assert!(!host.get("/env").ok().contains("A=1"));
    let request = |target: &str| crate::harness::http::Request::get(target).header("host", "other.example");
    host.send(&request(&format!("/connect?addr={outside}"))).ok();
    assert!(host.send(&request("/env")).ok().contains("A=1"));
}
