//! A store that forgets when its last handle goes: for tests, and for `memory:`.
//!
//! It does what `sqlite` does, in tables of its own (`table`) under one lock. Nothing waits while it is held.

mod intervene;
mod jobs;
mod table;
mod ticks;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;

use self::table::JobTable;
use self::ticks::Schedule;
use crate::{Clock, Counts, StoreError, SystemClock};

/// A store in memory. Clones are handles of the same one.
#[derive(Clone)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    /// A std mutex: it is held for moments, and never across an await.
    state: Arc<Mutex<State>>,
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    jobs: JobTable,
    /// See `held_back` of SQLite's writer.
    held_back: HashSet<String>,
    schedules: BTreeMap<String, Schedule>,
    counts: BTreeMap<String, u32>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        Self::with_clock(Arc::new(SystemClock::new()))
    }

    /// The same, with another clock.
    pub fn with_clock(clock: Arc<dyn Clock>) -> MemoryStore {
        MemoryStore { clock, state: Arc::default(), changes: watch::Sender::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of a change. Everybody who waits claims again.
    fn awake(&self) {
        self.state().held_back.clear();
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Counts for MemoryStore {
    async fn load(&self) -> Result<BTreeMap<String, u32>, StoreError> {
        Ok(self.state().counts.clone())
    }

    async fn save(&self, changes: BTreeMap<String, Option<u32>>) -> Result<(), StoreError> {
        let counts = &mut self.state().counts;
        for (process_type, count) in changes {
            match count {
                Some(count) => counts.insert(process_type, count),
                None => counts.remove(&process_type),
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn passes_the_conformance_suite() {
        crate::conformance::exercise(async |clock| MemoryStore::with_clock(clock)).await;
    }
}
