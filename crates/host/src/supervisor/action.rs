//! The actions that the supervisor may be told to take, and why it may refuse.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{Adopted, Canary, Name, TypeMeasure, Underway};
use crate::admin::api::{ScaleChange, TypeView};
use crate::members::split::Ring;
use crate::share::{Share, Takes};

/// An action that the supervisor may be told to take.
pub(crate) enum Action {
    /// Changes counts: all of them or, where one can't be, none. Answers with the new counts.
    Scale { changes: Vec<ScaleChange>, reply: oneshot::Sender<Result<BTreeMap<String, u32>, Refused>> },
    /// Goes back to the file's counts, of these types or of all.
    Reset { types: Vec<String>, reply: oneshot::Sender<Result<BTreeMap<String, u32>, Refused>> },
    /// Makes the types of a release those of the host. Answers when the move has begun. Types that aren't among them stay
    /// until they are retired.
    Adopt {
        types: Vec<Adopted>,
        grace: Duration,
        is_way_back: bool,
        reply: oneshot::Sender<Result<Underway, Refused>>,
    },
    /// Answers whether there is room for canaries of the types at these places.
    CheckCanary { of: Vec<(usize, Takes)>, share: Share, reply: oneshot::Sender<Result<(), Refused>> },
    /// Gives types a canary each. Answers when their instances start, as a move.
    Canary { canaries: Vec<Canary>, share: Share, reply: oneshot::Sender<Result<Underway, Refused>> },
    /// These types aren't in the live release: their instances leave.
    Retire { places: Vec<usize> },
    /// Answers with a name of this type that no instance has, nor will have before the answer is dropped.
    Name { process: Arc<str>, reply: oneshot::Sender<Name> },
    /// The formation's counts are shared with these hosts from now on, one of which this host is.
    Share { ring: Arc<Ring>, host: Arc<str> },
    /// The store has these counts, which were read after that time.
    HearCounts { counts: BTreeMap<String, u32>, asked_at: Instant },
    /// Replaces instances, each by one that serves before it leaves. Answers when the old ones have been asked to.
    Restart { target: Target, reply: oneshot::Sender<Result<u32, Refused>> },
    /// Answers when every one of these types (or of all) has exactly the instances it should, and no replacement is
    /// under way.
    Settled { types: Vec<String>, reply: oneshot::Sender<()> },
    /// Answers with how things stand.
    Look { reply: oneshot::Sender<Vec<TypeView>> },
    /// Answers with the same in figures, for metrics.
    Measure { reply: oneshot::Sender<Vec<TypeMeasure>> },
    /// The host drains: counts stay as they are, and what ends is still replaced, since calls go on.
    RefuseChanges,
    /// The host is going: starts nothing any more, and ends every call that still runs. Answers with how many there
    /// were, those of commands that run always left out: nothing can ask them to finish.
    InterruptAll { reply: oneshot::Sender<usize> },
}

/// Which instances: of a type, or one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) process: String,
    pub(crate) index: Option<u32>,
}

/// Why an action was refused, for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// It can't be done as things stand.
    #[error("{0}")]
    Conflict(String),
    /// The same may go well later.
    #[error("{0}")]
    Unavailable(String),
}
