//! Unique keys and who holds them. They are freed by the triggers of `schema_2.sql`.

use rusqlite::{OptionalExtension, params};

use super::writer::Tx;
use crate::Timestamp;
use crate::jobs::{JobId, PRUNE_JOBS_MAX, Unique, UniqueScope};

/// The job that holds the key of this queue now.
pub(super) fn holder(tx: &Tx<'_>, queue: &str, key: &str) -> rusqlite::Result<Option<JobId>> {
    tx.sql(
        "SELECT job_id FROM unique_keys
         WHERE queue = ?1 AND key = ?2 AND (expires_at IS NULL OR expires_at > ?3)",
    )?
    .query_row(params![queue, key, tx.now], |row| row.get(0))
    .optional()
}

/// Gives a new job its key, which nobody holds; one that has expired may still be there.
pub(super) fn take(tx: &Tx<'_>, queue: &str, unique: &Unique, id: JobId) -> rusqlite::Result<()> {
    let expires_at = match unique.scope {
        UniqueScope::For(time) => Some(tx.now + time),
        UniqueScope::Waiting | UniqueScope::Running => None,
    };
    insert(tx, queue, &unique.key, id, expires_at)
}

/// The scope in `jobs.unique_scope`; how long it is `For` stands in `unique_keys`.
pub(super) fn scope_name(scope: UniqueScope) -> &'static str {
    match scope {
        UniqueScope::Waiting => "waiting",
        UniqueScope::Running => "running",
        UniqueScope::For(_) => "for",
    }
}

fn insert(
    tx: &Tx<'_>,
    queue: &str,
    key: &str,
    id: JobId,
    expires_at: Option<Timestamp>,
) -> rusqlite::Result<()> {
    tx.sql("INSERT OR REPLACE INTO unique_keys (queue, key, job_id, expires_at) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![queue, key, id, expires_at])
        .map(drop)
}

/// Gives a dead job that comes back its key of scope `Running` again; or says who else holds it by now.
pub(super) fn take_again(tx: &Tx<'_>, id: JobId) -> rusqlite::Result<Option<JobId>> {
    let wanted: Option<(String, String)> = tx
        .sql("SELECT queue, unique_key FROM jobs WHERE id = ?1 AND unique_scope = 'running' AND unique_key IS NOT NULL")?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((queue, key)) = wanted else { return Ok(None) };
    let holder = holder(tx, &queue, &key)?;
    if holder.is_none() {
        insert(tx, &queue, &key, id, None)?;
    }
    Ok(holder)
}

/// Takes its key from a job that is discarded.
pub(super) fn free(tx: &Tx<'_>, id: JobId) -> rusqlite::Result<()> {
    tx.sql(
        "DELETE FROM unique_keys WHERE job_id = ?1
           AND (queue, key) = (SELECT queue, unique_key FROM jobs WHERE id = ?1)",
    )?
    .execute([id])
    .map(drop)
}

/// Deletes keys that have expired, a bounded number of them; says how many.
pub(super) fn prune(tx: &Tx<'_>) -> rusqlite::Result<u64> {
    let deleted = tx
        .sql(
            "DELETE FROM unique_keys WHERE (queue, key) IN (
               SELECT queue, key FROM unique_keys INDEXED BY unique_keys_expiring
               WHERE expires_at IS NOT NULL AND expires_at <= ?1 ORDER BY expires_at LIMIT ?2)",
        )?
        .execute(params![tx.now, PRUNE_JOBS_MAX])?;
    Ok(deleted as u64)
}
