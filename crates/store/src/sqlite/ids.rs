//! Which host has a store, and the highest id that it may have given: both in one small file beside the database,
//! `store.db-host`.
//!
//! The file is locked for as long as a host uses the store. Two hosts on one database would each free the other's leases.
//! (The database itself can't be locked so: closing any descriptor of it gives up SQLite's own locks.)
//!
//! Ids are never used again, also after a backup was restored, which knows nothing of the ids that were given since. So
//! the mark is kept outside of the database: it is raised, a block of ids at a time, before ids past it are answered.
//! After a clean end it is exact. After a kill, and after a restore, the ids of the block that weren't given are left out.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, params};

use super::schema;
use crate::{StoreError, Timestamp};

/// How long a host that is just ending has the file.
const ENDING: Duration = Duration::from_secs(2);

/// Ids that are reserved at once: so many at first, and twice as many where they last for less than a second.
const BLOCK: i64 = 1_000;
const BLOCK_MAX: i64 = 1 << 20;

/// More ids than a host gives in a millisecond. A backup that is restored without the mark goes on so far behind its last
/// id for each millisecond of its age.
const IDS_EACH_MS: i64 = 50;

/// How far the ids of a database without the mark go on behind its last one. Nobody knows how old it is.
const IDS_LEFT_OUT: i64 = 1_000_000_000;

/// The host's own file, locked.
pub(super) struct HostFile {
    file: File,
    path: PathBuf,
    /// Ids up to this one may be answered. `None` where nobody has written it yet.
    mark: Option<i64>,
    block: i64,
    reserved_at: Instant,
}

impl HostFile {
    /// Takes the store at `database`, or says that another host has it.
    pub(super) fn take(database: &Path) -> Result<HostFile, StoreError> {
        let path = beside(database, "-host");
        let failed = |error: io::Error| {
            StoreError::Open(format!(
                "{} can't be opened for writing ({error}): make it and its directory writable for this user, or point \
                 [store] url elsewhere",
                path.display()
            ))
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path).map_err(failed)?;
        let until = Instant::now() + ENDING;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(StoreError::Open(format!(
                        "another host uses {} (it holds {}): stop it, or give this one a store of its own by [store] url",
                        database.display(),
                        path.display()
                    )));
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        let mut text = String::new();
        // A text that can't be read is no mark.
        let mark = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
        Ok(HostFile { file, path, mark, block: BLOCK, reserved_at: Instant::now() })
    }

    /// Makes ids go on behind all that were ever given. `version` is the schema's as the file was found.
    pub(super) fn settle(
        &mut self,
        connection: &Connection,
        version: usize,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        let last: i64 = last_id(connection)?;
        let copied_at: Option<Timestamp> = connection
            .query_row("SELECT value FROM facts WHERE name = 'copied_at'", [], |row| row.get(0))
            .optional()?;
        let mut from = last.max(self.mark.unwrap_or(0));
        if let Some(copied_at) = copied_at {
            let age_ms = i64::try_from(now.since(copied_at).as_millis()).unwrap_or(i64::MAX);
            let given = age_ms.saturating_mul(IDS_EACH_MS).saturating_add(BLOCK_MAX);
            from = from.max(last.saturating_add(given));
        } else if self.mark.is_none() && last > 0 && version >= schema::WITH_MARK {
            from = from.max(last.saturating_add(IDS_LEFT_OUT));
        }
        if from > last {
            tracing::info!("ids of jobs go on from {from}: those before it may have been given already");
            connection.execute(
                "INSERT INTO sqlite_sequence (name, seq) SELECT 'jobs', 0
                 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'jobs')",
                [],
            )?;
            connection.execute("UPDATE sqlite_sequence SET seq = ?1 WHERE name = 'jobs'", [from])?;
        }
        if copied_at.is_some() {
            connection.execute("DELETE FROM facts WHERE name = 'copied_at'", [])?;
        }
        self.mark = Some(from);
        Ok(())
    }

    /// Sees to it that this id can be answered.
    pub(super) fn reserve(&mut self, id: i64) -> io::Result<()> {
        if self.mark.is_some_and(|mark| id <= mark) {
            return Ok(());
        }
        self.block = match self.reserved_at.elapsed() < Duration::from_secs(1) {
            true => (self.block * 2).min(BLOCK_MAX),
            false => BLOCK,
        };
        self.reserved_at = Instant::now();
        self.write(id.saturating_add(self.block))
    }

    /// The store is about to be closed: no id past the last one was given.
    pub(super) fn finish(&mut self, connection: &Connection) {
        let written = last_id(connection).map_err(io::Error::other).and_then(|last| self.write(last));
        if let Err(error) = written {
            tracing::warn!(
                "{} could not be written ({error}): some ids of jobs will be left out",
                self.path.display()
            );
        }
    }

    fn write(&mut self, mark: i64) -> io::Result<()> {
        // As long as the one before: it is replaced in one piece.
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(format!("{mark:020}\n").as_bytes())?;
        self.file.sync_data()?;
        self.mark = Some(mark);
        Ok(())
    }
}

fn last_id(connection: &Connection) -> rusqlite::Result<i64> {
    let last =
        connection.query_row("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'", [], |row| row.get(0));
    Ok(last.optional()?.unwrap_or(0))
}

/// Says in a backup when it was made, for [`HostFile::settle`]. One of an older version can't say it.
pub(super) fn mark_copy(copy: &Connection, now: Timestamp) -> rusqlite::Result<()> {
    let can = copy.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'facts'", [], |row| {
        row.get::<_, bool>(0)
    })?;
    if can {
        copy.execute("INSERT OR REPLACE INTO facts (name, value) VALUES ('copied_at', ?1)", params![now])?;
    }
    Ok(())
}

/// The file beside the database whose name ends so.
pub(super) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    database.with_file_name(name)
}
