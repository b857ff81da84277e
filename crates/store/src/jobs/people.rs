//! Questions about jobs, and changes of them, that people and scripts ask for.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{JobId, JobState};
use crate::Timestamp;

/// One job as a person or a script sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobView {
    /// Its name.
    pub id: JobId,
    /// Its queue.
    pub queue: String,
    /// Where it stands.
    pub state: JobState,
    /// Higher runs earlier.
    pub priority: i16,
    /// Tries begun so far.
    pub attempt: u32,
    /// Tries at most, where known.
    pub attempts_max: Option<u32>,
    /// How often it ended its instance.
    pub crashes: u32,
    /// How often it was claimed.
    pub claim: i64,
    /// Its unique key, whether it still holds it or not.
    pub unique_key: Option<String>,
    /// The payload's media type, or empty.
    pub content_type: String,
    /// When it was enqueued.
    pub enqueued_at: Timestamp,
    /// When it is or was due.
    pub run_at: Timestamp,
    /// When its latest attempt began; `None` before the first.
    pub started_at: Option<Timestamp>,
    /// When it was done, died or was cancelled.
    pub ended_at: Option<Timestamp>,
    /// The message of the last failed attempt.
    pub last_error: Option<String>,
}

/// How many jobs of a queue are in each state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QueueCounts {
    /// The queue.
    pub queue: String,
    /// Not due yet.
    pub scheduled: u64,
    /// Due, waiting.
    pub available: u64,
    /// With an instance.
    pub leased: u64,
    /// Waiting for the next try.
    pub retrying: u64,
    /// Done, and kept for now.
    pub done: u64,
    /// Given up.
    pub dead: u64,
    /// Taken back, and kept for now.
    pub cancelled: u64,
    /// True where nothing is claimed from it until a person resumes it.
    pub paused: bool,
    /// Since when the available job that has been due for longest has been due; `None` where none is available.
    pub oldest_waiting: Option<Timestamp>,
}

/// One job with all that is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct JobDetail {
    /// Its line in a list.
    pub view: JobView,
    /// The bytes that the producer passed.
    pub payload: Vec<u8>,
    /// Names and values for the handler.
    pub metadata: Vec<(String, String)>,
    /// Its attempts that didn't end well, oldest first, the latest [`ATTEMPTS_KEPT`](super::ATTEMPTS_KEPT) of them.
    /// The one that is under way, or did it, is in the view: from `started_at` to `ended_at`.
    pub attempts: Vec<AttemptView>,
}

/// An attempt that didn't end well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AttemptView {
    /// The job's `claim` number in it: no two attempts of a job have the same.
    pub claim: i64,
    /// Which try it was. One that didn't count, and one after a person's retry, has the number of an earlier one.
    pub attempt: u32,
    /// The boot of a host that had it.
    pub owner: String,
    /// When it began; `None` where an older wasmhost, which didn't keep it, began it.
    pub started_at: Option<Timestamp>,
    /// When it ended, or was found to have ended.
    pub ended_at: Timestamp,
    /// How.
    pub end: AttemptEnd,
    /// Its message, for people.
    pub error: Option<String>,
}

/// How an attempt that didn't end well ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AttemptEnd {
    /// The handler said so, or a limit was hit.
    Failed,
    /// Its instance died of it.
    Crashed,
    /// The host cut it short: a drain, a scale-down. It didn't count.
    Released,
    /// The host died during it, which was seen at its next start.
    Interrupted,
    /// Nobody renewed its lease in time.
    LeaseLost,
    /// A person cancelled the job.
    Cancelled,
}

impl AttemptEnd {
    /// Its name, as in JSON and in the database.
    pub fn name(self) -> &'static str {
        match self {
            AttemptEnd::Failed => "failed",
            AttemptEnd::Crashed => "crashed",
            AttemptEnd::Released => "released",
            AttemptEnd::Interrupted => "interrupted",
            AttemptEnd::LeaseLost => "lease-lost",
            AttemptEnd::Cancelled => "cancelled",
        }
    }

    /// The end of that name.
    pub fn from_name(name: &str) -> Option<AttemptEnd> {
        use AttemptEnd::*;
        [Failed, Crashed, Released, Interrupted, LeaseLost, Cancelled]
            .into_iter()
            .find(|end| end.name() == name)
    }
}

/// Which jobs; the default is all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Only of this queue.
    pub queue: Option<String>,
    /// Only in these states, as people see them ([`JobView::state`]); none named is all.
    pub states: Vec<JobState>,
    /// Only with this unique key, whether they still hold it or not.
    pub unique_key: Option<String>,
}

/// A part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// The last job of the page before; `None` is the beginning.
    pub after: Option<JobId>,
    /// At most this many; more than [`LIST_JOBS_MAX`](super::LIST_JOBS_MAX) is that many.
    pub limit: u32,
    /// The order of the jobs.
    pub order: Order,
}

impl Default for Page {
    /// The latest hundred.
    fn default() -> Self {
        Page { after: None, limit: 100, order: Order::default() }
    }
}

/// The order of a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// The latest enqueued first.
    #[default]
    Newest,
    /// The first enqueued first.
    Oldest,
}

/// A change of a job that a person asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Intervention {
    /// Takes back what hasn't ended. A leased job's lease is lost thereby: its `renew` says so, and an answer to it
    /// is stale.
    Cancel,
    /// Makes a scheduled, retrying or dead job available now. A dead one begins anew: with all its attempts, the
    /// first of which is number 1 again, and no crashes; what was said of its old attempts is kept. A dead job takes
    /// its key of [`UniqueScope::Running`](super::UniqueScope::Running) again.
    Retry,
    /// Deletes a job that isn't leased, with everything about it, and frees its unique key.
    Discard,
}

impl Intervention {
    /// Whether it can be done to a job in this state, as people see it.
    pub fn allows(self, state: JobState) -> bool {
        use JobState::*;
        match self {
            Intervention::Cancel => matches!(state, Scheduled | Available | Leased | Retrying),
            Intervention::Retry => matches!(state, Scheduled | Retrying | Dead),
            Intervention::Discard => state != Leased,
        }
    }
}

/// The outcome of an intervention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intervened {
    /// There is no such job.
    NotFound,
    /// It was in one state, and is in another now.
    Moved {
        /// The state before, as people saw it.
        from: JobState,
        /// The state now.
        to: JobState,
    },
    /// It was discarded.
    Deleted {
        /// The state before, as people saw it.
        from: JobState,
    },
    /// Nothing: a job in this state can't be treated so. (Discard a leased one after cancelling it.)
    Refused {
        /// Its state, which is as it was.
        state: JobState,
    },
    /// Nothing: a dead job can't be retried while another one holds its unique key.
    KeyHeld {
        /// The other one.
        holder: JobId,
    },
}

/// The outcome of an intervention in many jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many jobs were moved or deleted.
    pub changed: u64,
    /// True where there may be more: call it again. With a `changed` of 0 it would find the same again.
    pub more: bool,
    /// Those of them that were leased, whose calls are to be ended.
    pub leased: Vec<JobId>,
    /// Dead jobs that a retry passed over, since another job holds their unique key; counted up to
    /// [`INTERVENE_JOBS_MAX`](super::INTERVENE_JOBS_MAX), where there are no more to change.
    pub key_held: u64,
    /// One of them, and who holds its key.
    pub key_holder: Option<(JobId, JobId)>,
}
