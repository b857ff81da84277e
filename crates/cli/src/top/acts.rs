//! The acts of a person at `top`, as requests to the host.

use std::sync::Arc;

use wasmhost_host::admin::api::{
    PauseResponse, RestartRequest, RestartResponse, ScaleChange, ScaleRequest, ScaleResponse, ScaleTo,
};

use crate::client::Client;
use crate::exit::Failed;

/// An act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    Scale {
        process: String,
        to: ScaleTo,
    },
    /// A type, or one instance.
    Restart {
        target: String,
    },
    Pause {
        queue: String,
        paused: bool,
    },
}

impl Act {
    /// While it is under way, for a person.
    pub(super) fn underway(&self) -> String {
        match self {
            Act::Scale { process, to: ScaleTo::Count(count) } => format!("scaling {process} to {count}"),
            Act::Scale { process, to: ScaleTo::More(more) } => format!("scaling {process} by +{more}"),
            Act::Scale { process, to: ScaleTo::Fewer(fewer) } => format!("scaling {process} by -{fewer}"),
            Act::Restart { target } => format!("restarting {target}"),
            Act::Pause { queue, paused: true } => format!("pausing {queue}"),
            Act::Pause { queue, paused: false } => format!("resuming {queue}"),
        }
    }
}

/// Asks the host for it, and returns what it has come to. Nobody waits for instances: they are seen.
pub(super) async fn carry_out(client: Arc<Client>, act: Act) -> Result<String, Failed> {
    match act {
        Act::Scale { process, to } => {
            let changes = vec![ScaleChange { process: process.clone(), to }];
            let request = ScaleRequest { changes, ..ScaleRequest::default() };
            let response: ScaleResponse = client.post("/v1/scale", &request).await?;
            let count = response.types.iter().find(|count| count.process == process);
            let desired = count.map(|count| count.desired.to_string()).unwrap_or_default();
            Ok(format!("{process}={desired}"))
        }
        Act::Restart { target } => {
            let request = RestartRequest { target: target.clone(), wait_s: None };
            let response: RestartResponse = client.post("/v1/restart", &request).await?;
            let (count, are) = (response.restarted, if response.restarted == 1 { "is" } else { "are" });
            Ok(format!("{count} of {target} {are} being replaced"))
        }
        Act::Pause { queue, paused } => {
            let verb = if paused { "pause" } else { "resume" };
            let response: PauseResponse = client.post(&format!("/v1/queues/{queue}/{verb}"), &()).await?;
            Ok(format!("{queue} is {}", if response.paused { "paused" } else { "running" }))
        }
    }
}
