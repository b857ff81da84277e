//! Durable work: what a job is, and what every backend must be able to do with it.
//!
//! ```text
//! scheduled -> available -> leased -> done
//! leased    -> retrying (a failed attempt) -> available
//! leased    -> available (drain, lease lost)
//! leased    -> dead (last attempt, third crash, or buried)        dead -> available (a person's retry)
//! scheduled, available, retrying, leased -> cancelled
//! ```
//!
//! This file has the calls of hosts. The calls of people are in `people`, states and names in `state`, and waits between
//! attempts in `backoff`.

mod backoff;
mod people;
mod state;

use std::sync::Arc;
use std::time::Duration;

use crate::{StoreError, Timestamp};
use async_trait::async_trait;

pub use self::backoff::Backoff;
pub use self::people::{
    AttemptEnd, AttemptView, Intervened, Intervention, JobDetail, JobFilter, JobView, Order, Page,
    QueueCounts, Swept,
};
pub use self::state::{JobId, JobState};

/// The longest payload, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// The most jobs that one `enqueue` takes.
pub const ENQUEUE_JOBS_MAX: usize = 1_000;

/// The most payload that one `enqueue` takes, and one `claim` hands out, in bytes.
pub const BATCH_BYTES_MAX: usize = 16 << 20;

/// The most jobs that one `claim` hands out.
pub const CLAIM_JOBS_MAX: u32 = 1_000;

/// The longest unique key, in bytes.
pub const UNIQUE_KEY_BYTES_MAX: usize = 256;

/// The most names in a job's metadata.
pub const METADATA_ENTRIES_MAX: usize = 32;

/// The most bytes in a job's metadata, names and values together.
pub const METADATA_BYTES_MAX: usize = 8 << 10;

/// The longest name of a queue and the longest content type, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// The most ended jobs, and the most expired unique keys, that one `prune` deletes.
pub const PRUNE_JOBS_MAX: u64 = 1_000;

/// The most jobs that one `list` returns.
pub const LIST_JOBS_MAX: u32 = 1_000;

/// The most jobs that one `intervene_all` changes.
pub const INTERVENE_JOBS_MAX: u64 = 1_000;

/// Attempts that didn't end well, of which each job's latest are kept.
pub const ATTEMPTS_KEPT: u32 = 25;

/// How much of a failure's message is kept, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 4 << 10;

/// A job that ends its instance this many times is buried, whatever attempts are left. Only crashes in which it was
/// alone count.
pub const CRASHES_MAX: u32 = 3;

/// The bytes that a job counts towards its queue's [`max_bytes`](NewJob::max_bytes) beside those that its producer passed.
pub const JOB_BYTES: u64 = 256;

/// The most tries that a producer can ask for.
pub const ATTEMPTS_MAX: u32 = 1_000;

/// How far ahead a job can be put off, and how long it can hold a key for a time.
pub const AHEAD_MAX: Duration = Duration::from_hours(10 * 365 * 24);

/// A job that a producer asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NewJob {
    /// The queue; its name is valid.
    pub queue: String,
    /// At most [`PAYLOAD_BYTES_MAX`].
    pub payload: Vec<u8>,
    /// The payload's media type, or empty.
    pub content_type: String,
    /// Names and values for the handler.
    pub metadata: Vec<(String, String)>,
    /// Not before this time; `None` is now.
    pub run_at: Option<Timestamp>,
    /// Higher runs earlier.
    pub priority: i16,
    /// Where another job of the queue holds this key, no new one is made.
    pub unique: Option<Unique>,
    /// Tries; `None` takes what the claiming type says.
    pub attempts_max: Option<u32>,
    /// Waiting jobs past which this one is refused, as the formation says of its queue.
    pub max_depth: Option<u64>,
    /// The same for the bytes of waiting jobs: their payloads, content types and metadata, and [`JOB_BYTES`] for each.
    pub max_bytes: Option<u64>,
}

/// A key that one job of a queue holds at a time. All scopes share one namespace: a key that is held in any of them
/// answers a duplicate, with the id of its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unique {
    /// At most [`UNIQUE_KEY_BYTES_MAX`], and not empty.
    pub key: String,
    /// How long this job holds it.
    pub scope: UniqueScope,
}

