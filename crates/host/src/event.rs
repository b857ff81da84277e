//! Events: what the supervisor is told of instances.

use std::sync::Arc;

use wasmhost_engine::{CallEnd, Instance};

use crate::deaths::Death;

/// One attempt at an instance of a type: while it starts, while the instance serves and leaves, or while it waits after
/// a failure. Never used twice in a host's life, so that whoever is late with news of one disturbs no other.
pub(crate) type MemberId = u64;

/// Something that happened. `type_index` is the type's place in the formation.
pub(crate) enum Event {
    /// An instance is there, or failed to start.
    Started { type_index: usize, member: MemberId, result: Result<Instance, CallEnd> },
    /// An instance is gone.
    Ended { type_index: usize, member: MemberId, how: Ended },
    /// An instance will soon have served all the calls that it may.
    Due { type_index: usize, member: MemberId },
    /// One that was asked to leave during a move has had its time.
    Late { type_index: usize, member: MemberId },
    /// Time has passed: a move may be over.
    Look,
    /// An instance that no type counts has no name any more.
    NameFree { process: Arc<str>, index: u32 },
    /// The wait after a failure is over. The member may have been tried again before.
    BackoffOver { type_index: usize, member: MemberId },
}

/// Why an instance is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was asked to leave, and finished its call.
    Drained,
    /// It has served all the calls that it may.
    Spent,
    /// A call crashed it, or took too long.
    ByCall(Death),
    /// The host ended its call: the client had gone, say.
    Cancelled,
    /// Its place got no fresh instance.
    FailedToStart(Death),
    /// A command that should run always has ended.
    Exited(Death),
}

impl Event {
    /// The type that it is about.
    pub(crate) fn type_index(&self) -> Option<usize> {
        match self {
            Event::Started { type_index, .. }
            | Event::Ended { type_index, .. }
            | Event::Due { type_index, .. }
            | Event::Late { type_index, .. }
            | Event::BackoffOver { type_index, .. } => Some(*type_index),
            Event::Look | Event::NameFree { .. } => None,
        }
    }
}
