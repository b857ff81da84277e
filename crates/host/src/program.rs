//! One command that is run by itself, once, as if it were one of the system's own programs: its standard streams are
//! this process's. No formation, so no pool, no supervisor, no store.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use wasmhost_engine::services::{
    Enqueue, EnqueueRefusal, InstanceName, LogSink, NewJob, Receipt, Services, Stream,
};
use wasmhost_engine::{
    Cache, CallEnd, CallLimits, Component, Engine, EngineOptions, Meter, Program, Sandbox,
};

use crate::host::StartError;
use crate::plan::PlannedType;
use crate::services::{GrantedBy, Refusals};

/// How long after its timeout a program may still be in a call of the host's that holds its thread: writing to a pipe
/// that nobody reads, say.
const HOST_CALL_MAX: Duration = Duration::from_millis(200);

/// Runs a planned command to its end, which is its exit code unless the engine had to end it. `name` is what the
/// program finds as its first argument.
///
/// # Errors
///
/// The component can't be loaded, or the engine can't be made.
pub async fn run_program(planned: PlannedType, name: &str, cache: Cache) -> Result<CallEnd<i32>, StartError> {
    let limits = CallLimits { timeout: planned.timeout, cpu: planned.process.cpu };
    let shown = name.to_owned();
    let loading = tokio::task::spawn_blocking(move || load(planned, &shown, cache));
    let component = loading.await.map_err(std::io::Error::other)??;
    let instance = match component.start(1, Arc::<Meter>::default()).await {
        Ok(instance) => instance,
        // Code that runs as the program starts may end it, too.
        Err(end) => return Ok(end.map(|()| 0)),
    };
    let running = tokio::spawn(instance.call_command(limits));
    let overdue = async {
        match limits.timeout {
            Some(timeout) => tokio::time::sleep(timeout.saturating_add(HOST_CALL_MAX)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        finished = running => Ok(finished.map_err(std::io::Error::other)?.report.end),
        () = overdue => Ok(CallEnd::Timeout),
    }
}

fn load(planned: PlannedType, name: &str, cache: Cache) -> Result<Component, StartError> {
    let PlannedType { process, handler, code, directories, footprint, is_async, .. } = planned;
    let memory_bytes_max = process.memory_bytes_max;
    let options =
        EngineOptions { slots: 1, memory_bytes_max, footprint, guest_descriptors_max: u32::MAX, alone: true };
    let engine = Engine::new(options, cache)?;
    let sandbox = Sandbox {
        process: name.into(),
        grants: process.grants,
        directories,
        args: process.args,
        memory_bytes_max: process.memory_bytes_max,
        missing_imports_trap: process.missing_imports_trap,
        program: Some(Program { argv0: name.to_owned() }),
    };
    let services = Services {
        logs: Arc::new(NoLogs),
        enqueue: Arc::new(NoQueues),
        refusals: Arc::new(Refusals::new(GrantedBy::Flags)),
    };
    let loaded = Component::load(&engine, &code, handler, is_async, sandbox, services);
    loaded.map_err(|err| StartError::Load { process: process.name, component: name.to_owned(), err })
}

/// A program writes to this process's own streams.
struct NoLogs;

impl LogSink for NoLogs {
    fn has_room(&self, _instance: &InstanceName) -> bool {
        true
    }

    fn line(&self, _instance: &InstanceName, _stream: Stream, _text: &str) {}

    fn room(&self, _instance: &InstanceName) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

/// Nothing can grant it one.
struct NoQueues;

#[async_trait]
impl Enqueue for NoQueues {
    async fn enqueue(&self, queue: &str, _jobs: Vec<NewJob>) -> Result<Vec<Receipt>, EnqueueRefusal> {
        Err(EnqueueRefusal::Unavailable(format!("there is no queue \"{queue}\": no formation runs here")))
    }
}
