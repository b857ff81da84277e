//! What a file is, and what it exports and imports, read without compiling it.
//!
//! The file may come from anybody. Reading it takes time and memory in proportion to its length, with bounds on what is
//! kept.

mod structure;

use std::collections::BTreeSet;

use wasmhost_config::shown::{MESSAGE_BYTES_MAX, one_line};
use wasmparser::{Encoding, ExternalKind, Parser, Payload, Validator, WasmFeatures};

use super::cwasm::CwasmError;
use crate::inspection::{Inspection, STARTS};
pub(crate) use structure::CORE_ITEMS_MAX;
use structure::Structure;

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
    /// It is larger in some respect than any that can be run.
    #[error("is too complex to be run: {0}")]
    TooComplex(String),
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
    let mut reading = Reading::default();
    // Nested modules and components follow their parent in one flat sequence of payloads.
    for payload in Parser::new(0).parse_all(bytes) {
        reading.add(&payload.map_err(malformed)?)?;
    }
    reading.finish()
}

fn malformed(err: wasmparser::BinaryReaderError) -> InspectError {
    InspectError::Malformed(one_line(&err.to_string(), MESSAGE_BYTES_MAX).into_owned())
}

/// What has been seen of a file so far.
struct Reading {
    exports: Vec<String>,
    imports: BTreeSet<String>,
    structure: Structure,
    /// Knows no async: what is valid without it needs none. Function bodies aren't looked at, since compiling does that.
    validator: Validator,
    is_async: bool,
    is_core: bool,
}

impl Default for Reading {
    fn default() -> Self {
        Reading {
            exports: Vec::new(),
            imports: BTreeSet::new(),
            structure: Structure::default(),
            validator: Validator::new_with_features(WasmFeatures::all().difference(async_features())),
            is_async: false,
            is_core: false,
        }
    }
}

impl Reading {
    fn add(&mut self, payload: &Payload) -> Result<(), InspectError> {
        let depth = self.structure.depth();
        // Before the validator, which does as it is told: it builds what the structure only counts.
        self.structure.add(payload)?;
        match payload {
            Payload::Version { encoding, .. } => {
                self.is_core |= depth == 0 && *encoding == Encoding::Module;
            }
            Payload::ExportSection(section) if self.is_core => {
                at_most(section.count(), "exports")?;
                for export in section.clone() {
                    let export = export.map_err(malformed)?;
                    if export.kind == ExternalKind::Func {
                        self.exports.push(export.name.to_owned());
                    }
                }
            }
            Payload::ImportSection(section) if self.is_core => {
                at_most(section.count(), "imports")?;
                for import in section.clone().into_imports() {
                    let import = import.map_err(malformed)?;
                    self.imports.insert(format!("{} {}", import.module, import.name));
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                at_most(section.count(), "exports")?;
                for export in section.clone() {
                    self.exports.push(export.map_err(malformed)?.name.name.to_owned());
                }
            }
            Payload::ComponentImportSection(section) if depth == 1 => {
                at_most(section.count(), "imports")?;
                for import in section.clone() {
                    self.imports.insert(import.map_err(malformed)?.name.name.to_owned());
                }
            }
            _ => {}
        }
        self.is_async = self.is_async || self.validator.payload(payload).is_err();
        Ok(())
    }

    fn finish(self) -> Result<Inspection, InspectError> {
        let Reading { exports, imports, structure, is_async, is_core, .. } = self;
        if is_core && !exports.iter().any(|export| STARTS.contains(&export.as_str())) {
            return Err(InspectError::CoreModule);
        }
        let mut seen = Inspection {
            handlers: vec![],
            exports,
            imports: imports.into_iter().collect(),
            footprint: structure.footprint(),
            is_async: is_async && !is_core,
            is_core,
        };
        at_most(u32::try_from(seen.exports.len()).unwrap_or(u32::MAX), "exports")?;
        at_most(u32::try_from(seen.imports.len()).unwrap_or(u32::MAX), "imports")?;
        seen.find_handlers();
        Ok(seen)
    }
}

/// The longest file that is read: one with all of a Python program and its libraries has 40 MB.
pub const FILE_BYTES_MAX: u64 = 256 << 20;

/// Exports or imports of a file: programs of real languages have some hundreds.
const NAMES_MAX: u32 = 10_000;

fn at_most(count: u32, what: &str) -> Result<(), InspectError> {
    match count <= NAMES_MAX {
        true => Ok(()),
        false => Err(InspectError::TooComplex(format!("it has {count} {what}, more than {NAMES_MAX}"))),
    }
}

fn async_features() -> WasmFeatures {
    WasmFeatures::CM_ASYNC
        | WasmFeatures::CM_ASYNC_STACKFUL
        | WasmFeatures::CM_MORE_ASYNC_BUILTINS
        | WasmFeatures::CM_THREADING
        | WasmFeatures::CM_ERROR_CONTEXT
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
}
