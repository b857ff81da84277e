//! The bounds of one instance: what it is made with, what it uses ([`meter`]), how much memory it may have
//! ([`limits`]), which directories ([`directories`]) and how much in them ([`usage`]), how many of the host's descriptors
//! its handles may hold ([`descriptors`], [`holdings`]), and how many log lines it may write ([`log_rate`]).

pub(crate) mod census;
pub(crate) mod descriptors;
pub(crate) mod directories;
pub(crate) mod holdings;
pub(crate) mod identity;
pub(crate) mod limits;
pub(crate) mod log_rate;
pub(crate) mod lookups;
pub(crate) mod meter;
pub(crate) mod usage;

use std::sync::Arc;

use wasmhost_config::Grants;

use self::directories::Directories;
use self::log_rate::LogRate;

/// The settings that every instance of a type is made with.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// The type's name.
    pub process: Arc<str>,
    /// The grants of its instances.
    pub grants: Grants,
    /// The directories that are granted, open.
    pub directories: Directories,
    /// A command's arguments, its own name not among them.
    pub args: Vec<String>,
    /// Bytes of memories and tables.
    pub memory_bytes_max: u64,
    /// Elements of one table: [`TABLE_ELEMENTS_MAX`](crate::TABLE_ELEMENTS_MAX), unless nothing else is in the process.
    pub table_elements_max: u64,
    /// Log lines of all its instances together: [`Engine::log_rate`](crate::Engine::log_rate). A program writes to streams of its
    /// own, which this doesn't bound.
    pub log_rate: LogRate,
    /// Whether an import that nothing provides traps when it is called, and isn't refused when the component is loaded.
    pub missing_imports_trap: bool,
    /// Set where the instance is no part of a formation, but a program that a person runs.
    pub program: Option<Program>,
}

/// A command that is run as if it were one of the system's own programs: the host's standard streams are its own, and
/// its environment has what was granted and nothing else.
#[derive(Debug, Clone)]
pub struct Program {
    /// Its first argument: its own name.
    pub argv0: String,
}

/// Bytes that one host call may copy out of a guest. The library's default, which programs have, would cost too much
/// where there are many instances.
const HOSTCALL_FUEL: usize = 32 << 20;
const HOSTCALL_FUEL_OF_PROGRAM: usize = 128 << 20;

/// A guest's stack may be this deep in wasm, in bytes; the rest of it is for the host's functions.
pub(crate) const WASM_STACK_BYTES: usize = 512 << 10;

impl Sandbox {
    pub(crate) fn hostcall_fuel(&self) -> usize {
        if self.program.is_some() { HOSTCALL_FUEL_OF_PROGRAM } else { HOSTCALL_FUEL }
    }
}
