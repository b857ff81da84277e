//! A worker that does what the payload says, a line after the other until one ends the job. Without such a line it
//! is done.
//!
//! | line | what |
//! | --- | --- |
//! | `ok` | done |
//! | `retry:MESSAGE`, `retry-after:MS`, `bury:MESSAGE` | fails so |
//! | `done-at:N` | done if this is attempt N or a later one, else retried |
//! | `trap`, `exit`, `loop`, `alloc` | the instance ends, or should be ended |
//! | `sleep:MS` | waits, then goes on |
//! | `print:TEXT` | a line on stdout, then goes on |
//! | `write:NAME` | appends `id attempt instance` to /out/NAME, then goes on |

use std::fs::OpenOptions;
use std::io::Write;
use std::time::Duration;
use std::{env, hint, process, thread};

use wasmhost_guest::job::{Failure, Job};

wasmhost_guest::job!(handle);

fn handle(job: Job) -> Result<(), Failure> {
    for line in job.text()?.lines() {
        let (verb, rest) = line.split_once(':').unwrap_or((line, ""));
        match verb {
            "ok" => return Ok(()),
            "retry" => return Err(Failure::retry(rest)),
            "retry-after" => {
                return Err(Failure::retry_after(Duration::from_millis(rest.parse()?), "asked to wait"));
            }
            "bury" => return Err(Failure::bury(rest)),
            "done-at" if job.attempt >= rest.parse()? => return Ok(()),
            "done-at" => return Err(Failure::retry(format!("not done before attempt {rest}"))),
            "trap" => panic!("asked to trap"),
            "exit" => process::exit(1),
            "loop" => endless(),
            "alloc" => allocate(),
            "sleep" => thread::sleep(Duration::from_millis(rest.parse()?)),
            "print" => println!("{rest}"),
            "write" => append(rest, &job)?,
            _ => return Err(Failure::bury(format!("`{line}` is nothing this worker does"))),
        }
    }
    Ok(())
}

fn append(name: &str, job: &Job) -> std::io::Result<()> {
    let instance = env::var("WASMHOST_INSTANCE").unwrap_or_default();
    let mut file = OpenOptions::new().create(true).append(true).open(format!("/out/{name}"))?;
    // One write, so that lines of several instances don't mix.
    file.write_all(format!("{} {} {instance}\n", job.id, job.attempt).as_bytes())
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
