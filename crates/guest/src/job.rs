//! Doing jobs: what a worker is given, and what it answers.

use std::fmt;
use std::time::Duration;

use crate::bindings::worker::wasmhost::job::types;

/// Makes this component a worker: `handler`, a `fn(Job) -> Result<(), Failure>`, is called with each job.
///
/// Delivery is *at least once*: a job whose instance crashed, ran out of time, or whose host died is given out
/// again. A handler should have the same effect when it is called twice with the same [`Job::id`].
///
/// ```no_run
/// use wasmhost_guest::job::{Failure, Job};
///
/// wasmhost_guest::job!(handle);
///
/// fn handle(job: Job) -> Result<(), Failure> {
///     let name = String::from_utf8(job.payload).map_err(|_| Failure::bury("the payload isn't text"))?;
///     std::fs::write(format!("/greetings/{}", job.id), format!("Hello, {name}!\n"))?; // an error: try again
///     Ok(())
/// }
/// ```
#[macro_export]
macro_rules! job {
    ($handler:path) => {
        const _: () = {
            struct Worker;

            impl $crate::bindings::worker::exports::wasmhost::job::handler::Guest for Worker {
                fn handle(
                    job: $crate::bindings::worker::wasmhost::job::types::Job,
                ) -> ::core::result::Result<(), $crate::bindings::worker::wasmhost::job::types::Failure>
                {
                    $crate::job::call($handler, job)
                }
            }

    $crate::bindings::worker::export_worker!(Worker with_types_in $crate::bindings::worker);
        };
    };
}

/// One try of one durable piece of work.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Job {
    /// The job's name in its store, unique there for ever: printable ASCII, at most 64 bytes.
    pub id: String,
    /// The queue it was put on.
    pub queue: String,
    /// Which try this is, from 1. A try that the host cut short to drain doesn't count.
    pub attempt: u32,
    /// How many tries there will be at most.
    pub attempts: u32,
    /// What kind of bytes `payload` holds, as a media type; empty if nobody said.
    pub content_type: String,
    /// What the producer passed, at most 1 MiB.
    pub payload: Vec<u8>,
    /// Names and values that the producer attached, in its order.
    pub metadata: Vec<(String, String)>,
}

impl Job {
    /// The payload as text.
    ///
    /// # Errors
    ///
    /// Where the payload isn't UTF-8. As it won't be at the next try either, [bury](Failure::bury) such a job.
    pub fn text(&self) -> Result<&str, std::str::Utf8Error> {
        std::str::from_utf8(&self.payload)
    }
}

impl From<types::Job> for Job {
    fn from(job: types::Job) -> Self {
        let types::Job { id, queue, attempt, attempts, content_type, payload, metadata } = job;
        Self { id, queue, attempt, attempts, content_type, payload, metadata }
    }
}

/// Why a job was not done. The message is for people: its first 4 KiB are kept with the job.
///
/// Every error turns into one by `?`, as a [retry](Failure::retry) whose message is the error and what caused it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    message: String,
    next: Next,
}

/// What is to become of the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Retry,
    RetryAfter(Duration),
    Bury,
}

impl Failure {
    /// Try again after the usual backoff: n^4 + 15 s after attempt n, with jitter. After its last attempt the job
    /// is dead.
    pub fn retry(message: impl Into<String>) -> Self {
        Self { message: message.into(), next: Next::Retry }
    }

    /// Try again after `delay`, where it is known when it is worth it. It uses up an attempt like
    /// [`retry`](Self::retry).
    pub fn retry_after(delay: Duration, message: impl Into<String>) -> Self {
        Self { message: message.into(), next: Next::RetryAfter(delay) }
    }

    /// Never try again: the job is dead at once, for a person to look at.
    pub fn bury(message: impl Into<String>) -> Self {
        Self { message: message.into(), next: Next::Bury }
    }

    /// What went wrong, for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

// `Failure` itself can't be an `Error`, or this would overlap with `From<T> for T`.
impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::retry(message)
    }
}

impl From<Failure> for types::Failure {
    fn from(failure: Failure) -> Self {
        match failure.next {
            Next::Retry => Self::Retry(failure.message),
            Next::RetryAfter(delay) => Self::RetryAfter((crate::queue::millis(delay), failure.message)),
            Next::Bury => Self::Bury(failure.message),
        }
    }
}

/// What [`job!`](crate::job!) exports.
#[doc(hidden)]
pub fn call(handler: fn(Job) -> Result<(), Failure>, job: types::Job) -> Result<(), types::Failure> {
    Ok(handler(job.into())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_becomes_a_retry_that_names_its_causes() {
        fn read() -> Result<(), Failure> {
            Err(std::io::Error::other("the disk is gone"))?;
            Ok(())
        }
        assert_eq!(read(), Err(Failure::retry("the disk is gone")));
    }

    #[test]
    fn a_delay_is_passed_in_milliseconds() {
        let failure = Failure::retry_after(Duration::from_micros(1_500), "later");
        assert!(matches!(types::Failure::from(failure), types::Failure::RetryAfter((2, m)) if m == "later"));
    }
}
