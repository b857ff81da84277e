//! One command that is run by itself, once, as if it were one of the system's own programs: its standard streams are
//! this process's. It has no pool and no supervisor.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use wasmhost_engine::services::{
    Enqueue, EnqueueRefusal, InstanceName, LogSink, NewJob, Receipt, Services, Stream,
};
use wasmhost_engine::{
    Cache, CallEnd, CallLimits, Component, Engine, EngineOptions, LogRate, Meter, Program, START_TIMEOUT,
    Sandbox, Spent, TABLE_ELEMENTS_MAX,
};

use crate::host::StartError;
use crate::measures::Measures;
use crate::plan::PlannedType;
use crate::services::{GrantedBy, Refusals};

/// How long after its timeout a program may still be in a call of the host's that holds its thread: writing to a pipe
/// that nobody reads, say.
const HOST_CALL_MAX: Duration = Duration::from_millis(200);

/// A command, and what it has besides the grants in its plan.
pub struct OneOff {
    /// The command.
    pub planned: PlannedType,
    /// Its first argument: the name that it goes by.
    pub argv0: String,
    /// The advice of a refused grant's warning.
    pub granted_by: GrantedBy,
    /// Where it puts jobs, if it is granted a queue.
    pub enqueue: Arc<dyn Enqueue>,
}

impl OneOff {
    /// A command that belongs to no formation, so that nothing can grant it a queue.
    pub fn without_formation(planned: PlannedType, argv0: String) -> OneOff {
        OneOff { planned, argv0, granted_by: GrantedBy::Flags, enqueue: Arc::new(NoQueues) }
    }
}

/// How a program ended.
pub enum ProgramEnd {
    /// It took longer to start than any program may.
    NeverStarted(Spent),
    /// By an exit code, unless the engine had to end it.
    Ended(CallEnd<i32>),
}

/// Runs a command to its end. The time that it may take bounds its start, too.
///
/// # Errors
///
/// The component can't be loaded, or the engine can't be made.
pub async fn run_program(one_off: OneOff, cache: Cache) -> Result<ProgramEnd, StartError> {
    let planned = &one_off.planned;
    let limits = CallLimits { timeout: planned.timeout, cpu: planned.process.cpu };
    let loading = tokio::task::spawn_blocking(move || load(one_off, cache));
    let component = loading.await.map_err(std::io::Error::other)??;
    let start_max = limits.timeout.map_or(START_TIMEOUT, |timeout| timeout.min(START_TIMEOUT));
    let instance = match component.start_within(start_max, 1, Arc::<Meter>::default()).await {
        Ok(instance) => instance,
        Err(CallEnd::Timeout(spent)) if limits.timeout != Some(start_max) => {
            return Ok(ProgramEnd::NeverStarted(spent));
        }
        // Code that runs as the program starts may end it, too.
        Err(end) => return Ok(ProgramEnd::Ended(end.map(|()| 0))),
    };
    let running = tokio::spawn(instance.call_command(limits));
    let begun = Instant::now();
    let overdue = async {
        match limits.timeout {
            Some(timeout) => {
                tokio::time::sleep(timeout.saturating_add(HOST_CALL_MAX)).await;
                Spent { time: begun.elapsed(), max: timeout }
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        finished = running => Ok(ProgramEnd::Ended(finished.map_err(std::io::Error::other)?.report.end)),
        spent = overdue => Ok(ProgramEnd::Ended(CallEnd::Timeout(spent))),
    }
}

fn load(one_off: OneOff, cache: Cache) -> Result<Component, StartError> {
    let OneOff { planned, argv0, granted_by, enqueue } = one_off;
    let PlannedType { process, handler, code, directories, footprint, is_async, compile, .. } = planned;
    let memory_bytes_max = process.memory_bytes_max;
    let options =
        EngineOptions { slots: 1, memory_bytes_max, footprint, guest_descriptors_max: u32::MAX, alone: true };
    let engine = Engine::new(options, cache)?;
    // Refused grants are told by this name: that of the type, whose table is to grant them, or the program's own.
    let (name, table_elements_max) = match granted_by {
        GrantedBy::Formation => (process.name.as_str(), TABLE_ELEMENTS_MAX),
        // A program that a person runs may be any.
        GrantedBy::Flags => (argv0.as_str(), u64::MAX),
    };
    let sandbox = Sandbox {
        process: name.into(),
        grants: process.grants,
        directories,
        args: process.args,
        memory_bytes_max: process.memory_bytes_max,
        table_elements_max,
        log_rate: LogRate::new(u64::MAX),
        missing_imports_trap: process.missing_imports_trap,
        program: Some(Program { argv0 }),
    };
    let services = Services {
        logs: Arc::new(NoLogs),
        enqueue,
        refusals: Arc::new(Refusals::new(granted_by, Measures::new(), Arc::default())),
    };
    let loaded = Component::load(&engine, &code, handler, is_async, compile, sandbox, services);
    loaded.map_err(|err| StartError::Load {
        process: process.name,
        component: process.component.display().to_string(),
        err,
    })
}

/// A program writes to this process's own streams.
struct NoLogs;

impl LogSink for NoLogs {
    fn has_room(&self, _instance: &InstanceName) -> bool {
        true
    }

    fn line(&self, _instance: &InstanceName, _stream: Stream, _text: &str) {}

    fn past_rate(&self, _instance: &InstanceName, _bytes_per_second: u64) {}

    fn room(&self, _instance: &InstanceName) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

/// Nothing can grant it one.
struct NoQueues;

#[async_trait]
impl Enqueue for NoQueues {
    async fn enqueue(
        &self,
        _process: &str,
        queue: &str,
        _jobs: Vec<NewJob>,
    ) -> Result<Vec<Receipt>, EnqueueRefusal> {
        Err(EnqueueRefusal::Unavailable(format!("there is no queue \"{queue}\": no formation runs here")))
    }
}
