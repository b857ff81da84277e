//! A web process that does whatever the path says, some of which no web process should.
//!
//! | path | answer |
//! | --- | --- |
//! | `/ok` | `ok` |
//! | `/version` | 32 bytes that are in the component: tests put others in their place |
//! | `/echo` | the request's body, streamed |
//! | `/instance` | a line each: type, instance, and how many calls of `/instance` this instance served, from 1 |
//! | `/headers` | a line each: method, target, authority, scheme, then `name: value` |
//! | `/env` | a line `NAME=value` for each variable |
//! | `/status?code=N` | that status |
//! | `/answer?status=N&header=NAME:VALUE&body=B` | just that; `stream=B` streams the body, and there may be several headers |
//! | `/big?bytes=N` | so many bytes, streamed |
//! | `/sleep?ms=N` | `slept`, after waiting |
//! | `/fill?mib=N` | `filled`, after filling so much memory with one instruction |
//! | `/spin?ms=N` | `spun`, after computing |
//! | `/log?lines=N` | `logged`, after so many lines each on stdout and stderr, and a last one of stdout without its end |
//! | `/read?path=P` | the file's contents |
//! | `/write?path=P` | `written`: the request's body is now the file's contents |
//! | `/fetch?url=U` | what a GET of the URL answers: its status on a line, then its body |
//! | `/send?url=U&method=M&body=B` | the same of another method, with a body if `body` is there |
//! | `/upload-and-trap?url=U` | none: it traps in the middle of a body that it sends there, once it has the answer |
//! | `/connect?addr=HOST:PORT` | `connected`, by TCP |
//! | `/enqueue?queue=Q` | 201 (200 for a duplicate) and the job's id; the body is the payload. Also `&key=` (with `&scope=waiting`, `running` or a number of milliseconds), `&type=` for its content type, `&delay_ms=`, `&priority=`, `&attempts=` |
//! | `/late?ms=N` | `sent`, complete, while the instance works on and writes a line each 10 ms |
//! | `/insist` | how long the body is; a trap if it breaks off |
//! | `/trap`, `/exit?code=N`, `/loop`, `/alloc` | none: the instance ends, or should be ended |
//! | `/trap-late` | a head and some of the body, then a trap |
//! | `/cut` | a head and some of the body, then an error |
//!
//! With the variable `ONCE` in its environment an instance traps on its second call, whatever that is, as components of
//! some languages do.
//!
//! A request that can't be done is answered by 500 (`/enqueue` also by 403, 503 and 400), with the reason.

mod network;

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, hint, process, thread};

use wasmhost_guest::http::{Request, Response, form_pairs};
use wasmhost_guest::queue::{self, NewJob, Scope};
use wasmhost_guest::wasi::clocks::monotonic_clock;

wasmhost_guest::http!(handle);

/// A test finds it in the component, and puts another one in its place.
static VERSION: [u8; 32] = *b"the version of this component: 0";

