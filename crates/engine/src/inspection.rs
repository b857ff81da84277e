//! What a component or a core module is, as far as its names tell: how it can be called ([`Handler`]), what it takes
//! from the pool ([`Footprint`]), and whether all that it imports is provided.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What [`inspect`](crate::inspect) saw in a file. Part of the form of compiled files: see `cwasm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// What calls it can serve, best first. Of requests 0.2 where it has both, since that is the faster and the
    /// maintained one; of `main` 0.3, since what has both is a program of 0.3 that was built with tools of 0.2, which
    /// add a `main` that does nothing but trap.
    #[serde(skip)]
    pub handlers: Vec<Handler>,
    /// The interfaces it exports, as written in it (`wasi:http/incoming-handler@0.2.3`); a core module's functions.
    pub exports: Vec<String>,
    /// The interfaces it imports; the names before the functions that a core module imports.
    pub imports: Vec<String>,
    /// What one instance of it takes from the pool.
    pub footprint: Footprint,
    /// Whether it uses component-model async, as WASI 0.3 does: in what it exports, or only in what it imports.
    pub is_async: bool,
}

/// What one instance takes from the pool, at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Footprint {
    /// Core instances.
    pub core_instances: u32,
    /// Linear memories.
    pub memories: u32,
    /// Tables.
    pub tables: u32,
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

/// What a reactor, and some a command, wants to be called first.
pub(crate) const INITIALIZE: &str = "_initialize";
/// A command's `main`.
pub(crate) const START: &str = "_start";
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
            Handler::CoreCommand => (START, "0.1."),
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
            .is_some_and(|found| found.starts_with(version))
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

/// Interfaces that this engine provides, by the beginning of their names.
const PROVIDED: [(&str, &str); 15] = [
    ("wasi:cli/", "0.2."),
    ("wasi:cli/", "0.3."),
    ("wasi:clocks/", "0.2."),
    ("wasi:clocks/", "0.3."),
    ("wasi:filesystem/", "0.2."),
    ("wasi:filesystem/", "0.3."),
    ("wasi:http/", "0.2."),
    ("wasi:http/", "0.3."),
    ("wasi:io/", "0.2."),
    ("wasi:random/", "0.2."),
    ("wasi:random/", "0.3."),
    ("wasi:sockets/", "0.2."),
    ("wasi:sockets/", "0.3."),
    ("wasmhost:clock/", "0.1."),
    ("wasmhost:job/", "0.1."),
];

impl Inspection {
    /// Fills in `handlers`, which follow from the exports.
    pub(crate) fn find_handlers(&mut self) {
        // No component may export such a name, and what else a core module exports can't be called.
        self.handlers = match self.exports.iter().any(|export| export == START) {
            true => vec![Handler::CoreCommand],
            false => ORDER.into_iter().filter(|handler| exports_handler(&self.exports, *handler)).collect(),
        };
    }

    /// The imports that nothing provides, as far as names and versions tell.
    pub fn unknown_imports(&self) -> Vec<&str> {
        self.imports.iter().map(String::as_str).filter(|import| !is_provided(import)).collect()
    }
}

fn is_provided(import: &str) -> bool {
    if IMPORTED.contains(&import) {
        return true;
    }
    let Some((interface, version)) = import.split_once('@') else { return false };
    PROVIDED.iter().any(|(prefix, known)| interface.starts_with(prefix) && version.starts_with(known))
}

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
    fn other_packages_are_not_provided() {
        assert!(is_provided("wasi:io/streams@0.2.3"));
        assert!(!is_provided("wasi:keyvalue/store@0.2.0"));
        assert!(!is_provided("test:missing/thing"));
    }
}
