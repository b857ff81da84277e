//! Lists of jobs, a page at a time, in the order of their ids.
//!
//! As in SQLite, no index holds available, leased and done jobs by id. Those with the next ids are looked through, a bounded
//! number; where that doesn't fill the page, the index that claims or retention use is read whole.

use async_trait::async_trait;
use tokio_postgres::types::ToSql;

use super::intervene::of_state;
use super::reader::{Read, View};
use super::session::Db;
use super::views;
use crate::jobs::{JobFilter, JobState, JobView, LIST_JOBS_MAX, Order, Page};
use crate::rules;

/// How many ids are looked through for available and done jobs.
const WALK_MAX: i64 = 100_000;

pub(super) struct List {
    pub(super) filter: JobFilter,
    pub(super) page: Page,
}

#[async_trait]
impl Read for List {
    type Answer = Vec<JobView>;

    async fn ask(&self, view: &View<'_>) -> Db<Vec<JobView>> {
        let limit = self.page.limit.min(LIST_JOBS_MAX);
        if limit == 0 {
            return Ok(Vec::new());
        }
        let ids = match &self.filter.unique_key {
            Some(key) => self.keyed(view, key, limit).await?,
            None => self.of_states(view, limit).await?,
        };
        let mut jobs = views::find(view, &ids).await?;
        if self.page.order == Order::Newest {
            jobs.reverse();
        }
        Ok(jobs)
    }
}

impl List {
    /// The bounds of the ids, and the order: what SQL needs to know of the page.
    fn bounds(&self) -> (i64, i64, &'static str) {
        let after = self.page.after.map(|id| id.0);
        match self.page.order {
            Order::Newest => (i64::MIN, after.unwrap_or(i64::MAX), "DESC"),
            Order::Oldest => (after.unwrap_or(i64::MIN), i64::MAX, "ASC"),
        }
    }

    async fn keyed(&self, view: &View<'_>, key: &str, limit: u32) -> Db<Vec<i64>> {
        let (low, high, direction) = self.bounds();
        let find = format!(
            "SELECT id, state, run_at, queue FROM jobs WHERE unique_key = $1 AND id > $2 AND id < $3 ORDER BY id {direction}"
        );
        let mut ids = Vec::new();
        for row in view.session.query(&find, &[&key, &low, &high]).await? {
            let state = rules::state_at(row.try_get(1)?, row.try_get(2)?, view.now);
            if rules::is_meant(&self.filter, row.try_get(3)?, state) && ids.len() < limit as usize {
                ids.push(row.try_get(0)?);
            }
        }
        Ok(ids)
    }

    async fn of_states(&self, view: &View<'_>, limit: u32) -> Db<Vec<i64>> {
        let states: Vec<JobState> = rules::states_of(&self.filter).collect();
        if states.iter().any(|state| matches!(state, JobState::Available | JobState::Done))
            && let Some(ids) = self.walk(view, &states, limit).await?
        {
            return Ok(ids);
        }
        let (low, high, direction) = self.bounds();
        let mut ids: Vec<i64> = Vec::new();
        for from in states.iter().flat_map(|state| of_state(*state)) {
            let find = format!(
                "SELECT id FROM jobs WHERE ($1::text IS NULL OR queue = $1) AND $2::bigint IS NOT NULL AND {from}
                   AND id > $3 AND id < $4 ORDER BY id {direction} LIMIT $5"
            );
            let limit = i64::from(limit);
            let params: [&(dyn ToSql + Sync); 5] = [&self.filter.queue, &view.now.0, &low, &high, &limit];
            for row in view.session.query(&find, &params).await? {
                ids.push(row.try_get(0)?);
            }
        }
        match self.page.order {
            Order::Newest => ids.sort_unstable_by(|a, b| b.cmp(a)),
            Order::Oldest => ids.sort_unstable(),
        }
        ids.truncate(limit as usize);
        Ok(ids)
    }

    /// Looks through the next ids. None where that wasn't enough: there are more, and the page isn't full.
    async fn walk(&self, view: &View<'_>, states: &[JobState], limit: u32) -> Db<Option<Vec<i64>>> {
        let (low, high, direction) = self.bounds();
        let find = format!(
            "WITH next AS MATERIALIZED (
               SELECT id, queue, CASE WHEN state IN ('scheduled', 'retrying') AND run_at <= $4 THEN 'available'
                                      ELSE state END AS seen_as
               FROM jobs WHERE id > $1 AND id < $2 ORDER BY id {direction} LIMIT $3)
             SELECT id, (SELECT count(*) FROM next) FROM next
             WHERE ($5::text IS NULL OR queue = $5) AND seen_as = ANY($6::text[])
             ORDER BY id {direction} LIMIT $7"
        );
        let states: Vec<&str> = states.iter().map(|state| state.name()).collect();
        let wanted = i64::from(limit);
        let params: [&(dyn ToSql + Sync); 7] =
            [&low, &high, &WALK_MAX, &view.now.0, &self.filter.queue, &states, &wanted];
        let rows = view.session.query(&find, &params).await?;
        let mut ids = Vec::with_capacity(rows.len());
        let mut seen = None;
        for row in rows {
            ids.push(row.try_get(0)?);
            seen = Some(row.try_get::<_, i64>(1)?);
        }
        // Where none was found nobody knows how many were seen; the indexes are read, which is as right.
        let is_all = ids.len() == limit as usize || seen.is_some_and(|seen| seen < WALK_MAX);
        Ok(is_all.then_some(ids))
    }
}
