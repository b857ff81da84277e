//! `wasmhost enqueue --lines`: a job for each line, a thousand at a time.
//!
//! ```text
//! read -> post -> enqueued -> read ...
//!           └──> the queue takes no more for now (429) -> wait as long as the host says -> post
//! ```
//!
//! A batch is enqueued whole or not at all, and posted again only where the host says that none of it was. So no line is lost
//! or doubled by it, and an end before the last line says how far it had come.

use std::io::{BufRead, IsTerminal, Read};
use std::ops::RangeInclusive;
use std::time::Duration;

use hyper::StatusCode;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};
use wasmhost_host::admin::api::{EnqueueRequest, EnqueueResponse};

use super::{LINE_BYTES_MAX, open, request, warn};
use crate::args::jobs::Enqueue;
use crate::client::{Client, NoAnswer};
use crate::exit::{Exit, Failed, Outcome};
use crate::print;

/// Lines that are enqueued together, and how much of them at most, in bytes.
const BATCH_JOBS_MAX: usize = 1_000;
const BATCH_BYTES_MAX: usize = 4 << 20;

/// How long to wait where the host doesn't say it.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// A job for each line that isn't empty.
pub(super) async fn lines(client: &Client, path: &str, enqueue: &Enqueue) -> Outcome {
    let (input, bytes) = open(enqueue.input.as_deref())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let import = Import { client, path, enqueue, progress: progress(bytes) };
    let mut done = Done::default();
    let ended = tokio::select! {
        ended = import.run(Reader { input, line: 0 }, &mut done) => ended,
        _ = interrupt.recv() => {
            import.progress.abandon();
            print::note(done.interrupted());
            return Ok(Exit::Interrupted);
        }
    };
    match ended {
        Ok(()) => import.progress.finish_and_clear(),
        Err(_) => import.progress.abandon(),
    }
    ended?;
    if !enqueue.json {
        print::line(format!("enqueued {}", jobs(done.enqueued)));
        if done.there_already > 0 {
            print::line(format!("{} were there already", done.there_already));
        }
    }
    Ok(Exit::Done)
}

struct Import<'a> {
    client: &'a Client,
    path: &'a str,
    enqueue: &'a Enqueue,
    progress: ProgressBar,
}

/// How far it has come.
#[derive(Default)]
struct Done {
    /// The last line of those that are enqueued, counted from 1.
    line: u64,
    enqueued: u64,
    there_already: u64,
    /// Lines that were posted, and whose answer hasn't come.
    unanswered: Option<RangeInclusive<u64>>,
    told_of_wait: bool,
}

impl Import<'_> {
    async fn run(&self, mut reader: Reader, done: &mut Done) -> Result<(), Failed> {
        loop {
            let batch;
            (reader, batch) = reader.read().await?;
            if batch.payloads.is_empty() {
                return Ok(());
            }
            let is_first = done.line == 0;
            let requests = batch.payloads.into_iter().map(|payload| request(self.enqueue, payload));
            let receipts = self.post(&requests.collect::<Vec<_>>(), &batch.lines, done).await?;
            if is_first {
                warn(receipts.first().and_then(|receipt| receipt.warning.as_deref()));
            }
            for receipt in &receipts {
                if self.enqueue.json {
                    print::json(receipt)?;
                }
            }
            self.progress.inc(batch.bytes);
            self.progress.set_message(jobs(done.enqueued));
        }
    }

    /// Posts a batch until it is enqueued, or can't be.
    async fn post(
        &self,
        requests: &[EnqueueRequest],
        lines: &RangeInclusive<u64>,
        done: &mut Done,
    ) -> Result<Vec<EnqueueResponse>, Failed> {
        loop {
            done.unanswered = Some(lines.clone());
            let answer = self.client.try_post::<Vec<EnqueueResponse>>(self.path, &requests).await;
            done.unanswered = None;
            match answer {
                Ok(receipts) => {
                    done.line = *lines.end();
                    let enqueued = receipts.iter().filter(|receipt| receipt.created).count() as u64;
                    done.enqueued += enqueued;
                    done.there_already += receipts.len() as u64 - enqueued;
                    return Ok(receipts);
                }
                Err(NoAnswer::Refused { status: StatusCode::TOO_MANY_REQUESTS, problem, retry_after }) => {
                    if !std::mem::replace(&mut done.told_of_wait, true) {
                        let told = format!("lines {} wait, until Ctrl-C: {}", shown(lines), problem.detail);
                        self.progress.suspend(|| print::note(told));
                    }
                    tokio::time::sleep(retry_after.unwrap_or(AGAIN_AFTER)).await;
                }
                Err(none) => return Err(done.failed(lines, none)),
            }
        }
    }
}

