//! People change jobs: one of them, or a bounded number at a time.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio_postgres::types::ToSql;

use super::operation::Write;
use super::session::Db;
use super::tx::Tx;
use super::{attempts, keys, prune};
use crate::jobs::{
    AttemptEnd, INTERVENE_JOBS_MAX, Intervened, Intervention, JobFilter, JobId, JobState, Swept,
};
use crate::{Timestamp, rules};

/// How long one transaction changes jobs: a server that is far away answers late, and others wait.
const SWEEP_MAX: Duration = Duration::from_secs(2);

pub(super) struct Intervene {
    pub(super) id: JobId,
    pub(super) intervention: Intervention,
}

#[async_trait(?Send)]
impl Write for Intervene {
    type Answer = Intervened;

    async fn apply(&self, tx: &Tx<'_>) -> Db<Intervened> {
        intervene(tx, self.id, self.intervention).await
    }
}

pub(super) struct InterveneAll {
    pub(super) filter: JobFilter,
    pub(super) intervention: Intervention,
}

#[async_trait(?Send)]
impl Write for InterveneAll {
    type Answer = Swept;

    /// The most that it may change, since nobody knows before.
    fn rows(&self) -> usize {
        INTERVENE_JOBS_MAX as usize
    }

    async fn apply(&self, tx: &Tx<'_>) -> Db<Swept> {
        let ids = self.pick(tx).await?;
        let mut swept = Swept { more: ids.len() as u64 >= INTERVENE_JOBS_MAX, ..Swept::default() };
        let until = Instant::now() + SWEEP_MAX;
        for id in &ids {
            if Instant::now() > until {
                swept.more = true;
                break;
            }
            match intervene(tx, *id, self.intervention).await? {
                Intervened::Moved { from, .. } => {
                    swept.changed += 1;
                    swept.leased.extend(Some(*id).filter(|_| from == JobState::Leased));
                }
                Intervened::Deleted { .. } => swept.changed += 1,
                Intervened::KeyHeld { holder } => {
                    swept.key_held += 1;
                    swept.key_holder = Some((*id, holder));
                }
                Intervened::NotFound | Intervened::Refused { .. } => {}
            }
        }
        let is_retry = self.intervention == Intervention::Retry && !swept.more;
        if is_retry && rules::states_of(&self.filter).any(|state| state == JobState::Dead) {
            self.find_passed_over(tx, &mut swept).await?;
        }
        Ok(swept)
    }
}

async fn intervene(tx: &Tx<'_>, id: JobId, intervention: Intervention) -> Db<Intervened> {
    let found =
        tx.query("SELECT state, run_at, queue, bytes FROM jobs WHERE id = $1 FOR UPDATE", &[&id.0]).await?;
    let Some(row) = found.first() else { return Ok(Intervened::NotFound) };
    let (stored, run_at): (JobState, Timestamp) = (row.try_get(0)?, row.try_get(1)?);
    let (queue, bytes): (&str, i64) = (row.try_get(2)?, row.try_get(3)?);
    let from = rules::state_at(stored, run_at, tx.now);
    if !intervention.allows(from) {
        return Ok(Intervened::Refused { state: from });
    }
    match intervention {
        Intervention::Cancel => {
            if stored == JobState::Leased {
                attempts::record(tx, id, AttemptEnd::Cancelled, None).await?;
                tx.ended_in(queue);
            }
            tx.execute(
                "UPDATE jobs SET state = 'cancelled', ended_at = $2, lease_owner = NULL, lease_until = NULL
                 WHERE id = $1",
                &[&id.0, &tx.now.0],
            )
            .await?;
            keys::free(tx, &[id.0]).await?;
            tx.moves(queue, Some(stored), Some(JobState::Cancelled), bytes);
            Ok(Intervened::Moved { from, to: JobState::Cancelled })
        }
        Intervention::Retry => {
            if stored == JobState::Dead
                && let Some(holder) = keys::take_again(tx, id).await?
            {
                return Ok(Intervened::KeyHeld { holder });
            }
            tx.execute(
                "UPDATE jobs SET state = 'available', run_at = $2,
                                 attempt = CASE state WHEN 'dead' THEN 0 ELSE attempt END,
                                 crashes = CASE state WHEN 'dead' THEN 0 ELSE crashes END,
                                 attempts_max = CASE state WHEN 'dead' THEN attempts_asked ELSE attempts_max END,
                                 ended_at = NULL
                 WHERE id = $1",
                &[&id.0, &tx.now.0],
            )
            .await?;
            tx.moves(queue, Some(stored), Some(JobState::Available), bytes);
            tx.awake(queue);
            Ok(Intervened::Moved { from, to: JobState::Available })
        }
        Intervention::Discard => {
            keys::free_at_once(tx, id).await?;
            tx.execute("DELETE FROM jobs WHERE id = $1", &[&id.0]).await?;
            prune::forget(tx, &[id.0]).await?;
            tx.moves(queue, Some(stored), None, bytes);
            Ok(Intervened::Deleted { from })
        }
    }
}

