//! What people ask about jobs, and do to them; see `sqlite/{intervene,list}.rs`.

use super::State;
use super::jobs::end;
use super::table::{HeldKey, JobTable, Row};
use crate::jobs::{
    AttemptEnd, INTERVENE_JOBS_MAX, Intervened, Intervention, JobFilter, JobId, JobState, JobView,
    LIST_JOBS_MAX, Order, Page, Swept, UniqueScope,
};
use crate::{Timestamp, rules};

/// Does it, and says whether somebody may wait for what came of it.
pub(super) fn one(
    state: &mut State,
    id: JobId,
    intervention: Intervention,
    now: Timestamp,
) -> (Intervened, bool) {
    let Some(row) = state.jobs.get(id.0) else { return (Intervened::NotFound, false) };
    let from = view_at(row, now).state;
    if !intervention.allows(from) {
        return (Intervened::Refused { state: from }, false);
    }
    match intervention {
        Intervention::Cancel => {
            state.jobs.change(id.0, |row| {
                if row.view.state == JobState::Leased {
                    row.record(AttemptEnd::Cancelled, None, now);
                }
                end(row, JobState::Cancelled, now);
            });
            let awaited = from == JobState::Leased && state.is_awaited(id);
            (Intervened::Moved { from, to: JobState::Cancelled }, awaited)
        }
        Intervention::Retry => {
            if from == JobState::Dead
                && let Some(holder) = take_key_again(&mut state.jobs, id, now)
            {
                return (Intervened::KeyHeld { holder }, false);
            }
            state.jobs.change(id.0, |row| {
                if from == JobState::Dead {
                    (row.view.attempt, row.view.crashes) = (0, 0);
                    row.view.attempts_max = row.attempts_asked;
                    row.view.ended_at = None;
                }
                row.view.state = JobState::Available;
                row.view.run_at = now;
            });
            (Intervened::Moved { from, to: JobState::Available }, true)
        }
        Intervention::Discard => {
            if let Some(row) = state.jobs.remove(id.0) {
                state.jobs.free_key(&row);
            }
            (Intervened::Deleted { from }, false)
        }
    }
}

/// Gives a dead job its key of scope `Running` again; or says who else holds it.
fn take_key_again(table: &mut JobTable, id: JobId, now: Timestamp) -> Option<JobId> {
    let view = &table.get(id.0).filter(|row| row.unique_scope == Some(UniqueScope::Running))?.view;
    let (queue, key) = (view.queue.clone(), view.unique_key.clone()?);
    let holder = table.holder(&queue, &key, now).map(JobId);
    if holder.is_none() {
        table.hold_key(&queue, &key, HeldKey { id: id.0, expires_at: None });
    }
    holder
}

pub(super) fn many(
    state: &mut State,
    filter: &JobFilter,
    intervention: Intervention,
    now: Timestamp,
) -> (Swept, bool) {
    let mut ids: Vec<JobId> = matching(&state.jobs, filter, now)
        .filter(|view| intervention.allows(view.state))
        .map(|view| view.id)
        .collect();
    ids.sort_unstable();
    let mut swept = Swept { changed: 0, more: false };
    let mut awaited = false;
    for id in ids {
        if swept.changed == INTERVENE_JOBS_MAX {
            swept.more = true;
            break;
        }
        let (answer, here) = one(state, id, intervention, now);
        swept.changed += u64::from(matches!(answer, Intervened::Moved { .. } | Intervened::Deleted { .. }));
        awaited |= here;
    }
    (swept, awaited)
}

pub(super) fn list(table: &JobTable, filter: &JobFilter, page: Page, now: Timestamp) -> Vec<JobView> {
    let follows = |id: JobId| match (page.after, page.order) {
        (None, _) => true,
        (Some(after), Order::Newest) => id < after,
        (Some(after), Order::Oldest) => id > after,
    };
    let mut jobs: Vec<JobView> = matching(table, filter, now).filter(|view| follows(view.id)).collect();
    jobs.sort_unstable_by_key(|view| view.id);
    if page.order == Order::Newest {
        jobs.reverse();
    }
    jobs.truncate(page.limit.min(LIST_JOBS_MAX) as usize);
    jobs
}

fn matching(table: &JobTable, filter: &JobFilter, now: Timestamp) -> impl Iterator<Item = JobView> {
    table.rows().map(move |row| view_at(row, now)).filter(|view| {
        rules::is_meant(filter, &view.queue, view.state)
            && filter.unique_key.as_ref().is_none_or(|key| view.unique_key.as_ref() == Some(key))
    })
}

/// A job as people see it.
pub(super) fn view_at(row: &Row, now: Timestamp) -> JobView {
    JobView { state: rules::state_at(row.view.state, row.view.run_at, now), ..row.view.clone() }
}
