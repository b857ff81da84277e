//! Guests in Rust: cargo makes a core module of each, by whichever [toolchain] this machine has.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::component::Kind;
use super::replace;
use super::toolchain::{self, Toolchain};

/// One module of a cargo workspace, and the component that is made of it.
#[derive(Debug)]
pub(super) struct Guest {
    /// Cargo's name for the module.
    pub(super) module: &'static str,
    pub(super) kind: Kind,
    /// Where the component goes, in the workspace's folder.
    pub(super) output: &'static str,
}

/// Builds a cargo workspace of guests.
pub(super) fn build(folder: &Path, guests: &[Guest], target_folder: &Path) -> Result<()> {
    let toolchain = Toolchain::find()?;
    let status = toolchain
        .cargo_build()
        .current_dir(folder)
        .args(["--locked", "--target-dir"])
        .arg(target_folder)
        .status()
        .context("cargo could not be started")?;
    ensure!(status.success(), "{toolchain} could not build {}", folder.display());

    for guest in guests {
        let module = target_folder.join(toolchain::TARGET).join("release").join(guest.module);
        let module = fs::read(&module).with_context(|| module.display().to_string())?;
        let component =
            guest.kind.encode(&module).with_context(|| format!("{} is not a component", guest.module))?;
        replace(&folder.join(guest.output), &component)?;
    }
    Ok(())
}
