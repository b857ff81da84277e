//! The log lines of jobs that fail or die: one each as long as they are few.

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;
use wasmhost_config::shown;
use wasmhost_engine::services::InstanceName;
use wasmhost_store::Timestamp;
use wasmhost_store::jobs::{AfterFailure, JobId, LeasedJob, Settled};

use crate::few_lines::FewLines;

/// Lines of one type in one window.
const LINES_MAX: u32 = 20;
const WINDOW: Duration = Duration::from_secs(1);

/// Bytes of a job's error in its line; `wasmhost jobs show` has all of it.
const ERROR_BYTES_MAX: usize = 1 << 10;

/// See the module; one for each type.
pub(crate) struct JobLog {
    lines: Arc<FewLines<Kind>>,
}

/// How it came out, on which queue.
type Kind = (&'static str, String);

/// A try that is over.
pub(super) struct Tried {
    pub(super) id: JobId,
    pub(super) queue: String,
    pub(super) instance: InstanceName,
    pub(super) attempt: u32,
    pub(super) attempts_max: u32,
    /// Crashes before this try.
    pub(super) crashes: u32,
}

impl Tried {
    pub(super) fn of(job: &LeasedJob, instance: &InstanceName) -> Tried {
        Tried {
            id: job.lease.id,
            queue: job.queue.clone(),
            instance: instance.clone(),
            attempt: job.attempt,
            attempts_max: job.attempts_max,
            crashes: job.crashes,
        }
    }
}

impl JobLog {
    pub(crate) fn new(process: &str) -> JobLog {
        let shown = process.to_owned();
        JobLog {
            lines: FewLines::new(LINES_MAX, WINDOW, move |(how, queue): Kind, count| {
                warn!(process = %shown, "{count} more jobs of \"{queue}\" {how} within a second");
            }),
        }
    }

    /// The backtrace of a job that trapped.
    pub(super) fn trapped(&self, tried: &Tried, backtrace: &str) {
        if self.lines.has_room(("trapped", tried.queue.clone())) {
            let Tried { id, queue, instance, attempt, .. } = tried;
            warn!(%instance, "job {id} of \"{queue}\", attempt {attempt}: {backtrace}");
        }
    }

    /// Logs what the store made of a failure.
    pub(super) fn failed(&self, tried: &Tried, settled: Settled, then: &AfterFailure, error: &str) {
        let Some((how, text)) = said(tried, settled, then, error, Timestamp::now()) else { return };
        if self.lines.has_room((how, tried.queue.clone())) {
            warn!(instance = %tried.instance, "{text}");
        }
    }
}

/// The line, unless the job isn't this host's any more.
fn said(
    tried: &Tried,
    settled: Settled,
    then: &AfterFailure,
    error: &str,
    now: Timestamp,
) -> Option<(&'static str, String)> {
    let Tried { id, queue, attempt, attempts_max, crashes, .. } = tried;
    let error = error.lines().collect::<Vec<_>>().join("; ");
    let error = match shown::one_line(&error, ERROR_BYTES_MAX) {
        error if error.is_empty() => "no reason was given".into(),
        error => error,
    };
    match settled {
        Settled::Retrying(at) => {
            let wait = at.since(now).as_secs_f64().round();
            let text = format!(
                "job {id} of \"{queue}\" failed ({attempt} of {attempts_max}): {error}; again in {wait} s"
            );
            Some(("failed", text))
        }
        Settled::Dead => {
            let why = match then {
                AfterFailure::Bury => "buried by its handler".to_owned(),
                AfterFailure::Crash if attempt < attempts_max => format!("crashed {} times", crashes + 1),
                _ => format!("{attempt} of {attempts_max}"),
            };
            Some(("died", format!("job {id} of \"{queue}\" is dead ({why}): {error}")))
        }
        Settled::Done | Settled::Released | Settled::Stale => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_comes_next() {
        let tried = Tried {
            id: JobId(7),
            queue: "clicks".into(),
            instance: InstanceName { process: "worker".into(), index: 1 },
            attempt: 1,
            attempts_max: 4,
            crashes: 2,
        };
        let now = Timestamp(1_000_000);
        let said =
            |settled, then, error: &str| said(&tried, settled, &then, error, now).map(|(_, text)| text);
        let retry = || AfterFailure::Retry;
        let again = Settled::Retrying(Timestamp(1_002_000));
        assert_eq!(
            said(again, retry(), "no\ntea\u{202e}").unwrap(),
            "job 7 of \"clicks\" failed (1 of 4): no; tea\\u{202e}; again in 2 s"
        );
        assert!(said(again, retry(), "").unwrap().contains("no reason was given"));
        let error = "x".repeat(1 << 20);
        let long = said(again, retry(), &error).unwrap();
        assert!(long.len() < ERROR_BYTES_MAX + 100);
        assert_eq!(said(Settled::Dead, retry(), "x").unwrap(), "job 7 of \"clicks\" is dead (1 of 4): x");
        assert!(said(Settled::Dead, AfterFailure::Bury, "x").unwrap().contains("(buried by its handler)"));
        assert!(said(Settled::Dead, AfterFailure::Crash, "x").unwrap().contains("(crashed 3 times)"));
        for settled in [Settled::Done, Settled::Released, Settled::Stale] {
            assert_eq!(said(settled, retry(), "x"), None);
        }
    }
}
