//! Unique keys and who holds them. A row of `unique_keys` is taken by the statement that inserts it, which waits for other
//! hosts' transactions that take the same; all keys of a transaction are taken by one statement, in their order.

use std::collections::HashMap;

use super::session::Db;
use super::tx::Tx;
use crate::Timestamp;
use crate::jobs::{JobId, NewJob, PRUNE_JOBS_MAX, Unique, UniqueScope};

/// A key's queue, and the key.
type Name<'a> = (&'a str, &'a str);

/// The holder of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    Job(JobId),
    Nobody,
}

/// The keys that the jobs of a transaction's enqueues want.
pub(super) struct Keys<'a> {
    wanted: HashMap<Name<'a>, Wanted>,
}

#[derive(Clone, Copy)]
struct Wanted {
    /// The job that the row names: one of this transaction, or another one.
    stored: JobId,
    is_ours: bool,
    /// The job of this transaction that gets it, and when it expires.
    given: Option<(JobId, Option<i64>)>,
}

impl<'a> Keys<'a> {
    /// Takes the keys of these jobs that nobody holds, each for the first job that wants it.
    pub(super) async fn take(tx: &Tx<'_>, jobs: impl Iterator<Item = (&'a NewJob, &'a i64)>) -> Db<Keys<'a>> {
        let mut wanted: HashMap<Name<'a>, (i64, Option<i64>)> = HashMap::new();
        for (job, id) in jobs {
            if let Some(Unique { key, .. }) = &job.unique {
                wanted.entry((&job.queue, key)).or_insert_with(|| (*id, expiry(tx.now, job)));
            }
        }
        if wanted.is_empty() {
            return Ok(Keys { wanted: HashMap::new() });
        }
        let mut names: Vec<Name<'a>> = wanted.keys().copied().collect();
        names.sort_unstable();
        let queues: Vec<&str> = names.iter().map(|(queue, _)| *queue).collect();
        let keys: Vec<&str> = names.iter().map(|(_, key)| *key).collect();
        let ids: Vec<i64> = names.iter().map(|name| wanted[name].0).collect();
        let expiries: Vec<Option<i64>> = names.iter().map(|name| wanted[name].1).collect();
        tx.execute(
            "INSERT INTO unique_keys (queue, key, job_id, expires_at)
             SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[])
             ON CONFLICT (queue, key) DO UPDATE SET job_id = excluded.job_id, expires_at = excluded.expires_at
               WHERE unique_keys.expires_at <= $5::bigint",
            &[&queues, &keys, &ids, &expiries, &tx.now.0],
        )
        .await?;
        let rows = tx
            .query(
                "SELECT place, job_id FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS wanted (queue, key, place)
                   JOIN unique_keys USING (queue, key)",
                &[&queues, &keys],
            )
            .await?;
        let mut found = HashMap::new();
        for row in rows {
            let place = usize::try_from(row.try_get::<_, i64>(0)?).unwrap_or(0);
            let Some(name) = place.checked_sub(1).and_then(|place| names.get(place)) else { continue };
            let stored: i64 = row.try_get(1)?;
            let is_ours = stored == wanted[name].0;
            found.insert(*name, Wanted { stored: JobId(stored), is_ours, given: None });
        }
        Ok(Keys { wanted: found })
    }

    /// The holder by now.
    pub(super) fn holder(&self, name: Name<'_>) -> Holder {
        match self.wanted.get(&name) {
            Some(Wanted { given: Some((id, _)), .. }) => Holder::Job(*id),
            Some(Wanted { is_ours: false, stored, .. }) => Holder::Job(*stored),
            _ => Holder::Nobody,
        }
    }

    /// A job gets it, which nobody held.
    pub(super) fn given(&mut self, name: Name<'a>, id: JobId, expires_at: Option<i64>) {
        if let Some(wanted) = self.wanted.get_mut(&name) {
            wanted.given = Some((id, expires_at));
        }
    }

