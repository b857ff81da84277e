//! A consistent copy of the store while it is in use.
//!
//! `VACUUM INTO` on a connection of its own reads one snapshot, beside the writer, whom it doesn't hold up: all that
//! happens is that the log isn't cut back until it is done. (SQLite's backup API begins again at each write of another
//! connection, unless it copies everything in one step, and then it is the same but for what is free in the file.)
//! What it writes is one file, without a log, and without the free pages.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::{errors, schema};
use crate::StoreError;

/// Writes the copy to `to`, which must not be there yet. Whatever goes wrong, it isn't there afterwards.
pub(super) fn backup(from: &Path, to: &Path) -> Result<(), StoreError> {
    let connection = schema::open_reader(from)?;
    let refused = |error: io::Error| cannot_write(to, &error);
    if to.try_exists().map_err(refused)? {
        return Err(refused(ErrorKind::AlreadyExists.into()));
    }
    let unfinished = Unfinished::create(to).map_err(refused)?;
    copy(&connection, &unfinished.0)?;
    unfinished.finish(to).map_err(refused)
}

fn copy(connection: &Connection, to: &Path) -> Result<(), StoreError> {
    let Some(name) = to.to_str() else {
        return Err(StoreError::Invalid(format!(
            "{} is no text, which SQLite needs: choose another",
            to.display()
        )));
    };
    let copied = connection.execute("VACUUM INTO ?1", [name]);
    copied.map(drop).map_err(|error| match errors::from_sqlite(connection, &error) {
        // Otherwise the text would be about the store's own disk.
        StoreError::Unavailable(_) => {
            StoreError::Unavailable(format!("the backup {} can't be written: {error}", to.display()))
        }
        other => other,
    })
}

/// The copy under a name of its own until it is whole and on the disk.
struct Unfinished(PathBuf);

impl Unfinished {
    fn create(to: &Path) -> io::Result<Unfinished> {
        let mut name = to.file_name().ok_or(ErrorKind::InvalidFilename)?.to_owned();
        name.push(".partial");
        let path = to.with_file_name(name);
        // One that a power cut left behind; a backup that is under way to the same place fails.
        let _ = std::fs::remove_file(&path);
        schema::create(&path)?;
        Ok(Unfinished(path))
    }

    fn finish(self, to: &Path) -> io::Result<()> {
        File::open(&self.0)?.sync_all()?;
        // Unlike a rename, a link doesn't replace what has come there since.
        std::fs::hard_link(&self.0, to)?;
        schema::sync_directory(to)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn cannot_write(to: &Path, error: &io::Error) -> StoreError {
    let to = to.display();
    StoreError::Unavailable(match error.kind() {
        ErrorKind::AlreadyExists => {
            format!("{to} exists already, and was left as it is: move it away, or name another file")
        }
        _ => format!("the backup {to} can't be written: {error}"),
    })
}
