//! HTTP/2, frame by frame: what clients do, and what attackers do.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::http::Request;
use crate::harness::http2::Http2;
use crate::harness::{Asked, Formation, Host, Outside, PATIENCE, eventually};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A head in HPACK, without any table: names of the static table by their number.
fn head(path: &str) -> Vec<u8> {
    // :method GET, :scheme http, then :path and :authority with their texts.
    let mut block = vec![0x82, 0x86, 0x04, path.len() as u8];
    block.extend(path.as_bytes());
    block.extend([0x01, 1, b'x']);
    block
}

fn get_frame(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &head(path))
}

fn read_frame(stream: &mut impl Read) -> io::Result<Frame> {
    let mut start = [0; 9];
    stream.read_exact(&mut start)?;
    let mut payload = vec![0; u32::from_be_bytes([0, start[0], start[1], start[2]]) as usize];
    stream.read_exact(&mut payload)?;
    let number = u32::from_be_bytes([start[5], start[6], start[7], start[8]]);
    Ok(Frame { kind: start[3], flags: start[4], stream: number, payload })
}

/// The body of what a GET answers, as a client's first request on this connection.
pub(crate) fn get(stream: &mut (impl Read + Write), path: &str) -> Vec<u8> {
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &get_frame(1, path)].concat()).unwrap();
    body(stream, 1)
}

fn body(stream: &mut impl Read, number: u32) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let frame = read_frame(stream).unwrap();
        assert!(frame.kind != GOAWAY && frame.kind != RST_STREAM, "{frame:?}");
        if frame.stream != number {
            continue;
        }
        if frame.kind == DATA {
            body.extend(&frame.payload);
        }
        if matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0 {
            return body;
        }
    }
}

fn connect(host: &Host) -> TcpStream {
    let stream = TcpStream::connect(host.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A connection on which the settings have been exchanged.
fn greet(host: &Host, settings: &[u8]) -> TcpStream {
    let mut stream = connect(host);
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, settings)].concat()).unwrap();
    while read_frame(&mut stream).unwrap().kind != SETTINGS {}
    stream.write_all(&frame(SETTINGS, ACK, 0, &[])).unwrap();
    stream
}

/// Reads until the host hangs up; whether it said GOAWAY.
fn read_to_end(stream: &mut TcpStream) -> bool {
    let mut said = false;
    loop {
        match read_frame(stream) {
            Ok(frame) => said |= frame.kind == GOAWAY,
            Err(err) => {
                assert!(err.kind() != io::ErrorKind::WouldBlock, "it doesn't hang up");
                return said;
            }
        }
    }
}

#[test]
fn http2_is_spoken_without_asking() {
    let host = Host::run(&Formation::web(""));
    let mut stream = connect(&host);
    assert_eq!(get(&mut stream, "/ok"), b"ok\n");
    stream.write_all(&get_frame(3, "/headers")).unwrap();
    let told = String::from_utf8(body(&mut stream, 3)).unwrap();
    assert!(told.starts_with("GET\n/headers\nx\nhttp\n"), "{told}");
    // A preface that comes in pieces is one, too.
    let mut stream = connect(&host);
    for byte in PREFACE {
        stream.write_all(&[*byte]).unwrap();
    }
    stream.write_all(&[frame(SETTINGS, 0, 0, &[]), get_frame(1, "/ok")].concat()).unwrap();
    assert_eq!(body(&mut stream, 1), b"ok\n");
}

#[test]
fn many_streams_are_answered_at_once() {
    let outside = Outside::open();
    let host = Host::run(&Formation::web(&format!("count = 4\n{}", outside.keys())));
    let mut stream = greet(&host, &[]);
    let requests: Vec<u8> = (0..8).flat_map(|n| get_frame(1 + 2 * n, &outside.target())).collect();
    stream.write_all(&requests).unwrap();
    for _ in 0..2 {
        // Four are under way before the first of them has an answer.
        let four: Vec<_> = (0..4).map(|_| outside.asked()).collect();
        four.into_iter().for_each(Asked::answer);
    }
    let mut ended = 0;
    while ended < 8 {
        let frame = read_frame(&mut stream).unwrap();
        ended += u32::from(frame.stream != 0 && frame.flags & END_STREAM != 0);
    }
}

#[test]
fn a_drain_answers_what_was_asked_and_says_goodbye() {
    let outside = Outside::open();
    let host = Host::run(&Formation::web(&format!("count = 2\n{}", outside.keys())));
    let mut stream = greet(&host, &[]);
    stream.write_all(&get_frame(1, &outside.target())).unwrap();
    let mut asked = Some(outside.asked());
    host.terminate();
    host.stderr().wait_for("draining");
    // As long as nobody has said goodbye, a client may ask more.
    stream.write_all(&get_frame(3, "/ok")).unwrap();
    let (mut bodies, mut goodbye) = (Vec::new(), false);
    while let Ok(frame) = read_frame(&mut stream) {
        match frame.kind {
            DATA => {
                bodies.extend(frame.payload);
                if frame.stream == 3
                    && let Some(asked) = asked.take()
                {
                    asked.answer();
                }
            }
            GOAWAY => {
                assert_eq!(frame.payload[4..8], [0; 4], "no error: {frame:?}");
                goodbye = true;
            }
            // The host asks whether its goodbye has arrived.
            PING if frame.flags & ACK == 0 => {
                stream.write_all(&self::frame(PING, ACK, 0, &frame.payload)).unwrap()
            }
            RST_STREAM => panic!("{frame:?}"),
            _ => {}
        }
    }
    assert_eq!((String::from_utf8(bodies).unwrap().as_str(), goodbye), ("ok\n200\nheld", true));
    host.wait().done();
}

