//! Why there is no engine, or no component.

mod scarce;

pub(crate) use scarce::{Scarce, control_group};
use wasmhost_config::shown::{MESSAGE_BYTES_MAX, one_line};

use crate::inspection::Handler;

/// Why a component could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It could not be compiled.
    #[error("can't be compiled: {0}")]
    Compile(String),
    /// Compiling it takes more than it may.
    #[error("can't be compiled within its bounds: {0}")]
    TooMuch(String),
    /// Its compiler could not do its work, which says nothing of the component.
    #[error("could not be compiled: {0}")]
    NoCompiler(String),
    /// Compiling it was ended, since its last [`Waiter`](crate::Waiter) has gone.
    #[error("was not compiled: nobody waits for it any more")]
    Unwanted,
    /// It was compiled for another engine.
    #[error(
        "was compiled for another machine or with other settings ({0}): make it again here with `wasmhost compile`, or name the .wasm file"
    )]
    OtherSettings(String),
    /// It imports what nothing provides, or in another shape.
    #[error("can't be linked: {0}")]
    Link(String),
    /// There is no engine for it.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// This version can't call it so.
    #[error("exports {0}, which can't be called here")]
    Unsupported(Handler),
}

impl LoadError {
    pub(crate) fn compile(err: &wasmtime::Error) -> LoadError {
        LoadError::Compile(said(err))
    }

    pub(crate) fn link(err: &wasmtime::Error) -> LoadError {
        LoadError::Link(said(err))
    }
}

/// An error of the library's, which has names of the component's in it.
fn said(err: &wasmtime::Error) -> String {
    one_line(&format!("{err:#}"), MESSAGE_BYTES_MAX).into_owned()
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The machine can't give the pool its address space or its maps.
    #[error(
        "can't reserve memory for {slots} instances: {reason}; set max_instances in the formation to fewer{advice}"
    )]
    Pool {
        /// How many instances it was to have room for.
        slots: u32,
        /// The engine's own words.
        reason: String,
        /// Other ways, by the limits that it may have met.
        advice: String,
    },
    /// The library can't be set up as it is to be.
    #[error("can't set up wasmtime: {0}; this is a defect of wasmhost")]
    Library(String),
    /// A thread could not be started.
    #[error("can't start the engine's threads: {0}")]
    Threads(#[from] std::io::Error),
}
