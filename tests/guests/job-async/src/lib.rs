//! A worker of WASI 0.3 that does what the payload says, a line after the other until one ends the job. Without such a
//! line it is done.
//!
//! | line | what |
//! | --- | --- |
//! | `ok` | done |
//! | `retry:MESSAGE`, `retry-after:MS`, `bury:MESSAGE` | fails so |
//! | `done-at:N` | done if this is attempt N or a later one, else retried |
//! | `trap`, `exit`, `loop`, `alloc` | the instance ends, or should be ended |
//! | `spin:MS` | computes, without ever waiting, then goes on |
//! | `sleep:MS` | waits, while other jobs of the instance go on, then goes on |
//! | `never` | waits for what never comes |
//! | `together:N` | waits until N jobs have come to such a line in this instance, then goes on |
//! | `print:TEXT` | a line on stdout, then goes on |
//! | `part:TEXT` | the same without the line's end |
//! | `most` | prints `most N`: the most jobs that were in this instance at once, then goes on |
//! | `fetch:URL` | asks for it, then goes on |
//! | `write:NAME` | appends `id attempt instance` to /out/NAME, then goes on |
//! | `full` | the instance takes no more jobs, ever, then goes on |
//! | `enqueue:PAYLOAD` | puts a job on its own queue, then goes on |

use std::cell::Cell;
use std::fs::OpenOptions;
use std::io::Write;
use std::time::{Duration, Instant};
use std::{env, hint, process};

use wasmhost_guest::job::{Failure, Job};
use wasmhost_guest::queue;
use wasmhost_guest::wasip3::clocks::monotonic_clock;
use wasmhost_guest::wasip3::http::client;
use wasmhost_guest::wasip3::http::types::{Fields, Request, Scheme};
use wasmhost_guest::wasip3::wit_future;

wasmhost_guest::async_job!(handle);

thread_local! {
    /// Jobs that are in this instance now, the most there were at once, and those that have come to be together.
    static HERE: Cell<u32> = const { Cell::new(0) };
    static MOST: Cell<u32> = const { Cell::new(0) };
    static CAME: Cell<u32> = const { Cell::new(0) };
}

async fn handle(job: Job) -> Result<(), Failure> {
    let _here = Here::new();
    for line in job.text()?.lines() {
        let (verb, rest) = line.split_once(':').unwrap_or((line, ""));
        match verb {
            "ok" => return Ok(()),
            "retry" => return Err(Failure::retry(rest)),
            "retry-after" => return Err(Failure::retry_after(millis(rest)?, "asked to wait")),
            "bury" => return Err(Failure::bury(rest)),
            "done-at" if job.attempt >= rest.parse()? => return Ok(()),
            "done-at" => return Err(Failure::retry(format!("not done before attempt {rest}"))),
            "trap" => panic!("asked to trap"),
            "exit" => process::exit(1),
            "loop" => endless(),
            "alloc" => allocate(),
            "spin" => spin(millis(rest)?),
            "sleep" => sleep(millis(rest)?).await,
            "never" => monotonic_clock::wait_for(u64::MAX).await,
            "together" => together(rest.parse()?).await,
            "print" => println!("{rest}"),
            "part" => part(rest)?,
            "full" => wasmhost_guest::wasip3::wit_bindgen::rt::async_support::backpressure_inc(),
            "most" => println!("most {}", MOST.get()),
            "fetch" => fetch(rest).await?,
            "write" => append(rest, &job)?,
            "enqueue" => {
                queue::enqueue(&job.queue, rest)?;
            }
            _ => return Err(Failure::bury(format!("`{line}` is nothing this worker does"))),
        }
    }
    Ok(())
}

/// One job's being in this instance.
struct Here;

impl Here {
    fn new() -> Self {
        HERE.set(HERE.get() + 1);
        MOST.set(MOST.get().max(HERE.get()));
        Self
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        HERE.set(HERE.get() - 1);
    }
}

fn millis(text: &str) -> Result<Duration, Failure> {
    Ok(Duration::from_millis(text.parse()?))
}

async fn sleep(time: Duration) {
    monotonic_clock::wait_for(time.as_nanos() as u64).await;
}

async fn together(jobs: u32) {
    CAME.set(CAME.get() + 1);
    while CAME.get() < jobs {
        sleep(Duration::from_millis(1)).await;
    }
}

/// The answer's status is all that is looked at.
async fn fetch(url: &str) -> Result<(), Failure> {
    let (authority, path) = url.trim_start_matches("http://").split_once('/').unwrap_or((url, ""));
    let (_none, trailers) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(Fields::new(), None, trailers, None);
    request
        .set_scheme(Some(&Scheme::Http))
        .and_then(|()| request.set_authority(Some(authority)))
        .and_then(|()| request.set_path_with_query(Some(&format!("/{path}"))))
        .map_err(|()| Failure::bury("not a URL"))?;
    match client::send(request).await {
        Ok(response) if response.get_status_code() == 200 => Ok(()),
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
