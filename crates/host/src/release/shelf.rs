//! The shelf keeps the components of releases in the state directory, by digest: a release of before can be run after its
//! files were overwritten.
//!
//! A file on it may be damaged, or not be what its name says. A component that is kept again replaces such a file, and
//! [`Shelf::check`] tells of one that is needed.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::task::JoinHandle;
use tracing::{info, warn};
use wasmhost_config::{ProcessType, read_file};
use wasmhost_engine::{Code, FILE_BYTES_MAX};

use super::Release;
use crate::state_dir::StateDirError;

/// Digits of a digest that a person is shown.
const DIGEST_SHOWN: usize = 12;

/// Bytes of two files that are compared at a time.
const COMPARED_BYTES: usize = 64 << 10;

/// Where components are kept. Its files are never written in place.
pub(crate) struct Shelf {
    directory: PathBuf,
    /// A start keeps its components while a deploy may do the same.
    changing: Mutex<()>,
}

impl Shelf {
    /// The shelf of a state directory; it is made with its first component. A link in its place is refused: files would be
    /// written, and deleted, elsewhere.
    pub(crate) fn of(state_dir: &Path) -> Result<Shelf, StateDirError> {
        let directory = state_dir.join("components");
        match is_link(&directory) {
            true => Err(StateDirError::Link(directory)),
            false => Ok(Shelf { directory, changing: Mutex::new(()) }),
        }
    }

    /// Where the component of this digest is, if it's kept.
    pub(crate) fn find(&self, digest: &str) -> Option<PathBuf> {
        let path = self.path(digest).filter(|_| !is_link(&self.directory))?;
        length(&path).is_some().then_some(path)
    }

    /// Where the component of this digest is, if what is kept is what it was. An error is for a person.
    pub(crate) fn check(&self, digest: &str, trust_compiled: bool) -> Result<PathBuf, String> {
        let shown = |digest: &str| digest.get(..DIGEST_SHOWN).unwrap_or(digest).to_owned();
        let path = self.find(digest).ok_or_else(|| {
            format!("the component {} isn't kept any more in {}", shown(digest), self.directory.display())
        })?;
        let found = match read_file(&path, FILE_BYTES_MAX) {
            Err(err) => format!("can't be read: {err}"),
            Ok(None) => "is longer than any component".to_owned(),
            Ok(Some(bytes)) => match Code::new(bytes, trust_compiled) {
                Err(err) => err.to_string(),
                Ok((code, _)) if code.digest() != digest => {
                    format!("has the digest {}, not the one of its name", shown(&code.digest()))
                }
                Ok(_) => return Ok(path),
            },
        };
        Err(format!(
            "the kept component {} isn't what it was (it {found}): a deploy of the same component puts it back",
            path.display()
        ))
    }

    /// Keeps a component. It is on the disk when this returns. A file of that name with other contents is replaced: true
    /// where there was one.
    pub(crate) fn put(&self, digest: &str, bytes: &[u8]) -> io::Result<bool> {
        let path = self.path(digest).ok_or_else(|| io::Error::other("the digest is none"))?;
        let _changing = self.changing()?;
        let kept = length(&path);
        if kept == Some(bytes.len() as u64) && fs::read(&path).is_ok_and(|kept| kept == bytes) {
            return Ok(false);
        }
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
        made.map_err(|err| named(&self.directory, err))?;
        let new = path.with_extension("new");
        let written = write(&new, bytes).and_then(|()| fs::rename(&new, &path));
        if written.is_err() {
            // A full disk has need of it.
            let _ = fs::remove_file(&new);
        }
        written.map_err(|err| named(&path, err))?;
        File::open(&self.directory)?.sync_all()?;
        Ok(kept.is_some())
    }

