//! Whether a file was found to be damaged, by whatever connection. Nothing is written to it from then on, which could
//! make it worse.
//!
//! SQLite says that a file is damaged also where reading it failed once. So what it says is asked again, and the files
//! are read from end to end: a disk that can't be read is no damaged file.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use super::ids::beside;
use crate::StoreError;

/// How long it is believed that the files can't be read: they may be large.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Default)]
pub(super) struct Damage {
    /// `None` where there is no file.
    database: Option<PathBuf>,
    found: OnceLock<StoreError>,
    /// Closing any descriptor of the database gives up SQLite's locks: these stay open until the store is closed.
    kept_open: Mutex<Reading>,
}

#[derive(Default)]
struct Reading {
    files: Vec<(PathBuf, File)>,
    /// Why reading failed last, and when.
    failed: Option<(Instant, String)>,
}

impl Damage {
    pub(super) fn of(database: &Path) -> Damage {
        Damage { database: Some(database.to_owned()), ..Damage::default() }
    }

    /// The damage that was found.
    pub(super) fn found(&self) -> Option<&StoreError> {
        self.found.get()
    }

    /// Judges an error that came again when the same was tried again.
    pub(super) fn judge(&self, error: StoreError) -> StoreError {
        let StoreError::Damaged(text) = &error else { return error };
        if let Some(database) = &self.database
            && let Some(cause) = self.unreadable(database)
        {
            return StoreError::Unavailable(format!("{} can't be read now: {cause}", database.display()));
        }
        if self.found.set(error.clone()).is_ok() {
            tracing::error!("{text}");
        }
        error
    }

    /// Why the files can't be read, if they can't.
    fn unreadable(&self, database: &Path) -> Option<String> {
        let mut reading = self.kept_open.lock().unwrap_or_else(|poison| poison.into_inner());
        if let Some((at, why)) = &reading.failed
            && at.elapsed() < ASKED_AGAIN_AFTER
        {
            return Some(why.clone());
        }
        let read =
            ["", "-wal"].into_iter().try_for_each(|suffix| reading.read_through(&beside(database, suffix)));
        reading.failed = read.err().map(|error| (Instant::now(), error.to_string()));
        reading.failed.as_ref().map(|(_, why)| why.clone())
    }
}

impl Reading {
    fn read_through(&mut self, path: &Path) -> std::io::Result<()> {
        if !self.files.iter().any(|(known, _)| known == path) {
            match File::open(path) {
                Ok(file) => self.files.push((path.to_owned(), file)),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        let Some((_, file)) = self.files.iter_mut().find(|(known, _)| known == path) else { return Ok(()) };
        file.seek(SeekFrom::Start(0))?;
        let mut piece = vec![0; 1 << 20];
        while file.read(&mut piece)? > 0 {}
        Ok(())
    }
}
