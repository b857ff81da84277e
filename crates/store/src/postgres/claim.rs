//! Jobs go out: leases that ran out and jobs that have become due are seen to first, then the best are taken. Rows that other
//! hosts' transactions have locked are passed over.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;

use super::leases;
use super::operation::{self, Operation, Waiting, Write};
use super::session::Db;
use super::settle::Release;
use super::shared::Shared;
use super::tx::Tx;
use super::values::{Metadata, integer, u32_at};
use super::{Door, WeakDoor};
use crate::jobs::{BATCH_BYTES_MAX, CLAIM_JOBS_MAX, Claim, ClaimQueue, JobId, JobState, Lease, LeasedJob};
use crate::rules;

/// A claim writes up to as many rows as it may take jobs, and often far fewer: this part of them counts.
const ROWS_PART: usize = 8;

/// How many jobs of a queue one transaction moves to available.
const PROMOTED_MAX: i64 = 512;

pub(super) struct ClaimJobs {
    claim: Claim,
    door: Arc<WeakDoor>,
}

impl ClaimJobs {
    pub(super) fn new(mut claim: Claim, door: &Door) -> ClaimJobs {
        claim.limit = claim.limit.clamp(1, CLAIM_JOBS_MAX);
        ClaimJobs { claim, door: Arc::new(door.downgrade()) }
    }
}

#[async_trait(?Send)]
impl Write for ClaimJobs {
    type Answer = Handover;

    fn rows(&self) -> usize {
        1 + self.claim.limit as usize / ROWS_PART
    }

    async fn apply(&self, tx: &Tx<'_>) -> Db<Handover> {
        tx.shared.claims_as(&self.claim.owner, self.claim.lease);
        let queues = self.claim.queues.iter().map(|queue| queue.name.as_str());
        let unseen: Vec<&str> = queues.filter(|queue| tx.first_look(queue)).collect();
        if !unseen.is_empty() {
            leases::expire(tx, &unseen, self.claim.lease).await?;
            promote(tx, &unseen).await?;
        }
        let mut room = Room { jobs: self.claim.limit as usize, bytes: BATCH_BYTES_MAX };
        let mut jobs = Vec::new();
        for queue in rules::draw_order(&self.claim.queues) {
            if room.jobs == 0 || room.bytes == 0 {
                break;
            }
            take(tx, &self.claim, queue, &mut room, &mut jobs).await?;
        }
        Ok(Handover { jobs, door: self.door.clone(), armed: false })
    }

    fn committed(handover: &mut Handover) {
        handover.armed = true;
    }

    /// The jobs go back as soon as the server is in reach again.
    fn is_unsure(&mut self, answer: Option<Handover>, _shared: &Shared) -> bool {
        if let Some(mut handover) = answer {
            handover.armed = true;
        }
        false
    }
}

/// Locks the queues of these claims that have a concurrency, whose leased jobs are counted.
pub(super) async fn lock_limited(tx: &Tx<'_>, claims: &[&mut Waiting<ClaimJobs>]) -> Db<()> {
    let queues = claims.iter().flat_map(|waiting| &waiting.write.claim.queues);
    let limited: BTreeSet<String> =
        queues.filter(|queue| queue.concurrency.is_some()).map(|queue| queue.name.clone()).collect();
    limited.iter().for_each(|queue| tx.shared.is_limited(queue));
    tx.lock("concurrency", &limited).await
}

/// The room that a claim still has.
struct Room {
    jobs: usize,
    bytes: usize,
}

/// Makes what has become due available.
async fn promote(tx: &Tx<'_>, queues: &[&str]) -> Db<()> {
    let moved = tx
        .query(
            "WITH due AS MATERIALIZED (
               SELECT id, state FROM jobs
               WHERE queue = ANY($1::text[]) AND state IN ('scheduled', 'retrying') AND run_at <= $2
               ORDER BY run_at LIMIT $3 FOR UPDATE SKIP LOCKED)
             UPDATE jobs SET state = 'available' FROM due WHERE jobs.id = due.id
             RETURNING jobs.queue, due.state, jobs.bytes",
            &[&queues, &tx.now.0, &PROMOTED_MAX],
        )
        .await?;
    for row in moved {
        let queue: &str = row.try_get(0)?;
        tx.moves(queue, Some(row.try_get(1)?), Some(JobState::Available), row.try_get(2)?);
        // This claim may not take them all.
        tx.awake(queue);
    }
    Ok(())
}

