//! Traces: which calls are recorded, and the spans of those that are. A span goes to a bounded queue when it is over, from
//! which [`crate::telemetry`] sends it. Nobody waits: where the queue is full, spans are dropped and counted.
//!
//! ```text
//! request | job | tick | deploy  ->  Scope  ->  wait (in the line), call (in the guest)  ->  what the guest sends
//! ```
//!
//! A [`Scope`] is a place in a trace under which spans begin. There is one for each call as long as traces are on, since what
//! a guest sends is told of its trace also where nothing of it is recorded. Where traces are off there is no [`Traces`],
//! and nothing is done at all.

mod context;
mod line;
mod outgoing;
mod sampler;
mod scope;
mod span;

use std::sync::Arc;

use tokio::sync::mpsc::{Sender, error::TrySendError};
use tracing::warn;

pub(crate) use context::{Context, TRACEPARENT, TRACESTATE, is_traceparent};
pub(crate) use line::{CallSpan, Line, end_name};
pub(crate) use outgoing::{Sent, known as known_method, send_jobs};
pub(crate) use sampler::{NAMES as SAMPLERS, Sampler};
pub(crate) use scope::{Open, Scope};
pub(crate) use span::{Base, Facts, Kind, Span, Value};

use crate::rare_lines::{RareLines, and_more};
use crate::telemetry::Counts;

/// See the module.
pub(crate) struct Traces {
    sampler: Sampler,
    queue: Sender<Span>,
    counts: Arc<Counts>,
    dropped: RareLines<()>,
}

impl Traces {
    pub(crate) fn new(sampler: Sampler, queue: Sender<Span>, counts: Arc<Counts>) -> Arc<Traces> {
        Arc::new(Traces { sampler, queue, counts, dropped: RareLines::default() })
    }

    /// Where a call goes on in a trace from elsewhere, or in this new one.
    pub(crate) fn enter(
        self: &Arc<Self>,
        remote: Option<Context>,
        new: impl FnOnce() -> Context,
    ) -> Arc<Scope> {
        let parent = remote.as_ref().map(Context::is_sampled);
        let is_remote = remote.is_some();
        let context = remote.unwrap_or_else(new);
        let is_sampled = self.sampler.takes(context.trace, parent);
        let parent = if is_remote { context.span } else { 0 };
        Arc::new(Scope::first(self.clone(), context.sampled(is_sampled), parent))
    }

    fn record(&self, span: Span) {
        match self.queue.try_send(span) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                self.counts.dropped(1);
                if let Some(more) = self.dropped.is_due(()) {
                    warn!(
                        "spans are dropped: they come faster than the collector takes them, and the queue of OTEL_BSP_MAX_QUEUE_SIZE is full{}",
                        and_more(more, "were dropped")
                    );
                }
            }
            // The host is going.
            Err(TrySendError::Closed(_)) => self.counts.dropped(1),
        }
    }
}
