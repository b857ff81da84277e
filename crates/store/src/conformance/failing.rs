//! Attempts end, well or badly.

use std::time::Duration;

use super::{START, Subject, claim, job};
use crate::jobs::{
    ATTEMPTS_KEPT, AfterFailure, AttemptEnd, Backoff, Claim, Failure, JobState, MESSAGE_BYTES_MAX, NewJob,
    Settled,
};
use crate::{Jobs, Timestamp};

const SOON: AfterFailure = AfterFailure::RetryAfter(Duration::ZERO);

pub(super) async fn a_done_job_is_done<S: Jobs>(s: &Subject<S>) {
    let id = s.put(job("mail")).await;
    let leased = s.take_one("mail").await;
    s.clock.advance(Duration::from_secs(2));
    assert_eq!(s.store.complete(leased.lease).await.unwrap(), Settled::Done);
    let view = s.view(id).await;
    assert_eq!((view.state, view.ended_at), (JobState::Done, Some(s.now())));
    assert_eq!((view.attempt, view.last_error), (1, None));
    s.clock.advance(Duration::from_secs(1_000_000));
    assert_eq!(s.take("mail").await, None);
}

pub(super) async fn a_failed_job_waits_for_its_backoff<S: Jobs>(s: &Subject<S>) {
    let id = s.put(job("mail")).await;
    for attempt in 1..=3u64 {
        let leased = s.take_one("mail").await;
        let Settled::Retrying(run_at) = s.fail(&leased, AfterFailure::Retry).await else { panic!() };
        let (wait, base) = (run_at.since(s.now()), Duration::from_secs(attempt.pow(4) + 15));
        assert!(wait >= base && wait <= base.mul_f64(1.1), "{wait:?} after attempt {attempt}");
        let view = s.view(id).await;
        assert_eq!((view.state, view.run_at, view.ended_at), (JobState::Retrying, run_at, None));
        assert_eq!(view.last_error.as_deref(), Some("it failed"));
        s.clock.set(run_at - Duration::from_millis(1));
        assert_eq!(s.take("mail").await, None);
        s.clock.set(run_at);
        assert_eq!(s.state(id).await, JobState::Available);
        let counts = s.count("mail").await;
        assert_eq!((counts.retrying, counts.available), (0, 1));
    }
}

pub(super) async fn retry_after_waits_that_long<S: Jobs>(s: &Subject<S>) {
    let id = s.put(job("mail")).await;
    let leased = s.take_one("mail").await;
    let wait = Duration::from_millis(1_234);
    assert_eq!(s.fail(&leased, AfterFailure::RetryAfter(wait)).await, Settled::Retrying(START + wait));
    assert_eq!(s.state(id).await, JobState::Retrying);
    s.clock.advance(wait);
    assert_eq!(s.take_one("mail").await.attempt, 2);
}

pub(super) async fn the_last_attempt_is_the_last<S: Jobs>(s: &Subject<S>) {
    let id = s.put(NewJob { attempts_max: Some(2), ..job("mail") }).await;
    let leased = s.take_one("mail").await;
    assert!(matches!(s.fail(&leased, SOON).await, Settled::Retrying(_)));
    let leased = s.take_one("mail").await;
    assert_eq!((leased.attempt, leased.attempts_max), (2, 2));
    assert_eq!(s.fail(&leased, SOON).await, Settled::Dead);
    let view = s.view(id).await;
    assert_eq!((view.state, view.attempt, view.ended_at), (JobState::Dead, 2, Some(START)));
    assert_eq!(view.last_error.as_deref(), Some("it failed"));
    assert_eq!(s.take("mail").await, None);
}

pub(super) async fn the_third_crash_buries<S: Jobs>(s: &Subject<S>) {
    let id = s.put(job("mail")).await;
    // Other failures between them don't reset the count.
    let ends = [AfterFailure::Crash, SOON, AfterFailure::Crash, AfterFailure::Retry, AfterFailure::Crash];
    for (n, then) in ends.into_iter().enumerate() {
        let leased = s.take_one("mail").await;
        let settled = s.fail(&leased, then).await;
        if n < 4 {
            let Settled::Retrying(run_at) = settled else { panic!("{settled:?}") };
            s.clock.set(run_at);
        } else {
            assert_eq!((leased.crashes, settled), (2, Settled::Dead));
        }
    }
    let view = s.view(id).await;
    assert_eq!((view.state, view.crashes, view.attempt), (JobState::Dead, 3, 5));
}

pub(super) async fn a_crash_in_company_is_nobodys_and_the_next_attempt_is_alone<S: Jobs>(s: &Subject<S>) {
    // The last attempt too: it may have been the other's fault.
    let id = s.put(NewJob { attempts_max: Some(1), ..job("mail") }).await;
    let leased = s.take_one("mail").await;
    assert!(!leased.alone);
    let Settled::Retrying(run_at) = s.fail(&leased, AfterFailure::CrashTogether).await else { panic!() };
    let detail = s.detail(id).await;
    assert_eq!((detail.view.attempt, detail.view.crashes), (0, 0));
    assert_eq!(detail.attempts[0].end, AttemptEnd::Crashed);
    s.clock.set(run_at);
    let leased = s.take_one("mail").await;
    assert!(leased.alone && leased.attempt == 1);
    s.store.give_back(leased.lease).await.unwrap();
    let leased = s.take_one("mail").await;
    assert!(leased.alone, "for good");
    assert_eq!(s.fail(&leased, AfterFailure::Crash).await, Settled::Dead);
}

pub(super) async fn a_crash_on_the_last_attempt_buries<S: Jobs>(s: &Subject<S>) {
    let id = s.put(NewJob { attempts_max: Some(1), ..job("mail") }).await;
    let leased = s.take_one("mail").await;
    assert_eq!(s.fail(&leased, AfterFailure::Crash).await, Settled::Dead);
    assert_eq!(s.view(id).await.crashes, 1);
}

