//! Questions of people and schedulers, on the reading thread.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::attempts;
use super::values::Metadata;
use crate::Timestamp;
use crate::clock::Moment;
use crate::jobs::{JobDetail, JobId, JobView, QueueCounts};
use crate::rules;

pub(super) fn next_due(
    connection: &Connection,
    moment: Moment,
    queues: &[String],
) -> rusqlite::Result<Option<Timestamp>> {
    let mut ask = connection.prepare_cached(
        "SELECT (SELECT min(run_at) FROM jobs INDEXED BY jobs_waiting
                 WHERE queue = ?1 AND state IN ('scheduled', 'retrying')),
                (SELECT min(lease_until) FROM jobs INDEXED BY jobs_leased WHERE queue = ?1 AND state = 'leased')
         FROM queues WHERE queue = ?1 AND paused = 0",
    )?;
    let mut earliest: Option<Timestamp> = None;
    for queue in queues {
        let due: Option<(Option<Timestamp>, Option<Timestamp>)> =
            ask.query_row([queue], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let (waiting, leased) = due.unwrap_or_default();
        let leased = leased.map(|until| moment.on_the_wall(until));
        earliest = earliest.into_iter().chain(waiting).chain(leased).min();
    }
    Ok(earliest)
}

pub(super) fn get(connection: &Connection, now: Timestamp, id: JobId) -> rusqlite::Result<Option<JobDetail>> {
    let snapshot = connection.unchecked_transaction()?;
    let Some(view) = find(connection, now, id)? else { return Ok(None) };
    let passed = connection
        .prepare_cached("SELECT metadata, payload FROM payloads WHERE job_id = ?1")?
        .query_row([id], |row| Ok((row.get::<_, Metadata>(0)?.0, row.get(1)?)))
        .optional()?;
    let (metadata, payload) = passed.unwrap_or_default();
    let attempts = attempts::of(connection, id)?;
    snapshot.finish()?;
    Ok(Some(JobDetail { view, payload, metadata, attempts }))
}

/// One job's line in a list.
pub(super) fn find(connection: &Connection, now: Timestamp, id: JobId) -> rusqlite::Result<Option<JobView>> {
    connection
        .prepare_cached(
            "SELECT id, queue, state, priority, attempt, attempts_max, crashes, claim, unique_key,
                    coalesce((SELECT content_type FROM payloads WHERE job_id = id), ''), enqueued_at, run_at,
                    started_at, ended_at, last_error
             FROM jobs WHERE id = ?1",
        )?
        .query_row([id], |row| view(row, now))
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
        started_at: row.get(12)?,
        ended_at: row.get(13)?,
        last_error: row.get(14)?,
    })
}

pub(super) fn counts(connection: &Connection, now: Timestamp) -> rusqlite::Result<Vec<QueueCounts>> {
    let mut ask = connection.prepare_cached(
        "SELECT queue, scheduled, available, leased, retrying, done, dead, cancelled, paused FROM queues
         WHERE scheduled + available + leased + retrying + done + dead + cancelled + paused > 0 ORDER BY queue",
    )?;
    // Jobs that have become due since the last claim; see `rules::state_at`.
    let mut ask_due = connection.prepare_cached(
        "SELECT coalesce(sum(state = 'scheduled'), 0), coalesce(sum(state = 'retrying'), 0), min(run_at)
         FROM jobs INDEXED BY jobs_waiting
         WHERE queue = ?1 AND state IN ('scheduled', 'retrying') AND run_at <= ?2",
    )?;
    // Both in one transaction, or a claim between them would be counted on one side only.
    let snapshot = connection.unchecked_transaction()?;
    let mut all: Vec<QueueCounts> = ask.query_map([], queue_counts)?.collect::<rusqlite::Result<_>>()?;
    for counts in &mut all {
        let oldest = oldest_available(connection, counts)?;
        let (scheduled, retrying, due): (u64, u64, Option<Timestamp>) = ask_due
            .query_row(params![counts.queue, now], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        counts.scheduled = counts.scheduled.saturating_sub(scheduled);
        counts.retrying = counts.retrying.saturating_sub(retrying);
        counts.available += scheduled + retrying;
        counts.oldest_waiting = oldest.into_iter().chain(due).min();
    }
    snapshot.finish()?;
    Ok(all)
}

/// The earliest `run_at` of a queue's available jobs. Their index is by priority first: so one step for each priority
/// that there is.
fn oldest_available(connection: &Connection, counts: &QueueCounts) -> rusqlite::Result<Option<Timestamp>> {
    if counts.available == 0 {
        return Ok(None);
    }
    let mut ask = connection.prepare_cached(
        "SELECT priority, run_at FROM jobs INDEXED BY jobs_available
         WHERE queue = ?1 AND state = 'available' AND priority < ?2 ORDER BY priority DESC, run_at LIMIT 1",
    )?;
    let mut oldest: Option<Timestamp> = None;
    let mut above = i64::MAX;
    while let Some((priority, run_at)) =
        ask.query_row(params![counts.queue, above], |row| Ok((row.get(0)?, row.get(1)?))).optional()?
    {
        above = priority;
        oldest = oldest.into_iter().chain(Some(run_at)).min();
    }
    Ok(oldest)
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
        paused: row.get(8)?,
        oldest_waiting: None,
    })
}
