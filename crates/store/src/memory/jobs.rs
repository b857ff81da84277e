//! The queue in memory. The rules are SQLite's; see `sqlite/{enqueue,claim,settle,leases,prune}.rs` for the whys. What
//! people do is in `intervene`.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::table::{HeldKey, JobTable, Queue, Row};
use super::{MemoryStore, State, intervene};
use crate::clock::Moment;
use crate::jobs::{
    AttemptEnd, BATCH_BYTES_MAX, CLAIM_JOBS_MAX, Claim, ClaimQueue, EnqueueError, Enqueued, Failure,
    Intervened, Intervention, JobDetail, JobFilter, JobId, JobState, JobView, Jobs, Lease, LeasedJob, NewJob,
    PRUNE_JOBS_MAX, Page, QueueCounts, Retention, Settled, Swept, UniqueScope,
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
        let (moved, taken) = take(&mut self.state(), &claim, Moment::of(&*self.clock));
        if moved {
            self.awake();
        }
        Ok(taken)
    }

    async fn renew(&self, leases: Vec<Lease>, lease: Duration) -> Result<Vec<Lease>, StoreError> {
        let until = self.clock.steady() + lease;
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
        let awaited = {
            let mut state = self.state();
            if !holds(&state.jobs, lease) {
                return Ok(Settled::Stale);
            }
            state.jobs.change(lease.id.0, |row| end(row, JobState::Done, now));
            state.is_awaited(lease.id)
        };
        if awaited {
            self.awake();
        }
        Ok(Settled::Done)
    }

    async fn fail(&self, lease: Lease, failure: Failure) -> Result<Settled, StoreError> {
        let (settled, awaited) = {
            let mut state = self.state();
            let settled = fail(&mut state.jobs, lease, failure, self.clock.now());
            (settled, settled == Settled::Dead && state.is_awaited(lease.id))
        };
        if matches!(settled, Settled::Retrying(_)) || awaited {
            self.awake();
        }
        Ok(settled)
    }

    async fn release(&self, lease: Lease) -> Result<Settled, StoreError> {
        let now = self.clock.now();
        {
            let jobs = &mut self.state().jobs;
            if !holds(jobs, lease) {
                return Ok(Settled::Stale);
            }
            jobs.change(lease.id.0, |row| {
                row.record(AttemptEnd::Released, None, now);
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
        let moment = Moment::of(&*self.clock);
        let jobs = &self.state().jobs;
        let queues =
            queues.iter().filter_map(|queue| jobs.queues.get(queue)).filter(|queue| !queue.counts.paused);
        let due = queues.flat_map(|queue| {
            let waiting = queue.waiting.first().map(|(run_at, _)| *run_at);
            waiting.into_iter().chain(queue.leased.first().map(|(until, _)| moment.on_the_wall(*until)))
        });
        Ok(due.min())
    }

    async fn pause(&self, queue: &str) -> Result<bool, StoreError> {
        rules::check_queue(queue).map_err(StoreError::Invalid)?;
        let mut state = self.state();
        let paused = &mut state.jobs.queues.entry(queue.to_string()).or_default().counts.paused;
        Ok(!std::mem::replace(paused, true))
    }

    async fn resume(&self, queue: &str) -> Result<bool, StoreError> {
        let resumed = {
            let mut state = self.state();
            let queue = state.jobs.queues.get_mut(queue);
            queue.is_some_and(|queue| std::mem::replace(&mut queue.counts.paused, false))
        };
        if resumed {
            self.awake();
        }
        Ok(resumed)
    }

    async fn intervene(&self, id: JobId, intervention: Intervention) -> Result<Intervened, StoreError> {
        let (answer, awaited) = intervene::one(&mut self.state(), id, intervention, self.clock.now());
        if awaited {
            self.awake();
        }
        Ok(answer)
    }

    async fn intervene_all(
        &self,
        filter: JobFilter,
        intervention: Intervention,
    ) -> Result<Swept, StoreError> {
        let (swept, awaited) = intervene::many(&mut self.state(), &filter, intervention, self.clock.now());
        if awaited {
            self.awake();
        }
        Ok(swept)
    }

    async fn get(&self, id: JobId) -> Result<Option<JobDetail>, StoreError> {
        let now = self.clock.now();
        Ok(self.state().jobs.get(id.0).map(|row| JobDetail {
            view: intervene::view_at(row, now),
            payload: row.payload.clone(),
            metadata: row.metadata.clone(),
            attempts: row.attempts.clone(),
        }))
    }

    async fn list(&self, filter: JobFilter, page: Page) -> Result<Vec<JobView>, StoreError> {
        Ok(intervene::list(&self.state().jobs, &filter, page, self.clock.now()))
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

impl State {
    /// Whether somebody waits for this job's leaving of its queue.
    pub(super) fn is_awaited(&self, id: JobId) -> bool {
        self.jobs.get(id.0).is_some_and(|row| self.held_back.contains(&row.view.queue))
    }
}

fn enqueue(table: &mut JobTable, jobs: Vec<NewJob>, now: Timestamp) -> Result<Vec<Enqueued>, EnqueueError> {
    check_depths(table, &jobs, now)?;
    // Twins in one batch are one job, even where the key is held for no time at all.
    let mut keys: HashMap<(String, String), JobId> = HashMap::new();
    let done = jobs.into_iter().map(|job| {
        let place = job.unique.as_ref().map(|unique| (job.queue.clone(), unique.key.clone()));
        if let Some(id) = place.as_ref().and_then(|place| keys.get(place)) {
            return Enqueued { id: *id, created: false };
        }
        let enqueued = enqueue_one(table, job, now);
        place.map(|place| keys.insert(place, enqueued.id));
        enqueued
    });
    Ok(done.collect())
}

fn enqueue_one(table: &mut JobTable, job: NewJob, now: Timestamp) -> Enqueued {
    if let Some(id) = holder(table, &job, now) {
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
        unique_key: job.unique.as_ref().map(|unique| unique.key.clone()),
        content_type: job.content_type,
        enqueued_at: now,
        run_at,
        started_at: None,
        ended_at: None,
        last_error: None,
    };
    if let Some(unique) = &job.unique {
        let expires_at = match unique.scope {
            UniqueScope::For(time) => Some(now + time),
            UniqueScope::Waiting | UniqueScope::Running => None,
        };
        table.hold_key(&view.queue, &unique.key, HeldKey { id: id.0, expires_at });
    }
    let unique_scope = job.unique.map(|unique| unique.scope);
    let (payload, metadata) = (job.payload, job.metadata);
    table.insert(Row {
        view,
        attempts_asked: job.attempts_max,
        unique_scope,
        lease: None,
        attempts: Vec::new(),
        payload,
        metadata,
    });
    Enqueued { id, created: true }
}

fn holder(table: &JobTable, job: &NewJob, now: Timestamp) -> Option<i64> {
    table.holder(&job.queue, &job.unique.as_ref()?.key, now)
}

/// Refuses the batch where one of its jobs would find its queue full.
fn check_depths(table: &JobTable, jobs: &[NewJob], now: Timestamp) -> Result<(), EnqueueError> {
    let mut added: HashMap<&str, u64> = HashMap::new();
    let mut keys: BTreeSet<(&str, &str)> = BTreeSet::new();
    for job in jobs {
        let twin = job.unique.as_ref().is_some_and(|unique| !keys.insert((&job.queue, &unique.key)));
        if twin || holder(table, job, now).is_some() {
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
fn take(state: &mut State, claim: &Claim, moment: Moment) -> (bool, Vec<LeasedJob>) {
    let table = &mut state.jobs;
    let mut moved = false;
    for ClaimQueue { name, .. } in &claim.queues {
        moved |= expire(table, name, moment);
        moved |= promote(table, name, moment.now);
    }
    let limit = claim.limit.clamp(1, CLAIM_JOBS_MAX) as usize;
    let mut bytes = 0;
    let mut taken = Vec::new();
    for ClaimQueue { name, concurrency, .. } in rules::draw_order(&claim.queues) {
        while taken.len() < limit {
            let Some(queue) = table.queues.get(name).filter(|queue| !queue.counts.paused) else { break };
            let Some((_, _, id)) = queue.available.first().copied() else { break };
            if concurrency.is_some_and(|concurrency| queue.counts.leased >= u64::from(concurrency)) {
                state.held_back.insert(name.clone());
                break;
            }
            bytes += table.get(id).map_or(0, |row| row.payload.len());
            if bytes > BATCH_BYTES_MAX && !taken.is_empty() {
                return (moved, taken);
            }
            table.change(id, |row| taken.push(lease(row, claim, moment)));
        }
    }
    (moved, taken)
}

fn lease(row: &mut Row, claim: &Claim, moment: Moment) -> LeasedJob {
    let view = &mut row.view;
    view.state = JobState::Leased;
    view.claim += 1;
    view.attempt += 1;
    let attempts_max = rules::attempts_max(row.attempts_asked, claim.attempts_default, view.attempt);
    view.attempts_max = Some(attempts_max);
    view.started_at = Some(moment.now);
    row.lease = Some((claim.owner.clone(), moment.steady + claim.lease));
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

fn expire(table: &mut JobTable, queue: &str, moment: Moment) -> bool {
    let Some(queue) = table.queues.get(queue) else { return false };
    let expired = ids_until(&queue.leased, moment.steady);
    let lost = |row: &mut Row| interrupt(row, AttemptEnd::LeaseLost, rules::LEASE_RAN_OUT, moment.now);
    expired.iter().for_each(|id| table.change(*id, lost));
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

pub(super) fn end(row: &mut Row, state: JobState, now: Timestamp) {
    row.view.state = state;
    row.view.ended_at = Some(now);
    row.lease = None;
}

fn interrupt(row: &mut Row, how: AttemptEnd, why: &str, now: Timestamp) {
    let attempts_max = row.view.attempts_max.unwrap_or(row.view.attempt);
    let error = rules::interrupted(row.view.attempt, attempts_max, why);
    row.record(how, Some(error.clone()), now);
    row.view.last_error = Some(error);
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
            let Failure { then, message, backoff } = failure;
            let message = rules::cut(message);
            row.record(rules::attempt_end(then), Some(message.clone()), now);
            let view = &mut row.view;
            let attempts_max = view.attempts_max.unwrap_or(view.attempt);
            (answer, view.crashes) =
                rules::after_failure(then, view.attempt, attempts_max, view.crashes, &backoff, now);
            view.last_error = Some(message);
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
            table.change(id, |row| interrupt(row, AttemptEnd::Interrupted, rules::HOST_STOPPED, now));
            freed += 1;
        }
    }
    freed
}

fn counts_at(table: &JobTable, name: &str, queue: &Queue, now: Timestamp) -> QueueCounts {
    let mut counts = QueueCounts { queue: name.to_string(), ..queue.counts.clone() };
    let due = queue.waiting.first().map(|(run_at, _)| *run_at).filter(|run_at| *run_at <= now);
    counts.oldest_waiting = queue.available.iter().map(|(_, run_at, _)| *run_at).chain(due).min();
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
    let keys = prune_keys(table, now);
    table.forget_empty_queues();
    deleted + keys
}

/// The oldest of those that ended by `until` or are more than `kept_max`.
fn too_old(ended: &BTreeSet<(Timestamp, i64)>, until: Timestamp, kept_max: u64, at_most: u64) -> Vec<i64> {
    let surplus = (ended.len() as u64).saturating_sub(kept_max);
    let goes = |(nth, (ended_at, _)): &(u64, &(Timestamp, i64))| *nth < surplus || *ended_at <= until;
    (0..at_most).zip(ended).take_while(goes).map(|(_, (_, id))| *id).collect()
}

fn prune_keys(table: &mut JobTable, now: Timestamp) -> u64 {
    let mut deleted = 0;
    for queue in table.queues.values_mut() {
        queue.unique_keys.retain(|_, held| {
            let goes = held.expires_at.is_some_and(|at| at <= now) && deleted < PRUNE_JOBS_MAX;
            deleted += u64::from(goes);
            !goes
        });
    }
    deleted
}
