use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

/// The judgement of these bytes, when they come in such pieces.
fn judge<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Judged {
    let mut requests = Requests::default();
    pieces.into_iter().fold(Judged::default(), |before, piece| {
        let judged = requests.look(piece);
        let heads = before.heads + judged.heads;
        Judged { heads, found: before.found | judged.found, in_head: judged.in_head }
    })
}

/// However the bytes are cut.
#[track_caller]
fn check(stream: &str, heads: u32, found: Found) {
    let bytes = stream.as_bytes();
    for cut in 0..bytes.len() {
        let (first, rest) = bytes.split_at(cut);
        let judged = judge([first, rest]);
        assert_eq!((judged.heads, judged.found), (heads, found), "{stream:?}, cut at {cut}");
    }
    let judged = judge(bytes.chunks(1));
    assert_eq!((judged.heads, judged.found), (heads, found), "{stream:?}, byte by byte");
}

const NONE: Found = Found(0);
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const BOTH: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
const LF: &str = "GET / HTTP/1.1\r\nHost: a\nB: c\r\n\r\n";
const SIZED: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello";
const CHUNKED: &str = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n\
    5;x=\"1\"\r\nhello\r\nA \r\n0123456789\r\n0\r\ntrailer: 1\r\nother: 2\r\n\r\n";

#[test]
fn both_lengths_are_found_wherever_they_stand() {
    check(BOTH, 0, Found::TWO_LENGTHS);
    check(
        "\r\n\r\nPOST / HTTP/1.1\r\ntransfer-ENCODING:chunked\r\ncontent-LENGTH:1\r\n\r\n",
        0,
        Found::TWO_LENGTHS,
    );
    check(
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: x\r\n\r\n",
        0,
        Found::TWO_LENGTHS,
    );
}

#[test]
fn a_name_that_only_looks_like_one_is_none() {
    let other = "POST / HTTP/1.1\r\nHost: a\r\nX-Content-Length: 1\r\nContent-Lengths: 1\r\n\
        Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    check(other, 1, NONE);
    check("POST /content-length: HTTP/1.1\r\nHost: transfer-encoding: 1\r\n\r\n", 1, NONE);
}

#[test]
fn a_bare_line_feed_is_found() {
    for head in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        LF,
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        check(head, 0, Found::BARE_LF);
    }
}

#[test]
fn every_head_of_a_connection_is_judged() {
    for before in [GET, SIZED, CHUNKED] {
        check(&format!("{before}{GET}"), 2, NONE);
        check(&format!("{before}{BOTH}"), 1, Found::TWO_LENGTHS);
        check(&format!("{before}{LF}"), 1, Found::BARE_LF);
        check(&format!("{before}\r\n{BOTH}"), 1, Found::TWO_LENGTHS);
    }
}

#[test]
fn a_body_is_no_head() {
    let hidden = BOTH.len();
    check(&format!("POST / HTTP/1.1\r\ncontent-length: {hidden}\r\n\r\n{BOTH}{GET}"), 2, NONE);
    let chunk = format!("{hidden:x}\r\n{BOTH}\r\n0\r\n\r\n");
    check(&format!("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{chunk}{GET}"), 2, NONE);
    // Lengths that are said twice are one, if they are the same.
    check(&format!("POST / HTTP/1.1\r\ncontent-length: 2\r\ncontent-length:  2 \r\n\r\n\n\n{GET}"), 2, NONE);
}

#[test]
fn nothing_is_judged_behind_what_nobody_can_read() {
    for wrong in [
        "POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length:\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: +1\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 1, 1\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
    ] {
        check(&format!("{wrong}{GET}{GET}"), 0, Found::LOST);
    }
    for lost in [
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nx\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1;\nx\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nxx\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\na\rb\r\n\r\n",
    ] {
        check(&format!("{lost}{GET}{GET}"), 1, NONE);
    }
}

#[test]
fn half_a_head_is_one_wherever_it_stands() {
    let in_head = |stream: &str| judge([stream.as_bytes()]).in_head;
    assert!(in_head("G") && in_head(&format!("{GET}GET /")) && in_head(&format!("{SIZED}\r\nP")));
    assert!(!in_head("") && !in_head("\r\n") && !in_head(GET) && !in_head(&GET.repeat(3)));
    assert!(!in_head("POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nhel"));
    assert!(!in_head("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n"));
}

