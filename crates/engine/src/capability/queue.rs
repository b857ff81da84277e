//! `wasmhost:job/queue`: what a guest puts on queues, if its type was granted them.

use std::time::Duration;

use wasmhost_config::shown::{NAME_BYTES_MAX, one_line};

use wasmtime::StoreContextMut;
use wasmtime::component::{HasSelf, Linker};

use super::state::State;
use crate::bindings::producer::wasmhost::job::queue::{
    self, Error, Host, NewJob, Receipt, Unique, UniqueScope,
};
use crate::services::{self, EnqueueRefusal, Refusal};

/// The name of the interface, with its version.
const INTERFACE: &str = "wasmhost:job/queue@0.1.0";

/// Bounds of one `enqueue-many`, as the WIT documents them.
const JOBS_MAX: usize = 1_000;
const BATCH_BYTES_MAX: usize = 16 << 20;

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    queue::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

/// In the place of the same functions, where several calls may be in an instance: they have to know whose jobs these are.
pub(crate) fn link_async(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut interface = linker.instance(INTERFACE)?;
    interface.func_wrap_async(
        "enqueue",
        |mut store: StoreContextMut<'_, State>, (queue, job): (String, NewJob)| {
            Box::new(async move {
                State::find_trace(&mut store);
                Ok((store.data_mut().enqueue(queue, job).await?,))
            })
        },
    )?;
    interface.func_wrap_async(
        "enqueue-many",
        |mut store: StoreContextMut<'_, State>, (queue, jobs): (String, Vec<NewJob>)| {
            Box::new(async move {
                State::find_trace(&mut store);
                Ok((store.data_mut().enqueue_many(queue, jobs).await?,))
            })
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

impl Host for State {
    async fn enqueue(&mut self, queue: String, job: NewJob) -> wasmtime::Result<Result<Receipt, Error>> {
        let receipts = match self.enqueue_all(queue, vec![job]).await {
            Ok(receipts) => receipts,
            Err(error) => return Ok(Err(error)),
        };
        let receipt = receipts.into_iter().next();
        receipt.map(Ok).ok_or_else(|| wasmtime::Error::msg("the store answered without a receipt"))
    }

    async fn enqueue_many(
        &mut self,
        queue: String,
        jobs: Vec<NewJob>,
    ) -> wasmtime::Result<Result<Vec<Receipt>, Error>> {
        let bytes: usize = jobs.iter().map(|job| job.payload.len()).sum();
        if jobs.len() > JOBS_MAX || bytes > BATCH_BYTES_MAX {
            return Ok(Err(Error::Invalid(format!(
                "{} jobs of {bytes} bytes: one call takes at most {JOBS_MAX} jobs of {BATCH_BYTES_MAX} bytes in all",
                jobs.len()
            ))));
        }
        Ok(self.enqueue_all(queue, jobs).await)
    }
}

impl State {
    async fn enqueue_all(&mut self, queue: String, jobs: Vec<NewJob>) -> Result<Vec<Receipt>, Error> {
        if !self.sandbox.grants.enqueue.contains(&queue) {
            let queue = one_line(&queue, NAME_BYTES_MAX);
            let refusal = Refusal::Enqueue(queue.clone().into_owned());
            self.services.refusals.refused(&self.sandbox.process, refusal);
            return Err(Error::Denied(format!(
                "the formation doesn't let \"{}\" enqueue on \"{queue}\"",
                self.sandbox.process
            )));
        }
        let mut jobs: Vec<_> = jobs.into_iter().map(from_guest).collect();
        let mut sending = self.trace().and_then(|trace| trace.enqueue(&queue, &mut jobs));
        let enqueued = self.services.enqueue.enqueue(&self.sandbox.process, &queue, jobs).await;
        if let Some(sending) = &mut sending {
            match &enqueued {
                Ok(receipts) => sending.enqueued(receipts),
                Err(refusal) => sending.failed(refusal.name()),
            }
        }
        let receipts = enqueued.map_err(to_guest)?;
        Ok(receipts.into_iter().map(|receipt| Receipt { id: receipt.id, created: receipt.created }).collect())
    }
}

fn from_guest(job: NewJob) -> services::NewJob {
    services::NewJob {
        payload: job.payload,
        delay_ms: job.options.delay_ms,
        priority: job.options.priority.unwrap_or(0),
        unique: job.options.unique.map(unique_from_guest),
        attempts: job.options.attempts,
        content_type: job.options.content_type.unwrap_or_default(),
        metadata: job.options.metadata,
    }
}

fn unique_from_guest(unique: Unique) -> services::Unique {
    let scope = match unique.scope {
        UniqueScope::Waiting => services::UniqueScope::Waiting,
        UniqueScope::Running => services::UniqueScope::Running,
        UniqueScope::Lasting(ms) => services::UniqueScope::Lasting(Duration::from_millis(ms)),
    };
    services::Unique { key: unique.key, scope }
}

fn to_guest(refusal: EnqueueRefusal) -> Error {
    match refusal {
        EnqueueRefusal::Full(text) => Error::Full(text),
        EnqueueRefusal::Invalid(text) => Error::Invalid(text),
        EnqueueRefusal::Unavailable(text) => Error::Unavailable(text),
    }
}
