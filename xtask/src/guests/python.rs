//! Guests in Python: componentize-py, from PyPI into an environment of its own, puts them and CPython in a component.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{replace, staging};

/// The worlds of `wit/world.wit`, each of a module of that name.
const WORLDS: [&str; 2] = ["web", "worker"];

pub(super) const OUTPUTS: [&str; 2] = ["web.wasm", "worker.wasm"];

/// Builds a folder with a `requirements.txt` and a module for each of [`WORLDS`].
pub(super) fn build(folder: &Path, target_folder: &Path) -> Result<()> {
    let environment = environment(folder, target_folder, "python")?;
    let stage = target_folder.join("python");
    staging::copy(folder, &stage)?;
    for (world, output) in WORLDS.into_iter().zip(OUTPUTS) {
        let status = Command::new(environment.join("componentize-py"))
            .args([
                "--quiet",
                "--wit-path",
                "wit",
                "--world",
                world,
                "componentize",
                world,
                "--output",
                output,
            ])
            .current_dir(&stage)
            .status()
            .context("componentize-py could not be started")?;
        ensure!(status.success(), "componentize-py could not build {world}");
        replace(&folder.join(output), &fs::read(stage.join(output)).context(output)?)?;
    }
    Ok(())
}

/// The programs of an environment that holds what the `requirements.txt` in `folder` says.
pub(crate) fn environment(folder: &Path, target_folder: &Path, name: &str) -> Result<PathBuf> {
    let environment = target_folder.join(format!("{name}-environment"));
    let programs = environment.join("bin");
    let requirements = folder.join("requirements.txt");
    let wanted = fs::read_to_string(&requirements).with_context(|| requirements.display().to_string())?;
    let stamp = environment.join("installed.stamp");
    if staging::is_done(&stamp, &wanted) {
        return Ok(programs);
    }
    let status = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment).status();
    let made = status.context("python3 could not be started")?.success();
    ensure!(
        made,
        "python3 could not make an environment (on Debian, as root: `apt-get install python3-venv`)"
    );
    let status = Command::new(programs.join("pip"))
        .args([
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--only-binary=:all:",
            "--require-hashes",
        ])
        .arg("--requirement")
        .arg(&requirements)
        .status()
        .context("pip could not be started")?;
    ensure!(status.success(), "pip could not install {}", requirements.display());
    staging::done(&stamp, &wanted)?;
    Ok(programs)
}