/// The dead jobs whose key another job holds by now.
const KEY_HELD: &str = "unique_scope = 'running' AND EXISTS (
    SELECT 1 FROM unique_keys WHERE unique_keys.queue = jobs.queue AND key = unique_key
      AND (expires_at IS NULL OR expires_at > $2))";

impl InterveneAll {
    /// Jobs that it can be done to: those that are changed leave the index they were found in, so that a thousand batches
    /// don't each look past those before them.
    async fn pick(&self, tx: &Tx<'_>) -> Db<Vec<JobId>> {
        let mut picked = Vec::new();
        if let Some(key) = &self.filter.unique_key {
            let keyed = "SELECT id, state, run_at, queue FROM jobs WHERE unique_key = $1 ORDER BY id";
            for row in tx.query(keyed, &[key]).await? {
                let state = rules::state_at(row.try_get(1)?, row.try_get(2)?, tx.now);
                let is_meant = rules::is_meant(&self.filter, row.try_get(3)?, state);
                if is_meant && self.intervention.allows(state) && (picked.len() as u64) < INTERVENE_JOBS_MAX {
                    picked.push(JobId(row.try_get(0)?));
                }
            }
            return Ok(picked);
        }
        let queues = self.queues(tx).await?;
        for state in rules::states_of(&self.filter).filter(|state| self.intervention.allows(*state)) {
            let is_retry = self.intervention == Intervention::Retry;
            for from in of_state(state) {
                // Or they would be passed over again by each call.
                let but = match state == JobState::Dead && is_retry {
                    true => format!(" AND NOT coalesce({KEY_HELD}, false)"),
                    false => String::new(),
                };
                let room =
                    i64::try_from(INTERVENE_JOBS_MAX).unwrap_or(0) - i64::try_from(picked.len()).unwrap_or(0);
                if room <= 0 {
                    return Ok(picked);
                }
                // Each knows all parameters, so that they have the same numbers.
                let find = format!(
                    "SELECT id FROM jobs WHERE queue = ANY($1::text[]) AND $2::bigint IS NOT NULL AND {from}{but} LIMIT $3"
                );
                let params: [&(dyn ToSql + Sync); 3] = [&queues, &tx.now.0, &room];
                for row in tx.query(&find, &params).await? {
                    picked.push(JobId(row.try_get(0)?));
                }
            }
        }
        Ok(picked)
    }

    /// Counts the dead jobs that [`pick`](InterveneAll::pick) leaves out of a retry.
    async fn find_passed_over(&self, tx: &Tx<'_>, swept: &mut Swept) -> Db<()> {
        if self.filter.unique_key.is_some() {
            // They were tried one by one.
            return Ok(());
        }
        let room = i64::try_from(INTERVENE_JOBS_MAX.saturating_sub(swept.key_held)).unwrap_or(0);
        let find = "SELECT id, job_id FROM jobs JOIN unique_keys ON unique_keys.queue = jobs.queue AND key = unique_key
             WHERE jobs.queue = ANY($1::text[]) AND state = 'dead' AND unique_scope = 'running'
               AND (expires_at IS NULL OR expires_at > $2) LIMIT $3";
        for row in tx.query(find, &[&self.queues(tx).await?, &tx.now.0, &room]).await? {
            swept.key_held += 1;
            swept.key_holder = Some((JobId(row.try_get(0)?), JobId(row.try_get(1)?)));
        }
        Ok(())
    }

    /// The queues to look into.
    async fn queues(&self, tx: &Tx<'_>) -> Db<Vec<String>> {
        match &self.filter.queue {
            Some(queue) => Ok(vec![queue.clone()]),
            None => {
                let rows = tx.query("SELECT queue FROM queues ORDER BY queue", &[]).await?;
                rows.iter().map(|row| row.try_get(0)).collect()
            }
        }
    }
}

/// The rows that people see in this state, where `$2` is now: those of each index.
pub(super) fn of_state(state: JobState) -> &'static [&'static str] {
    match state {
        JobState::Available => {
            &["state = 'available'", "state IN ('scheduled', 'retrying') AND run_at <= $2"]
        }
        JobState::Leased => &["state = 'leased'"],
        JobState::Done => &["state IN ('done', 'cancelled') AND state = 'done'"],
        JobState::Scheduled => &["state = 'scheduled' AND run_at > $2"],
        JobState::Retrying => &["state = 'retrying' AND run_at > $2"],
        JobState::Dead => &["state = 'dead'"],
        JobState::Cancelled => &["state = 'cancelled'"],
    }
}
