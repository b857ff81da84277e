//! Prometheus, for the tests that have metrics read by it. Where it isn't installed Debian's package is fetched and unpacked
//! below the target folder: nothing is installed, and no service is started.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context, Result, ensure};

use crate::bench;

/// The variable that tells the tests where it is.
pub(crate) const VARIABLE: &str = "WASMHOST_PROMETHEUS";

const PROGRAMS: [&str; 2] = ["prometheus", "promtool"];

/// The folder of its programs, fetched where that can be done. The error says what it lacks.
pub(crate) fn folder(repository: &Path) -> Result<PathBuf> {
    let on_path = env::split_paths(&env::var_os("PATH").unwrap_or_default()).find(|folder| has_all(folder));
    if let Some(folder) = on_path {
        return Ok(folder);
    }
    let folder = bench::target_folder(repository).join("prometheus");
    let programs = folder.join("usr/bin");
    if !has_all(&programs) {
        fetch(&folder)
            .context("it isn't installed, and could not be fetched (Debian: `apt-get install prometheus`)")?;
        ensure!(has_all(&programs), "Debian's package has no {} in it", PROGRAMS.join(" and "));
    }
    Ok(programs)
}

fn has_all(folder: &Path) -> bool {
    PROGRAMS.iter().all(|program| folder.join(program).exists())
}

fn fetch(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    run(Command::new("apt-get").args(["download", "--quiet", "prometheus"]).current_dir(folder))?;
    let is_package = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "deb");
    let mut files = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    let package = files.find(is_package).context("apt-get has fetched no package")?;
    run(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(folder))?;
    fs::remove_file(&package).with_context(|| package.display().to_string())
}

fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| name.clone())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name}: {}", said.lines().last().unwrap_or("failed"));
    Ok(())
}
