//! Jobs come in: all enqueues of a transaction in a few statements, however many jobs there are. All that can refuse them is
//! asked before the first is written.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use async_trait::async_trait;
use futures_util::future::join;

use super::keys::{Holder, Keys};
use super::operation::{Operation, Waiting, Write};
use super::session::{Db, Session};
use super::shared::Shared;
use super::tx::Tx;
use super::values::metadata_column;
use super::{counters, keys};
use crate::jobs::{EnqueueError, Enqueued, JOB_BYTES, JobId, JobState, NewJob};

/// A queue with more room than this is not locked while jobs are put on it. All hosts together can't fill that much while
/// their transactions see each other's jobs not yet: each puts in some 1,500 jobs and 24 MiB at most.
const ROOM_UNLOCKED: (u64, u64) = (50_000, 768 << 20);

pub(super) struct Enqueue {
    pub(super) jobs: Vec<NewJob>,
    /// One for each job. They are kept when it is done again.
    ids: Vec<i64>,
    /// The answer, where the commit was not answered.
    unsure: Option<Vec<Enqueued>>,
}

impl Enqueue {
    pub(super) fn new(jobs: Vec<NewJob>) -> Enqueue {
        Enqueue { jobs, ids: Vec::new(), unsure: None }
    }
}

#[async_trait(?Send)]
impl Write for Enqueue {
    type Answer = Result<Vec<Enqueued>, EnqueueError>;

    fn rows(&self) -> usize {
        self.jobs.len()
    }

    fn bytes(&self) -> usize {
        self.jobs.iter().map(|job| job.payload.len()).sum()
    }

    /// All of them go by [`enqueue_all`].
    async fn apply(&self, _tx: &Tx<'_>) -> Db<Self::Answer> {
        Ok(Ok(Vec::new()))
    }

    fn is_unsure(&mut self, answer: Option<Self::Answer>, _shared: &Shared) -> bool {
        self.unsure = answer.and_then(Result::ok).or(self.unsure.take());
        true
    }
}

/// Takes ids for jobs that have none yet.
pub(super) fn reserve_ids<'s>(
    session: &'s Session,
    batch: &[Operation],
) -> impl Future<Output = Db<Vec<i64>>> + use<'s> {
    let wanted = batch.iter().map(|operation| match operation {
        Operation::Enqueue(waiting) if waiting.write.ids.is_empty() => waiting.write.jobs.len(),
        _ => 0,
    });
    let wanted = i64::try_from(wanted.sum::<usize>()).unwrap_or(0);
    async move {
        if wanted == 0 {
            return Ok(Vec::new());
        }
        const NEXT: &str = "SELECT nextval('job_ids') FROM generate_series(1, $1::bigint)";
        let mut ids = Vec::new();
        for row in session.query(NEXT, &[&wanted]).await? {
            ids.push(row.try_get(0)?);
        }
        Ok(ids)
    }
}

/// Gives them to the jobs, in order.
pub(super) fn give_ids(batch: &mut [Operation], ids: Vec<i64>) {
    let mut ids = ids.into_iter();
    for operation in batch {
        if let Operation::Enqueue(waiting) = operation
            && waiting.write.ids.is_empty()
        {
            let count = waiting.write.jobs.len();
            waiting.write.ids.extend(ids.by_ref().take(count));
        }
    }
}

/// Does all enqueues of a transaction.
pub(super) async fn enqueue_all(tx: &Tx<'_>, enqueues: &mut [&mut Waiting<Enqueue>]) -> Db<()> {
    if enqueues.is_empty() {
        return Ok(());
    }
    confirm(tx, enqueues).await?;
    let writes: Vec<&Enqueue> =
        enqueues.iter().filter(|waiting| waiting.answer.is_none()).map(|waiting| &waiting.write).collect();
    let mut depths = Depths::read(tx, &writes).await?;
    let mut keys = Keys::take(tx, writes.iter().flat_map(|write| write.jobs.iter().zip(&write.ids))).await?;
    let mut rows = Rows::default();
    let answers: Vec<_> =
        writes.iter().map(|write| plan(tx, write, &mut depths, &mut keys, &mut rows)).collect();
    keys.settle(tx).await?;
    rows.insert(tx).await?;
    let waiting = enqueues.iter_mut().filter(|waiting| waiting.answer.is_none());
    for (waiting, answer) in waiting.zip(answers) {
        waiting.answer = Some(answer);
    }
    Ok(())
}

