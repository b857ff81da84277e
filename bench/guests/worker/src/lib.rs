//! A worker that has nothing to do. If the payload says when the job was sent, the worker notes when it came.

use std::cell::RefCell;
use std::env;
use std::fs::{File, OpenOptions};
use std::io::{Result, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use wasmhost_guest::job::{Failure, Job};

wasmhost_guest::job!(handle);

fn handle(job: Job) -> std::result::Result<(), Failure> {
    match job.text()? {
        "" => Ok(()),
        sent_us => Ok(note(sent_us)?),
    }
}

/// Adds a line to this instance's own file: when the job was sent, and when it came, in microseconds since 1970.
fn note(sent_us: &str) -> Result<()> {
    // First of all: what follows takes time.
    let came = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    thread_local! {
        static FILE: RefCell<Option<File>> = const { RefCell::new(None) };
    }
    FILE.with_borrow_mut(|file| {
        let file = match file {
            Some(file) => file,
            none => {
                let path = format!("/out/{}", env::var("WASMHOST_INSTANCE").unwrap_or_default());
                none.insert(OpenOptions::new().create(true).append(true).open(path)?)
            }
        };
        file.write_all(format!("{sent_us} {}\n", came.as_micros()).as_bytes())
    })
}
