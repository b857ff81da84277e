//! Leases, and the fencing token.

use std::sync::Arc;
use std::time::Duration;

use super::{LEASE, START, Subject, claim, job};
use crate::Jobs;
use crate::jobs::{
    AfterFailure, AttemptEnd, Backoff, Claim, Failure, Holder, JobId, JobState, Lease, NewJob, Settled,
};

const SECOND: Duration = Duration::from_secs(1);

/// No answer to this lease changes anything.
async fn is_stale<S: Jobs>(s: &Subject<S>, lease: Lease) {
    let before = s.store.get(lease.id).await.unwrap();
    assert_eq!(s.store.complete(lease).await.unwrap(), Settled::Stale);
    assert_eq!(s.store.release(lease).await.unwrap(), Settled::Stale);
    assert_eq!(s.store.give_back(lease).await.unwrap(), Settled::Stale);
    assert!(!s.store.begin_call(lease).await.unwrap());
    assert_eq!(s.store.renew(vec![lease], LEASE).await.unwrap(), [lease]);
    for then in [AfterFailure::Retry, AfterFailure::Crash, AfterFailure::Bury] {
        let failure = Failure { then, message: "too late".to_string(), backoff: Backoff::Curve };
        assert_eq!(s.store.fail(lease, failure).await.unwrap(), Settled::Stale);
    }
    assert_eq!(s.store.get(lease.id).await.unwrap(), before);
}

pub(super) async fn an_answer_with_an_old_claim_is_stale<S: Jobs>(s: &Subject<S>) {
    s.put(job("mail")).await;
    let first = s.take_one("mail").await;
    s.clock.advance(LEASE);
    let second = s.take_one("mail").await;
    assert_eq!(second.lease, Lease { claim: first.lease.claim + 1, ..first.lease });
    is_stale(s, first.lease).await;
    is_stale(s, Lease { claim: second.lease.claim + 1, ..second.lease }).await;
    assert_eq!(s.store.complete(second.lease).await.unwrap(), Settled::Done);
}

pub(super) async fn an_answer_without_a_lease_is_stale<S: Jobs>(s: &Subject<S>) {
    is_stale(s, Lease { id: JobId(12_345), claim: 1 }).await;
    let id = s.put(job("mail")).await;
    is_stale(s, Lease { id, claim: 0 }).await;
    let leased = s.take_one("mail").await;
    s.store.complete(leased.lease).await.unwrap();
    is_stale(s, leased.lease).await;

    s.put(job("mail")).await;
    let leased = s.take_one("mail").await;
    s.fail(&leased, AfterFailure::Retry).await;
    is_stale(s, leased.lease).await;

    s.put(job("mail")).await;
    let leased = s.take_one("mail").await;
    s.fail(&leased, AfterFailure::Bury).await;
    is_stale(s, leased.lease).await;

    s.put(job("mail")).await;
    let leased = s.take_one("mail").await;
    s.store.release(leased.lease).await.unwrap();
    is_stale(s, leased.lease).await;
}

pub(super) async fn an_expired_lease_is_due_again<S: Jobs>(s: &Subject<S>) {
    let id = s.put(job("mail")).await;
    s.take_one("mail").await;
    s.clock.advance(LEASE - Duration::from_millis(1));
    assert_eq!(s.take("mail").await, None);
    s.clock.advance(Duration::from_millis(1));
    let changes = s.store.changes();
    let again = s.take_one("mail").await;
    assert!(changes.has_changed().unwrap());
    assert_eq!((again.attempt, again.lease.claim, again.crashes), (2, 2, 0));
    let text = s.view(id).await.last_error.unwrap();
    assert_eq!(text, "attempt 1 of 25 was interrupted: its lease ran out");
}

pub(super) async fn an_expired_lease_that_nobody_took_is_still_answered<S: Jobs>(s: &Subject<S>) {
    s.put(job("mail")).await;
    let leased = s.take_one("mail").await;
    s.clock.advance(LEASE * 2);
    assert_eq!(s.store.renew(vec![leased.lease], LEASE).await.unwrap(), []);
    assert_eq!(s.take("mail").await, None);
    s.clock.advance(LEASE * 2);
    assert_eq!(s.store.complete(leased.lease).await.unwrap(), Settled::Done);
}

