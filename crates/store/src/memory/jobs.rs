//! The queue in memory. The rules are SQLite's; see `sqlite/{enqueue,claim,settle,leases,prune}.rs` for the whys.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::MemoryStore;
use super::table::{JobTable, Queue, Row};
use crate::jobs::{
    BATCH_BYTES_MAX, CLAIM_JOBS_MAX, Claim, EnqueueError, Enqueued, Failure, JobId, JobState, JobView, Jobs,
    Lease, LeasedJob, NewJob, PRUNE_JOBS_MAX, QueueCounts, Retention, Settled,
};
use crate::{StoreError, Timestamp, rules};

#[async_trait]
impl Jobs for MemoryStore {
    async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<Vec<Enqueued>, EnqueueError> {
        rules::check(&jobs)?;
        let done = enqueue(&mut self.state().jobs, jobs, self.clock.now())?;
        if done.iter().any(|job| job.created) {
            self.awake();
        }
        Ok(done)
    }

    async fn claim(&self, claim: Claim) -> Result<Vec<LeasedJob>, StoreError> {
        let (moved, taken) = take(&mut self.state().jobs, &claim, self.clock.now());
        if moved {
            self.awake();
        }
        Ok(taken)
    }

    async fn renew(&self, leases: Vec<Lease>, lease: Duration) -> Result<Vec<Lease>, StoreError> {
        let until = self.clock.now() + lease;
        let jobs = &mut self.state().jobs;
        let mut lost = Vec::new();
        for lease in leases {
            if holds(jobs, lease) {
                jobs.change(lease.id.0, |row| row.lease = row.lease.take().map(|(owner, _)| (owner, until)));
            } else {
                lost.push(lease);
            }
        }
        Ok(lost)
    }

    async fn complete(&self, lease: Lease) -> Result<Settled, StoreError> {
        let now = self.clock.now();
        let jobs = &mut self.state().jobs;
        if !holds(jobs, lease) {
            return Ok(Settled::Stale);
        }
        jobs.change(lease.id.0, |row| end(row, JobState::Done, now));
        Ok(Settled::Done)
    }

    async fn fail(&self, lease: Lease, failure: Failure) -> Result<Settled, StoreError> {
        let settled = fail(&mut self.state().jobs, lease, failure, self.clock.now());
        if matches!(settled, Settled::Retrying(_)) {
            self.awake();
        }
        Ok(settled)
    }

    async fn release(&self, lease: Lease) -> Result<Settled, StoreError> {
        {
            let jobs = &mut self.state().jobs;
            if !holds(jobs, lease) {
                return Ok(Settled::Stale);
            }
            jobs.change(lease.id.0, |row| {
                row.view.state = JobState::Available;
                row.view.attempt = row.view.attempt.saturating_sub(1);
                row.lease = None;
            });
        }
        self.awake();
        Ok(Settled::Released)
    }

    async fn free_leases(&self, prefix: &str) -> Result<u64, StoreError> {
        let freed = free_leases(&mut self.state().jobs, prefix, self.clock.now());
        if freed > 0 {
            self.awake();
        }
        Ok(freed)
    }

    async fn next_due(&self, queues: &[String]) -> Result<Option<Timestamp>, StoreError> {
        let jobs = &self.state().jobs;
        let queues = queues.iter().filter_map(|queue| jobs.queues.get(queue));
        let due = queues.flat_map(|queue| queue.waiting.first().into_iter().chain(queue.leased.first()));
        Ok(due.map(|(due, _)| *due).min())
    }

    async fn get(&self, id: JobId) -> Result<Option<(JobView, Vec<u8>)>, StoreError> {
        let now = self.clock.now();
        Ok(self.state().jobs.get(id.0).map(|row| {
            let mut view = row.view.clone();
            view.state = rules::state_at(view.state, view.run_at, now);
            (view, row.payload.clone())
        }))
    }

    async fn counts(&self) -> Result<Vec<QueueCounts>, StoreError> {
        let now = self.clock.now();
        let jobs = &self.state().jobs;
        let used = jobs.queues.iter().filter(|(_, queue)| queue.counts != QueueCounts::default());
        Ok(used.map(|(name, queue)| counts_at(jobs, name, queue, now)).collect())
    }

