//! Leases are renewed, run out, or are freed.

use std::time::Duration;

use rusqlite::params;

use super::writer::{Tx, Write};
use crate::jobs::Lease;
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
        let until = tx.now + self.lease;
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

/// The attempt counts; with none left the job is dead, and says why. The text is that of `rules::interrupted`.
const INTERRUPT: &str = "UPDATE jobs SET
    state = CASE WHEN attempt >= attempts_max THEN 'dead' ELSE 'available' END,
    ended_at = CASE WHEN attempt >= attempts_max THEN :now END,
    last_error = 'attempt ' || attempt || ' of ' || attempts_max || ' was interrupted: ' || :why
                 || CASE WHEN attempt >= attempts_max THEN '; no attempts are left' ELSE '' END,
    lease_owner = NULL, lease_until = NULL
  WHERE id IN";

/// Takes back the leases of a queue that ran out.
pub(super) fn expire(tx: &Tx<'_>, queue: &str) -> rusqlite::Result<()> {
    const EXPIRED: &str = "(SELECT id FROM jobs INDEXED BY jobs_leased
        WHERE queue = :queue AND state = 'leased' AND lease_until <= :now ORDER BY lease_until LIMIT :max)";
    let freed = tx.sql(&format!("{INTERRUPT} {EXPIRED}"))?.execute(rusqlite::named_params! {
        ":now": tx.now, ":why": rules::LEASE_RAN_OUT, ":queue": queue, ":max": EXPIRED_MAX,
    })?;
    if freed > 0 {
        tx.awake();
    }
    Ok(())
}

pub(super) struct FreeLeases {
    pub(super) prefix: String,
}

impl Write for FreeLeases {
    type Answer = u64;

    fn apply(&self, tx: &Tx<'_>) -> rusqlite::Result<u64> {
        // Goes through all leases, of which there are no more than calls that ran at once.
        const OWNED: &str = "(SELECT id FROM jobs INDEXED BY jobs_leased
            WHERE state = 'leased' AND substr(lease_owner, 1, length(:prefix)) = :prefix)";
        let freed = tx.sql(&format!("{INTERRUPT} {OWNED}"))?.execute(rusqlite::named_params! {
            ":now": tx.now, ":why": rules::HOST_STOPPED, ":prefix": self.prefix,
        })?;
        if freed > 0 {
            tx.awake();
        }
        Ok(freed as u64)
    }
}
