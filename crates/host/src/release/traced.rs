//! Deploys' part in traces: a span for each, with its steps as events.

use std::sync::{Mutex, MutexGuard};

use super::Wanted;
use crate::admin::api::DeployEvent;
use crate::measures::Measures;
use crate::traces::{Context, Kind, Open};

/// A deploy's span, if it is recorded. It is over when this is dropped.
pub(super) struct DeploySpan(Option<Mutex<Open>>);

impl DeploySpan {
    /// A dry run has none.
    pub(super) fn begin(measures: &Measures, wanted: Wanted) -> DeploySpan {
        let traces = measures.traces().filter(|_| !wanted.is_dry_run());
        let scope = traces.map(|traces| traces.enter(None, Context::new));
        let name = match wanted {
            Wanted::File { .. } => "deploy",
            Wanted::Release(_) => "rollback",
            Wanted::Prepare(_) => "prepare",
            Wanted::Follow(_) => "follow",
            Wanted::Promote => "promote",
            Wanted::Abort => "abort",
        };
        DeploySpan(scope.and_then(|scope| scope.own(name, Kind::Internal)).map(Mutex::new))
    }

    /// One more step is there, or the end.
    pub(super) fn step(&self, step: &DeployEvent) {
        let Some(mut span) = self.lock() else { return };
        let end = match step {
            DeployEvent::Changes { .. } => return span.event("changes"),
            DeployEvent::Begun { release } => return span.event(format!("begun v{release}")),
            DeployEvent::Compiling { done, of } => return span.event(format!("compiling {done} of {of}")),
            DeployEvent::Step { process } => return span.event(format!("step {process}")),
            DeployEvent::Trying { process } => return span.event(format!("trying {process}")),
            DeployEvent::Moving { done, of } => return span.event(format!("moving {done} of {of}")),
            DeployEvent::Live { release } => ("live", Some(*release)),
            DeployEvent::Unchanged { release } => ("unchanged", Some(*release)),
            DeployEvent::Canary { release, .. } => ("canary", Some(*release)),
            DeployEvent::Aborted { release, .. } => ("aborted", Some(*release)),
            DeployEvent::Failed { release, .. } => ("failed", *release),
        };
        let (result, release) = end;
        span.facts.set("wasmhost.deploy.result", result);
        if let Some(release) = release {
            span.facts.set("wasmhost.release", release);
        }
        if let DeployEvent::Failed { why, .. } = step {
            span.facts.fail("failed");
            span.facts.message =
                wasmhost_config::shown::cut(why, wasmhost_config::shown::MESSAGE_BYTES_MAX).to_owned();
        }
    }

    fn lock(&self) -> Option<MutexGuard<'_, Open>> {
        // No code that runs under the lock panics.
        self.0.as_ref().map(|span| span.lock().unwrap_or_else(|poison| poison.into_inner()))
    }
}
