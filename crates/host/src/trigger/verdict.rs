//! The fate of a job, by how its call ended. Pure.

use wasmhost_engine::{CallEnd, JobFailure};
use wasmhost_store::jobs::AfterFailure;

/// The fate of a job, by how its call ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    Done,
    /// It waits again, with no attempt used up.
    Back,
    /// The same, and nobody need know: no call of it has begun.
    NotBegun,
    Failed(AfterFailure, String),
}

impl Verdict {
    /// A guest that crashed has said why on standard error, as a rule: a trap alone tells nobody anything.
    pub(super) fn of(end: &CallEnd<Result<(), JobFailure>>, last_words: impl FnOnce() -> String) -> Verdict {
        match end {
            CallEnd::Returned(Ok(())) => Verdict::Done,
            CallEnd::Returned(Err(JobFailure::Retry(message))) => {
                Verdict::Failed(AfterFailure::Retry, message.clone())
            }
            CallEnd::Returned(Err(JobFailure::RetryAfter(wait, message))) => {
                Verdict::Failed(AfterFailure::RetryAfter(*wait), message.clone())
            }
            CallEnd::Returned(Err(JobFailure::Bury(message))) => {
                Verdict::Failed(AfterFailure::Bury, message.clone())
            }
            CallEnd::Interrupted => Verdict::Back,
            CallEnd::Refused(_) => Verdict::NotBegun,
            CallEnd::Timeout(_) | CallEnd::OutOfCpu(_) | CallEnd::Host(_) | CallEnd::ErrorCode(_) => {
                Verdict::Failed(AfterFailure::Retry, end.summary())
            }
            CallEnd::Exited(_) | CallEnd::Trap(_) | CallEnd::OutOfMemory(_) => {
                let message = format!("{}\n{}", end.summary(), last_words());
                Verdict::Failed(AfterFailure::Crash, message.trim_end().to_owned())
            }
        }
    }
}

impl Verdict {
    /// The verdict where other jobs may have been in the instance as it ended. `in_time` is whether the call was still
    /// within its own timeout.
    pub(super) fn shared<T>(self, together: bool, in_time: bool, end: &CallEnd<T>) -> Verdict {
        let anybodys = match end {
            CallEnd::Exited(_) | CallEnd::Trap(_) | CallEnd::OutOfMemory(_) | CallEnd::OutOfCpu(_) => true,
            // Another one's timeout ended the instance.
            CallEnd::Timeout(_) => in_time,
            CallEnd::Returned(_)
            | CallEnd::Interrupted
            | CallEnd::Refused(_)
            | CallEnd::ErrorCode(_)
            | CallEnd::Host(_) => false,
        };
        match self {
            Verdict::Failed(_, message) if together && anybodys => {
                let message = format!(
                    "its instance ended while other jobs were in it; it will be tried alone: {message}"
                );
                Verdict::Failed(AfterFailure::CrashTogether, message)
            }
            verdict => verdict,
        }
    }
}

#[cfg(test)]
mod tests {
    use wasmhost_engine::{Shortage, Spent};

    use super::*;

    #[test]
    fn a_crash_is_counted_and_an_interruption_is_not() {
        fn of(end: &CallEnd<Result<(), JobFailure>>) -> Verdict {
            Verdict::of(end, || "no tea".into())
        }
        let trap = CallEnd::Trap("unreachable\n  at main".into());
        assert_eq!(of(&trap), Verdict::Failed(AfterFailure::Crash, "unreachable\nno tea".into()));
        assert_eq!(of(&CallEnd::Interrupted), Verdict::Back);
        assert_eq!(of(&CallEnd::Refused("its instance was ending".into())), Verdict::NotBegun);
        for end in [CallEnd::Timeout(Spent::default()), CallEnd::OutOfCpu(Spent::default())] {
            assert!(matches!(of(&end), Verdict::Failed(AfterFailure::Retry, _)));
        }
        assert_eq!(of(&CallEnd::Returned(Ok(()))), Verdict::Done);
    }

    #[test]
    fn only_an_end_that_may_be_anothers_fault_is_shared() {
        let shared =
            |end: CallEnd<Result<(), JobFailure>>, together, in_time| match Verdict::of(&end, String::new)
                .shared(together, in_time, &end)
            {
                Verdict::Failed(then, _) => Some(then),
                _ => None,
            };
        use AfterFailure::{Crash, CrashTogether, Retry};
        let full = CallEnd::OutOfMemory(Shortage::Memory { wanted: 2, max: 1 });
        for end in [CallEnd::Trap("unreachable".into()), CallEnd::Exited(1), full] {
            assert_eq!(shared(end.clone(), true, true), Some(CrashTogether));
            assert_eq!(shared(end, false, true), Some(Crash));
        }
        assert_eq!(shared(CallEnd::OutOfCpu(Spent::default()), true, true), Some(CrashTogether));
        assert_eq!(shared(CallEnd::Timeout(Spent::default()), true, true), Some(CrashTogether), "another's");
        assert_eq!(shared(CallEnd::Timeout(Spent::default()), true, false), Some(Retry), "its own");
        let said = || CallEnd::Returned(Err(JobFailure::Retry("no".into())));
        assert_eq!(shared(said(), true, true), Some(Retry));
        assert_eq!(shared(CallEnd::Interrupted, true, true), None);
    }
}