/// How long a job holds its unique key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UniqueScope {
    /// Until its first call [begins](Jobs::begin_call); a later attempt doesn't take it again. So there may be one that
    /// runs and one that waits, which sees what has changed since the first began.
    Waiting,
    /// Until it is done, dead, cancelled or discarded.
    #[default]
    Running,
    /// For this long from the enqueue, by the wall clock, whether it has ended or not. Only to discard the job frees
    /// the key earlier.
    For(Duration),
}

/// The answer to a [`NewJob`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enqueued {
    /// The new job, or the one that holds the unique key already. (That one may have been deleted by now where its
    /// scope is [`UniqueScope::For`].)
    pub id: JobId,
    /// False where the unique key was taken.
    pub created: bool,
}

/// Why jobs were not enqueued. None of the batch was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnqueueError {
    /// The queue holds `depth` waiting jobs already.
    #[error("queue \"{queue}\" holds {depth} waiting jobs, and its max_depth leaves no room for more")]
    Full {
        /// The queue.
        queue: String,
        /// Its scheduled, available and retrying jobs before this call.
        depth: u64,
    },
    /// The waiting jobs of the queue would have more bytes than they may.
    #[error(
        "queue \"{queue}\" holds {bytes} bytes of waiting jobs, and its max_bytes of {max} leaves no room for this"
    )]
    FullOfBytes {
        /// The queue.
        queue: String,
        /// The bytes of its scheduled, available and retrying jobs before this call.
        bytes: u64,
        /// How many they may have.
        max: u64,
    },
    /// It can't be stored as it is.
    #[error("{0}")]
    Invalid(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl EnqueueError {
    /// Which of them it is.
    pub fn name(&self) -> &'static str {
        match self {
            EnqueueError::Full { .. } | EnqueueError::FullOfBytes { .. } => "full",
            EnqueueError::Invalid(_) => "invalid",
            EnqueueError::Store(_) => "unavailable",
        }
    }
}

/// The question for jobs of a type that has room.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// The asking host: unique for each boot of each host.
    pub owner: String,
    /// Where to look.
    pub queues: Vec<ClaimQueue>,
    /// At most this many jobs, at least 1.
    pub limit: u32,
    /// How long the lease is valid unless it is renewed.
    pub lease: Duration,
    /// Tries of a job whose producer didn't say.
    pub attempts_default: u32,
}

/// A queue that a claim looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimQueue {
    /// Its name.
    pub name: String,
    /// At least 1: a queue of weight 3 is looked at first three times as often as one of 1.
    pub weight: u32,
    /// The most jobs of it that may be leased at once, over all owners; `None` is no limit.
    pub concurrency: Option<u32>,
}

/// An instance's time-limited claim on a job. The number is the fencing token: each claim of a job raises it, and
/// an answer with an older one is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The job.
    pub id: JobId,
    /// The job's `claim` number when it was leased.
    pub claim: i64,
}

/// A job that was just claimed.
#[derive(Debug, Clone, PartialEq)]
pub struct LeasedJob {
    /// The claim, to be answered with.
    pub lease: Lease,
    /// Its queue.
    pub queue: String,
    /// Which try this is, from 1.
    pub attempt: u32,
    /// How many there will be at most.
    pub attempts_max: u32,
    /// How often it ended its instance so far.
    pub crashes: u32,
    /// The bytes that the producer passed.
    pub payload: Vec<u8>,
    /// Its media type, or empty.
    pub content_type: String,
    /// Names and values for the handler.
    pub metadata: Vec<(String, String)>,
    /// When it was enqueued.
    pub enqueued_at: Timestamp,
    /// When this try was due.
    pub due_at: Timestamp,
    /// It may hold a key of scope [`Waiting`](UniqueScope::Waiting), which [`begin_call`](Jobs::begin_call) frees.
    pub holds_key: bool,
    /// No other job may be in its instance: it crashed together with others before.
    pub alone: bool,
}

/// How an attempt failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// The next step.
    pub then: AfterFailure,
    /// For people; what is longer than [`MESSAGE_BYTES_MAX`] is cut at a character.
    pub message: String,
    /// How long the next try waits, where `then` doesn't say.
    pub backoff: Backoff,
}

