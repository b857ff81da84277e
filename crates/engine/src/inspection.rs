//! The kind of a component or a core module, as far as its names tell: how it can be called ([`Handler`]), what it
//! takes from the pool ([`Footprint`]), and whether all that it imports is provided.

mod imports;
mod makers;

use std::fmt;

use serde::{Deserialize, Serialize};

/// Findings of [`inspect`](crate::inspect) about a file. Part of the form of compiled files: see `cwasm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// The calls that it can serve, best first. Requests of 0.2 come first where it has both, since that is the faster
    /// and the maintained one. A `main` of 0.3 comes first, since a file that has both is a program of 0.3 that was
    /// built with tools of 0.2, which add a `main` that does nothing but trap.
    #[serde(skip)]
    pub handlers: Vec<Handler>,
    /// The interfaces it exports, as written in it (`wasi:http/incoming-handler@0.2.3`); a core module's functions.
    pub exports: Vec<String>,
    /// The interfaces it imports; a core module's imports, as `MODULE NAME`.
    pub imports: Vec<String>,
    /// The share of the pool that one instance of it takes.
    pub footprint: Footprint,
    /// Whether it uses component-model async, as WASI 0.3 does: in what it exports, or only in what it imports.
    pub is_async: bool,
    /// Whether it is a core module, and no component.
    pub is_core: bool,
}

/// The share of the pool that one instance takes, at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Footprint {
    /// Core instances.
    pub core_instances: u32,
    /// Linear memories.
    pub memories: u32,
    /// Tables.
    pub tables: u32,
    /// Bytes of all its memories as they begin.
    pub memory_bytes: u64,
    /// Elements of all its tables as they begin.
    pub table_elements: u64,
    /// Elements of its largest table as it begins.
    pub table_elements_max: u64,
    /// Stacks. With component-model async each of its component instances that has code may wait in a call of its own.
    pub stacks: u32,
}

impl Footprint {
    /// The larger one in each respect.
    #[must_use]
    pub fn max(self, other: Footprint) -> Footprint {
        Footprint {
            core_instances: self.core_instances.max(other.core_instances),
            memories: self.memories.max(other.memories),
            tables: self.tables.max(other.tables),
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
            table_elements: self.table_elements.max(other.table_elements),
            table_elements_max: self.table_elements_max.max(other.table_elements_max),
            stacks: self.stacks.max(other.stacks),
        }
    }

    /// Bytes that an instance holds before its first call, as its `memory` limit counts them.
    pub fn bytes_at_start(&self) -> u64 {
        self.memory_bytes.saturating_add(self.table_elements.saturating_mul(TABLE_ELEMENT_BYTES))
    }
}

/// A way in which a component can be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Handler {
    /// `wasi:http/incoming-handler@0.2.x`
    Http02,
    /// `wasi:http/handler@0.3.x`
    Http03,
    /// `wasmhost:job/handler`
    Job,
    /// `wasmhost:job/async-handler`
    AsyncJob,
    /// `wasmhost:clock/handler`
    Tick,
    /// `wasmhost:clock/async-handler`
    AsyncTick,
    /// `wasi:cli/run@0.2.x`
    Command02,
    /// `wasi:cli/run@0.3.x`
    Command03,
    /// `_start` of a core module, which speaks WASI 0.1.
    CoreCommand,
}

/// The function that a reactor, and some a command, wants to be called first.
pub(crate) const INITIALIZE: &str = "_initialize";
/// A command's `main`: a module's default function, where it has one, as for `wasmtime run`; else what WASI calls it.
pub(crate) const STARTS: [&str; 2] = ["", "_start"];
/// The package of WASI 0.1, and of the version before it, which nothing makes any more.
pub(crate) const IMPORTED: [&str; 2] = ["wasi_snapshot_preview1", "wasi_unstable"];

const ORDER: [Handler; 8] = [
    Handler::Http02,
    Handler::Http03,
    Handler::Job,
    Handler::AsyncJob,
    Handler::Tick,
    Handler::AsyncTick,
    Handler::Command03,
    Handler::Command02,
];

