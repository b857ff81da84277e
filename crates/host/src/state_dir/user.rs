//! The formation that a state directory belongs to, as its lock file says: the file's path as it was given and as it was
//! resolved, and the directory's inode, each with a zero byte behind it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use wasmhost_config::is_procfile;

/// The longest lock file that is read: two paths of at most 4 KiB each, and a number.
const LOCK_BYTES_MAX: u64 = 16 << 10;

/// See the module.
#[derive(PartialEq, Eq)]
pub(super) struct User {
    pub(super) file: PathBuf,
    resolved: PathBuf,
    /// A directory that was copied has another one than the lock file in it says.
    inode: Option<u64>,
}

impl User {
    pub(super) fn of(file: &Path, state_dir: &Path) -> User {
        let resolved = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
        let inode = fs::metadata(state_dir).ok().map(|found| found.ino());
        User { file: file.to_owned(), resolved, inode }
    }

    /// A formation that was moved behind a link is the same one, and so is one that is found by another way.
    pub(super) fn is(&self, other: &User) -> bool {
        self.file == other.file || self.resolved == other.resolved
    }

    /// Whether the directory is this one's, who used it last, and not the other's. A file that is gone was renamed or moved:
    /// the other is what became of it. A Procfile and the formation.toml that was imported from it are one formation. A copied
    /// directory belongs to the formation that was copied with it.
    pub(super) fn keeps_it_from(&self, other: &User) -> bool {
        let is_beside = self.file.parent() == other.file.parent();
        let is_import = is_beside && (is_procfile(&self.file) || is_procfile(&other.file));
        let is_copy = self.inode.is_some() && self.inode != other.inode;
        !self.is(other) && !is_import && !is_copy && self.file.exists()
    }

    pub(super) fn read(lock: &mut File) -> Option<User> {
        User::parse(&text(lock)?)
    }

    fn parse(text: &[u8]) -> Option<User> {
        let mut parts = text.split(|byte| *byte == 0).map(|part| OsString::from_vec(part.to_vec()));
        let (file, resolved) = (PathBuf::from(parts.next()?), PathBuf::from(parts.next()?));
        let inode = parts.next().and_then(|inode| inode.to_str()?.parse().ok());
        file.is_absolute().then_some(User { file, resolved, inode })
    }

    /// Writes it, unless it's there already: a full disk has no room for a new one.
    pub(super) fn write(&self, lock: &mut File) -> io::Result<()> {
        let inode = self.inode.map(|inode| inode.to_string()).unwrap_or_default();
        let mut new = Vec::new();
        for part in [self.file.as_os_str().as_bytes(), self.resolved.as_os_str().as_bytes(), inode.as_bytes()]
        {
            new.extend_from_slice(part);
            new.push(0);
        }
        if text(lock).is_some_and(|text| text == new) {
            return Ok(());
        }
        lock.rewind()?;
        lock.set_len(0)?;
        lock.write_all(&new)
    }
}

fn text(lock: &mut File) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    lock.rewind().ok()?;
    lock.take(LOCK_BYTES_MAX).read_to_end(&mut text).ok()?;
    Some(text)
}