pub(super) async fn a_bury_is_final<S: Jobs>(s: &Subject<S>) {
    let id = s.put(job("mail")).await;
    let leased = s.take_one("mail").await;
    assert_eq!(s.fail(&leased, AfterFailure::Bury).await, Settled::Dead);
    s.clock.advance(Duration::from_secs(1_000_000));
    assert_eq!(s.take("mail").await, None);
    assert_eq!(s.state(id).await, JobState::Dead);
    assert_eq!(s.count("mail").await.dead, 1);
}

pub(super) async fn a_message_is_cut_at_a_character<S: Jobs>(s: &Subject<S>) {
    let id = s.put(job("mail")).await;
    let leased = s.take_one("mail").await;
    let message = format!("x{}", "é".repeat(MESSAGE_BYTES_MAX));
    s.store
        .fail(
            leased.lease,
            Failure { then: AfterFailure::Bury, message: message.clone(), backoff: Backoff::Curve },
        )
        .await
        .unwrap();
    let kept = s.view(id).await.last_error.unwrap();
    assert_eq!(kept.len(), MESSAGE_BYTES_MAX - 1);
    assert!(message.starts_with(&kept));
}

pub(super) async fn attempts_count_up<S: Jobs>(s: &Subject<S>) {
    s.put(job("mail")).await;
    for attempt in 1..=25 {
        let leased = s.take_one("mail").await;
        assert_eq!((leased.attempt, leased.lease.claim), (attempt, i64::from(attempt)));
        let settled = s.fail(&leased, SOON).await;
        assert_eq!(settled == Settled::Dead, attempt == 25);
    }
}

pub(super) async fn extreme_waits_do_no_harm<S: Jobs>(s: &Subject<S>) {
    let id = s.put(job("mail")).await;
    let for_ever = Claim { lease: Duration::MAX, ..claim("mail") };
    let leased = s.store.claim(for_ever).await.unwrap().remove(0);
    let settled = s.fail(&leased, AfterFailure::RetryAfter(Duration::MAX)).await;
    assert_eq!(settled, Settled::Retrying(Timestamp(i64::MAX)));
    assert_eq!(s.state(id).await, JobState::Retrying);
    s.put(NewJob { run_at: Some(Timestamp(i64::MIN)), ..job("mail") }).await;
    s.take_one("mail").await;
    assert_eq!(s.take("mail").await, None);
}

pub(super) async fn a_lowered_limit_keeps_the_promised_retry<S: Jobs>(s: &Subject<S>) {
    s.put(job("mail")).await;
    for _ in 0..3 {
        let leased = s.take_one("mail").await;
        assert!(matches!(s.fail(&leased, SOON).await, Settled::Retrying(_)));
    }
    let lowered = Claim { attempts_default: 2, ..claim("mail") };
    let leased = s.store.claim(lowered).await.unwrap().remove(0);
    assert_eq!((leased.attempt, leased.attempts_max), (4, 4));
    assert_eq!(s.fail(&leased, SOON).await, Settled::Dead);
}

pub(super) async fn a_list_of_waits_is_followed<S: Jobs>(s: &Subject<S>) {
    s.put(job("mail")).await;
    let backoff = Backoff::List([5, 60].map(Duration::from_secs).into());
    for seconds in [5, 60, 60] {
        let leased = s.take_one("mail").await;
        let failure = Failure { then: AfterFailure::Retry, message: String::new(), backoff: backoff.clone() };
        let Settled::Retrying(run_at) = s.store.fail(leased.lease, failure).await.unwrap() else { panic!() };
        let (wait, base) = (run_at.since(s.now()), Duration::from_secs(seconds));
        assert!(wait >= base && wait <= base.mul_f64(1.1), "{wait:?} instead of {base:?}");
        s.clock.set(run_at);
    }
}

pub(super) async fn attempts_that_failed_are_kept<S: Jobs>(s: &Subject<S>) {
    let id = s.put(job("mail")).await;
    for then in [SOON, AfterFailure::Crash] {
        let leased = s.take_one("mail").await;
        s.clock.advance(Duration::from_secs(2));
        s.fail(&leased, then).await;
        s.clock.advance(Duration::from_secs(100));
    }
    let leased = s.take_one("mail").await;
    s.store.complete(leased.lease).await.unwrap();
    let detail = s.detail(id).await;
    // The one that did it is in the view.
    assert_eq!(detail.view.started_at, Some(START + Duration::from_secs(204)));
    let [first, second] = detail.attempts.as_slice() else { panic!("{:?}", detail.attempts) };
    assert_eq!((first.end, second.end), (AttemptEnd::Failed, AttemptEnd::Crashed));
    assert_eq!((first.claim, first.attempt, first.owner.as_str()), (1, 1, "host/boot-1"));
    assert_eq!((first.started_at, first.ended_at), (Some(START), START + Duration::from_secs(2)));
    assert_eq!(first.error.as_deref(), Some("it failed"));
}

pub(super) async fn the_latest_attempts_are_kept<S: Jobs>(s: &Subject<S>) {
    let id = s.put(NewJob { attempts_max: Some(100), ..job("mail") }).await;
    for _ in 0..ATTEMPTS_KEPT + 5 {
        let leased = s.take_one("mail").await;
        s.fail(&leased, SOON).await;
    }
    let attempts = s.detail(id).await.attempts;
    assert_eq!(attempts.len(), ATTEMPTS_KEPT as usize);
    assert_eq!((attempts[0].attempt, attempts.last().unwrap().attempt), (6, ATTEMPTS_KEPT + 5));
}
