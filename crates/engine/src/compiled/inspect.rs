//! The kind of a file, its exports and its imports, read without compiling it.
//!
//! The file may come from anybody. Reading it takes time in proportion to its length, and what is kept of it has bounds.
//! Whether it is valid is for the compiler to say.

mod asynchronous;
mod structure;

use std::collections::BTreeSet;

use wasmhost_config::shown::{MESSAGE_BYTES_MAX, lines, one_line};
use wasmparser::{Encoding, ExternalKind, Parser, Payload};

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
    /// It is WebAssembly text with errors.
    #[error("is not valid WebAssembly text: {0}")]
    Text(String),
    /// It is WebAssembly of the older kind, and no command of WASI 0.1.
    #[error(
        "is a core WebAssembly module without a function `_start`, where a component or a command of WASI 0.1 is expected: build it for the target wasm32-wasip2, or turn it into one with `wasmhost componentize`"
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

/// How WebAssembly text begins: with a module, a component, or a comment.
const TEXTS: [&[u8]; 4] = [b"(module", b"(component", b";;", b"(;"];

/// Text is written by people. It takes many times its length to be read.
const TEXT_BYTES_MAX: usize = 16 << 20;

/// The binary form of a file's bytes, where they are WebAssembly text: what else they are stays as it is.
pub fn binary_of(bytes: Vec<u8>) -> Result<Vec<u8>, InspectError> {
    let first = bytes.trim_ascii_start();
    if !TEXTS.iter().any(|text| first.starts_with(text)) {
        return Ok(bytes);
    }
    if bytes.len() > TEXT_BYTES_MAX {
        return Err(InspectError::TooComplex(format!("it is text of more than {TEXT_BYTES_MAX} bytes")));
    }
    let binary = wat::parse_bytes(&bytes).map(|binary| binary.into_owned());
    binary.map_err(|err| InspectError::Text(lines(&err.to_string(), MESSAGE_BYTES_MAX).into_owned()))
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
        reading.add(&payload.map_err(malformed)?, bytes)?;
    }
    reading.finish()
}

fn malformed(err: wasmparser::BinaryReaderError) -> InspectError {
    InspectError::Malformed(one_line(&err.to_string(), MESSAGE_BYTES_MAX).into_owned())
}

/// The findings about a file so far.
#[derive(Default)]
struct Reading {
    exports: Vec<String>,
    imports: BTreeSet<String>,
    /// Bytes of the names of all exports and imports.
    name_bytes: usize,
    structure: Structure,
    is_async: bool,
    is_core: bool,
}

impl Reading {
    fn add(&mut self, payload: &Payload, file: &[u8]) -> Result<(), InspectError> {
        let depth = self.structure.depth();
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
                        self.export(export.name)?;
                    }
                }
            }
            Payload::ImportSection(section) if self.is_core => {
                at_most(section.count(), "imports")?;
                for import in section.clone().into_imports() {
                    let import = import.map_err(malformed)?;
                    self.import(format!("{} {}", import.module, import.name))?;
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                at_most(section.count(), "exports")?;
                for export in section.clone() {
                    self.export(export.map_err(malformed)?.name.name)?;
                }
            }
            Payload::ComponentImportSection(section) if depth == 1 => {
                at_most(section.count(), "imports")?;
                for import in section.clone() {
                    self.import(import.map_err(malformed)?.name.name.to_owned())?;
                }
            }
            _ => {}
        }
        self.is_async |= asynchronous::is_async(payload, file)?;
        Ok(())
    }

    fn export(&mut self, name: &str) -> Result<(), InspectError> {
        self.exports.push(name.to_owned());
        self.count_name(name.len())
    }

    fn import(&mut self, name: String) -> Result<(), InspectError> {
        let bytes = name.len();
        self.imports.insert(name);
        self.count_name(bytes)
    }

    fn count_name(&mut self, bytes: usize) -> Result<(), InspectError> {
        self.name_bytes = self.name_bytes.saturating_add(bytes);
        match self.name_bytes <= NAME_BYTES_MAX {
            true => Ok(()),
            false => Err(InspectError::TooComplex(format!(
                "the names of its imports and exports are longer than {NAME_BYTES_MAX} bytes, all together"
            ))),
        }
    }

    fn finish(self) -> Result<Inspection, InspectError> {
        let Reading { exports, imports, structure, is_async, is_core, .. } = self;
        if is_core && !exports.iter().any(|export| STARTS.contains(&export.as_str())) {
            return Err(InspectError::CoreModule);
        }
        let is_async = is_async && !is_core;
        let mut seen = Inspection {
            handlers: vec![],
            exports,
            imports: imports.into_iter().collect(),
            footprint: structure.footprint(is_async),
            is_async,
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

/// Bytes of all these names: compiled files list them.
const NAME_BYTES_MAX: usize = 512 << 10;

fn at_most(count: u32, what: &str) -> Result<(), InspectError> {
    match count <= NAMES_MAX {
        true => Ok(()),
        false => Err(InspectError::TooComplex(format!("it has {count} {what}, more than {NAMES_MAX}"))),
    }
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
