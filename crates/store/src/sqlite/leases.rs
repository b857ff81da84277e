//! Leases are renewed, run out, or are freed.

use std::time::Duration;

use rusqlite::{Params, params};

use super::attempts;
use super::writer::{Tx, Write};
use crate::jobs::{AttemptEnd, JobId, JobState, Lease};
use crate::rules;

/// How many leases of a queue are taken back in one transaction.
const EXPIRED_MAX: u32 = 512;

pub(super) struct Renew {
    pub(super) leases: Vec<Lease>,
    pub(super) lease: Duration,
}

impl Write for Renew {
    type Answer = Vec<Lease>;

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

/// Takes back the leases of a queue that ran out.
pub(super) fn expire(tx: &Tx<'_>, queue: &str) -> rusqlite::Result<()> {
    let expired = find(
        tx,
        "SELECT id, attempt, coalesce(attempts_max, attempt) FROM jobs INDEXED BY jobs_leased
         WHERE queue = ?1 AND state = 'leased' AND lease_until <= ?2 ORDER BY lease_until LIMIT ?3",
        params![queue, tx.steady, EXPIRED_MAX],
    )?;
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
            "SELECT id, attempt, coalesce(attempts_max, attempt) FROM jobs INDEXED BY jobs_leased
             WHERE state = 'leased' AND substr(lease_owner, 1, length(?1)) = ?1",
            [&self.prefix],
        )?;
        interrupt(tx, &owned, AttemptEnd::Interrupted, rules::HOST_STOPPED)?;
        Ok(owned.len() as u64)
    }
}

/// A leased job, its attempt, and how many it has at most.
type Held = (JobId, u32, u32);

fn find(tx: &Tx<'_>, sql: &str, params: impl Params) -> rusqlite::Result<Vec<Held>> {
    tx.sql(sql)?.query_map(params, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
}

/// Ends attempts without an answer. They count; with none left the job is dead.
fn interrupt(tx: &Tx<'_>, jobs: &[Held], end: AttemptEnd, why: &str) -> rusqlite::Result<()> {
    for (id, attempt, attempts_max) in jobs {
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
