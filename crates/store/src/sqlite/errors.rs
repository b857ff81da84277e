//! SQLite's errors in words that say what to do.

use rusqlite::ErrorCode;

use crate::StoreError;

pub(super) fn from_sqlite(error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Unavailable(
            "the disk that holds the store is full, and nothing was stored: free some space on it"
                .to_string(),
        ),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Unavailable(
            "another program keeps the store locked, and nothing was stored: end its transaction".to_string(),
        ),
        Some(
            ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory,
        ) => StoreError::Unavailable(format!("the store can't be read or written now: {error}")),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Backend(format!(
            "the store is damaged ({error}): stop the host and restore a backup, or try sqlite3's .recover"
        )),
        _ => StoreError::Backend(format!("the store failed: {error}")),
    }
}

/// What every call gets once the store was closed.
pub(super) fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".to_string())
}
