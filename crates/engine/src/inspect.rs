//! What a file is, and what it exports and imports, read without compiling it.

use std::fmt;

use serde::{Deserialize, Serialize};
use wasmparser::{Encoding, ExternalKind, Parser, Payload, Validator, WasmFeatures};

use crate::cwasm::CwasmError;
use crate::module;

/// What [`inspect`] saw in a file. Part of the form of compiled files: see `cwasm`.
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

/// Why a file is not a component that could be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    /// Its first bytes are not those of WebAssembly.
    #[error("is not WebAssembly: it begins with {found}, where a component begins with \\0asm")]
    NotWasm {
        /// Its first bytes.
        found: String,
    },
    /// It is WebAssembly of the older kind, and no command of WASI 0.1.
    #[error(
        "is a core WebAssembly module without a function `_start`, where a component or a command of WASI 0.1 is expected: build it for the target wasm32-wasip2, or turn it into one with `wasm-tools component new`"
    )]
    CoreModule,
    /// It is damaged, or uses what this version doesn't know.
    #[error("is not a valid component: {0}")]
    Malformed(String),
    /// It is compiled code, which can't be used.
    #[error(transparent)]
    Compiled(#[from] CwasmError),
}

/// Looks at a file's bytes.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, InspectError> {
    if !bytes.starts_with(b"\0asm") {
        let found = match bytes.first() {
            None => "nothing (the file is empty)".to_owned(),
            Some(_) => format!("\"{}\"", bytes[..bytes.len().min(8)].escape_ascii()),
        };
        return Err(InspectError::NotWasm { found });
    }
    let malformed = |err: wasmparser::BinaryReaderError| InspectError::Malformed(err.to_string());

    let mut seen = Inspection {
        handlers: vec![],
        exports: vec![],
        imports: vec![],
        footprint: Footprint::default(),
        is_async: false,
    };
    // What is valid without async needs none. Function bodies aren't looked at: compiling does that.
    let mut validator = Validator::new_with_features(WasmFeatures::all().difference(async_features()));
    // Nested modules and components follow their parent in one flat sequence of payloads.
    let mut depth = 0_u32;
    let mut is_core = false;
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(malformed)?;
        seen.is_async = seen.is_async || validator.payload(&payload).is_err();
        match payload {
            Payload::Version { encoding, .. } => {
                is_core |= depth == 0 && encoding == Encoding::Module;
                depth += 1;
            }
            Payload::ExportSection(section) if is_core => {
                for export in section {
                    let export = export.map_err(malformed)?;
                    if export.kind == ExternalKind::Func {
                        seen.exports.push(export.name.to_owned());
                    }
                }
            }
            Payload::ImportSection(section) if is_core => {
                for import in section.into_imports() {
                    let package = import.map_err(malformed)?.module;
                    if !seen.imports.iter().any(|known| known == package) {
                        seen.imports.push(package.to_owned());
                    }
                }
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    seen.exports.push(export.map_err(malformed)?.name.name.to_owned());
                }
            }
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    seen.imports.push(import.map_err(malformed)?.name.name.to_owned());
                }
            }
            Payload::InstanceSection(section) => seen.footprint.core_instances += section.count(),
            Payload::MemorySection(section) => seen.footprint.memories += section.count(),
            Payload::TableSection(section) => seen.footprint.tables += section.count(),
            _ => {}
        }
    }
    if is_core {
        if !seen.exports.iter().any(|export| export == module::START) {
            return Err(InspectError::CoreModule);
        }
        seen.footprint.core_instances = 1;
        seen.is_async = false;
    }
    seen.find_handlers();
    Ok(seen)
}

fn async_features() -> WasmFeatures {
    WasmFeatures::CM_ASYNC
        | WasmFeatures::CM_ASYNC_STACKFUL
        | WasmFeatures::CM_MORE_ASYNC_BUILTINS
        | WasmFeatures::CM_THREADING
        | WasmFeatures::CM_ERROR_CONTEXT
}

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
            Handler::CoreCommand => (module::START, "0.1."),
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
        self.handlers = match self.exports.iter().any(|export| export == module::START) {
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
    if module::IMPORTED.contains(&import) {
        return true;
    }
    let Some((interface, version)) = import.split_once('@') else { return false };
    PROVIDED.iter().any(|(prefix, known)| interface.starts_with(prefix) && version.starts_with(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_not_wasm() {
        let err = inspect(b"hello, world").unwrap_err();
        assert_eq!(
            err.to_string(),
            "is not WebAssembly: it begins with \"hello, w\", where a component begins with \\0asm"
        );
    }

    #[test]
    fn an_empty_file_is_not_wasm() {
        assert!(inspect(b"").unwrap_err().to_string().contains("the file is empty"));
    }

    #[test]
    fn a_core_module_is_named_as_one() {
        assert_eq!(inspect(b"\0asm\x01\0\0\0").unwrap_err(), InspectError::CoreModule);
    }

    #[test]
    fn a_cut_file_is_malformed() {
        assert!(matches!(inspect(b"\0asm\x0d\0\x01\0\x07"), Err(InspectError::Malformed(_))));
    }

    #[test]
    fn an_empty_component_has_nothing() {
        let seen = inspect(b"\0asm\x0d\0\x01\0").unwrap();
        assert!(seen.handlers.is_empty() && seen.imports.is_empty());
    }

    #[test]
    fn of_two_versions_the_better_one_is_first() {
        let mut both = inspect(b"\0asm\x0d\0\x01\0").unwrap();
        let exports = [
            "wasi:cli/run@0.2.6",
            "wasi:cli/run@0.3.0",
            "wasi:http/handler@0.3.0",
            "wasi:http/incoming-handler@0.2.6",
        ];
        both.exports = exports.map(str::to_owned).into();
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
