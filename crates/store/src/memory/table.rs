//! Jobs by id, and for each question the jobs that it is about, in order: what `schema_1.sql` says with indexes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::Timestamp;
use crate::jobs::{JobState, JobView, QueueCounts};

/// Everything about one job.
pub(super) struct Row {
    pub(super) view: JobView,
    pub(super) attempts_asked: Option<u32>,
    /// Who has it and until when.
    pub(super) lease: Option<(String, Timestamp)>,
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
    /// Of jobs that haven't ended.
    pub(super) unique_keys: HashMap<String, i64>,
    pub(super) counts: QueueCounts,
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

    /// Changes a job; all that leads to it follows.
    pub(super) fn change(&mut self, id: i64, change: impl FnOnce(&mut Row)) {
        if let Some(mut row) = self.remove(id) {
            change(&mut row);
            self.insert(row);
        }
    }

    pub(super) fn remove(&mut self, id: i64) -> Option<Row> {
        let row = self.rows.remove(&id)?;
        self.unindex(&row);
        Some(row)
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
        if let Some(key) = &row.view.unique_key
            && !row.view.state.has_ended()
        {
            queue.unique_keys.insert(key.clone(), row.view.id.0);
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
        if let Some(key) = &row.view.unique_key
            && !row.view.state.has_ended()
        {
            queue.unique_keys.remove(key);
        }
    }

    /// Forgets queues that hold nothing.
    pub(super) fn forget_empty_queues(&mut self) {
        self.queues.retain(|_, queue| queue.counts != QueueCounts::default());
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
