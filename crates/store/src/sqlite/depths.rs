//! How much waits in each queue, known within a transaction: a storm of enqueues asks the database once for each batch.

use std::cell::RefCell;
use std::collections::HashMap;

use rusqlite::OptionalExtension;

use super::writer::Tx;

/// The queues that an enqueue asked about, as long as nothing but enqueues changes them.
#[derive(Default)]
pub(super) struct Depths(RefCell<HashMap<String, Depth>>);

/// The jobs that wait in a queue: scheduled, available and retrying ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Depth {
    pub(super) jobs: u64,
    pub(super) bytes: u64,
}

impl Depths {
    pub(super) fn of(&self, tx: &Tx<'_>, queue: &str) -> rusqlite::Result<Depth> {
        if let Some(known) = self.0.borrow().get(queue) {
            return Ok(*known);
        }
        let found = tx
            .sql(
                "SELECT scheduled + available + retrying, max(waiting_bytes, 0) FROM queues WHERE queue = ?1",
            )?
            .query_row([queue], |row| Ok(Depth { jobs: row.get(0)?, bytes: row.get(1)? }))
            .optional()?
            .unwrap_or_default();
        self.0.borrow_mut().insert(queue.to_owned(), found);
        Ok(found)
    }

    /// Says that an enqueue put one more job into a queue.
    pub(super) fn added(&self, queue: &str, bytes: u64) {
        if let Some(known) = self.0.borrow_mut().get_mut(queue) {
            known.jobs += 1;
            known.bytes = known.bytes.saturating_add(bytes);
        }
    }

    /// Says that something else may have changed what waits.
    pub(super) fn forget(&self) {
        self.0.borrow_mut().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Fixture, claim, job};
    use crate::Jobs;
    use crate::jobs::{EnqueueError, Enqueued, NewJob};
    use crate::sqlite::SqliteStore;

    async fn put(store: &SqliteStore) -> Result<Vec<Enqueued>, EnqueueError> {
        store.enqueue(vec![NewJob { max_depth: Some(1), ..job(1) }]).await
    }

    #[tokio::test]
    async fn operations_of_one_transaction_see_what_those_before_them_did() {
        let fixture = Fixture::new();
        let store = fixture.open();
        let full = EnqueueError::Full { queue: "mail".to_string(), depth: 1 };
        // While the large one is under way the others gather, and go into one transaction in this order.
        let large = vec![NewJob { queue: "other".to_string(), ..job(1) }; 500];
        let (large, first, refused, claimed, second, last) = tokio::join!(
            store.enqueue(large),
            put(&store),
            put(&store),
            store.claim(claim()),
            put(&store),
            put(&store)
        );
        assert_eq!(large.unwrap().len(), 500);
        assert!(first.is_ok() && second.is_ok());
        assert_eq!((refused, last), (Err(full.clone()), Err(full)));
        let lease = claimed.unwrap()[0].lease;
        // A job that is done waited no more before.
        let (refused, done, still) = tokio::join!(put(&store), store.complete(lease), put(&store));
        assert!(refused.is_err() && done.is_ok() && still.is_err());
        let (_, cancelled, third) =
            tokio::join!(put(&store), store.cancel(second.unwrap()[0].id), put(&store));
        assert!(cancelled.is_ok() && third.is_ok());
    }
}
