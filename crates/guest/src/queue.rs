//! Putting jobs on queues, from any process type that was granted them (`enqueue = ["default"]`).

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::bindings::worker::wasmhost::job::queue as wit;

/// Puts one job on `queue`, and returns when it is durable.
///
/// The job may be given by its payload alone, or as a [`NewJob`] that says more.
///
/// ```no_run
/// use std::time::Duration;
/// use wasmhost_guest::queue::{self, NewJob};
///
/// # fn main() -> Result<(), queue::Error> {
/// let receipt = queue::enqueue("default", "item=tea")?;
/// println!("job {} will be done", receipt.id);
///
/// queue::enqueue("mail", NewJob::new("ann@example.com").delay(Duration::from_secs(60)).unique_key("ann"))?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// See [`Error`]. Where it is returned nothing was enqueued.
pub fn enqueue(queue: &str, job: impl Into<NewJob>) -> Result<Receipt, Error> {
    Ok(wit::enqueue(queue, &job.into().checked()?)?.into())
}

/// Puts all these jobs on `queue` in one durable step: all of them or none. Receipts come in the same order.
///
/// At most 1,000 jobs and 16 MiB of payload at once.
///
/// ```no_run
/// # fn main() -> Result<(), wasmhost_guest::queue::Error> {
/// let receipts = wasmhost_guest::queue::enqueue_many("default", ["item=tea", "item=milk"])?;
/// assert_eq!(receipts.len(), 2);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// See [`Error`]. Where it is returned nothing was enqueued.
pub fn enqueue_many<J: Into<NewJob>>(
    queue: &str,
    jobs: impl IntoIterator<Item = J>,
) -> Result<Vec<Receipt>, Error> {
    let jobs: Vec<_> = jobs.into_iter().map(|job| job.into().checked()).collect::<Result<_, _>>()?;
    Ok(wit::enqueue_many(queue, &jobs)?.into_iter().map(Receipt::from).collect())
}

/// A job to be enqueued. Unless more is said it runs as soon as an instance is free.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// Or why there is none, for [`enqueue`] to say.
    payload: Result<Vec<u8>, String>,
    options: wit::Options,
}

impl NewJob {
    /// A job with this payload: at most 1 MiB.
    pub fn new(payload: impl Into<Vec<u8>>) -> Self {
        Self::with_payload(Ok(payload.into()))
    }

    /// A job whose payload is this value as JSON, with the content type `application/json`. A worker reads it by
    /// [`Json`](crate::job::Json) or [`Job::json`](crate::job::Job::json).
    ///
    /// A value that has no JSON, such as a map whose keys aren't strings, is refused by [`enqueue`], as
    /// [`Error::Invalid`].
    ///
    /// ```no_run
    /// use wasmhost_guest::queue::{self, NewJob};
    ///
    /// #[derive(serde::Serialize)]
    /// struct Order<'a> {
    ///     item: &'a str,
    ///     quantity: u32,
    /// }
    ///
    /// # fn main() -> Result<(), queue::Error> {
    /// queue::enqueue("default", NewJob::json(&Order { item: "tea", quantity: 2 }))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn json<T: Serialize + ?Sized>(payload: &T) -> Self {
        let payload = serde_json::to_vec(payload);
        Self::with_payload(payload.map_err(|error| format!("the payload can't be written as JSON: {error}")))
            .content_type("application/json")
    }

    fn with_payload(payload: Result<Vec<u8>, String>) -> Self {
        Self {
            payload,
            options: wit::Options {
                delay_ms: None,
                priority: None,
                unique: None,
                attempts: None,
                content_type: None,
                metadata: Vec::new(),
            },
        }
    }

    fn checked(self) -> Result<wit::NewJob, Error> {
        Ok(wit::NewJob { payload: self.payload.map_err(Error::Invalid)?, options: self.options })
    }

    /// Not before this much time from now. Precise to the millisecond.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.options.delay_ms = Some(millis(delay));
        self
    }

    /// Higher runs earlier among the jobs that are due; 0 where it isn't said.
    #[must_use]
    pub fn priority(mut self, priority: i16) -> Self {
        self.options.priority = Some(priority);
        self
    }

    /// At most one job with this key waits or runs in this queue: a second [`enqueue`] answers with the first
    /// one's id and changes nothing. At most 256 bytes.
    ///
    /// It is [`unique`](Self::unique) with [`Scope::Running`], what one wants most often.
    #[must_use]
    pub fn unique_key(self, key: impl Into<String>) -> Self {
        self.unique(key, Scope::Running)
    }

    /// While another job holds the same key in this queue, [`enqueue`] answers with that job's id and changes
    /// nothing; how long it does is what `scope` says, that of the job that holds the key. At most 256 bytes.
    #[must_use]
    pub fn unique(mut self, key: impl Into<String>, scope: Scope) -> Self {
        let scope = match scope {
            Scope::Waiting => wit::UniqueScope::Waiting,
            Scope::Running => wit::UniqueScope::Running,
            Scope::Lasting(time) => wit::UniqueScope::Lasting(millis(time)),
        };
        self.options.unique = Some(wit::Unique { key: key.into(), scope });
        self
    }

    /// How many tries there will be at most, in place of the worker type's `attempts`; at least 1.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.options.attempts = Some(attempts);
        self
    }

    /// The media type of the payload, such as `application/json`.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.options.content_type = Some(content_type.into());
        self
    }

    /// Attaches one more name and value, for tracing and routing: at most 32 of them and 8 KiB in all.
    #[must_use]
    pub fn metadata(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.metadata.push((name.into(), value.into()));
        self
    }
}

