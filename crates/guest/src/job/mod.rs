//! Doing jobs: what a worker is given, and what it answers.

mod failure;
mod handler;

use serde::Deserialize;

pub use self::failure::Failure;
pub use self::handler::{Handler, Json};
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
///     let name = job.text()?; // what isn't text is buried: it won't be at the next attempt either
///     std::fs::write(format!("/greetings/{}", job.id), format!("Hello, {name}!\n"))?; // an error: try again
///     Ok(())
/// }
/// ```
///
/// It may take what the payload says, by [`Json`], in place of the job or after it:
///
/// ```no_run
/// use serde::Deserialize;
/// use wasmhost_guest::job::{Failure, Job, Json};
///
/// #[derive(Deserialize)]
/// struct Order {
///     item: String,
///     quantity: u32,
/// }
///
/// wasmhost_guest::job!(handle);
///
/// fn handle(job: Job, Json(order): Json<Order>) -> Result<(), Failure> {
///     std::fs::write(format!("/orders/{}", job.id), format!("{} x {}\n", order.quantity, order.item))?;
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

/// Makes this component a worker of WASI 0.3, whose instances do up to `concurrency` jobs at once: `handler`, an
/// `async fn(Job) -> Result<(), Failure>`, is called with each. It takes what a handler of [`job!`](crate::job!)
/// takes.
///
/// Jobs that wait for something let others go on, where they wait by `.await`: for what [`wasip3`](crate::wasip3)
/// has. Anything that blocks the instance, such as [`enqueue`](crate::queue::enqueue), files of the standard library or
/// [`std::thread::sleep`], makes all its jobs wait, and one that traps takes the others with it.
///
/// ```no_run
/// use wasmhost_guest::job::{Failure, Job};
/// use wasmhost_guest::wasip3::clocks::monotonic_clock;
///
/// wasmhost_guest::async_job!(handle);
///
/// async fn handle(job: Job) -> Result<(), Failure> {
///     monotonic_clock::wait_for(1_000_000_000).await; // nanoseconds; other jobs go on meanwhile
///     println!("job {} waited", job.id);
///     Ok(())
/// }
/// ```
#[cfg(feature = "async")]
#[macro_export]
macro_rules! async_job {
    ($handler:path) => {
        const _: () = {
            struct Worker;

            impl $crate::bindings::async_worker::exports::wasmhost::job::async_handler::Guest for Worker {
                async fn handle(
                    job: $crate::bindings::worker::wasmhost::job::types::Job,
                ) -> ::core::result::Result<(), $crate::bindings::worker::wasmhost::job::types::Failure>
                {
                    $crate::job::call_async($handler, job).await
                }
            }

    $crate::bindings::async_worker::export_async_worker!(Worker with_types_in $crate::bindings::async_worker);
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
    /// The kind of bytes that `payload` holds, as a media type; empty if nobody said.
    pub content_type: String,
    /// The bytes that the producer passed, at most 1 MiB.
    pub payload: Vec<u8>,
    /// Names and values that the producer attached, in its order.
    pub metadata: Vec<(String, String)>,
}

impl Job {
    /// The payload as text.
    ///
    /// # Errors
    ///
    /// A [bury](Failure::bury) where the payload isn't UTF-8: it won't be at the next try either.
    pub fn text(&self) -> Result<&str, Failure> {
        std::str::from_utf8(&self.payload)
            .map_err(|error| Failure::bury(format!("the payload isn't text: {error}")))
    }

    /// The payload, read as JSON. A `T` that doesn't own its strings borrows them from the job.
    ///
    /// [`content_type`](Self::content_type) isn't looked at.
    ///
    /// # Errors
    ///
    /// A [bury](Failure::bury) where the payload isn't JSON, or not what `T` is: it won't be at the next try
    /// either.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Failure> {
        serde_json::from_slice(&self.payload)
            .map_err(|error| Failure::bury(format!("the payload isn't the JSON that is expected: {error}")))
    }
}

impl From<types::Job> for Job {
    fn from(job: types::Job) -> Self {
        let types::Job { id, queue, attempt, attempts, content_type, payload, metadata } = job;
        Self { id, queue, attempt, attempts, content_type, payload, metadata }
    }
}

/// The function that [`job!`](crate::job!) exports.
#[doc(hidden)]
pub fn call<Arguments>(
    handler: impl Handler<Arguments, Output = Result<(), Failure>>,
    job: types::Job,
) -> Result<(), types::Failure> {
    Ok(handler.call(job.into())??)
}

/// The function that [`async_job!`](crate::async_job!) exports.
#[cfg(feature = "async")]
#[doc(hidden)]
pub async fn call_async<Arguments, Answer: Future<Output = Result<(), Failure>>>(
    handler: impl Handler<Arguments, Output = Answer>,
    job: types::Job,
) -> Result<(), types::Failure> {
    Ok(handler.call(job.into())?.await?)
}
