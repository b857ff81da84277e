//! Jobs that have ended are deleted when they have been kept for long enough.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use wasmhost_config::Formation;
use wasmhost_store::jobs::Retention;
use wasmhost_store::{Jobs, StoreError};

use crate::release::Live;

/// How often ended jobs are looked through.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// Deletes old jobs, as the live release says: a bounded number at a time, until `intake` ends.
pub(crate) async fn prune(jobs: Arc<dyn Jobs>, live: Arc<ArcSwap<Live>>, intake: CancellationToken) {
    repeat(|| jobs.prune(retention(&live.load().formation)), PRUNE_EVERY, intake).await;
}

/// `delete` says how many jobs it deleted.
async fn repeat<F>(delete: impl Fn() -> F, every: Duration, intake: CancellationToken)
where
    F: Future<Output = Result<u64, StoreError>>,
{
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = intake.cancelled() => return,
        }
        // A million of them take a while.
        while !intake.is_cancelled() {
            match delete().await {
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::ready;

    use super::*;

    /// How often it deletes until a stop that comes with the third time, if each time ends so.
    async fn deletes(every: Duration, end: impl Fn() -> Result<u64, StoreError>) -> u32 {
        let (deleted, intake) = (Cell::new(0), CancellationToken::new());
        let delete = || {
            deleted.set(deleted.get() + 1);
            if deleted.get() == 3 {
                intake.cancel();
            }
            ready(end())
        };
        repeat(delete, every, intake.clone()).await;
        deleted.get()
    }

    #[tokio::test]
    async fn a_stop_ends_it_in_the_middle_of_a_million() {
        assert_eq!(deletes(Duration::ZERO, || Ok(1_000)).await, 3);
    }

    #[tokio::test]
    async fn it_looks_again_when_there_was_nothing_and_when_the_store_failed() {
        assert_eq!(deletes(Duration::from_millis(1), || Ok(0)).await, 3);
        assert_eq!(deletes(Duration::from_millis(1), || Err(StoreError::Closed)).await, 3);
    }

    #[tokio::test]
    async fn a_stop_ends_it_between_two_looks() {
        let intake = CancellationToken::new();
        let never = || -> std::future::Ready<_> { panic!("it has just looked") };
        tokio::join!(repeat(never, PRUNE_EVERY, intake.clone()), async { intake.cancel() });
    }
}