#[test]
fn no_request_is_lost_in_a_drain() {
    for _ in 0..3 {
        let host = Host::run(&Formation::web("count = 2"));
        let address = host.address();
        let clients: Vec<_> = (0..3).map(|_| thread::spawn(move || ask_until_goodbye(address))).collect();
        eventually("they are answered", || {
            (host.ps().instances("web").iter().map(|one| one["calls"].as_u64().unwrap()).sum::<u64>() > 50)
                .then_some(())
        });
        host.stop().done();
        assert!(clients.into_iter().map(|client| client.join().unwrap()).sum::<u32>() > 0);
    }
}

/// One request after the other, until the host says goodbye. It must then answer all that it says it has taken.
fn ask_until_goodbye(address: std::net::SocketAddr) -> u32 {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).unwrap();
    let (mut number, mut answered, mut last) = (1, 0, u32::MAX >> 1);
    stream.write_all(&get_frame(number, "/ok")).unwrap();
    let mut waiting = true;
    loop {
        let Ok(frame) = read_frame(&mut stream) else {
            assert!(!waiting || number > last, "stream {number} of {last} got no answer after {answered}");
            return answered;
        };
        match frame.kind {
            GOAWAY => last = u32::from_be_bytes(frame.payload[..4].try_into().unwrap()),
            PING if frame.flags & ACK == 0 => {
                let _ = stream.write_all(&self::frame(PING, ACK, 0, &frame.payload));
            }
            RST_STREAM => panic!("{frame:?} after {answered}"),
            DATA | HEADERS if frame.stream == number && frame.flags & END_STREAM != 0 => {
                answered += 1;
                waiting = false;
                if last == u32::MAX >> 1 {
                    number += 2;
                    waiting = stream.write_all(&get_frame(number, "/ok")).is_ok();
                }
            }
            _ => {}
        }
    }
}

/// The host hangs up on this, and serves others.
fn refused(host: &Host, stream: &mut TcpStream, bytes: &[u8]) {
    // It may hang up before it has taken all of it.
    let _ = stream.write_all(bytes);
    read_to_end(stream);
    assert_eq!(host.get("/ok").ok(), "ok\n");
}

#[test]
fn streams_that_are_reset_at_once_by_the_thousand_end_the_connection() {
    let host = Host::run(&Formation::web(""));
    let mut stream = greet(&host, &[]);
    let cancel = 8_u32.to_be_bytes();
    let flood: Vec<u8> = (0..20_000)
        .flat_map(|n| [get_frame(1 + 2 * n, "/ok"), frame(RST_STREAM, 0, 1 + 2 * n, &cancel)].concat())
        .collect();
    refused(&host, &mut stream, &flood);
}

#[test]
fn whoever_floods_with_resets_is_noticed_by_nobody_else() {
    let host = Host::run(&Formation::web("count = 4"));
    let cancel = 8_u32.to_be_bytes();
    let flood: Vec<u8> = (0..20_000)
        .flat_map(|n| {
            [get_frame(1 + 2 * n, "/sleep?ms=50"), frame(RST_STREAM, 0, 1 + 2 * n, &cancel)].concat()
        })
        .collect();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut connection = host.connect();
            let http2 = Http2::open(host.address());
            let mut answered = 0;
            while !over.load(Relaxed) || answered < 20 {
                assert_eq!(connection.send(&Request::get("/ok")).unwrap().ok(), "ok\n");
                assert_eq!(http2.send("GET", "http://x/ok", &[], "").unwrap().ok(), "ok\n");
                answered += 1;
            }
        });
        let floods: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..10 {
                        let mut stream = greet(&host, &[]);
                        let _ = stream.write_all(&flood);
                        read_to_end(&mut stream);
                    }
                })
            })
            .collect();
        floods.into_iter().for_each(|flood| flood.join().unwrap());
        over.store(true, Relaxed);
        other.join().unwrap();
    });
    // Nor does whoever reads the log: each connection has its end, and is worth no line of a library's.
    let lines = host.stderr().text().lines().count();
    assert!(lines < 50, "{lines} lines: {}", host.stderr().text());
    assert_eq!(host.ps().number("web", "restarts"), 0);
    eventually("all instances are idle", || (host.ps().in_state("web", "idle") == 4).then_some(()));
}

