//! The JSON of how things stand at a glance, and of the last hour.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::FormationView;

/// `GET /v1/overview?type=web&after=17`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct OverviewView {
    /// The formation as it was within the last second. `instances` and `last_crash` are those of the type that is asked for, and
    /// are left out of the others.
    pub formation: FormationView,
    /// The samples behind the one that the client has.
    pub history: HistoryView,
}

/// The last hour, in samples. Each list ends with the newest sample, and is shorter where the type or the queue came later.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct HistoryView {
    /// Seconds between two samples.
    pub every_s: f64,
    /// The most that there are at once.
    pub samples_max: u64,
    /// The number of the newest sample: the `after` of the next request. It is lower than before where the host is another.
    pub newest: u64,
    /// When each was taken, in milliseconds since 1970.
    pub times_ms: Vec<i64>,
    /// By name.
    pub types: Vec<TypeHistory>,
    /// By name. `_other` are those that the formation doesn't name, together.
    pub queues: Vec<QueueHistory>,
}

/// A type's samples, of all its versions together. Its calls are requests, attempts at jobs of the queues that it works
/// (whichever type made them), or ticks; a command has none.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TypeHistory {
    /// The type.
    pub process: String,
    /// Its trigger.
    pub trigger: String,
    /// Calls a second. `null` where they weren't counted: requests are from the first `GET /v1/overview` on, or from the start
    /// where there is a `[health]`.
    pub per_s: Vec<Option<f64>>,
    /// Those of them that failed: answers of 5xx, attempts and ticks that weren't done.
    pub failed_per_s: Vec<Option<f64>>,
    /// Half of them took no longer, in seconds.
    pub p50_s: Vec<Option<f64>>,
    /// 99 of 100 took no longer, in seconds.
    pub p99_s: Vec<Option<f64>>,
    /// CPU time of its guests: 1 is one processor's.
    pub cpu: Vec<f64>,
    /// Bytes of its instances' memories and tables.
    pub memory_bytes: Vec<u64>,
    /// Instances that serve and don't drain.
    pub serving: Vec<u64>,
    /// Calls in the line, or jobs that are due on its queues.
    pub waiting: Vec<u64>,
}

/// A queue's samples.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct QueueHistory {
    /// The queue.
    pub queue: String,
    /// Jobs put on it a second.
    pub enqueued_per_s: Vec<f64>,
    /// Attempts a second that were done.
    pub done_per_s: Vec<f64>,
    /// Attempts a second that failed.
    pub failed_per_s: Vec<f64>,
    /// Jobs that were due and waited. `null` where the store didn't say it.
    pub waiting: Vec<Option<u64>>,
}
