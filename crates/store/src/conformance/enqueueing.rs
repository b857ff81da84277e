//! Jobs come in.

use std::time::Duration;

use super::{START, Subject, job, keyed};
use crate::jobs::{
    AHEAD_MAX, ATTEMPTS_MAX, AfterFailure, BATCH_BYTES_MAX, ENQUEUE_JOBS_MAX, EnqueueError, JOB_BYTES,
    JobState, JobView, METADATA_BYTES_MAX, METADATA_ENTRIES_MAX, NewJob, PAYLOAD_BYTES_MAX,
    UNIQUE_KEY_BYTES_MAX, Unique, UniqueScope,
};

use crate::{Jobs, Timestamp};

const SECOND: Duration = Duration::from_secs(1);

pub(super) async fn a_new_job_is_seen_as_it_was_passed<S: Jobs>(s: &Subject<S>) {
    let id = s
        .put(NewJob {
            queue: "mail".to_string(),
            payload: vec![0, 255, 7],
            content_type: "application/json".to_string(),
            metadata: vec![("trace".to_string(), "a\"b\u{1f600}".to_string())],
            run_at: None,
            priority: -5,
            unique: Some(Unique { key: "order 7".to_string(), scope: UniqueScope::Waiting }),
            attempts_max: Some(3),
            max_depth: Some(1),
            max_bytes: Some(1_000),
        })
        .await;
    let detail = s.detail(id).await;
    assert_eq!(detail.payload, [0, 255, 7]);
    assert_eq!(detail.metadata, [("trace".to_string(), "a\"b\u{1f600}".to_string())]);
    assert_eq!(detail.attempts, []);
    let expected = JobView {
        id,
        queue: "mail".to_string(),
        state: JobState::Available,
        priority: -5,
        attempt: 0,
        attempts_max: Some(3),
        crashes: 0,
        claim: 0,
        unique_key: Some("order 7".to_string()),
        content_type: "application/json".to_string(),
        enqueued_at: START,
        run_at: START,
        started_at: None,
        ended_at: None,
        last_error: None,
    };
    assert_eq!(detail.view, expected);
}

pub(super) async fn answers_come_in_order<S: Jobs>(s: &Subject<S>) {
    let jobs: Vec<NewJob> = (0..20u8).map(|n| NewJob { payload: vec![n], ..job("mail") }).collect();
    let receipts = s.store.enqueue(jobs).await.unwrap();
    assert_eq!(receipts.len(), 20);
    for (n, receipt) in receipts.iter().enumerate() {
        assert_eq!(s.detail(receipt.id).await.payload, [n as u8]);
    }
    assert!(receipts.windows(2).all(|pair| pair[0].id < pair[1].id));
}

pub(super) async fn nothing_is_a_valid_batch<S: Jobs>(s: &Subject<S>) {
    assert_eq!(s.store.enqueue(Vec::new()).await, Ok(Vec::new()));
    assert_eq!(s.store.counts().await.unwrap(), []);
}

pub(super) async fn a_unique_key_is_held_until_its_job_ends<S: Jobs>(s: &Subject<S>) {
    let holds = async |id| {
        let receipt = s.store.enqueue(vec![keyed("mail", "k")]).await.unwrap()[0];
        assert!(!receipt.created);
        assert_eq!(receipt.id, id);
    };
    let later = NewJob { run_at: Some(START + Duration::from_secs(1)), ..keyed("mail", "k") };
    let scheduled = s.put(later).await;
    holds(scheduled).await;
    s.clock.advance(Duration::from_secs(1));
    holds(scheduled).await;
    let leased = s.take_one("mail").await;
    holds(scheduled).await;
    s.fail(&leased, AfterFailure::RetryAfter(Duration::ZERO)).await;
    holds(scheduled).await;
    let leased = s.take_one("mail").await;
    s.store.complete(leased.lease).await.unwrap();

    // Done: the key is free; and so it is when the next one dies.
    let second = s.put(keyed("mail", "k")).await;
    assert_ne!(second, scheduled);
    let leased = s.take_one("mail").await;
    s.fail(&leased, AfterFailure::Bury).await;
    s.put(keyed("mail", "k")).await;
}

pub(super) async fn a_unique_key_is_the_queues_own<S: Jobs>(s: &Subject<S>) {
    let here = s.put(keyed("mail", "k")).await;
    let there = s.put(keyed("reports", "k")).await;
    let other = s.put(keyed("mail", "K")).await;
    assert!(here != there && here != other);
}

