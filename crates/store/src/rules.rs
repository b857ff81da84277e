//! Decisions that every backend takes in the same way: which jobs are valid, what follows a failure, where to look first.

use crate::Timestamp;
use crate::jobs::{
    AHEAD_MAX, ATTEMPTS_MAX, AfterFailure, AttemptEnd, BATCH_BYTES_MAX, Backoff, CRASHES_MAX, ClaimQueue,
    ENQUEUE_JOBS_MAX, EnqueueError, JobFilter, JobState, MESSAGE_BYTES_MAX, METADATA_BYTES_MAX,
    METADATA_ENTRIES_MAX, NAME_BYTES_MAX, NewJob, PAYLOAD_BYTES_MAX, Settled, UNIQUE_KEY_BYTES_MAX, Unique,
    UniqueScope,
};

/// Why an attempt ended without an answer: nobody renewed its lease in time.
pub(crate) const LEASE_RAN_OUT: &str = "its lease ran out";

/// Why an attempt ended without an answer: the host that ran it stopped before it was done.
pub(crate) const HOST_STOPPED: &str = "its host stopped";

/// Checks one `enqueue` before it reaches the backend.
pub(crate) fn check(jobs: &[NewJob], now: Timestamp) -> Result<(), EnqueueError> {
    let invalid = |text: String| Err(EnqueueError::Invalid(text));
    if jobs.len() > ENQUEUE_JOBS_MAX {
        return invalid(format!("{} jobs at once; {ENQUEUE_JOBS_MAX} is the most", jobs.len()));
    }
    let payloads: usize = jobs.iter().map(|job| job.payload.len()).sum();
    if payloads > BATCH_BYTES_MAX {
        return invalid(format!("{payloads} bytes of payload at once; {BATCH_BYTES_MAX} is the most"));
    }
    jobs.iter().try_for_each(|job| check_one(job, now).or_else(invalid))
}

/// Checks the name of a queue.
pub(crate) fn check_queue(queue: &str) -> Result<(), String> {
    if queue.is_empty() {
        return Err("the queue has no name".to_string());
    }
    at_most("the queue's name", queue.len(), NAME_BYTES_MAX)
}

fn at_most(what: &str, found: usize, max: usize) -> Result<(), String> {
    if found > max { Err(format!("{what} is {found} bytes long; {max} is the most")) } else { Ok(()) }
}

fn check_one(job: &NewJob, now: Timestamp) -> Result<(), String> {
    check_queue(&job.queue)?;
    at_most("the payload", job.payload.len(), PAYLOAD_BYTES_MAX)?;
    at_most("the content type", job.content_type.len(), NAME_BYTES_MAX)?;
    if let Some(unique) = &job.unique {
        if unique.key.is_empty() {
            return Err("the unique key is empty".to_string());
        }
        at_most("the unique key", unique.key.len(), UNIQUE_KEY_BYTES_MAX)?;
    }
    at_most("the metadata", job.metadata.iter().map(|(k, v)| k.len() + v.len()).sum(), METADATA_BYTES_MAX)?;
    if job.metadata.len() > METADATA_ENTRIES_MAX {
        return Err(format!(
            "{} names in the metadata; {METADATA_ENTRIES_MAX} is the most",
            job.metadata.len()
        ));
    }
    match job.attempts_max {
        Some(0) => return Err("a job needs at least 1 attempt".to_string()),
        Some(attempts) if attempts > ATTEMPTS_MAX => {
            return Err(format!("{attempts} attempts; {ATTEMPTS_MAX} is the most"));
        }
        _ => {}
    }
    if let Some(Unique { scope: UniqueScope::For(time), .. }) = &job.unique
        && *time > AHEAD_MAX
    {
        return Err(format!("a key can be held for {} days at most", AHEAD_MAX.as_secs() / 86_400));
    }
    if job.run_at.is_some_and(|run_at| run_at.since(now) > AHEAD_MAX) {
        return Err(format!("a job can be put off for {} days at most", AHEAD_MAX.as_secs() / 86_400));
    }
    Ok(())
}

