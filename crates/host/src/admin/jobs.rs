//! The admin API's part for jobs and queues.

use std::path::Path as FilePath;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use wasmhost_config::name_problem;
use wasmhost_config::shown::one_line;
use wasmhost_store::StoreError;
use wasmhost_store::jobs::{
    INTERVENE_JOBS_MAX, Intervened, Intervention, JobFilter, JobId, JobState, LIST_JOBS_MAX, Order, Page,
    QueueCounts, Swept,
};

use super::api::{
    BackupRequest, BackupResponse, HostEvent, JobChange, JobDetail, JobMoved, JobsView, PauseResponse,
    QueueChange, QueueView, QueuesView, SweepRequest, SweepResponse,
};
use super::request::{Given, Nothing};
use super::{Admin, ApiError, Shared};
use crate::feed;

/// Jobs in a list, where nobody says how many.
const PAGE_DEFAULT: u32 = 100;

/// How much of what somebody sent a message shows, in bytes.
const SHOWN_BYTES: usize = 120;

pub(super) fn routes() -> Router<std::sync::Arc<super::Admin>> {
    Router::new()
        .route("/v1/queues", get(queues))
        .route("/v1/queues/{queue}/jobs", post(super::enqueue::enqueue))
        .route("/v1/queues/{queue}/pause", post(pause))
        .route("/v1/queues/{queue}/resume", post(resume))
        .route("/v1/jobs", get(list))
        .route("/v1/jobs/{id}", get(show).delete(discard))
        .route("/v1/jobs/{id}/retry", post(retry))
        .route("/v1/jobs/{id}/cancel", post(cancel))
        .route("/v1/jobs/retry", post(retry_all))
        .route("/v1/jobs/cancel", post(cancel_all))
        .route("/v1/jobs/discard", post(discard_all))
        .route("/v1/store/backup", post(backup))
}

// --- queues

#[utoipa::path(
    get,
    path = "/v1/queues",
    tag = "jobs",
    operation_id = "list_queues",
    summary = "Queues, and how many jobs are in each state.",
    responses((status = 200, description = "The queues", body = QueuesView))
)]
async fn queues(State(admin): Shared, _: Nothing) -> Result<Json<QueuesView>, ApiError> {
    let mut counts = admin.queues.jobs.counts().await.map_err(failed)?;
    let named = admin.queues.named();
    let empty = named.iter().filter(|name| counts.iter().all(|queue| queue.queue != **name));
    let empty: Vec<_> =
        empty.map(|name| QueueCounts { queue: name.to_owned(), ..QueueCounts::default() }).collect();
    counts.extend(empty);
    counts.sort_by(|one, other| one.queue.cmp(&other.queue));
    let queues = counts.into_iter().map(|counts| QueueView {
        workers: admin.queues.workers(&counts.queue),
        max_depth: admin.queues.max_depth(&counts.queue),
        max_bytes: admin.queues.max_bytes(&counts.queue),
        max_per_second: admin.queues.max_per_second(&counts.queue),
        concurrency: admin.queues.concurrency(&counts.queue),
        counts,
    });
    Ok(Json(QueuesView { queues: queues.collect() }))
}

#[utoipa::path(
    post,
    path = "/v1/queues/{queue}/pause",
    tag = "jobs",
    operation_id = "pause_queue",
    summary = "Claims nothing from a queue, until it is resumed.",
    params(("queue" = String, Path, description = "The queue")),
    responses((status = 200, description = "How it is now", body = PauseResponse))
)]
async fn pause(
    State(admin): Shared,
    Path(queue): Path<String>,
    _: Nothing,
) -> Result<Json<PauseResponse>, ApiError> {
    check_queue(&queue)?;
    let changed = admin.queues.jobs.pause(&queue).await.map_err(failed)?;
    tell_queue(&admin, &queue, QueueChange::Paused, changed);
    Ok(Json(PauseResponse { paused: true, changed }))
}

#[utoipa::path(
    post,
    path = "/v1/queues/{queue}/resume",
    tag = "jobs",
    operation_id = "resume_queue",
    summary = "Ends a pause.",
    params(("queue" = String, Path, description = "The queue")),
    responses((status = 200, description = "How it is now", body = PauseResponse))
)]
async fn resume(
    State(admin): Shared,
    Path(queue): Path<String>,
    _: Nothing,
) -> Result<Json<PauseResponse>, ApiError> {
    check_queue(&queue)?;
    let changed = admin.queues.jobs.resume(&queue).await.map_err(failed)?;
    tell_queue(&admin, &queue, QueueChange::Resumed, changed);
    Ok(Json(PauseResponse { paused: false, changed }))
}

