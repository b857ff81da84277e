//! The queues of a formation, for a one-off: those of the host that runs it or, while none does, of its store. Which of
//! the two is asked anew each time, since a host may be started and stopped while a one-off runs.

use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::StatusCode;
use tokio::time::Instant;
use wasmhost_config::Formation;
use wasmhost_engine::services::{Enqueue, EnqueueRefusal, NewJob, Receipt, UniqueScope};
use wasmhost_host::admin::api::{self, EnqueueRequest, EnqueueResponse};
use wasmhost_host::{StateDirError, enqueue_without_host};

use crate::client::{Client, NoAnswer};
use crate::exit::Exit;

/// How long to wait for a host that has only begun, or for another one-off that has the store.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// How long a host is asked again that can't store jobs now: one that ends is gone by then.
const ASK_MAX: Duration = Duration::from_secs(2);

const LOOK_EVERY: Duration = Duration::from_millis(20);

pub(super) struct QueuesOfFormation {
    client: Client,
    formation: Formation,
}

/// The outcome of asking the host.
enum Asked {
    Answered(Result<Vec<Receipt>, EnqueueRefusal>),
    /// It may go well in a moment.
    NotNow(EnqueueRefusal),
    NoHost,
}

impl QueuesOfFormation {
    pub(super) fn new(client: Client, formation: Formation) -> QueuesOfFormation {
        QueuesOfFormation { client, formation }
    }

    async fn ask_host(&self, queue: &str, requests: &[EnqueueRequest]) -> Asked {
        let refused = |refusal| Asked::Answered(Err(refusal));
        if let Err(other) = self.client.refuse_other() {
            return refused(EnqueueRefusal::Unavailable(other.message));
        }
        let path = format!("/v1/queues/{queue}/jobs");
        match self.client.try_post::<Vec<EnqueueResponse>>(&path, &requests).await {
            Ok(receipts) => {
                let receipt = |EnqueueResponse { id, created, .. }| Receipt { id, created };
                Asked::Answered(Ok(receipts.into_iter().map(receipt).collect()))
            }
            Err(NoAnswer::Refused { status, problem, .. }) => match status {
                StatusCode::BAD_REQUEST => refused(EnqueueRefusal::Invalid(problem.detail)),
                _ if problem.is_full_queue() => refused(EnqueueRefusal::Full(problem.detail)),
                _ => Asked::NotNow(EnqueueRefusal::Unavailable(problem.detail)),
            },
            Err(NoAnswer::Failed(failed)) if failed.exit == Exit::NoHost => Asked::NoHost,
            Err(NoAnswer::Failed(failed)) => refused(EnqueueRefusal::Unavailable(failed.message)),
        }
    }
}

#[async_trait]
impl Enqueue for QueuesOfFormation {
    async fn enqueue(
        &self,
        process: &str,
        queue: &str,
        jobs: Vec<NewJob>,
    ) -> Result<Vec<Receipt>, EnqueueRefusal> {
        let requests: Vec<_> = jobs.iter().map(request).collect();
        let begun = Instant::now();
        loop {
            match self.ask_host(queue, &requests).await {
                Asked::Answered(answer) => return answer,
                Asked::NotNow(refusal) if begun.elapsed() >= ASK_MAX => return Err(refusal),
                Asked::NotNow(_) => {}
                Asked::NoHost => {
                    match enqueue_without_host(&self.formation, process, queue, jobs.clone()).await {
                        Ok(enqueued) => return enqueued,
                        Err(StateDirError::InUse { .. }) if begun.elapsed() < WAIT_MAX => {}
                        Err(err) => return Err(EnqueueRefusal::Unavailable(err.to_string())),
                    }
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn request(job: &NewJob) -> EnqueueRequest {
    let scope = |scope| match scope {
        UniqueScope::Waiting => api::UniqueScope::Waiting,
        UniqueScope::Running => api::UniqueScope::Running,
        UniqueScope::Lasting(time) => {
            api::UniqueScope::ForMs(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
        }
    };
    EnqueueRequest {
        payload: None,
        payload_base64: Some(BASE64_STANDARD.encode(&job.payload)),
        delay_ms: job.delay_ms,
        run_at: None,
        priority: job.priority,
        unique_key: job.unique.as_ref().map(|unique| unique.key.clone()),
        unique_scope: job.unique.as_ref().map(|unique| scope(unique.scope)),
        attempts: job.attempts,
        content_type: job.content_type.clone(),
        metadata: job.metadata.clone(),
    }
}
