//! Lists of jobs, a page at a time, in the order of their ids.
//!
//! No index holds jobs by state and id: available, leased and done ones would each have to be moved in it twice more.
//! So a page is found in one of three ways, and the rows are read at the end, a page of them:
//!
//! - The states that a job that goes well never sees have an index of their own (`jobs_set_aside`).
//! - Available and done ones are mostly many: those with the next ids are looked through, a bounded number
//!   ([`WALK_MAX`]).
//! - Where that didn't fill the page they are either few, or far from its beginning: then the index that claims or
//!   retention use is read whole, which holds no other jobs. Leased ones are always few.

use rusqlite::{Connection, ToSql, params, params_from_iter};

use super::views;
use crate::clock::Moment;
use crate::jobs::{JobFilter, JobId, JobState, JobView, LIST_JOBS_MAX, Order, Page};
use crate::rules;

/// How many ids are looked through for available and done jobs: more than retention keeps by default of those that
/// have ended. Some 20 ms.
const WALK_MAX: u32 = 150_000;

pub(super) fn list(
    connection: &Connection,
    moment: Moment,
    filter: &JobFilter,
    page: Page,
) -> rusqlite::Result<Vec<JobView>> {
    let mut search = Search::new(connection, moment, filter, page);
    // All of it sees one state of the tables.
    let snapshot = connection.unchecked_transaction()?;
    search.run()?;
    let mut jobs = Vec::with_capacity(search.ids.len());
    for id in &search.ids {
        jobs.extend(views::find(connection, moment.now, JobId(*id))?);
    }
    snapshot.finish()?;
    Ok(jobs)
}

struct Search<'a> {
    connection: &'a Connection,
    moment: Moment,
    filter: &'a JobFilter,
    order: Order,
    limit: usize,
    /// Ids from here (exclusive) in the direction of the order.
    after: i64,
    /// The best so far, in order; never more than the limit.
    ids: Vec<i64>,
}

