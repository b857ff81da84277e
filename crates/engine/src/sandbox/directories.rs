//! Granted directories. Each is opened once, before any guest runs, and all instances of its type are given that
//! descriptor: no path is followed again later, whatever guests have put in its place by then.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use wasmhost_config::DirGrant;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemCtx, WasiFilesystemCtxView};
use wasmtime_wasi::p2::bindings::filesystem::preopens::Host as _;
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

use super::census::{Amount, ENTRIES_MAX};
use super::identity::{Identity, shows_processes};
use super::usage::Bound;

/// Why /proc can't be granted.
const PROCESSES: &str = "the system shows its processes there, with the variables and the memory of the host itself: \
                         grant a directory of files";

/// The directories that a type was granted, open.
#[derive(Clone, Default)]
pub struct Directories {
    opened: Vec<Directory>,
    /// The bound of each of them that has one, in the same order.
    bounds: Vec<Option<Bound>>,
    /// Each instance gets a copy; all copies share the descriptors.
    granted: WasiFilesystemCtx,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// Which directory it is.
    pub identity: Identity,
    /// As the formation says.
    pub grant: DirGrant,
}

/// How full a directory is whose grant has `max_bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fullness<'a> {
    /// Its path in the sandbox.
    pub guest: &'a str,
    /// None where it can't be counted.
    pub used: Option<Used>,
    /// The bytes that may be in it.
    pub bytes_max: u64,
    /// The files, directories and links that may be in it.
    pub entries_max: u64,
}

/// How much was found in a directory at its last count, and was added since. Things removed since are among it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// Bytes of files, and 4 KiB for each entry.
    pub bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
}

/// Why a granted directory can't be given.
#[derive(Debug, thiserror::Error)]
#[error("can't open the granted directory {}: {reason}", path.display())]
pub struct DirectoryError {
    /// As the formation says.
    pub path: PathBuf,
    /// The system's error.
    pub reason: io::Error,
}

impl Directories {
    /// Opens what was granted.
    ///
    /// # Errors
    ///
    /// A directory isn't there, is something else, or can't be read.
    pub fn open(grants: &[DirGrant]) -> Result<Directories, DirectoryError> {
        let mut wasi = WasiCtxBuilder::new();
        let (mut opened, mut bounds) = (Vec::new(), Vec::new());
        for grant in grants {
            let problem = |reason| DirectoryError { path: grant.host.clone(), reason };
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let found = rustix::fs::open(&grant.host, flags, Mode::empty());
            let found = found.map_err(|err| problem(err.into()))?;
            let identity = Identity::of_opened(&found).map_err(|err| problem(err.into()))?;
            if shows_processes(&found).map_err(|err| problem(err.into()))? {
                return Err(problem(io::Error::other(PROCESSES)));
            }
            // The library opens by path alone. This one leads to the directory that was found, whatever has become of
            // its own path.
            let again = format!("/proc/self/fd/{}", found.as_raw_fd());
            let perms = if grant.writable { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
            wasi.preopened_dir(again, &grant.guest, perms)
                .map_err(|err| problem(err.downcast().unwrap_or_else(io::Error::other)))?;
            opened.push(Directory { identity, grant: grant.clone() });
            bounds.push(grant.bytes_max.map(|max| Bound::new(identity, found, &grant.host, max)));
        }
        Ok(Directories { opened, bounds, granted: wasi.build().filesystem().clone() })
    }

    /// In the order of the grants.
    pub fn iter(&self) -> impl Iterator<Item = &Directory> {
        self.opened.iter()
    }

    /// How many descriptors they take, for all instances together: two where there is a bound.
    pub fn len(&self) -> usize {
        self.opened.len() + self.bounds.iter().flatten().count()
    }

    /// Whether nothing was granted.
    pub fn is_empty(&self) -> bool {
        self.opened.is_empty()
    }

    /// Counts what is in those that have a bound. Where that isn't done, the first guest that writes there waits for it.
    pub async fn count(&self) {
        for bound in self.bounds.iter().flatten() {
            bound.count().await;
        }
    }

    /// How full those are that have a bound.
    pub fn fullness(&self) -> impl Iterator<Item = Fullness<'_>> {
        self.opened.iter().zip(&self.bounds).filter_map(|(directory, bound)| {
            let grant = &directory.grant;
            let used = bound.as_ref()?.used().map(|Amount { bytes, entries }| Used { bytes, entries });
            Some(Fullness {
                guest: &grant.guest,
                used,
                bytes_max: grant.bytes_max?,
                entries_max: ENTRIES_MAX,
            })
        })
    }

    /// The bound of a directory, by its place among the grants.
    pub(crate) fn bound(&self, grant: usize) -> Option<&Bound> {
        self.bounds.get(grant)?.as_ref()
    }

    pub(crate) fn granted(&self) -> WasiFilesystemCtx {
        self.granted.clone()
    }

    /// The granted directories as the library has them, in the order of the grants.
    pub(crate) fn descriptors(&self) -> Vec<Descriptor> {
        let (mut ctx, mut table) = (self.granted(), ResourceTable::new());
        let mut files = WasiFilesystemCtxView { ctx: &mut ctx, table: &mut table };
        // The table is empty, so that there is room in it for all of them.
        let granted = files.get_directories().unwrap_or_default();
        granted.into_iter().filter_map(|(directory, _)| table.delete(directory).ok()).collect()
    }
}

impl fmt::Debug for Directories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.opened).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_the_same_by_whatever_path_it_was_found() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::os::unix::fs::symlink("data", folder.path().join("link")).unwrap();
        let grant = |path: &str| DirGrant {
            host: folder.path().join(path),
            guest: format!("/{path}"),
            writable: false,
            bytes_max: None,
        };
        let opened = Directories::open(&[grant("data"), grant("link"), grant("data/..")]).unwrap();
        let found: Vec<_> = opened.iter().map(|directory| directory.identity).collect();
        assert_eq!(found[0], found[1]);
        assert_ne!(found[0], found[2]);
        assert_eq!(found[0], Identity::of(&data).unwrap());
    }

    #[test]
    fn what_is_no_directory_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        for name in ["file", "missing"] {
            let grant = DirGrant {
                host: folder.path().join(name),
                guest: "/x".into(),
                writable: false,
                bytes_max: None,
            };
            let refused = Directories::open(&[grant]).unwrap_err();
            assert!(refused.to_string().contains(name), "{refused}");
        }
    }
}
