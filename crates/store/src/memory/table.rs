//! Jobs by id, and for each question the jobs that it is about, in order: what SQLite's schema says with indexes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::Timestamp;
use crate::jobs::{ATTEMPTS_KEPT, AttemptEnd, AttemptView, JobState, JobView, QueueCounts, UniqueScope};

/// Everything about one job.
pub(super) struct Row {
    pub(super) view: JobView,
    pub(super) attempts_asked: Option<u32>,
    pub(super) unique_scope: Option<UniqueScope>,
    /// Who has it and until when, by the steady clock.
    pub(super) lease: Option<(String, Timestamp)>,
    /// Those that didn't end well.
    pub(super) attempts: Vec<AttemptView>,
    pub(super) payload: Vec<u8>,
    pub(super) metadata: Vec<(String, String)>,
}

impl Row {
    fn available_key(&self) -> (Reverse<i16>, Timestamp, i64) {
        (Reverse(self.view.priority), self.view.run_at, self.view.id.0)
    }

    fn waiting_key(&self) -> (Timestamp, i64) {
        (self.view.run_at, self.view.id.0)
    }

    fn lease_key(&self) -> (Timestamp, i64) {
        (self.lease.as_ref().map_or(Timestamp(0), |(_, until)| *until), self.view.id.0)
    }

    /// Keeps how the attempt of a leased job ended, before the job itself is changed.
    pub(super) fn record(&mut self, end: AttemptEnd, error: Option<String>, now: Timestamp) {
        let view = &self.view;
        self.attempts.push(AttemptView {
            claim: view.claim,
            attempt: view.attempt,
            owner: self.lease.as_ref().map(|(owner, _)| owner.clone()).unwrap_or_default(),
            started_at: view.started_at,
            ended_at: now,
            end,
            error,
        });
        self.attempts.retain(|attempt| attempt.claim > view.claim - i64::from(ATTEMPTS_KEPT));
    }

    fn ended_key(&self) -> (Timestamp, i64) {
        (self.view.ended_at.unwrap_or(Timestamp(0)), self.view.id.0)
    }
}

/// One queue's jobs.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) available: BTreeSet<(Reverse<i16>, Timestamp, i64)>,
    /// Scheduled and retrying ones by when they are due.
    pub(super) waiting: BTreeSet<(Timestamp, i64)>,
    /// By when the lease runs out.
    pub(super) leased: BTreeSet<(Timestamp, i64)>,
    pub(super) unique_keys: HashMap<String, HeldKey>,
    pub(super) counts: QueueCounts,
}

/// Who holds a unique key.
pub(super) struct HeldKey {
    pub(super) id: i64,
    /// `None`: until the job's state says otherwise.
    pub(super) expires_at: Option<Timestamp>,
}

#[derive(Default)]
pub(super) struct JobTable {
    rows: HashMap<i64, Row>,
    last_id: i64,
    pub(super) queues: BTreeMap<String, Queue>,
    /// Done and cancelled ones, the oldest first.
    pub(super) finished: BTreeSet<(Timestamp, i64)>,
    pub(super) dead: BTreeSet<(Timestamp, i64)>,
}

impl JobTable {
    pub(super) fn get(&self, id: i64) -> Option<&Row> {
        self.rows.get(&id)
    }

    pub(super) fn next_id(&mut self) -> i64 {
        self.last_id += 1;
        self.last_id
    }

    pub(super) fn insert(&mut self, row: Row) {
        self.index(&row);
        self.rows.insert(row.view.id.0, row);
    }

    /// All jobs, in no order.
    pub(super) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }

    /// Changes a job; all that leads to it follows.
    pub(super) fn change(&mut self, id: i64, change: impl FnOnce(&mut Row)) {
        if let Some(mut row) = self.take_out(id) {
            change(&mut row);
            let free = match row.unique_scope {
                Some(UniqueScope::Waiting) => {
                    row.view.state == JobState::Leased || row.view.state.has_ended()
                }
                Some(UniqueScope::Running) => row.view.state.has_ended(),
                Some(UniqueScope::For(_)) | None => false,
            };
            if free {
                self.free_key(&row);
            }
            self.insert(row);
        }
    }

    pub(super) fn remove(&mut self, id: i64) -> Option<Row> {
        let row = self.take_out(id)?;
        if !matches!(row.unique_scope, Some(UniqueScope::For(_))) {
            self.free_key(&row);
        }
        Some(row)
    }

    fn take_out(&mut self, id: i64) -> Option<Row> {
        let row = self.rows.remove(&id)?;
        self.unindex(&row);
        Some(row)
    }

    /// Who holds the key of this queue now.
    pub(super) fn holder(&self, queue: &str, key: &str, now: Timestamp) -> Option<i64> {
        let held = self.queues.get(queue)?.unique_keys.get(key)?;
        held.expires_at.is_none_or(|expires_at| expires_at > now).then_some(held.id)
    }

    pub(super) fn hold_key(&mut self, queue: &str, key: &str, held: HeldKey) {
        self.queues.entry(queue.to_string()).or_default().unique_keys.insert(key.to_string(), held);
    }

    /// Takes its key from a job, if it has it.
    pub(super) fn free_key(&mut self, row: &Row) {
        if let Some(key) = &row.view.unique_key
            && let Some(queue) = self.queues.get_mut(&row.view.queue)
            && queue.unique_keys.get(key).is_some_and(|held| held.id == row.view.id.0)
        {
            queue.unique_keys.remove(key);
        }
    }

    fn index(&mut self, row: &Row) {
        let queue = self.queues.entry(row.view.queue.clone()).or_default();
        *state_count(&mut queue.counts, row.view.state) += 1;
        match row.view.state {
            JobState::Available => drop(queue.available.insert(row.available_key())),
            JobState::Scheduled | JobState::Retrying => drop(queue.waiting.insert(row.waiting_key())),
            JobState::Leased => drop(queue.leased.insert(row.lease_key())),
            JobState::Done | JobState::Cancelled => drop(self.finished.insert(row.ended_key())),
            JobState::Dead => drop(self.dead.insert(row.ended_key())),
        }
    }

    fn unindex(&mut self, row: &Row) {
        let queue = self.queues.entry(row.view.queue.clone()).or_default();
        *state_count(&mut queue.counts, row.view.state) -= 1;
        match row.view.state {
            JobState::Available => drop(queue.available.remove(&row.available_key())),
            JobState::Scheduled | JobState::Retrying => drop(queue.waiting.remove(&row.waiting_key())),
            JobState::Leased => drop(queue.leased.remove(&row.lease_key())),
            JobState::Done | JobState::Cancelled => drop(self.finished.remove(&row.ended_key())),
            JobState::Dead => drop(self.dead.remove(&row.ended_key())),
        }
    }

    /// Forgets queues that hold nothing.
    pub(super) fn forget_empty_queues(&mut self) {
        self.queues
            .retain(|_, queue| queue.counts != QueueCounts::default() || !queue.unique_keys.is_empty());
    }
}

fn state_count(counts: &mut QueueCounts, state: JobState) -> &mut u64 {
    match state {
        JobState::Scheduled => &mut counts.scheduled,
        JobState::Available => &mut counts.available,
        JobState::Leased => &mut counts.leased,
        JobState::Retrying => &mut counts.retrying,
        JobState::Done => &mut counts.done,
        JobState::Dead => &mut counts.dead,
        JobState::Cancelled => &mut counts.cancelled,
    }
}
