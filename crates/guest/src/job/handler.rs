//! The arguments that a job's handler may take: the job, what its payload says, or both.

use serde::de::DeserializeOwned;

use super::{Failure, Job};

/// A job's payload, read as JSON: an argument of a [handler](Handler).
///
/// A job whose payload isn't such JSON is buried, and the handler isn't called: no later attempt would read it
/// better. Its content type isn't looked at. See [`Job::json`] for reading it in the handler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json<T>(
    /// The value that was read.
    pub T,
);

/// A function that [`job!`](crate::job!) makes a worker of. It takes
///
/// - the [`Job`],
/// - [`Json<T>`], what its payload says, where `T` is `serde::Deserialize`,
/// - or both, in this order.
///
/// `Arguments` are what it takes; the compiler finds them out. No other type is meant to implement this.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be called with a job",
    label = "not a job's handler",
    note = "a handler takes `Job`, `Json<T>` or `(Job, Json<T>)`, where `T` is `serde::Deserialize`"
)]
pub trait Handler<Arguments> {
    /// The type that the function returns: a result, or a future of one.
    type Output;

    /// Calls the function, unless the payload isn't what it takes.
    ///
    /// # Errors
    ///
    /// A bury, where the payload isn't what it takes.
    fn call(self, job: Job) -> Result<Self::Output, Failure>;
}

impl<F, Output> Handler<(Job,)> for F
where
    F: FnOnce(Job) -> Output,
{
    type Output = Output;

    fn call(self, job: Job) -> Result<Output, Failure> {
        Ok(self(job))
    }
}

impl<F, T, Output> Handler<(Json<T>,)> for F
where
    F: FnOnce(Json<T>) -> Output,
    T: DeserializeOwned,
{
    type Output = Output;

    fn call(self, job: Job) -> Result<Output, Failure> {
        Ok(self(Json(job.json()?)))
    }
}

impl<F, T, Output> Handler<(Job, Json<T>)> for F
where
    F: FnOnce(Job, Json<T>) -> Output,
    T: DeserializeOwned,
{
    type Output = Output;

    fn call(self, job: Job) -> Result<Output, Failure> {
        let payload = Json(job.json()?);
        Ok(self(job, payload))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Order {
        item: String,
    }

    fn job(payload: &str) -> Job {
        Job {
            id: "7".into(),
            queue: "default".into(),
            attempt: 1,
            attempts: 25,
            content_type: String::new(),
            payload: payload.into(),
            metadata: vec![],
        }
    }

    #[test]
    fn a_handler_takes_the_job_or_its_payload_or_both() {
        fn whole(job: Job) -> String {
            job.id
        }
        fn typed(Json(order): Json<Order>) -> String {
            order.item
        }
        fn both(job: Job, Json(order): Json<Order>) -> String {
            job.id + &order.item
        }
        let payload = r#"{"item": "tea"}"#;
        assert_eq!(whole.call(job(payload)).unwrap(), "7");
        assert_eq!(typed.call(job(payload)).unwrap(), "tea");
        assert_eq!(both.call(job(payload)).unwrap(), "7tea");
    }

    #[test]
    fn a_payload_that_is_not_as_expected_is_buried() {
        fn typed(Json(_): Json<Order>) {
            panic!("it was called");
        }
        let because = "the payload isn't the JSON that is expected: missing field `item` at line 1 column 2";
        assert_eq!(typed.call(job("{}")), Err(Failure::bury(because)));
        assert_eq!(job("{}").json::<Order>().err(), Some(Failure::bury(because)));
    }

    #[test]
    fn a_payload_that_is_not_text_is_buried() {
        let mut job = job("");
        job.payload = vec![b'a', 0xff];
        let because = "the payload isn't text: invalid utf-8 sequence of 1 bytes from index 1";
        assert_eq!(job.text(), Err(Failure::bury(because)));
    }
}
