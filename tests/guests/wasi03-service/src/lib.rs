//! An http component in WASI 0.3's own words, with the paths of `wasi02-service` that its clients need: see there. Others:
//!
//! | path | answer |
//! | --- | --- |
//! | `/full` | `full`, after which the instance takes no more calls, ever |
//! | `/full-for?ms=N` | `full for a while`, after which the instance takes no more calls for so long |
//! | `/full-and-late?ms=N` | the instance takes no more calls at once, and answers `full` after so long |
//! | `/forward?URL` | the answer of that server, as it comes |
//! | `/cut-and-trap` | some of a body, without its end, then a trap |
//! | `/said?bytes=N` | `some`, with that `Content-Length` |
//! | `/pair` | `met`, when a second call has come to this path |

use std::cell::Cell;

use wasip3::clocks::monotonic_clock;
use wasip3::http::types::{ErrorCode, Fields, Method, Request, Response, Scheme, Trailers};
use wasip3::wit_bindgen::rt::async_support::{
    StreamReader, StreamResult, backpressure_dec, backpressure_inc,
};
use wasip3::{spawn_local, wit_future, wit_stream};

wasip3::http::service::export!(Service);

struct Service;

impl wasip3::exports::http::handler::Guest for Service {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = request.get_path_with_query().unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default();
        Ok(match path {
            "/hello" => answer(200, b"hello\n".to_vec()),
            "/method" => answer(200, method(&request).into_bytes()),
            "/echo" => echo(request, false),
            "/trailers" => echo(request, true),
            "/headers" => {
                let mut text = Vec::new();
                for (name, value) in request.get_headers().copy_all() {
                    text.extend([name.as_bytes(), b": ", &value, b"\n"].concat());
                }
                answer(200, text)
            }
            "/late" => {
                monotonic_clock::wait_for(10_000_000_000).await;
                answer(200, b"late".to_vec())
            }
            "/most" => answer(200, MOST.get().to_string().into_bytes()),
            "/trap" => std::process::abort(),
            "/error" => return Err(ErrorCode::InternalError(Some("asked to fail\nso".into()))),
            "/full" => {
                backpressure_inc();
                answer(200, b"full\n".to_vec())
            }
            "/full-for" => {
                backpressure_inc();
                let ms: u64 = number(&target, "ms");
                spawn_local(async move {
                    monotonic_clock::wait_for(ms * 1_000_000).await;
                    backpressure_dec();
                });
                answer(200, b"full for a while\n".to_vec())
            }
            "/full-and-late" => {
                backpressure_inc();
                monotonic_clock::wait_for(number(&target, "ms") * 1_000_000).await;
                answer(200, b"full\n".to_vec())
            }
            "/finish-and-trap" => finish_and_trap(),
            "/cut-and-trap" => cut_and_trap(),
            "/forward" => return forward(target.split_once('?').map_or("", |(_, url)| url)).await,
            "/forget" => forget(),
            "/pair" => {
                let call = CAME.get() + 1;
                CAME.set(call);
                while CAME.get() < call + call % 2 {
                    monotonic_clock::wait_for(1_000_000).await;
                }
                answer(200, b"met\n".to_vec())
            }
            "/said" => said(number(&target, "bytes")),
            "/events" => events(number(&target, "count"), number(&target, "ms")),
            "/loop" => loop {
                std::hint::spin_loop();
            },
            "/big" => {
                let bytes = target.split_once("bytes=").and_then(|(_, bytes)| bytes.parse().ok());
                big(bytes.unwrap_or_default())
            }
            "/after" => {
                spawn_local(async {
                    monotonic_clock::wait_for(50_000_000).await;
                    println!("after the answer");
                });
                answer(200, b"before\n".to_vec())
            }
            _ if path.starts_with("/meet/") => {
                let calls = path.trim_start_matches("/meet/").parse().unwrap_or(1);
                meet(calls).await;
                answer(200, b"met\n".to_vec())
            }
            _ if path.starts_with("/seen") => {
                let (method, scheme) = (request.get_method(), request.get_scheme());
                let authority = request.get_authority().unwrap_or_default();
                answer(200, format!("{method:?} {:?} {authority} {target}", scheme.unwrap()).into_bytes())
            }
            _ => match path.strip_prefix("/status/").and_then(|code| code.parse().ok()) {
                Some(status) => answer(status, vec![]),
                None => answer(404, b"nothing here\n".to_vec()),
            },
        })
    }
}

thread_local! {
    /// Calls that have come to meet, those that are there now, and the most there were at once.
    static CAME: Cell<u32> = const { Cell::new(0) };
    static HERE: Cell<u32> = const { Cell::new(0) };
    static MOST: Cell<u32> = const { Cell::new(0) };
}

/// Waits until so many calls have come to this instance.
async fn meet(calls: u32) {
    CAME.set(CAME.get() + 1);
    HERE.set(HERE.get() + 1);
    MOST.set(MOST.get().max(HERE.get()));
    while CAME.get() < calls {
        monotonic_clock::wait_for(1_000_000).await;
    }
    HERE.set(HERE.get() - 1);
}

