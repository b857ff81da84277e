//! The numbers of each queue. Counting rows would read a million of them; triggers would take the rows of `queues` in whatever
//! order the jobs come, and two transactions would wait for each other. So each transaction changes them once, by differences,
//! in the order of the names, with its COMMIT right behind.

use std::collections::BTreeMap;

use super::session::{Db, Session};
use super::tx::{Difference, Tx};
use crate::jobs::JobState;

const WRITE: &str =
    "INSERT INTO queues (queue, scheduled, available, leased, retrying, done, dead, cancelled, waiting_bytes)
     SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
                          $7::bigint[], $8::bigint[], $9::bigint[]) AS changed (queue)
     ORDER BY changed.queue COLLATE \"C\"
     ON CONFLICT (queue) DO UPDATE SET
       scheduled = queues.scheduled + excluded.scheduled, available = queues.available + excluded.available,
       leased = queues.leased + excluded.leased, retrying = queues.retrying + excluded.retrying,
       done = queues.done + excluded.done, dead = queues.dead + excluded.dead,
       cancelled = queues.cancelled + excluded.cancelled,
       waiting_bytes = queues.waiting_bytes + excluded.waiting_bytes";

/// Has the statement of [`write`] prepared, so that it can be sent before COMMIT without a wait between them.
pub(super) async fn prepare(session: &Session) -> Db<()> {
    session.prepare(WRITE).await
}

/// Adds the differences to the numbers.
pub(super) async fn write(session: &Session, differences: &BTreeMap<String, Difference>) -> Db<()> {
    if differences.is_empty() {
        return Ok(());
    }
    let queues: Vec<&str> = differences.keys().map(String::as_str).collect();
    let of = |state: JobState| -> Vec<i64> {
        differences.values().map(|difference| difference.jobs[state as usize]).collect()
    };
    let bytes: Vec<i64> = differences.values().map(|difference| difference.waiting_bytes).collect();
    session
        .execute(
            WRITE,
            &[
                &queues,
                &of(JobState::Scheduled),
                &of(JobState::Available),
                &of(JobState::Leased),
                &of(JobState::Retrying),
                &of(JobState::Done),
                &of(JobState::Dead),
                &of(JobState::Cancelled),
                &bytes,
            ],
        )
        .await
        .map(drop)
}

/// The jobs that wait in each of these queues, and their bytes, with what this transaction has changed so far.
pub(super) async fn waiting(tx: &Tx<'_>, queues: &[&str]) -> Db<BTreeMap<String, (u64, u64)>> {
    let rows = tx
        .query(
            "SELECT queue, scheduled + available + retrying, waiting_bytes FROM queues WHERE queue = ANY($1::text[])",
            &[&queues],
        )
        .await?;
    let mut stored = BTreeMap::new();
    for row in rows {
        stored.insert(row.try_get::<_, String>(0)?, (row.try_get::<_, i64>(1)?, row.try_get::<_, i64>(2)?));
    }
    let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
    let sums = queues.iter().map(|queue| {
        let (jobs, bytes) = stored.get(*queue).copied().unwrap_or_default();
        let (more_jobs, more_bytes) = tx.waiting(queue);
        ((*queue).to_owned(), (unsigned(jobs + more_jobs), unsigned(bytes + more_bytes)))
    });
    Ok(sums.collect())
}