/// The next step after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterFailure {
    /// Wait as the failure's [`Backoff`] says, then try again while attempts are left.
    Retry,
    /// Wait this long, then try again while attempts are left.
    RetryAfter(Duration),
    /// The same as `Retry`, and counted: the third one of a job buries it.
    Crash,
    /// It crashed together with other jobs in one instance, and nobody knows whose fault it was. The attempt doesn't
    /// count; the next ones are [alone](LeasedJob::alone).
    CrashTogether,
    /// Dead at once.
    Bury,
}

/// The state that an answer to a lease led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It is done.
    Done,
    /// It will be tried again at that time.
    Retrying(Timestamp),
    /// It waits again, with no attempt used up.
    Released,
    /// It is dead.
    Dead,
    /// Nothing: the lease had been lost, and the job belongs to someone else (or is cancelled) by now.
    Stale,
}

/// How long jobs that have ended are kept, and how many at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Done and cancelled ones: for this long...
    pub done_for: Duration,
    /// ...and at most this many.
    pub done_max: u64,
    /// Dead ones: for this long...
    pub dead_for: Duration,
    /// ...and at most this many.
    pub dead_max: u64,
}

impl Default for Retention {
    /// An hour and 100,000; 180 days and 10,000, as Sidekiq keeps its dead set.
    fn default() -> Self {
        const HOUR: Duration = Duration::from_secs(3600);
        Retention { done_for: HOUR, done_max: 100_000, dead_for: HOUR * 24 * 180, dead_max: 10_000 }
    }
}

/// The part of a process that runs jobs. A host that was stopped, or whose store couldn't be written, for longer than its leases
/// last would otherwise take away the jobs of its own calls.
pub trait Holder: Send + Sync + 'static {
    /// Whether this lease is that of a job which is here. It must not wait for the store.
    fn holds(&self, lease: Lease) -> bool;
}

