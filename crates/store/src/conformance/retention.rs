//! Jobs that have ended are kept for a while; and how many there are of everything.

use std::time::Duration;

use super::{START, Subject, claim, job, keyed};
use crate::Jobs;
use crate::jobs::{AfterFailure, Claim, JobId, NewJob, QueueCounts, Retention};

const HOUR: Duration = Duration::from_secs(3_600);

const FOR_EVER: Retention =
    Retention { done_for: Duration::MAX, done_max: u64::MAX, dead_for: Duration::MAX, dead_max: u64::MAX };

/// Enqueues that many jobs and ends them, so or so.
async fn ended<S: Jobs>(s: &Subject<S>, count: usize, well: bool) -> Vec<JobId> {
    s.store.enqueue(vec![job("mail"); count]).await.unwrap();
    let jobs = s.store.claim(Claim { limit: count as u32, ..claim("mail") }).await.unwrap();
    assert_eq!(jobs.len(), count);
    for leased in &jobs {
        if well {
            s.store.complete(leased.lease).await.unwrap();
        } else {
            s.fail(leased, AfterFailure::Bury).await;
        }
    }
    jobs.iter().map(|job| job.lease.id).collect()
}

async fn exists<S: Jobs>(s: &Subject<S>, id: JobId) -> bool {
    s.store.get(id).await.unwrap().is_some()
}

pub(super) async fn what_is_young_is_kept<S: Jobs>(s: &Subject<S>) {
    ended(s, 3, true).await;
    ended(s, 3, false).await;
    s.clock.advance(HOUR - Duration::from_millis(1));
    assert_eq!(s.store.prune(Retention::default()).await.unwrap(), 0);
    assert_eq!(s.store.prune(FOR_EVER).await.unwrap(), 0);
}

pub(super) async fn done_jobs_go_by_age<S: Jobs>(s: &Subject<S>) {
    let old = ended(s, 2, true).await;
    s.clock.advance(HOUR / 2);
    let young = ended(s, 2, true).await;
    let dead = ended(s, 1, false).await;
    s.clock.advance(HOUR / 2);
    assert_eq!(s.store.prune(Retention::default()).await.unwrap(), 2);
    assert!(!exists(s, old[0]).await && !exists(s, old[1]).await);
    assert!(exists(s, young[0]).await && exists(s, young[1]).await && exists(s, dead[0]).await);
    assert_eq!(s.count("mail").await.done, 2);
}

pub(super) async fn done_jobs_go_by_count<S: Jobs>(s: &Subject<S>) {
    let first = ended(s, 2, true).await;
    s.clock.advance(Duration::from_secs(1));
    let second = ended(s, 3, true).await;
    assert_eq!(s.store.prune(Retention { done_max: 3, ..FOR_EVER }).await.unwrap(), 2);
    assert!(!exists(s, first[0]).await && !exists(s, first[1]).await);
    assert_eq!(s.store.prune(Retention { done_max: 1, ..FOR_EVER }).await.unwrap(), 2);
    assert!(!exists(s, second[0]).await && exists(s, second[2]).await);
    assert_eq!(s.store.prune(Retention { done_max: 0, ..FOR_EVER }).await.unwrap(), 1);
}

pub(super) async fn dead_jobs_have_their_own_terms<S: Jobs>(s: &Subject<S>) {
    ended(s, 2, true).await;
    let dead = ended(s, 4, false).await;
    assert_eq!(s.store.prune(Retention { dead_max: 3, ..FOR_EVER }).await.unwrap(), 1);
    assert!(!exists(s, dead[0]).await);
    s.clock.advance(HOUR);
    assert_eq!(s.store.prune(Retention { dead_for: HOUR, ..FOR_EVER }).await.unwrap(), 3);
    assert_eq!(
        s.count("mail").await,
        QueueCounts { queue: "mail".to_string(), done: 2, ..QueueCounts::default() }
    );
}

pub(super) async fn pruning_is_bounded<S: Jobs>(s: &Subject<S>) {
    ended(s, 700, true).await;
    ended(s, 600, false).await;
    s.clock.advance(HOUR);
    let all = Retention { done_for: HOUR, dead_for: HOUR, ..FOR_EVER };
    assert_eq!(s.store.prune(all).await.unwrap(), 1_000);
    assert_eq!(s.store.prune(all).await.unwrap(), 300);
    assert_eq!(s.store.prune(all).await.unwrap(), 0);
}

pub(super) async fn pruning_spares_what_lives<S: Jobs>(s: &Subject<S>) {
    s.store.enqueue(vec![job("mail"); 3]).await.unwrap();
    s.put(NewJob { run_at: Some(START + HOUR), ..job("mail") }).await;
    s.take_one("mail").await;
    let leased = s.take_one("mail").await;
    s.fail(&leased, AfterFailure::Retry).await;
    s.clock.advance(HOUR * 100_000);
    let none = Retention { done_for: Duration::ZERO, done_max: 0, dead_for: Duration::ZERO, dead_max: 0 };
    let before = s.store.counts().await.unwrap();
    assert_eq!(s.store.prune(none).await.unwrap(), 0);
    assert_eq!(s.store.counts().await.unwrap(), before);
}

pub(super) async fn a_pruned_job_is_gone<S: Jobs>(s: &Subject<S>) {
    let id = ended(s, 1, true).await[0];
    assert_eq!(s.store.prune(Retention { done_max: 0, ..FOR_EVER }).await.unwrap(), 1);
    assert_eq!(s.store.get(id).await.unwrap(), None);
    s.put(keyed("mail", "k")).await;
}

pub(super) async fn an_empty_queue_is_not_counted<S: Jobs>(s: &Subject<S>) {
    ended(s, 1, true).await;
    assert_eq!(s.store.counts().await.unwrap().len(), 1);
    s.store.prune(Retention { done_max: 0, ..FOR_EVER }).await.unwrap();
    assert_eq!(s.store.counts().await.unwrap(), []);
}

pub(super) async fn ids_are_never_used_again<S: Jobs>(s: &Subject<S>) {
    let last = *ended(s, 3, true).await.last().unwrap();
    s.store.prune(Retention { done_max: 0, ..FOR_EVER }).await.unwrap();
    assert!(s.put(job("mail")).await > last);
}

pub(super) async fn counts_follow_each_state<S: Jobs>(s: &Subject<S>) {
    ended(s, 2, true).await;
    ended(s, 3, false).await;
    s.store.enqueue(vec![job("mail"); 7]).await.unwrap();
    s.put(NewJob { run_at: Some(START + HOUR), ..job("mail") }).await;
    for _ in 0..2 {
        s.take_one("mail").await;
        let leased = s.take_one("mail").await;
        s.fail(&leased, AfterFailure::Retry).await;
    }
    s.put(job("a")).await;
    let mail = QueueCounts {
        queue: "mail".to_string(),
        scheduled: 1,
        available: 3,
        leased: 2,
        retrying: 2,
        done: 2,
        dead: 3,
        cancelled: 0,
        paused: false,
        oldest_waiting: Some(START),
    };
    let a = QueueCounts {
        queue: "a".to_string(),
        available: 1,
        oldest_waiting: Some(START),
        ..QueueCounts::default()
    };
    assert_eq!(s.store.counts().await.unwrap(), [a, mail]);
}
