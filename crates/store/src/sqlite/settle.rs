//! Answers to leases. Each finds its job by the claim number, so one that comes too late finds nothing.

use rusqlite::{OptionalExtension, params};

use super::writer::{Tx, Write};
use crate::jobs::{AfterFailure, JobState, Lease, Settled};
use crate::rules;

pub(super) struct Complete(pub(super) Lease);

impl Write for Complete {
    type Answer = Settled;

    fn apply(&self, tx: &Tx<'_>) -> rusqlite::Result<Settled> {
        let changed = tx
            .sql(
                "UPDATE jobs SET state = 'done', ended_at = ?3, lease_owner = NULL, lease_until = NULL
                 WHERE id = ?1 AND claim = ?2 AND state = 'leased'",
            )?
            .execute(params![self.0.id, self.0.claim, tx.now])?;
        Ok(if changed == 1 { Settled::Done } else { Settled::Stale })
    }
}

pub(super) struct Release(pub(super) Lease);

impl Write for Release {
    type Answer = Settled;

    fn apply(&self, tx: &Tx<'_>) -> rusqlite::Result<Settled> {
        let changed = tx
            .sql(
                "UPDATE jobs SET state = 'available', attempt = attempt - 1, lease_owner = NULL, lease_until = NULL
                 WHERE id = ?1 AND claim = ?2 AND state = 'leased'",
            )?
            .execute(params![self.0.id, self.0.claim])?;
        if changed == 0 {
            return Ok(Settled::Stale);
        }
        tx.awake();
        Ok(Settled::Released)
    }
}

pub(super) struct Fail {
    pub(super) lease: Lease,
    pub(super) then: AfterFailure,
    /// Short enough already.
    pub(super) message: String,
}

impl Write for Fail {
    type Answer = Settled;

    fn apply(&self, tx: &Tx<'_>) -> rusqlite::Result<Settled> {
        let found: Option<(u32, u32, u32)> = tx
            .sql(
                "SELECT attempt, coalesce(attempts_max, attempt), crashes FROM jobs
                 WHERE id = ?1 AND claim = ?2 AND state = 'leased'",
            )?
            .query_row(params![self.lease.id, self.lease.claim], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .optional()?;
        let Some((attempt, attempts_max, crashes)) = found else { return Ok(Settled::Stale) };
        let (settled, crashes) = rules::after_failure(self.then, attempt, attempts_max, crashes, tx.now);
        let (state, run_at, ended_at) = match settled {
            Settled::Retrying(run_at) => (JobState::Retrying, Some(run_at), None),
            _ => (JobState::Dead, None, Some(tx.now)),
        };
        tx.sql(
            "UPDATE jobs SET state = ?2, run_at = coalesce(?3, run_at), ended_at = ?4, crashes = ?5, last_error = ?6,
                             lease_owner = NULL, lease_until = NULL
             WHERE id = ?1",
        )?
        .execute(params![self.lease.id, state, run_at, ended_at, crashes, self.message])?;
        if state == JobState::Retrying {
            tx.awake();
        }
        Ok(settled)
    }
}
