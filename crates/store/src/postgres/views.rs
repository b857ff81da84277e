//! Questions of people and schedulers about jobs.

use async_trait::async_trait;
use tokio_postgres::Row;

use super::attempts;
use super::reader::{Read, View};
use super::session::Db;
use super::values::{Metadata, u32_at, u32_or_none, u64_at};
use crate::jobs::{JobDetail, JobId, JobView, QueueCounts};
use crate::{Timestamp, rules};

pub(super) struct NextDue(pub(super) Vec<String>);

#[async_trait]
impl Read for NextDue {
    type Answer = Option<Timestamp>;

    async fn ask(&self, view: &View<'_>) -> Db<Option<Timestamp>> {
        let rows = view
            .session
            .query(
                "SELECT min(least(
                   (SELECT min(run_at) FROM jobs WHERE jobs.queue = queues.queue AND state IN ('scheduled', 'retrying')),
                   (SELECT min(lease_until) FROM jobs WHERE jobs.queue = queues.queue AND state = 'leased')))
                 FROM queues WHERE queue = ANY($1::text[]) AND NOT paused",
                &[&self.0],
            )
            .await?;
        rows.first().map_or(Ok(None), |row| row.try_get(0))
    }
}

pub(super) struct Get(pub(super) JobId);

#[async_trait]
impl Read for Get {
    type Answer = Option<JobDetail>;

    async fn ask(&self, view: &View<'_>) -> Db<Option<JobDetail>> {
        let Some(found) = find(view, &[self.0.0]).await?.pop() else { return Ok(None) };
        let passed = view
            .session
            .query("SELECT metadata, payload FROM payloads WHERE job_id = $1", &[&self.0.0])
            .await?;
        let (metadata, payload) = match passed.first() {
            Some(row) => (row.try_get::<_, Option<Metadata>>(0)?, row.try_get(1)?),
            None => (None, Vec::new()),
        };
        let metadata = metadata.map_or_else(Vec::new, |metadata| metadata.0);
        let attempts = attempts::of(view.session, self.0).await?;
        Ok(Some(JobDetail { view: found, payload, metadata, attempts }))
    }
}

/// The lines of these jobs in a list, in the order of their ids.
pub(super) async fn find(view: &View<'_>, ids: &[i64]) -> Db<Vec<JobView>> {
    let rows = view
        .session
        .query(
            "SELECT id, queue, state, priority, attempt, attempts_max, crashes, claim, unique_key,
                    coalesce((SELECT content_type FROM payloads WHERE job_id = id), ''), enqueued_at, run_at,
                    started_at, ended_at, last_error
             FROM jobs WHERE id = ANY($1::bigint[]) ORDER BY id",
            &[&ids],
        )
        .await?;
    rows.iter().map(|row| job_view(row, view.now)).collect()
}

fn job_view(row: &Row, now: Timestamp) -> Db<JobView> {
    let run_at = row.try_get(11)?;
    Ok(JobView {
        id: JobId(row.try_get(0)?),
        queue: row.try_get(1)?,
        state: rules::state_at(row.try_get(2)?, run_at, now),
        priority: row.try_get(3)?,
        attempt: u32_at(row, 4)?,
        attempts_max: u32_or_none(row, 5)?,
        crashes: u32_at(row, 6)?,
        claim: row.try_get(7)?,
        unique_key: row.try_get(8)?,
        content_type: row.try_get(9)?,
        enqueued_at: row.try_get(10)?,
        run_at,
        started_at: row.try_get(12)?,
        ended_at: row.try_get(13)?,
        last_error: row.try_get(14)?,
    })
}

pub(super) struct Counts;

#[async_trait]
impl Read for Counts {
    type Answer = Vec<QueueCounts>;

    async fn ask(&self, view: &View<'_>) -> Db<Vec<QueueCounts>> {
        // Jobs that have become due since the last claim are counted as people see them. The earliest of those that are
        // available is one step in their index for each priority that there is.
        let rows = view
            .session
            .query(
                "SELECT queue, scheduled - due.since_scheduled, available + due.since_scheduled + due.since_retrying, leased,
                        retrying - due.since_retrying, done, dead, cancelled, paused,
                        least(due.earliest, CASE WHEN available > 0 THEN (
                          WITH RECURSIVE best (priority, run_at) AS (
                            (SELECT priority, run_at FROM jobs WHERE jobs.queue = queues.queue AND state = 'available'
                             ORDER BY priority DESC, run_at, id LIMIT 1)
                            UNION ALL
                            SELECT next.priority, next.run_at FROM best, LATERAL (
                              SELECT priority, run_at FROM jobs
                              WHERE jobs.queue = queues.queue AND state = 'available' AND jobs.priority < best.priority
                              ORDER BY priority DESC, run_at, id LIMIT 1) AS next)
                          SELECT min(run_at) FROM best) END)
                 FROM queues, LATERAL (
                   SELECT count(*) FILTER (WHERE state = 'scheduled') AS since_scheduled,
                          count(*) FILTER (WHERE state = 'retrying') AS since_retrying, min(run_at) AS earliest
                   FROM jobs WHERE jobs.queue = queues.queue AND state IN ('scheduled', 'retrying') AND run_at <= $1) AS due
                 WHERE paused OR (scheduled, available, leased, retrying, done, dead, cancelled)
                                 <> (0, 0, 0, 0, 0, 0, 0)
                 ORDER BY queue",
                &[&view.now.0],
            )
            .await?;
        let counts = |row: &Row| {
            Ok(QueueCounts {
                queue: row.try_get(0)?,
                scheduled: u64_at(row, 1)?,
                available: u64_at(row, 2)?,
                leased: u64_at(row, 3)?,
                retrying: u64_at(row, 4)?,
                done: u64_at(row, 5)?,
                dead: u64_at(row, 6)?,
                cancelled: u64_at(row, 7)?,
                paused: row.try_get(8)?,
                oldest_waiting: row.try_get(9)?,
            })
        };
        rows.iter().map(counts).collect()
    }
}
