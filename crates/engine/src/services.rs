//! The host's services to guests, as traits in the engine's own types. The host implements them over its store and its
//! logs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Uri};

/// `web.1`: a type and the instance's index in it, from 1.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InstanceName {
    /// The process type.
    pub process: Arc<str>,
    /// From 1.
    pub index: u32,
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.process, self.index)
    }
}

/// Which of its two streams a guest wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Where guests' lines go. Each type's are bounded: while there is no room for them, its guests that write wait.
pub trait LogSink: Send + Sync + 'static {
    /// Whether a guest may write now. A guest that was told so may write one piece of at most 8 KiB.
    fn has_room(&self, instance: &InstanceName) -> bool;

    /// Takes a line, without its end; what isn't UTF-8 in it has been replaced.
    fn line(&self, instance: &InstanceName, stream: Stream, text: &str);

    /// Counts a line in the place of one that is more than its type may write, which is so many bytes a second.
    fn past_rate(&self, instance: &InstanceName, bytes_per_second: u64);

    /// Waits until there is room, or a wait would be in vain.
    fn room(&self, instance: &InstanceName) -> BoxFuture<'static, ()>;
}

/// A job that a guest puts on a queue; `wasmhost:job/queue.new-job`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewJob {
    /// The bytes that the handler gets.
    pub payload: Vec<u8>,
    /// Not before this many milliseconds from now.
    pub delay_ms: Option<u64>,
    /// Higher runs earlier.
    pub priority: i16,
    /// A key that makes it one of a kind: while another job holds the same key in the queue, it isn't enqueued.
    pub unique: Option<Unique>,
    /// Tries; `None` takes what the worker's type says.
    pub attempts: Option<u32>,
    /// The payload's media type, or empty.
    pub content_type: String,
    /// Names and values for the handler.
    pub metadata: Vec<(String, String)>,
}

/// A key that one job of a queue holds at a time; `wasmhost:job/queue.unique`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unique {
    /// Each queue has its own.
    pub key: String,
    /// How long the job holds it.
    pub scope: UniqueScope,
}

/// How long a job holds its unique key; `wasmhost:job/queue.unique-scope`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UniqueScope {
    /// Until it is first given to an instance.
    Waiting,
    /// Until it has ended.
    Running,
    /// For so long from its enqueue, whether it has ended by then or not.
    Lasting(Duration),
}

/// The outcome of a [`NewJob`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The job's id, or that of the one that holds the unique key.
    pub id: String,
    /// False where another job held the unique key.
    pub created: bool,
}

/// Why jobs were not enqueued; none of the batch was. The texts are for the guest's author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnqueueRefusal {
    /// The queue holds as many jobs as it may, or this type has just put as many on it as it may.
    Full(String),
    /// A job can't be stored as it is.
    Invalid(String),
    /// The store can't make it durable now.
    Unavailable(String),
}

impl EnqueueRefusal {
    /// Which of them it is.
    pub fn name(&self) -> &'static str {
        match self {
            EnqueueRefusal::Full(_) => "full",
            EnqueueRefusal::Invalid(_) => "invalid",
            EnqueueRefusal::Unavailable(_) => "unavailable",
        }
    }
}

/// Puts jobs on queues. Whether the guest may use the queue has been checked.
#[async_trait]
pub trait Enqueue: Send + Sync + 'static {
    /// Puts jobs of `process` on a queue. Returns when all of them are durable, with a receipt for each; or none is.
    async fn enqueue(
        &self,
        process: &str,
        queue: &str,
        jobs: Vec<NewJob>,
    ) -> Result<Vec<Receipt>, EnqueueRefusal>;
}

/// Something a guest tried and has no grant for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// A request or a connection; the text is what `outbound` would have to say.
    Outbound(String),
    /// A look-up of this host's name.
    Lookup(String),
    /// A queue's name.
    Enqueue(String),
    /// Listening, or UDP.
    Network,
    /// A change below this directory, by its path in the sandbox.
    Write(String),
    /// A change that adds to a directory whose grant has as much as it may.
    Full {
        /// The directory, by its path in the sandbox.
        directory: String,
        /// As its grant says.
        bytes_max: u64,
    },
    /// A connection to this machine; the text is what `outbound` would have to say.
    Near(String),
}

/// Is told of refused grants, each time.
pub trait RefusalSink: Send + Sync + 'static {
    /// `process` tried what it has no grant for.
    fn refused(&self, process: &Arc<str>, refusal: Refusal);
}

/// The trace that a call belongs to. Its guest's requests and jobs go on in it.
pub trait CallTrace: fmt::Debug + Send + Sync + 'static {
    /// A guest's request goes out: its headers are given the trace, unless the guest has set one itself. Returns what is
    /// to be told of it, if anything is.
    fn request(&self, method: &Method, uri: &Uri, headers: &mut HeaderMap) -> Option<Box<dyn Sending>>;

    /// A guest puts jobs on a queue: they are given the trace, unless they have one.
    fn enqueue(&self, queue: &str, jobs: &mut [NewJob]) -> Option<Box<dyn Sending>>;

    /// The environment variables that tell a command of it.
    fn variables(&self) -> Vec<(String, String)>;
}

/// A call's trace, if it is part of one.
pub type Trace = Option<Arc<dyn CallTrace>>;

/// A request or jobs that a guest sends, as a trace has them. They are through when this is dropped.
pub trait Sending: Send {
    /// There is an answer, with this status.
    fn answered(&mut self, status: u16);

    /// The jobs are on their queue.
    fn enqueued(&mut self, receipts: &[Receipt]);

    /// There won't be an answer. The text is one of few: an error's name.
    fn failed(&mut self, error: &str);
}

/// All that guests may ask for.
#[derive(Clone)]
pub struct Services {
    /// Their output.
    pub logs: Arc<dyn LogSink>,
    /// Their jobs.
    pub enqueue: Arc<dyn Enqueue>,
    /// Is told of grants that they were refused.
    pub refusals: Arc<dyn RefusalSink>,
}
