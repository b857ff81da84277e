//! Jobs and ticks as guests get them, and what they answer.

use std::time::Duration;

use wasmhost_config::shown::{MESSAGE_BYTES_MAX, cut};

use crate::bindings::{ticker, worker};
use crate::call::{Job, JobFailure, Tick};

pub(crate) fn job_to_guest(job: Job) -> worker::wasmhost::job::types::Job {
    worker::wasmhost::job::types::Job {
        id: job.id,
        queue: job.queue,
        attempt: job.attempt,
        attempts: job.attempts,
        content_type: job.content_type,
        payload: job.payload,
        metadata: job.metadata,
    }
}

pub(crate) fn failure_from_guest(failure: worker::wasmhost::job::types::Failure) -> JobFailure {
    use worker::wasmhost::job::types::Failure;
    // A guest's message is kept with the job: it is cut here, before anything holds it.
    let short = |message: String| cut(&message, MESSAGE_BYTES_MAX).to_owned();
    match failure {
        Failure::Retry(message) => JobFailure::Retry(short(message)),
        Failure::RetryAfter((ms, message)) => {
            JobFailure::RetryAfter(Duration::from_millis(ms), short(message))
        }
        Failure::Bury(message) => JobFailure::Bury(short(message)),
    }
}

pub(crate) fn tick_to_guest(tick: Tick) -> ticker::wasmhost::clock::types::Tick {
    ticker::wasmhost::clock::types::Tick {
        schedule: tick.schedule,
        nominal_ms: tick.nominal_ms,
        manual: tick.manual,
    }
}
