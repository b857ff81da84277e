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

/// Who waits for each answer before asking again gets on while another's operations on many jobs wait.
#[tokio::test]
async fn the_writer_rests_from_heavy_operations_for_those_who_ask_one_by_one() {
    let store = SqliteStore::in_memory().unwrap();
    let (storm, good) = (store.in_line_of("storm"), store.in_line_of("good"));
    let mut before_second = false;
    // A busy machine may not let this thread run within the rest, which is as short as the operation.
    for _ in 0..100 {
        let go = hold_writer(&store).await;
        let mut flood = flood(&storm, 2, 1_000).await;
        let (first, ()) = tokio::join!(good.enqueue(vec![job(1)]), async { drop(go) });
        let second = good.enqueue(vec![job(1)]).await.unwrap()[0].id;
        let of_flood = flood.pop().unwrap().await.unwrap().unwrap()[0].id;
        assert!(first.unwrap()[0].id < of_flood);
        before_second |= second < of_flood;
        if before_second {
            break;
        }
    }
    assert!(before_second, "the next heavy operation was always taken at once");
    store.close().await;
}

#[tokio::test]
async fn heavy_operations_in_line_are_done_before_the_store_closes() {
    let store = SqliteStore::in_memory().unwrap();
    let storm = store.in_line_of("storm");
    let go = hold_writer(&store).await;
    let flood = flood(&storm, 20, 1_000).await;
    let ((), ()) = tokio::join!(store.close(), async { drop(go) });
    for call in flood {
        assert_eq!(call.await.unwrap().unwrap().len(), 1_000);
    }
}
