//! `wasmhost enqueue`

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use indicatif::{ProgressBar, ProgressStyle};
use wasmhost_host::admin::api::{EnqueueRequest, EnqueueResponse, UniqueScope};

use crate::args::jobs::Enqueue;
use crate::client::Client;
use crate::exit::{Exit, Failed, Outcome};
use crate::print;
use crate::work::valid;

/// Lines that are enqueued together, and how much of them at most, in bytes.
const BATCH_JOBS_MAX: usize = 1_000;
const BATCH_BYTES_MAX: usize = 4 << 20;

/// A job's payload is at most 1 MiB; what is longer is read no further.
const LINE_BYTES_MAX: u64 = (1 << 20) + 1;

pub(crate) async fn enqueue(client: &Client, enqueue: Enqueue) -> Outcome {
    let path = format!("/v1/queues/{}/jobs", valid("queue", &enqueue.queue)?);
    if enqueue.lines {
        return lines(client, &path, &enqueue).await;
    }
    let payload = match &enqueue.payload {
        Some(payload) => payload.clone().into_bytes(),
        None => {
            let mut payload = Vec::new();
            open(enqueue.input.as_deref())?.0.take(LINE_BYTES_MAX).read_to_end(&mut payload)?;
            payload
        }
    };
    let response: EnqueueResponse = client.post(&path, &request(&enqueue, payload)).await?;
    match enqueue.json {
        true => print::json(&response)?,
        false => print::line(&response.id),
    }
    warn(response.warning.as_deref());
    Ok(Exit::Done)
}

/// A job for each line that isn't empty.
async fn lines(client: &Client, path: &str, enqueue: &Enqueue) -> Outcome {
    let (mut input, bytes) = open(enqueue.input.as_deref())?;
    let progress = progress(bytes);
    let (mut line, mut enqueued, mut there_already) = (0_u64, 0_u64, 0_u64);
    loop {
        let first = line + 1;
        let (batch, read) = next_batch(&mut input, &mut line, enqueue)?;
        if batch.is_empty() {
            break;
        }
        let sent: Result<Vec<EnqueueResponse>, Failed> = client.post(path, &batch).await;
        let receipts = sent.map_err(|failed| {
            progress.abandon();
            let message = format!(
                "lines {first} to {line}: {}; {enqueued} jobs were enqueued before them, and none of them was",
                failed.message
            );
            Failed { message, ..failed }
        })?;
        if first == 1 {
            warn(receipts.first().and_then(|receipt| receipt.warning.as_deref()));
        }
        for receipt in &receipts {
            if enqueue.json {
                print::json(receipt)?;
            }
            match receipt.created {
                true => enqueued += 1,
                false => there_already += 1,
            }
        }
        progress.inc(read);
        progress.set_message(format!("{enqueued} jobs"));
    }
    progress.finish_and_clear();
    if !enqueue.json {
        let jobs = if enqueued == 1 { "job" } else { "jobs" };
        print::line(format!("enqueued {enqueued} {jobs}"));
        if there_already > 0 {
            print::line(format!("{there_already} were there already"));
        }
    }
    Ok(Exit::Done)
}

/// The next jobs, and how many bytes they were.
fn next_batch(
    input: &mut dyn BufRead,
    line: &mut u64,
    enqueue: &Enqueue,
) -> Result<(Vec<EnqueueRequest>, u64), Failed> {
    let (mut batch, mut read) = (Vec::new(), 0);
    while batch.len() < BATCH_JOBS_MAX && read < BATCH_BYTES_MAX {
        let mut payload = Vec::new();
        let count = input.take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut payload)?;
        if count == 0 {
            break;
        }
        read += count;
        *line += 1;
        if payload.last() == Some(&b'\n') {
            payload.pop();
            if payload.last() == Some(&b'\r') {
                payload.pop();
            }
        } else if count as u64 > LINE_BYTES_MAX {
            let message = format!("line {line} has more than 1 MiB, which is what a job may have");
            return Err(Failed::new(Exit::Usage, message));
        }
        if !payload.is_empty() {
            batch.push(request(enqueue, payload));
        }
    }
    Ok((batch, read as u64))
}

fn request(enqueue: &Enqueue, payload: Vec<u8>) -> EnqueueRequest {
    let (payload, payload_base64) = match String::from_utf8(payload) {
        Ok(text) => (Some(text), None),
        Err(err) => (None, Some(BASE64_STANDARD.encode(err.as_bytes()))),
    };
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let unique_scope = match (&enqueue.unique, enqueue.unique_for) {
        (Some(_), Some(time)) => Some(UniqueScope::ForMs(milliseconds(time))),
        (Some(_), None) if enqueue.unique_waiting => Some(UniqueScope::Waiting),
        _ => None,
    };
    EnqueueRequest {
        payload,
        payload_base64,
        delay_ms: enqueue.delay.map(milliseconds),
        run_at: enqueue.run_at.clone(),
        priority: enqueue.priority,
        unique_key: enqueue.unique.clone(),
        unique_scope,
        attempts: enqueue.attempts,
        content_type: enqueue.content_type.clone(),
        metadata: enqueue.meta.clone(),
    }
}

/// The input, and its length where that is known.
fn open(file: Option<&Path>) -> Result<(Box<dyn BufRead>, Option<u64>), Failed> {
    let Some(path) = file.filter(|path| path.as_os_str() != "-") else {
        return Ok((Box::new(BufReader::new(std::io::stdin())), None));
    };
    let cannot = |err| Failed::new(Exit::Usage, format!("can't read {}: {err}", path.display()));
    let file = File::open(path).map_err(cannot)?;
    let bytes = file.metadata().ok().filter(|file| file.is_file()).map(|file| file.len());
    Ok((Box::new(BufReader::with_capacity(1 << 20, file)), bytes))
}

/// Shown where standard error is a terminal.
fn progress(bytes: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match bytes {
        Some(bytes) => (ProgressBar::new(bytes), "{wide_bar} {bytes}/{total_bytes} {msg} {eta}"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {msg} {elapsed}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn warn(warning: Option<&str>) {
    if let Some(warning) = warning {
        print::note(format_args!("warning: {warning}"));
    }
}