/// The queue. Every method returns when what it says is durable.
#[async_trait]
pub trait Jobs: Send + Sync + 'static {
    /// The same jobs, for the calls of one source: a process type, or whoever else may have very many. Where calls wait for
    /// the store, sources take turns: a call of one doesn't wait for all of another's. Calls of no named source are those
    /// of one, too.
    fn in_line_of(&self, source: &str) -> Arc<dyn Jobs>;

    /// Puts all these jobs on their queues or none of them; answers in the same order. At most
    /// [`ENQUEUE_JOBS_MAX`] jobs and [`BATCH_BYTES_MAX`] of payload.
    async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<Vec<Enqueued>, EnqueueError>;

    /// Leases what is due, best first (priority, then `run_at`, then id). Jobs whose lease ran out are due too, or
    /// dead where no attempt is left. Empty where there is nothing. It may hand out fewer than `limit` where their
    /// payloads come to [`BATCH_BYTES_MAX`]; but never none.
    ///
    /// Nothing comes from a paused queue, nor from one that has as many leased jobs as its `concurrency`; leases
    /// that ran out there are seen to all the same.
    ///
    /// A caller that goes away while this runs (its future is dropped) leaves no job leased to nobody, unless the
    /// host dies at that moment too.
    async fn claim(&self, claim: Claim) -> Result<Vec<LeasedJob>, StoreError>;

    /// A job's call begins now: it frees its key of scope [`Waiting`](UniqueScope::Waiting). To be called before the call
    /// of a job that [holds](LeasedJob::holds_key) one, so that whoever finds the key taken knows that no call has
    /// begun. False where the lease had been lost.
    async fn begin_call(&self, lease: Lease) -> Result<bool, StoreError>;

    /// Makes these leases valid for that long from now, and returns those that had been lost (also: whose jobs were
    /// cancelled).
    async fn renew(&self, leases: Vec<Lease>, lease: Duration) -> Result<Vec<Lease>, StoreError>;

    /// The job is done.
    async fn complete(&self, lease: Lease) -> Result<Settled, StoreError>;

    /// The attempt failed.
    async fn fail(&self, lease: Lease, failure: Failure) -> Result<Settled, StoreError>;

    /// The attempt was cut short by the host, and doesn't count.
    async fn release(&self, lease: Lease) -> Result<Settled, StoreError>;

    /// The attempt never began: the job goes back as if it had not been claimed, but for its `claim` number.
    async fn give_back(&self, lease: Lease) -> Result<Settled, StoreError>;

    /// From now on this holder is asked before a lease is taken back that ran out. One that it still has is made valid
    /// again for as long as it was. Only the first holder is heard: a host has one.
    fn hold(&self, holder: Arc<dyn Holder>);

    /// Frees every lease of owners that begin with `prefix`, which are earlier boots of this host. The attempts
    /// that they interrupted count. Returns how many.
    async fn free_leases(&self, prefix: &str) -> Result<u64, StoreError>;

    /// When the next job of these queues that isn't due yet, or whose lease may run out, will be due. A time that
    /// has passed means that a `claim` may find something now. Jobs that are available already don't count, nor do
    /// those of paused queues. By the wall clock.
    async fn next_due(&self, queues: &[String]) -> Result<Option<Timestamp>, StoreError>;

    /// Nothing is claimed from this queue until it is resumed, by whatever host, and after a restart too. A job that
    /// was claimed before runs on; jobs can be enqueued. The queue need not have had jobs yet. False where it was
    /// paused already. [`StoreError::Invalid`] where no queue can have that name.
    async fn pause(&self, queue: &str) -> Result<bool, StoreError>;

    /// Ends the pause. False where there was none.
    async fn resume(&self, queue: &str) -> Result<bool, StoreError>;

    /// Does this to one job, where its state allows it.
    async fn intervene(&self, id: JobId, intervention: Intervention) -> Result<Intervened, StoreError>;

    /// Does this to jobs of `filter` whose state allows it, at most [`INTERVENE_JOBS_MAX`] of them: call it again
    /// while there are [`more`](Swept::more).
    async fn intervene_all(&self, filter: JobFilter, intervention: Intervention)
    -> Result<Swept, StoreError>;

    /// [`Intervention::Cancel`], for one job.
    async fn cancel(&self, id: JobId) -> Result<Intervened, StoreError> {
        self.intervene(id, Intervention::Cancel).await
    }

    /// [`Intervention::Retry`], for one job.
    async fn retry(&self, id: JobId) -> Result<Intervened, StoreError> {
        self.intervene(id, Intervention::Retry).await
    }

    /// [`Intervention::Discard`], for one job.
    async fn discard(&self, id: JobId) -> Result<Intervened, StoreError> {
        self.intervene(id, Intervention::Discard).await
    }

    /// [`Intervention::Cancel`], for many.
    async fn cancel_all(&self, filter: JobFilter) -> Result<Swept, StoreError> {
        self.intervene_all(filter, Intervention::Cancel).await
    }

    /// [`Intervention::Retry`], for many.
    async fn retry_all(&self, filter: JobFilter) -> Result<Swept, StoreError> {
        self.intervene_all(filter, Intervention::Retry).await
    }

    /// [`Intervention::Discard`], for many.
    async fn discard_all(&self, filter: JobFilter) -> Result<Swept, StoreError> {
        self.intervene_all(filter, Intervention::Discard).await
    }

    /// One job with all that is known of it.
    async fn get(&self, id: JobId) -> Result<Option<JobDetail>, StoreError>;

    /// The jobs of `filter`, a page at a time, in the order of their ids.
    async fn list(&self, filter: JobFilter, page: Page) -> Result<Vec<JobView>, StoreError>;

    /// How many jobs are in each state, a row for each queue that has any or is paused, by name.
    async fn counts(&self) -> Result<Vec<QueueCounts>, StoreError>;

    /// Deletes what has been kept for long enough, oldest first, at most [`PRUNE_JOBS_MAX`] jobs and as many expired
    /// unique keys at a time: call it again until it returns 0. Returns how many jobs and keys it deleted.
    async fn prune(&self, retention: Retention) -> Result<u64, StoreError>;

    /// Changes, after it is durable, whenever a job may have become available or [`next_due`](Jobs::next_due) may
    /// have moved (enqueued, retried, released, resumed; or one ended in a queue whose `concurrency` kept a
    /// claim from jobs).
    fn changes(&self) -> tokio::sync::watch::Receiver<u64>;
}