/// A host that has some jobs under way.
struct Hands(std::sync::Mutex<Vec<Lease>>);

impl Holder for Hands {
    fn holds(&self, lease: Lease) -> bool {
        self.0.lock().unwrap().contains(&lease)
    }
}

pub(super) async fn a_lease_is_not_taken_from_a_call_under_way<S: Jobs>(s: &Subject<S>) {
    let hands = Arc::new(Hands(std::sync::Mutex::default()));
    s.store.hold(hands.clone());
    let held = s.put(NewJob { attempts_max: Some(1), ..job("mail") }).await;
    s.put(job("mail")).await;
    let leased = s.take_one("mail").await;
    let lost = s.take_one("mail").await;
    hands.0.lock().unwrap().push(leased.lease);
    // The host was stopped, or its disk stood still.
    s.clock.advance(LEASE * 3);
    let again = s.take_one("mail").await;
    assert_eq!((again.lease.id, again.attempt), (lost.lease.id, 2), "nobody has that one");
    assert_eq!(s.take("mail").await, None);
    let view = s.view(held).await;
    assert_eq!((view.state, view.attempt, view.claim), (JobState::Leased, 1, leased.lease.claim));
    // It is valid for as long as it was: who waits for it to run out isn't told at once, again and again.
    assert!(s.store.next_due(&["mail".to_string()]).await.unwrap().unwrap() >= s.now() + LEASE);
    assert_eq!(s.store.complete(leased.lease).await.unwrap(), Settled::Done);
}

pub(super) async fn renewing_keeps_a_lease<S: Jobs>(s: &Subject<S>) {
    s.put(job("mail")).await;
    let leased = s.take_one("mail").await;
    for _ in 0..10 {
        s.clock.advance(SECOND * 20);
        assert_eq!(s.store.renew(vec![leased.lease], LEASE).await.unwrap(), []);
        assert_eq!(s.take("mail").await, None);
    }
    assert_eq!(s.store.next_due(&["mail".to_string()]).await.unwrap(), Some(s.now() + LEASE));
    assert_eq!(s.store.complete(leased.lease).await.unwrap(), Settled::Done);
}

pub(super) async fn renewing_tells_what_was_lost<S: Jobs>(s: &Subject<S>) {
    s.store.enqueue(vec![job("mail"); 3]).await.unwrap();
    let jobs = s.store.claim(Claim { limit: 3, ..claim("mail") }).await.unwrap();
    let leases: Vec<Lease> = jobs.iter().map(|job| job.lease).collect();
    s.store.complete(leases[1]).await.unwrap();
    assert_eq!(s.store.renew(leases.clone(), LEASE).await.unwrap(), [leases[1]]);
    assert_eq!(s.store.renew(Vec::new(), LEASE).await.unwrap(), []);
}

pub(super) async fn a_release_gives_the_attempt_back<S: Jobs>(s: &Subject<S>) {
    let id = s.put(NewJob { attempts_max: Some(1), ..job("mail") }).await;
    for claims in 1..=5 {
        let leased = s.take_one("mail").await;
        assert_eq!((leased.attempt, leased.lease.claim), (1, claims));
        assert_eq!(s.store.release(leased.lease).await.unwrap(), Settled::Released);
        let view = s.view(id).await;
        assert_eq!((view.state, view.attempt, view.claim), (JobState::Available, 0, claims));
    }
}

pub(super) async fn a_released_job_keeps_its_place<S: Jobs>(s: &Subject<S>) {
    let first = s.put(job("mail")).await;
    s.put(job("mail")).await;
    let leased = s.take_one("mail").await;
    s.clock.advance(SECOND);
    s.store.release(leased.lease).await.unwrap();
    assert_eq!(s.take_one("mail").await.lease.id, first);
}