    /// Keeps the components of a release that has just started, without anybody waiting for it.
    pub(crate) fn keep_in_background(self: &Arc<Self>, release: &Release) -> JoinHandle<()> {
        // One that is run by its flags has no way back to it.
        let is_kept = !release.formation.source.text.is_empty();
        let kinds = release.types.iter().filter(|_| is_kept);
        let files: Vec<_> = kinds.map(|kind| (kind.digest.clone(), kind.planned.process.clone())).collect();
        let shelf = self.clone();
        tokio::task::spawn_blocking(move || {
            for (digest, process) in files.into_iter().filter(|(digest, process)| !shelf.has(digest, process))
            {
                match shelf.keep_file(&digest, &process) {
                    Ok(false) => {}
                    Ok(true) => info!("{}", put_back(&process.name)),
                    Err(err) => {
                        warn!("the component of \"{}\" can't be kept for a rollback: {err}", process.name)
                    }
                }
            }
        })
    }

    /// Whether the component of this digest is kept as it was. The file that the formation names is most often the same one,
    /// and two files are compared sooner than a digest is made.
    fn has(&self, digest: &str, process: &ProcessType) -> bool {
        let Some(path) = self.find(digest) else { return false };
        have_one_content(&path, &process.component).unwrap_or(false)
            || self.check(digest, process.trust_cwasm).is_ok()
    }

    fn keep_file(&self, digest: &str, process: &ProcessType) -> io::Result<bool> {
        let bytes = read_file(&process.component, FILE_BYTES_MAX)?.unwrap_or_default();
        let (code, _) = Code::new(bytes, process.trust_cwasm).map_err(io::Error::other)?;
        match code.digest() == digest {
            true => self.put(digest, code.contents()),
            false => Err(io::Error::other("the file was changed meanwhile")),
        }
    }

    /// Keeps these, and no other component. Goes on past one that can't be deleted; returns the last such error.
    pub(crate) fn keep_only(&self, digests: &[String]) -> io::Result<()> {
        let _changing = self.changing()?;
        let kept: HashSet<&str> = digests.iter().map(String::as_str).collect();
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(err) if err.kind() == ErrorKind::NotFound => return Ok(()),
            Err(err) => return Err(err),
        };
        let mut deleted = Ok(());
        for entry in entries {
            let path = entry?.path();
            let is_kept =
                path.file_name().and_then(|name| name.to_str()).is_some_and(|name| kept.contains(name));
            if !is_kept && let Err(err) = fs::remove_file(&path) {
                deleted = Err(io::Error::new(err.kind(), format!("{}: {err}", path.display())));
            }
        }
        deleted
    }

    /// One at a time changes it. A link that has come in its place is refused.
    fn changing(&self) -> io::Result<MutexGuard<'_, ()>> {
        if is_link(&self.directory) {
            return Err(io::Error::other(StateDirError::Link(self.directory.clone())));
        }
        // A file that is half done has another name.
        Ok(self.changing.lock().unwrap_or_else(|poison| poison.into_inner()))
    }

    fn path(&self, digest: &str) -> Option<PathBuf> {
        let is_digest = !digest.is_empty() && digest.bytes().all(|byte| byte.is_ascii_alphanumeric());
        is_digest.then(|| self.directory.join(digest))
    }
}

/// Tells of a kept component that was damaged.
pub(crate) fn put_back(process: &str) -> String {
    format!("{process}: the kept component was damaged, and is put back")
}

/// Whether two files have the same bytes.
fn have_one_content(one: &Path, other: &Path) -> io::Result<bool> {
    let (one, other) = (File::open(one)?, File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut here, mut there) = (Vec::with_capacity(COMPARED_BYTES), Vec::with_capacity(COMPARED_BYTES));
    loop {
        here.clear();
        there.clear();
        (&one).take(COMPARED_BYTES as u64).read_to_end(&mut here)?;
        (&other).take(COMPARED_BYTES as u64).read_to_end(&mut there)?;
        if here != there {
            return Ok(false);
        }
        if here.is_empty() {
            return Ok(true);
        }
    }
}

