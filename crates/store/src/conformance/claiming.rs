//! Jobs go out.

use std::time::Duration;

use super::{LEASE, START, Subject, claim, job, weighted};
use crate::Jobs;
use crate::jobs::{AfterFailure, BATCH_BYTES_MAX, Claim, JobId, JobState, NewJob, PAYLOAD_BYTES_MAX};

const SECOND: Duration = Duration::from_secs(1);

pub(super) async fn a_claimed_job_is_whole<S: Jobs>(s: &Subject<S>) {
    let metadata = vec![("b".to_string(), "2".to_string()), ("a".to_string(), "1".to_string())];
    let content_type = "text/plain".to_string();
    let id = s.put(NewJob { metadata: metadata.clone(), content_type, ..job("mail") }).await;
    s.clock.advance(SECOND);
    let taken = s.take_one("mail").await;
    assert_eq!((taken.lease.id, taken.lease.claim), (id, 1));
    assert_eq!((taken.attempt, taken.attempts_max, taken.crashes), (1, 25, 0));
    assert_eq!((taken.queue.as_str(), taken.content_type.as_str()), ("mail", "text/plain"));
    assert_eq!(taken.payload, b"payload");
    assert_eq!(taken.metadata, metadata);
    assert_eq!(taken.enqueued_at, START);
    let view = s.view(id).await;
    assert_eq!((view.state, view.attempt, view.claim, view.run_at), (JobState::Leased, 1, 1, START));
    assert_eq!(view.attempts_max, Some(25));
}

pub(super) async fn nothing_is_claimed_from_nothing<S: Jobs>(s: &Subject<S>) {
    assert_eq!(s.take("mail").await, None);
    let nowhere = Claim { queues: Vec::new(), ..claim("mail") };
    s.put(job("mail")).await;
    assert_eq!(s.store.claim(nowhere).await.unwrap(), []);
    s.take_one("mail").await;
    assert_eq!(s.take("mail").await, None);
}

pub(super) async fn only_the_named_queues_are_claimed<S: Jobs>(s: &Subject<S>) {
    s.put(job("mail")).await;
    assert_eq!(s.take("reports").await, None);
    assert_eq!(s.take("mai").await, None);
    s.take_one("mail").await;
}

async fn order<S: Jobs>(s: &Subject<S>, count: u32) -> Vec<JobId> {
    let all = s.store.claim(Claim { limit: count, ..claim("mail") }).await.unwrap();
    all.into_iter().map(|job| job.lease.id).collect()
}

pub(super) async fn higher_priority_comes_first<S: Jobs>(s: &Subject<S>) {
    let low = s.put(NewJob { priority: i16::MIN, ..job("mail") }).await;
    let middle = s.put(job("mail")).await;
    let high = s.put(NewJob { priority: i16::MAX, ..job("mail") }).await;
    assert_eq!(order(s, 3).await, [high, middle, low]);
}

pub(super) async fn then_what_was_due_first<S: Jobs>(s: &Subject<S>) {
    let later = s.put(NewJob { run_at: Some(START + SECOND * 2), ..job("mail") }).await;
    let sooner = s.put(NewJob { run_at: Some(START + SECOND), ..job("mail") }).await;
    let now = s.put(job("mail")).await;
    let past = s.put(NewJob { run_at: Some(START - SECOND), ..job("mail") }).await;
    s.clock.advance(SECOND * 2);
    assert_eq!(order(s, 4).await, [now, past, sooner, later]);
}

pub(super) async fn then_what_came_first<S: Jobs>(s: &Subject<S>) {
    let receipts = s.store.enqueue(vec![job("mail"); 5]).await.unwrap();
    let ids: Vec<JobId> = receipts.into_iter().map(|receipt| receipt.id).collect();
    assert_eq!(order(s, 5).await, ids);
}

pub(super) async fn a_delayed_job_waits_until_it_is_due<S: Jobs>(s: &Subject<S>) {
    let id = s.put(NewJob { run_at: Some(START + SECOND), ..job("mail") }).await;
    assert_eq!(s.state(id).await, JobState::Scheduled);
    assert_eq!(s.count("mail").await.scheduled, 1);
    s.clock.advance(SECOND - Duration::from_millis(1));
    assert_eq!(s.take("mail").await, None);
    s.clock.advance(Duration::from_millis(1));
    assert_eq!(s.state(id).await, JobState::Available);
    let counts = s.count("mail").await;
    assert_eq!((counts.scheduled, counts.available), (0, 1));
    assert_eq!(s.take_one("mail").await.lease.id, id);
}

pub(super) async fn a_job_due_in_the_past_is_available<S: Jobs>(s: &Subject<S>) {
    let id = s.put(NewJob { run_at: Some(START - SECOND), ..job("mail") }).await;
    let view = s.view(id).await;
    // It comes after those that wait already, however long ago it says that it was due.
    assert_eq!((view.state, view.run_at), (JobState::Available, START));
}

pub(super) async fn the_limit_holds<S: Jobs>(s: &Subject<S>) {
    s.store.enqueue(vec![job("mail"); 5]).await.unwrap();
    assert_eq!(order(s, 3).await.len(), 3);
    assert_eq!(order(s, 3).await.len(), 2);
}

