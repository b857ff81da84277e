//! A request that its type gave no answer to has a log line, as long as such requests are few. Under overload a line
//! would cost more than refusing the request, so that past some lines a second they are only counted.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http::request::Parts;
use tracing::{error, info, warn};
use wasmhost_config::shown::{MESSAGE_BYTES_MAX, one_line};
use wasmhost_engine::CallEnd;

use super::answer::Failure;
use super::identity::X_REQUEST_ID;
use super::lines::{shown_method, shown_path};
use super::outgoing::Unsendable;
use crate::few_lines::FewLines;
use crate::pool::{NoInstance, Slot};

/// Lines of one type in one window.
const LINES_MAX: u32 = 20;
const WINDOW: Duration = Duration::from_secs(1);

/// In the place of a code, where the client has its answer after all.
const REPEATED: &str = "repeated";

/// See the module; one for each type.
pub(crate) struct FailureLog {
    process: Arc<str>,
    /// By code.
    lines: Arc<FewLines<&'static str>>,
}

impl FailureLog {
    pub(crate) fn new(process: Arc<str>) -> Arc<FailureLog> {
        let shown = process.clone();
        let lines = FewLines::new(LINES_MAX, WINDOW, move |code, count| {
            warn!(code, process = %shown, "{count} more requests within a second ended so");
        });
        Arc::new(FailureLog { process, lines })
    }

    pub(super) fn process(&self) -> &Arc<str> {
        &self.process
    }

    /// A request that got no instance; and whether it's one of too many.
    pub(super) fn refused(&self, request: &Parts, none: NoInstance) -> (Failure, bool) {
        let failure = Failure::of_no_instance(none);
        let flood = !self.has_room(failure);
        if !flood {
            let (method, path) = (shown_method(&request.method), shown_path(&request.uri));
            let (request_id, why) = (id(request), none.summary());
            warn!(code = failure.code, process = %self.process, request_id, "{method} {path}: {why}");
        }
        (failure, flood)
    }

    /// A request whose call ended without an answer, with the backtrace of a trap.
    pub(super) fn ended(&self, request: &Parts, instance: &str, end: &CallEnd) -> Failure {
        self.failed(request, instance, end, "")
    }

    /// A request whose guest gave an answer that can't be sent.
    pub(super) fn unsendable(&self, request: &Parts, instance: &str, why: Unsendable) -> Failure {
        let failure = Failure::UNSENDABLE;
        if self.has_room(failure) {
            let (method, path) = (shown_method(&request.method), shown_path(&request.uri));
            let code = failure.code;
            let request_id = id(request);
            warn!(code, instance, request_id, "{method} {path}: {why}");
        }
        failure
    }

    /// A request that another instance has answered, after one crashed on it.
    pub(super) fn repeated(&self, request: &Parts, instance: &str, crash: &CallEnd, again: &str) {
        if self.lines.has_room(REPEATED) {
            let (method, path) = (shown_method(&request.method), shown_path(&request.uri));
            let why = crash.summary();
            info!(
                instance,
                "{method} {path} was repeated on another instance ({again}), since this one crashed: {why}"
            );
        }
    }

    fn failed(&self, request: &Parts, instance: &str, end: &CallEnd, when: &str) -> Failure {
        let failure = Failure::of_call(end);
        if self.has_room(failure) {
            let (method, path) = (shown_method(&request.method), shown_path(&request.uri));
            let code = failure.code;
            let request_id = id(request);
            let what = format!("{method} {path}{when}");
            match end {
                CallEnd::Trap(backtrace) => warn!(code, instance, request_id, "{what}: {backtrace}"),
                CallEnd::Host(message) => error!(code, instance, request_id, "{what}: {message}"),
                CallEnd::ErrorCode(error) => {
                    let error = one_line(error, MESSAGE_BYTES_MAX);
                    warn!(code, instance, request_id, "{what}: the guest answered with the error {error}");
                }
                end => warn!(code, instance, request_id, "{what}: the call {}", end.summary()),
            }
        }
        failure
    }

    fn has_room(&self, failure: Failure) -> bool {
        self.lines.has_room(failure.code.unwrap_or_default())
    }
}

/// How a call comes out: whether it has an answer, and how it ends. Where it fails with an answer its client has a status
/// already, and only the log can tell.
pub(super) struct Outcome {
    failures: Arc<FailureLog>,
    request: Arc<Parts>,
    slot: Arc<Slot>,
    state: Mutex<State>,
}

/// The answer and the call's end come from different tasks.
enum State {
    NoAnswer,
    /// It has failed, and whoever waits for its answer may find that out as well.
    Failed(CallEnd),
    HasAnswer,
}

impl Outcome {
    /// The outcome of a call that begins.
    pub(super) fn new(failures: Arc<FailureLog>, request: Arc<Parts>, slot: Arc<Slot>) -> Arc<Outcome> {
        Arc::new(Outcome { failures, request, slot, state: Mutex::new(State::NoAnswer) })
    }

    /// The call has ended.
    pub(super) fn end(&self, end: &CallEnd) {
        // One that the host itself has ended is no failure.
        if matches!(end, CallEnd::Returned(()) | CallEnd::Interrupted) {
            return;
        }
        let before = std::mem::replace(&mut *self.state(), State::Failed(end.clone()));
        if matches!(before, State::HasAnswer) {
            self.tell(end);
        }
    }

    /// It has an answer.
    pub(super) fn answer(&self) {
        let before = std::mem::replace(&mut *self.state(), State::HasAnswer);
        if let State::Failed(end) = before {
            self.tell(&end);
        }
    }

    fn tell(&self, end: &CallEnd) {
        let instance = self.slot.name.to_string();
        self.failures.failed(&self.request, &instance, end, ", after its answer had begun");
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that runs under the lock panics.
        self.state.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

fn id(request: &Parts) -> &str {
    request.headers.get(X_REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default()
}
