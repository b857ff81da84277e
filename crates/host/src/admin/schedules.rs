//! `/v1/schedules`: where schedules stand, what became of their ticks, and a tick that a person wants now.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use tokio::time::Instant;
use wasmhost_config::Times;
use wasmhost_store::Timestamp;
use wasmhost_store::ticks::{self, TickEnd};

use super::api::{NextTick, ScheduleView, SchedulesView, TickResponse, TickView, TicksView};
use super::jobs::page_size;
use super::request::Nothing;
use super::{Admin, ApiError, Shared};
use crate::supervisor::Refused;
use crate::trigger::schedule::Timeline;
use crate::trigger::schedule::{ScheduleTrigger, TickError};

/// Times to come that are shown.
const NEXT: usize = 5;

/// How long a tick waits while a deploy replaces its schedule, and how often it looks.
const REPLACED_MAX: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Ticks that are listed, where nobody says how many.
const TICKS_DEFAULT: u32 = 20;

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/v1/schedules", get(schedules))
        .route("/v1/schedules/{process}/ticks", get(history).post(tick))
}

#[utoipa::path(
    get,
    path = "/v1/schedules",
    tag = "schedules",
    operation_id = "list_schedules",
    summary = "Where each schedule stands.",
    responses((status = 200, description = "The schedules", body = SchedulesView))
)]
async fn schedules(State(admin): Shared, _: Nothing) -> Result<Json<SchedulesView>, ApiError> {
    let live = admin.live.load_full();
    let mut schedules = Vec::with_capacity(live.schedules.len());
    for trigger in live.schedules.values() {
        schedules.push(view(&trigger.timeline).await?);
    }
    schedules.sort_by(|one, next| one.process.cmp(&next.process));
    Ok(Json(SchedulesView { schedules }))
}

async fn view(timeline: &Timeline) -> Result<ScheduleView, ApiError> {
    let (cursor, next) =
        timeline.upcoming(NEXT).await.map_err(|err| ApiError::unavailable(err.to_string()))?;
    let (schedule, time_zone, every_s) = match &timeline.schedule.times {
        Times::Cron { expression, time_zone } => (Some(expression.clone()), Some(time_zone.clone()), None),
        Times::Every(every) => (None, None, Some(every.as_secs_f64())),
    };
    let next = next.into_iter().map(|time| NextTick { nominal: time.nominal, due: time.due }).collect();
    Ok(ScheduleView {
        process: timeline.process.to_string(),
        schedule,
        time_zone,
        every_s,
        jitter_s: timeline.schedule.jitter.as_secs_f64(),
        cursor,
        next,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HistoryQuery {
    n: Option<String>,
}

#[utoipa::path(
    get,
    path = "/v1/schedules/{process}/ticks",
    tag = "schedules",
    operation_id = "list_ticks",
    summary = "What became of the last ticks of a type.",
    params(("process" = String, Path, description = "The type"), ("n" = Option<u32>, Query, description = "How many: 20, at most 1,000")),
    responses((status = 200, description = "The newest first", body = TicksView))
)]
async fn history(
    State(admin): Shared,
    Path(process): Path<String>,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Json<TicksView>, ApiError> {
    let Query(query) = query.map_err(|rejected| ApiError::bad(rejected.body_text()))?;
    let timeline = &find(&admin, &process)?.timeline;
    let count =
        query.n.as_deref().map_or(Ok(TICKS_DEFAULT), |text| page_size("n", text, ticks::HISTORY_MAX))?;
    let ticks = timeline.ticks.history(&process, count).await;
    let ticks = ticks.map_err(|err| ApiError::unavailable(err.to_string()))?;
    Ok(Json(TicksView { ticks: ticks.into_iter().map(tick_view).collect() }))
}

fn tick_view(tick: ticks::TickView) -> TickView {
    TickView {
        process: tick.schedule,
        nominal: tick.nominal,
        manual: tick.manual,
        started_at: tick.started_at,
        ended_at: tick.ended_at,
        duration_s: tick.ended_at.map(|ended_at| ended_at.since(tick.started_at).as_secs_f64()),
        result: tick.result,
        error: tick.error,
    }
}

#[utoipa::path(
    post,
    path = "/v1/schedules/{process}/ticks",
    tag = "schedules",
    operation_id = "run_tick",
    summary = "Runs a tick now.",
    params(("process" = String, Path, description = "The type")),
    responses((status = 200, description = "It has run", body = TickResponse))
)]
async fn tick(
    State(admin): Shared,
    Path(process): Path<String>,
    _: Nothing,
) -> Result<Json<TickResponse>, ApiError> {
    match run_now(&admin, &process).await? {
        Ok((nominal, end)) => {
            let error = match end {
                TickEnd::Done => None,
                TickEnd::Failed(why) | TickEnd::Skipped(why) | TickEnd::Interrupted(why) => Some(why),
            };
            Ok(Json(TickResponse { nominal: nominal.to_string(), error }))
        }
        Err(
            err @ (TickError::Taken
            | TickError::Overlaps(_)
            | TickError::Elsewhere(_)
            | TickError::Replaced(_)),
        ) => Err(ApiError::refused(Refused::Conflict(err.to_string()))),
        Err(err @ (TickError::Store(_) | TickError::Stopping)) => Err(ApiError::unavailable(err.to_string())),
    }
}

/// Where a deploy replaces the schedule at this moment, the next one runs the tick.
async fn run_now(admin: &Admin, process: &str) -> Result<Result<(Timestamp, TickEnd), TickError>, ApiError> {
    let until = Instant::now() + REPLACED_MAX;
    loop {
        match find(admin, process)?.run_now().await {
            Err(TickError::Replaced(_)) if Instant::now() < until => tokio::time::sleep(LOOK_AGAIN).await,
            ran => return Ok(ran),
        }
    }
}

fn find(admin: &Admin, process: &str) -> Result<Arc<ScheduleTrigger>, ApiError> {
    let missing = || ApiError::missing(format!("there is no process type \"{process}\" with a schedule"));
    admin.live.load().schedules.get(process).cloned().ok_or_else(missing)
}
