//! A consistent copy of the store while it is in use.
//!
//! `VACUUM INTO` on a connection of its own reads one snapshot, beside the writer, which it doesn't hold up. All that
//! happens is that the log isn't cut back until it is done. (SQLite's backup API begins again at each write of another
//! connection, unless it copies everything in one step; then it is the same, and copies what is free in the file too.)
//! The copy is one file, without a log and without free pages.
//!
//! The connection is open as long as the store is: a store whose file was deleted meanwhile can still be copied.
//!
//! A copy has a name of its own until it is whole. Beside the database a locked note says where it is, so that the next
//! host deletes what a killed one left behind.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use rusqlite::{Connection, InterruptHandle, OpenFlags};

use super::ids::{self, beside};
use super::{errors, schema};
use crate::{StoreError, Timestamp};

/// The end of the names of copies that aren't whole, and the part of their notes' names behind the database's.
const UNFINISHED: &str = ".partial";
const NOTE: &str = "-copying-";

/// The connection that copies.
pub(super) struct Copying {
    database: PathBuf,
    connection: Mutex<Option<Connection>>,
    interrupt: InterruptHandle,
    is_closing: AtomicBool,
}

impl Copying {
    pub(super) fn open(database: &Path) -> Result<Copying, StoreError> {
        let connection = schema::open_reader(database)?;
        Ok(Copying {
            database: database.to_owned(),
            interrupt: connection.get_interrupt_handle(),
            connection: Mutex::new(Some(connection)),
            is_closing: AtomicBool::new(false),
        })
    }

    /// Writes the copy to `to`, which must not be there yet. It isn't there afterwards if anything goes wrong. One copy is
    /// made at a time.
    pub(super) fn copy(&self, to: &Path, now: Timestamp) -> Result<(), StoreError> {
        let connection = self.lock();
        let Some(connection) = connection.as_ref().filter(|_| !self.is_closing.load(Ordering::SeqCst)) else {
            return Err(errors::closed());
        };
        let copied = copy_to(connection, Some(&self.database), to, now);
        let _ = connection.release_memory();
        copied
    }