fn tell_queue(admin: &Admin, queue: &str, state: QueueChange, changed: bool) {
    if changed {
        admin.feed.tell(|| HostEvent::Queue { queue: queue.to_owned(), state });
    }
}

pub(super) fn check_queue(queue: &str) -> Result<(), ApiError> {
    match name_problem(queue) {
        Some(problem) => Err(ApiError::bad(format!("queue: {problem}"))),
        None => Ok(()),
    }
}

// --- jobs

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    queue: Option<String>,
    /// With commas between them.
    state: Option<String>,
    key: Option<String>,
    order: Option<String>,
    after: Option<String>,
    limit: Option<String>,
}

#[utoipa::path(
    get,
    path = "/v1/jobs",
    tag = "jobs",
    operation_id = "list_jobs",
    summary = "Jobs, a page at a time.",
    params(("queue" = Option<String>, Query, description = "Of this queue"), ("state" = Option<String>, Query, description = "In one of these states, with commas between them"), ("key" = Option<String>, Query, description = "With this unique key"), ("order" = Option<String>, Query, description = "`newest` or `oldest`"), ("after" = Option<String>, Query, description = "The `next` of the page before"), ("limit" = Option<u32>, Query, description = "How many: 100, at most 1,000")),
    responses((status = 200, description = "A page", body = JobsView))
)]
async fn list(
    State(admin): Shared,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<JobsView>, ApiError> {
    let Query(query) = query.map_err(|rejected| ApiError::bad(rejected.body_text()))?;
    let states = match &query.state {
        Some(states) => states.split(',').map(state).collect::<Result<_, _>>()?,
        None => vec![],
    };
    let filter = JobFilter { queue: query.queue, states, unique_key: query.key };
    let after = query.after.as_deref().map(job_id).transpose()?;
    let limit =
        query.limit.as_deref().map_or(Ok(PAGE_DEFAULT), |text| page_size("limit", text, LIST_JOBS_MAX))?;
    let order = match query.order.as_deref() {
        None | Some("newest") => Order::Newest,
        Some("oldest") => Order::Oldest,
        Some(other) => {
            let found = shown(other);
            return Err(ApiError::bad(format!("order: found \"{found}\", expected newest or oldest")));
        }
    };
    let jobs = admin.queues.jobs.list(filter, Page { after, limit, order }).await.map_err(failed)?;
    let is_last = u32::try_from(jobs.len()).is_ok_and(|found| found < limit);
    let next = jobs.last().filter(|_| !is_last).map(|job| job.id.to_string());
    Ok(Json(JobsView { jobs, next }))
}

/// How many somebody wants of a list.
pub(super) fn page_size(name: &str, text: &str, max: u32) -> Result<u32, ApiError> {
    let wanted = text.parse().ok().filter(|wanted| (1..=max).contains(wanted));
    let wrong = || format!("{name}: found \"{}\", expected a number from 1 to {max}", shown(text));
    wanted.ok_or_else(|| ApiError::bad(wrong()))
}

/// A text that somebody sent, for a message.
pub(super) fn shown(text: &str) -> String {
    one_line(text, SHOWN_BYTES).into_owned()
}

fn state(name: &str) -> Result<JobState, ApiError> {
    JobState::from_name(name).ok_or_else(|| {
        let known: Vec<_> = JobState::ALL.iter().map(|state| state.name()).collect();
        ApiError::bad(format!("state: found \"{}\", expected one of {}", shown(name), known.join(", ")))
    })
}

#[utoipa::path(
    get,
    path = "/v1/jobs/{id}",
    tag = "jobs",
    operation_id = "get_job",
    summary = "All that is known of a job.",
    params(("id" = String, Path, description = "The job")),
    responses((status = 200, description = "The job", body = JobDetail))
)]
async fn show(State(admin): Shared, Path(id): Path<String>, _: Nothing) -> Result<Json<JobDetail>, ApiError> {
    let id = job_id(&id)?;
    let detail = admin.queues.jobs.get(id).await.map_err(failed)?;
    let detail = detail.ok_or_else(|| no_job(id))?;
    let payload_bytes = u64::try_from(detail.payload.len()).unwrap_or(u64::MAX);
    let (payload, payload_base64) = match String::from_utf8(detail.payload) {
        Ok(text) => (Some(text), None),
        Err(err) => (None, Some(BASE64_STANDARD.encode(err.as_bytes()))),
    };
    let instance = match detail.view.state {
        JobState::Leased => admin.claimed.instance_of(id),
        _ => None,
    };
    Ok(Json(JobDetail {
        view: detail.view,
        instance,
        payload,
        payload_base64,
        payload_bytes,
        metadata: detail.metadata,
        attempts: detail.attempts,
    }))
}

