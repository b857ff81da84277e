//! What people and schedulers ask, on the reading thread.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::Timestamp;
use crate::jobs::{JobId, JobView, QueueCounts};
use crate::rules;

pub(super) fn next_due(connection: &Connection, queues: &[String]) -> rusqlite::Result<Option<Timestamp>> {
    let mut ask = connection.prepare_cached(
        "SELECT min(due) FROM (
           SELECT min(run_at) AS due FROM jobs INDEXED BY jobs_waiting
           WHERE queue = ?1 AND state IN ('scheduled', 'retrying')
           UNION ALL
           SELECT min(lease_until) FROM jobs INDEXED BY jobs_leased WHERE queue = ?1 AND state = 'leased')",
    )?;
    let mut earliest: Option<Timestamp> = None;
    for queue in queues {
        let due: Option<Timestamp> = ask.query_row([queue], |row| row.get(0))?;
        earliest = earliest.into_iter().chain(due).min();
    }
    Ok(earliest)
}

pub(super) fn get(
    connection: &Connection,
    now: Timestamp,
    id: JobId,
) -> rusqlite::Result<Option<(JobView, Vec<u8>)>> {
    connection
        .prepare_cached(
            "SELECT id, queue, state, priority, attempt, attempts_max, crashes, claim, unique_key,
                    coalesce(content_type, ''), enqueued_at, run_at, ended_at, last_error, coalesce(payload, x'')
             FROM jobs LEFT JOIN payloads ON job_id = id WHERE id = ?1",
        )?
        .query_row([id], |row| Ok((view(row, now)?, row.get(14)?)))
        .optional()
}

fn view(row: &Row<'_>, now: Timestamp) -> rusqlite::Result<JobView> {
    let run_at = row.get(11)?;
    Ok(JobView {
        id: row.get(0)?,
        queue: row.get(1)?,
        state: rules::state_at(row.get(2)?, run_at, now),
        priority: row.get(3)?,
        attempt: row.get(4)?,
        attempts_max: row.get(5)?,
        crashes: row.get(6)?,
        claim: row.get(7)?,
        unique_key: row.get(8)?,
        content_type: row.get(9)?,
        enqueued_at: row.get(10)?,
        run_at,
        ended_at: row.get(12)?,
        last_error: row.get(13)?,
    })
}

pub(super) fn counts(connection: &Connection, now: Timestamp) -> rusqlite::Result<Vec<QueueCounts>> {
    let mut ask = connection.prepare_cached(
        "SELECT queue, scheduled, available, leased, retrying, done, dead, cancelled FROM queues
         WHERE scheduled + available + leased + retrying + done + dead + cancelled > 0 ORDER BY queue",
    )?;
    // What has become due since the last claim; see `rules::state_at`.
    let mut ask_due = connection.prepare_cached(
        "SELECT coalesce(sum(state = 'scheduled'), 0), coalesce(sum(state = 'retrying'), 0)
         FROM jobs INDEXED BY jobs_waiting
         WHERE queue = ?1 AND state IN ('scheduled', 'retrying') AND run_at <= ?2",
    )?;
    // Both in one transaction, or a claim between them would be counted on one side only.
    let snapshot = connection.unchecked_transaction()?;
    let mut all: Vec<QueueCounts> = ask.query_map([], queue_counts)?.collect::<rusqlite::Result<_>>()?;
    for counts in &mut all {
        let (scheduled, retrying): (u64, u64) =
            ask_due.query_row(params![counts.queue, now], |row| Ok((row.get(0)?, row.get(1)?)))?;
        counts.scheduled = counts.scheduled.saturating_sub(scheduled);
        counts.retrying = counts.retrying.saturating_sub(retrying);
        counts.available += scheduled + retrying;
    }
    snapshot.finish()?;
    Ok(all)
}

fn queue_counts(row: &Row<'_>) -> rusqlite::Result<QueueCounts> {
    Ok(QueueCounts {
        queue: row.get(0)?,
        scheduled: row.get(1)?,
        available: row.get(2)?,
        leased: row.get(3)?,
        retrying: row.get(4)?,
        done: row.get(5)?,
        dead: row.get(6)?,
        cancelled: row.get(7)?,
    })
}
