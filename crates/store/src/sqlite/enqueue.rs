//! Jobs come in: all that can refuse them is asked before the first is written.

use std::collections::HashMap;

use rusqlite::{named_params, params};

use super::depths::Depth;
use super::keys;
use super::operation::Write;
use super::values::metadata_column;
use super::writer::Tx;
use crate::jobs::{EnqueueError, Enqueued, JOB_BYTES, JobId, JobState, NewJob, Unique};

pub(super) struct Enqueue {
    pub(super) jobs: Vec<NewJob>,
}

/// The step for one job of the batch.
#[derive(Clone, Copy)]
enum Step {
    Insert,
    /// Its key is held by a job that was there before.
    Held(JobId),
    /// Its key is held by the job with this index in the batch.
    Twin(usize),
}

impl Write for Enqueue {
    type Answer = Result<Vec<Enqueued>, EnqueueError>;

    fn adds(&self) -> bool {
        true
    }

    fn moves_waiting(&self) -> bool {
        false
    }

    fn rows(&self) -> usize {
        self.jobs.len()
    }

    fn bytes(&self) -> usize {
        self.jobs.iter().map(|job| job.payload.len()).sum()
    }

    fn apply(&self, tx: &Tx<'_>) -> rusqlite::Result<Self::Answer> {
        let steps = match self.plan(tx)? {
            Ok(steps) => steps,
            Err(refused) => return Ok(Err(refused)),
        };
        let mut done: Vec<Enqueued> = Vec::with_capacity(self.jobs.len());
        for (job, step) in self.jobs.iter().zip(steps) {
            done.push(match step {
                Step::Insert => Enqueued { id: insert(tx, job)?, created: true },
                Step::Held(id) => Enqueued { id, created: false },
                Step::Twin(first) => Enqueued { id: done[first].id, created: false },
            });
        }
        if done.iter().any(|job| job.created) {
            tx.awake();
        }
        Ok(Ok(done))
    }
}

impl Enqueue {
    fn plan(&self, tx: &Tx<'_>) -> rusqlite::Result<Result<Vec<Step>, EnqueueError>> {
        let mut steps = Vec::with_capacity(self.jobs.len());
        let mut keys: HashMap<(&str, &str), Step> = HashMap::new();
        // The jobs that wait in each queue before this batch, and those that the batch has added so far.
        let mut queues: HashMap<&str, (Depth, Depth)> = HashMap::new();
        for (index, job) in self.jobs.iter().enumerate() {
            if let Some(Unique { key, .. }) = &job.unique {
                let name = (job.queue.as_str(), key.as_str());
                let held = match keys.get(&name) {
                    Some(step) => Some(*step),
                    None => keys::holder(tx, &job.queue, key)?.map(Step::Held),
                };
                keys.insert(name, held.unwrap_or(Step::Twin(index)));
                if let Some(step) = held {
                    steps.push(step);
                    continue;
                }
            }
            if !queues.contains_key(job.queue.as_str()) {
                // Jobs without a bound count towards that of others in the batch, but need not ask.
                let is_bounded = |other: &NewJob| other.max_depth.is_some() || other.max_bytes.is_some();
                let is_bounded = self.jobs.iter().any(|other| other.queue == job.queue && is_bounded(other));
                let before = if is_bounded { tx.depths.of(tx, &job.queue)? } else { Depth::default() };
                queues.insert(&job.queue, (before, Depth::default()));
            }
            if let Some((before, added)) = queues.get_mut(job.queue.as_str()) {
                let queue = || job.queue.clone();
                if job.max_depth.is_some_and(|max| before.jobs.saturating_add(added.jobs) >= max) {
                    return Ok(Err(EnqueueError::Full { queue: queue(), depth: before.jobs }));
                }
                added.jobs += 1;
                added.bytes =
                    added.bytes.saturating_add(bytes(job, metadata_column(&job.metadata)?.as_deref()));
                if let Some(max) = job.max_bytes.filter(|max| before.bytes.saturating_add(added.bytes) > *max)
                {
                    return Ok(Err(EnqueueError::FullOfBytes { queue: queue(), bytes: before.bytes, max }));
                }
            }
            steps.push(Step::Insert);
        }
        Ok(Ok(steps))
    }
}

/// The bytes that a job counts in its queue.
fn bytes(job: &NewJob, metadata: Option<&str>) -> u64 {
    let passed = job.payload.len() + job.content_type.len() + metadata.map_or(0, str::len);
    JOB_BYTES + passed as u64
}

fn insert(tx: &Tx<'_>, job: &NewJob) -> rusqlite::Result<JobId> {
    // One that was due before it came would otherwise come before all others.
    let run_at = job.run_at.unwrap_or(tx.now).max(tx.now);
    let metadata = metadata_column(&job.metadata)?;
    let bytes = bytes(job, metadata.as_deref());
    let state = if run_at > tx.now { JobState::Scheduled } else { JobState::Available };
    tx.sql(
        "INSERT INTO jobs (queue, state, priority, unique_key, unique_scope, enqueued_at, run_at, attempts_asked,
                           attempts_max, bytes)
         VALUES (:queue, :state, :priority, :key, :scope, :now, :run_at, :attempts, :attempts, :bytes)",
    )?
    .execute(named_params! {
        ":queue": job.queue, ":state": state, ":priority": job.priority,
        ":key": job.unique.as_ref().map(|unique| &unique.key),
        ":scope": job.unique.as_ref().map(|unique| keys::scope_name(unique.scope)),
        ":now": tx.now, ":run_at": run_at, ":attempts": job.attempts_max,
        ":bytes": bytes,
    })?;
    tx.depths.added(&job.queue, bytes);
    let id = tx.last_id();
    tx.gave_id(id);
    if let Some(unique) = &job.unique {
        keys::take(tx, &job.queue, unique, JobId(id))?;
    }
    tx.sql("INSERT INTO payloads (job_id, content_type, metadata, payload) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![id, job.content_type, metadata, job.payload])?;
    Ok(JobId(id))
}
