//! The transaction under way.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use tokio_postgres::Row;

use super::session::{Db, Params, Session};
use super::shared::Shared;
use crate::Timestamp;
use crate::clock::Moment;
use crate::jobs::JobState;

/// See the module.
pub(super) struct Tx<'s> {
    session: &'s Session,
    pub(super) shared: &'s Shared,
    /// The time for all of its operations.
    pub(super) now: Timestamp,
    /// The same by a test's clock that doesn't step.
    pub(super) steady: Timestamp,
    /// The changes to the numbers of each queue.
    differences: RefCell<BTreeMap<String, Difference>>,
    awoken: RefCell<BTreeSet<String>>,
    seen_to: RefCell<HashSet<String>>,
}

/// The change of the numbers of a queue: jobs by state, and the bytes of those that wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) jobs: [i64; JobState::ALL.len()],
    pub(super) waiting_bytes: i64,
}

impl<'s> Tx<'s> {
    pub(super) fn new(session: &'s Session, shared: &'s Shared, moment: Moment) -> Tx<'s> {
        Tx {
            session,
            shared,
            now: moment.now,
            steady: moment.steady,
            differences: RefCell::default(),
            awoken: RefCell::default(),
            seen_to: RefCell::default(),
        }
    }

    pub(super) async fn query(&self, sql: &str, params: Params<'_>) -> Db<Vec<Row>> {
        self.session.query(sql, params).await
    }

    pub(super) async fn execute(&self, sql: &str, params: Params<'_>) -> Db<u64> {
        self.session.execute(sql, params).await
    }

    /// Takes a lock that lasts until the transaction ends. Transactions that take several take them in the same order:
    /// those of depths first, then those of concurrencies, each by the names of the queues.
    pub(super) async fn lock(&self, of: &str, queues: &BTreeSet<String>) -> Db<()> {
        for queue in queues {
            let name = format!("wasmhost {of} {} {queue}", self.shared.place.schema);
            self.query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", &[&name]).await?;
        }
        Ok(())
    }

    /// A job of these bytes goes from one state to another; none is where it wasn't before, or isn't any more.
    pub(super) fn moves(&self, queue: &str, from: Option<JobState>, to: Option<JobState>, bytes: i64) {
        let mut differences = self.differences.borrow_mut();
        if !differences.contains_key(queue) {
            differences.insert(queue.to_owned(), Difference::default());
        }
        if let Some(difference) = differences.get_mut(queue) {
            for (state, sign) in [(from, -1), (to, 1)] {
                let Some(state) = state else { continue };
                difference.jobs[state as usize] += sign;
                if waits(state) {
                    difference.waiting_bytes += sign * bytes;
                }
            }
        }
    }

    /// The change of a queue so far: jobs that wait, and their bytes.
    pub(super) fn waiting(&self, queue: &str) -> (i64, i64) {
        let differences = self.differences.borrow();
        let Some(difference) = differences.get(queue) else { return (0, 0) };
        let jobs = JobState::ALL.into_iter().filter(|state| waits(*state));
        (jobs.map(|state| difference.jobs[state as usize]).sum(), difference.waiting_bytes)
    }

    pub(super) fn differences(&self) -> BTreeMap<String, Difference> {
        let mut differences = self.differences.take();
        differences.retain(|_, difference| *difference != Difference::default());
        differences
    }

    /// Says that a job of this queue may have become available.
    pub(super) fn awake(&self, queue: &str) {
        let mut awoken = self.awoken.borrow_mut();
        if !awoken.contains(queue) {
            awoken.insert(queue.to_owned());
        }
    }

    /// Says that a job of this queue isn't leased any more.
    pub(super) fn ended_in(&self, queue: &str) {
        match self.shared.is_held_back(queue) {
            true => self.awake(queue),
            false => self.shared.room_for_others(queue),
        }
    }

    pub(super) fn awoken(&self) -> BTreeSet<String> {
        self.awoken.take()
    }

    /// True the first time that it is asked about this queue.
    pub(super) fn first_look(&self, queue: &str) -> bool {
        self.seen_to.borrow_mut().insert(queue.to_owned())
    }
}

/// Whether a job in this state counts towards its queue's depth.
fn waits(state: JobState) -> bool {
    matches!(state, JobState::Scheduled | JobState::Available | JobState::Retrying)
}
