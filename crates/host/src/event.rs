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
    /// The wait after a failure is over.
    BackoffOver { process: usize, member: MemberId },
}

/// Why an instance is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was asked to leave, and finished its call.
    Drained,
    /// It had done what it can do: a command serves one call.
    Spent,
    /// A call ended it; the text says how.
    ByCall(String),
    /// A command that should run always has ended; the text says how.
    Exited(String),
}