    /// Ends the copy under way, and closes the connection.
    pub(super) async fn close(&self) {
        self.is_closing.store(true, Ordering::SeqCst);
        loop {
            match self.connection.try_lock() {
                Ok(mut connection) => break drop(connection.take()),
                Err(TryLockError::Poisoned(poison)) => break drop(poison.into_inner().take()),
                Err(TryLockError::WouldBlock) => self.interrupt.interrupt(),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Connection>> {
        self.connection.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

/// Copies a store that no host need have open.
pub(super) fn copy_file(from: &Path, to: &Path, now: Timestamp) -> Result<(), StoreError> {
    let (_aside, connection) = match schema::open_reader(from) {
        Ok(connection) => (None, connection),
        // Even to read a store SQLite writes its log's index, which it can't beside a store that is only readable.
        Err(refused) => match Aside::copy(from, to) {
            Ok(aside) => {
                let connection = schema::open_reader(&aside.database)?;
                (Some(aside), connection)
            }
            Err(_) => return Err(refused),
        },
    };
    if !schema::is_ours(&connection, from)? {
        return Err(StoreError::Open(format!("{} is another program's database", from.display())));
    }
    copy_to(&connection, Some(from), to, now)
}

/// Writes a copy by a connection that is open. `database` is where a note of it can be left.
pub(super) fn copy_to(
    connection: &Connection,
    database: Option<&Path>,
    to: &Path,
    now: Timestamp,
) -> Result<(), StoreError> {
    let refused = |error: io::Error| cannot_write(to, &error);
    if to.try_exists().map_err(refused)? {
        return Err(refused(ErrorKind::AlreadyExists.into()));
    }
    let unfinished = Unfinished::create(database, to).map_err(refused)?;
    let Some(name) = unfinished.path.to_str() else {
        return Err(StoreError::Invalid(format!(
            "{} is no text, which SQLite needs: choose another",
            to.display()
        )));
    };
    // Otherwise the text would be about the store's own disk.
    let failed = |error: rusqlite::Error| match errors::from_sqlite(connection, &error) {
        StoreError::Unavailable(_) | StoreError::Full(_) => {
            StoreError::Unavailable(format!("the backup {} can't be written: {error}", to.display()))
        }
        other => other,
    };
    connection.execute("VACUUM INTO ?1", [name]).map_err(failed)?;
    let copy = Connection::open_with_flags(name, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(failed)?;
    ids::mark_copy(&copy, now).map_err(failed)?;
    copy.close().map_err(|(_, error)| failed(error))?;
    unfinished.finish(to).map_err(refused)
}

/// A copy under a name of its own until it is whole and on the disk.
struct Unfinished {
    path: PathBuf,
    /// Locked as long as the copy is being made.
    note: Option<(PathBuf, File)>,
}

impl Unfinished {
    fn create(database: Option<&Path>, to: &Path) -> io::Result<Unfinished> {
        let mut name = to.file_name().ok_or(ErrorKind::InvalidFilename)?.to_owned();
        let unique = format!("{:x}", fastrand::u64(..));
        name.push(format!(".{unique}{UNFINISHED}"));
        let path = std::path::absolute(to.with_file_name(name))?;
        // Where none can be left a killed backup stays.
        let note = database.and_then(|database| note(database, &unique, &path).ok());
        schema::create(&path)
            .inspect_err(|_| drop(note.as_ref().map(|(note, _)| std::fs::remove_file(note))))?;
        Ok(Unfinished { path, note })
    }

    fn finish(self, to: &Path) -> io::Result<()> {
        File::open(&self.path)?.sync_all()?;
        // Unlike a rename, a link doesn't replace what has come there since. Some file systems have no links.
        std::fs::hard_link(&self.path, to).or_else(|error| match error.kind() {
            ErrorKind::AlreadyExists => Err(error),
            _ => rename(&self.path, to),
        })?;
        schema::sync_directory(to)
    }
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).map_err(io::Error::from)
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_file(beside(&self.path, "-journal"));
        if let Some((note, _)) = &self.note {
            let _ = std::fs::remove_file(note);
        }
    }
}

/// Leaves a note of where a copy is being made.
fn note(database: &Path, unique: &str, copy: &Path) -> io::Result<(PathBuf, File)> {
    let note = beside(database, &format!("{NOTE}{unique}"));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&note)?;
    file.lock()?;
    file.write_all(copy.as_os_str().as_encoded_bytes())?;
    Ok((note, file))
}

/// Deletes the copies that were being made when their programs were killed.
pub(super) fn clean_up(database: &Path) {
    let (Some(folder), Some(name)) = (database.parent(), database.file_name().and_then(|name| name.to_str()))
    else {
        return;
    };
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let is_note = entry
            .file_name()
            .to_str()
            .is_some_and(|found| found.strip_prefix(name).is_some_and(|rest| rest.starts_with(NOTE)));
        if !is_note {
            continue;
        }
        let note = entry.path();
        let Ok(file) = File::open(&note) else { continue };
        // Locked by a backup that is under way.
        if file.try_lock().is_err() {
            continue;
        }
        if let Some(copy) = std::fs::read_to_string(&note).ok().filter(|copy| copy.ends_with(UNFINISHED)) {
            tracing::info!("{copy} is deleted: a backup that was not finished");
            let _ = std::fs::remove_file(&copy);
            let _ = std::fs::remove_file(beside(Path::new(&copy), "-journal"));
        }
        let _ = std::fs::remove_file(&note);
    }
}

/// A store and its log in a folder of their own, since they can't be read where they are.
struct Aside {
    folder: PathBuf,
    database: PathBuf,
}

impl Aside {
    fn copy(from: &Path, to: &Path) -> io::Result<Aside> {
        // One that is in use would change meanwhile.
        if let Ok(host) = File::open(beside(from, "-host"))
            && host.try_lock_shared().is_err()
        {
            return Err(ErrorKind::ResourceBusy.into());
        }
        let folder = beside(to, &format!(".{:x}", fastrand::u64(..)));
        std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).create(&folder)?;
        let aside = Aside { database: folder.join("store.db"), folder };
        std::fs::copy(from, &aside.database)?;
        let log = beside(from, "-wal");
        if log.exists() {
            std::fs::copy(log, beside(&aside.database, "-wal"))?;
        }
        // The originals may be read-only.
        for suffix in ["", "-wal"] {
            use std::os::unix::fs::PermissionsExt;
            let _ =
                std::fs::set_permissions(beside(&aside.database, suffix), PermissionsExt::from_mode(0o600));
        }
        Ok(aside)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
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
