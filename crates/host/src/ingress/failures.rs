//! The log lines of requests that their type gave no answer to: one each, as long as they are few. Under overload
//! writing a line would cost more than refusing the request, so that past some lines a second they are only counted.

use std::sync::Arc;
use std::time::Duration;

use tracing::{error, warn};
use wasmhost_engine::CallEnd;

use super::answer::Failure;
use super::head::X_REQUEST_ID;
use super::lines::{FewLines, shown_path};
use crate::pool::NoInstance;

/// Lines of one type in one window.
const LINES_MAX: u32 = 20;
const WINDOW: Duration = Duration::from_secs(1);

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
    pub(super) fn refused(&self, request: &http::request::Parts, none: NoInstance) -> (Failure, bool) {
        let failure = Failure::of_no_instance(none);
        let flood = !self.has_room(failure);
        if !flood {
            let (method, path) = (&request.method, shown_path(&request.uri));
            let (request_id, why) = (id(request), none.summary());
            warn!(code = failure.code, process = %self.process, request_id, "{method} {path}: {why}");
        }
        (failure, flood)
    }

    /// A request whose call ended without an answer, with the backtrace of a trap.
    pub(super) fn ended(&self, request: &http::request::Parts, instance: &str, end: &CallEnd) -> Failure {
        let failure = Failure::of_call(end);
        if self.has_room(failure) {
            let (method, path, code) = (&request.method, shown_path(&request.uri), failure.code);
            let request_id = id(request);
            match end {
                CallEnd::Trap(backtrace) => warn!(code, instance, request_id, "{method} {path}: {backtrace}"),
                CallEnd::Host(message) => error!(code, instance, request_id, "{method} {path}: {message}"),
                end => warn!(code, instance, request_id, "{method} {path}: the call {}", end.summary()),
            }
        }
        failure
    }

    fn has_room(&self, failure: Failure) -> bool {
        self.lines.has_room(failure.code.unwrap_or_default())
    }
}

fn id(request: &http::request::Parts) -> &str {
    request.headers.get(X_REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default()
}