#[test]
fn a_head_without_an_end_ends_the_connection() {
    let host = Host::run(&Formation::web(""));
    let mut stream = greet(&host, &[]);
    let before = host.resident_bytes();
    let mut flood = frame(HEADERS, END_STREAM, 1, &head("/ok"));
    // A literal header, again and again.
    let field = [&[0x00, 1, b'a', 100][..], &[b'b'; 100]].concat();
    for _ in 0..20_000 {
        flood.extend(frame(CONTINUATION, 0, 1, &field.repeat(10)));
    }
    refused(&host, &mut stream, &flood);
    let after = host.resident_bytes();
    assert!(after < before + (8 << 20), "{before} -> {after}");
}

#[test]
fn pings_and_settings_whose_answers_nobody_reads_cost_nothing() {
    let host = Host::run(&Formation::web("").http("body_timeout = \"500ms\""));
    let before = host.resident_bytes();
    for flood in [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9])] {
        let mut stream = greet(&host, &[]);
        let flood = flood.repeat(1_000);
        stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
        // Until the host takes no more, or hangs up.
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until && stream.write_all(&flood).is_ok() {}
        assert_eq!(host.get("/ok").ok(), "ok\n");
    }
    let after = host.resident_bytes();
    assert!(after < before + (8 << 20), "{before} -> {after}");
}

#[test]
fn a_stream_without_a_window_is_given_up() {
    let host = Host::run(&Formation::web("").http("body_timeout = \"500ms\""));
    // SETTINGS_INITIAL_WINDOW_SIZE of 0
    let mut stream = greet(&host, &[0, 4, 0, 0, 0, 0]);
    stream.write_all(&get_frame(1, "/big?bytes=100000000000")).unwrap();
    // Another stream of the same connection goes on: it isn't idle.
    let begun = Instant::now();
    loop {
        let frame = read_frame(&mut stream).unwrap();
        if frame.kind == RST_STREAM {
            assert_eq!(frame.stream, 1);
            break;
        }
        assert!(begun.elapsed() < PATIENCE);
    }
    host.is_idle_after_a_call("web");
}

#[test]
fn an_answer_of_some_size_is_taken_from_its_guest_whoever_reads_it() {
    for (guest, keys) in [("web-test", ""), ("wasi03-service", "concurrency = 1")] {
        let host = Host::run(&Formation::new().process("web", guest, keys));
        // SETTINGS_INITIAL_WINDOW_SIZE of 0: nothing of the answer can be sent.
        let mut stream = greet(&host, &[0, 4, 0, 0, 0, 0]);
        stream.write_all(&get_frame(1, "/big?bytes=200000")).unwrap();
        let head = loop {
            let frame = read_frame(&mut stream).unwrap();
            if frame.stream == 1 {
                break frame;
            }
        };
        assert_eq!((head.kind, head.flags & END_STREAM), (HEADERS, 0), "{guest}: {head:?}");
        eventually("its instance is free", || (host.ps().in_state("web", "idle") == 1).then_some(()));
        // The client opens the window, and has all of it.
        let window = 300_000_u32.to_be_bytes();
        stream.write_all(&frame(WINDOW_UPDATE, 0, 1, &window)).unwrap();
        stream.write_all(&frame(WINDOW_UPDATE, 0, 0, &window)).unwrap();
        assert_eq!(body(&mut stream, 1).len(), 200_000, "{guest}");
    }
}

#[test]
fn what_is_not_http2_ends_the_connection() {
    let host = Host::run(&Formation::web(""));
    for bytes in [
        // Longer than any frame may be.
        [&[0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1][..], &[0; 100]].concat(),
        // Data of a stream that nobody has begun.
        frame(DATA, 0, 1, b"data"),
        // A stream of the server's numbers.
        get_frame(2, "/ok"),
        // An index that no table has.
        frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        frame(SETTINGS, 0, 0, &[0; 5]),
        frame(PING, 0, 0, &[0; 7]),
    ] {
        let mut stream = greet(&host, &[]);
        refused(&host, &mut stream, &bytes);
    }
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let host = Host::run(&Formation::web("").http("max_header = \"8KiB\""));
    let mut stream = greet(&host, &[]);
    let mut block = head("/ok");
    let value = "v".repeat(100);
    for _ in 0..100 {
        block.extend([0x00, 1, b'a', 100]);
        block.extend(value.as_bytes());
    }
    stream.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block)).unwrap();
    loop {
        let frame = read_frame(&mut stream).unwrap();
        if frame.kind == HEADERS {
            // `:status` with a text of its own.
            assert!(
                frame.payload.windows(3).any(|text| text == b"431") || frame.payload[0] == 0x48,
                "{frame:?}"
            );
            break;
        }
        if frame.kind == RST_STREAM {
            break;
        }
    }
    assert_eq!(host.send(&Request::get("/ok")).ok(), "ok\n");
}

#[test]
fn an_http2_connection_without_requests_ends_by_itself() {
    let host = Host::run(&Formation::web("").http("idle_timeout = \"500ms\""));
    let mut stream = greet(&host, &[]);
    assert!(read_to_end(&mut stream), "it says goodbye");
}
