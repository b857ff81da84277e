//! `wasmhost componentize`: a core module for WASI 0.1 -> a component, with the adapter that wasmtime's authors make.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
    WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wasmhost_config::read_file;
use wasmhost_engine::FILE_BYTES_MAX;
use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::args::project::Componentize;
use crate::exit::{Exit, Failed, Outcome};

/// The first bytes of a component; those of a core module differ in the fifth.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

pub(crate) fn componentize(Componentize { module, output, wit, world }: &Componentize) -> Outcome {
    let shown = module.display();
    let failed = |message: String| Failed::new(Exit::Component, message);
    let bytes = read_file(module, FILE_BYTES_MAX)
        .map_err(|err| failed(format!("can't read {shown}: {err}; build it, or correct the path")))?
        .ok_or_else(|| failed(format!("{shown} is larger than any component may be")))?;
    // Text becomes a module, and a module stays.
    let mut core = wat::parse_bytes(&bytes)
        .map_err(|err| failed(format!("{shown} is no core module: {err}")))?
        .into_owned();
    if core.starts_with(COMPONENT) {
        return Err(failed(format!("{shown} is a component already, expected a core module")));
    }
    if let Some(wit) = wit {
        embed_world(&mut core, wit, world.as_deref())
            .map_err(|err| failed(format!("the world can't be taken from {}: {err:#}", wit.display())))?;
    }
    let component =
        encode(&core).map_err(|err| failed(format!("{shown} can't be made a component: {err:#}")))?;
    write(output, &component)
        .map_err(|err| Failed::new(Exit::Failed, format!("can't write {}: {err}", output.display())))?;
    Ok(Exit::Done)
}

/// Writes into a core module which world it is for, where its compiler can't.
fn embed_world(core: &mut Vec<u8>, wit: &Path, world: Option<&str>) -> Result<(), anyhow::Error> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(wit)?;
    let world = resolve.select_world(&[package], world)?;
    embed_component_metadata(core, &resolve, world, StringEncoding::UTF8)
}

/// A program has `_start`, and is made a component that exports `wasi:cli/run`; a library exports what its world says.
fn encode(core: &[u8]) -> Result<Vec<u8>, anyhow::Error> {
    let adapter = match has_start(core) {
        true => WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
        false => WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
    };
    ComponentEncoder::default()
        .module(core)?
        .validate(true)
        .adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, adapter)?
        .encode()
}

fn has_start(core: &[u8]) -> bool {
    let exports = Parser::new(0).parse_all(core).filter_map(|payload| match payload {
        Ok(Payload::ExportSection(exports)) => Some(exports),
        _ => None,
    });
    exports.flatten().flatten().any(|export| export.name == "_start")
}

/// Writes a file whole or not at all: a host may just be loading it.
fn write(output: &Path, component: &[u8]) -> std::io::Result<()> {
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut beside =
        tempfile::Builder::new().prefix(".wasmhost-").make_in(folder, |path| File::create_new(path))?;
    beside.write_all(component)?;
    beside.persist(output).map(drop).map_err(|err| err.error)
}
