//! Makes a component of a core module, the same way whatever compiled it.

use std::path::Path;

use anyhow::{Context, Result};
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
    WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The kind of thing that a core module becomes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// A component that exports handlers.
    Library,
    /// A component that exports `wasi:cli/run`.
    Program,
    /// The core module as it is: a WASI 0.1 command.
    Module,
}

impl Kind {
    pub(super) fn encode(self, module: &[u8]) -> Result<Vec<u8>> {
        let adapter = match self {
            Self::Library => WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
            Self::Program => WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
            Self::Module => return Ok(module.to_vec()),
        };
        ComponentEncoder::default()
            .module(module)?
            .validate(true)
            .adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, adapter)?
            .encode()
    }
}

/// Writes into a core module which world it is for, where its compiler can't.
pub(super) fn embed_world(module: &mut Vec<u8>, wit: &Path, world: &str) -> Result<()> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(wit).with_context(|| wit.display().to_string())?;
    let world = resolve.select_world(&[package], Some(world))?;
    embed_component_metadata(module, &resolve, world, StringEncoding::UTF8)
}
