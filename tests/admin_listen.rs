//! `[admin]`: the admin API by TCP, for those who show a token.

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::harness::http::{Answer, Connection, Request};
use crate::harness::tls::{certify, certify_all};
use crate::harness::{Formation, Host, PATIENCE, TOKEN, eventually};
use crate::ingress_listen::exchange;

pub(crate) const WRONG: &str = "a-wrong-token-0123456789abcdef0123456789";

/// A request that shows this token.
pub(crate) fn showing(token: &str, request: Request) -> Request {
    request.header("authorization", &format!("Bearer {token}"))
}

/// An answer to a request on a connection of its own.
#[track_caller]
pub(crate) fn ask(address: SocketAddr, request: &Request) -> Answer {
    Connection::open(address).unwrap().send(request).unwrap()
}

/// How things stand, by TCP.
#[track_caller]
pub(crate) fn look(address: SocketAddr, token: &str) -> Answer {
    ask(address, &showing(token, Request::get("/v1/formation")))
}

#[track_caller]
pub(crate) fn is_refused(answer: &Answer, status: u16, challenge: Option<&str>, detail: &str) {
    assert_eq!((answer.status, answer.header("www-authenticate")), (status, challenge), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
    let problem: Value = serde_json::from_slice(&answer.body).unwrap();
    assert!(problem["detail"].as_str().unwrap().contains(detail), "{problem}");
    assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
}

pub(crate) const CHALLENGE: Option<&str> = Some("Bearer realm=\"wasmhost\"");
pub(crate) const CHALLENGE_WRONG: Option<&str> = Some("Bearer realm=\"wasmhost\", error=\"invalid_token\"");

#[test]
fn the_api_is_for_those_who_show_the_token() {
    let host = Host::run(&Formation::web("").admin());
    let address = host.admin();
    let view: Value = serde_json::from_str(&look(address, TOKEN).ok()).unwrap();
    assert_eq!(view["types"][0]["process"], "web");
    assert_eq!(view["admin"][0], format!("http://{address}/"));
    assert!(host.cli(["ps"]).done().contains(&format!("admin http://{address}/")));

    for target in ["/v1/formation", "/v1/openapi.json", "/v1/nothing", "/", "/v1/logs?follow=true"] {
        is_refused(&ask(address, &Request::get(target)), 401, CHALLENGE, "needs the token of [admin]");
    }
    is_refused(&look(address, WRONG), 401, CHALLENGE_WRONG, "not the one of [admin]");
    let get = || Request::get("/v1/formation");
    let shorter = &TOKEN[..TOKEN.len() - 1];
    for field in [
        format!("Basic {TOKEN}"),
        format!("Bearer {shorter}"),
        format!("Bearer {TOKEN}0"),
        format!("Bearer {}", TOKEN.to_lowercase()),
        format!("Bearer{TOKEN}"),
        TOKEN.to_owned(),
        String::new(),
    ] {
        is_refused(
            &ask(address, &get().header("authorization", &field)),
            401,
            CHALLENGE_WRONG,
            "not the one",
        );
    }
    let twice = showing(TOKEN, showing(TOKEN, get()));
    is_refused(&ask(address, &twice), 401, CHALLENGE_WRONG, "not the one");
    // It is in no query and no cookie.
    is_refused(
        &ask(address, &Request::get(&format!("/v1/formation?token={TOKEN}"))),
        401,
        CHALLENGE,
        "needs",
    );
    let cookie = get().header("cookie", &format!("token={TOKEN}"));
    is_refused(&ask(address, &cookie), 401, CHALLENGE, "needs");
    // The scheme's letters may be small.
    ask(address, &get().header("authorization", &format!("bearer {TOKEN}"))).ok();
    let (_, stderr) = (host.stdout().text(), host.stderr().text());
    assert!(stderr.contains("had a wrong token") && !stderr.contains(shorter) && !stderr.contains(WRONG));
}

#[test]
fn all_of_the_api_is_there() {
    let formation =
        Formation::web("").process("worker", "job-test", "queue = \"default\"\ncount = 0").admin();
    let host = Host::run(&formation);
    let address = host.admin();
    let mut connection = Connection::open(address).unwrap();
    let mut send = |request: Request| connection.send(&showing(TOKEN, request)).unwrap();
    let scale = r#"{"changes": [{"process": "web", "to": {"count": 3}}], "wait_s": 60}"#;
    let scaled: Value = serde_json::from_str(&send(Request::post("/v1/scale", scale)).ok()).unwrap();
    assert_eq!(scaled["types"][0]["actual"], 3);
    let job = send(Request::post("/v1/queues/default/jobs", r#"{"payload": "x"}"#));
    assert_eq!(job.status, 201, "{job:?}");
    assert!(send(Request::get("/v1/jobs")).ok().contains("\"default\""));
    assert_eq!(send(Request::get("/v1/nothing")).status, 404);
    assert_eq!(send(Request::post("/v1/scale", "[]")).status, 400);
    let document: Value = serde_json::from_str(&send(Request::get("/v1/openapi.json")).ok()).unwrap();
    assert_eq!(document["components"]["securitySchemes"]["token"]["scheme"], "bearer");
    assert_eq!(send(Request::post("/v1/stop", "")).status, 202);
    host.wait().done();
}

#[test]
fn logs_and_events_are_followed() {
    let host = Host::run(&Formation::web("").admin());
    let address = host.admin();
    let follow = |target: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!("GET {target} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    let has = |stream: &mut TcpStream, text: &str| {
        let mut come = Vec::new();
        let mut bytes = [0; 4096];
        while !String::from_utf8_lossy(&come).contains(text) {
            let count = stream.read(&mut bytes).unwrap();
            assert!(count > 0, "no {text:?} in {}", String::from_utf8_lossy(&come));
            come.extend_from_slice(&bytes[..count]);
        }
    };
    let (mut events, mut logs) = (follow("/v1/events"), follow("/v1/logs?target=host&follow=true"));
    has(&mut events, "HTTP/1.1 200");
    has(&mut logs, "all instances are up");
    host.cli(["scale", "web=2"]).done();
    has(&mut events, "\"kind\":\"count\"");
    has(&mut logs, "scaled to web=2");
    // They end with the host.
    host.stop().done();
    for mut stream in [events, logs] {
        let mut rest = Vec::new();
        if let Err(err) = stream.read_to_end(&mut rest) {
            assert_eq!(err.kind(), ErrorKind::ConnectionReset, "{err}");
        }
    }
}

#[test]
fn a_host_that_starts_says_so_by_tcp_too() {
    let step = "run = \"release\"\nargs = [\"sleep\", \"600000\"]";
    let formation = Formation::web("").process("step", "cmd-test", step).admin();
    let host = Host::spawn(&formation);
    let address = host.admin();
    eventually("its release step runs", || {
        let view: Value = serde_json::from_str(&look(address, TOKEN).ok()).unwrap();
        view["starting"].as_str()?.contains("release step").then_some(())
    });
    is_refused(&look(address, WRONG), 401, CHALLENGE_WRONG, "not the one");
    assert_eq!(ask(address, &showing(TOKEN, Request::post("/v1/stop", ""))).status, 202);
    host.wait().done();
}

#[test]
fn it_is_served_by_tls_with_certificates_of_its_own() {
    let admin = certify("admin.example");
    let formation =
        Formation::web("").admin().table("[admin.tls]\ncert = \"admin.pem\"\nkey = \"admin.key\"");
    admin.write(&formation, "admin");
    let host = Host::run(&formation);
    let address = host.admin();
    assert_eq!(host.ps().0["admin"][0], format!("https://{address}/"));
    let get = format!(
        "GET /v1/formation HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n\r\n"
    );
    let stream = admin.connect(address, "admin.example", &[b"h2", b"http/1.1"]).unwrap();
    assert_eq!(stream.conn.alpn_protocol(), Some(b"http/1.1".as_slice()));
    assert!(exchange(stream, get.as_bytes()).starts_with("HTTP/1.1 200 "));
    let stream = admin.connect(address, "admin.example", &[]).unwrap();
    let refused = exchange(stream, b"GET /v1/formation HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
    // Nothing is served to those who speak plainly.
    let answer = exchange(TcpStream::connect(address).unwrap(), get.as_bytes());
    assert!(!answer.contains("HTTP/1.1 200"), "{answer}");

    // Certificates that have changed are taken while it runs.
    let newer = certify("admin.example");
    newer.write(&formation, "admin");
    eventually("the new one is in use", || newer.connect(address, "admin.example", &[]).ok());
}

#[test]
fn other_machines_reach_it_by_the_certificates_of_http_or_not_at_all() {
    let shop = certify_all(&["shop.example", "127.0.0.1"]);
    let everywhere = Formation::web("")
        .admin()
        .replace("[admin]\nlisten = \"127.0.0.1:0\"", "[admin]\nlisten = \"0.0.0.0:0\"");
    for verb in ["check", "run"] {
        everywhere.cli([verb]).failed(2, "the token would pass the network in clear; add [admin.tls]");
    }
    let formation = everywhere
        .replace(
            "[admin]",
            "[http.tls]\nlisten = \"127.0.0.1:0\"\ncert = \"shop.pem\"\nkey = \"shop.key\"\n[admin]",
        )
        .replace("\"0.0.0.0:0\"", "[\"0.0.0.0:0\", \"127.0.0.1:0\"]");
    shop.write(&formation, "shop");
    let host = Host::run(&formation);
    let places = host.ps().0["admin"].as_array().unwrap().clone();
    let place = |scheme: &str| -> u16 {
        let place = places.iter().find_map(|place| place.as_str().unwrap().strip_prefix(scheme)).unwrap();
        place.trim_end_matches('/').parse::<SocketAddr>().unwrap().port()
    };
    let (secure, plain) = (place("https://"), place("http://"));
    shop.connect(([127, 0, 0, 1], secure).into(), "127.0.0.1", &[]).unwrap();
    look(([127, 0, 0, 1], plain).into(), TOKEN).ok();
}

#[test]
fn a_token_that_is_none_is_told_by_check_and_at_the_start() {
    let formation = Formation::web("").admin();
    let file = formation.path("admin.token");
    let refused = |why: &str| {
        formation.cli(["check"]).failed(2, why);
        formation.run_to_end().failed(3, why);
    };
    for (text, why) in [
        ("", "admin.token is empty"),
        ("too short", "has characters that no token may have"),
        ("0123456789abcdef", "has 16 characters, expected at least 32"),
    ] {
        fs::write(&file, text).unwrap();
        refused(why);
    }
    fs::write(&file, TOKEN).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
    refused("may be written by other users (mode 666)");
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let checked = formation.cli(["check"]);
    assert!(checked.stderr.contains("may be read by every user (mode 644)"), "{checked:#?}");
    assert_eq!(checked.code, 0, "{checked:#?}");
    assert!(!checked.stdout.contains(&TOKEN[..8]) && !checked.stderr.contains(&TOKEN[..8]), "{checked:#?}");
    fs::remove_file(&file).unwrap();
    refused("can't read the token file");
    let without = formation.replace("token = \"admin.token\"", "");
    for verb in ["check", "run"] {
        without.cli([verb]).failed(2, "admin.token: missing");
    }
}

#[test]
fn connections_that_show_nothing_give_way_to_those_that_do() {
    let host = Host::run(&Formation::web("").admin());
    let address = host.admin();
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", host.pid())).unwrap().count();
    let before = descriptors();
    let begin = |text: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        // One whose moment was over may be gone already.
        let _ = stream.write_all(text.as_bytes());
        stream
    };
    let texts =
        ["", "GET /v1/formation HT", "POST /v1/scale HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n"];
    let mut stalled = Vec::new();
    for _ in 0..100 {
        stalled.extend(texts.map(begin));
        look(address, TOKEN).ok();
    }
    eventually("most of them have given way", || (descriptors() <= before + 64 + 16).then_some(()));
    look(address, TOKEN).ok();
    drop(stalled);
}

#[test]
fn wrong_tokens_hold_nobody_up_who_has_the_right_one() {
    let host = Host::run(&Formation::web("").admin());
    let address = host.admin();
    let statuses = std::thread::scope(|scope| {
        let guesses: Vec<_> = (0..40).map(|_| scope.spawn(|| look(address, WRONG).status)).collect();
        let mut connection = Connection::open(address).unwrap();
        for _ in 0..100 {
            let request = showing(TOKEN, Request::get("/v1/formation"));
            connection.send(&request).unwrap().ok();
        }
        guesses.into_iter().map(|guess| guess.join().unwrap()).collect::<Vec<_>>()
    });
    // Some wait for their answer, and the others don't.
    assert!(statuses.iter().all(|status| [401, 429].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&401), "{statuses:?}");
    let said = host.stderr().count("had a wrong token");
    assert!((1..40).contains(&said), "{said} lines:\n{}", host.stderr().text());
}

#[test]
fn heads_and_bodies_are_bounded() {
    let host = Host::run(&Formation::web("").admin());
    let address = host.admin();
    let long = "x".repeat(1 << 20);
    let answer = ask(address, &showing(TOKEN, Request::get("/v1/formation")).header("x-long", &long));
    assert_eq!(answer.status, 431, "{answer:?}");
    let body = vec![b' '; (32 << 20) + 1];
    let answer = ask(address, &showing(TOKEN, Request::post("/v1/scale", body.clone())));
    assert_eq!(answer.status, 413, "{answer:?}");
    // Hardly any of it is read where nothing is shown. Its client may find the connection closed before it has the answer.
    if let Ok(answer) = Connection::open(address).unwrap().send(&Request::post("/v1/scale", body)) {
        is_refused(&answer, 401, CHALLENGE, "needs the token of [admin]");
    }
    look(address, TOKEN).ok();
}
