//! From a component to a file of compiled code, for a host of the same version on such a machine.

use wasmparser::Parser;

use super::cwasm::{About, Maker, ending};
use super::inspect::{InspectError, inspect};
use super::key::{digest, key};
use super::settings::{EngineOptions, config};
use crate::error::LoadError;
use crate::inspection::Footprint;

/// Why there is no compiled file.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// It is neither a component nor a command of WASI 0.1.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// It is one that the compiler refuses.
    #[error(transparent)]
    Compile(#[from] LoadError),
}

impl From<CompileError> for LoadError {
    fn from(err: CompileError) -> LoadError {
        match err {
            CompileError::Inspect(err) => LoadError::Compile(err.to_string()),
            CompileError::Compile(err) => err,
        }
    }
}

/// Compiles a component or a core module as a host does. The result is the compiled code that
/// [`Code::new`](crate::Code::new) takes. Takes all cores, for up to seconds.
pub(super) fn compile(wasm: &[u8]) -> Result<Vec<u8>, CompileError> {
    let inspection = inspect(wasm)?;
    let failed = |err: wasmtime::Error| LoadError::compile(&err);
    // The pool has no part in what is compiled.
    let smallest = EngineOptions {
        slots: 1,
        memory_bytes_max: 1 << 16,
        footprint: Footprint::default(),
        guest_descriptors_max: 0,
        alone: true,
    };
    let engine = wasmtime::Engine::new(&config(smallest, inspection.is_async, false)).map_err(failed)?;
    let compiled = match Parser::is_component(wasm) {
        true => engine.precompile_component(wasm),
        false => engine.precompile_module(wasm),
    };
    let mut file = compiled.map_err(failed)?;
    let about = About { maker: Maker::here(), key: key(&engine, &digest(wasm)), inspection };
    let end = ending(&file, &about);
    file.extend_from_slice(&end);
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_with(options: EngineOptions) -> String {
        let engine = wasmtime::Engine::new(&config(options, false, false)).unwrap();
        key(&engine, &digest(b"the same"))
    }

    #[test]
    fn the_size_of_the_pool_has_no_part_in_what_is_compiled() {
        let small = EngineOptions {
            slots: 1,
            memory_bytes_max: 1 << 16,
            footprint: Footprint::default(),
            guest_descriptors_max: 0,
            alone: false,
        };
        let footprint = Footprint { core_instances: 20, memories: 3, tables: 5, ..Footprint::default() };
        let large = EngineOptions { slots: 100, memory_bytes_max: 4 << 30, footprint, ..small };
        assert_eq!(key_with(small), key_with(large));
        // A program that is run without a pool finds what a host has compiled.
        assert_eq!(key_with(small), key_with(EngineOptions { alone: true, ..small }));
    }

    #[test]
    fn other_settings_and_other_components_have_other_keys() {
        let small = EngineOptions {
            slots: 1,
            memory_bytes_max: 1 << 16,
            footprint: Footprint::default(),
            guest_descriptors_max: 0,
            alone: false,
        };
        let engine = wasmtime::Engine::new(&config(small, false, false)).unwrap();
        let mut other = config(small, false, false);
        other.epoch_interruption(false);
        let other = wasmtime::Engine::new(&other).unwrap();
        assert_ne!(key(&engine, &digest(b"the same")), key(&other, &digest(b"the same")));
        assert_ne!(key(&engine, &digest(b"the same")), key(&engine, &digest(b"the other")));
        let concurrent = wasmtime::Engine::new(&config(small, true, false)).unwrap();
        assert_ne!(key(&engine, &digest(b"the same")), key(&concurrent, &digest(b"the same")));
    }
}
