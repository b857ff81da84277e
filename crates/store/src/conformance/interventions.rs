//! People change jobs, and see lists of them.

use std::time::Duration;

use super::{LEASE, START, Subject, claim, job};
use crate::Jobs;
use crate::jobs::{
    AfterFailure, Claim, INTERVENE_JOBS_MAX, Intervened, Intervention, JobFilter, JobId, JobState,
    LIST_JOBS_MAX, NewJob, Order, Page, Settled,
};

const SECOND: Duration = Duration::from_secs(1);

fn moved(from: JobState, to: JobState) -> Intervened {
    Intervened::Moved { from, to }
}

/// A job in each state, in the order of `JobState::ALL`, each on a queue that is named after it.
async fn one_of_each<S: Jobs>(s: &Subject<S>) -> Vec<JobId> {
    let mut ids = Vec::new();
    for state in JobState::ALL {
        let name = state.name();
        let run_at = (state == JobState::Scheduled).then_some(START + SECOND * 1_000);
        let id = s.put(NewJob { run_at, ..job(name) }).await;
        match state {
            JobState::Scheduled | JobState::Available => {}
            JobState::Leased => drop(s.take_one(name).await),
            JobState::Cancelled => drop(s.store.cancel(id).await.unwrap()),
            JobState::Done => drop(s.store.complete(s.take_one(name).await.lease).await.unwrap()),
            JobState::Retrying => drop(s.fail(&s.take_one(name).await, AfterFailure::Retry).await),
            JobState::Dead => drop(s.fail(&s.take_one(name).await, AfterFailure::Bury).await),
        }
        assert_eq!(s.state(id).await, state);
        ids.push(id);
    }
    ids
}

pub(super) async fn what_waits_is_cancelled<S: Jobs>(s: &Subject<S>) {
    let ids = one_of_each(s).await;
    for state in [JobState::Scheduled, JobState::Available, JobState::Retrying] {
        let id = ids[state as usize];
        assert_eq!(s.store.cancel(id).await.unwrap(), moved(state, JobState::Cancelled));
        let view = s.view(id).await;
        assert_eq!((view.state, view.ended_at), (JobState::Cancelled, Some(START)));
    }
    s.clock.advance(SECOND * 100_000);
    assert_eq!(s.take("available").await, None);
}

pub(super) async fn a_leased_job_is_cancelled<S: Jobs>(s: &Subject<S>) {
    let id = s.put(job("mail")).await;
    let leased = s.take_one("mail").await;
    assert_eq!(s.store.cancel(id).await.unwrap(), moved(JobState::Leased, JobState::Cancelled));
    assert_eq!(s.store.renew(vec![leased.lease], LEASE).await.unwrap(), [leased.lease]);
    assert_eq!(s.store.complete(leased.lease).await.unwrap(), Settled::Stale);
    assert_eq!(s.fail(&leased, AfterFailure::Retry).await, Settled::Stale);
    assert_eq!(s.state(id).await, JobState::Cancelled);
}

pub(super) async fn what_has_ended_is_not_cancelled<S: Jobs>(s: &Subject<S>) {
    let ids = one_of_each(s).await;
    for state in [JobState::Done, JobState::Dead, JobState::Cancelled] {
        let before = s.detail(ids[state as usize]).await;
        let answer = s.store.cancel(ids[state as usize]).await.unwrap();
        assert_eq!(answer, Intervened::Refused { state });
        assert_eq!(s.detail(ids[state as usize]).await, before);
    }
}

pub(super) async fn a_dead_job_begins_anew<S: Jobs>(s: &Subject<S>) {
    let id = s.put(NewJob { attempts_max: Some(2), ..job("mail") }).await;
    for _ in 0..2 {
        let leased = s.take_one("mail").await;
        s.fail(&leased, AfterFailure::Crash).await;
        s.clock.advance(SECOND * 100);
    }
    assert_eq!(s.state(id).await, JobState::Dead);
    assert_eq!(s.store.retry(id).await.unwrap(), moved(JobState::Dead, JobState::Available));
    let view = s.view(id).await;
    assert_eq!((view.attempt, view.crashes, view.ended_at), (0, 0, None));
    assert_eq!((view.run_at, view.attempts_max), (s.now(), Some(2)));
    assert_eq!(view.last_error.as_deref(), Some("it failed"));
    let leased = s.take_one("mail").await;
    // The fencing token goes on, the attempts begin anew: one failure doesn't bury it again.
    assert_eq!((leased.attempt, leased.crashes, leased.lease.claim), (1, 0, 3));
    assert!(matches!(s.fail(&leased, AfterFailure::Crash).await, Settled::Retrying(_)));
    assert_eq!(s.detail(id).await.attempts.len(), 3);
}

pub(super) async fn a_retry_does_not_wait<S: Jobs>(s: &Subject<S>) {
    let ids = one_of_each(s).await;
    let mut changes = s.store.changes();
    for state in [JobState::Scheduled, JobState::Retrying] {
        changes.mark_unchanged();
        let id = ids[state as usize];
        assert_eq!(s.store.retry(id).await.unwrap(), moved(state, JobState::Available));
        assert!(changes.has_changed().unwrap());
        let attempt = s.view(id).await.attempt;
        assert_eq!(s.take_one(state.name()).await.attempt, attempt + 1);
    }
}

pub(super) async fn what_runs_or_was_cancelled_is_not_retried<S: Jobs>(s: &Subject<S>) {
    let ids = one_of_each(s).await;
    for state in [JobState::Available, JobState::Leased, JobState::Done, JobState::Cancelled] {
        let answer = s.store.retry(ids[state as usize]).await.unwrap();
        assert_eq!(answer, Intervened::Refused { state });
        assert_eq!(s.state(ids[state as usize]).await, state);
    }
}

