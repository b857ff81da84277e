//! Why a job was not done, and what is to become of it.

use std::fmt;
use std::time::Duration;

use crate::bindings::worker::wasmhost::job::types;

/// Why a job was not done. The message is for people: its first 4 KiB are kept with the job.
///
/// Every error turns into one by `?`, as a [retry](Failure::retry) whose message is the error and what caused it.
/// A job that will fail at every attempt is better [buried](Failure::bury), as [`Job::json`](super::Job::json) and
/// [`Job::text`](super::Job::text) do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    message: String,
    next: Next,
}

/// The next step for the job.
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

    /// The message: what went wrong, for people.
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
