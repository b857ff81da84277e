//! How well group commit works.

use std::sync::atomic::{AtomicU64, Ordering};

/// How much was written, since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Operations that were answered.
    pub operations: u64,
    /// Transactions that were committed for them, each with an fsync.
    pub commits: u64,
}

#[derive(Default)]
pub(super) struct Meter {
    operations: AtomicU64,
    commits: AtomicU64,
}

impl Meter {
    /// A transaction was committed.
    pub(super) fn committed(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    /// An operation was answered.
    pub(super) fn answered(&self) {
        self.operations.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Written {
        Written {
            operations: self.operations.load(Ordering::Relaxed),
            commits: self.commits.load(Ordering::Relaxed),
        }
    }
}
