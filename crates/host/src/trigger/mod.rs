//! Triggers call instances, besides requests: one file for each. A trigger is a loop that ends when `intake` says so.
//! The calls that it has begun go on, and `running` counts them.

pub(crate) mod ahead;
pub(crate) mod claimed;
pub(crate) mod job_log;
pub(crate) mod prune;
pub(crate) mod queue;
pub(crate) mod release;
pub(crate) mod schedule;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What every trigger is told by: when to begin nothing any more, and where to count what it has begun.
#[derive(Clone)]
pub(crate) struct Triggering {
    /// Take nothing more.
    pub(crate) intake: CancellationToken,
    /// Calls under way.
    pub(crate) running: TaskTracker,
}