fn exports_handler(exports: &[String], handler: Handler) -> bool {
    exports.iter().any(|export| handler.matches(export))
}

impl Handler {
    /// The interface's name without its version, and the version's beginning.
    fn interface(self) -> (&'static str, &'static str) {
        match self {
            Handler::Http02 => ("wasi:http/incoming-handler", "0.2."),
            Handler::Http03 => ("wasi:http/handler", "0.3."),
            Handler::Job => ("wasmhost:job/handler", "0.1."),
            Handler::AsyncJob => ("wasmhost:job/async-handler", "0.1."),
            Handler::Tick => ("wasmhost:clock/handler", "0.1."),
            Handler::AsyncTick => ("wasmhost:clock/async-handler", "0.1."),
            Handler::Command02 => ("wasi:cli/run", "0.2."),
            Handler::Command03 => ("wasi:cli/run", "0.3."),
            Handler::CoreCommand => ("_start", "0.1."),
        }
    }

    /// Whether it is a `main`, which can be entered once.
    pub fn is_command(self) -> bool {
        matches!(self, Handler::Command02 | Handler::Command03 | Handler::CoreCommand)
    }

    fn matches(self, export: &str) -> bool {
        let (interface, version) = self.interface();
        export
            .strip_prefix(interface)
            .and_then(|rest| rest.strip_prefix('@'))
            .is_some_and(|found| found.starts_with(version) && !imports::is_pre_release(found))
    }
}

impl fmt::Display for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (interface, version) = self.interface();
        match self {
            Handler::CoreCommand => write!(f, "{interface} of a core WASI 0.1 module"),
            _ => write!(f, "{interface}@{version}x"),
        }
    }
}

impl Inspection {
    /// Fills in `handlers`, which follow from the exports.
    pub(crate) fn find_handlers(&mut self) {
        self.handlers = match self.is_core {
            // The other exports of a core module can't be called.
            true => vec![Handler::CoreCommand],
            false => ORDER.into_iter().filter(|handler| exports_handler(&self.exports, *handler)).collect(),
        };
    }
}

/// Elements of one table of an instance in a pool. The largest programs that are known have a quarter of that.
pub const TABLE_ELEMENTS_MAX: u64 = 200_000;

/// The size of an element of a table, in bytes.
pub(crate) const TABLE_ELEMENT_BYTES: u64 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_versions_the_better_one_is_first() {
        let exports = [
            "wasi:cli/run@0.2.6",
            "wasi:cli/run@0.3.0",
            "wasi:http/handler@0.3.0",
            "wasi:http/incoming-handler@0.2.6",
        ];
        let mut both = Inspection {
            handlers: vec![],
            exports: exports.map(str::to_owned).into(),
            imports: vec![],
            footprint: Footprint::default(),
            is_async: false,
            is_core: false,
        };
        both.find_handlers();
        let best_first = [Handler::Http02, Handler::Http03, Handler::Command03, Handler::Command02];
        assert_eq!(both.handlers, best_first);
    }

    #[test]
    fn only_the_known_versions_are_handlers() {
        assert!(Handler::Http02.matches("wasi:http/incoming-handler@0.2.6"));
        assert!(!Handler::Http02.matches("wasi:http/incoming-handler@0.3.0"));
        assert!(!Handler::Http02.matches("wasi:http/incoming-handler"));
        assert!(!Handler::Job.matches("wasmhost:job/handler-of-mine@0.1.0"));
    }

    #[test]
    fn a_pre_release_is_no_handler() {
        assert!(!Handler::Http03.matches("wasi:http/handler@0.3.0-rc-2026-01-06"));
        assert!(!Handler::Http02.matches("wasi:http/incoming-handler@0.2.0-rc-2023-12-05"));
        assert!(Handler::Http02.matches("wasi:http/incoming-handler@0.2.0+build"));
    }
}
