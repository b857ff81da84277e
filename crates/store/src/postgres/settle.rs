//! Answers to leases. Each finds its job by the claim number, so one that comes too late finds nothing.
//!
//! An answer whose commit was not answered is sent again, and then it would look as if it came too late. So such leases are
//! remembered ([`Shared::is_unsure`]), and their answers look for what they may have stored before.

use std::collections::HashSet;

use async_trait::async_trait;

use super::operation::{Waiting, Write};
use super::session::Db;
use super::shared::Shared;
use super::tx::Tx;
use super::values::{integer, u32_at};
use super::{attempts, keys};
use crate::jobs::{AfterFailure, AttemptEnd, Failure, JobId, JobState, Lease, Settled};
use crate::rules;

pub(super) struct Complete(pub(super) Lease);

#[async_trait(?Send)]
impl Write for Complete {
    type Answer = Settled;

    /// All of them go by [`complete_all`].
    async fn apply(&self, _tx: &Tx<'_>) -> Db<Settled> {
        Ok(Settled::Stale)
    }

    fn is_unsure(&mut self, _answer: Option<Settled>, shared: &Shared) -> bool {
        shared.is_unsure(self.0);
        true
    }
}

/// Does all completes of a transaction.
pub(super) async fn complete_all(tx: &Tx<'_>, completes: &mut [&mut Waiting<Complete>]) -> Db<()> {
    if completes.is_empty() {
        return Ok(());
    }
    let mut leases: Vec<Lease> = completes.iter().map(|waiting| waiting.write.0).collect();
    // Transactions that lock several rows lock them in the same order, as far as they can.
    leases.sort_unstable_by_key(|lease| lease.id);
    let ids: Vec<i64> = leases.iter().map(|lease| lease.id.0).collect();
    let claims: Vec<i64> = leases.iter().map(|lease| lease.claim).collect();
    let rows = tx
        .query(
            "UPDATE jobs SET state = 'done', ended_at = $3, lease_owner = NULL, lease_until = NULL
             FROM unnest($1::bigint[], $2::bigint[]) AS ended (id, claim)
             WHERE jobs.id = ended.id AND jobs.claim = ended.claim AND state = 'leased'
             RETURNING jobs.id, jobs.claim, queue, bytes, unique_key IS NOT NULL",
            &[&ids, &claims, &tx.now.0],
        )
        .await?;
    let (mut done, mut with_key) = (HashSet::new(), Vec::new());
    for row in &rows {
        let id: i64 = row.try_get(0)?;
        done.insert(Lease { id: JobId(id), claim: row.try_get(1)? });
        let queue: &str = row.try_get(2)?;
        tx.moves(queue, Some(JobState::Leased), Some(JobState::Done), row.try_get(3)?);
        tx.ended_in(queue);
        if row.try_get(4)? {
            with_key.push(id);
        }
    }
    keys::free(tx, &with_key).await?;
    let unsure = tx.shared.was_unsure(leases.iter().copied().filter(|lease| !done.contains(lease)));
    for lease in unsure {
        let found = "SELECT 1 FROM jobs WHERE id = $1 AND claim = $2 AND state = 'done'";
        if !tx.query(found, &[&lease.id.0, &lease.claim]).await?.is_empty() {
            done.insert(lease);
        }
    }
    for waiting in completes {
        // The second of two answers to a lease comes too late.
        let settled = if done.remove(&waiting.write.0) { Settled::Done } else { Settled::Stale };
        waiting.answer = Some(settled);
    }
    Ok(())
}

pub(super) struct Release {
    pub(super) lease: Lease,
    /// False where no instance ever got it: then the attempt was none.
    pub(super) begun: bool,
}

/// Statements that an answer needs which isn't merged with others: it counts as so many rows.
const STATEMENTS: usize = 4;

#[async_trait(?Send)]
impl Write for Release {
    type Answer = Settled;

    fn rows(&self) -> usize {
        STATEMENTS
    }

    async fn apply(&self, tx: &Tx<'_>) -> Db<Settled> {
        let Some(Held { queue, bytes, .. }) = Held::lock(tx, self.lease).await? else {
            return earlier(tx, self.lease).await;
        };
        if self.begun {
            attempts::record(tx, self.lease.id, AttemptEnd::Released, None).await?;
        }
        // The beginning of an earlier attempt isn't known any more. The first attempt has none before it.
        tx.execute(
            "UPDATE jobs SET state = 'available', attempt = attempt - 1, lease_owner = NULL, lease_until = NULL,
                             started_at = CASE WHEN $2::boolean OR attempt > 1 THEN started_at END
             WHERE id = $1",
            &[&self.lease.id.0, &self.begun],
        )
        .await?;
        tx.moves(&queue, Some(JobState::Leased), Some(JobState::Available), bytes);
        tx.awake(&queue);
        Ok(Settled::Released)
    }

