//! Compiled code from files, made ready to run: the one module with `unsafe`, since the library believes such
//! code without checking it, and it runs outside of the sandbox.
//!
//! So each function here asks for two things that make it sound. The bytes are those that were written
//! ([`cwasm::read`]). And their writer is trusted: a cache entry is our own user's, and for a `.cwasm` the formation's
//! author vouches.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, OFlags, Timespec, Timestamps, UTIME_NOW};
use wasmtime::component::Component;
use wasmtime::{Engine, Module, Precompiled};

use super::artifact::Compiled;
use super::cwasm::{self, CwasmError};

/// Why a cache entry isn't used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("there is none")]
    Missing,
    #[error("{0}")]
    Because(String),
}

/// Maps an entry of the cache: its pages are shared with other processes, and read only when they are needed.
pub(crate) fn map_entry(engine: &Engine, path: &Path, key: &str) -> Result<Compiled, Unusable> {
    let because = |text: String| Unusable::Because(text);
    let file = open_own(path)?;
    let about = cwasm::read(&file).map_err(|err| {
        because(match err {
            CwasmError::NotOurs | CwasmError::Untrusted => "was cut short".to_owned(),
            CwasmError::Damaged(why) => format!("is damaged ({why})"),
            CwasmError::OtherVersion { made_by, .. } => format!("was made by {made_by}"),
        })
    })?;
    if about.key != key {
        return Err(because("is another component's".into()));
    }
    // By its descriptor, so that what is mapped is what was checked, whatever has been renamed since.
    let by_descriptor = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let path = if by_descriptor.exists() { &by_descriptor } else { path };
    // SAFETY: the library asks that its own unmodified output is in the file, and that the file isn't changed while it
    // is mapped. The first is what the checksum and the key say, of a file that nobody but our own user can have
    // written. As to the second, wasmhost never writes to an entry: it makes a new file and renames it.
    let compiled = unsafe {
        match Engine::detect_precompiled_file(path) {
            Ok(Some(Precompiled::Module)) => Module::deserialize_file(engine, path).map(Compiled::Module),
            _ => Component::deserialize_file(engine, path).map(Compiled::Component),
        }
    };
    let compiled = compiled.map_err(|err| because(format!("is refused: {err:#}")))?;
    // When it was last used, which decides what goes first. Where the file system is read-only nothing goes.
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let _ = rustix::fs::futimens(&file, &Timestamps { last_access: now, last_modification: now });
    Ok(compiled)
}

/// Copies compiled code that the user trusts, or that we made, which [`cwasm::read`] has found whole. A copy, since a file of
/// the user's lies where people put files, and may be overwritten in place while it is in use.
pub(crate) fn copy_trusted(engine: &Engine, file: &[u8]) -> wasmtime::Result<Compiled> {
    // SAFETY: the library asks for its own unmodified output. The checksum shows that the bytes are those which
    // `wasmhost compile` wrote; that it was `wasmhost compile` is what the user vouches for with `trust_cwasm`, or what
    // this process has just had done.
    unsafe {
        match Engine::detect_precompiled(file) {
            Some(Precompiled::Module) => Module::deserialize(engine, file).map(Compiled::Module),
            _ => Component::deserialize(engine, file).map(Compiled::Component),
        }
    }
}

/// Copies compiled code that has just been made for this engine, under that key.
pub(crate) fn copy_own(engine: &Engine, file: &[u8], key: &str) -> Result<Compiled, String> {
    let about = cwasm::read(file).map_err(|err| err.to_string())?;
    if about.key != key {
        return Err("is another component's".into());
    }
    copy_trusted(engine, file).map_err(|err| format!("is refused: {err:#}"))
}

/// Opens a file that is ours, and that nobody else could have written.
fn open_own(path: &Path) -> Result<File, Unusable> {
    let because = |text: &str| Unusable::Because(text.to_owned());
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match rustix::fs::open(path, flags, rustix::fs::Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Err(Unusable::Missing),
        Err(rustix::io::Errno::LOOP) => return Err(because("is a symbolic link")),
        Err(err) => return Err(because(&format!("can't be opened: {err}"))),
    };
    let stat = rustix::fs::fstat(&file).map_err(|err| because(&format!("can't be looked at: {err}")))?;
    if !FileType::from_raw_mode(stat.st_mode).is_file() {
        return Err(because("is no file"));
    }
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(because("belongs to another user"));
    }
    if stat.st_mode & 0o022 != 0 {
        return Err(because("may be written by other users"));
    }
    Ok(file)
}
