//! Calls, as the host knows them: what a call is given, what it may use, and how it ends. [`CallEnd`] is one enum, from
//! which the host derives an HTTP status or a retry.

mod met;

use std::time::{Duration, Instant};

pub(crate) use met::{Deadline, bytes};
pub use met::{Shortage, Spent};

/// A call that is over.
#[derive(Debug, Clone)]
pub struct CallReport<T = ()> {
    /// How it ended.
    pub end: CallEnd<T>,
    /// From when it was given to the instance until it ended.
    pub wall: Duration,
    /// The time that the guest computed meanwhile.
    pub cpu: Duration,
    /// The most memory the instance has had so far: bytes of linear memories and tables.
    pub memory_peak: u64,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq)]
pub enum CallEnd<T = ()> {
    /// The guest returned, with its own answer.
    Returned(T),
    /// The guest ended itself with this exit code.
    Exited(i32),
    /// The guest trapped. The text is for people: the reason, then the guest's backtrace, a frame a line.
    Trap(String),
    /// It ran out of the memory it was granted.
    OutOfMemory(Shortage),
    /// It took longer than `timeout`.
    Timeout(Spent),
    /// It computed for longer than `cpu`.
    OutOfCpu(Spent),
    /// The host ended it: grace was over, the client had gone, or a person said so.
    Interrupted,
    /// The host failed the guest, not the other way round.
    Host(String),
    /// The guest answered a request with an error code instead of a response. Nothing is wrong with its instance.
    ErrorCode(String),
    /// The guest hasn't seen the call: its instance took no more of them.
    Refused(String),
}

/// How long a call goes on whose client has gone away. Ending it costs the instance, so that a guest that is almost
/// done should be let.
pub(crate) const DETACHED_MAX: Duration = Duration::from_secs(1);

/// The bounds of a call.
#[derive(Debug, Clone, Copy, Default)]
pub struct CallLimits {
    /// Wall time, until the guest has answered; `None` has no limit. An answer that takes longer may: from its head on
    /// the time counts from the last of it that was taken.
    pub timeout: Option<Duration>,
    /// Guest CPU time; `None` has no limit. Looked at whenever the guest yields, so that it may be exceeded by 2 ms.
    pub cpu: Option<Duration>,
}

impl CallLimits {
    pub(crate) fn deadline(&self, start: Instant) -> Option<Deadline> {
        self.timeout.and_then(|timeout| Deadline::after(start, timeout))
    }
}

impl CallEnd {
    /// The same of a call that should have had an answer, and had none.
    pub(crate) fn without_answer<T>(self) -> CallEnd<T> {
        match self {
            CallEnd::Returned(()) => CallEnd::Host("the call ended without an answer".into()),
            CallEnd::Exited(code) => CallEnd::Exited(code),
            CallEnd::Trap(message) => CallEnd::Trap(message),
            CallEnd::OutOfMemory(shortage) => CallEnd::OutOfMemory(shortage),
            CallEnd::Timeout(spent) => CallEnd::Timeout(spent),
            CallEnd::OutOfCpu(spent) => CallEnd::OutOfCpu(spent),
            CallEnd::Interrupted => CallEnd::Interrupted,
            CallEnd::Host(message) => CallEnd::Host(message),
            CallEnd::ErrorCode(code) => CallEnd::ErrorCode(code),
            CallEnd::Refused(why) => CallEnd::Refused(why),
        }
    }
}

impl<T> CallEnd<T> {
    /// The same end with another answer.
    pub fn map<U>(self, answer: impl FnOnce(T) -> U) -> CallEnd<U> {
        match self {
            CallEnd::Returned(value) => CallEnd::Returned(answer(value)),
            CallEnd::Exited(code) => CallEnd::Exited(code),
            CallEnd::Trap(message) => CallEnd::Trap(message),
            CallEnd::OutOfMemory(shortage) => CallEnd::OutOfMemory(shortage),
            CallEnd::Timeout(spent) => CallEnd::Timeout(spent),
            CallEnd::OutOfCpu(spent) => CallEnd::OutOfCpu(spent),
            CallEnd::Interrupted => CallEnd::Interrupted,
            CallEnd::Host(message) => CallEnd::Host(message),
            CallEnd::ErrorCode(code) => CallEnd::ErrorCode(code),
            CallEnd::Refused(why) => CallEnd::Refused(why),
        }
    }

    /// Whether the guest failed: what it does again with the same call, unless its instance was to blame.
    pub fn is_crash(&self) -> bool {
        matches!(self, CallEnd::Exited(_) | CallEnd::Trap(_) | CallEnd::OutOfMemory(_))
    }

    /// One line for a person: in the log, or as a job's last error.
    pub fn summary(&self) -> String {
        match self {
            CallEnd::Returned(_) => "returned".into(),
            CallEnd::Exited(code) => format!("exited with code {code}"),
            CallEnd::Trap(message) => message.lines().next().unwrap_or("trapped").to_owned(),
            CallEnd::OutOfMemory(shortage) => format!("ran out of the memory granted to it ({shortage})"),
            CallEnd::Timeout(spent) => format!("took longer than its timeout (ran {spent})"),
            CallEnd::OutOfCpu(spent) => format!("used more CPU than its budget (computed {spent})"),
            CallEnd::Interrupted => "was interrupted by the host".into(),
            CallEnd::Host(message) => message.clone(),
            CallEnd::ErrorCode(code) => format!("answered with the error {code}"),
            CallEnd::Refused(why) => why.clone(),
        }
    }
}

/// The scheme that the client used, as far as the ingress knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestScheme {
    /// Plain.
    Http,
    /// By TLS, here or at a proxy that is trusted.
    Https,
}

/// A job handler's answer when the job is not done; `wasmhost:job/types.failure`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobFailure {
    /// Again after the usual backoff.
    Retry(String),
    /// Again after this long.
    RetryAfter(Duration, String),
    /// Never again.
    Bury(String),
}

/// One job, as a guest is given it.
#[derive(Debug, Clone, Default)]
pub struct Job {
    /// Its name in the store.
    pub id: String,
    /// The queue it came from.
    pub queue: String,
    /// Which try this is, from 1.
    pub attempt: u32,
    /// How many there will be at most.
    pub attempts: u32,
    /// The payload's media type, or empty.
    pub content_type: String,
    /// The bytes that the producer passed.
    pub payload: Vec<u8>,
    /// Names and values from the producer.
    pub metadata: Vec<(String, String)>,
}

/// One time of a schedule, as a guest is given it.
#[derive(Debug, Clone)]
pub struct Tick {
    /// The process type.
    pub schedule: String,
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub nominal_ms: u64,
    /// True where a person asked for it.
    pub manual: bool,
}
