//! Jobs go out: leases that ran out and jobs that have become due are seen to first, then the best are taken.

use std::sync::Arc;

use rusqlite::{OptionalExtension, params};

use super::WeakDoor;
use super::leases;
use super::operation::{self, Write};
use super::settle::Release;
use super::values::Metadata;
use super::writer::Tx;
use crate::jobs::{BATCH_BYTES_MAX, CLAIM_JOBS_MAX, Claim, ClaimQueue, JobId, Lease, LeasedJob};
use crate::rules;

/// A claim writes up to as many rows as it may take jobs, and often far fewer: this part of them counts.
const ROWS_PART: usize = 8;

/// How many jobs of a queue one transaction moves to available. When more become due at the same moment, those that
/// follow move the rest; until then priority holds among those that were moved.
const PROMOTED_MAX: u32 = 512;

pub(super) struct ClaimJobs {
    claim: Claim,
    door: Arc<WeakDoor>,
}

impl ClaimJobs {
    pub(super) fn new(mut claim: Claim, door: WeakDoor) -> ClaimJobs {
        claim.limit = claim.limit.clamp(1, CLAIM_JOBS_MAX);
        ClaimJobs { claim, door: Arc::new(door) }
    }
}

impl Write for ClaimJobs {
    type Answer = Handover;

    fn rows(&self) -> usize {
        1 + self.claim.limit as usize / ROWS_PART
    }

    fn apply(&self, tx: &Tx<'_>) -> rusqlite::Result<Handover> {
        for ClaimQueue { name, .. } in &self.claim.queues {
            if tx.first_look(name) {
                leases::expire(tx, name, self.claim.lease)?;
                promote(tx, name)?;
            }
        }
        let mut room = Room { jobs: self.claim.limit as usize, bytes: BATCH_BYTES_MAX };
        let mut jobs = Vec::new();
        for queue in rules::draw_order(&self.claim.queues) {
            if room.jobs == 0 || room.bytes == 0 {
                break;
            }
            take(tx, &self.claim, queue, &mut room, &mut jobs)?;
        }
        Ok(Handover { jobs, door: self.door.clone(), armed: false })
    }

    fn committed(handover: &mut Handover) {
        handover.armed = true;
    }
}

/// The room that a claim still has.
struct Room {
    jobs: usize,
    bytes: usize,
}

/// Makes what has become due available.
fn promote(tx: &Tx<'_>, queue: &str) -> rusqlite::Result<()> {
    let moved = tx
        .sql(
            "UPDATE jobs SET state = 'available' WHERE id IN (
               SELECT id FROM jobs INDEXED BY jobs_waiting
               WHERE queue = ?1 AND state IN ('scheduled', 'retrying') AND run_at <= ?2 ORDER BY run_at LIMIT ?3)",
        )?
        .execute(params![queue, tx.now, PROMOTED_MAX])?;
    if moved > 0 {
        // This claim may not take them all.
        tx.awake();
    }
    Ok(())
}

/// How many jobs of this queue may be taken now, of those that are wanted.
fn allowed(tx: &Tx<'_>, queue: &ClaimQueue, wanted: usize) -> rusqlite::Result<usize> {
    let found: Option<(usize, usize)> = tx
        .sql("SELECT available, leased FROM queues WHERE queue = ?1 AND paused = 0")?
        .query_row([&queue.name], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((available, leased)) = found else { return Ok(0) };
    let wanted = wanted.min(available);
    let Some(concurrency) = queue.concurrency else { return Ok(wanted) };
    let free = (concurrency as usize).saturating_sub(leased);
    if free < wanted {
        tx.hold_back(&queue.name);
    }
    Ok(wanted.min(free))
}

/// Leases the best of one queue.
fn take(
    tx: &Tx<'_>,
    claim: &Claim,
    queue: &ClaimQueue,
    room: &mut Room,
    taken: &mut Vec<LeasedJob>,
) -> rusqlite::Result<()> {
    let allowed = allowed(tx, queue, room.jobs)?;
    if allowed == 0 {
        return Ok(());
    }
    let mut find = tx.sql(
        "SELECT id, claim + 1, attempt + 1, attempts_asked, crashes, enqueued_at,
                coalesce(content_type, ''), metadata, coalesce(payload, x''), unique_scope IS 'waiting', alone, run_at
         FROM jobs INDEXED BY jobs_available LEFT JOIN payloads ON job_id = id
         WHERE queue = ?1 AND state = 'available' ORDER BY priority DESC, run_at, id LIMIT ?2",
    )?;
    let mut rows = find.query(params![queue.name, allowed])?;
    let first = taken.len();
    while let Some(row) = rows.next()? {
        let attempt = row.get(2)?;
        let payload: Vec<u8> = row.get(8)?;
        if payload.len() > room.bytes && !taken.is_empty() {
            room.bytes = 0;
            break;
        }
        room.jobs -= 1;
        room.bytes = room.bytes.saturating_sub(payload.len());
        taken.push(LeasedJob {
            lease: Lease { id: JobId(row.get(0)?), claim: row.get(1)? },
            queue: queue.name.clone(),
            attempt,
            attempts_max: rules::attempts_max(row.get(3)?, claim.attempts_default, attempt),
            crashes: row.get(4)?,
            enqueued_at: row.get(5)?,
            content_type: row.get(6)?,
            metadata: row.get::<_, Metadata>(7)?.0,
            payload,
            holds_key: row.get(9)?,
            alone: row.get(10)?,
            due_at: row.get(11)?,
        });
    }
    drop(rows);

    let mut lease = tx.sql(
        "UPDATE jobs SET state = 'leased', claim = ?2, attempt = ?3, attempts_max = ?4, lease_owner = ?5,
                         lease_until = ?6, started_at = ?7
         WHERE id = ?1",
    )?;
    for job in &taken[first..] {
        let until = tx.steady + claim.lease;
        lease.execute(params![
            job.lease.id,
            job.lease.claim,
            job.attempt,
            job.attempts_max,
            claim.owner,
            until,
            tx.now
        ])?;
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
        if !self.armed || self.jobs.is_empty() {
            return;
        }
        for job in &self.jobs {
            // A full line of operations is no place to wait in: then the lease runs out, as it would without this.
            self.door.try_send(operation::operation(Release { lease: job.lease, begun: false }).0);
        }
    }
}