pub(super) async fn a_limit_of_none_is_one<S: Jobs>(s: &Subject<S>) {
    s.store.enqueue(vec![job("mail"); 2]).await.unwrap();
    assert_eq!(order(s, 0).await.len(), 1);
    assert_eq!(order(s, u32::MAX).await.len(), 1);
}

pub(super) async fn a_claim_is_bounded_by_bytes<S: Jobs>(s: &Subject<S>) {
    let heavy = vec![NewJob { payload: vec![1; PAYLOAD_BYTES_MAX], ..job("mail") }; 12];
    s.store.enqueue(heavy.clone()).await.unwrap();
    s.store.enqueue(heavy).await.unwrap();
    assert_eq!(order(s, 100).await.len(), BATCH_BYTES_MAX / PAYLOAD_BYTES_MAX);
    assert_eq!(order(s, 100).await.len(), 24 - BATCH_BYTES_MAX / PAYLOAD_BYTES_MAX);
}

pub(super) async fn an_empty_queue_blocks_no_other<S: Jobs>(s: &Subject<S>) {
    s.store.enqueue(vec![job("seldom"); 20]).await.unwrap();
    let queues = vec![weighted("often", 1_000_000), weighted("seldom", 1)];
    for _ in 0..20 {
        let taken = s.store.claim(Claim { queues: queues.clone(), ..claim("") }).await.unwrap();
        assert_eq!(taken.len(), 1);
    }
    // The next queue fills what one can't.
    s.store.enqueue(vec![job("seldom"), job("often"), job("seldom")]).await.unwrap();
    let taken = s.store.claim(Claim { queues, limit: 10, ..claim("") }).await.unwrap();
    assert_eq!(taken.len(), 3);
}

pub(super) async fn weights_decide_the_queue<S: Jobs>(s: &Subject<S>) {
    for queue in ["often", "seldom"] {
        s.store.enqueue(vec![job(queue); 400]).await.unwrap();
    }
    let queues = vec![weighted("seldom", 1), weighted("often", 3)];
    let mut often = 0;
    for _ in 0..400 {
        let taken = s.store.claim(Claim { queues: queues.clone(), ..claim("") }).await.unwrap();
        often += u32::from(taken[0].queue == "often");
    }
    // 300 are expected; this is seven standard deviations wide.
    assert!((240..=360).contains(&often), "{often} of 400 came from the queue of weight 3 to 1");
}

pub(super) async fn attempts_come_from_the_claim_unless_the_producer_said<S: Jobs>(s: &Subject<S>) {
    let said = s.put(NewJob { attempts_max: Some(7), ..job("mail") }).await;
    let unsaid = s.put(job("mail")).await;
    assert_eq!(s.view(said).await.attempts_max, Some(7));
    assert_eq!(s.view(unsaid).await.attempts_max, None);
    let both = s.store.claim(Claim { limit: 2, attempts_default: 3, ..claim("mail") }).await.unwrap();
    assert_eq!([both[0].attempts_max, both[1].attempts_max], [7, 3]);
    assert_eq!(s.view(unsaid).await.attempts_max, Some(3));
    // The formation may say otherwise by the next time.
    s.fail(&both[1], AfterFailure::RetryAfter(Duration::ZERO)).await;
    let again = s.store.claim(Claim { attempts_default: 9, ..claim("mail") }).await.unwrap();
    assert_eq!(again[0].attempts_max, 9);
}

pub(super) async fn next_due_is_the_earliest<S: Jobs>(s: &Subject<S>) {
    let queues = ["mail".to_string(), "reports".to_string()];
    let due = async || s.store.next_due(&queues).await.unwrap();
    assert_eq!(due().await, None);
    s.put(job("mail")).await;
    s.put(NewJob { run_at: Some(START + SECOND), ..job("elsewhere") }).await;
    assert_eq!(due().await, None);
    let leased = s.take_one("mail").await;
    assert_eq!(due().await, Some(START + LEASE));
    s.put(NewJob { run_at: Some(START + SECOND * 9), ..job("reports") }).await;
    s.put(NewJob { run_at: Some(START + SECOND * 8), ..job("reports") }).await;
    assert_eq!(due().await, Some(START + SECOND * 8));
    s.fail(&leased, AfterFailure::RetryAfter(SECOND * 3)).await;
    assert_eq!(due().await, Some(START + SECOND * 3));
    // One that has passed is still told: nobody may have claimed since.
    s.clock.advance(SECOND * 5);
    assert_eq!(due().await, Some(START + SECOND * 3));
    s.take_one("mail").await;
    assert_eq!(due().await, Some(START + SECOND * 8));
    assert_eq!(s.store.next_due(&[]).await.unwrap(), None);
}

pub(super) async fn promoting_is_a_change<S: Jobs>(s: &Subject<S>) {
    s.store.enqueue(vec![NewJob { run_at: Some(START + SECOND), ..job("mail") }; 2]).await.unwrap();
    let changes = s.store.changes();
    s.clock.advance(SECOND);
    s.take_one("mail").await;
    // The other one may be for somebody who waits.
    assert!(changes.has_changed().unwrap());
}
