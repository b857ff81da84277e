//! What calls instances besides requests: one file for each. A trigger is a loop that ends when `intake` says so;
//! what it has begun goes on, and `running` knows of it.

pub(crate) mod ahead;
pub(crate) mod queue;
pub(crate) mod release;
pub(crate) mod schedule;
pub(crate) mod underway;

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
