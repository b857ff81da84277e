//! From a file to compiled code: what the file is ([`inspect`]), its compiled form ([`artifact`]), and where that is
//! kept ([`cache`], and the files of `wasmhost compile`).

mod artifact;
mod cache;
mod child;
mod code;
mod compile;
mod compiler;
mod cwasm;
mod inspect;
mod key;
mod native;
mod settings;
pub(crate) mod swap;
mod waiter;

pub(crate) use artifact::Compiled;
pub(crate) use cache::SharedCode;
pub use cache::{Cache, Loaded, Loads};
pub use child::{CHILD, compile_as_child};
pub use code::Code;
pub use compile::CompileError;
pub use compiler::{Children, CompiledFile, Compiler};
pub use cwasm::CwasmError;
pub use inspect::{FILE_BYTES_MAX, InspectError, binary_of, inspect};
pub use settings::EngineOptions;
pub(crate) use settings::config;
pub use waiter::Waiter;