pub(super) async fn an_expired_last_attempt_is_buried<S: Jobs>(s: &Subject<S>) {
    let id = s.put(NewJob { attempts_max: Some(1), ..job("mail") }).await;
    let leased = s.take_one("mail").await;
    s.clock.advance(LEASE);
    assert_eq!(s.take("mail").await, None);
    let view = s.view(id).await;
    assert_eq!((view.state, view.attempt, view.ended_at), (JobState::Dead, 1, Some(s.now())));
    let text = view.last_error.unwrap();
    assert_eq!(text, "attempt 1 of 1 was interrupted: its lease ran out; no attempts are left");
    is_stale(s, leased.lease).await;
}

pub(super) async fn freeing_frees_one_owners_leases<S: Jobs>(s: &Subject<S>) {
    s.store.enqueue(vec![job("mail"); 4]).await.unwrap();
    let mut taken = Vec::new();
    for owner in ["a/1", "a/2", "ab/1", "b/1"] {
        let claim = Claim { owner: owner.to_string(), ..claim("mail") };
        taken.push(s.store.claim(claim).await.unwrap().remove(0));
    }
    let changes = s.store.changes();
    assert_eq!(s.store.free_leases("a/").await.unwrap(), 2);
    assert!(changes.has_changed().unwrap());
    assert_eq!(s.store.free_leases("a/").await.unwrap(), 0);
    assert_eq!(s.store.free_leases("%").await.unwrap(), 0);
    is_stale(s, taken[0].lease).await;
    assert_eq!(s.store.complete(taken[2].lease).await.unwrap(), Settled::Done);
    let view = s.view(taken[0].lease.id).await;
    assert_eq!((view.state, view.attempt), (JobState::Available, 1));
    assert_eq!(view.last_error.as_deref(), Some("attempt 1 of 25 was interrupted: its host stopped"));
    assert_eq!(s.take_one("mail").await.attempt, 2);
}

pub(super) async fn freeing_buries_last_attempts<S: Jobs>(s: &Subject<S>) {
    let id = s.put(NewJob { attempts_max: Some(1), ..job("mail") }).await;
    s.take_one("mail").await;
    assert_eq!(s.store.free_leases("host/").await.unwrap(), 1);
    let view = s.view(id).await;
    assert_eq!((view.state, view.ended_at), (JobState::Dead, Some(START)));
    let text = view.last_error.unwrap();
    assert_eq!(text, "attempt 1 of 1 was interrupted: its host stopped; no attempts are left");
}

pub(super) async fn freeing_everything<S: Jobs>(s: &Subject<S>) {
    s.store.enqueue(vec![job("mail"), job("reports")]).await.unwrap();
    s.take_one("mail").await;
    s.take_one("reports").await;
    assert_eq!(s.store.free_leases("").await.unwrap(), 2);
    assert_eq!(s.count("mail").await.available + s.count("reports").await.available, 2);
}

pub(super) async fn a_job_that_always_hangs_ends<S: Jobs>(s: &Subject<S>) {
    let id = s.put(NewJob { attempts_max: Some(4), ..job("mail") }).await;
    let mut claims = 0;
    while s.take("mail").await.is_some() {
        claims += 1;
        s.clock.advance(LEASE);
    }
    assert_eq!(claims, 4);
    assert_eq!(s.state(id).await, JobState::Dead);
}

pub(super) async fn each_end_without_an_answer_is_kept<S: Jobs>(s: &Subject<S>) {
    let id = s.put(job("mail")).await;
    s.take_one("mail").await;
    s.clock.advance(LEASE);
    s.take_one("mail").await;
    s.store.free_leases("host/").await.unwrap();
    let leased = s.take_one("mail").await;
    s.store.release(leased.lease).await.unwrap();
    s.take_one("mail").await;
    s.store.cancel(id).await.unwrap();
    let ends: Vec<AttemptEnd> = s.detail(id).await.attempts.iter().map(|attempt| attempt.end).collect();
    use AttemptEnd::*;
    assert_eq!(ends, [LeaseLost, Interrupted, Released, Cancelled]);
}