/// How many jobs of this queue may be taken now, of those that are wanted. The queue is locked where it has a concurrency.
async fn allowed(tx: &Tx<'_>, queue: &ClaimQueue, wanted: usize) -> Db<usize> {
    let Some(concurrency) = queue.concurrency else { return Ok(wanted) };
    let rows = tx
        .query(
            "SELECT count(*), EXISTS (SELECT 1 FROM jobs WHERE queue = $1 AND state = 'available')
             FROM jobs WHERE queue = $1 AND state = 'leased'",
            &[&queue.name],
        )
        .await?;
    let Some(row) = rows.first() else { return Ok(0) };
    let leased = usize::try_from(row.try_get::<_, i64>(0)?).unwrap_or(usize::MAX);
    let free = (concurrency as usize).saturating_sub(leased);
    if free < wanted && row.try_get(1)? {
        tx.shared.hold_back(&queue.name);
    }
    Ok(wanted.min(free))
}

/// Leases the best of one queue.
async fn take(
    tx: &Tx<'_>,
    claim: &Claim,
    queue: &ClaimQueue,
    room: &mut Room,
    taken: &mut Vec<LeasedJob>,
) -> Db<()> {
    let allowed = allowed(tx, queue, room.jobs).await?;
    if allowed == 0 {
        return Ok(());
    }
    let (limit, bytes) = (i64::try_from(allowed).unwrap_or(1), i64::try_from(room.bytes).unwrap_or(i64::MAX));
    let rows = tx
        .query(
            "WITH picked AS MATERIALIZED (
               SELECT id, priority, run_at, payload_bytes FROM jobs
               WHERE queue = $1 AND state = 'available'
                 AND NOT EXISTS (SELECT 1 FROM queues WHERE queues.queue = $1 AND paused)
               ORDER BY priority DESC, run_at, id LIMIT $2 FOR UPDATE OF jobs SKIP LOCKED),
             fitting AS MATERIALIZED (
               SELECT id FROM (
                 SELECT id, sum(payload_bytes) OVER best AS total, row_number() OVER best AS place FROM picked
                 WINDOW best AS (ORDER BY priority DESC, run_at, id)) AS sized
               WHERE total <= $3::bigint OR place = 1 AND $4::boolean),
             leased AS (
               UPDATE jobs SET state = 'leased', claim = claim + 1, attempt = attempt + 1,
                               attempts_max = greatest(coalesce(attempts_asked, $5::integer), attempt + 1),
                               lease_owner = $6, lease_until = $7, started_at = $8
               FROM fitting WHERE jobs.id = fitting.id
               RETURNING jobs.id, claim, attempt, attempts_max, crashes, enqueued_at, run_at, priority,
                         coalesce(unique_scope = 'waiting', false) AS holds_key, alone, bytes)
             SELECT id, claim, attempt, attempts_max, crashes, enqueued_at, run_at, holds_key, alone, bytes,
                    coalesce(content_type, ''), metadata, coalesce(payload, ''::bytea)
             FROM leased LEFT JOIN payloads ON job_id = id ORDER BY priority DESC, run_at, id",
            &[
                &queue.name,
                &limit,
                &bytes,
                &taken.is_empty(),
                &integer(claim.attempts_default),
                &claim.owner,
                &(tx.now + claim.lease).0,
                &tx.now.0,
            ],
        )
        .await?;
    for row in rows {
        let payload: Vec<u8> = row.try_get(12)?;
        room.jobs = room.jobs.saturating_sub(1);
        room.bytes = room.bytes.saturating_sub(payload.len());
        tx.moves(&queue.name, Some(JobState::Available), Some(JobState::Leased), row.try_get(9)?);
        taken.push(LeasedJob {
            lease: Lease { id: JobId(row.try_get(0)?), claim: row.try_get(1)? },
            queue: queue.name.clone(),
            attempt: u32_at(&row, 2)?,
            attempts_max: u32_at(&row, 3)?,
            crashes: u32_at(&row, 4)?,
            enqueued_at: row.try_get(5)?,
            due_at: row.try_get(6)?,
            holds_key: row.try_get(7)?,
            alone: row.try_get(8)?,
            content_type: row.try_get(10)?,
            metadata: row.try_get::<_, Option<Metadata>>(11)?.map_or_else(Vec::new, |metadata| metadata.0),
            payload,
        });
    }
    Ok(())
}

/// Claimed jobs on their way to the one who asked. If that one is gone by then (its future was dropped), they go
/// back at once, instead of when their leases run out.
pub(super) struct Handover {
    jobs: Vec<LeasedJob>,
    door: Arc<WeakDoor>,
    /// False until the claim is committed: before that there is nothing to give back.
    armed: bool,
}

impl Handover {
    pub(super) fn accept(mut self) -> Vec<LeasedJob> {
        std::mem::take(&mut self.jobs)
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        for job in &self.jobs {
            // A full line of operations is no place to wait in: then the lease runs out, as it would without this.
            let (waiting, answer) = operation::waiting(Release { lease: job.lease, begun: false });
            // Nobody waits for the answer, and it is to be done all the same.
            self.door.try_send(Operation::Other(Box::new(operation::Unheard { waiting, _answer: answer })));
        }
    }
}
