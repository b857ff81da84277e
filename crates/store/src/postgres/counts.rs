//! Counts in PostgreSQL. Changes take a lock, so that each begins with what the one before it came to.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use tokio_postgres::Row;

use super::PostgresStore;
use super::operation::Write;
use super::reader::{Read, View};
use super::session::Db;
use super::tx::Tx;
use crate::counts::CountChange;
use crate::{Counts, StoreError};

#[async_trait]
impl Counts for PostgresStore {
    async fn load(&self) -> Result<BTreeMap<String, u32>, StoreError> {
        self.read(Load).await
    }

    async fn change(&self, changes: Vec<CountChange>) -> Result<BTreeMap<String, u32>, StoreError> {
        self.write(Change(changes)).await
    }
}

const ALL: &str = "SELECT process_type, count FROM counts";

fn collect(rows: &[Row]) -> Db<BTreeMap<String, u32>> {
    let count =
        |row: &Row| Ok((row.try_get(0)?, u32::try_from(row.try_get::<_, i64>(1)?).unwrap_or(u32::MAX)));
    rows.iter().map(count).collect()
}

/// All counts that are set live.
pub(super) async fn all(tx: &Tx<'_>) -> Db<BTreeMap<String, u32>> {
    collect(&tx.query(ALL, &[]).await?)
}

struct Load;

#[async_trait]
impl Read for Load {
    type Answer = BTreeMap<String, u32>;

    async fn ask(&self, view: &View<'_>) -> Db<BTreeMap<String, u32>> {
        collect(&view.session.query(ALL, &[]).await?)
    }
}

struct Change(Vec<CountChange>);

#[async_trait(?Send)]
impl Write for Change {
    type Answer = BTreeMap<String, u32>;

    async fn apply(&self, tx: &Tx<'_>) -> Db<BTreeMap<String, u32>> {
        tx.lock("counts", &BTreeSet::from([String::new()])).await?;
        let mut counts = all(tx).await?;
        for CountChange { process, in_file, to } in &self.0 {
            match to.after(counts.get(process).copied(), *in_file) {
                Some(count) => {
                    tx.execute(
                        "INSERT INTO counts (process_type, count) VALUES ($1, $2)
                         ON CONFLICT (process_type) DO UPDATE SET count = excluded.count",
                        &[process, &i64::from(count)],
                    )
                    .await?;
                    counts.insert(process.clone(), count);
                }
                None => {
                    tx.execute("DELETE FROM counts WHERE process_type = $1", &[process]).await?;
                    counts.remove(process);
                }
            }
        }
        Ok(counts)
    }
}
