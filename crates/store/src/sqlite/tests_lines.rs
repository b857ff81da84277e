//! Properties of the lines in which callers wait for the writer.

use std::sync::Arc;

use tokio::task::{JoinHandle, yield_now};

use super::tests::{hold_writer, job};
use super::*;
use crate::jobs::JobState;

/// So many calls at once, each with so many jobs. They are in line when this returns, as far as it has room for them.
async fn flood(
    of: &Arc<dyn Jobs>,
    calls: usize,
    jobs: usize,
) -> Vec<JoinHandle<Result<Vec<Enqueued>, EnqueueError>>> {
    let call = || {
        let of = of.clone();
        tokio::spawn(async move { of.enqueue(vec![job(1); jobs]).await })
    };
    let flood = (0..calls).map(|_| call()).collect();
    for _ in 0..calls {
        yield_now().await;
    }
    flood
}

#[tokio::test]
async fn jobs_of_one_type_do_not_wait_for_all_that_another_enqueues() {
    let store = SqliteStore::in_memory().unwrap();
    let (storm, good) = (store.in_line_of("storm"), store.in_line_of("good"));
    let go = hold_writer(&store).await;
    let flood = flood(&storm, 20, 300).await;
    let (enqueued, of_host, ()) =
        tokio::join!(good.enqueue(vec![job(1)]), store.enqueue(vec![job(1)]), async { drop(go) });
    // Ids are given in the order in which jobs are stored: one call of the flood was before them, and nineteen after.
    assert_eq!([enqueued.unwrap()[0].id, of_host.unwrap()[0].id], [JobId(301), JobId(302)]);
    for call in flood {
        call.await.unwrap().unwrap();
    }
    store.close().await;
    assert!(good.enqueue(vec![job(1)]).await.is_err(), "it is the same store");
}

#[tokio::test]
async fn callers_wait_for_room_in_the_line_of_their_source_alone() {
    let store = SqliteStore::in_memory().unwrap();
    let (storm, good) = (store.in_line_of("storm"), store.in_line_of("good"));
    let go = hold_writer(&store).await;
    // More than a line takes.
    let flood = flood(&storm, 2_000, 1).await;
    let (enqueued, ()) = tokio::join!(good.enqueue(vec![job(1)]), async { drop(go) });
    assert!(enqueued.unwrap()[0].id < JobId(200));
    for call in flood {
        call.await.unwrap().unwrap();
    }
}

/// Two changes of a thousand jobs each aren't one transaction, and one of another line has its turn between them.
#[tokio::test]
async fn an_operation_on_many_jobs_counts_for_all_that_it_may_change() {
    let store = SqliteStore::in_memory().unwrap();
    let good = store.in_line_of("good");
    store.enqueue(vec![job(1); 1_000]).await.unwrap();
    let last = store.enqueue(vec![job(1); 1_000]).await.unwrap()[999].id;
    let cancel_all = || store.intervene_all(JobFilter::default(), Intervention::Cancel);
    let go = hold_writer(&store).await;
    let (first, second, one, ()) =
        tokio::join!(cancel_all(), cancel_all(), good.cancel(last), async { drop(go) });
    let moved = Intervened::Moved { from: JobState::Available, to: JobState::Cancelled };
    assert_eq!(one.unwrap(), moved, "the second thousand is canceled after it");
    assert_eq!([first.unwrap().changed, second.unwrap().changed], [1_000, 999]);
}