pub(super) async fn twins_in_one_batch_are_one_job<S: Jobs>(s: &Subject<S>) {
    let held = s.put(keyed("mail", "held")).await;
    let batch = vec![keyed("mail", "a"), keyed("mail", "b"), keyed("mail", "a"), keyed("mail", "held")];
    let receipts = s.store.enqueue(batch).await.unwrap();
    let created: Vec<bool> = receipts.iter().map(|receipt| receipt.created).collect();
    assert_eq!(created, [true, true, false, false]);
    assert_eq!(receipts[2].id, receipts[0].id);
    assert_eq!(receipts[3].id, held);
    assert_eq!(s.count("mail").await.available, 3);
}

fn limited(queue: &str, max_depth: u64) -> NewJob {
    NewJob { max_depth: Some(max_depth), ..job(queue) }
}

pub(super) async fn a_full_queue_refuses<S: Jobs>(s: &Subject<S>) {
    s.put(limited("mail", 2)).await;
    s.put(limited("mail", 2)).await;
    let full = EnqueueError::Full { queue: "mail".to_string(), depth: 2 };
    assert_eq!(s.store.enqueue(vec![limited("mail", 2)]).await, Err(full));
    s.put(limited("mail", 3)).await;
    s.put(job("mail")).await;
    s.put(limited("reports", 1)).await;
    let never = EnqueueError::Full { queue: "none".to_string(), depth: 0 };
    assert_eq!(s.store.enqueue(vec![limited("none", 0)]).await, Err(never));
}

pub(super) async fn a_batch_that_does_not_fit_is_refused_whole<S: Jobs>(s: &Subject<S>) {
    s.put(job("mail")).await;
    let batch = vec![limited("other", 5), limited("mail", 3), limited("mail", 3), limited("mail", 3)];
    let full = EnqueueError::Full { queue: "mail".to_string(), depth: 1 };
    assert_eq!(s.store.enqueue(batch.clone()).await, Err(full));
    assert_eq!(s.count("mail").await.available, 1);
    assert_eq!(s.count("other").await.available, 0);
    assert_eq!(s.store.enqueue(batch[..3].to_vec()).await.unwrap().len(), 3);
}

pub(super) async fn depth_counts_what_waits<S: Jobs>(s: &Subject<S>) {
    s.put(job("mail")).await;
    s.put(job("mail")).await;
    s.put(NewJob { run_at: Some(START + Duration::from_secs(9)), ..job("mail") }).await;
    let depth = async |expected: u64| match s.store.enqueue(vec![limited("mail", 0)]).await {
        Err(EnqueueError::Full { depth, .. }) => assert_eq!(depth, expected),
        other => panic!("{other:?}"),
    };
    depth(3).await;
    let first = s.take_one("mail").await;
    let second = s.take_one("mail").await;
    depth(1).await;
    s.fail(&first, AfterFailure::Retry).await;
    depth(2).await;
    s.store.complete(second.lease).await.unwrap();
    depth(2).await;
}

pub(super) async fn a_taken_key_is_no_deeper<S: Jobs>(s: &Subject<S>) {
    let id = s.put(keyed("mail", "k")).await;
    let twin = NewJob { max_depth: Some(1), ..keyed("mail", "k") };
    let receipts = s.store.enqueue(vec![twin.clone(), twin]).await.unwrap();
    assert!(receipts.iter().all(|receipt| receipt.id == id && !receipt.created));
}

async fn is_invalid<S: Jobs>(s: &Subject<S>, job: NewJob) {
    match s.store.enqueue(vec![job]).await {
        Err(EnqueueError::Invalid(text)) => assert!(!text.is_empty()),
        other => panic!("{other:?}"),
    }
}

pub(super) async fn what_is_too_large_is_invalid<S: Jobs>(s: &Subject<S>) {
    let entry = |bytes: usize| ("n".to_string(), "v".repeat(bytes - 1));
    is_invalid(s, NewJob { payload: vec![0; PAYLOAD_BYTES_MAX + 1], ..job("mail") }).await;
    is_invalid(s, keyed("mail", &"k".repeat(UNIQUE_KEY_BYTES_MAX + 1))).await;
    is_invalid(s, keyed("mail", "")).await;
    is_invalid(s, NewJob { metadata: vec![entry(1); METADATA_ENTRIES_MAX + 1], ..job("mail") }).await;
    is_invalid(s, NewJob { metadata: vec![entry(METADATA_BYTES_MAX + 1)], ..job("mail") }).await;
    is_invalid(s, NewJob { content_type: "x".repeat(1_000), ..job("mail") }).await;
    is_invalid(s, NewJob { attempts_max: Some(0), ..job("mail") }).await;
    is_invalid(s, NewJob { attempts_max: Some(ATTEMPTS_MAX + 1), ..job("mail") }).await;
    is_invalid(s, NewJob { run_at: Some(START + AHEAD_MAX + SECOND), ..job("mail") }).await;
    is_invalid(s, NewJob { run_at: Some(Timestamp(i64::MAX)), ..job("mail") }).await;
    let scope = UniqueScope::For(AHEAD_MAX + SECOND);
    is_invalid(s, NewJob { unique: Some(Unique { key: "k".to_string(), scope }), ..job("mail") }).await;
    is_invalid(s, job("")).await;
    let many = s.store.enqueue(vec![job("mail"); ENQUEUE_JOBS_MAX + 1]).await;
    assert!(matches!(many, Err(EnqueueError::Invalid(_))));
    let heavy = vec![NewJob { payload: vec![0; PAYLOAD_BYTES_MAX], ..job("mail") }; 17];
    assert!(matches!(s.store.enqueue(heavy).await, Err(EnqueueError::Invalid(_))));
    assert_eq!(s.store.counts().await.unwrap(), []);
}

