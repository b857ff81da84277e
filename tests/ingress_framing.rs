//! The boundaries of requests on HTTP/1: every head is checked, however its bytes come.

use std::time::{Duration, Instant};

use crate::harness::http::Failed;
use crate::harness::{Formation, Host};

const OK: &str = "GET /ok HTTP/1.1\r\nhost: x\r\n\r\n";
const SIZED: &str = "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello";
const CHUNKED: &str = "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nx-trailer: 1\r\n\r\n";
const BOTH: &str =
    "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
const BARE_LF: &str = "GET /ok HTTP/1.1\r\nhost: x\na: b\r\n\r\n";

/// The statuses of the answers to these pieces: so many, or as many as come before the host hangs up.
fn statuses(host: &Host, pieces: &[&[u8]], answers: usize) -> Vec<u16> {
    let mut connection = host.connect();
    for piece in pieces {
        // The host may have hung up.
        let _ = connection.send_raw(piece);
    }
    let mut statuses = Vec::new();
    while statuses.len() < answers {
        match connection.read_answer(false) {
            Ok(answer) => statuses.push(answer.status),
            Err(Failed::Unanswered(_)) => break,
            other => panic!("{other:?}"),
        }
    }
    if statuses.last() == Some(&400) {
        assert!(matches!(connection.read_answer(false), Err(Failed::Unanswered(_))), "it doesn't hang up");
    }
    statuses
}

#[test]
fn every_head_of_a_connection_is_checked_behind_whatever_it_comes() {
    let host = Host::run(&Formation::web(""));
    for before in [OK, SIZED, CHUNKED] {
        for (bad, expected) in [(BOTH, 400), (BARE_LF, 400), (OK, 200)] {
            let stream = format!("{before}{bad}");
            let (first, second) = stream.as_bytes().split_at(before.len());
            assert_eq!(statuses(&host, &[stream.as_bytes()], 2), [200, expected], "in one write: {stream:?}");
            assert_eq!(statuses(&host, &[first, second], 2), [200, expected], "in two writes: {stream:?}");
        }
    }
    // Nothing is served behind a head that is refused.
    assert_eq!(statuses(&host, &[format!("{OK}{BOTH}{OK}").as_bytes()], 3), [200, 400]);
    // The text of a body is no head.
    let hidden =
        format!("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{BARE_LF}{OK}", BARE_LF.len());
    assert_eq!(statuses(&host, &[hidden.as_bytes()], 2), [200, 200]);
}

#[test]
fn a_stream_may_be_cut_anywhere() {
    let host = Host::run(&Formation::web("count = 2"));
    let stream = format!("{CHUNKED}{SIZED}{OK}{BOTH}");
    let bytes = stream.as_bytes();
    for cut in (1..bytes.len()).step_by(7) {
        let (first, second) = bytes.split_at(cut);
        assert_eq!(statuses(&host, &[first, second], 4), [200, 200, 200, 400], "cut at {cut}");
    }
    let pieces: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(statuses(&host, &pieces, 4), [200, 200, 200, 400]);
}

#[test]
fn many_heads_in_one_write_are_all_answered() {
    let host = Host::run(&Formation::web(""));
    assert_eq!(statuses(&host, &[OK.repeat(200).as_bytes()], 200), vec![200; 200]);
    assert_eq!(statuses(&host, &[format!("\r\n{OK}\r\n\r\n{OK}").as_bytes()], 2), [200, 200]);
}

#[test]
fn half_a_head_behind_a_whole_one_has_to_come_in_time() {
    let host = Host::run(&Formation::web("").http("header_timeout = \"300ms\""));
    for before in [OK, SIZED, CHUNKED] {
        let begun = Instant::now();
        assert_eq!(statuses(&host, &[format!("{before}GET /ok HT").as_bytes()], 2), [200, 408], "{before}");
        assert!(begun.elapsed() >= Duration::from_millis(300));
    }
}

#[test]
fn a_body_is_in_chunks_or_in_nothing_else() {
    let host = Host::run(&Formation::web(""));
    let status = |version: &str, lines: &str| {
        let request = format!("POST /echo {version}\r\nhost: x\r\n{lines}\r\n5\r\nhello\r\n0\r\n\r\n");
        statuses(&host, &[request.as_bytes()], 1)[0]
    };
    for lines in [
        "transfer-encoding: chunked\r\n",
        "Transfer-Encoding:CHUNKED\r\n",
        "transfer-encoding: \tchunked \r\n",
    ] {
        assert_eq!(status("HTTP/1.1", lines), 200, "{lines}");
    }
    for lines in [
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: identity, chunked\r\n",
        "transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: xchunked, chunked\r\n",
    ] {
        assert_eq!(status("HTTP/1.1", lines), 501, "{lines}");
    }
    for lines in [
        "transfer-encoding: chunked, chunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked, gzip\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding: gzip\r\n",
        "transfer-encoding: chunked;a=b\r\n",
        "transfer-encoding:\r\n",
    ] {
        assert_eq!(status("HTTP/1.1", lines), 400, "{lines}");
    }
    assert_eq!(status("HTTP/1.0", "transfer-encoding: chunked\r\n"), 400);
}

#[test]
fn an_upgrade_is_heeded_only_where_it_is_one() {
    let host = Host::run(&Formation::web(""));
    let status = |version: &str, lines: &str| {
        let request = format!("GET /ok {version}\r\nhost: x\r\n{lines}\r\n");
        statuses(&host, &[request.as_bytes()], 1)[0]
    };
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\n";
    assert_eq!(status("HTTP/1.1", upgrade), 501);
    assert_eq!(status("HTTP/1.1", "connection: keep-alive, Upgrade\r\nupgrade: websocket\r\n"), 501);
    assert_eq!(status("HTTP/1.0", upgrade), 200);
    for lines in [
        "upgrade: websocket\r\n",
        "connection: keep-alive\r\nupgrade: websocket\r\n",
        "connection: upgrade\r\nupgrade:\r\n",
        "connection: upgrade\r\nupgrade: h2c\r\n",
        "connection: upgrade\r\n",
    ] {
        assert_eq!(status("HTTP/1.1", lines), 200, "{lines}");
    }
}
