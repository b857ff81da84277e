//! Triggers call instances, besides requests: one file for each. A trigger is a loop that ends when `intake` says so.
//! The calls that it has begun go on, and `running` counts them.

pub(crate) mod ahead;
pub(crate) mod claimed;
mod job_events;
pub(crate) mod job_log;
mod job_trace;
pub(crate) mod prune;
pub(crate) mod queue;
pub(crate) mod release;
pub(crate) mod schedule;
mod verdict;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The handles that tell every trigger when to begin nothing any more, and where to count what it has begun.
#[derive(Clone)]
pub(crate) struct Triggering {
    /// Take nothing more.
    pub(crate) intake: CancellationToken,
    /// Whether to take anything at present. A person may have paused it.
    pub(crate) is_taking: watch::Receiver<bool>,
    /// Calls under way.
    pub(crate) running: TaskTracker,
}

impl Triggering {
    /// Waits while a person has paused what is taken. False where intake has ended.
    pub(crate) async fn may_take(&self) -> bool {
        let mut is_taking = self.is_taking.clone();
        tokio::select! {
            biased;
            () = self.intake.cancelled() => false,
            // An error says that the host is going.
            taking = is_taking.wait_for(|is_taking| *is_taking) => taking.is_ok(),
        }
    }
}
