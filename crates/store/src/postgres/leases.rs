//! Leases begin to be used, are renewed, run out, or are freed.

use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::Row;

use super::operation::Write;
use super::session::{Db, Session};
use super::shared::Shared;
use super::tx::Tx;
use super::values::u32_at;
use super::{attempts, keys};
use crate::jobs::{AttemptEnd, JobId, JobState, Lease};
use crate::rules;

/// How many leases are taken back in one transaction.
const EXPIRED_MAX: i64 = 512;

/// A job's call begins.
pub(super) struct Begin(pub(super) Lease);

#[async_trait(?Send)]
impl Write for Begin {
    type Answer = bool;

    async fn apply(&self, tx: &Tx<'_>) -> Db<bool> {
        let found = tx
            .query(
                "SELECT coalesce(unique_scope = 'waiting', false) FROM jobs
                 WHERE id = $1 AND claim = $2 AND state = 'leased' FOR UPDATE",
                &[&self.0.id.0, &self.0.claim],
            )
            .await?;
        let Some(row) = found.first() else { return Ok(false) };
        if row.try_get(0)? {
            keys::free(tx, &[self.0.id.0]).await?;
        }
        Ok(true)
    }
}

pub(super) struct Renew {
    pub(super) leases: Vec<Lease>,
    pub(super) lease: Duration,
}

#[async_trait(?Send)]
impl Write for Renew {
    type Answer = Vec<Lease>;

    fn rows(&self) -> usize {
        self.leases.len()
    }

    async fn apply(&self, tx: &Tx<'_>) -> Db<Vec<Lease>> {
        let mut leases = self.leases.clone();
        leases.sort_unstable_by_key(|lease| lease.id);
        let ids: Vec<i64> = leases.iter().map(|lease| lease.id.0).collect();
        let claims: Vec<i64> = leases.iter().map(|lease| lease.claim).collect();
        let renewed = tx
            .query(
                "UPDATE jobs SET lease_until = $3
                 FROM unnest($1::bigint[], $2::bigint[]) AS renewed (id, claim)
                 WHERE jobs.id = renewed.id AND jobs.claim = renewed.claim AND state = 'leased'
                 RETURNING jobs.id, jobs.claim",
                &[&ids, &claims, &(tx.now + self.lease).0],
            )
            .await?;
        let mut valid = std::collections::HashSet::new();
        for row in renewed {
            valid.insert(Lease { id: JobId(row.try_get(0)?), claim: row.try_get(1)? });
        }
        Ok(self.leases.iter().filter(|lease| !valid.contains(lease)).copied().collect())
    }
}

/// Makes all leases of an owner valid again, that of the boot which asks.
pub(super) async fn keep_owned(session: &Session, shared: &Shared, owner: &str, lease: Duration) -> Db<()> {
    let until = (shared.time.now(session).await?.now + lease).0;
    session
        .execute(
            "UPDATE jobs SET lease_until = $2 WHERE state = 'leased' AND lease_owner = $1",
            &[&owner, &until],
        )
        .await
        .map(drop)
}

/// Takes back the leases of these queues that ran out, but for those whose calls still run here: `lease` is how long those
/// are valid again. Leases of others are believed to have run out only where this host has been in contact for long enough.
pub(super) async fn expire(tx: &Tx<'_>, queues: &[&str], lease: Duration) -> Db<()> {
    if !tx.shared.is_settled() {
        return Ok(());
    }
    let rows = tx
        .query(
            "SELECT id, claim, attempt, coalesce(attempts_max, attempt), queue, bytes FROM jobs
             WHERE queue = ANY($1::text[]) AND state = 'leased' AND lease_until <= $2
             ORDER BY lease_until LIMIT $3 FOR UPDATE SKIP LOCKED",
            &[&queues, &tx.now.0, &EXPIRED_MAX],
        )
        .await?;
    let mut expired = rows.iter().map(Leased::of).collect::<Db<Vec<_>>>()?;
    let held: Vec<Lease> = expired
        .extract_if(.., |job| tx.shared.is_held(job.lease.id, job.lease.claim))
        .map(|job| job.lease)
        .collect();
    if !held.is_empty() {
        tracing::warn!(
            leases = held.len(),
            "leases of calls under way could not be renewed in time, and are now"
        );
        Renew { leases: held, lease }.apply(tx).await?;
    }
    interrupt(tx, &expired, AttemptEnd::LeaseLost, rules::LEASE_RAN_OUT).await
}

pub(super) struct FreeLeases {
    pub(super) prefix: String,
}

#[async_trait(?Send)]
impl Write for FreeLeases {
    type Answer = u64;

    async fn apply(&self, tx: &Tx<'_>) -> Db<u64> {
        // Goes through all leases, of which there are no more than calls that run at once.
        let rows = tx
            .query(
                "SELECT id, claim, attempt, coalesce(attempts_max, attempt), queue, bytes FROM jobs
                 WHERE state = 'leased' AND starts_with(lease_owner, $1) ORDER BY id FOR UPDATE",
                &[&self.prefix],
            )
            .await?;
        let owned = rows.iter().map(Leased::of).collect::<Db<Vec<_>>>()?;
        interrupt(tx, &owned, AttemptEnd::Interrupted, rules::HOST_STOPPED).await?;
        Ok(owned.len() as u64)
    }
}

/// A leased job, whose row is locked.
struct Leased {
    lease: Lease,
    attempt: u32,
    attempts_max: u32,
    queue: String,
    bytes: i64,
}

impl Leased {
    fn of(row: &Row) -> Db<Leased> {
        Ok(Leased {
            lease: Lease { id: JobId(row.try_get(0)?), claim: row.try_get(1)? },
            attempt: u32_at(row, 2)?,
            attempts_max: u32_at(row, 3)?,
            queue: row.try_get(4)?,
            bytes: row.try_get(5)?,
        })
    }
}

/// Ends attempts without an answer. They count; with none left the job is dead.
async fn interrupt(tx: &Tx<'_>, jobs: &[Leased], end: AttemptEnd, why: &str) -> Db<()> {
    for Leased { lease: Lease { id, .. }, attempt, attempts_max, queue, bytes } in jobs {
        let last = attempt >= attempts_max;
        let state = if last { JobState::Dead } else { JobState::Available };
        let error = rules::interrupted(*attempt, *attempts_max, why);
        attempts::record(tx, *id, end, Some(&error)).await?;
        tx.execute(
            "UPDATE jobs SET state = $2, ended_at = $3, last_error = $4, lease_owner = NULL, lease_until = NULL
             WHERE id = $1",
            &[&id.0, &state.name(), &last.then_some(tx.now.0), &error],
        )
        .await?;
        if last {
            keys::free(tx, &[id.0]).await?;
        }
        tx.moves(queue, Some(JobState::Leased), Some(state), *bytes);
        tx.awake(queue);
    }
    Ok(())
}
