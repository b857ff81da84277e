//! The shelf keeps the components of releases in the state directory, by digest: a release of before can be run after its
//! files were overwritten.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use tracing::warn;
use wasmhost_config::{ProcessType, read_file};
use wasmhost_engine::{Code, FILE_BYTES_MAX};

use super::Release;

/// Where components are kept. Its files are never written in place.
pub(crate) struct Shelf {
    directory: PathBuf,
    /// A start keeps its components while a deploy may do the same.
    changing: Mutex<()>,
}

impl Shelf {
    /// The shelf of a state directory; it is made with its first component.
    pub(crate) fn of(state_dir: &Path) -> Shelf {
        Shelf { directory: state_dir.join("components"), changing: Mutex::new(()) }
    }

    /// Where the component of this digest is, if it's kept.
    pub(crate) fn find(&self, digest: &str) -> Option<PathBuf> {
        let path = self.path(digest)?;
        path.is_file().then_some(path)
    }

    /// Keeps a component. It is on the disk when this returns.
    pub(crate) fn put(&self, digest: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(digest).ok_or_else(|| io::Error::other("the digest is none"))?;
        let _changing = self.changing();
        if path.is_file() {
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let new = path.with_extension("new");
        let written = write(&new, bytes).and_then(|()| fs::rename(&new, &path));
        if written.is_err() {
            // A full disk has need of it.
            let _ = fs::remove_file(&new);
        }
        written?;
        File::open(&self.directory)?.sync_all()
    }

    /// Keeps the components of a release that has just started, without anybody waiting for it.
    pub(crate) fn keep_in_background(self: &Arc<Self>, release: &Release) {
        if release.formation.source.text.is_empty() {
            // Run by its flags: there is no way back to it.
            return;
        }
        let missing = release.types.iter().filter(|kind| self.find(&kind.digest).is_none());
        let files: Vec<_> = missing.map(|kind| (kind.digest.clone(), kind.planned.process.clone())).collect();
        let shelf = self.clone();
        drop(tokio::task::spawn_blocking(move || {
            for (digest, process) in files {
                if let Err(err) = shelf.keep_file(&digest, &process) {
                    warn!("the component of \"{}\" can't be kept for a rollback: {err}", process.name);
                }
            }
        }));
    }

    fn keep_file(&self, digest: &str, process: &ProcessType) -> io::Result<()> {
        let bytes = read_file(&process.component, FILE_BYTES_MAX)?.unwrap_or_default();
        let (code, _) = Code::new(bytes, process.trust_cwasm).map_err(io::Error::other)?;
        match code.digest() == digest {
            true => self.put(digest, code.contents()),
            false => Err(io::Error::other("the file was changed meanwhile")),
        }
    }

    /// Keeps these, and nothing else.
    pub(crate) fn keep_only(&self, digests: &[String]) -> io::Result<()> {
        let _changing = self.changing();
        let kept: HashSet<&str> = digests.iter().map(String::as_str).collect();
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(err) => return Err(err),
        };
        for entry in entries {
            let path = entry?.path();
            let is_kept =
                path.file_name().and_then(|name| name.to_str()).is_some_and(|name| kept.contains(name));
            if !is_kept {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        // A file that is half done has another name.
        self.changing.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    fn path(&self, digest: &str) -> Option<PathBuf> {
        let is_digest = !digest.is_empty() && digest.bytes().all(|byte| byte.is_ascii_alphanumeric());
        is_digest.then(|| self.directory.join(digest))
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_kept_by_digest_until_nobody_names_them() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::of(folder.path());
        shelf.keep_only(&[]).unwrap();
        shelf.put("aa", b"one").unwrap();
        shelf.put("bb", b"two").unwrap();
        shelf.put("aa", b"never written in place").unwrap();
        assert_eq!(fs::read(shelf.find("aa").unwrap()).unwrap(), b"one");
        shelf.keep_only(&["bb".to_owned(), "cc".to_owned()]).unwrap();
        assert_eq!((shelf.find("aa"), shelf.find("bb").is_some(), shelf.find("cc")), (None, true, None));
    }

    #[test]
    fn a_name_that_is_no_digest_leads_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::of(folder.path());
        for name in ["", "..", "../lock", "a/b"] {
            assert_eq!(shelf.find(name), None);
            assert!(shelf.put(name, b"x").is_err());
        }
    }
}
