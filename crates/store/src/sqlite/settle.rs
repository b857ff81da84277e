//! Answers to leases. Each finds its job by the claim number, so one that comes too late finds nothing.

use rusqlite::{OptionalExtension, params};

use super::attempts;
use super::operation::Write;
use super::writer::Tx;
use crate::jobs::{AfterFailure, AttemptEnd, Failure, JobId, JobState, Lease, Settled};
use crate::rules;

pub(super) struct Complete(pub(super) Lease);

impl Write for Complete {
    type Answer = Settled;

    fn moves_waiting(&self) -> bool {
        false
    }

    fn apply(&self, tx: &Tx<'_>) -> rusqlite::Result<Settled> {
        let changed = tx
            .sql(
                "UPDATE jobs SET state = 'done', ended_at = ?3, lease_owner = NULL, lease_until = NULL
                 WHERE id = ?1 AND claim = ?2 AND state = 'leased'",
            )?
            .execute(params![self.0.id, self.0.claim, tx.now])?;
        if changed == 0 {
            return Ok(Settled::Stale);
        }
        left(tx, self.0.id)?;
        Ok(Settled::Done)
    }
}

/// A job ended: that may be what a claim was held back for.
fn left(tx: &Tx<'_>, id: JobId) -> rusqlite::Result<()> {
    if tx.any_held_back() {
        let queue: String =
            tx.sql("SELECT queue FROM jobs WHERE id = ?1")?.query_row([id], |row| row.get(0))?;
        tx.ended_in(&queue);
    }
    Ok(())
}

pub(super) struct Release {
    pub(super) lease: Lease,
    /// False where no instance ever got it: then the attempt was none.
    pub(super) begun: bool,
}

impl Write for Release {
    type Answer = Settled;

    fn apply(&self, tx: &Tx<'_>) -> rusqlite::Result<Settled> {
        if !holds(tx, self.lease)? {
            return Ok(Settled::Stale);
        }
        if self.begun {
            attempts::record(tx, self.lease.id, AttemptEnd::Released, None)?;
        }
        // The beginning of an earlier attempt isn't known any more. The first attempt has none before it.
        tx.sql(
            "UPDATE jobs SET state = 'available', attempt = attempt - 1, lease_owner = NULL, lease_until = NULL,
                             started_at = iif(?2 OR attempt > 1, started_at, NULL)
             WHERE id = ?1",
        )?
        .execute(params![self.lease.id, self.begun])?;
        tx.awake();
        Ok(Settled::Released)
    }
}

fn holds(tx: &Tx<'_>, lease: Lease) -> rusqlite::Result<bool> {
    tx.sql("SELECT 1 FROM jobs WHERE id = ?1 AND claim = ?2 AND state = 'leased'")?
        .exists(params![lease.id, lease.claim])
}

pub(super) struct Fail {
    pub(super) lease: Lease,
    /// Its message is short enough already.
    pub(super) failure: Failure,
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
        let Failure { then, message, backoff } = &self.failure;
        let together = *then == AfterFailure::CrashTogether;
        let (settled, crashes) = rules::after_failure(*then, attempt, attempts_max, crashes, backoff, tx.now);
        attempts::record(tx, self.lease.id, rules::attempt_end(*then), Some(message))?;
        let (state, run_at, ended_at) = match settled {
            Settled::Retrying(run_at) => (JobState::Retrying, Some(run_at), None),
            _ => (JobState::Dead, None, Some(tx.now)),
        };
        tx.sql(
            "UPDATE jobs SET state = ?2, run_at = coalesce(?3, run_at), ended_at = ?4, crashes = ?5, last_error = ?6,
                             attempt = attempt - ?7, alone = max(alone, ?7), lease_owner = NULL, lease_until = NULL
             WHERE id = ?1",
        )?
        .execute(params![self.lease.id, state, run_at, ended_at, crashes, message, together])?;
        if state == JobState::Retrying {
            tx.awake();
        } else {
            left(tx, self.lease.id)?;
        }
        Ok(settled)
    }
}