    fn is_unsure(&mut self, _answer: Option<Settled>, shared: &Shared) -> bool {
        shared.is_unsure(self.lease);
        true
    }
}

/// A job that is leased, whose row is locked.
struct Held {
    queue: String,
    bytes: i64,
    attempt: u32,
    attempts_max: u32,
    crashes: u32,
}

impl Held {
    async fn lock(tx: &Tx<'_>, lease: Lease) -> Db<Option<Held>> {
        let rows = tx
            .query(
                "SELECT queue, bytes, attempt, coalesce(attempts_max, attempt), crashes FROM jobs
                 WHERE id = $1 AND claim = $2 AND state = 'leased' FOR UPDATE",
                &[&lease.id.0, &lease.claim],
            )
            .await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(Held {
            queue: row.try_get(0)?,
            bytes: row.try_get(1)?,
            attempt: u32_at(row, 2)?,
            attempts_max: u32_at(row, 3)?,
            crashes: u32_at(row, 4)?,
        }))
    }
}

pub(super) struct Fail {
    pub(super) lease: Lease,
    /// Its message is short enough already.
    pub(super) failure: Failure,
}

#[async_trait(?Send)]
impl Write for Fail {
    type Answer = Settled;

    fn rows(&self) -> usize {
        STATEMENTS
    }

    async fn apply(&self, tx: &Tx<'_>) -> Db<Settled> {
        let Some(held) = Held::lock(tx, self.lease).await? else { return earlier(tx, self.lease).await };
        let Held { queue, bytes, attempt, attempts_max, crashes } = held;
        let Failure { then, message, backoff } = &self.failure;
        let together = *then == AfterFailure::CrashTogether;
        let (settled, crashes) = rules::after_failure(*then, attempt, attempts_max, crashes, backoff, tx.now);
        attempts::record(tx, self.lease.id, rules::attempt_end(*then), Some(message)).await?;
        let (state, run_at, ended_at) = match settled {
            Settled::Retrying(run_at) => (JobState::Retrying, Some(run_at.0), None),
            _ => (JobState::Dead, None, Some(tx.now.0)),
        };
        tx.execute(
            "UPDATE jobs SET state = $2, run_at = coalesce($3, run_at), ended_at = $4, crashes = $5, last_error = $6,
                             attempt = attempt - $7::integer, alone = alone OR $7::integer = 1, lease_owner = NULL,
                             lease_until = NULL
             WHERE id = $1",
            &[
                &self.lease.id.0,
                &state.name(),
                &run_at,
                &ended_at,
                &integer(crashes),
                message,
                &i32::from(together),
            ],
        )
        .await?;
        tx.moves(&queue, Some(JobState::Leased), Some(state), bytes);
        if state == JobState::Retrying {
            tx.awake(&queue);
        } else {
            keys::free(tx, &[self.lease.id.0]).await?;
            tx.ended_in(&queue);
        }
        Ok(settled)
    }

    fn is_unsure(&mut self, _answer: Option<Settled>, shared: &Shared) -> bool {
        shared.is_unsure(self.lease);
        true
    }
}

/// The state that an earlier try has stored of the same answer, where nobody knew whether it had.
async fn earlier(tx: &Tx<'_>, lease: Lease) -> Db<Settled> {
    if tx.shared.was_unsure([lease]).is_empty() {
        return Ok(Settled::Stale);
    }
    let rows = tx
        .query(
            "SELECT outcome, state, run_at FROM attempts JOIN jobs ON id = job_id
             WHERE job_id = $1 AND attempts.claim = $2 AND jobs.claim = $2",
            &[&lease.id.0, &lease.claim],
        )
        .await?;
    let Some(row) = rows.first() else { return Ok(Settled::Stale) };
    Ok(match (row.try_get(0)?, row.try_get(1)?) {
        (AttemptEnd::Released, _) => Settled::Released,
        (AttemptEnd::Failed | AttemptEnd::Crashed, JobState::Dead) => Settled::Dead,
        (AttemptEnd::Failed | AttemptEnd::Crashed, _) => Settled::Retrying(row.try_get(2)?),
        _ => Settled::Stale,
    })
}