pub(super) async fn the_limits_are_allowed<S: Jobs>(s: &Subject<S>) {
    let payload: Vec<u8> = (0..PAYLOAD_BYTES_MAX).map(|n| n as u8).collect();
    let metadata = vec![("n".to_string(), "v".repeat(METADATA_BYTES_MAX / METADATA_ENTRIES_MAX - 1)); 32];
    let largest = NewJob { payload, metadata, ..keyed("mail", &"k".repeat(UNIQUE_KEY_BYTES_MAX)) };
    s.put(largest.clone()).await;
    let taken = s.take_one("mail").await;
    assert!(taken.payload == largest.payload);
    assert_eq!(taken.metadata, largest.metadata);
    assert_eq!(BATCH_BYTES_MAX / PAYLOAD_BYTES_MAX, 16);
    assert_eq!(s.store.enqueue(vec![job("mail"); ENQUEUE_JOBS_MAX]).await.unwrap().len(), ENQUEUE_JOBS_MAX);
}

pub(super) async fn the_bytes_that_wait_are_bounded<S: Jobs>(s: &Subject<S>) {
    let sized = |bytes: usize, max: u64| NewJob {
        payload: vec![0; bytes],
        content_type: "text/plain".to_string(),
        max_bytes: Some(max),
        ..job("mail")
    };
    // A job counts its payload and content type, and a little for its rows.
    let one = 1_000 + 10 + JOB_BYTES;
    s.put(sized(1_000, 3 * one)).await;
    s.put(sized(1_000, 3 * one)).await;
    let full = Err(EnqueueError::FullOfBytes { queue: "mail".to_string(), bytes: 2 * one, max: 3 * one });
    assert_eq!(s.store.enqueue(vec![sized(1_001, 3 * one)]).await, full);
    assert_eq!(s.store.enqueue(vec![sized(0, 3 * one), sized(1_000, 3 * one)]).await, full, "all or none");
    let other = NewJob { queue: "reports".to_string(), ..sized(1_000, one) };
    s.put(other).await;
    s.put(sized(1_000, 3 * one)).await;
    // A queue that had more before its bound was lowered still answers.
    assert!(s.store.enqueue(vec![sized(0, 1)]).await.is_err());

    // Those that are with an instance or have ended don't wait, and those that come back do.
    let leased = s.take_one("mail").await;
    s.put(sized(1_000, 3 * one)).await;
    s.fail(&leased, AfterFailure::Retry).await;
    assert!(s.store.enqueue(vec![sized(0, 4 * one)]).await.is_err());
    s.store.cancel(leased.lease.id).await.unwrap();
    s.store.discard(leased.lease.id).await.unwrap();
    let discarded = s.put(sized(1_000, 4 * one)).await;
    s.store.discard(discarded).await.unwrap();
    s.put(sized(1_000, 4 * one)).await;
}

pub(super) async fn an_invalid_job_refuses_its_batch<S: Jobs>(s: &Subject<S>) {
    let batch = vec![job("mail"), NewJob { attempts_max: Some(0), ..job("mail") }];
    assert!(matches!(s.store.enqueue(batch).await, Err(EnqueueError::Invalid(_))));
    assert_eq!(s.store.counts().await.unwrap(), []);
}

pub(super) async fn enqueueing_is_a_change<S: Jobs>(s: &Subject<S>) {
    let mut changes = s.store.changes();
    s.put(keyed("mail", "k")).await;
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    s.store.enqueue(vec![keyed("mail", "k")]).await.unwrap();
    assert!(!changes.has_changed().unwrap());
    let leased = s.take_one("mail").await;
    assert!(!changes.has_changed().unwrap());
    s.store.release(leased.lease).await.unwrap();
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    let leased = s.take_one("mail").await;
    s.fail(&leased, AfterFailure::Retry).await;
    assert!(changes.has_changed().unwrap());
}
