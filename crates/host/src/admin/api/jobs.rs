//! Jobs and queues in the admin API's JSON. Times are RFC 3339, UTC, with milliseconds.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
pub use wasmhost_store::Timestamp;
use wasmhost_store::jobs::QueueCounts;
pub use wasmhost_store::jobs::{AttemptEnd, AttemptView, JobState, JobView, Order};

/// `POST /v1/queues/{queue}/jobs`: one of these, or an array of up to 1,000 of them, which are enqueued together or not
/// at all.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnqueueRequest {
    /// The payload, as text; at most 1 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// The payload in base64, where it isn't text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
    /// Not before this many milliseconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// Not before this time, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_at: Option<String>,
    /// Higher runs earlier.
    #[serde(default)]
    pub priority: i16,
    /// Where another job of the queue holds this key, no new one is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique_key: Option<String>,
    /// How long this job holds it; `running` where it isn't said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique_scope: Option<UniqueScope>,
    /// Tries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// The payload's media type.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub content_type: String,
    /// Names and values for the handler, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metadata: Vec<(String, String)>,
}

/// How long a job holds its unique key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UniqueScope {
    /// Until it is first given to an instance.
    Waiting,
    /// Until it has ended.
    Running,
    /// For this many milliseconds from now, whether it has ended or not.
    ForMs(u64),
}

/// The answer to `POST /v1/queues/{queue}/jobs`, or an array of them: 201, or 200 where every unique key was taken.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EnqueueResponse {
    /// The job, or the one that holds the unique key.
    pub id: String,
    /// False where it was there already.
    pub created: bool,
    /// A possible mistake nevertheless, such as a queue that no type works. In an array the first has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// `GET /v1/queues`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct QueuesView {
    /// Those that have jobs, are paused, or are named by the formation; by name.
    pub queues: Vec<QueueView>,
}

/// One queue.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct QueueView {
    /// Its name, how many jobs are in each state, whether it is paused, and since when a job waits there.
    #[serde(flatten)]
    pub counts: QueueCounts,
    /// The process types that work it.
    pub workers: Vec<String>,
    /// Waiting jobs past which more are refused.
    pub max_depth: Option<u64>,
    /// The same for the bytes of waiting jobs.
    #[serde(default)]
    pub max_bytes: u64,
    /// Jobs that one producer may enqueue in a second.
    #[serde(default)]
    pub max_per_second: Option<u32>,
    /// How many run at once, at most.
    pub concurrency: Option<u32>,
}

/// The answer to `POST /v1/queues/{queue}/pause` and `/resume`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PauseResponse {
    /// How it is now.
    pub paused: bool,
    /// False where it was so already.
    pub changed: bool,
}

/// `GET /v1/jobs?queue=mail&state=dead,retrying&key=ann&order=oldest&after=7&limit=100`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct JobsView {
    /// One page of them.
    pub jobs: Vec<JobView>,
    /// The `after` of the next page; `null` on the last.
    pub next: Option<String>,
}

/// `GET /v1/jobs/{id}`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct JobDetail {
    /// The same as in a list.
    #[serde(flatten)]
    pub view: JobView,
    /// The instance of this host that has it.
    pub instance: Option<String>,
    /// The payload, where it is text.
    pub payload: Option<String>,
    /// The payload in base64, where it isn't.
    pub payload_base64: Option<String>,
    /// Its length.
    pub payload_bytes: u64,
    /// Names and values for the handler.
    pub metadata: Vec<(String, String)>,
    /// Its attempts that didn't end well, oldest first; the latest of them.
    pub attempts: Vec<AttemptView>,
}

/// The answer to `POST /v1/jobs/{id}/retry`, `POST /v1/jobs/{id}/cancel` and `DELETE /v1/jobs/{id}`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct JobMoved {
    /// The job.
    pub id: String,
    /// Its state before.
    pub from: JobState,
    /// Its state now; `null` where it was discarded.
    pub to: Option<JobState>,
}

/// `POST /v1/jobs/retry`, `/cancel` and `/discard`: to every job that these name and that it can be done to.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SweepRequest {
    /// Jobs of this queue.
    #[serde(default)]
    pub queue: Option<String>,
    /// In one of these states, of which there is at least one; `null` is any.
    #[serde(default)]
    pub states: Option<Vec<JobState>>,
    /// With this unique key.
    #[serde(default)]
    pub unique_key: Option<String>,
}

/// The answer to them.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SweepResponse {
    /// How many jobs it was done to.
    pub changed: u64,
    /// Why it wasn't done to others that were named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// `POST /v1/store/backup`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackupRequest {
    /// The file to write, absolute; it must not be there.
    pub file: String,
}

/// The answer to it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BackupResponse {
    /// Its length.
    pub bytes: u64,
}
