//! Whether the files of a store are still where they were. A file that is deleted while it is open can be written as
//! before, and is gone when it is closed.

use std::cell::Cell;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::ids::beside;
use crate::StoreError;

/// How long files that were seen are taken to be there. A look takes a tenth of the time of a commit of one job.
pub(super) const SEEN_FOR: Duration = Duration::from_millis(1);

/// The files that SQLite has open, as they were when the store was opened.
pub(super) struct Presence {
    database: PathBuf,
    files: Vec<(PathBuf, Identity)>,
    seen: Cell<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(metadata: &Metadata) -> Identity {
        Identity { device: metadata.dev(), inode: metadata.ino() }
    }
}

impl Presence {
    /// To be called once all connections are open.
    pub(super) fn note(database: &Path) -> Presence {
        let files = ["", "-wal", "-shm"].map(|suffix| beside(database, suffix));
        let known = files.into_iter().filter_map(|file| {
            let identity = Identity::of(&std::fs::metadata(&file).ok()?);
            Some((file, identity))
        });
        Presence { database: database.to_owned(), files: known.collect(), seen: Cell::new(Instant::now()) }
    }

    /// The same as [`Presence::look`], unless all were there a moment ago.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let now = Instant::now();
        if now.duration_since(self.seen.get()) < SEEN_FOR {
            return Ok(());
        }
        self.look()?;
        self.seen.set(now);
        Ok(())
    }

    /// Says which file is not there any more, or is another one. It costs three system calls.
    pub(super) fn look(&self) -> Result<(), StoreError> {
        for (file, identity) in &self.files {
            let what = match std::fs::metadata(file) {
                // A log may have been cut back to nothing.
                Ok(found) if *file == self.database && found.len() == 0 => "emptied",
                Ok(found) if Identity::of(&found) == *identity => continue,
                Ok(_) => "replaced by another file",
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    "deleted or moved"
                }
                // Nobody knows; SQLite will say what it thinks.
                Err(_) => continue,
            };
            return Err(StoreError::Gone(format!(
                "{} was {what} while this host uses it, so that nothing more is stored: put it back, or copy what the \
                 host still has open (`wasmhost jobs backup FILE`), stop the host, and put the copy in its place",
                file.display()
            )));
        }
        Ok(())
    }
}

/// Refuses a log whose database isn't there: it would be thrown away, or taken for that of another one.
pub(super) fn check_not_orphaned(database: &Path) -> Result<(), StoreError> {
    let length = |path: &Path| std::fs::metadata(path).map(|file| file.len());
    let log = beside(database, "-wal");
    let is_missing = match length(database) {
        Ok(bytes) => bytes == 0,
        Err(error) => error.kind() == ErrorKind::NotFound,
    };
    if is_missing && length(&log).is_ok_and(|bytes| bytes > 0) {
        return Err(StoreError::Open(format!(
            "{} is missing, and its log {} is there, with jobs in it: put the file back, or move the log away with \
             whatever is in it",
            database.display(),
            log.display()
        )));
    }
    Ok(())
}

/// Refuses a database with several names: its log has the name by which it was opened, so that by another name it would
/// have another log.
pub(super) fn check_single_name(database: &Path) -> Result<(), StoreError> {
    // A directory has two names, and is no store for another reason.
    let names = std::fs::metadata(database).map_or(1, |file| if file.is_file() { file.nlink() } else { 1 });
    if names > 1 {
        return Err(StoreError::Open(format!(
            "{} has {names} names (hard links), and a store has one: remove the others, or copy the file",
            database.display()
        )));
    }
    Ok(())
}
