//! Core modules of WASI 0.1, as commands: what `wasm32-wasip1` makes. They keep their exit codes, which they would lose
//! as components behind the usual adapter.

use wasmtime::{InstancePre, Linker, Module, Store};
use wasmtime_wasi::{I32Exit, p0, p1};

use crate::capability::files;
use crate::capability::state::State;
use crate::error::LoadError;
use crate::inspection::{IMPORTED, INITIALIZE, STARTS};
use crate::sandbox::Sandbox;

/// Links a module to WASI.
pub(crate) fn link(module: &Module, sandbox: &Sandbox) -> Result<InstancePre<State>, LoadError> {
    let pre = linker(module.engine()).and_then(|mut linker| {
        if sandbox.missing_imports_trap {
            linker.define_unknown_imports_as_traps(module)?;
        }
        linker.instantiate_pre(module)
    });
    pre.map_err(|err| LoadError::link(&err))
}

/// Runs `main`; its exit code comes as [`I32Exit`], and is 0 where it just returns.
pub(crate) async fn run(instance: &wasmtime::Instance, store: &mut Store<State>) -> wasmtime::Result<()> {
    if let Ok(initialize) = instance.get_typed_func::<(), ()>(&mut *store, INITIALIZE) {
        initialize.call_async(&mut *store, ()).await?;
    }
    let start = STARTS.iter().find(|name| instance.get_func(&mut *store, name).is_some());
    let start = start.copied().unwrap_or(STARTS[1]);
    instance.get_typed_func::<(), ()>(&mut *store, start)?.call_async(store, ()).await
}

fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    p1::add_to_linker_async(&mut linker, State::p1)?;
    p0::add_to_linker_async(&mut linker, State::p1)?;
    linker.allow_shadowing(true);
    files::core::link(&mut linker)?;
    // The library's own calls a code above 125 an error. The system knows codes up to 255, and so do programs.
    for package in IMPORTED {
        linker.func_wrap(package, "proc_exit", |code: i32| -> wasmtime::Result<()> {
            Err(I32Exit(code).into())
        })?;
    }
    Ok(linker)
}
