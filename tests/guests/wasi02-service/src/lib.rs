//! An http component in WASI 0.2's own words.
//!
//! | path | answer |
//! | --- | --- |
//! | `/hello` | `hello` |
//! | `/method` | the method |
//! | `/echo` | the request's body, piece by piece as it comes |
//! | `/headers` | the request's headers, one a line, and `x-twice` twice |
//! | `/trailers` | the request's body, and its trailers, with one more |
//! | `/status/CODE` | that status |
//! | `/seen...` | method, scheme, authority and target, as the request says them |
//! | `/late` | 200, after 10 s |
//! | `/cut` | a body that ends too early |
//! | `/env` | the environment and the arguments |
//! | `/print` | prints two lines on stdout and one on stderr |
//! | `/fetch?URL` | what is there, or the error |
//! | `/trap` | traps |
//! | `/error` | an error code |
//! | `/forget`, `/forget-stream` | `forgotten`, in a body that is never finished, nor is its handle dropped; `-stream` keeps the stream's too |
//! | `/forget-short` | the same, with a length that it doesn't come to |
//! | `/finish-and-trap`, `/finish-and-exit`, `/finish-and-return-late` | a whole answer, then a trap, exit code 1, or a wait of 3 s |
//! | `/finish-big-and-trap` | 100,000 bytes, then a trap |
//! | `/cut-and-trap` | some of a body, without its end, then a trap |
//! | `/length` | a length of 6 and no body |
//! | `/events?count=N&ms=N` | so many lines, one each so many milliseconds |
//!
//! With the variable `ONCE` in its environment an instance returns from its second call, and from later ones, without
//! an answer, as a component does that a JavaScript engine made of a `fetch` event.

use std::sync::atomic::{AtomicBool, Ordering};

use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingRequest,
    OutgoingResponse, ResponseOutparam, Scheme,
};
use wasip2::io::streams::StreamError;

wasip2::http::proxy::export!(Service);

static CALLED: AtomicBool = AtomicBool::new(false);

struct Service;

impl wasip2::exports::http::incoming_handler::Guest for Service {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        if CALLED.swap(true, Ordering::Relaxed) && std::env::var_os("ONCE").is_some() {
            return;
        }
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        match path {
            "/hello" => answer(out, 200, b"hello\n"),
            "/method" => answer(out, 200, method(&request).as_bytes()),
            "/echo" => echo(request, out, false),
            "/trailers" => echo(request, out, true),
            "/headers" => headers(&request, out),
            "/late" => {
                subscribe_duration(10_000_000_000).block();
                answer(out, 200, b"late");
            }
            "/cut" => cut(out),
            "/env" => {
                let mut text = String::new();
                for (name, value) in wasip2::cli::environment::get_environment() {
                    text += &format!("{name}={value}\n");
                }
                for argument in wasip2::cli::environment::get_arguments() {
                    text += &format!("{argument}\n");
                }
                answer(out, 200, text.as_bytes());
            }
            "/print" => {
                println!("one\ntwo");
                eprintln!("three");
                answer(out, 200, b"printed\n");
            }
            "/fetch" => match fetch(query) {
                Ok(status) => answer(out, 200, format!("{status}\n").as_bytes()),
                Err(err) => answer(out, 502, format!("{err:?}\n").as_bytes()),
            },
            "/trap" => panic!("asked to trap"),
            "/error" => {
                let code = ErrorCode::InternalError(Some("asked to fail\nso".into()));
                ResponseOutparam::set(out, Err(code));
            }
            "/forget" | "/forget-stream" | "/forget-short" => forget(out, path),
            "/finish-and-trap" => {
                answer(out, 200, b"all of it\n");
                panic!("asked to trap after the answer");
            }
            "/finish-and-exit" => {
                answer(out, 200, b"all of it\n");
                std::process::exit(1);
            }
            "/finish-and-return-late" => {
                answer(out, 200, b"all of it\n");
                subscribe_duration(3_000_000_000).block();
            }
            "/finish-big-and-trap" => {
                answer(out, 200, &[b'x'; 100_000]);
                panic!("asked to trap after the answer");
            }
            "/cut-and-trap" => {
                let body = respond(out, 200, Fields::new());
                body.write().unwrap().blocking_write_and_flush(b"some").unwrap();
                panic!("asked to trap before the answer's end");
            }
            "/length" => {
                let length = [("content-length".to_owned(), b"6".to_vec())];
                drop(OutgoingBody::finish(respond(out, 200, Fields::from_list(&length).unwrap()), None));
            }
            "/events" => events(out, query),
            _ if path.starts_with("/seen") => {
                let seen = format!(
                    "{:?} {:?} {} {target}",
                    request.method(),
                    request.scheme().unwrap(),
                    request.authority().unwrap()
                );
                answer(out, 200, seen.as_bytes());
            }
            _ => match path.strip_prefix("/status/").and_then(|code| code.parse().ok()) {
                Some(status) => answer(out, status, b""),
                None => answer(out, 404, b"nothing here\n"),
            },
        }
    }
}

