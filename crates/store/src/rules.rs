//! What every backend decides in the same way: which jobs are valid, what follows a failure, where to look first.

use crate::Timestamp;
use crate::jobs::{
    AfterFailure, BATCH_BYTES_MAX, CRASHES_MAX, ENQUEUE_JOBS_MAX, EnqueueError, JobState, MESSAGE_BYTES_MAX,
    METADATA_BYTES_MAX, METADATA_ENTRIES_MAX, NAME_BYTES_MAX, NewJob, PAYLOAD_BYTES_MAX, Settled,
    UNIQUE_KEY_BYTES_MAX, backoff,
};

/// Why an attempt ended without an answer: nobody renewed its lease in time.
pub(crate) const LEASE_RAN_OUT: &str = "its lease ran out";

/// Why an attempt ended without an answer: the host that ran it stopped before it was done.
pub(crate) const HOST_STOPPED: &str = "its host stopped";

/// Checks one `enqueue` before it reaches the backend.
pub(crate) fn check(jobs: &[NewJob]) -> Result<(), EnqueueError> {
    let invalid = |text: String| Err(EnqueueError::Invalid(text));
    if jobs.len() > ENQUEUE_JOBS_MAX {
        return invalid(format!("{} jobs at once; {ENQUEUE_JOBS_MAX} is the most", jobs.len()));
    }
    let payloads: usize = jobs.iter().map(|job| job.payload.len()).sum();
    if payloads > BATCH_BYTES_MAX {
        return invalid(format!("{payloads} bytes of payload at once; {BATCH_BYTES_MAX} is the most"));
    }
    jobs.iter().try_for_each(|job| check_one(job).or_else(invalid))
}

fn check_one(job: &NewJob) -> Result<(), String> {
    let at_most = |what: &str, found: usize, max: usize| {
        if found > max { Err(format!("{what} is {found} bytes long; {max} is the most")) } else { Ok(()) }
    };
    if job.queue.is_empty() {
        return Err("the queue has no name".to_string());
    }
    at_most("the queue's name", job.queue.len(), NAME_BYTES_MAX)?;
    at_most("the payload", job.payload.len(), PAYLOAD_BYTES_MAX)?;
    at_most("the content type", job.content_type.len(), NAME_BYTES_MAX)?;
    at_most("the unique key", job.unique_key.as_ref().map_or(0, String::len), UNIQUE_KEY_BYTES_MAX)?;
    at_most("the metadata", job.metadata.iter().map(|(k, v)| k.len() + v.len()).sum(), METADATA_BYTES_MAX)?;
    if job.metadata.len() > METADATA_ENTRIES_MAX {
        return Err(format!(
            "{} names in the metadata; {METADATA_ENTRIES_MAX} is the most",
            job.metadata.len()
        ));
    }
    if job.attempts_max == Some(0) {
        return Err("a job needs at least 1 attempt".to_string());
    }
    Ok(())
}

/// How many tries there are of a job whose attempt number `attempt` begins now. A formation whose `attempts` was
/// lowered doesn't take back a retry that had been promised.
pub(crate) fn attempts_max(asked: Option<u32>, default: u32, attempt: u32) -> u32 {
    asked.unwrap_or(default).max(attempt)
}

/// What becomes of a job whose attempt failed, and how many crashes it has then.
pub(crate) fn after_failure(
    then: AfterFailure,
    attempt: u32,
    attempts_max: u32,
    crashes: u32,
    now: Timestamp,
) -> (Settled, u32) {
    let crashes = crashes.saturating_add(u32::from(then == AfterFailure::Crash));
    let wait = match then {
        AfterFailure::Bury => return (Settled::Dead, crashes),
        AfterFailure::Crash if crashes >= CRASHES_MAX => return (Settled::Dead, crashes),
        AfterFailure::RetryAfter(wait) => wait,
        AfterFailure::Retry | AfterFailure::Crash => backoff(attempt),
    };
    let settled = if attempt >= attempts_max { Settled::Dead } else { Settled::Retrying(now + wait) };
    (settled, crashes)
}

/// What is kept of an attempt that ended without an answer. SQLite's `leases.rs` says the same in SQL.
pub(crate) fn interrupted(attempt: u32, attempts_max: u32, why: &str) -> String {
    let end = if attempt >= attempts_max { "; no attempts are left" } else { "" };
    format!("attempt {attempt} of {attempts_max} was interrupted: {why}{end}")
}

/// The state that people see: what was to wait until a time that has passed is available, even if no claim has
/// looked at it since.
pub(crate) fn state_at(state: JobState, run_at: Timestamp, now: Timestamp) -> JobState {
    match state {
        JobState::Scheduled | JobState::Retrying if run_at <= now => JobState::Available,
        other => other,
    }
}

/// The first [`MESSAGE_BYTES_MAX`] bytes, cut at a character.
pub(crate) fn cut(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
    message
}

/// The queues in the order to look at them: a random one, in which each queue comes first as often as its weight
/// says. (Each draws from an exponential distribution whose rate is its weight; Efraimidis and Spirakis, 2006.)
pub(crate) fn draw_order(queues: &[(String, u32)]) -> Vec<&str> {
    if let [(only, _)] = queues {
        return vec![only];
    }
    let mut drawn: Vec<(f64, &str)> = queues
        .iter()
        .map(|(queue, weight)| (-(1.0 - fastrand::f64()).ln() / f64::from((*weight).max(1)), queue.as_str()))
        .collect();
    drawn.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    drawn.into_iter().map(|(_, queue)| queue).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_message_is_cut_at_a_character() {
        let long = format!("{}é", "x".repeat(MESSAGE_BYTES_MAX - 1));
        assert_eq!(cut(long).len(), MESSAGE_BYTES_MAX - 1);
        assert_eq!(cut("short".to_string()), "short");
    }

    #[test]
    fn weights_decide_which_queue_comes_first() {
        let queues = [("often".to_string(), 3), ("seldom".to_string(), 1)];
        let often = (0..10_000).filter(|_| draw_order(&queues)[0] == "often").count();
        assert!((7_000..8_000).contains(&often), "{often} of 10,000");
    }

    #[test]
    fn backoff_never_overflows() {
        assert!(backoff(1) >= Duration::from_secs(16) && backoff(1) < Duration::from_secs(18));
        assert!(Timestamp(0) + backoff(u32::MAX) > Timestamp(0));
    }
}
