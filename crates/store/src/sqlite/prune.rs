//! Ended jobs and expired keys go when they have been kept for long enough, a bounded number at a time.

use rusqlite::params;

use super::keys;
use super::operation::Write;
use super::writer::Tx;
use crate::Timestamp;
use crate::jobs::{PRUNE_JOBS_MAX, Retention};

/// Free pages that stay in the file, since new jobs will want them: 4 MiB.
const FREE_PAGES_KEPT: u64 = 1_024;

/// How many pages one call gives back to the file system: 1 MiB.
const FREE_PAGES_RETURNED: u32 = 256;

pub(super) struct Prune(pub(super) Retention);

/// One kind of ended jobs, with the SQL that finds the oldest.
struct Kind {
    count: &'static str,
    by_age: &'static str,
    by_count: &'static str,
    kept_max: u64,
}

impl Write for Prune {
    type Answer = u64;

    /// The most that it may delete, since nobody knows before.
    fn rows(&self) -> usize {
        PRUNE_JOBS_MAX as usize
    }

    fn apply(&self, tx: &Tx<'_>) -> rusqlite::Result<u64> {
        let finished = Kind {
            count: "SELECT coalesce(sum(done + cancelled), 0) FROM queues",
            by_age: "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs INDEXED BY jobs_finished
                     WHERE state IN ('done', 'cancelled') AND ended_at <= ?1 ORDER BY ended_at, id LIMIT ?2)",
            by_count: "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs INDEXED BY jobs_finished
                       WHERE state IN ('done', 'cancelled') ORDER BY ended_at, id LIMIT ?1)",
            kept_max: self.0.done_max,
        };
        let dead = Kind {
            count: "SELECT coalesce(sum(dead), 0) FROM queues",
            by_age: "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs INDEXED BY jobs_dead
                     WHERE state = 'dead' AND ended_at <= ?1 ORDER BY ended_at, id LIMIT ?2)",
            by_count: "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs INDEXED BY jobs_dead
                       WHERE state = 'dead' ORDER BY ended_at, id LIMIT ?1)",
            kept_max: self.0.dead_max,
        };
        let mut deleted = finished.delete(tx, tx.now - self.0.done_for, PRUNE_JOBS_MAX)?;
        deleted += dead.delete(tx, tx.now - self.0.dead_for, PRUNE_JOBS_MAX - deleted)?;
        tx.sql(
            "DELETE FROM queues
             WHERE scheduled + available + leased + retrying + done + dead + cancelled + paused = 0",
        )?
        .execute([])?;
        deleted += keys::prune(tx)?;
        give_back(tx)?;
        Ok(deleted)
    }
}

impl Kind {
    fn delete(&self, tx: &Tx<'_>, ended_until: Timestamp, at_most: u64) -> rusqlite::Result<u64> {
        let old = tx.sql(self.by_age)?.execute(params![ended_until, at_most])? as u64;
        let kept: u64 = tx.sql(self.count)?.query_row([], |row| row.get(0))?;
        let surplus = kept.saturating_sub(self.kept_max).min(at_most - old);
        let too_many = if surplus == 0 { 0 } else { tx.sql(self.by_count)?.execute([surplus])? as u64 };
        Ok(old + too_many)
    }
}

/// Shortens the file where more than a quarter of it is free: less than that is soon used again.
fn give_back(tx: &Tx<'_>) -> rusqlite::Result<()> {
    let free: u64 = tx.sql("PRAGMA freelist_count")?.query_row([], |row| row.get(0))?;
    let pages: u64 = tx.sql("PRAGMA page_count")?.query_row([], |row| row.get(0))?;
    if free > FREE_PAGES_KEPT.max(pages / 4) {
        let mut vacuum = tx.sql(&format!("PRAGMA incremental_vacuum({FREE_PAGES_RETURNED})"))?;
        let mut steps = vacuum.query([])?;
        while steps.next()?.is_some() {}
    }
    Ok(())
}
