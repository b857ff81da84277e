//! What a file is, and what it exports and imports, read without compiling it.

use wasmparser::{Encoding, ExternalKind, Parser, Payload, Validator, WasmFeatures};

use super::cwasm::CwasmError;
use crate::inspection::{Footprint, Inspection, START};

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
        if !seen.exports.iter().any(|export| export == START) {
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
