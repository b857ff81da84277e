//! The store outlives the host. It holds jobs, ticks, releases, and the counts that were set live. Hosts that share one
//! find each other in it: its [`members`].
//!
//! Each of them is a small trait. [`sqlite`] implements them with a file or without one, for one host, and [`postgres`] for
//! several. [`conformance`] is the
//! suite that every backend passes. Nothing here knows of wasm.

mod clock;
mod complaint;
pub mod components;
pub mod conformance;
pub mod counts;
mod door;
pub mod jobs;
mod lines;
pub mod members;
pub mod postgres;
pub mod releases;
mod rules;
pub mod sqlite;
pub mod ticks;
mod timestamp;
mod written;

pub use clock::{Clock, ManualClock, SystemClock};
pub use complaint::{Complaint, LeftOut};
pub use components::Components;
pub use counts::Counts;
pub use jobs::Jobs;
pub use members::Members;
pub use postgres::PostgresStore;
pub use releases::Releases;
pub use sqlite::{ReleasesInFile, SqliteStore};
pub use ticks::Ticks;
pub use timestamp::Timestamp;
pub use written::{COMMIT_SECONDS, Written};

/// Why the store could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It could not be opened, and what to do about it.
    #[error("{0}")]
    Open(String),
    /// The file was written by a newer wasmhost.
    #[error("{path} has schema version {found}; this wasmhost knows versions up to {known}: run a newer one")]
    NewerSchema {
        /// The file.
        path: String,
        /// Its version.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// The call makes no sense; the text says why.
    #[error("{0}")]
    Invalid(String),
    /// It was closed: the host is going.
    #[error("the store is closed")]
    Closed,
    /// It can't read or write now. Nothing was stored.
    #[error("{0}")]
    Unavailable(String),
    /// The disk is full. Nothing was stored.
    #[error("{0}")]
    Full(String),
    /// Its file was deleted or replaced while it is in use; the text names it and says what to do. Nothing is stored
    /// until it is back.
    #[error("{0}")]
    Gone(String),
    /// Its file is damaged; the text names it and says what to do. Nothing is written to it any more.
    #[error("{0}")]
    Damaged(String),
    /// The backend failed in a way that the caller can't mend.
    #[error("{0}")]
    Backend(String),
}
