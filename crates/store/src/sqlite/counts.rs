//! Counts in SQLite.

use std::collections::BTreeMap;

use async_trait::async_trait;
use rusqlite::params;

use super::SqliteStore;
use super::operation::Write;
use super::writer::Tx;
use crate::{Counts, StoreError};

#[async_trait]
impl Counts for SqliteStore {
    async fn load(&self) -> Result<BTreeMap<String, u32>, StoreError> {
        self.read(|connection, _| {
            connection
                .prepare_cached("SELECT process_type, count FROM counts")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })
        .await
    }

    async fn save(&self, changes: BTreeMap<String, Option<u32>>) -> Result<(), StoreError> {
        self.write(Save(changes)).await
    }
}

struct Save(BTreeMap<String, Option<u32>>);

impl Write for Save {
    type Answer = ();

    fn apply(&self, tx: &Tx<'_>) -> rusqlite::Result<()> {
        for (process_type, count) in &self.0 {
            match count {
                Some(count) => tx
                    .sql(
                        "INSERT INTO counts (process_type, count) VALUES (?1, ?2)
                         ON CONFLICT (process_type) DO UPDATE SET count = excluded.count",
                    )?
                    .execute(params![process_type, count])?,
                None => tx.sql("DELETE FROM counts WHERE process_type = ?1")?.execute([process_type])?,
            };
        }
        Ok(())
    }
}
