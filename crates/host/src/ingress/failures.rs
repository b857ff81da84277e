//! The log lines of requests that their type gave no answer to: one each, as long as they are few. Under overload
//! writing a line would cost more than refusing the request, so that past some lines a second they are only counted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tracing::{error, warn};
use wasmhost_engine::CallEnd;

use super::answer::Failure;
use super::head::X_REQUEST_ID;
use crate::pool::NoInstance;

/// Lines of one type in one window; what comes after them is said in one line at its end.
const LINES_MAX: u32 = 20;
const WINDOW: Duration = Duration::from_secs(1);

/// See the module; one for each type.
pub(crate) struct FailureLog {
    process: Arc<str>,
    window: Mutex<Window>,
}

struct Window {
    begun: Instant,
    lines: u32,
    /// By code.
    left_out: BTreeMap<&'static str, u64>,
}

impl FailureLog {
    pub(crate) fn new(process: Arc<str>) -> Arc<FailureLog> {
        let window = Window { begun: Instant::now(), lines: 0, left_out: BTreeMap::new() };
        Arc::new(FailureLog { process, window: Mutex::new(window) })
    }

    pub(super) fn process(&self) -> &Arc<str> {
        &self.process
    }

    /// A request that got no instance; and whether it's one of too many.
    pub(super) fn refused(
        self: &Arc<Self>,
        request: &http::request::Parts,
        none: NoInstance,
    ) -> (Failure, bool) {
        let failure = Failure::of_no_instance(none);
        let flood = !self.has_room(failure);
        if !flood {
            let (method, path) = (&request.method, request.uri.path());
            let (request_id, why) = (id(request), none.summary());
            warn!(code = failure.code, process = %self.process, request_id, "{method} {path}: {why}");
        }
        (failure, flood)
    }

    /// A request whose call ended without an answer, with the backtrace of a trap.
    pub(super) fn ended(
        self: &Arc<Self>,
        request: &http::request::Parts,
        instance: &str,
        end: &CallEnd,
    ) -> Failure {
        let failure = Failure::of_call(end);
        if self.has_room(failure) {
            let (method, path, code) = (&request.method, request.uri.path(), failure.code);
            let request_id = id(request);
            match end {
                CallEnd::Trap(backtrace) => warn!(code, instance, request_id, "{method} {path}: {backtrace}"),
                CallEnd::Host(message) => error!(code, instance, request_id, "{method} {path}: {message}"),
                end => warn!(code, instance, request_id, "{method} {path}: the call {}", end.summary()),
            }
        }
        failure
    }

    fn has_room(self: &Arc<Self>, failure: Failure) -> bool {
        let mut window = self.lock();
        let age = window.begun.elapsed();
        if age >= WINDOW && window.left_out.is_empty() {
            *window = Window { begun: Instant::now(), lines: 0, left_out: BTreeMap::new() };
        }
        if window.lines < LINES_MAX {
            window.lines += 1;
            return true;
        }
        if window.left_out.is_empty() {
            let log = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(WINDOW.saturating_sub(age)).await;
                log.sum_up();
            });
        }
        *window.left_out.entry(failure.code.unwrap_or_default()).or_default() += 1;
        false
    }

    fn sum_up(&self) {
        let left_out = {
            let mut window = self.lock();
            window.begun = Instant::now();
            window.lines = 0;
            std::mem::take(&mut window.left_out)
        };
        for (code, count) in left_out {
            warn!(code, process = %self.process, "{count} more requests within a second ended so");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Window> {
        // No code that runs under the lock panics.
        self.window.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

fn id(request: &http::request::Parts) -> &str {
    request.headers.get(X_REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_flood_is_counted() {
        let log = FailureLog::new("web".into());
        let full = Failure::of_no_instance(NoInstance::LineFull);
        let written = (0..1000).filter(|_| log.has_room(full)).count();
        assert_eq!(written, 20);
        assert_eq!(log.lock().left_out["H11"], 980);
        log.sum_up();
        assert!(log.lock().left_out.is_empty());
        assert!(log.has_room(full));
    }
}
