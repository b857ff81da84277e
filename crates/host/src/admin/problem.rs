//! A refusal on its way out.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use wasmhost_config::shown::{TEXT_BYTES_MAX, lines};

use super::api::{BODY_TOO_LONG, LimitView, PROBLEM_MEDIA_TYPE, Problem, QUEUE_FULL, TOO_FAST};
use crate::services::TooFast;
use crate::supervisor::Refused;

/// When to try again where the host can't say.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) message: String,
    which: Which,
    /// When it may go well, if that is known.
    retry_after: Option<Duration>,
}

/// Which problem it is.
#[derive(Debug)]
enum Which {
    /// The status says it.
    Status,
    QueueFull(Limit),
    TooFast(Limit),
    BodyTooLong(Limit),
}

/// A bound that was reached.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) name: &'static str,
    pub(super) max: u64,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: String) -> Self {
        // Parts of it are the client's: a name, or a field that nobody knows.
        let message = lines(&message, TEXT_BYTES_MAX).into_owned();
        let is_for_now = status == StatusCode::SERVICE_UNAVAILABLE;
        ApiError { status, message, which: Which::Status, retry_after: is_for_now.then_some(RETRY_AFTER) }
    }

    pub(super) fn bad(message: String) -> Self {
        ApiError::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn missing(message: String) -> Self {
        ApiError::new(StatusCode::NOT_FOUND, message)
    }

    pub(super) fn refused(refused: Refused) -> Self {
        match refused {
            Refused::Conflict(message) => ApiError::conflict(message),
            Refused::Unavailable(message) => ApiError::unavailable(message),
        }
    }

    pub(super) fn conflict(message: String) -> Self {
        ApiError::new(StatusCode::CONFLICT, message)
    }

    pub(super) fn too_long(message: String, bytes_max: usize) -> Self {
        let max = u64::try_from(bytes_max).unwrap_or(u64::MAX);
        let which = Which::BodyTooLong(Limit { name: "body_bytes", max });
        ApiError { which, ..ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message) }
    }

    pub(super) fn late(message: String) -> Self {
        ApiError::new(StatusCode::REQUEST_TIMEOUT, message)
    }

    pub(super) fn full(message: String, limit: Limit) -> Self {
        ApiError { which: Which::QueueFull(limit), ..ApiError::unavailable(message) }
    }

    pub(super) fn too_fast(err: TooFast) -> Self {
        let which = Which::TooFast(Limit { name: "max_per_second", max: err.per_second.into() });
        let refused = ApiError::new(StatusCode::TOO_MANY_REQUESTS, err.to_string());
        ApiError { which, retry_after: Some(err.wait), ..refused }
    }

    pub(super) fn unavailable(message: String) -> Self {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    fn problem(self, retry_after_s: Option<u64>) -> Problem {
        let (kind, title, limit) = match self.which {
            Which::Status => {
                let title = self.status.canonical_reason().unwrap_or("Refused");
                let of_status = Problem::of_status(self.status.as_u16(), title, self.message);
                return Problem { retry_after_s, ..of_status };
            }
            Which::QueueFull(limit) => (QUEUE_FULL, "The queue is full", limit),
            Which::TooFast(limit) => (TOO_FAST, "Jobs come faster than the queue takes them", limit),
            Which::BodyTooLong(limit) => (BODY_TOO_LONG, "The body is too long", limit),
        };
        Problem {
            kind: kind.to_owned(),
            title: title.to_owned(),
            status: self.status.as_u16(),
            detail: self.message,
            retry_after_s,
            limit: Some(LimitView { name: limit.name.to_owned(), max: limit.max }),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status;
        let seconds = |time: Duration| time.as_secs() + u64::from(time.subsec_nanos() > 0);
        let retry_after_s = self.retry_after.map(seconds);
        let retry = retry_after_s.map(|seconds| [(header::RETRY_AFTER, seconds.to_string())]);
        let mut response = (status, retry, Json(self.problem(retry_after_s))).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_MEDIA_TYPE));
        response
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn json(error: ApiError) -> Value {
        let retry_after_s = error.retry_after.map(|time| time.as_secs());
        serde_json::to_value(error.problem(retry_after_s)).unwrap()
    }

    #[test]
    fn a_problem_says_what_a_program_can_act_on() {
        let missing = json(ApiError::missing("no such type".into()));
        let expected =
            json!({ "type": "about:blank", "title": "Not Found", "status": 404, "detail": "no such type" });
        assert_eq!(missing, expected);
        let full = json(ApiError::full("no room".into(), Limit { name: "max_depth", max: 7 }));
        let expected = json!({
            "type": QUEUE_FULL, "title": "The queue is full", "status": 503, "detail": "no room",
            "retry_after_s": 1, "limit": { "name": "max_depth", "max": 7 },
        });
        assert_eq!(full, expected);
    }
}
