//! A pool of instances that was made on a machine without swap isn't safe on one that has some. That is told.

use std::time::Duration;

use tracing::error;

use super::lasting::Lasting;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Says once that swap has come, as soon as `has_come` says it.
pub(super) fn watch(lasting: &Lasting, has_come: impl Fn() -> bool + Send + 'static) {
    lasting.spawn("the watch for swap", async move {
        while !has_come() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        error!(
            "swap was turned on while this host runs: what an instance leaves in memory that is swapped out can reach its successor. Start the host again, or turn swap off"
        );
        std::future::pending().await
    });
}
