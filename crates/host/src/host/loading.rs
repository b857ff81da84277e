//! Components are compiled or found in the cache, and release steps run, before a host has its first instance.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::task::{JoinError, JoinHandle};
use wasmhost_engine::services::Services;
use wasmhost_engine::{Component, Engine, Sandbox, TABLE_ELEMENTS_MAX, Waiter};

use super::StartError;
use crate::plan::PlannedType;

/// How long a component may take before that is told.
const SLOW: Duration = Duration::from_secs(1);

/// The progress of components as they are compiled, or found in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'a> {
    /// So many of them are there.
    Done {
        /// How many.
        done: usize,
        /// The number of all components.
        of: usize,
    },
    /// One takes its time.
    Slow {
        /// The type.
        process: &'a str,
        /// Its component's length in bytes.
        bytes: u64,
    },
    /// The same one is there.
    SlowDone {
        /// The type.
        process: &'a str,
        /// Its component's length in bytes.
        bytes: u64,
        /// From its beginning.
        took: Duration,
    },
}

/// A type with its compiled component.
pub(crate) struct Loaded {
    pub(crate) planned: PlannedType,
    pub(crate) component: Component,
    /// The component's SHA-256, in hexadecimal digits.
    pub(crate) digest: String,
}

/// Compiles every component that the cache doesn't have, each on a thread of its own. Those that are compiled when this
/// is dropped, or one of them fails, are given up.
pub(crate) async fn load(
    engine: Arc<Engine>,
    types: Vec<PlannedType>,
    services: Services,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Vec<Loaded>, StartError> {
    for planned in &types {
        planned.directories.count().await;
    }
    let of = types.len();
    let waiter = Waiter::default();
    progress(Progress::Done { done: 0, of });
    let mut compiling: FuturesOrdered<_> = types
        .into_iter()
        .map(|mut planned| {
            planned.code.wanted_by(&waiter);
            let (engine, services) = (engine.clone(), services.clone());
            let (process, bytes) = (planned.process.name.clone(), planned.code.bytes());
            let loading = tokio::task::spawn_blocking(move || load_type(&engine, planned, services));
            told_if_slow(loading, process, bytes, progress)
        })
        .collect();
    let mut loaded = Vec::with_capacity(of);
    while let Some(compiled) = compiling.next().await {
        loaded.push(compiled.map_err(std::io::Error::other)??);
        progress(Progress::Done { done: loaded.len(), of });
    }
    Ok(loaded)
}

async fn told_if_slow<T>(
    loading: JoinHandle<T>,
    process: String,
    bytes: u64,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<T, JoinError> {
    let begun = Instant::now();
    let mut loading = loading;
    if let Ok(loaded) = tokio::time::timeout(SLOW, &mut loading).await {
        return loaded;
    }
    progress(Progress::Slow { process: &process, bytes });
    let loaded = loading.await;
    progress(Progress::SlowDone { process: &process, bytes, took: begun.elapsed() });
    loaded
}

fn load_type(
    engine: &Arc<Engine>,
    mut planned: PlannedType,
    services: Services,
) -> Result<Loaded, StartError> {
    let process = &planned.process;
    let name = Arc::<str>::from(process.name.as_str());
    let log_rate = engine.log_rate(&name, process.log_bytes_per_second);
    let sandbox = Sandbox {
        process: name,
        grants: process.grants.clone(),
        directories: planned.directories.clone(),
        args: process.args.clone(),
        memory_bytes_max: process.memory_bytes_max,
        table_elements_max: TABLE_ELEMENTS_MAX,
        log_rate,
        missing_imports_trap: process.missing_imports_trap,
        program: None,
    };
    let (code, limits) = (std::mem::take(&mut planned.code), planned.compile);
    match Component::load(engine, &code, planned.handler, planned.is_async, limits, sandbox, services) {
        Ok(component) => Ok(Loaded { planned, component, digest: code.digest() }),
        Err(err) => Err(StartError::Load {
            process: planned.process.name.clone(),
            component: planned.process.component.display().to_string(),
            err,
        }),
    }
}