#[utoipa::path(
    post,
    path = "/v1/jobs/{id}/retry",
    tag = "jobs",
    operation_id = "retry_job",
    summary = "Puts a job on its queue again.",
    params(("id" = String, Path, description = "The job")),
    responses((status = 200, description = "Its states", body = JobMoved))
)]
async fn retry(admin: Shared, id: Path<String>, _: Nothing) -> Result<Json<JobMoved>, ApiError> {
    intervene(admin, id, Intervention::Retry).await
}

#[utoipa::path(
    post,
    path = "/v1/jobs/{id}/cancel",
    tag = "jobs",
    operation_id = "cancel_job",
    summary = "Takes a job back.",
    params(("id" = String, Path, description = "The job")),
    responses((status = 200, description = "Its states", body = JobMoved))
)]
async fn cancel(admin: Shared, id: Path<String>, _: Nothing) -> Result<Json<JobMoved>, ApiError> {
    intervene(admin, id, Intervention::Cancel).await
}

#[utoipa::path(
    delete,
    path = "/v1/jobs/{id}",
    tag = "jobs",
    operation_id = "discard_job",
    summary = "Deletes a job that has ended.",
    params(("id" = String, Path, description = "The job")),
    responses((status = 200, description = "Its state before", body = JobMoved))
)]
async fn discard(admin: Shared, id: Path<String>, _: Nothing) -> Result<Json<JobMoved>, ApiError> {
    intervene(admin, id, Intervention::Discard).await
}

async fn intervene(
    State(admin): Shared,
    Path(id): Path<String>,
    intervention: Intervention,
) -> Result<Json<JobMoved>, ApiError> {
    let id = job_id(&id)?;
    let (from, to) = match admin.queues.jobs.intervene(id, intervention).await.map_err(failed)? {
        Intervened::Moved { from, to } => (from, Some(to)),
        Intervened::Deleted { from } => (from, None),
        Intervened::NotFound => return Err(no_job(id)),
        Intervened::Refused { state } => return Err(ApiError::conflict(refusal(id, intervention, state))),
        Intervened::KeyHeld { holder } => {
            return Err(ApiError::conflict(format!(
                "job {id} can't be retried while job {holder} holds its unique key"
            )));
        }
    };
    admin.feed.tell(|| feed::job(id, None, change(intervention), None));
    if from == JobState::Leased {
        // Another host finds out when it renews the claim.
        admin.claimed.stop(id);
    }
    Ok(Json(JobMoved { id: id.to_string(), from, to }))
}

/// The change of a job to which this was done.
fn change(intervention: Intervention) -> JobChange {
    match intervention {
        Intervention::Retry => JobChange::Retried,
        Intervention::Cancel => JobChange::Cancelled,
        Intervention::Discard => JobChange::Discarded,
    }
}

fn refusal(id: JobId, intervention: Intervention, state: JobState) -> String {
    match (intervention, state) {
        (Intervention::Discard, _) => format!("job {id} is {state}: cancel it first"),
        (Intervention::Retry, JobState::Available) => {
            format!("job {id} is {state}: it waits for an instance already")
        }
        (Intervention::Retry, JobState::Leased) => format!("job {id} is {state}: an instance has it now"),
        (Intervention::Retry, _) => format!("job {id} is {state}, and can't be retried: enqueue it again"),
        (Intervention::Cancel, _) => format!("job {id} is {state} already"),
    }
}

#[utoipa::path(
    post,
    path = "/v1/jobs/retry",
    tag = "jobs",
    operation_id = "retry_jobs",
    summary = "Puts many jobs on their queues again.",
    request_body = SweepRequest,
    responses((status = 200, description = "How many", body = SweepResponse))
)]
async fn retry_all(admin: Shared, body: Given<SweepRequest>) -> Result<Json<SweepResponse>, ApiError> {
    sweep(admin, body, Intervention::Retry).await
}