fn number(target: &str, name: &str) -> u64 {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// Another server's answer, as it comes.
async fn forward(url: &str) -> Result<Response, ErrorCode> {
    let (authority, path) = url.trim_start_matches("http://").split_once('/').unwrap_or((url, ""));
    let (_none, trailers) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(Fields::new(), None, trailers, None);
    request.set_scheme(Some(&Scheme::Http)).unwrap();
    request.set_authority(Some(authority)).unwrap();
    request.set_path_with_query(Some(&format!("/{path}"))).unwrap();
    wasip3::http::client::send(request).await
}

/// A whole answer, then a trap.
fn finish_and_trap() -> Response {
    let (mut writer, reader) = wit_stream::new();
    let (end, trailers) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(Fields::new(), Some(reader), trailers);
    spawn_local(async move {
        drop(writer.write_all(b"all of it\n".to_vec()).await);
        drop(writer);
        drop(end.write(Ok(None)).await);
        std::process::abort();
    });
    response
}

/// Some of an answer, then a trap.
fn cut_and_trap() -> Response {
    let (mut writer, reader) = wit_stream::new();
    let (_end, trailers) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(Fields::new(), Some(reader), trailers);
    spawn_local(async move {
        drop(writer.write_all(b"some".to_vec()).await);
        std::process::abort();
    });
    response
}

/// An answer whose writer is never dropped.
fn forget() -> Response {
    let (mut writer, reader) = wit_stream::new();
    let (end, trailers) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(Fields::new(), Some(reader), trailers);
    spawn_local(async move {
        drop(writer.write_all(b"forgotten\n".to_vec()).await);
        std::mem::forget((writer, end));
    });
    response
}

/// An answer that says so many bytes, and has four.
fn said(bytes: u64) -> Response {
    let (mut writer, reader) = wit_stream::new();
    let (_none, trailers) = wit_future::new(|| Ok(None));
    let length = [("content-length".to_owned(), bytes.to_string().into_bytes())];
    let (response, _sent) = Response::new(Fields::from_list(&length).unwrap(), Some(reader), trailers);
    spawn_local(async move { drop(writer.write_all(b"some".to_vec()).await) });
    response
}

/// So many lines, one each so many milliseconds.
fn events(count: u64, ms: u64) -> Response {
    let (mut writer, reader) = wit_stream::new();
    let (_none, trailers) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(Fields::new(), Some(reader), trailers);
    spawn_local(async move {
        for number in 0..count {
            if !writer.write_all(format!("{number}\n").into_bytes()).await.is_empty() {
                break;
            }
            monotonic_clock::wait_for(ms * 1_000_000).await;
        }
    });
    response
}

fn method(request: &Request) -> String {
    match request.get_method() {
        Method::Other(name) => name,
        known => format!("{known:?}").trim_start_matches("Method::").to_uppercase(),
    }
}

fn answer(status: u16, text: Vec<u8>) -> Response {
    let headers = [
        ("content-type".to_owned(), b"text/plain".to_vec()),
        ("x-twice".to_owned(), b"1".to_vec()),
        ("x-twice".to_owned(), b"2".to_vec()),
    ];
    let (mut writer, reader) = wit_stream::new();
    let (_none, trailers) = wit_future::new(|| Ok(None));
    let body: Option<StreamReader<u8>> = (!text.is_empty()).then_some(reader);
    let (response, _sent) = Response::new(Fields::from_list(&headers).unwrap(), body, trailers);
    response.set_status_code(status).unwrap();
    if !text.is_empty() {
        spawn_local(async move { drop(writer.write_all(text).await) });
    }
    response
}

/// So many bytes, without saying how many, in pieces of more than the host takes at once.
fn big(bytes: usize) -> Response {
    let (mut writer, reader) = wit_stream::new();
    let (_none, trailers) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(Fields::new(), Some(reader), trailers);
    spawn_local(async move {
        let mut left = bytes;
        while left > 0 {
            let piece = vec![b'x'; left.min(256 << 10)];
            left -= piece.len();
            if !writer.write_all(piece).await.is_empty() {
                break;
            }
        }
    });
    response
}

/// The body goes back as it comes, piece by piece.
fn echo(request: Request, with_trailers: bool) -> Response {
    let (_done, done) = wit_future::new(|| Ok(()));
    let (mut body, received) = Request::consume_body(request, done);
    let (mut pieces, echoed) = wit_stream::new();
    let (writer, trailers) = wit_future::new(|| Ok(None));
    let announced = [("trailer".to_owned(), b"x-sum, x-of-service".to_vec())];
    let (response, _sent) = Response::new(Fields::from_list(&announced).unwrap(), Some(echoed), trailers);
    spawn_local(async move {
        loop {
            let (read, piece) = body.read(Vec::with_capacity(4096)).await;
            let is_over = !matches!(read, StreamResult::Complete(_));
            // Nobody waits any more for bytes that can't be written.
            if !pieces.write_all(piece).await.is_empty() || is_over {
                break;
            }
        }
        drop((pieces, body));
        let received: Result<Option<Trailers>, ErrorCode> = received.await;
        let sent = received.map(|received| {
            with_trailers.then(|| {
                let sent = received.map(|received| received.clone()).unwrap_or_else(Fields::new);
                sent.append("x-of-service", b"yes").unwrap();
                sent
            })
        });
        drop(writer.write(sent).await);
    });
    response
}
