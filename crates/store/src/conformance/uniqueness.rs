//! How long a key is held.

use std::time::Duration;

use super::{Subject, job};
use crate::Jobs;
use crate::jobs::{
    AfterFailure, Intervened, JobFilter, JobId, JobState, NewJob, Retention, Settled, Unique, UniqueScope,
};

const HOUR: Duration = Duration::from_secs(3_600);

fn keyed(scope: UniqueScope) -> NewJob {
    NewJob { unique: Some(Unique { key: "k".to_string(), scope }), ..job("mail") }
}

/// The job that answers for the key; a new one is not made.
async fn holder<S: Jobs>(s: &Subject<S>) -> JobId {
    let receipt = s.store.enqueue(vec![keyed(UniqueScope::Running)]).await.unwrap()[0];
    assert!(!receipt.created, "somebody holds it");
    receipt.id
}

pub(super) async fn a_waiting_key_is_held_until_a_call_begins<S: Jobs>(s: &Subject<S>) {
    let first = s.put(keyed(UniqueScope::Waiting)).await;
    assert_eq!(holder(s).await, first);
    // Claimed ahead, and back without a call: nothing has changed, and no attempt is told of.
    let ahead = s.take_one("mail").await;
    assert!(ahead.holds_key);
    assert_eq!(holder(s).await, first);
    assert_eq!(s.store.give_back(ahead.lease).await.unwrap(), Settled::Released);
    assert_eq!(holder(s).await, first);
    let detail = s.detail(first).await;
    assert_eq!(
        (detail.view.state, detail.view.attempt, detail.view.started_at),
        (JobState::Available, 0, None)
    );
    assert!(detail.attempts.is_empty());
    assert!(!s.store.begin_call(ahead.lease).await.unwrap(), "the lease was given back");
    assert_eq!(holder(s).await, first);
    let leased = s.take_one("mail").await;
    assert!(s.store.begin_call(leased.lease).await.unwrap());
    // It runs, and the next one may wait.
    let second = s.put(keyed(UniqueScope::Waiting)).await;
    assert_eq!(holder(s).await, second);
    // The first one doesn't take it again.
    s.store.release(leased.lease).await.unwrap();
    assert_eq!(holder(s).await, second);
    s.store.cancel(second).await.unwrap();
    s.put(keyed(UniqueScope::Waiting)).await;
}

pub(super) async fn a_key_for_a_time_outlives_its_job<S: Jobs>(s: &Subject<S>) {
    let id = s.put(keyed(UniqueScope::For(HOUR))).await;
    let leased = s.take_one("mail").await;
    s.store.complete(leased.lease).await.unwrap();
    assert_eq!(holder(s).await, id);
    // The job may be pruned long before.
    let none = Retention { done_for: Duration::ZERO, done_max: 0, ..Retention::default() };
    assert_eq!(s.store.prune(none).await.unwrap(), 1);
    assert_eq!(s.store.counts().await.unwrap(), []);
    s.clock.advance(HOUR - Duration::from_millis(1));
    assert_eq!(holder(s).await, id);
    s.clock.advance(Duration::from_millis(1));
    let next = s.put(keyed(UniqueScope::For(HOUR))).await;
    assert_eq!(holder(s).await, next);
}

pub(super) async fn scopes_share_their_keys<S: Jobs>(s: &Subject<S>) {
    for scope in [UniqueScope::Waiting, UniqueScope::Running, UniqueScope::For(HOUR)] {
        let id = s.put(keyed(scope)).await;
        for other in [UniqueScope::Waiting, UniqueScope::Running, UniqueScope::For(HOUR)] {
            let receipt = s.store.enqueue(vec![keyed(other)]).await.unwrap()[0];
            assert_eq!((receipt.id, receipt.created), (id, false));
        }
        s.store.discard(id).await.unwrap();
    }
}

pub(super) async fn a_key_for_no_time_still_counts_in_its_batch<S: Jobs>(s: &Subject<S>) {
    let batch = vec![keyed(UniqueScope::For(Duration::ZERO)); 2];
    let receipts = s.store.enqueue(batch.clone()).await.unwrap();
    assert_eq!((receipts[1].id, receipts[1].created), (receipts[0].id, false));
    assert!(s.store.enqueue(batch).await.unwrap()[0].created);
}

pub(super) async fn discarding_frees_the_key<S: Jobs>(s: &Subject<S>) {
    for scope in [UniqueScope::Waiting, UniqueScope::Running, UniqueScope::For(HOUR)] {
        let id = s.put(keyed(scope)).await;
        s.store.cancel(id).await.unwrap();
        s.store.discard(id).await.unwrap();
    }
    s.put(keyed(UniqueScope::Running)).await;
}

pub(super) async fn a_retried_job_takes_its_key_again<S: Jobs>(s: &Subject<S>) {
    let dead = async || {
        let id = s.put(keyed(UniqueScope::Running)).await;
        let leased = s.take_one("mail").await;
        s.fail(&leased, AfterFailure::Bury).await;
        id
    };
    let (first, second) = (dead().await, dead().await);
    let to = JobState::Available;
    assert_eq!(s.store.retry(second).await.unwrap(), Intervened::Moved { from: JobState::Dead, to });
    assert_eq!(holder(s).await, second);
    // Two of a key don't run at once, whoever says so.
    assert_eq!(s.store.retry(first).await.unwrap(), Intervened::KeyHeld { holder: second });
    assert_eq!(s.state(first).await, JobState::Dead);
    let swept = s.store.retry_all(JobFilter::default()).await.unwrap();
    assert_eq!((swept.changed, swept.more), (0, false));
    s.store.discard(second).await.unwrap();
    assert_eq!(s.store.retry_all(JobFilter::default()).await.unwrap().changed, 1);
    assert_eq!(holder(s).await, first);
}

pub(super) async fn expired_keys_are_pruned<S: Jobs>(s: &Subject<S>) {
    let id = s.put(keyed(UniqueScope::For(HOUR))).await;
    let keep = Retention { done_for: Duration::MAX, ..Retention::default() };
    assert_eq!(s.store.prune(keep).await.unwrap(), 0);
    s.clock.advance(HOUR);
    assert_eq!(s.store.prune(keep).await.unwrap(), 1);
    assert_eq!(s.store.prune(keep).await.unwrap(), 0);
    // The job is as it was, and can be found by the key that it had.
    let filter = JobFilter { unique_key: Some("k".to_string()), ..JobFilter::default() };
    let found = s.store.list(filter, crate::jobs::Page::default()).await.unwrap();
    assert!(found.len() == 1 && found[0].id == id);
}
