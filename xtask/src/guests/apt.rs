//! Debian's packages, which are installed where it can be done without asking.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

/// Whether it could be tried at all, and worked.
pub(super) fn install(packages: &[impl AsRef<str>]) -> Result<bool> {
    if !can_install() {
        return Ok(false);
    }
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(packages.iter().map(AsRef::as_ref));
    apt_get(&arguments)?;
    Ok(true)
}

pub(super) fn can_install() -> bool {
    is_root() && Path::new("/usr/bin/apt-get").exists()
}

pub(super) fn update() -> Result<()> {
    apt_get(&["update"])
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    println!("apt-get {}", arguments.join(" "));
    let status = Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").status()?;
    ensure!(status.success(), "`apt-get {}` failed", arguments.join(" "));
    Ok(())
}

/// The package of the linker is named after LLVM's version, which moves: `lld-19`.
pub(super) fn newest_lld() -> Option<String> {
    let mut search = Command::new("apt-cache");
    let found =
        search.args(["search", "--names-only", "^lld-[0-9]+$"]).stderr(Stdio::null()).output().ok()?;
    let found = String::from_utf8(found.stdout).ok()?;
    let packages = found.lines().filter_map(|line| line.split(' ').next());
    let newest = packages.filter_map(|package| Some((llvm_version(package, "lld-")?, package))).max();
    newest.map(|(_, package)| package.to_string())
}

/// 19 in `lld-19`.
pub(super) fn llvm_version(name: &str, prefix: &str) -> Option<u32> {
    name.strip_prefix(prefix)?.parse().ok()
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").stderr(Stdio::null()).output();
    id.is_ok_and(|id| id.status.success() && id.stdout.trim_ascii() == b"0")
}
