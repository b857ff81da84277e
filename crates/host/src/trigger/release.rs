//! Release steps run once before a release goes live: commands with `run = "release"`, one after another in the file's
//! order.

use std::sync::Arc;

use tracing::info;
use wasmhost_engine::{CallEnd, CallLimits, Component, Meter};

/// A release step that failed; the release doesn't go live.
#[derive(Debug, thiserror::Error)]
#[error("the release step \"{process}\" {how}, so that the release doesn't go live")]
pub struct ReleaseFailed {
    process: String,
    how: String,
}

/// The meter of an instance that nobody but its caller knows. Where the caller gives up, the guest ends.
#[derive(Default)]
pub(crate) struct Leash(Arc<Meter>);

impl Leash {
    pub(crate) fn meter(&self) -> Arc<Meter> {
        self.0.clone()
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        self.0.interrupt();
    }
}

/// Runs a step to its end. It is ended where this is dropped.
pub(crate) async fn run(
    process: &str,
    component: &Component,
    limits: CallLimits,
) -> Result<(), ReleaseFailed> {
    let failed = |how: String| ReleaseFailed { process: process.to_owned(), how };
    let leash = Leash::default();
    let instance = component.start(1, leash.meter()).await;
    let instance = instance.map_err(|end| failed(format!("failed to start ({})", told(&end))))?;
    let report = instance.call_command(limits).await.report;
    match report.end {
        CallEnd::Returned(0) => {
            info!("release step \"{process}\" is done in {:.1?}", report.wall);
            Ok(())
        }
        CallEnd::Returned(code) => Err(failed(format!("exited with code {code}"))),
        end => Err(failed(told(&end))),
    }
}

/// With the reason of a trap, which alone would be no sentence.
fn told<T>(end: &CallEnd<T>) -> String {
    match end {
        CallEnd::Trap(_) => format!("trapped: {}", end.summary()),
        end => end.summary(),
    }
}
