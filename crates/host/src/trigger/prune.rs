//! Jobs that have ended go when they have been kept for long enough.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use wasmhost_config::Formation;
use wasmhost_store::Jobs;
use wasmhost_store::jobs::Retention;

use crate::release::Live;

/// How often ended jobs are looked through.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// Deletes old jobs, as the live release says: a bounded number at a time, until `intake` ends.
pub(crate) async fn prune(jobs: Arc<dyn Jobs>, live: Arc<ArcSwap<Live>>, intake: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(PRUNE_EVERY) => {}
            () = intake.cancelled() => return,
        }
        // A million of them take a while.
        while !intake.is_cancelled() {
            match jobs.prune(retention(&live.load().formation)).await {
                Ok(0) => break,
                Ok(_) => tokio::task::yield_now().await,
                Err(err) => {
                    warn!("old jobs could not be deleted: {err}");
                    break;
                }
            }
        }
    }
}

fn retention(formation: &Formation) -> Retention {
    let wasmhost_config::Retention { done_for, done_max, dead_for, dead_max } = formation.retention;
    Retention { done_for, done_max, dead_for, dead_max }
}
