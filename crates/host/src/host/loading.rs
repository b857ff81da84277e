//! Components are compiled or found in the cache, and release steps run, before a host has its first instance.

use std::sync::Arc;

use wasmhost_config::{Run, Trigger};
use wasmhost_engine::services::Services;
use wasmhost_engine::{Component, Engine, EngineOptions, Sandbox};

use super::StartError;
use super::wiring::limits;
use crate::capacity::Capacity;
use crate::plan::{Plan, PlannedType};
use crate::trigger::release;

/// A type with its compiled component.
pub(super) struct Loaded {
    pub(super) planned: PlannedType,
    pub(super) component: Component,
    /// The component's SHA-256, in hexadecimal digits.
    pub(super) digest: String,
}

pub(super) fn engine_options(plan: &Plan, capacity: &Capacity) -> EngineOptions {
    let memory = plan.types.iter().map(|planned| planned.process.memory_bytes_max).max();
    EngineOptions {
        slots: capacity.slots(),
        memory_bytes_max: memory.unwrap_or(0),
        footprint: plan.footprint(),
        guest_descriptors_max: capacity.guest_descriptors(),
        alone: false,
    }
}

/// Compiles every component that the cache doesn't have, each on a thread of its own.
pub(super) async fn load(
    engine: Arc<Engine>,
    plan: Plan,
    services: Services,
    progress: Box<dyn Fn(usize, usize) + Send + Sync>,
) -> Result<Vec<Loaded>, StartError> {
    let count = plan.types.len();
    progress(0, count);
    let compiling: Vec<_> = plan
        .types
        .into_iter()
        .map(|planned| {
            let (engine, services) = (engine.clone(), services.clone());
            tokio::task::spawn_blocking(move || load_type(&engine, planned, services))
        })
        .collect();
    let mut loaded = Vec::with_capacity(count);
    for compiling in compiling {
        loaded.push(compiling.await.map_err(std::io::Error::other)??);
        progress(loaded.len(), count);
    }
    Ok(loaded)
}

fn load_type(
    engine: &Arc<Engine>,
    mut planned: PlannedType,
    services: Services,
) -> Result<Loaded, StartError> {
    let process = &planned.process;
    let sandbox = Sandbox {
        process: process.name.as_str().into(),
        grants: process.grants.clone(),
        directories: planned.directories.clone(),
        args: process.args.clone(),
        memory_bytes_max: process.memory_bytes_max,
        missing_imports_trap: process.missing_imports_trap,
        program: None,
    };
    let code = std::mem::take(&mut planned.code);
    match Component::load(engine, &code, planned.handler, planned.is_async, sandbox, services) {
        Ok(component) => Ok(Loaded { planned, component, digest: code.digest() }),
        Err(err) => Err(StartError::Load {
            process: planned.process.name.clone(),
            component: planned.process.component.display().to_string(),
            err,
        }),
    }
}

pub(super) async fn run_release_steps(loaded: &[Loaded]) -> Result<(), StartError> {
    for Loaded { planned, component, .. } in loaded {
        if matches!(planned.trigger, Trigger::Command { run: Run::Release }) {
            let limits = limits(planned);
            release::run(&planned.process.name, component, limits).await?;
        }
    }
    Ok(())
}