/// The length of a file that is one itself, and no link to one.
fn length(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file).map(|file| file.len())
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_symlink())
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// With the file that an error is about.
fn named(path: &Path, err: io::Error) -> io::Error {
    io::Error::new(err.kind(), format!("{}: {err}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_kept_by_digest_until_nobody_names_them() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::of(folder.path()).unwrap();
        shelf.keep_only(&[]).unwrap();
        shelf.put("aa", b"on").unwrap();
        shelf.put("bb", b"two").unwrap();
        let old = File::open(shelf.find("aa").unwrap()).unwrap();
        assert!(shelf.put("aa", b"one").unwrap(), "another was there");
        assert_eq!(io::read_to_string(old).unwrap(), "on", "never written in place");
        assert!(!shelf.put("aa", b"one").unwrap(), "it was there already");
        assert_eq!(fs::read(shelf.find("aa").unwrap()).unwrap(), b"one");
        shelf.keep_only(&["bb".to_owned(), "cc".to_owned()]).unwrap();
        assert_eq!((shelf.find("aa"), shelf.find("bb").is_some(), shelf.find("cc")), (None, true, None));
    }

    #[test]
    fn files_are_compared_to_their_ends() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        let bytes = vec![7; COMPARED_BYTES + 1];
        let mut changed = bytes.clone();
        fs::write(&one, &bytes).unwrap();
        *changed.last_mut().unwrap() = 8;
        for (there, is_same) in [(&bytes[..], true), (&changed, false), (&bytes[1..], false), (b"", false)] {
            fs::write(&other, there).unwrap();
            assert_eq!(have_one_content(&one, &other).unwrap(), is_same);
        }
        fs::write(&one, b"").unwrap();
        assert!(have_one_content(&one, &other).unwrap());
        assert!(have_one_content(&one, &folder.path().join("none")).is_err());
    }

    #[test]
    fn a_name_that_is_no_digest_leads_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::of(folder.path()).unwrap();
        for name in ["", "..", "../lock", "a/b"] {
            assert_eq!(shelf.find(name), None);
            assert!(shelf.put(name, b"x").is_err());
        }
    }

    #[test]
    fn a_folder_among_them_keeps_nobody_from_deleting_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::of(folder.path()).unwrap();
        shelf.put("zz", b"old").unwrap();
        fs::create_dir(folder.path().join("components/aa")).unwrap();
        let err = shelf.keep_only(&[]).unwrap_err().to_string();
        assert!(err.contains("components/aa"), "{err}");
        assert_eq!((shelf.find("zz"), shelf.find("aa")), (None, None));
    }

    #[test]
    fn links_are_no_part_of_it() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::of(folder.path()).unwrap();
        shelf.put("aa", b"one").unwrap();
        fs::rename(folder.path().join("components"), folder.path().join("elsewhere")).unwrap();
        symlink("elsewhere", folder.path().join("components")).unwrap();
        assert!(Shelf::of(folder.path()).is_err());
        assert_eq!(shelf.find("aa"), None);
        for refused in [shelf.put("bb", b"two").map(drop), shelf.keep_only(&[])] {
            assert!(refused.unwrap_err().to_string().contains("components is a symbolic link"));
        }
        assert_eq!(fs::read_dir(folder.path().join("elsewhere")).unwrap().count(), 1);

        fs::remove_file(folder.path().join("components")).unwrap();
        fs::create_dir(folder.path().join("components")).unwrap();
        symlink("../elsewhere/aa", folder.path().join("components/aa")).unwrap();
        assert_eq!(shelf.find("aa"), None);
        shelf.put("aa", b"two").unwrap();
        assert_eq!(fs::read(folder.path().join("elsewhere/aa")).unwrap(), b"one");
        assert_eq!(fs::read(shelf.find("aa").unwrap()).unwrap(), b"two");
    }
}