impl Done {
    fn failed(&self, lines: &RangeInclusive<u64>, none: NoAnswer) -> Failed {
        let were_they = match &none {
            NoAnswer::Failed(failed) if failed.exit != Exit::NoHost => "it isn't known whether they were",
            NoAnswer::Refused { .. } | NoAnswer::Failed(_) => "none of them was",
        };
        let failed = Failed::from(none);
        let message = format!(
            "lines {}: {}; {} were enqueued before them, and {were_they}",
            shown(lines),
            failed.message,
            jobs(self.enqueued)
        );
        Failed { message, ..failed }
    }

    fn interrupted(&self) -> String {
        let enqueued = match self.line {
            0 => "nothing was enqueued".to_owned(),
            line => format!("{} were enqueued, up to line {line}", jobs(self.enqueued)),
        };
        match &self.unanswered {
            None => format!("interrupted: {enqueued}"),
            Some(lines) => format!("interrupted: {enqueued}; lines {} may have been", shown(lines)),
        }
    }
}

fn jobs(count: u64) -> String {
    if count == 1 { "1 job".to_owned() } else { format!("{count} jobs") }
}

fn shown(lines: &RangeInclusive<u64>) -> String {
    format!("{} to {}", lines.start(), lines.end())
}

/// The input, up to this line.
struct Reader {
    input: Box<dyn BufRead + Send>,
    line: u64,
}

/// The next jobs. There are none at the end.
struct Batch {
    payloads: Vec<Vec<u8>>,
    lines: RangeInclusive<u64>,
    bytes: u64,
}

impl Reader {
    /// Reads on a thread of its own: a person may end the verb while nothing comes.
    async fn read(mut self) -> Result<(Reader, Batch), Failed> {
        let reading = tokio::task::spawn_blocking(move || {
            let batch = self.next_batch()?;
            Ok((self, batch))
        });
        reading.await.map_err(std::io::Error::other)?
    }

    fn next_batch(&mut self) -> Result<Batch, Failed> {
        let (first, mut payloads, mut bytes) = (self.line + 1, Vec::new(), 0);
        // Empty lines are no jobs, and no end.
        while payloads.len() < BATCH_JOBS_MAX && (bytes < BATCH_BYTES_MAX || payloads.is_empty()) {
            let mut payload = Vec::new();
            let count = (&mut self.input).take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut payload)?;
            if count == 0 {
                break;
            }
            bytes += count;
            self.line += 1;
            if payload.last() == Some(&b'\n') {
                payload.pop();
                if payload.last() == Some(&b'\r') {
                    payload.pop();
                }
            } else if count as u64 > LINE_BYTES_MAX {
                let message = format!("line {} has more than 1 MiB, which is what a job may have", self.line);
                return Err(Failed::new(Exit::Usage, message));
            }
            if !payload.is_empty() {
                payloads.push(payload);
            }
        }
        Ok(Batch { payloads, lines: first..=self.line, bytes: bytes as u64 })
    }
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

#[cfg(test)]
mod tests {
    use wasmhost_host::admin::api::Problem;

    use super::*;

    #[test]
    fn an_end_before_the_last_line_says_how_far_it_came() {
        let done = Done { line: 1_007, enqueued: 1_000, ..Done::default() };
        assert_eq!(done.interrupted(), "interrupted: 1000 jobs were enqueued, up to line 1007");
        let posted = Done { unanswered: Some(1..=3), ..Done::default() };
        assert_eq!(posted.interrupted(), "interrupted: nothing was enqueued; lines 1 to 3 may have been");
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let problem = Problem::of_status(503, "Service Unavailable", "it is full".into());
        let refused = NoAnswer::Refused { status, problem, retry_after: None };
        let cut_off = NoAnswer::Failed(Failed::new(Exit::Failed, "the host went away"));
        for (none, told) in [
            (refused, "it is full; 1000 jobs were enqueued before them, and none of them was"),
            (
                cut_off,
                "the host went away; 1000 jobs were enqueued before them, and it isn't known whether they were",
            ),
        ] {
            assert_eq!(done.failed(&(1_008..=1_009), none).message, format!("lines 1008 to 1009: {told}"));
        }
    }

    #[test]
    fn lines_are_counted_with_those_that_are_empty() {
        let text = format!("\n\r\n{}x\r\n\n", "\n".repeat(BATCH_BYTES_MAX));
        let input: Box<dyn BufRead + Send> = Box::new(std::io::Cursor::new(text));
        let mut reader = Reader { input, line: 0 };
        let batch = reader.next_batch().unwrap();
        let last = BATCH_BYTES_MAX as u64 + 3;
        assert_eq!((batch.payloads, batch.lines), (vec![b"x".to_vec()], 1..=last));
        assert!(reader.next_batch().unwrap().payloads.is_empty());
    }
}
