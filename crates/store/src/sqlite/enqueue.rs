//! Jobs come in: all that can refuse them is asked before the first is written.

use std::collections::HashMap;

use rusqlite::{OptionalExtension, named_params, params};

use super::keys;
use super::values::metadata_column;
use super::writer::{Tx, Write};
use crate::jobs::{EnqueueError, Enqueued, JobId, JobState, NewJob, Unique};

pub(super) struct Enqueue {
    pub(super) jobs: Vec<NewJob>,
}

/// What is to be done for one job of the batch.
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
        // Each queue's depth before this batch, and what the batch has added so far.
        let mut depths: HashMap<&str, (u64, u64)> = HashMap::new();
        for (index, job) in self.jobs.iter().enumerate() {
            if let Some(Unique { key, .. }) = &job.unique {
                let place = (job.queue.as_str(), key.as_str());
                let held = match keys.get(&place) {
                    Some(step) => Some(*step),
                    None => keys::holder(tx, &job.queue, key)?.map(Step::Held),
                };
                keys.insert(place, held.unwrap_or(Step::Twin(index)));
                if let Some(step) = held {
                    steps.push(step);
                    continue;
                }
            }
            if !depths.contains_key(job.queue.as_str()) {
                // Jobs without a max_depth count towards that of others in the batch, but need not ask.
                let limited =
                    self.jobs.iter().any(|other| other.max_depth.is_some() && other.queue == job.queue);
                depths.insert(&job.queue, (if limited { depth(tx, &job.queue)? } else { 0 }, 0));
            }
            if let Some((depth, added)) = depths.get_mut(job.queue.as_str()) {
                if job.max_depth.is_some_and(|max| depth.saturating_add(*added) >= max) {
                    return Ok(Err(EnqueueError::Full { queue: job.queue.clone(), depth: *depth }));
                }
                *added += 1;
            }
            steps.push(Step::Insert);
        }
        Ok(Ok(steps))
    }
}

fn depth(tx: &Tx<'_>, queue: &str) -> rusqlite::Result<u64> {
    let depth = tx
        .sql("SELECT scheduled + available + retrying FROM queues WHERE queue = ?1")?
        .query_row([queue], |row| row.get(0))
        .optional()?;
    Ok(depth.unwrap_or(0))
}

fn insert(tx: &Tx<'_>, job: &NewJob) -> rusqlite::Result<JobId> {
    let run_at = job.run_at.unwrap_or(tx.now);
    let state = if run_at > tx.now { JobState::Scheduled } else { JobState::Available };
    tx.sql(
        "INSERT INTO jobs (queue, state, priority, unique_key, unique_scope, enqueued_at, run_at, attempts_asked,
                           attempts_max)
         VALUES (:queue, :state, :priority, :key, :scope, :now, :run_at, :attempts, :attempts)",
    )?
    .execute(named_params! {
        ":queue": job.queue, ":state": state, ":priority": job.priority,
        ":key": job.unique.as_ref().map(|unique| &unique.key),
        ":scope": job.unique.as_ref().map(|unique| keys::scope_name(unique.scope)),
        ":now": tx.now, ":run_at": run_at, ":attempts": job.attempts_max,
    })?;
    let id = tx.last_id();
    if let Some(unique) = &job.unique {
        keys::take(tx, &job.queue, unique, JobId(id))?;
    }
    tx.sql("INSERT INTO payloads (job_id, content_type, metadata, payload) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![id, job.content_type, metadata_column(&job.metadata)?, job.payload])?;
    Ok(JobId(id))
}
