//! The admin API's way in for jobs.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use wasmhost_store::Timestamp;
use wasmhost_store::jobs::{EnqueueError, NewJob, Unique, UniqueScope};

use super::api::{self, EnqueueRequest, EnqueueResponse};
use super::jobs::{check_queue, failed, shown};
use super::openapi::{EnqueueAnswer, EnqueueBody};
use super::request::{Whole, decode_one_or_more};
use super::{ApiError, Limit, Shared};
use crate::services::PRODUCER_API;

#[utoipa::path(
    post,
    path = "/v1/queues/{queue}/jobs",
    tag = "jobs",
    operation_id = "enqueue",
    summary = "Enqueues one job, or many together.",
    params(
        ("queue" = String, Path, description = "The queue"),
        ("traceparent" = Option<String>, Header, description = "The trace that the jobs go on with, as W3C Trace Context has it; one that isn't well-formed is left alone"),
        ("tracestate" = Option<String>, Header, description = "Other systems' words about that trace"),
    ),
    request_body = EnqueueBody,
    responses((status = 201, description = "They are durable", body = EnqueueAnswer), (status = 200, description = "Every unique key was taken", body = EnqueueAnswer))
)]
pub(super) async fn enqueue(
    State(admin): Shared,
    Path(queue): Path<String>,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<Response, ApiError> {
    check_queue(&queue)?;
    let (requests, many) = decode_one_or_more::<EnqueueRequest>(&body)?;
    let now = Timestamp::now();
    let (max_depth, max_bytes) = (admin.queues.max_depth(&queue), Some(admin.queues.max_bytes(&queue)));
    let jobs = requests.into_iter().enumerate().map(|(index, request)| {
        let which = |problem: String| match many {
            true => ApiError::bad(format!("job {index}: {problem}")),
            false => ApiError::bad(problem),
        };
        let job = new_job(&queue, request, now).map_err(which)?;
        Ok(NewJob { max_depth, max_bytes, ..job })
    });
    let mut jobs: Vec<NewJob> = jobs.collect::<Result<_, _>>()?;
    admin.queues.take_rate(PRODUCER_API, &queue, jobs.len()).map_err(ApiError::too_fast)?;
    let mut sent = admin.queues.trace(&headers, &queue, &mut jobs);
    let enqueued = admin.queues.jobs_of_api.enqueue(jobs).await;
    if let Some(sent) = &mut sent {
        match &enqueued {
            Ok(jobs) => sent.are_on(jobs.iter().map(|job| job.id.to_string())),
            Err(err) => sent.fail(err.name()),
        }
    }
    drop(sent);
    let enqueued = enqueued.map_err(|err| match err {
        EnqueueError::Invalid(text) => ApiError::bad(text),
        EnqueueError::Full { depth, .. } => {
            let max = max_depth.unwrap_or(depth);
            ApiError::full(err.to_string(), Limit { name: "max_depth", max })
        }
        EnqueueError::FullOfBytes { max, .. } => {
            ApiError::full(err.to_string(), Limit { name: "max_bytes", max })
        }
        EnqueueError::Store(err) => failed(err),
    })?;
    admin.queues.tell_enqueued(None, &queue, &enqueued);
    admin.queues.note_enqueued(&queue, &enqueued);
    let created = enqueued.iter().any(|job| job.created);
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let receipts = enqueued.iter().map(|job| {
        let (id, created) = (job.id.to_string(), job.created);
        EnqueueResponse { id, created, warning: None }
    });
    let mut receipts: Vec<EnqueueResponse> = receipts.collect();
    if let Some(first) = receipts.first_mut() {
        first.warning = admin.queues.unworked(&queue);
    }
    Ok(match many {
        true => (status, Json(receipts)).into_response(),
        false => (status, Json(receipts.pop())).into_response(),
    })
}

fn new_job(queue: &str, request: EnqueueRequest, now: Timestamp) -> Result<NewJob, String> {
    let payload = match (request.payload, request.payload_base64) {
        (Some(_), Some(_)) => return Err("`payload` and `payload_base64` exclude each other".into()),
        (text, None) => text.unwrap_or_default().into_bytes(),
        (None, Some(encoded)) => {
            let not_base64 =
                |_| "payload_base64: found something else, expected standard base64 with padding".to_owned();
            BASE64_STANDARD.decode(encoded).map_err(not_base64)?
        }
    };
    let run_at = match (request.delay_ms, request.run_at) {
        (Some(_), Some(_)) => return Err("`delay_ms` and `run_at` exclude each other".into()),
        (Some(ms), None) => Some(now + Duration::from_millis(ms)),
        (None, Some(text)) => Some(due_at(&text)?),
        (None, None) => None,
    };
    let unique = match (request.unique_key, request.unique_scope) {
        (None, Some(_)) => return Err("`unique_scope` needs a `unique_key`".into()),
        (None, None) => None,
        (Some(key), scope) => Some(Unique { key, scope: scope.map(to_scope).unwrap_or_default() }),
    };
    Ok(NewJob {
        queue: queue.to_owned(),
        payload,
        content_type: request.content_type,
        metadata: request.metadata,
        run_at,
        priority: request.priority,
        unique,
        attempts_max: request.attempts,
        ..NewJob::default()
    })
}

fn due_at(text: &str) -> Result<Timestamp, String> {
    // Years past 9999 aren't RFC 3339, and the end of 9999 is further away than a job can be put off.
    text.parse().map_err(|_| {
        let found = shown(text);
        format!(
            "run_at: found \"{found}\", expected a time within ten years as RFC 3339 has it, such as \
             \"2026-01-31T12:00:00Z\" or \"2026-01-31T12:00:00+01:00\""
        )
    })
}

fn to_scope(scope: api::UniqueScope) -> UniqueScope {
    match scope {
        api::UniqueScope::Waiting => UniqueScope::Waiting,
        api::UniqueScope::Running => UniqueScope::Running,
        api::UniqueScope::ForMs(ms) => UniqueScope::For(Duration::from_millis(ms)),
    }
}
