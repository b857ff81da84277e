//! SQLite's errors in words that say what to do.

use rusqlite::{Connection, ErrorCode};

use crate::StoreError;

/// The error of this connection, as callers see it.
pub(super) fn from_sqlite(connection: &Connection, error: &rusqlite::Error) -> StoreError {
    from_sqlite_at(connection.path().filter(|path| !path.is_empty()).unwrap_or("the store"), error)
}

/// The same, of the store at this path.
pub(super) fn from_sqlite_at(path: &str, error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => full(path),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Unavailable(format!(
            "another program keeps {path} locked, and nothing was stored: end its transaction"
        )),
        Some(
            ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory,
        ) => StoreError::Unavailable(format!("{path} can't be read or written now: {error}")),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Damaged(damaged(path, error))
        }
        _ => StoreError::Backend(format!("the store failed: {error}")),
    }
}

/// The error of a full disk.
pub(super) fn full(path: &str) -> StoreError {
    StoreError::Full(format!(
        "the disk that holds {path} is full, and nothing was stored: free some space on it, or discard jobs"
    ))
}

/// The text about a store that can't be opened for want of room.
pub(super) fn no_room(path: &std::path::Path) -> String {
    format!(
        "the disk that holds {} is full, so that it can't be opened: free some space on it",
        path.display()
    )
}

/// The text about a damaged file.
pub(super) fn damaged(path: &str, error: &rusqlite::Error) -> String {
    format!(
        "{path} is damaged ({error}), and is kept as it is: stop the host, copy the file and its -wal, and restore \
         a backup, or try `sqlite3 {path} .recover | sqlite3 recovered.db`"
    )
}

/// The error of every call once the store was closed.
pub(super) fn closed() -> StoreError {
    StoreError::Closed
}
