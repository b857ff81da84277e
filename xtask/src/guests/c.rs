//! Guests in C: clang with a C library for WASI makes a core module, of the sources and of committed bindings.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::clang::{self, Clang};
use super::component::Kind;
use super::replace;

/// The worlds of `wit/world.wit`, each of `src/WORLD.c` and its bindings.
const WORLDS: [&str; 2] = ["web", "worker"];

pub(super) const OUTPUTS: [&str; 2] = ["web.wasm", "worker.wasm"];

/// Builds a folder with `src/WORLD.c` and `bindings/WORLD.c` for each of [`WORLDS`], by the newest compiler that can.
pub(super) fn build(folder: &Path, target_folder: &Path) -> Result<()> {
    let mut refused = Vec::new();
    let mut failed = Vec::new();
    for clang in clang::compilers(target_folder, &mut refused)? {
        match build_with(&clang, folder, target_folder) {
            Ok(()) => return Ok(()),
            Err(error) => {
                println!("{error:#}; looking for another compiler");
                failed.push(format!("{error:#}"));
            }
        }
    }
    if failed.is_empty() {
        return Err(clang::missing(&refused));
    }
    bail!("no compiler could build them: {}", failed.join("; "))
}

fn build_with(clang: &Clang, folder: &Path, target_folder: &Path) -> Result<()> {
    for (world, output) in WORLDS.into_iter().zip(OUTPUTS) {
        let module = target_folder.join(format!("c-{output}"));
        let status = clang
            .command()
            // Warnings are shown and don't fail: each compiler has others.
            .args(["-Wall", "-Wextra", "-Wl,--strip-debug", "-Ibindings", "-o"])
            .arg(&module)
            .arg(format!("src/{world}.c"))
            .arg(format!("bindings/{world}.c"))
            .arg(format!("bindings/{world}_component_type.o"))
            .current_dir(folder)
            .status()
            .with_context(|| format!("{} could not be started", clang.name()))?;
        ensure!(status.success(), "{} could not build {world}", clang.name());
        let module = fs::read(&module).with_context(|| module.display().to_string())?;
        let component =
            Kind::Library.encode(&module).with_context(|| format!("{world} is not a component"))?;
        replace(&folder.join(output), &component)?;
    }
    Ok(())
}
