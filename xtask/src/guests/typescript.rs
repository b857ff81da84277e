//! Guests in TypeScript: npm fetches what the lock file says, and its scripts build the components.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{replace, staging};

pub(super) const OUTPUTS: [&str; 2] = ["web.wasm", "worker.wasm"];

/// Builds a folder with a `package.json` whose script `build` makes [`OUTPUTS`].
pub(super) fn build(folder: &Path, target_folder: &Path) -> Result<()> {
    let stage = target_folder.join("typescript");
    staging::copy(folder, &stage)?;
    install(&stage)?;
    npm(&stage, &["run", "--silent", "types"])?;
    npm(&stage, &["run", "--silent", "build"])?;
    for output in OUTPUTS {
        replace(&folder.join(output), &fs::read(stage.join(output)).context(output)?)?;
    }
    Ok(())
}

/// Fetches what the folder's lock file says, once.
pub(crate) fn install(stage: &Path) -> Result<()> {
    let lock = fs::read_to_string(stage.join("package-lock.json")).context("package-lock.json")?;
    let stamp = stage.join("installed.stamp");
    if staging::is_done(&stamp, &lock) && stage.join("node_modules").exists() {
        return Ok(());
    }
    // Not `npm ci`: it refuses a lock file that lacks an optional package of another platform, and registries may lack
    // those. What is in the lock file is taken as it says by this too.
    npm(stage, &["install", "--no-audit", "--no-fund"])?;
    staging::done(&stamp, &lock)
}

fn npm(stage: &Path, arguments: &[&str]) -> Result<()> {
    let status = Command::new("npm").args(arguments).current_dir(stage).status().context(
        "npm could not be started: it comes with Node.js 20 or later (on Debian, as root: `apt-get install nodejs npm`)",
    )?;
    ensure!(status.success(), "`npm {}` in {} failed", arguments.join(" "), stage.display());
    Ok(())
}