fn handle(request: Request) -> Response {
    static CALLED: AtomicBool = AtomicBool::new(false);
    if CALLED.swap(true, Ordering::Relaxed) && env::var_os("ONCE").is_some() {
        panic!("called twice");
    }
    let answer = match request.path() {
        "/ok" => Ok(Response::text("ok\n")),
        "/version" => Ok(Response::text(hint::black_box(&VERSION).to_vec())),
        "/echo" => Ok(echo(request)),
        "/instance" => Ok(instance()),
        "/headers" => Ok(headers(&request)),
        "/env" => Ok(environment()),
        "/status" => Ok(Response::new(number(&request, "code") as u16)),
        "/answer" => Ok(just(&request)),
        "/big" => Ok(big(number(&request, "bytes"))),
        "/sleep" => Ok(sleep(number(&request, "ms"))),
        "/fill" => Ok(fill(number(&request, "mib"), number(&request, "ms"))),
        "/spin" => Ok(spin(number(&request, "ms"))),
        "/log" => log(number(&request, "lines")),
        "/read" => fs::read(text(&request, "path")).map(Response::text).map_err(|error| error.to_string()),
        "/write" => write(request),
        "/insist" => {
            Ok(Response::text(format!("{}\n", request.into_body().read_all(1 << 20).unwrap().len())))
        }
        "/fetch" => network::send("GET", &text(&request, "url"), None),
        "/send" => {
            let body = request.query_value("body");
            network::send(&text(&request, "method"), &text(&request, "url"), body)
        }
        "/upload-and-trap" => network::upload_and_trap(&text(&request, "url")),
        "/connect" => network::connect(&text(&request, "addr")),
        "/enqueue" => enqueue(request),
        "/late" => Ok(late(number(&request, "ms"))),
        "/trap" => panic!("asked to trap"),
        "/exit" => process::exit(number(&request, "code") as i32),
        "/loop" => endless(),
        "/alloc" => allocate(),
        "/trap-late" => Ok(Response::stream(|out| {
            out.write_all(b"some")?;
            out.flush()?;
            panic!("asked to trap after the head")
        })),
        "/cut" => Ok(Response::stream(|out| {
            out.write_all(b"some")?;
            out.flush()?;
            Err(io::Error::other("asked to cut the body off"))
        })),
        _ => Ok(Response::text("no such path\n").status(404)),
    };
    answer.unwrap_or_else(|error| Response::text(format!("{error}\n")).status(500))
}

fn text(request: &Request, name: &str) -> String {
    request.query_value(name).unwrap_or_default()
}

fn number(request: &Request, name: &str) -> u64 {
    text(request, name).parse().unwrap_or(0)
}

fn just(request: &Request) -> Response {
    let mut response = Response::new(200);
    for (name, value) in form_pairs(request.query().unwrap_or_default()) {
        response = match name.as_str() {
            "stream" => Response::stream(move |out| out.write_all(value.as_bytes())),
            _ => response,
        };
    }
    for (name, value) in form_pairs(request.query().unwrap_or_default()) {
        response = match (name.as_str(), value.split_once(':')) {
            ("status", _) => response.status(value.parse().unwrap_or(500)),
            ("header", Some((name, value))) => response.header(name, value),
            ("body", _) => response.body(value),
            _ => response,
        };
    }
    response
}

fn echo(request: Request) -> Response {
    let mut body = request.into_body();
    Response::stream(move |out| {
        while let Some(chunk) = body.chunk()? {
            out.write_all(&chunk)?;
        }
        Ok(())
    })
}

fn instance() -> Response {
    // Each instance has its own memory, so each counts for itself.
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
    let variable = |name| env::var(name).unwrap_or_default();
    Response::text(format!("{}\n{}\n{calls}\n", variable("WASMHOST_TYPE"), variable("WASMHOST_INSTANCE")))
}

fn headers(request: &Request) -> Response {
    let mut lines = format!(
        "{}\n{}\n{}\n{}\n",
        request.method(),
        request.target(),
        request.authority().unwrap_or_default(),
        request.scheme().unwrap_or_default(),
    );
    for (name, value) in request.headers() {
        lines += &format!("{name}: {}\n", String::from_utf8_lossy(&value));
    }
    Response::text(lines)
}

fn environment() -> Response {
    Response::text(env::vars().map(|(name, value)| format!("{name}={value}\n")).collect::<String>())
}

/// More than the host takes at once.
static PIECE: [u8; 256 << 10] = [b'x'; 256 << 10];

