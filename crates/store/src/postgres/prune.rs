//! Ended jobs and expired keys go when they have been kept for long enough, a bounded number at a time. Hosts that prune
//! together pass over each other's rows.

use async_trait::async_trait;

use super::keys;
use super::operation::Write;
use super::session::Db;
use super::tx::Tx;
use super::values::u64_at;
use crate::Timestamp;
use crate::jobs::{JobState, PRUNE_JOBS_MAX, Retention};

pub(super) struct Prune(pub(super) Retention);

/// One kind of ended jobs: how many there are, and which.
struct Kind {
    count: &'static str,
    oldest: &'static str,
    kept_max: u64,
}

#[async_trait(?Send)]
impl Write for Prune {
    type Answer = u64;

    /// The most that it may delete, since nobody knows before.
    fn rows(&self) -> usize {
        PRUNE_JOBS_MAX as usize
    }

    async fn apply(&self, tx: &Tx<'_>) -> Db<u64> {
        let finished = Kind {
            count: "SELECT coalesce(sum(done + cancelled), 0)::bigint FROM queues",
            oldest: "state IN ('done', 'cancelled')",
            kept_max: self.0.done_max,
        };
        let dead = Kind {
            count: "SELECT coalesce(sum(dead), 0)::bigint FROM queues",
            oldest: "state = 'dead'",
            kept_max: self.0.dead_max,
        };
        let mut deleted = finished.delete(tx, tx.now - self.0.done_for, PRUNE_JOBS_MAX).await?;
        deleted += dead.delete(tx, tx.now - self.0.dead_for, PRUNE_JOBS_MAX - deleted).await?;
        tx.execute(
            "DELETE FROM queues WHERE NOT paused
               AND (scheduled, available, leased, retrying, done, dead, cancelled) = (0, 0, 0, 0, 0, 0, 0)",
            &[],
        )
        .await?;
        Ok(deleted + keys::prune(tx).await?)
    }
}

impl Kind {
    async fn delete(&self, tx: &Tx<'_>, ended_until: Timestamp, at_most: u64) -> Db<u64> {
        let old = self.oldest(tx, Some(ended_until), at_most).await?;
        let rows = tx.query(self.count, &[]).await?;
        let kept = rows.first().map_or(Ok(0), |row| u64_at(row, 0))?.saturating_sub(old);
        let surplus = kept.saturating_sub(self.kept_max).min(at_most - old);
        let too_many = if surplus == 0 { 0 } else { self.oldest(tx, None, surplus).await? };
        Ok(old + too_many)
    }

    /// Deletes the oldest, those that ended until then if it says so.
    async fn oldest(&self, tx: &Tx<'_>, ended_until: Option<Timestamp>, at_most: u64) -> Db<u64> {
        let until = ended_until.map_or(i64::MAX, |until| until.0);
        let at_most = i64::try_from(at_most).unwrap_or(i64::MAX);
        let delete = format!(
            "WITH old AS MATERIALIZED (
               SELECT id FROM jobs WHERE {} AND ended_at <= $1 ORDER BY ended_at, id LIMIT $2
               FOR UPDATE SKIP LOCKED)
             DELETE FROM jobs USING old WHERE jobs.id = old.id RETURNING jobs.id, queue, state, bytes",
            self.oldest
        );
        let mut ids = Vec::new();
        for row in tx.query(&delete, &[&until, &at_most]).await? {
            ids.push(row.try_get::<_, i64>(0)?);
            tx.moves(row.try_get(1)?, Some(row.try_get::<_, JobState>(2)?), None, row.try_get(3)?);
        }
        forget(tx, &ids).await?;
        Ok(ids.len() as u64)
    }
}

/// Deletes what other tables have of jobs that were deleted.
pub(super) async fn forget(tx: &Tx<'_>, ids: &[i64]) -> Db<()> {
    if ids.is_empty() {
        return Ok(());
    }
    tx.execute("DELETE FROM payloads WHERE job_id = ANY($1::bigint[])", &[&ids]).await?;
    tx.execute("DELETE FROM attempts WHERE job_id = ANY($1::bigint[])", &[&ids]).await.map(drop)
}
