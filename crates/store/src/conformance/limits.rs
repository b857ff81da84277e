//! Queues that give less than they have: at their concurrency, or paused.

use std::time::Duration;

use super::{LEASE, START, Subject, claim, crowd, job, weighted};
use crate::jobs::{AfterFailure, Claim, ClaimQueue, JobState, LeasedJob, NewJob};
use crate::{Jobs, StoreError};

const SECOND: Duration = Duration::from_secs(1);

fn limited(concurrency: u32, limit: u32) -> Claim {
    let queue = ClaimQueue { concurrency: Some(concurrency), ..weighted("mail", 1) };
    Claim { queues: vec![queue], limit, ..claim("mail") }
}

async fn take<S: Jobs>(s: &Subject<S>, concurrency: u32, limit: u32) -> Vec<LeasedJob> {
    s.store.claim(limited(concurrency, limit)).await.unwrap()
}

pub(super) async fn concurrency_holds<S: Jobs>(s: &Subject<S>) {
    s.store.enqueue(vec![job("mail"); 9]).await.unwrap();
    assert_eq!(take(s, 0, 9).await.len(), 0);
    let jobs = take(s, 3, 9).await;
    assert_eq!(jobs.len(), 3);
    assert_eq!(take(s, 3, 1).await.len(), 0);
    assert_eq!(take(s, 2, 1).await.len(), 0);
    s.store.complete(jobs[0].lease).await.unwrap();
    s.fail(&jobs[1], AfterFailure::Bury).await;
    assert_eq!(take(s, 3, 9).await.len(), 2);
    // A claim without a limit isn't held by others' limits.
    assert!(s.take("mail").await.is_some());
}

pub(super) async fn concurrency_holds_over_all_owners<S: Jobs>(s: &Subject<S>) {
    s.store.enqueue(vec![job("mail"); 3]).await.unwrap();
    assert_eq!(take(s, 1, 1).await.len(), 1);
    let other = Claim { owner: "other/1".to_string(), ..limited(1, 1) };
    assert_eq!(s.store.claim(other).await.unwrap(), []);
}

pub(super) async fn a_limit_of_one_queue_stops_no_other<S: Jobs>(s: &Subject<S>) {
    s.store.enqueue(vec![job("mail"), job("mail"), job("reports"), job("reports")]).await.unwrap();
    let mut both = limited(1, 9);
    both.queues.push(weighted("reports", 1));
    assert_eq!(s.store.claim(both).await.unwrap().len(), 3);
}

pub(super) async fn room_is_a_change<S: Jobs>(s: &Subject<S>) {
    s.store.enqueue(vec![job("mail"); 9]).await.unwrap();
    let mut changes = s.store.changes();
    for end in 0..4 {
        let leased = take(s, 1, 1).await.remove(0);
        changes.mark_unchanged();
        // One that waits for room, and knows no other way to learn of it.
        assert_eq!(take(s, 1, 1).await, []);
        assert!(!changes.has_changed().unwrap());
        match end {
            0 => drop(s.store.complete(leased.lease).await.unwrap()),
            1 => drop(s.fail(&leased, AfterFailure::Bury).await),
            2 => drop(s.store.cancel(leased.lease.id).await.unwrap()),
            _ => drop(s.store.release(leased.lease).await.unwrap()),
        }
        assert!(changes.has_changed().unwrap(), "end {end}");
    }
}

pub(super) async fn an_ack_without_a_limit_is_none<S: Jobs>(s: &Subject<S>) {
    s.store.enqueue(vec![job("mail"); 3]).await.unwrap();
    let first = s.take_one("mail").await;
    let second = take(s, 2, 1).await.remove(0);
    let mut changes = s.store.changes();
    changes.mark_unchanged();
    s.store.complete(first.lease).await.unwrap();
    s.store.complete(second.lease).await.unwrap();
    assert!(!changes.has_changed().unwrap());
}

pub(super) async fn a_lost_lease_makes_room<S: Jobs>(s: &Subject<S>) {
    s.store.enqueue(vec![job("mail"); 2]).await.unwrap();
    assert_eq!(take(s, 1, 1).await.len(), 1);
    s.clock.advance(LEASE);
    assert_eq!(take(s, 1, 2).await.len(), 1);
    assert_eq!(s.store.free_leases("").await.unwrap(), 1);
    assert_eq!(take(s, 1, 2).await.len(), 1);
}