/// Answers those whose commit was done, though nobody heard of it.
async fn confirm(tx: &Tx<'_>, enqueues: &mut [&mut Waiting<Enqueue>]) -> Db<()> {
    let first =
        |unsure: &Option<Vec<Enqueued>>| unsure.iter().flatten().find(|job| job.created).map(|job| job.id.0);
    let ids: Vec<i64> = enqueues.iter().filter_map(|waiting| first(&waiting.write.unsure)).collect();
    let mut found = BTreeSet::new();
    if !ids.is_empty() {
        for row in tx.query("SELECT id FROM jobs WHERE id = ANY($1::bigint[])", &[&ids]).await? {
            found.insert(row.try_get::<_, i64>(0)?);
        }
    }
    for waiting in enqueues {
        let was_done = first(&waiting.write.unsure).is_some_and(|id| found.contains(&id));
        waiting.answer = waiting.write.unsure.clone().filter(|_| was_done).map(Ok);
    }
    Ok(())
}

/// The fate of each job of an enqueue: all of them, or an error.
fn plan<'a>(
    tx: &Tx<'_>,
    write: &'a Enqueue,
    depths: &mut Depths,
    keys: &mut Keys<'a>,
    rows: &mut Rows<'a>,
) -> Result<Vec<Enqueued>, EnqueueError> {
    let mut answer = Vec::with_capacity(write.jobs.len());
    let mut taken: HashMap<(&str, &str), (JobId, &NewJob)> = HashMap::new();
    let mut added: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut inserted = Vec::with_capacity(write.jobs.len());
    for (job, id) in write.jobs.iter().zip(&write.ids) {
        if let Some(unique) = &job.unique {
            let name = (job.queue.as_str(), unique.key.as_str());
            let held = match taken.get(&name) {
                Some((id, _)) => Some(*id),
                None => match keys.holder(name) {
                    Holder::Job(id) => Some(id),
                    Holder::Nobody => None,
                },
            };
            if let Some(id) = held {
                answer.push(Enqueued { id, created: false });
                continue;
            }
            taken.insert(name, (JobId(*id), job));
        }
        let new = Row::of(tx, job, *id);
        let (jobs, bytes) = depths.of(&job.queue);
        let (more_jobs, more_bytes) = added.entry(&job.queue).or_default();
        if job.max_depth.is_some_and(|max| jobs.saturating_add(*more_jobs) >= max) {
            return Err(EnqueueError::Full { queue: job.queue.clone(), depth: jobs });
        }
        *more_jobs += 1;
        *more_bytes = more_bytes.saturating_add(new.bytes());
        if let Some(max) = job.max_bytes.filter(|max| bytes.saturating_add(*more_bytes) > *max) {
            return Err(EnqueueError::FullOfBytes { queue: job.queue.clone(), bytes, max });
        }
        inserted.push(new);
        answer.push(Enqueued { id: JobId(*id), created: true });
    }
    for (queue, (jobs, bytes)) in added {
        depths.add(queue, jobs, bytes);
    }
    for (name, (id, job)) in taken {
        keys.given(name, id, keys::expiry(tx.now, job));
    }
    for row in inserted {
        tx.moves(&row.job.queue, None, Some(row.state), i64::try_from(row.bytes()).unwrap_or(0));
        tx.awake(&row.job.queue);
        rows.0.push(row);
    }
    Ok(answer)
}

/// How much waits in the queues that have a bound.
struct Depths(BTreeMap<String, (u64, u64)>);

impl Depths {
    async fn read(tx: &Tx<'_>, writes: &[&Enqueue]) -> Db<Depths> {
        // The jobs that come in, and the least bounds.
        let mut bounded: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for job in writes.iter().flat_map(|write| &write.jobs) {
            if job.max_depth.is_some() || job.max_bytes.is_some() {
                let (jobs, bytes) = bounded.entry(&job.queue).or_insert((u64::MAX, u64::MAX));
                *jobs = job.max_depth.unwrap_or(u64::MAX).min(*jobs);
                *bytes = job.max_bytes.unwrap_or(u64::MAX).min(*bytes);
            }
        }
        if bounded.is_empty() {
            return Ok(Depths(BTreeMap::new()));
        }
        let names: Vec<&str> = bounded.keys().copied().collect();
        let depths = counters::waiting(tx, &names).await?;
        let is_near = |queue: &str| {
            let (jobs_max, bytes_max) = bounded.get(queue).copied().unwrap_or((u64::MAX, u64::MAX));
            let (jobs, bytes) = depths.get(queue).copied().unwrap_or_default();
            jobs_max.saturating_sub(jobs) < ROOM_UNLOCKED.0
                || bytes_max.saturating_sub(bytes) < ROOM_UNLOCKED.1
        };
        let near: BTreeSet<String> =
            names.iter().filter(|queue| is_near(queue)).map(|queue| (*queue).to_owned()).collect();
        if near.is_empty() {
            return Ok(Depths(depths));
        }
        tx.lock("depth", &near).await?;
        Ok(Depths(counters::waiting(tx, &names).await?))
    }