fn big(bytes: u64) -> Response {
    Response::stream(move |out| {
        let mut left = bytes;
        while left > 0 {
            let piece = &PIECE[..PIECE.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
            out.write_all(piece)?;
            left -= piece.len() as u64;
        }
        Ok(())
    })
}

/// Holds the memory for so long.
fn fill(mib: u64, ms: u64) -> Response {
    let mut bytes = Vec::<u8>::with_capacity((mib as usize) << 20);
    // Something else than zero, which the allocator would leave to the system.
    bytes.resize(bytes.capacity(), hint::black_box(7));
    hint::black_box(&bytes);
    if ms > 0 {
        monotonic_clock::subscribe_duration(ms * 1_000_000).block();
    }
    Response::text("filled\n")
}

fn sleep(ms: u64) -> Response {
    monotonic_clock::subscribe_duration(ms * 1_000_000).block();
    Response::text("slept\n")
}

fn spin(ms: u64) -> Response {
    let until = Instant::now() + Duration::from_millis(ms);
    while Instant::now() < until {
        // Asking for the time is a call of the host: compute some in between.
        for step in 0..100_000_u64 {
            hint::black_box(step);
        }
    }
    Response::text("spun\n")
}

fn log(lines: u64) -> Result<Response, String> {
    let mut stdout = io::stdout();
    for line in 1..=lines {
        println!("stdout {line}");
        eprintln!("stderr {line}");
    }
    print!("without its end");
    stdout.flush().map_err(|error| error.to_string())?;
    Ok(Response::text("logged\n"))
}

fn write(request: Request) -> Result<Response, String> {
    let path = text(&request, "path");
    let body = request.into_body().read_all(1 << 20).map_err(|error| error.to_string())?;
    fs::write(path, body).map_err(|error| error.to_string())?;
    Ok(Response::text("written\n"))
}

fn enqueue(request: Request) -> Result<Response, String> {
    let value = |name| request.query_value(name);
    let (queue, key, delay) = (text(&request, "queue"), value("key"), value("delay_ms"));
    let (scope, content_type) = (value("scope"), value("type"));
    let (priority, attempts) = (value("priority"), value("attempts"));
    // More than a queue takes, so that its own limit can be tested.
    let payload = request.into_body().read_all(4 << 20).map_err(|error| error.to_string())?;

    let mut job = NewJob::new(payload);
    if let Some(key) = key {
        job = match scope.as_deref() {
            None | Some("running") => job.unique_key(key),
            Some("waiting") => job.unique(key, Scope::Waiting),
            Some(ms) => {
                let ms = ms.parse().map_err(|_| format!("`{ms}` is no scope"))?;
                job.unique(key, Scope::Lasting(Duration::from_millis(ms)))
            }
        };
    }
    if let Some(content_type) = content_type {
        job = job.content_type(content_type);
    }
    if let Some(ms) = delay.and_then(|ms| ms.parse().ok()) {
        job = job.delay(Duration::from_millis(ms));
    }
    if let Some(priority) = priority.and_then(|priority| priority.parse().ok()) {
        job = job.priority(priority);
    }
    if let Some(attempts) = attempts.and_then(|attempts| attempts.parse().ok()) {
        job = job.attempts(attempts);
    }
    Ok(match queue::enqueue(&queue, job) {
        Ok(receipt) => {
            Response::text(format!("{}\n", receipt.id)).status(if receipt.created { 201 } else { 200 })
        }
        Err(error) => {
            let status = match error {
                queue::Error::Denied(_) => 403,
                queue::Error::Full(_) => 503,
                queue::Error::Invalid(_) => 400,
                queue::Error::Unavailable(_) => 500,
            };
            Response::text(format!("{error}\n")).status(status)
        }
    })
}

fn late(ms: u64) -> Response {
    Response::stream(move |out| {
        out.write_all(b"sent\n")?;
        out.finish()?;
        for step in 1..=ms / 10 {
            thread::sleep(Duration::from_millis(10));
            println!("late {step}");
        }
        println!("late end");
        Ok(())
    })
}

fn endless() -> ! {
    loop {
        hint::black_box(());
    }
}

/// Ends by the allocator's own abort, once the host grants no more.
fn allocate() -> ! {
    let mut all: Vec<Vec<u8>> = Vec::new();
    loop {
        all.push(hint::black_box(vec![1; 1 << 20]));
    }
}