pub(super) async fn a_paused_queue_gives_nothing<S: Jobs>(s: &Subject<S>) {
    assert!(s.store.pause("mail").await.unwrap());
    assert!(!s.store.pause("mail").await.unwrap());
    s.put(job("mail")).await;
    s.put(NewJob { run_at: Some(START + SECOND), ..job("mail") }).await;
    let due = async || s.store.next_due(&["mail".to_string()]).await.unwrap();
    assert_eq!(due().await, None);
    s.clock.advance(SECOND);
    assert_eq!(s.take("mail").await, None);
    let mut changes = s.store.changes();
    changes.mark_unchanged();
    assert!(s.store.resume("mail").await.unwrap());
    assert!(changes.has_changed().unwrap());
    assert!(!s.store.resume("mail").await.unwrap() && !s.store.resume("none").await.unwrap());
    s.take_one("mail").await;
    s.take_one("mail").await;
    // A job that was taken before runs on.
    assert!(s.store.pause("mail").await.unwrap());
    assert_eq!(due().await, None);
    s.store.resume("mail").await.unwrap();
    assert!(due().await.is_some());
}

pub(super) async fn a_paused_queue_is_shown_and_kept<S: Jobs>(s: &Subject<S>) {
    s.store.pause("mail").await.unwrap();
    s.store.prune(crate::jobs::Retention::default()).await.unwrap();
    let counts = s.store.counts().await.unwrap();
    assert!(counts.len() == 1 && counts[0].paused && counts[0].queue == "mail");
    s.put(job("mail")).await;
    assert_eq!(s.take("mail").await, None);
    s.store.resume("mail").await.unwrap();
    assert!(!s.count("mail").await.paused);
}

pub(super) async fn leases_run_out_in_a_paused_queue<S: Jobs>(s: &Subject<S>) {
    let id = s.put(job("mail")).await;
    s.take_one("mail").await;
    s.store.pause("mail").await.unwrap();
    s.clock.advance(LEASE);
    assert_eq!(s.take("mail").await, None);
    assert_eq!(s.state(id).await, JobState::Available);
}

pub(super) async fn no_queue_has_no_name<S: Jobs>(s: &Subject<S>) {
    assert!(matches!(s.store.pause("").await, Err(StoreError::Invalid(_))));
    assert!(matches!(s.store.pause(&"x".repeat(1_000)).await, Err(StoreError::Invalid(_))));
    assert_eq!(s.store.counts().await.unwrap(), []);
}

pub(super) async fn the_oldest_that_waits_is_told<S: Jobs>(s: &Subject<S>) {
    let oldest = async || s.count("mail").await.oldest_waiting;
    s.put(NewJob { run_at: Some(START + SECOND), ..job("mail") }).await;
    assert_eq!(oldest().await, None);
    s.clock.advance(SECOND * 5);
    // Also where no claim has seen yet that it is due.
    assert_eq!(oldest().await, Some(START + SECOND));
    s.put(NewJob { priority: 3, ..job("mail") }).await;
    s.clock.advance(SECOND);
    s.put(NewJob { priority: -3, ..job("mail") }).await;
    s.take_one("mail").await;
    assert_eq!(oldest().await, Some(START + SECOND));
    s.take_one("mail").await;
    assert_eq!(oldest().await, Some(START + SECOND * 6));
    s.take_one("mail").await;
    assert_eq!(oldest().await, None);
}

pub(super) async fn concurrency_holds_in_a_crowd<S: Jobs>(s: &Subject<S>) {
    s.store.enqueue(vec![job("mail"); 100]).await.unwrap();
    let taken = crowd::crowd(s, 16, async |store: std::sync::Arc<S>, _| {
        store.claim(limited(5, 3)).await.expect("claim").len()
    })
    .await;
    assert_eq!(taken.into_iter().sum::<usize>(), 5);
    assert_eq!(s.count("mail").await.leased, 5);
}
