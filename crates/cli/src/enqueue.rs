//! `wasmhost enqueue`

mod lines;

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use wasmhost_host::admin::api::{EnqueueRequest, EnqueueResponse, UniqueScope};

use crate::args::jobs::Enqueue;
use crate::client::Client;
use crate::exit::{Exit, Failed, Outcome};
use crate::print;
use crate::work::valid;

/// A job's payload is at most 1 MiB; what is longer is read no further.
const LINE_BYTES_MAX: u64 = (1 << 20) + 1;

pub(crate) async fn enqueue(client: &Client, enqueue: Enqueue) -> Outcome {
    let path = format!("/v1/queues/{}/jobs", valid("queue", &enqueue.queue)?);
    if enqueue.lines {
        return lines::lines(client, &path, &enqueue).await;
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
fn open(file: Option<&Path>) -> Result<(Box<dyn BufRead + Send>, Option<u64>), Failed> {
    let Some(path) = file.filter(|path| path.as_os_str() != "-") else {
        return Ok((Box::new(BufReader::new(std::io::stdin())), None));
    };
    let cannot = |err| Failed::new(Exit::Usage, format!("can't read {}: {err}", path.display()));
    let file = File::open(path).map_err(cannot)?;
    let bytes = file.metadata().ok().filter(|file| file.is_file()).map(|file| file.len());
    Ok((Box::new(BufReader::with_capacity(1 << 20, file)), bytes))
}

fn warn(warning: Option<&str>) {
    if let Some(warning) = warning {
        print::note(format_args!("warning: {warning}"));
    }
}
