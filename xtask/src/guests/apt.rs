//! Debian's packages, which are installed where it can be done without asking. A step that apt-get can't do is said
//! and left undone: who wanted the package looks for it again, and says what is missing.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Once;

/// The package of LLVM's linker, which is named after its version: `lld-19`.
pub(super) const LLD: &str = "lld-";

/// Whether apt-get has installed them.
pub(crate) fn install(packages: &[impl AsRef<str>]) -> bool {
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(packages.iter().map(AsRef::as_ref));
    can_install() && apt_get(&arguments)
}

pub(crate) fn can_install() -> bool {
    is_root() && Path::new("/usr/bin/apt-get").exists()
}

/// Fetches the lists of packages, once. Where that fails, those that are there may do.
pub(crate) fn update() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        apt_get(&["update"]);
    });
}

fn apt_get(arguments: &[&str]) -> bool {
    println!("apt-get {}", arguments.join(" "));
    let mut command = Command::new("apt-get");
    // Another apt-get may be at work, such as the one that looks for updates each day.
    command.args(["-o", "DPkg::Lock::Timeout=120", "--quiet"]).args(arguments);
    let status = command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).status();
    let done = status.is_ok_and(|status| status.success());
    if !done {
        println!("`apt-get {}` failed", arguments.join(" "));
    }
    done
}

/// The newest version of a package that is named after it.
pub(super) fn newest(prefix: &str) -> Option<u32> {
    versions(prefix).into_iter().next()
}

/// The versions that there are of a package that is named after them, the newest first.
pub(super) fn versions(prefix: &str) -> Vec<u32> {
    let search =
        Command::new("apt-cache").args(["search", "--names-only"]).arg(format!("^{prefix}[0-9]+$")).output();
    let found = search.map(|search| search.stdout).unwrap_or_default();
    versions_in(&String::from_utf8_lossy(&found), prefix)
}

fn versions_in(found: &str, prefix: &str) -> Vec<u32> {
    let packages = found.lines().filter_map(|line| line.split(' ').next());
    let mut versions: Vec<u32> = packages.filter_map(|package| llvm_version(package, prefix)).collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions
}

/// 19 in `lld-19`.
pub(super) fn llvm_version(name: &str, prefix: &str) -> Option<u32> {
    name.strip_prefix(prefix)?.parse().ok()
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").stderr(Stdio::null()).output();
    id.is_ok_and(|id| id.status.success() && id.stdout.trim_ascii() == b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_is_the_first_by_number() {
        let found = "lld-9 - linker\nlld-19 - linker\nlld-22 - linker\nlld-14-doc - manual\nlld - linker\n";
        assert_eq!(versions_in(found, LLD), [22, 19, 9]);
        assert!(versions_in("", LLD).is_empty());
    }
}