impl From<Vec<u8>> for NewJob {
    fn from(payload: Vec<u8>) -> Self {
        Self::new(payload)
    }
}

impl From<&[u8]> for NewJob {
    fn from(payload: &[u8]) -> Self {
        Self::new(payload)
    }
}

impl From<String> for NewJob {
    fn from(payload: String) -> Self {
        Self::new(payload)
    }
}

impl From<&str> for NewJob {
    fn from(payload: &str) -> Self {
        Self::new(payload)
    }
}

/// How long a job holds its [unique](NewJob::unique) key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Until it is first given to an instance. A job that is enqueued while this one runs, or waits for another
    /// attempt, is one of its own: for work that has to see what changed since the job before began.
    Waiting,
    /// Until it has ended: done, dead, or cancelled. It holds the key while it waits for another attempt, too.
    Running,
    /// For so long from its enqueue, whether it has ended by then or not: at most once in a while. Precise to the
    /// millisecond.
    Lasting(Duration),
}

/// The outcome of a new job's enqueue.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The job's id: of the new job, or of the one that holds the unique key.
    pub id: String,
    /// False where another job held the unique key.
    pub created: bool,
}

impl From<wit::Receipt> for Receipt {
    fn from(receipt: wit::Receipt) -> Self {
        let wit::Receipt { id, created } = receipt;
        Self { id, created }
    }
}

/// Why nothing was enqueued. The strings are the host's words, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The formation doesn't grant this process type that queue.
    Denied(String),
    /// The queue holds as many waiting jobs as its `max_depth` or `max_bytes` allows, or this process type has put as many
    /// on it in the last second as its `max_per_second` allows. Try again later.
    Full(String),
    /// The payload, a key or the metadata is too large, a name isn't valid, or the payload could not be written.
    Invalid(String),
    /// The store could not make the job durable (a full disk, say).
    Unavailable(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, message) = match self {
            Self::Denied(message) => ("not granted", message),
            Self::Full(message) => ("the queue is full", message),
            Self::Invalid(message) => ("not a valid job", message),
            Self::Unavailable(message) => ("the store is unavailable", message),
        };
        write!(f, "{what}: {message}")
    }
}

impl std::error::Error for Error {}

impl From<wit::Error> for Error {
    fn from(error: wit::Error) -> Self {
        match error {
            wit::Error::Denied(message) => Self::Denied(message),
            wit::Error::Full(message) => Self::Full(message),
            wit::Error::Invalid(message) => Self::Invalid(message),
            wit::Error::Unavailable(message) => Self::Unavailable(message),
        }
    }
}

/// Rounds up, so that a short delay doesn't become none.
pub(crate) fn millis(delay: Duration) -> u64 {
    u64::try_from(delay.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typed_payload_is_json_and_says_so() {
        let job = NewJob::json(&("tea", 2)).checked().unwrap();
        assert_eq!(job.payload, br#"["tea",2]"#);
        assert_eq!(job.options.content_type.as_deref(), Some("application/json"));
    }

    #[test]
    fn what_has_no_json_is_refused_before_the_host_is_asked() {
        let keys_are_no_strings = std::collections::BTreeMap::from([((1, 2), 3)]);
        let Err(Error::Invalid(message)) = enqueue("default", NewJob::json(&keys_are_no_strings)) else {
            panic!("it was not refused");
        };
        assert_eq!(message, "the payload can't be written as JSON: key must be a string");
    }

    #[test]
    fn a_unique_key_is_held_until_the_job_has_ended_if_nothing_else_is_said() {
        let unique = |job: NewJob| job.options.unique.unwrap();
        assert!(matches!(unique(NewJob::new("").unique_key("k")).scope, wit::UniqueScope::Running));
        let lasting = unique(NewJob::new("").unique("k", Scope::Lasting(Duration::from_micros(1_500))));
        assert!(matches!(lasting.scope, wit::UniqueScope::Lasting(2)));
        assert_eq!(lasting.key, "k");
    }
}