impl<'a> Search<'a> {
    fn new(connection: &'a Connection, moment: Moment, filter: &'a JobFilter, page: Page) -> Search<'a> {
        let beginning = match page.order {
            Order::Newest => i64::MAX,
            Order::Oldest => i64::MIN,
        };
        Search {
            connection,
            moment,
            filter,
            order: page.order,
            limit: page.limit.min(LIST_JOBS_MAX) as usize,
            after: page.after.map_or(beginning, |id| id.0),
            ids: Vec::new(),
        }
    }

    fn run(&mut self) -> rusqlite::Result<()> {
        if self.limit == 0 {
            return Ok(());
        }
        if self.filter.unique_key.is_some() {
            return self.keyed();
        }
        let states: Vec<JobState> = rules::states_of(self.filter).collect();
        let wants_many = states.iter().any(|state| matches!(state, JobState::Available | JobState::Done));
        if wants_many && self.walk()? {
            return Ok(());
        }
        for queue in self.queues()? {
            for state in &states {
                self.of(&queue, *state)?;
            }
        }
        Ok(())
    }

    /// The queues to look into.
    fn queues(&self) -> rusqlite::Result<Vec<String>> {
        if let Some(queue) = &self.filter.queue {
            return Ok(vec![queue.clone()]);
        }
        self.connection.prepare_cached("SELECT queue FROM queues")?.query_map([], |row| row.get(0))?.collect()
    }

    /// Looks through the next ids. True where that was enough: the page is full, or there are no more.
    fn walk(&mut self) -> rusqlite::Result<bool> {
        let sql = match self.order {
            Order::Newest => {
                "SELECT id, state, run_at, queue FROM jobs WHERE id < ?1 ORDER BY id DESC LIMIT ?2"
            }
            Order::Oldest => "SELECT id, state, run_at, queue FROM jobs WHERE id > ?1 ORDER BY id LIMIT ?2",
        };
        let mut next = self.connection.prepare_cached(sql)?;
        let mut rows = next.query(params![self.after, WALK_MAX])?;
        let mut seen = 0;
        while let Some(row) = rows.next()? {
            seen += 1;
            let state = rules::state_at(row.get(1)?, row.get(2)?, self.moment.now);
            if rules::is_meant(self.filter, row.get_ref(3)?.as_str()?, state) {
                self.ids.push(row.get(0)?);
                if self.ids.len() == self.limit {
                    return Ok(true);
                }
            }
        }
        if seen < WALK_MAX {
            return Ok(true);
        }
        self.ids.clear();
        Ok(false)
    }

    /// Adds those of a queue in this state, as people see it.
    fn of(&mut self, queue: &str, state: JobState) -> rusqlite::Result<()> {
        let now = self.moment.now;
        match state {
            JobState::Available => {
                self.add(
                    "jobs INDEXED BY jobs_available WHERE queue = ?3 AND state = 'available'",
                    &[&queue],
                )?;
                self.add(
                    "jobs INDEXED BY jobs_waiting
                     WHERE queue = ?3 AND state IN ('scheduled', 'retrying') AND run_at <= ?4",
                    &[&queue, &now],
                )
            }
            JobState::Leased => {
                self.add("jobs INDEXED BY jobs_leased WHERE queue = ?3 AND state = 'leased'", &[&queue])
            }
            JobState::Done => self.add(
                "jobs INDEXED BY jobs_finished
                 WHERE state IN ('done', 'cancelled') AND state = 'done' AND queue = ?3",
                &[&queue],
            ),
            JobState::Scheduled | JobState::Retrying => self.add(
                "jobs INDEXED BY jobs_set_aside WHERE (state = 'scheduled' OR state = 'retrying' OR state = 'dead' OR state = 'cancelled')
                   AND queue = ?3 AND state = ?4 AND run_at > ?5",
                &[&queue, &state, &now],
            ),
            JobState::Dead | JobState::Cancelled => self.add(
                "jobs INDEXED BY jobs_set_aside WHERE (state = 'scheduled' OR state = 'retrying' OR state = 'dead' OR state = 'cancelled')
                   AND queue = ?3 AND state = ?4",
                &[&queue, &state],
            ),
        }
    }

    /// Adds what `from` finds (its own parameters begin at ?3), as far as it belongs on the page.
    fn add(&mut self, from: &str, extra: &[&dyn ToSql]) -> rusqlite::Result<()> {
        let full = self.ids.len() >= self.limit;
        // Past the last of a full page nothing is wanted.
        let (low, high) = match self.order {
            Order::Newest => (self.ids.last().filter(|_| full).copied().unwrap_or(i64::MIN), self.after),
            Order::Oldest => (self.after, self.ids.last().filter(|_| full).copied().unwrap_or(i64::MAX)),
        };
        let direction = if self.order == Order::Newest { "DESC" } else { "ASC" };
        let sql = format!(
            "SELECT id FROM {from} AND id > ?1 AND id < ?2 ORDER BY id {direction} LIMIT {}",
            LIST_JOBS_MAX
        );
        let mut find = self.connection.prepare_cached(&sql)?;
        let bounds: [&dyn ToSql; 2] = [&low, &high];
        let mut rows = find.query(params_from_iter(bounds.iter().chain(extra)))?;
        let mut found = 0;
        while found < self.limit
            && let Some(row) = rows.next()?
        {
            self.ids.push(row.get(0)?);
            found += 1;
        }
        match self.order {
            Order::Newest => self.ids.sort_unstable_by(|a, b| b.cmp(a)),
            Order::Oldest => self.ids.sort_unstable(),
        }
        self.ids.truncate(self.limit);
        Ok(())
    }

    fn keyed(&mut self) -> rusqlite::Result<()> {
        let sql = match self.order {
            Order::Newest => {
                "SELECT id, state, run_at, queue FROM jobs INDEXED BY jobs_keyed
                WHERE unique_key = ?1 AND unique_key IS NOT NULL AND id < ?2 ORDER BY id DESC"
            }
            Order::Oldest => {
                "SELECT id, state, run_at, queue FROM jobs INDEXED BY jobs_keyed
                WHERE unique_key = ?1 AND unique_key IS NOT NULL AND id > ?2 ORDER BY id"
            }
        };
        let mut next = self.connection.prepare_cached(sql)?;
        let mut rows = next.query(params![self.filter.unique_key, self.after])?;
        while self.ids.len() < self.limit
            && let Some(row) = rows.next()?
        {
            let state = rules::state_at(row.get(1)?, row.get(2)?, self.moment.now);
            let queue = row.get_ref(3)?.as_str()?;
            if rules::is_meant(self.filter, queue, state) {
                self.ids.push(row.get(0)?);
            }
        }
        Ok(())
    }
}
