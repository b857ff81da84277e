//! How the last instance of each type that died came to its end, and the last lines that it wrote: what a person asks for
//! first. Only the last one of each type is kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use wasmhost_config::shown::{self, MESSAGE_BYTES_MAX, TEXT_BYTES_MAX};
use wasmhost_engine::CallEnd;
use wasmhost_engine::services::InstanceName;

use crate::admin::api::{CrashCause, CrashView, LogLine};
use crate::logs::Logs;

/// Lines that are kept, and bytes of each.
const LINES_MAX: usize = 20;
const LINE_BYTES_MAX: usize = 1 << 10;

/// Among how many of its type's last lines they are looked for. A type may crash a thousand times a second.
const LOOKED_AT_MAX: usize = 1_000;

/// How long an instance that didn't serve can have lived.
const START_MAX: Duration = Duration::from_secs(10);

/// Why an instance is dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Death {
    cause: CrashCause,
    exit_code: Option<i32>,
    starting: bool,
    /// One line for a person.
    pub(crate) message: String,
    backtrace: Option<String>,
}

impl Death {
    /// By a call, or a start, that ended so.
    pub(crate) fn of<T>(end: &CallEnd<T>) -> Death {
        let message = end.summary();
        match end {
            CallEnd::Exited(code) => Death::exited(*code),
            CallEnd::Trap(backtrace) => {
                let backtrace = shown::cut(backtrace, TEXT_BYTES_MAX).to_owned();
                Death { backtrace: Some(backtrace), ..Death::from_cause(CrashCause::Trap, message) }
            }
            CallEnd::OutOfMemory(_) => Death::from_cause(CrashCause::OutOfMemory, message),
            CallEnd::Timeout(_) => Death::from_cause(CrashCause::Timeout, message),
            CallEnd::OutOfCpu(_) => Death::from_cause(CrashCause::OutOfCpu, message),
            CallEnd::Returned(_)
            | CallEnd::Interrupted
            | CallEnd::Host(_)
            | CallEnd::ErrorCode(_)
            | CallEnd::Refused(_) => Death::from_cause(CrashCause::Other, message),
        }
    }

    /// A command that ended by itself.
    pub(crate) fn exited(code: i32) -> Death {
        let message = format!("exited with code {code}");
        Death { exit_code: Some(code), ..Death::from_cause(CrashCause::Exit, message) }
    }

    /// The same, before it served.
    pub(crate) fn at_start(self) -> Death {
        Death { starting: true, message: format!("failed to start: {}", self.message), ..self }
    }

    pub(crate) fn cause(&self) -> CrashCause {
        self.cause
    }

    fn from_cause(cause: CrashCause, message: String) -> Death {
        Death { cause, exit_code: None, starting: false, message, backtrace: None }
    }
}

impl From<&str> for Death {
    fn from(message: &str) -> Death {
        Death::from_cause(CrashCause::Other, message.to_owned())
    }
}

/// See the module.
pub(crate) struct Deaths {
    logs: Arc<Logs>,
    last: Mutex<HashMap<Arc<str>, CrashView>>,
}

impl Deaths {
    pub(crate) fn new(logs: &Arc<Logs>) -> Arc<Deaths> {
        Arc::new(Deaths { logs: logs.clone(), last: Mutex::default() })
    }

    /// An instance has died just now, after it had served for so long, if it had.
    pub(crate) fn note(&self, instance: &InstanceName, served: Option<Duration>, death: &Death) {
        let name = instance.to_string();
        let now = jiff::Timestamp::now();
        let since = now.checked_sub(served.unwrap_or(START_MAX)).unwrap_or(now);
        let since = format!("{since:.3}");
        // The one before it had the same name.
        let before =
            self.last(&instance.process).filter(|before| served.is_none() && before.instance == name);
        let since = before.map(|before| before.time).filter(|before| *before > since).unwrap_or(since);
        let lines = self.logs.last_of_instance(instance, &since, LINES_MAX, LOOKED_AT_MAX);
        let view = CrashView {
            instance: name,
            time: format!("{now:.3}"),
            cause: death.cause,
            exit_code: death.exit_code,
            starting: death.starting,
            message: shown::cut(&death.message, MESSAGE_BYTES_MAX).to_owned(),
            backtrace: death.backtrace.clone(),
            lines: lines.iter().map(|line| bounded(line)).collect(),
        };
        self.lock().insert(instance.process.clone(), view);
    }

    /// The last one of a type.
    pub(crate) fn last(&self, process: &str) -> Option<CrashView> {
        self.lock().get(process).cloned()
    }

    /// There is no such type any more.
    pub(crate) fn forget(&self, process: &str) {
        self.lock().remove(process);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, CrashView>> {
        // No code that runs under the lock panics.
        self.last.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

fn bounded(line: &LogLine) -> LogLine {
    let text = shown::cut(&line.line, LINE_BYTES_MAX);
    let more = if text.len() < line.line.len() { "..." } else { "" };
    LogLine { line: format!("{text}{more}"), ..line.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_says_what_it_was_of() {
        let trap = Death::of::<()>(&CallEnd::Trap("unreachable\nframe 1\nframe 2".into()));
        assert_eq!((trap.cause, trap.message.as_str()), (CrashCause::Trap, "unreachable"));
        assert_eq!(trap.backtrace.as_deref(), Some("unreachable\nframe 1\nframe 2"));
        let exited = Death::of::<()>(&CallEnd::Exited(3)).at_start();
        assert_eq!((exited.cause, exited.exit_code, exited.starting), (CrashCause::Exit, Some(3), true));
        assert_eq!(exited.message, "failed to start: exited with code 3");
        assert_eq!(Death::from("why").cause, CrashCause::Other);
    }

    #[test]
    fn what_is_kept_of_a_death_is_bounded() {
        let trap = Death::of::<()>(&CallEnd::Trap("ä".repeat(1 << 20)));
        assert!(trap.backtrace.unwrap().len() <= TEXT_BYTES_MAX);
        let line = LogLine {
            time: String::new(),
            instance: "web.1".into(),
            stream: "stderr".into(),
            line: "ä".repeat(16 << 10),
        };
        let kept = bounded(&line).line;
        assert!(kept.len() <= LINE_BYTES_MAX + 3 && kept.ends_with("ä..."));
        assert_eq!(bounded(&LogLine { line: "short".into(), ..line }).line, "short");
    }
}
