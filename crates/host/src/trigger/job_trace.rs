//! Jobs' part in traces. A job goes on in the trace of whoever enqueued it, which its metadata says, also after a restart.

use wasmhost_engine::services::Trace;
use wasmhost_engine::{CallEnd, CallReport, JobFailure};
use wasmhost_store::Timestamp;
use wasmhost_store::jobs::{LeasedJob, Settled};

use std::sync::Arc;

use crate::pool::Slot;
use crate::traces::{Context, Kind, Open, Scope, Traces, end_name};

/// An attempt, from the moment at which an instance has it until its end is stored.
pub(super) struct JobSpan {
    scope: Arc<Scope>,
    open: Option<Open>,
}

impl JobSpan {
    /// The wait before it, from when the job was due, is a span of its own.
    pub(super) fn begin(traces: &Arc<Traces>, job: &LeasedJob, slot: &Slot) -> JobSpan {
        let scope = traces.enter(Context::of_metadata(&job.metadata), Context::new);
        let Some(mut open) = scope.own(format!("process {}", job.queue), Kind::Consumer) else {
            return JobSpan { scope, open: None };
        };
        scope.beside(format!("wait {}", job.queue), Kind::Internal, ns(job.due_at.max(job.enqueued_at)));
        let facts = &mut open.facts;
        facts.set("messaging.system", "wasmhost");
        facts.set("messaging.operation.name", "process");
        facts.set("messaging.operation.type", "process");
        facts.set("messaging.destination.name", job.queue.clone());
        facts.set("messaging.message.id", job.lease.id.to_string());
        facts.set("wasmhost.type", slot.name.process.to_string());
        facts.set("wasmhost.instance", slot.name.to_string());
        facts.set("wasmhost.release", slot.version.release);
        facts.set("wasmhost.job.attempt", u64::from(job.attempt));
        JobSpan { scope, open: Some(open) }
    }

    /// The trace, for the guest's doings.
    pub(super) fn trace(&self) -> Trace {
        Some(self.scope.clone())
    }

    /// Tells the guest, by its job's metadata. Where nothing is recorded they stay as they are.
    pub(super) fn put_into(&self, metadata: &mut Vec<(String, String)>) {
        if self.open.is_some() {
            self.scope.put_into(metadata);
        }
    }

    /// The call is over.
    pub(super) fn called(&mut self, report: &CallReport<Result<(), JobFailure>>) {
        let Some(open) = &mut self.open else { return };
        open.facts.set("wasmhost.cpu_seconds", report.cpu.as_secs_f64());
        let error = match &report.end {
            CallEnd::Returned(Ok(())) => return,
            CallEnd::Returned(Err(JobFailure::Retry(_) | JobFailure::RetryAfter(..))) => "retry",
            CallEnd::Returned(Err(JobFailure::Bury(_))) => "bury",
            end => end_name(end).unwrap_or("failed"),
        };
        open.facts.fail(error);
    }

    /// The store has made this of it; nothing where it could not be stored.
    pub(super) fn settled(mut self, settled: Option<Settled>) {
        let Some(open) = &mut self.open else { return };
        open.facts.set(
            "wasmhost.job.result",
            match settled {
                Some(Settled::Done) => "done",
                Some(Settled::Retrying(_)) => "retrying",
                Some(Settled::Dead) => "dead",
                Some(Settled::Released) => "interrupted",
                Some(Settled::Stale) => "stale",
                None => "lost",
            },
        );
    }
}

/// In nanoseconds since 1970.
fn ns(time: Timestamp) -> u64 {
    u64::try_from(time.0).unwrap_or(0).saturating_mul(1_000_000)
}
