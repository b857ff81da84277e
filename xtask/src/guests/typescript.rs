//! Guests in TypeScript: npm fetches what the lock file says, and its scripts build the components.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::tools::{Found, Missing, Version, require};
use super::{replace, staging};

pub(super) const OUTPUTS: [&str; 2] = ["web.wasm", "worker.wasm"];

/// The Node.js that jco and TypeScript run on.
const NODE_MIN: Version = Version(20, 0);

/// Builds a folder with a `package.json` whose script `build` makes [`OUTPUTS`].
pub(super) fn build(folder: &Path, target_folder: &Path) -> Result<()> {
    let node = Found::ask(Path::new("node"), &["--version"]);
    require("Node.js", &node, NODE_MIN, "on Debian, as root: `apt-get install nodejs npm`")?;
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
    let quietly = ["--no-audit", "--no-fund"];
    if npm(stage, &[&["ci"][..], &quietly].concat()).is_err() {
        // `npm ci` refuses a lock file that lacks an optional package of another platform, which some registries lack
        // too. `npm install` takes the same versions, and writes what it misses into the copy of the lock file.
        println!("`npm ci` failed; trying `npm install`");
        if let Err(error) = npm(stage, &[&["install"][..], &quietly].concat()) {
            return Err(Missing::error(format!("npm can't fetch what package-lock.json says: {error:#}")));
        }
    }
    staging::done(&stamp, &lock)
}

fn npm(stage: &Path, arguments: &[&str]) -> Result<()> {
    let status = Command::new("npm").args(arguments).current_dir(stage).status().context(
        "npm could not be started: it comes with Node.js (on Debian, as root: `apt-get install npm`)",
    )?;
    ensure!(status.success(), "`npm {}` in {} failed", arguments.join(" "), stage.display());
    Ok(())
}
