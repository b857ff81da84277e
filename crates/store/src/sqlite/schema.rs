//! Opening the file: whose it is, which version it has, and the steps to the newest one.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::errors;
use crate::StoreError;

/// Each step takes the schema from the version before it (its index) to the next; they are never edited once
/// released. `PRAGMA user_version` says how many have been taken.
const MIGRATIONS: &[&str] = &[
    include_str!("schema_1.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
    include_str!("schema_4.sql"),
];

/// The first version with a [`HostFile`](super::ids::HostFile) beside the database.
pub(super) const WITH_MARK: usize = 3;

/// The first version with releases.
pub(super) const WITH_RELEASES: usize = 4;

/// Marks the file as wasmhost's, for `file` and for us: "wmhs".
const APPLICATION_ID: i64 = 0x776d_6873;

/// Pages of log between checkpoints: 16 MiB.
pub(super) const LOG_PAGES: u64 = 4_000;

/// How long to wait while another process (somebody's `sqlite3`) holds the lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Room for every statement of ours.
const STATEMENTS_CACHED: usize = 64;

/// Opens the file, which is there, for writing, and brings it to the newest version. Returns the version that
/// it had, too.
pub(super) fn open_writer(path: &Path) -> Result<(Connection, usize), StoreError> {
    let failed = |error: rusqlite::Error| opening_failed(path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    prepare(&connection).map_err(failed)?;

    // Asked first: reading a read-only file would leave a read-only log beside it.
    if connection.is_readonly("main").map_err(failed)? {
        return Err(StoreError::Open(format!(
            "{} is read-only: make it writable for this user, or point [store] url elsewhere",
            path.display()
        )));
    }
    // Nothing is written before the file is known to be ours.
    let version = version_of(&connection, path)?;
    configure(&connection, version).map_err(failed)?;
    migrate(&mut connection, version).map_err(failed)?;
    // A log that can't be written (another user's) would otherwise be found out by the first job.
    connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK").map_err(failed)?;
    Ok((connection, version))
}

/// Makes a database without a file, of the newest version.
pub(super) fn open_in_memory() -> Result<Connection, StoreError> {
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_in_memory_with_flags(flags)?;
        prepare(&connection)?;
        configure(&connection, 0)?;
        migrate(&mut connection, 0)?;
        Ok(connection)
    };
    open().map_err(|error: rusqlite::Error| {
        StoreError::Open(format!("no store can be made in memory: {error}"))
    })
}

/// Opens a file for reading.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let connection = Connection::open_with_flags(path, flags)?;
        prepare(&connection)?;
        // SQLite opens files as it first reads them. Later they might not be there any more.
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    };
    open().map_err(|error| opening_failed(path, &error))
}

/// Opens a file for reading that nobody changes meanwhile, and that has no log. Nothing is written beside it.
pub(super) fn open_still(path: &Path) -> Result<Connection, StoreError> {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                uri.push(char::from(*byte))
            }
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(uri + "?immutable=1", flags);
    connection
        .and_then(|connection| prepare(&connection).map(|()| connection))
        .map_err(|error| opening_failed(path, &error))
}

/// Whether this connection's file is a store of ours, of whatever version.
pub(super) fn is_ours(connection: &Connection, path: &Path) -> Result<bool, StoreError> {
    let id = connection.pragma_query_value(None, "application_id", |row| row.get::<_, i64>(0));
    id.map(|id| id == APPLICATION_ID).map_err(|error| opening_failed(path, &error))
}

/// Settings that every connection needs before its first statement.
fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    // Plans don't depend on what is bound. Otherwise SQLite looks whether a bound value would let it use a partial
    // index, and for that compiles a cached statement again each time that the value changes: half of all time.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

/// Makes an empty file for this user alone, since payloads may be secrets; SQLite gives its `-wal` and `-shm` the
/// same mode. A file that is there is not touched.
pub(super) fn create(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(_) => {
            // SQLite syncs the directory that the file is in, as it commits; but not the one that that one is in,
            // which may be as new.
            path.parent().map_or(Ok(()), sync_directory)
        }
    }
}

/// Makes the name of this file durable.
pub(super) fn sync_directory(of: &Path) -> std::io::Result<()> {
    match of.parent() {
        // A name alone is in the working directory.
        Some(parent) if parent.as_os_str().is_empty() => std::fs::File::open(".")?.sync_all(),
        Some(parent) => std::fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// The version of a store of ours; 0 for an empty file. Another program's file, and one that is too new, is an error.
pub(super) fn version_of(connection: &Connection, path: &Path) -> Result<usize, StoreError> {
    let pragma =
        |name: &str| -> rusqlite::Result<i64> { connection.pragma_query_value(None, name, |row| row.get(0)) };
    let facts = || -> rusqlite::Result<(i64, i64, i64)> {
        let objects = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        Ok((pragma("application_id")?, pragma("user_version")?, objects))
    };
    let (application, found, objects) = facts().map_err(|error| opening_failed(path, &error))?;
    let empty = application == 0 && found == 0 && objects == 0;
    if application != APPLICATION_ID && !empty {
        return Err(StoreError::Open(format!(
            "{} is another program's database, and was left as it is: point [store] url elsewhere",
            path.display()
        )));
    }
    match usize::try_from(found) {
        Ok(version) if version <= MIGRATIONS.len() => Ok(version),
        _ => Err(StoreError::NewerSchema {
            path: path.display().to_string(),
            found,
            known: i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX),
        }),
    }
}

fn configure(connection: &Connection, version: usize) -> rusqlite::Result<()> {
    if version == 0 {
        // Can only be chosen while the file is empty.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // Every commit is on the disk when it returns.
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Each page that changed often is then copied once, not 16 times. The log is
    // cut back to 64 MiB after a burst.
    connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    // CHECKs are for people with sqlite3: what is written here is of types that can't break them, and the one of
    // jobs.state costs each change of a job more than an index does.
    connection.pragma_update(None, "ignore_check_constraints", true)?;
    // In KiB where negative: 32 MiB.
    connection.pragma_update(None, "cache_size", -32_768)?;
    connection.pragma_update(None, "temp_store", "MEMORY")
}

fn migrate(connection: &mut Connection, version: usize) -> rusqlite::Result<()> {
    for (step, sql) in MIGRATIONS.iter().enumerate().skip(version) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(
            None,
            "user_version",
            i64::try_from(step).unwrap_or(i64::MAX).saturating_add(1),
        )?;
        transaction.commit()?;
    }
    Ok(())
}

pub(super) fn cannot_create(path: &Path, error: &std::io::Error) -> String {
    format!(
        "{} can't be created ({error}): make its directory writable for this user, or point [store] url elsewhere",
        path.display()
    )
}

fn opening_failed(path: &Path, error: &rusqlite::Error) -> StoreError {
    let path = path.display();
    StoreError::Open(match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => {
            format!("{path} is not a SQLite database, and was left as it is: point [store] url elsewhere")
        }
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => format!(
            "{path} can't be opened for writing ({error}): make it and its directory writable for this user, or \
             point [store] url elsewhere"
        ),
        Some(ErrorCode::DatabaseCorrupt) => errors::damaged(&path.to_string(), error),
        _ => format!("{path} can't be opened: {}", errors::from_sqlite_at(&path.to_string(), error)),
    })
}