/// How many tries there are of a job whose attempt number `attempt` begins now. A formation whose `attempts` was
/// lowered doesn't take back a retry that had been promised.
pub(crate) fn attempts_max(asked: Option<u32>, default: u32, attempt: u32) -> u32 {
    asked.unwrap_or(default).max(attempt)
}

/// The next state of a job whose attempt failed, and how many crashes it has then.
pub(crate) fn after_failure(
    then: AfterFailure,
    attempt: u32,
    attempts_max: u32,
    crashes: u32,
    backoff: &Backoff,
    now: Timestamp,
) -> (Settled, u32) {
    let crashes = crashes.saturating_add(u32::from(then == AfterFailure::Crash));
    let wait = match then {
        AfterFailure::Bury => return (Settled::Dead, crashes),
        AfterFailure::Crash if crashes >= CRASHES_MAX => return (Settled::Dead, crashes),
        AfterFailure::RetryAfter(wait) => wait,
        // Its attempt doesn't count, so that it has one left.
        AfterFailure::CrashTogether => return (Settled::Retrying(now + backoff.wait(attempt)), crashes),
        AfterFailure::Retry | AfterFailure::Crash => backoff.wait(attempt),
    };
    let settled = if attempt >= attempts_max { Settled::Dead } else { Settled::Retrying(now + wait) };
    (settled, crashes)
}

/// The word of the history for an attempt that failed so.
pub(crate) fn attempt_end(then: AfterFailure) -> AttemptEnd {
    match then {
        AfterFailure::Crash | AfterFailure::CrashTogether => AttemptEnd::Crashed,
        AfterFailure::Retry | AfterFailure::RetryAfter(_) | AfterFailure::Bury => AttemptEnd::Failed,
    }
}

/// The text that is kept of an attempt that ended without an answer.
pub(crate) fn interrupted(attempt: u32, attempts_max: u32, why: &str) -> String {
    let end = if attempt >= attempts_max { "; no attempts are left" } else { "" };
    format!("attempt {attempt} of {attempts_max} was interrupted: {why}{end}")
}

/// The states that a filter names, or all.
pub(crate) fn states_of(filter: &JobFilter) -> impl Iterator<Item = JobState> {
    JobState::ALL.into_iter().filter(|state| filter.states.is_empty() || filter.states.contains(state))
}

/// Whether a filter is about a job of this queue in this state; its key isn't looked at.
pub(crate) fn is_meant(filter: &JobFilter, queue: &str, state: JobState) -> bool {
    filter.queue.as_ref().is_none_or(|wanted| wanted == queue)
        && (filter.states.is_empty() || filter.states.contains(&state))
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
pub(crate) fn draw_order(queues: &[ClaimQueue]) -> Vec<&ClaimQueue> {
    if let [only] = queues {
        return vec![only];
    }
    let mut drawn: Vec<(f64, &ClaimQueue)> = queues
        .iter()
        .map(|queue| (-(1.0 - fastrand::f64()).ln() / f64::from(queue.weight.max(1)), queue))
        .collect();
    drawn.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    drawn.into_iter().map(|(_, queue)| queue).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_cut_at_a_character() {
        let long = format!("{}é", "x".repeat(MESSAGE_BYTES_MAX - 1));
        assert_eq!(cut(long).len(), MESSAGE_BYTES_MAX - 1);
        assert_eq!(cut("short".to_string()), "short");
    }

    #[test]
    fn weights_decide_which_queue_comes_first() {
        let queue = |name: &str, weight| ClaimQueue { name: name.to_string(), weight, concurrency: None };
        let queues = [queue("often", 3), queue("seldom", 1)];
        let often = (0..10_000).filter(|_| draw_order(&queues)[0].name == "often").count();
        assert!((7_000..8_000).contains(&often), "{often} of 10,000");
    }
}
