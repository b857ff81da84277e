//! Leases begin to be used, are renewed, run out, or are freed.

use std::time::Duration;

use rusqlite::{OptionalExtension, Params, Row, params};

use super::attempts;
use super::operation::Write;
use super::writer::Tx;
use crate::jobs::{AttemptEnd, JobState, Lease};
use crate::rules;

/// How many leases of a queue are taken back in one transaction.
const EXPIRED_MAX: u32 = 512;

/// A job's call begins.
pub(super) struct Begin(pub(super) Lease);

impl Write for Begin {
    type Answer = bool;

    fn apply(&self, tx: &Tx<'_>) -> rusqlite::Result<bool> {
        let key: Option<(String, Option<String>, bool)> = tx
            .sql(
                "SELECT queue, unique_key, unique_scope IS 'waiting' FROM jobs
                 WHERE id = ?1 AND claim = ?2 AND state = 'leased'",
            )?
            .query_row(params![self.0.id, self.0.claim], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let Some((queue, key, is_waiting)) = key else { return Ok(false) };
        if is_waiting {
            tx.sql("DELETE FROM unique_keys WHERE queue = ?1 AND key = ?2 AND job_id = ?3")?
                .execute(params![queue, key, self.0.id])?;
        }
        Ok(true)
    }
}

pub(super) struct Renew {
    pub(super) leases: Vec<Lease>,
    pub(super) lease: Duration,
}

impl Write for Renew {
    type Answer = Vec<Lease>;

    fn rows(&self) -> usize {
        self.leases.len()
    }

    fn apply(&self, tx: &Tx<'_>) -> rusqlite::Result<Vec<Lease>> {
        let until = tx.steady + self.lease;
        let mut renew =
            tx.sql("UPDATE jobs SET lease_until = ?3 WHERE id = ?1 AND claim = ?2 AND state = 'leased'")?;
        let mut lost = Vec::new();
        for lease in &self.leases {
            if renew.execute(params![lease.id, lease.claim, until])? == 0 {
                lost.push(*lease);
            }
        }
        Ok(lost)
    }
}

/// Takes back the leases of a queue that ran out, but for those whose calls still run here: `lease` is how long those
/// are valid again.
pub(super) fn expire(tx: &Tx<'_>, queue: &str, lease: Duration) -> rusqlite::Result<()> {
    let mut expired = find(
        tx,
        "SELECT id, claim, attempt, coalesce(attempts_max, attempt) FROM jobs INDEXED BY jobs_leased
         WHERE queue = ?1 AND state = 'leased' AND lease_until <= ?2 ORDER BY lease_until LIMIT ?3",
        params![queue, tx.steady, EXPIRED_MAX],
    )?;
    let held: Vec<Lease> =
        expired.extract_if(.., |held| tx.is_held(held.lease)).map(|held| held.lease).collect();
    if !held.is_empty() {
        tracing::warn!(
            leases = held.len(),
            "leases of calls under way could not be renewed in time, and are now"
        );
        Renew { leases: held, lease }.apply(tx)?;
    }
    interrupt(tx, &expired, AttemptEnd::LeaseLost, rules::LEASE_RAN_OUT)
}

pub(super) struct FreeLeases {
    pub(super) prefix: String,
}

impl Write for FreeLeases {
    type Answer = u64;

    fn apply(&self, tx: &Tx<'_>) -> rusqlite::Result<u64> {
        // Goes through all leases, of which there are no more than calls that ran at once.
        let owned = find(
            tx,
            "SELECT id, claim, attempt, coalesce(attempts_max, attempt) FROM jobs INDEXED BY jobs_leased
             WHERE state = 'leased' AND substr(lease_owner, 1, length(?1)) = ?1",
            [&self.prefix],
        )?;
        interrupt(tx, &owned, AttemptEnd::Interrupted, rules::HOST_STOPPED)?;
        Ok(owned.len() as u64)
    }
}

/// A leased job.
struct Leased {
    lease: Lease,
    attempt: u32,
    attempts_max: u32,
}

fn find(tx: &Tx<'_>, sql: &str, params: impl Params) -> rusqlite::Result<Vec<Leased>> {
    let leased = |row: &Row<'_>| {
        let lease = Lease { id: row.get(0)?, claim: row.get(1)? };
        Ok(Leased { lease, attempt: row.get(2)?, attempts_max: row.get(3)? })
    };
    tx.sql(sql)?.query_map(params, leased)?.collect()
}

/// Ends attempts without an answer. They count; with none left the job is dead.
fn interrupt(tx: &Tx<'_>, jobs: &[Leased], end: AttemptEnd, why: &str) -> rusqlite::Result<()> {
    for Leased { lease: Lease { id, .. }, attempt, attempts_max } in jobs {
        let last = attempt >= attempts_max;
        let state = if last { JobState::Dead } else { JobState::Available };
        let error = rules::interrupted(*attempt, *attempts_max, why);
        attempts::record(tx, *id, end, Some(&error))?;
        tx.sql(
            "UPDATE jobs SET state = ?2, ended_at = ?3, last_error = ?4, lease_owner = NULL, lease_until = NULL
             WHERE id = ?1",
        )?
        .execute(params![id, state, last.then_some(tx.now), error])?;
        tx.awake();
    }
    Ok(())
}
