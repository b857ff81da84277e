//! What happens to instances, as the supervisor is told of it.

use wasmhost_engine::{CallEnd, Instance};

/// One member of a type: an instance, its replacement or the place of one. Never used twice in a host's life.
pub(crate) type MemberId = u64;

/// Something that happened.
pub(crate) enum Event {
    /// An instance is there, or failed to start.
    Started { process: usize, member: MemberId, result: Result<Instance, CallEnd> },
    /// An instance is gone.
    Ended { process: usize, member: MemberId, how: Ended },
    /// An instance will soon have served all the calls that it may.
    Due { process: usize, member: MemberId },
    /// The wait after a failure is over.
    BackoffOver { process: usize, member: MemberId },
}

/// Why an instance is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was asked to leave, and finished its call.
    Drained,
    /// It has served all the calls that it may.
    Spent,
    /// A call crashed it, or took too long; the text says how.
    ByCall(String),
    /// The host ended its call: the client had gone, say.
    Cancelled,
    /// Its place got no fresh instance; the text says why.
    FailedToStart(String),
    /// A command that should run always has ended; the text says how.
    Exited(String),
}