fn method(request: &IncomingRequest) -> String {
    match request.method() {
        Method::Other(name) => name,
        known => format!("{known:?}").trim_start_matches("Method::").to_uppercase(),
    }
}

fn respond(out: ResponseOutparam, status: u16, headers: Fields) -> OutgoingBody {
    let response = OutgoingResponse::new(headers);
    response.set_status_code(status).unwrap();
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    body
}

fn answer(out: ResponseOutparam, status: u16, text: &[u8]) {
    let headers = Fields::from_list(&[("content-type".to_owned(), b"text/plain".to_vec())]).unwrap();
    let body = respond(out, status, headers);
    let stream = body.write().unwrap();
    for piece in text.chunks(4096) {
        stream.blocking_write_and_flush(piece).unwrap();
    }
    drop(stream);
    OutgoingBody::finish(body, None).unwrap();
}

fn echo(request: IncomingRequest, out: ResponseOutparam, with_trailers: bool) {
    let received = request.consume().unwrap();
    let input = received.stream().unwrap();
    let announced = [("trailer".to_owned(), b"x-sum, x-of-service".to_vec())];
    let body = respond(out, 200, Fields::from_list(&announced).unwrap());
    let output = body.write().unwrap();
    loop {
        match input.blocking_read(4096) {
            Ok(bytes) => output.blocking_write_and_flush(&bytes).unwrap(),
            Err(StreamError::Closed) => break,
            // Not to be finished: the client must not take it for the whole.
            Err(StreamError::LastOperationFailed(_)) => return,
        }
    }
    drop((input, output));
    let trailers = IncomingBody::finish(received);
    trailers.subscribe().block();
    let trailers = trailers.get().unwrap().unwrap().unwrap();
    let sent = with_trailers.then(|| {
        let sent = trailers.map(|trailers| trailers.clone()).unwrap_or_else(Fields::new);
        sent.append("x-of-service", b"yes").unwrap();
        sent
    });
    OutgoingBody::finish(body, sent).unwrap();
}

fn forget(out: ResponseOutparam, how: &str) {
    let length = [("content-length".to_owned(), b"100".to_vec())];
    let headers = if how == "/forget-short" { Fields::from_list(&length).unwrap() } else { Fields::new() };
    let body = respond(out, 200, headers);
    let stream = body.write().unwrap();
    stream.blocking_write_and_flush(b"forgotten\n").unwrap();
    if how == "/forget-stream" {
        std::mem::forget(stream);
    }
    std::mem::forget(body);
}

fn events(out: ResponseOutparam, query: &str) {
    let number = |name: &str| {
        let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        value.and_then(|value| value.parse::<u64>().ok()).unwrap_or(0)
    };
    let body = respond(out, 200, Fields::new());
    let stream = body.write().unwrap();
    for event in 0..number("count") {
        if stream.blocking_write_and_flush(format!("{event}\n").as_bytes()).is_err() {
            return;
        }
        subscribe_duration(number("ms") * 1_000_000).block();
    }
    drop(stream);
    OutgoingBody::finish(body, None).unwrap();
}

fn headers(request: &IncomingRequest, out: ResponseOutparam) {
    let mut text = Vec::new();
    for (name, value) in request.headers().entries() {
        text.extend(name.as_bytes());
        text.extend(b": ");
        text.extend(value);
        text.push(b'\n');
    }
    let twice = [("x-twice".to_owned(), b"1".to_vec()), ("x-twice".to_owned(), b"2".to_vec())];
    let body = respond(out, 200, Fields::from_list(&twice).unwrap());
    let stream = body.write().unwrap();
    stream.blocking_write_and_flush(&text).unwrap();
    drop(stream);
    OutgoingBody::finish(body, None).unwrap();
}

fn cut(out: ResponseOutparam) {
    let body = respond(out, 200, Fields::new());
    body.write().unwrap().blocking_write_and_flush(b"not all").unwrap();
    // The head goes out while this waits.
    subscribe_duration(20_000_000).block();
    // Dropped, and not finished.
    drop(body);
}

fn fetch(url: &str) -> Result<u16, ErrorCode> {
    let (authority, path) = url.trim_start_matches("http://").split_once('/').unwrap_or((url, ""));
    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&Scheme::Http)).unwrap();
    request.set_authority(Some(authority)).unwrap();
    request.set_path_with_query(Some(&format!("/{path}"))).unwrap();
    let future = wasip2::http::outgoing_handler::handle(request, None)?;
    future.subscribe().block();
    future.get().unwrap().unwrap().map(|response| response.status())
}