    fn of(&self, queue: &str) -> (u64, u64) {
        self.0.get(queue).copied().unwrap_or_default()
    }

    fn add(&mut self, queue: &str, jobs: u64, bytes: u64) {
        if let Some(known) = self.0.get_mut(queue) {
            *known = (known.0.saturating_add(jobs), known.1.saturating_add(bytes));
        }
    }
}

/// A job that will be inserted.
struct Row<'a> {
    job: &'a NewJob,
    id: i64,
    state: JobState,
    run_at: i64,
    metadata: Option<String>,
}

impl<'a> Row<'a> {
    fn of(tx: &Tx<'_>, job: &'a NewJob, id: i64) -> Row<'a> {
        // One that was due before it came would otherwise come before all others.
        let run_at = job.run_at.unwrap_or(tx.now).max(tx.now);
        let state = if run_at > tx.now { JobState::Scheduled } else { JobState::Available };
        Row { job, id, state, run_at: run_at.0, metadata: metadata_column(&job.metadata) }
    }

    fn bytes(&self) -> u64 {
        let metadata = self.metadata.as_ref().map_or(0, String::len);
        JOB_BYTES + (self.job.payload.len() + self.job.content_type.len() + metadata) as u64
    }
}

#[derive(Default)]
struct Rows<'a>(Vec<Row<'a>>);

impl Rows<'_> {
    async fn insert(&self, tx: &Tx<'_>) -> Db<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        fn column<'a, T>(rows: &'a [Row<'a>], of: impl FnMut(&'a Row<'a>) -> T) -> Vec<T> {
            rows.iter().map(of).collect()
        }
        let rows = &self.0;
        let ids = column(rows, |row| row.id);
        let queues = column(rows, |row| row.job.queue.as_str());
        let states = column(rows, |row| row.state.name());
        let priorities = column(rows, |row| row.job.priority);
        let keys = column(rows, |row| row.job.unique.as_ref().map(|unique| unique.key.as_str()));
        let scopes = column(rows, |row| row.job.unique.as_ref().map(|unique| keys::scope_name(unique.scope)));
        let run_at = column(rows, |row| row.run_at);
        let attempts = column(rows, |row| {
            row.job.attempts_max.map(|attempts| i32::try_from(attempts).unwrap_or(i32::MAX))
        });
        let bytes = column(rows, |row| i64::try_from(row.bytes()).unwrap_or(i64::MAX));
        let payload_bytes = column(rows, |row| i32::try_from(row.job.payload.len()).unwrap_or(i32::MAX));
        let content_types = column(rows, |row| row.job.content_type.as_str());
        let metadata = column(rows, |row| row.metadata.as_deref());
        let payloads = column(rows, |row| row.job.payload.as_slice());
        let jobs_params: [&(dyn tokio_postgres::types::ToSql + Sync); 11] = [
            &ids,
            &queues,
            &states,
            &priorities,
            &keys,
            &scopes,
            &run_at,
            &attempts,
            &bytes,
            &payload_bytes,
            &tx.now.0,
        ];
        let jobs = tx.execute(
            "INSERT INTO jobs (id, queue, state, priority, unique_key, unique_scope, enqueued_at, run_at, attempts_asked,
                               attempts_max, bytes, payload_bytes)
             SELECT id, queue, state, priority, key, scope, $11::bigint, run_at, attempts, attempts, bytes, payload_bytes
             FROM unnest($1::bigint[], $2::text[], $3::text[], $4::smallint[], $5::text[], $6::text[], $7::bigint[],
                         $8::integer[], $9::bigint[], $10::integer[])
               AS new (id, queue, state, priority, key, scope, run_at, attempts, bytes, payload_bytes)",
            &jobs_params,
        );
        let payloads_params: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
            [&ids, &content_types, &metadata, &payloads];
        let payloads = tx.execute(
            "INSERT INTO payloads (job_id, content_type, metadata, payload)
             SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bytea[])",
            &payloads_params,
        );
        let (jobs, payloads) = join(jobs, payloads).await;
        jobs.and(payloads).map(drop)
    }
}