fn message() -> impl Strategy<Value = String> {
    let sized = "[a\r\n:]{0,12}".prop_map(|body| {
        format!("PUT / HTTP/1.1\r\nContent-Length: {}\r\nhost: a\r\n\r\n{body}", body.len())
    });
    let chunked = vec("[a\r\n:]{1,20}", 0..3).prop_map(|chunks| {
        let chunks: String = chunks.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len())).collect();
        format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
    });
    let fixed =
        prop_oneof![Just(GET), Just(SIZED), Just(CHUNKED), Just(BOTH), Just(LF)].prop_map(str::to_owned);
    prop_oneof![sized, chunked, fixed]
}

proptest! {
    #[test]
    fn where_a_stream_is_cut_makes_no_difference(messages in vec(message(), 1..6), cuts in vec(0usize..400, 0..8)) {
        let stream = messages.concat();
        let first_bad = messages.iter().position(|message| message == BOTH || message == LF);
        let heads = u32::try_from(first_bad.unwrap_or(messages.len())).unwrap();
        let found = match first_bad.map(|at| messages[at].as_str()) {
            None => NONE,
            Some(BOTH) => Found::TWO_LENGTHS,
            Some(_) => Found::BARE_LF,
        };
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| &stream.as_bytes()[cut[0]..cut[1]]);
        let judged = judge(pieces);
        prop_assert_eq!((judged.heads, judged.found), (heads, found));
    }

    #[test]
    fn any_bytes_in_any_pieces_are_judged_alike(bytes in vec(prop_oneof![
        Just(b'\r'), Just(b'\n'), Just(b'c'), Just(b':'), Just(b'0'), Just(b'1'), any::<u8>(),
    ], 0..200), cut in 0usize..200) {
        let head = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
        for bytes in [bytes.clone(), [head.as_slice(), &bytes].concat()] {
            let cut = cut.min(bytes.len());
            prop_assert_eq!(judge([&bytes[..cut], &bytes[cut..]]), judge([bytes.as_slice()]));
        }
    }
}

/// How many requests hyper makes of these bytes.
fn delivered(bytes: &[u8]) -> u32 {
    use http_body_util::{BodyExt, Empty};
    use hyper::body::{Bytes, Incoming};
    use hyper::{Request, Response};
    use tokio::io::AsyncWriteExt;

    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let count = std::cell::Cell::new(0);
    runtime.block_on(async {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let service = hyper::service::service_fn(async |request: Request<Incoming>| {
            count.set(count.get() + 1);
            // A body that can't be read ends the connection.
            let _ = request.into_body().collect().await;
            Ok::<_, std::convert::Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let mut http1 = hyper::server::conn::http1::Builder::new();
        let _ = http1.half_close(true).serve_connection(hyper_util::rt::TokioIo::new(server), service).await;
    });
    count.get()
}

/// Pieces of requests, of which hyper refuses many.
fn piece() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec![
        "GET / HTTP/1.1\r\n",
        "POST /content-length: HTTP/1.1\r\n",
        "PUT / HTTP/1.0\r\n",
        "Host: a\r\n",
        "Content-Length: 5\r\n",
        "content-length: 0\r\n",
        "CONTENT-LENGTH:\t7 \r\n",
        "Content-Length: +5\r\n",
        "Content-Length : 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "transfer-encoding: gzip, chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        " folded: 1\r\n",
        "a: b\n",
        "\r\n",
        "\n",
        "\r",
        "5\r\nhello\r\n",
        "0\r\n\r\n",
        "5;a=\"b\"\r\nhello\r\n",
        "0\r\nTrailer: 1\r\n\r\n",
        "a\r\n0123456789\r\n",
        "hello",
        "x",
    ])
}

proptest! {
    #[test]
    fn no_request_is_served_that_was_not_judged(pieces in vec(piece(), 0..14)) {
        let stream = pieces.concat();
        let judged = judge([stream.as_bytes()]);
        let delivered = delivered(stream.as_bytes());
        prop_assert!(delivered <= judged.heads + u32::from(judged.found != NONE), "{} {:?}", delivered, judged);
    }

    #[test]
    fn every_sound_request_is_served(messages in vec(message(), 1..6)) {
        let sound: Vec<_> = messages.iter().filter(|message| *message != BOTH && *message != LF).cloned().collect();
        let stream = sound.concat();
        let judged = judge([stream.as_bytes()]);
        prop_assert_eq!((judged.heads, judged.found), (u32::try_from(sound.len()).unwrap(), NONE));
        prop_assert_eq!(delivered(stream.as_bytes()), judged.heads);
    }
}