pub(super) async fn all_but_leased_jobs_are_discarded<S: Jobs>(s: &Subject<S>) {
    for (id, state) in one_of_each(s).await.into_iter().zip(JobState::ALL) {
        let answer = s.store.discard(id).await.unwrap();
        let there = s.store.get(id).await.unwrap().is_some();
        if state == JobState::Leased {
            assert_eq!((answer, there), (Intervened::Refused { state }, true));
        } else {
            assert_eq!((answer, there), (Intervened::Deleted { from: state }, false));
        }
    }
    let counts = s.store.counts().await.unwrap();
    assert!(counts.len() == 1 && counts[0].leased == 1);
}

pub(super) async fn unknown_jobs_are_not_found<S: Jobs>(s: &Subject<S>) {
    for intervention in [Intervention::Cancel, Intervention::Retry, Intervention::Discard] {
        let answer = s.store.intervene(JobId(12_345), intervention).await.unwrap();
        assert_eq!(answer, Intervened::NotFound);
    }
    assert_eq!(s.store.get(JobId(12_345)).await.unwrap(), None);
}

pub(super) async fn many_are_treated_in_batches<S: Jobs>(s: &Subject<S>) {
    for _ in 0..3 {
        s.store.enqueue(vec![job("mail"); 900]).await.unwrap();
    }
    let mail = JobFilter { queue: Some("mail".to_string()), ..JobFilter::default() };
    for (intervention, total) in [(Intervention::Cancel, 2_700), (Intervention::Discard, 2_700)] {
        let mut changed = 0;
        loop {
            let swept = s.store.intervene_all(mail.clone(), intervention).await.unwrap();
            assert!(swept.changed <= INTERVENE_JOBS_MAX);
            changed += swept.changed;
            if !swept.more {
                break;
            }
        }
        assert_eq!(changed, total);
    }
    assert_eq!(s.store.counts().await.unwrap(), []);
}

pub(super) async fn many_are_chosen_by_queue_and_state<S: Jobs>(s: &Subject<S>) {
    one_of_each(s).await;
    let dead = JobFilter { states: vec![JobState::Dead], ..JobFilter::default() };
    let elsewhere = JobFilter { queue: Some("mail".to_string()), ..dead.clone() };
    assert_eq!(s.store.retry_all(elsewhere).await.unwrap().changed, 0);
    assert_eq!(s.store.retry_all(dead.clone()).await.unwrap().changed, 1);
    assert_eq!(s.store.retry_all(dead).await.unwrap().changed, 0);
    s.take_one("dead").await;
    // Those that can't be treated so are let be.
    assert_eq!(s.store.cancel_all(JobFilter::default()).await.unwrap().changed, 5);
    assert_eq!(s.store.discard_all(JobFilter::default()).await.unwrap().changed, 7);
    assert_eq!(s.store.counts().await.unwrap(), []);
}

pub(super) async fn lists_are_in_order_and_paged<S: Jobs>(s: &Subject<S>) {
    let ids: Vec<JobId> =
        s.store.enqueue(vec![job("mail"); 10]).await.unwrap().iter().map(|receipt| receipt.id).collect();
    let list = async |after, limit, order| -> Vec<JobId> {
        let page = Page { after, limit, order };
        let jobs = s.store.list(JobFilter::default(), page).await.unwrap();
        jobs.into_iter().map(|view| view.id).collect()
    };
    assert_eq!(list(None, 4, Order::Oldest).await, ids[..4]);
    assert_eq!(list(Some(ids[3]), 4, Order::Oldest).await, ids[4..8]);
    assert_eq!(list(Some(ids[9]), 4, Order::Oldest).await, []);
    assert_eq!(list(None, 2, Order::Newest).await, [ids[9], ids[8]]);
    assert_eq!(list(Some(ids[1]), 9, Order::Newest).await, [ids[0]]);
    assert_eq!(list(None, 0, Order::Newest).await, []);
    let listed = s.store.list(JobFilter::default(), Page::default()).await.unwrap();
    assert_eq!(listed[0], s.view(ids[9]).await);
}

pub(super) async fn lists_are_bounded<S: Jobs>(s: &Subject<S>) {
    s.store.enqueue(vec![job("mail"); 600]).await.unwrap();
    s.store.enqueue(vec![job("mail"); 600]).await.unwrap();
    let all = Page { limit: u32::MAX, ..Page::default() };
    let listed = s.store.list(JobFilter::default(), all).await.unwrap();
    assert_eq!(listed.len(), LIST_JOBS_MAX as usize);
}

pub(super) async fn lists_show_what_is_due_as_available<S: Jobs>(s: &Subject<S>) {
    let ids = one_of_each(s).await;
    let of = async |state| -> Vec<JobId> {
        let filter = JobFilter { states: vec![state], ..JobFilter::default() };
        let jobs = s.store.list(filter, Page::default()).await.unwrap();
        jobs.into_iter().map(|view| view.id).collect()
    };
    for (id, state) in ids.iter().zip(JobState::ALL) {
        assert_eq!(of(state).await, [*id]);
    }
    s.clock.advance(SECOND * 100_000);
    assert_eq!(of(JobState::Scheduled).await, []);
    assert_eq!(of(JobState::Retrying).await, []);
    assert_eq!(of(JobState::Available).await, [ids[3], ids[1], ids[0]]);
    // And are treated so.
    let answer = s.store.retry(ids[0]).await.unwrap();
    assert_eq!(answer, Intervened::Refused { state: JobState::Available });
    let claim = Claim { limit: 9, ..claim("scheduled") };
    assert_eq!(s.store.claim(claim).await.unwrap().len(), 1);
}
