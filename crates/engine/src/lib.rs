//! Components -> instances -> calls. The only crate that knows of wasmtime.
//!
//! [`Engine`] owns what all instances share. [`Code`] is a component's file, and says what it exports and imports;
//! [`Component::load`] compiles it, or finds it compiled in the [`Cache`], and [`Component::start`] makes an
//! [`Instance`], which serves calls one after another: [`Instance::call_http`], [`Instance::call_job`],
//! [`Instance::call_tick`], [`Instance::call_command`]. What a guest may ask of the host goes through the traits in
//! [`services`].

mod after_slices;
mod bindings;
mod cache;
mod call;
mod capability;
mod code;
mod compile;
mod component;
mod compute;
mod cwasm;
mod drive;
mod engine;
mod http;
mod inspect;
mod instance;
mod limits;
mod meter;
mod module;
mod native;
mod pace;
mod quiet;
mod service;
pub mod services;
mod state;
mod ticker;
mod turns;

pub use after_slices::AfterSlices;
pub use cache::Cache;
pub use call::{CallEnd, CallLimits, CallReport, Job, JobFailure, Tick};
pub use code::Code;
pub use compile::{CompileError, compile};
pub use component::{Component, LoadError};
pub use cwasm::CwasmError;
pub use engine::{Engine, EngineError, EngineOptions};
pub use http::{BoxError, RequestScheme, ResponseBody};
pub use inspect::{Footprint, Handler, InspectError, Inspection, inspect};
pub use instance::{Finished, Instance};
pub use meter::Meter;
pub use state::{Program, Sandbox};
