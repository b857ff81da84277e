//! Chromium and its driver, for the tests that drive the dashboard as a person would. Debian's packages are installed where that
//! can be done without asking: they need libraries that can't be unpacked beside them.

use anyhow::{Result, bail};

use crate::guests::apt;

const PROGRAMS: [&str; 2] = ["chromium", "chromedriver"];
const PACKAGES: [&str; 2] = ["chromium", "chromium-driver"];

/// Has them on the path, where that can be done. The error says what it lacks.
pub(crate) fn install() -> Result<()> {
    if is_here() {
        return Ok(());
    }
    if apt::can_install() {
        apt::update();
        if apt::install(&PACKAGES) && is_here() {
            return Ok(());
        }
    }
    bail!("it isn't installed, and could not be (Debian: `apt-get install {}`)", PACKAGES.join(" "))
}

fn is_here() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    PROGRAMS.iter().all(|program| std::env::split_paths(&path).any(|folder| folder.join(program).exists()))
}