    /// Takes back keys that were taken for jobs of refused enqueues, or gives them to others.
    pub(super) async fn settle(&self, tx: &Tx<'_>) -> Db<()> {
        for ((queue, key), wanted) in self.wanted.iter().filter(|(_, wanted)| wanted.is_ours) {
            match wanted.given {
                Some((id, _)) if id == wanted.stored => {}
                Some((id, expires_at)) => {
                    let give =
                        "UPDATE unique_keys SET job_id = $3, expires_at = $4 WHERE queue = $1 AND key = $2";
                    tx.execute(give, &[queue, key, &id.0, &expires_at]).await?;
                }
                None => {
                    tx.execute("DELETE FROM unique_keys WHERE queue = $1 AND key = $2", &[queue, key])
                        .await?;
                }
            }
        }
        Ok(())
    }
}

/// When the key of a job is free whatever becomes of the job.
pub(super) fn expiry(now: Timestamp, job: &NewJob) -> Option<i64> {
    match job.unique.as_ref()?.scope {
        UniqueScope::For(time) => Some((now + time).0),
        UniqueScope::Waiting | UniqueScope::Running => None,
    }
}

/// The scope in `jobs.unique_scope`; how long it is `For` stands in `unique_keys`.
pub(super) fn scope_name(scope: UniqueScope) -> &'static str {
    match scope {
        UniqueScope::Waiting => "waiting",
        UniqueScope::Running => "running",
        UniqueScope::For(_) => "for",
    }
}

/// Frees the keys of jobs that have ended, or whose call begins, but those that are held for a time.
pub(super) async fn free(tx: &Tx<'_>, ids: &[i64]) -> Db<()> {
    if ids.is_empty() {
        return Ok(());
    }
    tx.execute(
        "DELETE FROM unique_keys USING jobs
         WHERE jobs.id = ANY($1::bigint[]) AND unique_scope IN ('waiting', 'running')
           AND unique_keys.queue = jobs.queue AND key = unique_key AND job_id = jobs.id",
        &[&ids],
    )
    .await
    .map(drop)
}

/// Frees the key of a job that is discarded, for however long it was to be held.
pub(super) async fn free_at_once(tx: &Tx<'_>, id: JobId) -> Db<()> {
    tx.execute(
        "DELETE FROM unique_keys USING jobs
         WHERE jobs.id = $1 AND unique_keys.queue = jobs.queue AND key = unique_key AND job_id = jobs.id",
        &[&id.0],
    )
    .await
    .map(drop)
}

/// Gives a dead job that comes back its key of scope `Running` again; or says who else holds it by now.
pub(super) async fn take_again(tx: &Tx<'_>, id: JobId) -> Db<Option<JobId>> {
    let taken = tx
        .query(
            "INSERT INTO unique_keys (queue, key, job_id)
             SELECT queue, unique_key, id FROM jobs
             WHERE id = $1 AND unique_scope = 'running' AND unique_key IS NOT NULL
             ON CONFLICT (queue, key) DO UPDATE SET job_id = excluded.job_id, expires_at = NULL
               WHERE unique_keys.expires_at <= $2 OR unique_keys.job_id = excluded.job_id
             RETURNING job_id",
            &[&id.0, &tx.now.0],
        )
        .await?;
    if !taken.is_empty() {
        return Ok(None);
    }
    let holder = tx
        .query(
            "SELECT job_id FROM jobs JOIN unique_keys ON unique_keys.queue = jobs.queue AND key = unique_key
             WHERE id = $1 AND unique_scope = 'running'",
            &[&id.0],
        )
        .await?;
    holder.first().map(|row| row.try_get(0).map(JobId)).transpose()
}

/// Deletes keys that have expired, a bounded number of them; says how many.
pub(super) async fn prune(tx: &Tx<'_>) -> Db<u64> {
    let at_most = i64::try_from(PRUNE_JOBS_MAX).unwrap_or(i64::MAX);
    tx.execute(
        "DELETE FROM unique_keys WHERE (queue, key) IN (
           SELECT queue, key FROM unique_keys WHERE expires_at IS NOT NULL AND expires_at <= $1
           ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
        &[&tx.now.0, &at_most],
    )
    .await
}
