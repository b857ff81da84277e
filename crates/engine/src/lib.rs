//! Components -> instances -> calls. The only crate that knows of wasmtime.
//!
//! [`Engine`] owns what all instances share. [`Code`] is a component's file, and says what it exports and imports;
//! [`Component::load`] compiles it, or finds it compiled in the [`Cache`], and [`Component::start`] makes an
//! [`Instance`], which serves calls one after another: [`Instance::call_http`], [`Instance::call_job`],
//! [`Instance::call_tick`], [`Instance::call_command`]. Guests ask the host by the traits in [`services`].

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

pub use call::{CallEnd, CallLimits, CallReport, Job, JobFailure, RequestScheme, Tick};
pub use compiled::{
    Cache, Code, CompileError, CwasmError, EngineOptions, FILE_BYTES_MAX, InspectError, compile, inspect,
};
pub use component::Component;
pub use engine::Engine;
pub use error::{EngineError, LoadError};
pub use http::{BoxError, ResponseBody};
pub use inspection::{Footprint, Handler, Inspection};
pub use instance::{Finished, Instance};
pub use sandbox::directories::{Directories, Directory, DirectoryError, Identity};
pub use sandbox::meter::Meter;
pub use sandbox::{Program, Sandbox};
pub use threads::after_slices::AfterSlices;
