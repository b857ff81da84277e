//! Components -> instances -> calls. The only crate that knows of wasmtime.
//!
//! [`Engine`] owns what all instances share. [`Code`] is a component's file, and says what it exports and imports;
//! [`Component::load`] compiles it, or finds it compiled in the [`Cache`], and [`Component::start`] makes an
//! [`Instance`], which serves calls one after another: [`Instance::call_http`], [`Instance::call_job`],
//! [`Instance::call_tick`], [`Instance::call_command`]. Guests ask the host by the traits in [`services`].
//!
//! A component may ask its compiler for any amount of memory and time. A program that loads those of others has them
//! compiled in processes of its own ([`Compiler::of_this_program`], [`Cache::compiled_by`]), and its `main` begins with
//! [`compile_as_child`] where its first argument is [`CHILD`]. Without that nothing bounds it.

mod bindings;
mod call;
mod calls;
mod capability;
mod compiled;
mod component;
mod engine;
mod error;
mod http;
mod inspection;
mod instance;
mod sandbox;
pub mod services;
mod threads;

pub use call::{CallEnd, CallLimits, CallReport, Job, JobFailure, RequestScheme, Shortage, Spent, Tick};
pub use compiled::{
    CHILD, Cache, Children, Code, CompileError, CompiledFile, Compiler, CwasmError, EngineOptions,
    FILE_BYTES_MAX, InspectError, Loaded, Loads, Waiter, binary_of, compile_as_child, inspect,
};
pub use component::{Component, START_TIMEOUT};
pub use engine::Engine;
pub use error::{EngineError, LoadError};
pub use http::{BoxError, ResponseBody};
pub use inspection::{Footprint, Handler, Inspection, TABLE_ELEMENTS_MAX};
pub use instance::{Finished, Instance};
pub use sandbox::descriptors::INSTANCE_MAX as INSTANCE_DESCRIPTORS_MAX;
pub use sandbox::directories::{Directories, Directory, DirectoryError, Fullness, Used};
pub use sandbox::identity::Identity;
pub use sandbox::log_rate::LogRate;
pub use sandbox::meter::Meter;
pub use sandbox::{Program, Sandbox};
pub use threads::after_slices::AfterSlices;
