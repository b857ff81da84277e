//! Guests in Python: componentize-py, from PyPI into an environment of its own, puts them and CPython in a component.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::tools::{Found, Missing, Version, require};
use super::{replace, staging};

/// The worlds of `wit/world.wit`, each of a module of that name.
const WORLDS: [&str; 2] = ["web", "worker"];

pub(super) const OUTPUTS: [&str; 2] = ["web.wasm", "worker.wasm"];

/// The Python that installs componentize-py and the Go toolchain of PyPI.
const PYTHON_MIN: Version = Version(3, 10);

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
    let python = Path::new("python3");
    let help = "on Debian, as root: `apt-get install python3-venv`";
    require("Python", &Found::ask(python, &["--version"]), PYTHON_MIN, help)?;
    let status = Command::new(python).args(["-m", "venv", "--clear"]).arg(&environment).status();
    if !status.context("python3 could not be started")?.success() {
        return Err(Missing::error(format!("python3 could not make an environment ({help})")));
    }
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
    if !status.success() {
        let requirements = requirements.display();
        return Err(Missing::error(format!(
            "pip could not install what {requirements} says, for this machine"
        )));
    }
    staging::done(&stamp, &wanted)?;
    Ok(programs)
}
