//! Counts in SQLite.

use std::collections::BTreeMap;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};

use super::SqliteStore;
use super::operation::Write;
use super::writer::Tx;
use crate::counts::CountChange;
use crate::{Counts, StoreError};

#[async_trait]
impl Counts for SqliteStore {
    async fn load(&self) -> Result<BTreeMap<String, u32>, StoreError> {
        self.read(|connection, _| load(connection)).await
    }

    async fn change(&self, changes: Vec<CountChange>) -> Result<BTreeMap<String, u32>, StoreError> {
        self.write(Change(changes)).await
    }
}

struct Change(Vec<CountChange>);

impl Write for Change {
    type Answer = BTreeMap<String, u32>;

    fn apply(&self, tx: &Tx<'_>) -> rusqlite::Result<Self::Answer> {
        for CountChange { process, in_file, to } in &self.0 {
            let before = tx
                .sql("SELECT count FROM counts WHERE process_type = ?1")?
                .query_row([process], |row| row.get(0))
                .optional()?;
            match to.after(before, *in_file) {
                Some(count) => tx
                    .sql(
                        "INSERT INTO counts (process_type, count) VALUES (?1, ?2)
                         ON CONFLICT (process_type) DO UPDATE SET count = excluded.count",
                    )?
                    .execute(params![process, count])?,
                None => tx.sql("DELETE FROM counts WHERE process_type = ?1")?.execute([process])?,
            };
        }
        let mut all = tx.sql("SELECT process_type, count FROM counts")?;
        let rows = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect()
    }
}

fn load(connection: &Connection) -> rusqlite::Result<BTreeMap<String, u32>> {
    let mut all = connection.prepare_cached("SELECT process_type, count FROM counts")?;
    let rows = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}
