//! Counts all that is in a directory. A count remembers the files that have several names, which are half of all entries at
//! most: some 20 MiB. Beside them its memory and its descriptors depend on how deep the directory is.
//!
//! Files that have been deleted and that this process has open still take room on the disk: they are counted too, where
//! the system tells of them.

use std::collections::HashSet;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::identity::Identity;

/// Bytes that each file, directory and link counts beside its length: about what it takes on a disk.
pub(crate) const ENTRY_BYTES: u64 = 4 << 10;

/// Files, directories and links that can be counted in one directory, which takes a second or two.
pub(crate) const ENTRIES_MAX: u64 = 1_000_000;

/// Levels of directories. Each takes two descriptors while it is looked at.
const LEVELS_MAX: usize = 100;

/// How much something is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    /// Bytes of files, and [`ENTRY_BYTES`] for each entry.
    pub(crate) bytes: u64,
    /// Files, directories and links.
    pub(crate) entries: u64,
}

impl Amount {
    /// An entry without contents.
    pub(crate) const ENTRY: Amount = Amount { bytes: ENTRY_BYTES, entries: 1 };

    /// Contents of a file that is there.
    pub(crate) fn contents(bytes: u64) -> Amount {
        Amount { bytes, entries: 0 }
    }

    pub(crate) fn plus(self, other: Amount) -> Amount {
        Amount {
            bytes: self.bytes.saturating_add(other.bytes),
            entries: self.entries.saturating_add(other.entries),
        }
    }

    pub(crate) fn less(self, other: Amount) -> Amount {
        Amount {
            bytes: self.bytes.saturating_sub(other.bytes),
            entries: self.entries.saturating_sub(other.entries),
        }
    }
}

/// Counts everything below a directory. Links aren't followed, and a file with several names is counted once. A directory
/// that can't be read is as good as empty: guests can't write there either.
///
/// # Errors
///
/// There is more than can be counted, or the system fails.
pub(super) fn census(directory: &OwnedFd) -> io::Result<Amount> {
    let mut census = Census::default();
    let mut levels = vec![Level::open(directory, c".")?];
    while let Some(level) = levels.last_mut() {
        let Some(entry) = level.entries.next() else {
            levels.pop();
            continue;
        };
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let Some(is_directory) = census.add(&level.directory, name, entry.file_type())? else { continue };
        if is_directory {
            match Level::open(&level.directory, name) {
                Ok(_) if levels.len() == LEVELS_MAX => {
                    return Err(io::Error::other(format!(
                        "directories are nested deeper than {LEVELS_MAX} levels"
                    )));
                }
                Ok(below) => levels.push(below),
                Err(Errno::ACCESS | Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(err) => return Err(err.into()),
            }
        }
    }
    census.add_deleted(directory);
    Ok(census.found)
}

/// A directory that is being looked at.
struct Level {
    directory: OwnedFd,
    entries: Dir,
}

impl Level {
    fn open(within: impl AsFd, name: &CStr) -> rustix::io::Result<Level> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(within, name, flags, Mode::empty())?;
        let entries = Dir::read_from(&directory)?;
        Ok(Level { directory, entries })
    }
}

#[derive(Default)]
struct Census {
    found: Amount,
    /// Files with several names, and those that were deleted: [`ENTRIES_MAX`] / 2 of the former at most.
    seen: HashSet<Identity>,
}

impl Census {
    /// Adds an entry. True if it is a directory, `None` if it is gone already.
    fn add(&mut self, within: &OwnedFd, name: &CStr, kind: FileType) -> io::Result<Option<bool>> {
        if self.found.entries == ENTRIES_MAX {
            return Err(io::Error::other(format!(
                "there are more than {ENTRIES_MAX} files, directories and links"
            )));
        }
        if kind == FileType::Directory {
            self.found = self.found.plus(Amount::ENTRY);
            return Ok(Some(true));
        }
        let stat = match rustix::fs::statat(within, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(err) => return Err(err.into()),
        };
        self.found = self.found.plus(Amount::ENTRY);
        let kind = FileType::from_raw_mode(stat.st_mode);
        let is_new = stat.st_nlink <= 1 || self.seen.insert(Identity::from_stat(&stat));
        if kind == FileType::RegularFile && is_new {
            self.found = self.found.plus(Amount::contents(length(&stat)));
        }
        Ok(Some(kind == FileType::Directory))
    }

    /// Adds files of the directory that have no name any more and are open in this process.
    fn add_deleted(&mut self, directory: &OwnedFd) {
        let Ok(root) = fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd())) else { return };
        for opened in fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
            let opened = opened.path();
            let Ok(stat) = rustix::fs::stat(&opened) else { continue };
            let is_deleted =
                stat.st_nlink == 0 && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            if is_deleted
                && fs::read_link(&opened).is_ok_and(|path| path.starts_with(&root))
                && self.seen.insert(Identity::from_stat(&stat))
            {
                self.found = self.found.plus(Amount::ENTRY).plus(Amount::contents(length(&stat)));
            }
        }
    }
}

fn length(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn count(path: &std::path::Path) -> io::Result<Amount> {
        census(&fs::File::open(path).unwrap().into())
    }

    #[test]
    fn files_count_their_length_and_every_entry_a_little() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        assert_eq!(count(folder.path()).unwrap(), Amount::default());
        fs::create_dir_all(path("a/b")).unwrap();
        fs::write(path("a/b/file"), "12345").unwrap();
        symlink("/etc", path("link")).unwrap();
        let found = Amount { bytes: 5 + 4 * ENTRY_BYTES, entries: 4 };
        assert_eq!(count(folder.path()).unwrap(), found);
        // A second name, and a length without contents.
        fs::hard_link(path("a/b/file"), path("again")).unwrap();
        fs::File::create(path("sparse")).unwrap().set_len(1 << 30).unwrap();
        let found = found.plus(Amount { bytes: (1 << 30) + 2 * ENTRY_BYTES, entries: 2 });
        assert_eq!(count(folder.path()).unwrap(), found);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_deleted_file_counts_while_it_is_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below");
        fs::create_dir(&path).unwrap();
        let elsewhere = tempfile::tempfile_in(folder.path()).unwrap();
        elsewhere.set_len(1_000).unwrap();
        let file = fs::File::create(path.join("file")).unwrap();
        file.set_len(100).unwrap();
        let again = file.try_clone().unwrap();
        fs::remove_file(path.join("file")).unwrap();
        assert_eq!(count(&path).unwrap(), Amount { bytes: 100 + ENTRY_BYTES, entries: 1 });
        drop((file, again));
        assert_eq!(count(&path).unwrap(), Amount::default());
    }

    #[test]
    fn levels_without_end_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let mut path = folder.path().to_owned();
        for _ in 0..LEVELS_MAX - 1 {
            path.push("d");
        }
        fs::create_dir_all(&path).unwrap();
        assert_eq!(count(folder.path()).unwrap().entries as usize, LEVELS_MAX - 1);
        fs::create_dir(path.join("d")).unwrap();
        assert!(count(folder.path()).unwrap_err().to_string().contains("deeper than 100 levels"));
    }
}
