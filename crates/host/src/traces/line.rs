//! A call's way: its wait for an instance, and then the guest.

use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;
use wasmhost_engine::services::Trace;
use wasmhost_engine::{CallEnd, CallReport};

use super::{Kind, Open, Scope};
use crate::pool::Slot;

/// A call that waits for an instance, if it's part of a trace. Its wait is over when it is lent one, or this is dropped.
pub(crate) struct Line {
    scope: Arc<Scope>,
    process: Arc<str>,
    /// Where it is recorded.
    since: Option<Instant>,
}

/// A call in a guest. Its span is over when it is ended, or this is dropped.
pub(crate) struct CallSpan {
    /// The place of what the guest sends.
    scope: Arc<Scope>,
    open: Option<Open>,
}

impl Line {
    /// A call begins to wait. Nothing is done where there is no trace.
    pub(crate) fn enter(scope: Option<&Arc<Scope>>, process: &Arc<str>) -> Option<Line> {
        let scope = scope?.clone();
        let since = scope.is_recorded().then(Instant::now);
        Some(Line { scope, process: process.clone(), since })
    }

    /// It has an instance.
    pub(crate) fn lent(mut self, slot: &Slot) -> CallSpan {
        let now = self.end();
        let process = &self.process;
        let open =
            self.scope.begin(|| format!("call {process}"), Kind::Internal, now.unwrap_or_else(Instant::now));
        let open = open.map(|mut open| {
            open.facts.set("wasmhost.type", process.to_string());
            open.facts.set("wasmhost.instance", slot.name.to_string());
            open.facts.set("wasmhost.release", slot.version.release);
            open
        });
        let scope = match &open {
            Some(open) => self.scope.under(open),
            None => self.scope.clone(),
        };
        CallSpan { scope, open }
    }
}

impl Line {
    /// Its wait is over, now, if it is recorded and hasn't been before.
    fn end(&mut self) -> Option<Instant> {
        let (since, now) = (self.since.take()?, Instant::now());
        if let Some(wait) = self.scope.begin(|| format!("wait {}", self.process), Kind::Internal, since) {
            wait.end_at(now);
        }
        Some(now)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.end();
    }
}

impl CallSpan {
    /// The trace, for the guest's doings.
    pub(crate) fn trace(&self) -> Trace {
        Some(self.scope.clone())
    }

    /// Tells the guest, by its request's headers. Where nothing is recorded they say so already.
    pub(crate) fn put_on(&self, headers: &mut HeaderMap) {
        if self.open.is_some() {
            self.scope.put_on(headers);
        }
    }

    /// The call is over.
    pub(crate) fn end<T>(mut self, report: &CallReport<T>) {
        let Some(open) = &mut self.open else { return };
        open.facts.set("wasmhost.cpu_seconds", report.cpu.as_secs_f64());
        if let Some(error) = end_name(&report.end) {
            open.facts.fail(error);
            if let CallEnd::Trap(_) | CallEnd::OutOfMemory(_) | CallEnd::Timeout(_) | CallEnd::OutOfCpu(_) =
                &report.end
            {
                open.facts.message = report.end.summary();
            }
        }
    }
}

/// The name of the way in which a call has failed, if it has.
pub(crate) fn end_name<T>(end: &CallEnd<T>) -> Option<&'static str> {
    Some(match end {
        CallEnd::Returned(_) => return None,
        CallEnd::Exited(_) => "exit",
        CallEnd::Trap(_) => "trap",
        CallEnd::OutOfMemory(_) => "out_of_memory",
        CallEnd::Timeout(_) => "timeout",
        CallEnd::OutOfCpu(_) => "out_of_cpu",
        CallEnd::Interrupted => "interrupted",
        CallEnd::Host(_) => "host",
        CallEnd::ErrorCode(_) => "error_code",
        CallEnd::Refused(_) => "refused",
    })
}