    async fn prune(&self, retention: Retention) -> Result<u64, StoreError> {
        Ok(prune(&mut self.state().jobs, retention, self.clock.now()))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

fn enqueue(table: &mut JobTable, jobs: Vec<NewJob>, now: Timestamp) -> Result<Vec<Enqueued>, EnqueueError> {
    check_depths(table, &jobs)?;
    Ok(jobs.into_iter().map(|job| enqueue_one(table, job, now)).collect())
}

fn enqueue_one(table: &mut JobTable, job: NewJob, now: Timestamp) -> Enqueued {
    if let Some(id) = holder(table, &job) {
        return Enqueued { id: JobId(id), created: false };
    }
    let id = JobId(table.next_id());
    let run_at = job.run_at.unwrap_or(now);
    let view = JobView {
        id,
        queue: job.queue,
        state: if run_at > now { JobState::Scheduled } else { JobState::Available },
        priority: job.priority,
        attempt: 0,
        attempts_max: job.attempts_max,
        crashes: 0,
        claim: 0,
        unique_key: job.unique_key,
        content_type: job.content_type,
        enqueued_at: now,
        run_at,
        ended_at: None,
        last_error: None,
    };
    let (payload, metadata) = (job.payload, job.metadata);
    table.insert(Row { view, attempts_asked: job.attempts_max, lease: None, payload, metadata });
    Enqueued { id, created: true }
}

fn holder(table: &JobTable, job: &NewJob) -> Option<i64> {
    table.queues.get(&job.queue)?.unique_keys.get(job.unique_key.as_ref()?).copied()
}

/// Refuses the batch where one of its jobs would find its queue full.
fn check_depths(table: &JobTable, jobs: &[NewJob]) -> Result<(), EnqueueError> {
    let mut added: HashMap<&str, u64> = HashMap::new();
    let mut keys: BTreeSet<(&str, &str)> = BTreeSet::new();
    for job in jobs {
        let twin = job.unique_key.as_ref().is_some_and(|key| !keys.insert((&job.queue, key)));
        if twin || holder(table, job).is_some() {
            continue;
        }
        let counts = table.queues.get(&job.queue).map(|queue| &queue.counts);
        let depth = counts.map_or(0, |counts| counts.scheduled + counts.available + counts.retrying);
        let added = added.entry(&job.queue).or_default();
        if job.max_depth.is_some_and(|max| depth + *added >= max) {
            return Err(EnqueueError::Full { queue: job.queue.clone(), depth });
        }
        *added += 1;
    }
    Ok(())
}

/// Claims; and whether jobs had to be made available for it.
fn take(table: &mut JobTable, claim: &Claim, now: Timestamp) -> (bool, Vec<LeasedJob>) {
    let mut moved = false;
    for (queue, _) in &claim.queues {
        moved |= expire(table, queue, now);
        moved |= promote(table, queue, now);
    }
    let limit = claim.limit.clamp(1, CLAIM_JOBS_MAX) as usize;
    let mut bytes = 0;
    let mut taken = Vec::new();
    for queue in rules::draw_order(&claim.queues) {
        while taken.len() < limit {
            let next = table.queues.get(queue).and_then(|queue| queue.available.first());
            let Some((_, _, id)) = next.copied() else { break };
            bytes += table.get(id).map_or(0, |row| row.payload.len());
            if bytes > BATCH_BYTES_MAX && !taken.is_empty() {
                return (moved, taken);
            }
            table.change(id, |row| taken.push(lease(row, claim, now)));
        }
    }
    (moved, taken)
}

fn lease(row: &mut Row, claim: &Claim, now: Timestamp) -> LeasedJob {
    let view = &mut row.view;
    view.state = JobState::Leased;
    view.claim += 1;
    view.attempt += 1;
    let attempts_max = rules::attempts_max(row.attempts_asked, claim.attempts_default, view.attempt);
    view.attempts_max = Some(attempts_max);
    row.lease = Some((claim.owner.clone(), now + claim.lease));
    LeasedJob {
        lease: Lease { id: view.id, claim: view.claim },
        queue: view.queue.clone(),
        attempt: view.attempt,
        attempts_max,
        crashes: view.crashes,
        payload: row.payload.clone(),
        content_type: view.content_type.clone(),
        metadata: row.metadata.clone(),
        enqueued_at: view.enqueued_at,
    }
}

fn expire(table: &mut JobTable, queue: &str, now: Timestamp) -> bool {
    let Some(queue) = table.queues.get(queue) else { return false };
    let expired = ids_until(&queue.leased, now);
    expired.iter().for_each(|id| table.change(*id, |row| interrupt(row, rules::LEASE_RAN_OUT, now)));
    !expired.is_empty()
}

fn promote(table: &mut JobTable, queue: &str, now: Timestamp) -> bool {
    let Some(queue) = table.queues.get(queue) else { return false };
    let due = ids_until(&queue.waiting, now);
    due.iter().for_each(|id| table.change(*id, |row| row.view.state = JobState::Available));
    !due.is_empty()
}

fn ids_until(times: &BTreeSet<(Timestamp, i64)>, now: Timestamp) -> Vec<i64> {
    times.iter().take_while(|(time, _)| *time <= now).map(|(_, id)| *id).collect()
}

fn holds(table: &JobTable, lease: Lease) -> bool {
    table
        .get(lease.id.0)
        .is_some_and(|row| row.view.state == JobState::Leased && row.view.claim == lease.claim)
}

fn end(row: &mut Row, state: JobState, now: Timestamp) {
    row.view.state = state;
    row.view.ended_at = Some(now);
    row.lease = None;
}

fn interrupt(row: &mut Row, why: &str, now: Timestamp) {
    let attempts_max = row.view.attempts_max.unwrap_or(row.view.attempt);
    row.view.last_error = Some(rules::interrupted(row.view.attempt, attempts_max, why));
    if row.view.attempt >= attempts_max {
        end(row, JobState::Dead, now);
    } else {
        row.view.state = JobState::Available;
        row.lease = None;
    }
}

fn fail(table: &mut JobTable, lease: Lease, failure: Failure, now: Timestamp) -> Settled {
    let mut answer = Settled::Stale;
    if holds(table, lease) {
        table.change(lease.id.0, |row| {
            let view = &mut row.view;
            let attempts_max = view.attempts_max.unwrap_or(view.attempt);
            (answer, view.crashes) =
                rules::after_failure(failure.then, view.attempt, attempts_max, view.crashes, now);
            view.last_error = Some(rules::cut(failure.message));
            match answer {
                Settled::Retrying(run_at) => {
                    view.state = JobState::Retrying;
                    view.run_at = run_at;
                    row.lease = None;
                }
                _ => end(row, JobState::Dead, now),
            }
        });
    }
    answer
}

fn free_leases(table: &mut JobTable, prefix: &str, now: Timestamp) -> u64 {
    let leased: Vec<i64> = table.queues.values().flat_map(|queue| &queue.leased).map(|(_, id)| *id).collect();
    let mut freed = 0;
    for id in leased {
        let owner = table.get(id).and_then(|row| row.lease.as_ref());
        if owner.is_some_and(|(owner, _)| owner.starts_with(prefix)) {
            table.change(id, |row| interrupt(row, rules::HOST_STOPPED, now));
            freed += 1;
        }
    }
    freed
}

fn counts_at(table: &JobTable, name: &str, queue: &Queue, now: Timestamp) -> QueueCounts {
    let mut counts = QueueCounts { queue: name.to_string(), ..queue.counts.clone() };
    for id in ids_until(&queue.waiting, now) {
        match table.get(id).map(|row| row.view.state) {
            Some(JobState::Scheduled) => counts.scheduled -= 1,
            _ => counts.retrying -= 1,
        }
        counts.available += 1;
    }
    counts
}

fn prune(table: &mut JobTable, retention: Retention, now: Timestamp) -> u64 {
    let old = too_old(&table.finished, now - retention.done_for, retention.done_max, PRUNE_JOBS_MAX);
    let room = PRUNE_JOBS_MAX - old.len() as u64;
    let dead = too_old(&table.dead, now - retention.dead_for, retention.dead_max, room);
    let deleted = (old.len() + dead.len()) as u64;
    old.into_iter().chain(dead).for_each(|id| drop(table.remove(id)));
    table.forget_empty_queues();
    deleted
}

/// The oldest of those that ended by `until` or are more than `kept_max`.
fn too_old(ended: &BTreeSet<(Timestamp, i64)>, until: Timestamp, kept_max: u64, at_most: u64) -> Vec<i64> {
    let surplus = (ended.len() as u64).saturating_sub(kept_max);
    let goes = |(nth, (ended_at, _)): &(u64, &(Timestamp, i64))| *nth < surplus || *ended_at <= until;
    (0..at_most).zip(ended).take_while(goes).map(|(_, (_, id))| *id).collect()
}
