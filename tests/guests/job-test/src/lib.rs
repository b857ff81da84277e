//! A worker that does what the payload says, a line after the other until one ends the job. Without such a line it
//! is done.
//!
//! | line | what |
//! | --- | --- |
//! | `ok` | done |
//! | `retry:MESSAGE`, `retry-after:MS`, `bury:MESSAGE` | fails so |
//! | `retry-long:BYTES` | fails with a message of so many bytes |
//! | `done-at:N` | done if this is attempt N or a later one, else retried |
//! | `trap`, `exit`, `loop`, `alloc` | the instance ends, or should be ended |
//! | `sleep:MS` | waits, then goes on |
//! | `until:NAME` | waits until there is a file /out/NAME, then goes on |
//! | `spin:MS` | computes, then goes on |
//! | `print:TEXT` | a line on stdout, then goes on |
//! | `part:TEXT` | the same without the line's end |
//! | `flood:LINES` | so many lines of 1,000 bytes each on stdout, then goes on |
//! | `enqueue:PAYLOAD` | puts a job on its own queue, then goes on |
//! | `unique:SCOPE:KEY:PAYLOAD` | puts a job with that key on its own queue; prints `unique KEY ID new`, or `taken` for `new`, then goes on. SCOPE is `waiting`, `running` or `lasting=MS` |
//! | `json:LINE,LINE...` | puts a job on its own queue that is to do these lines, as JSON, then goes on |
//! | `fetch:URL` | asks for it, then goes on |
//! | `write:NAME` | appends `id attempt instance` to /out/NAME, then goes on |
//!
//! A job whose content type is `application/json` has its lines in `{"lines": [...]}`.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, hint, process, thread};

use serde::{Deserialize, Serialize};
use wasmhost_guest::job::{Failure, Job};
use wasmhost_guest::queue::{self, NewJob, Scope};
use wasmhost_guest::wasi::http::outgoing_handler;
use wasmhost_guest::wasi::http::types::{Fields, OutgoingRequest, Scheme};

wasmhost_guest::job!(handle);

/// A payload that is typed.
#[derive(Serialize, Deserialize)]
struct Script {
    lines: Vec<String>,
}

fn handle(job: Job) -> Result<(), Failure> {
    let lines = match job.content_type.as_str() {
        "application/json" => job.json::<Script>()?.lines,
        _ => job.text()?.lines().map(str::to_owned).collect(),
    };
    for line in &lines {
        let (verb, rest) = line.split_once(':').unwrap_or((line, ""));
        match verb {
            "ok" => return Ok(()),
            "retry" => return Err(Failure::retry(rest)),
            "retry-after" => {
                return Err(Failure::retry_after(Duration::from_millis(rest.parse()?), "asked to wait"));
            }
            "retry-long" => return Err(Failure::retry("x".repeat(rest.parse()?))),
            "bury" => return Err(Failure::bury(rest)),
            "done-at" if job.attempt >= rest.parse()? => return Ok(()),
            "done-at" => return Err(Failure::retry(format!("not done before attempt {rest}"))),
            "trap" => panic!("asked to trap"),
            "exit" => process::exit(1),
            "loop" => endless(),
            "alloc" => allocate(),
            "sleep" => thread::sleep(Duration::from_millis(rest.parse()?)),
            "until" => until(rest),
            "spin" => spin(Duration::from_millis(rest.parse()?)),
            "print" => println!("{rest}"),
            "part" => part(rest)?,
            "flood" => (0..rest.parse()?).for_each(|_: u64| println!("{}", "x".repeat(999))),
            "enqueue" => {
                queue::enqueue(&job.queue, rest)?;
            }
            "unique" => enqueue_unique(&job.queue, rest)?,
            "json" => {
                let lines = rest.split(',').map(str::to_owned).collect();
                queue::enqueue(&job.queue, NewJob::json(&Script { lines }))?;
            }
            "fetch" => fetch(rest)?,
            "write" => append(rest, &job)?,
            _ => return Err(Failure::bury(format!("`{line}` is nothing this worker does"))),
        }
    }
    Ok(())
}

/// The answer's status is all that is looked at.
fn fetch(url: &str) -> Result<(), Failure> {
    let (authority, path) = url.trim_start_matches("http://").split_once('/').unwrap_or((url, ""));
    let request = OutgoingRequest::new(Fields::new());
    request
        .set_scheme(Some(&Scheme::Http))
        .and_then(|()| request.set_authority(Some(authority)))
        .and_then(|()| request.set_path_with_query(Some(&format!("/{path}"))))
        .map_err(|()| Failure::bury("not a URL"))?;
    let future =
        outgoing_handler::handle(request, None).map_err(|error| Failure::retry(format!("{error:?}")))?;
    future.subscribe().block();
    match future.get() {
        Some(Ok(Ok(response))) if response.status() == 200 => Ok(()),
        other => Err(Failure::retry(format!("{other:?}"))),
    }
}

fn part(text: &str) -> std::io::Result<()> {
    print!("{text}");
    std::io::stdout().flush()
}

fn append(name: &str, job: &Job) -> std::io::Result<()> {
    let instance = env::var("WASMHOST_INSTANCE").unwrap_or_default();
    let mut file = OpenOptions::new().create(true).append(true).open(format!("/out/{name}"))?;
    // One write, so that lines of several instances don't mix.
    file.write_all(format!("{} {} {instance}\n", job.id, job.attempt).as_bytes())
}

/// `SCOPE:KEY:PAYLOAD`
fn enqueue_unique(queue: &str, what: &str) -> Result<(), Failure> {
    let mut parts = what.splitn(3, ':');
    let (Some(scope), Some(key), Some(payload)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(Failure::bury("expected unique:SCOPE:KEY:PAYLOAD"));
    };
    let scope = match scope.split_once('=').unwrap_or((scope, "")) {
        ("waiting", _) => Scope::Waiting,
        ("running", _) => Scope::Running,
        ("lasting", ms) => Scope::Lasting(Duration::from_millis(ms.parse()?)),
        _ => return Err(Failure::bury(format!("`{scope}` is no scope"))),
    };
    let receipt = queue::enqueue(queue, NewJob::new(payload).unique(key, scope))?;
    println!("unique {key} {} {}", receipt.id, if receipt.created { "new" } else { "taken" });
    Ok(())
}

fn until(name: &str) {
    while !Path::new("/out").join(name).exists() {
        thread::sleep(Duration::from_millis(10));
    }
}

fn spin(time: Duration) {
    let started = Instant::now();
    while started.elapsed() < time {
        hint::spin_loop();
    }
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
