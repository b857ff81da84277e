//! The history of attempts that didn't end well. One that did its job writes nothing here.

use rusqlite::{Connection, Row, params};

use super::writer::Tx;
use crate::jobs::{ATTEMPTS_KEPT, AttemptEnd, AttemptView, JobId};

/// Keeps how a leased job's attempt ended, before the job itself is changed.
pub(super) fn record(tx: &Tx<'_>, id: JobId, end: AttemptEnd, error: Option<&str>) -> rusqlite::Result<()> {
    tx.sql(
        "INSERT OR REPLACE INTO attempts (job_id, claim, attempt, owner, started_at, ended_at, outcome, error)
         SELECT id, claim, attempt, coalesce(lease_owner, ''), started_at, ?2, ?3, ?4 FROM jobs WHERE id = ?1",
    )?
    .execute(params![id, tx.now, end, error])?;
    // Each claim leaves at most one, so that no more need counting.
    tx.sql("DELETE FROM attempts WHERE job_id = ?1 AND claim <= (SELECT claim FROM jobs WHERE id = ?1) - ?2")?
        .execute(params![id, ATTEMPTS_KEPT])
        .map(drop)
}

/// Those of a job, oldest first.
pub(super) fn of(connection: &Connection, id: JobId) -> rusqlite::Result<Vec<AttemptView>> {
    connection
        .prepare_cached(
            "SELECT claim, attempt, owner, started_at, ended_at, outcome, error FROM attempts
             WHERE job_id = ?1 ORDER BY claim",
        )?
        .query_map([id], attempt)?
        .collect()
}

fn attempt(row: &Row<'_>) -> rusqlite::Result<AttemptView> {
    Ok(AttemptView {
        claim: row.get(0)?,
        attempt: row.get(1)?,
        owner: row.get(2)?,
        started_at: row.get(3)?,
        ended_at: row.get(4)?,
        end: row.get(5)?,
        error: row.get(6)?,
    })
}
