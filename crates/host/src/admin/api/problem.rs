//! The JSON of refusals: problem details, as RFC 9457 has them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The media type of a [`Problem`].
pub const PROBLEM_MEDIA_TYPE: &str = "application/problem+json";

/// The `type` of a problem that its status describes.
pub const PROBLEM_OF_STATUS: &str = "about:blank";
/// The `type` where a queue has no room for more jobs.
pub const QUEUE_FULL: &str = "urn:wasmhost:problem:queue-full";
/// The `type` where jobs come faster than their queue takes them.
pub const TOO_FAST: &str = "urn:wasmhost:problem:too-fast";
/// The `type` where a request's body is too long.
pub const BODY_TOO_LONG: &str = "urn:wasmhost:problem:body-too-long";

/// The body of every refusal, of the media type `application/problem+json`. The status says whose mistake it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A URI that says which problem it is: `urn:wasmhost:problem:queue-full`, `urn:wasmhost:problem:too-fast`,
    /// `urn:wasmhost:problem:body-too-long`, or `about:blank` for one that its status describes.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same for a person, in a few words. It is one text for all problems of a type, and with `about:blank` that of the
    /// status.
    pub title: String,
    /// The status of the answer.
    pub status: u16,
    /// The fault of this request, for a person.
    pub detail: String,
    /// Seconds after which the request may go well, where that is known: those of `Retry-After`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
    /// The bound that was reached, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<LimitView>,
}

/// A bound of a [`Problem`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LimitView {
    /// A key of the queue (`max_depth`, `max_bytes`, `max_per_second`), or `body_bytes`.
    pub name: String,
    /// The most that there may be.
    pub max: u64,
}

impl Problem {
    /// A problem that is described by its status, whose usual words are `title`.
    pub fn of_status(status: u16, title: &str, detail: String) -> Problem {
        let (kind, title) = (PROBLEM_OF_STATUS.to_owned(), title.to_owned());
        Problem { kind, title, status, detail, retry_after_s: None, limit: None }
    }

    /// Whether it is a queue that has no room for more, or takes no more for now.
    pub fn is_full_queue(&self) -> bool {
        self.kind == QUEUE_FULL || self.kind == TOO_FAST
    }
}
