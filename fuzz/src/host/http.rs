//! Connections of clients that send anything.

use super::served::{End, SERVED};

/// The bytes that a client begins HTTP/2 with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Packets of one connection.
const PACKETS_MAX: usize = 64;

/// Kinds of frames: RFC 9113, section 6.
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;

/// Bytes on a connection of HTTP/1. The first of them says how many come in a packet; all do where it is zero.
pub fn http1(data: &[u8]) {
    let Some((size, bytes)) = data.split_first() else { return };
    let answer = SERVED.exchange(&SERVED.http, &packets(*size, bytes), End::WhenQuiet);
    match bytes.starts_with(PREFACE) {
        true => are_frames(&answer),
        false => is_answer(&answer),
    }
    SERVED.is_well();
}

/// Frames on a connection of HTTP/2, behind its preface. The first byte says how many bytes come in a packet, and
/// whether frames are whole by their form: then each has a byte for its kind, its flags, its stream and its length.
pub fn http2(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let frames = match first & 1 {
        0 => rest.to_vec(),
        _ => framed(rest),
    };
    let bytes = [PREFACE, &frames].concat();
    let answer = SERVED.exchange(&SERVED.http, &packets(first >> 1, &bytes), End::WhenQuiet);
    are_frames(&answer);
    SERVED.is_well();
}

fn packets(size: u8, bytes: &[u8]) -> Vec<&[u8]> {
    match usize::from(size) {
        0 => vec![bytes],
        size => bytes.chunks(size.max(bytes.len().div_ceil(PACKETS_MAX))).collect(),
    }
}

fn framed(mut rest: &[u8]) -> Vec<u8> {
    let mut frames = Vec::new();
    while let Some(([kind, flags, stream, length], behind)) = rest.split_first_chunk::<4>() {
        let (payload, next) = behind.split_at(behind.len().min(usize::from(*length)));
        frames.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
        frames.extend_from_slice(&[*kind, *flags, 0, 0, 0, *stream]);
        frames.extend_from_slice(payload);
        rest = next;
    }
    frames
}

/// The host says nothing, or begins with the head of an answer.
fn is_answer(bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no head: {}", bytes.escape_ascii()));
    let mut lines =
        bytes[..end].split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let status = lines.next().unwrap_or_default();
    let is_status = match status {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0' | b'1', b' ', code @ ..] => {
            code.len() > 3 && code[..3].iter().all(u8::is_ascii_digit) && code[3] == b' '
        }
        _ => false,
    };
    assert!(is_status, "{}", status.escape_ascii());
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(0);
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        assert!(colon > 0 && line[..colon].iter().all(is_name), "a field: {}", line.escape_ascii());
        let is_value = |byte: &u8| *byte == b'\t' || !byte.is_ascii_control();
        assert!(line[colon..].iter().all(is_value), "a field: {}", line.escape_ascii());
    }
}

/// The host says nothing, or its settings and then frames that a client may be sent. The last one may be cut.
fn are_frames(mut bytes: &[u8]) {
    let mut is_first = true;
    while let Some(([a, b, c, kind, _, stream @ ..], rest)) = bytes.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let stream = u32::from_be_bytes(*stream);
        assert!(!is_first || *kind == SETTINGS, "first a frame of kind {kind}");
        assert!(*kind <= CONTINUATION && *kind != PUSH_PROMISE, "a frame of kind {kind}");
        // The library refuses a malformed head before it looks whose number the stream has.
        let is_of_client = stream % 2 == 1 || *kind == RST_STREAM;
        assert!(stream == 0 || is_of_client, "a frame of kind {kind} of stream {stream}");
        is_first = false;
        bytes = &rest[length.min(rest.len())..];
    }
}
