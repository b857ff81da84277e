//! The history of attempts that didn't end well. One that did its job writes nothing here.

use super::session::{Db, Session};
use super::tx::Tx;
use super::values::u32_at;
use crate::jobs::{ATTEMPTS_KEPT, AttemptEnd, AttemptView, JobId};

/// Keeps how a leased job's attempt ended, before the job itself is changed.
pub(super) async fn record(tx: &Tx<'_>, id: JobId, end: AttemptEnd, error: Option<&str>) -> Db<()> {
    tx.execute(
        "INSERT INTO attempts (job_id, claim, attempt, owner, started_at, ended_at, outcome, error)
         SELECT id, claim, attempt, coalesce(lease_owner, ''), started_at, $2, $3, $4 FROM jobs WHERE id = $1
         ON CONFLICT (job_id, claim) DO UPDATE SET ended_at = excluded.ended_at, outcome = excluded.outcome,
                                                   error = excluded.error",
        &[&id.0, &tx.now.0, &end.name(), &error],
    )
    .await?;
    // Each claim leaves at most one, so that no more need counting.
    tx.execute(
        "DELETE FROM attempts WHERE job_id = $1 AND claim <= (SELECT claim FROM jobs WHERE id = $1) - $2::bigint",
        &[&id.0, &i64::from(ATTEMPTS_KEPT)],
    )
    .await
    .map(drop)
}

/// Those of a job, oldest first.
pub(super) async fn of(session: &Session, id: JobId) -> Db<Vec<AttemptView>> {
    let rows = session
        .query(
            "SELECT claim, attempt, owner, started_at, ended_at, outcome, error FROM attempts
             WHERE job_id = $1 ORDER BY claim",
            &[&id.0],
        )
        .await?;
    let attempt = |row: &tokio_postgres::Row| {
        Ok(AttemptView {
            claim: row.try_get(0)?,
            attempt: u32_at(row, 1)?,
            owner: row.try_get(2)?,
            started_at: row.try_get(3)?,
            ended_at: row.try_get(4)?,
            end: row.try_get(5)?,
            error: row.try_get(6)?,
        })
    };
    rows.iter().map(attempt).collect()
}
