//! Programs that tests drive, such as a browser. Debian's packages of them are installed where that can be done without asking: they
//! need libraries that can't be unpacked beside them.

use anyhow::{Result, bail};

use crate::guests::apt;

/// Has these programs of these packages on the path, where that can be done. The error says what it lacks.
pub(crate) fn install(programs: &[&str], packages: &[&str]) -> Result<()> {
    install_until(|| are_here(programs), packages)
}

/// The same where something else says whether they are here.
pub(crate) fn install_until(are_here: impl Fn() -> bool, packages: &[&str]) -> Result<()> {
    if are_here() {
        return Ok(());
    }
    if apt::can_install() {
        apt::update();
        if apt::install(packages) && are_here() {
            return Ok(());
        }
    }
    bail!("it isn't installed, and could not be (Debian: `apt-get install {}`)", packages.join(" "))
}

fn are_here(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    programs.iter().all(|program| std::env::split_paths(&path).any(|folder| folder.join(program).exists()))
}
