//! Where compiled code was had from.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Counts of a cache's answers. The caches of a host's engines share them.
#[derive(Default)]
pub struct Loads {
    shared: AtomicU64,
    mapped: AtomicU64,
    compiled: AtomicU64,
    failed: AtomicU64,
    compiling_ns: AtomicU64,
}

/// The same at one time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Components whose code this process had already.
    pub shared: u64,
    /// Those whose code the directory had.
    pub mapped: u64,
    /// Those that were compiled.
    pub compiled: u64,
    /// Those that could not be, or that nobody wanted any more.
    pub failed: u64,
    /// The time that compiling took, all together.
    pub compiling: Duration,
}

impl Loads {
    pub(super) fn shared(&self) {
        self.shared.fetch_add(1, Relaxed);
    }

    pub(super) fn mapped(&self) {
        self.mapped.fetch_add(1, Relaxed);
    }

    pub(super) fn compiled(&self, took: Duration, is_ok: bool) {
        let count = if is_ok { &self.compiled } else { &self.failed };
        count.fetch_add(1, Relaxed);
        self.compiling_ns.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// The counts up to now.
    pub fn read(&self) -> Loaded {
        Loaded {
            shared: self.shared.load(Relaxed),
            mapped: self.mapped.load(Relaxed),
            compiled: self.compiled.load(Relaxed),
            failed: self.failed.load(Relaxed),
            compiling: Duration::from_nanos(self.compiling_ns.load(Relaxed)),
        }
    }
}
