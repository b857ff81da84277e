//! Copies of guests' sources in the target folder, for tools that write beside what they read, and stamps that say which
//! tools are there.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::sources::MADE;

/// Copies the contents of `from` over what an earlier call left in `to`. A link is copied as what it leads to.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let name = entry?.file_name();
        let (source, copy) = (from.join(&name), to.join(&name));
        if fs::metadata(&source).with_context(|| source.display().to_string())?.is_dir() {
            if !MADE.map(OsStr::new).contains(&name.as_os_str()) {
                // A file that was deleted or renamed must not stay.
                if copy.exists() {
                    fs::remove_dir_all(&copy)?;
                }
                self::copy(&source, &copy)?;
            }
        } else if source.extension() != Some(OsStr::new("wasm")) {
            fs::copy(&source, &copy).with_context(|| copy.display().to_string())?;
        }
    }
    Ok(())
}

/// Whether `stamp` says that a tool was set up from just this text; if not, it is to be set up, and [`done`] called.
pub(super) fn is_done(stamp: &Path, text: &str) -> bool {
    fs::read_to_string(stamp).is_ok_and(|done| done == text)
}

pub(super) fn done(stamp: &Path, text: &str) -> Result<()> {
    fs::write(stamp, text).with_context(|| stamp.display().to_string())
}