#[utoipa::path(
    post,
    path = "/v1/jobs/cancel",
    tag = "jobs",
    operation_id = "cancel_jobs",
    summary = "Takes many jobs back.",
    request_body = SweepRequest,
    responses((status = 200, description = "How many", body = SweepResponse))
)]
async fn cancel_all(admin: Shared, body: Given<SweepRequest>) -> Result<Json<SweepResponse>, ApiError> {
    sweep(admin, body, Intervention::Cancel).await
}

#[utoipa::path(
    post,
    path = "/v1/jobs/discard",
    tag = "jobs",
    operation_id = "discard_jobs",
    summary = "Deletes many jobs.",
    request_body = SweepRequest,
    responses((status = 200, description = "How many", body = SweepResponse))
)]
async fn discard_all(admin: Shared, body: Given<SweepRequest>) -> Result<Json<SweepResponse>, ApiError> {
    sweep(admin, body, Intervention::Discard).await
}

async fn sweep(
    State(admin): Shared,
    Given(SweepRequest { queue, states, unique_key }): Given<SweepRequest>,
    intervention: Intervention,
) -> Result<Json<SweepResponse>, ApiError> {
    if states.as_ref().is_some_and(Vec::is_empty) {
        return Err(ApiError::bad(
            "states: found an empty list, expected at least one state; leave it out for jobs in any".into(),
        ));
    }
    let states = states.unwrap_or_default();
    let filter = JobFilter { queue, states, unique_key };
    // A person who gives up waiting doesn't leave it half done.
    let sweeping = tokio::spawn(async move {
        let mut changed = 0;
        loop {
            let swept = admin.queues.jobs.intervene_all(filter.clone(), intervention).await?;
            changed += swept.changed;
            swept.leased.iter().for_each(|id| admin.claimed.stop(*id));
            // Those that are passed over would be passed over again.
            if !swept.more || swept.changed == 0 {
                if changed > 0 {
                    let (queue, state) = (filter.queue, change(intervention));
                    admin.feed.tell(|| HostEvent::Jobs { queue, state, count: changed });
                }
                return Ok(SweepResponse { changed, note: passed_over(&swept) });
            }
        }
    });
    let swept = sweeping.await.map_err(|err| ApiError::unavailable(err.to_string()))?;
    swept.map(Json).map_err(failed)
}

/// Why a retry left some out.
fn passed_over(swept: &Swept) -> Option<String> {
    let (job, holder) = swept.key_holder?;
    let count = match swept.key_held {
        1 => "1 dead job was".to_owned(),
        INTERVENE_JOBS_MAX.. => format!("{INTERVENE_JOBS_MAX} or more dead jobs were"),
        count => format!("{count} dead jobs were"),
    };
    Some(format!(
        "{count} passed over, since other jobs hold the same unique keys: that of job {job} is held by job {holder}"
    ))
}

fn job_id(text: &str) -> Result<JobId, ApiError> {
    text.parse()
        .map_err(|_| ApiError::bad(format!("found \"{}\", expected a job's id, such as 42", shown(text))))
}

fn no_job(id: JobId) -> ApiError {
    ApiError::missing(format!(
        "there is no job {id}: it was never there, or it has ended and wasn't kept any longer"
    ))
}

// --- the store

#[utoipa::path(
    post,
    path = "/v1/store/backup",
    tag = "jobs",
    operation_id = "backup_store",
    summary = "Copies the store to a new file.",
    request_body = BackupRequest,
    responses((status = 200, description = "It is written", body = BackupResponse))
)]
async fn backup(
    State(admin): Shared,
    Given(BackupRequest { file }): Given<BackupRequest>,
) -> Result<Json<BackupResponse>, ApiError> {
    let file = FilePath::new(&file);
    if !file.is_absolute() {
        return Err(ApiError::bad(format!(
            "found the file \"{}\", expected an absolute path",
            file.display()
        )));
    }
    // The store looks again, and replaces nothing.
    if file.exists() {
        return Err(ApiError::conflict(format!(
            "{} exists already, and was left as it is: move it away, or name another file",
            file.display()
        )));
    }
    admin.backup.backup(file).await.map_err(failed)?;
    let bytes = std::fs::metadata(file).map(|file| file.len()).unwrap_or_default();
    Ok(Json(BackupResponse { bytes }))
}

pub(super) fn failed(err: StoreError) -> ApiError {
    match err {
        StoreError::Invalid(text) => ApiError::bad(text),
        err => ApiError::unavailable(err.to_string()),
    }
}
