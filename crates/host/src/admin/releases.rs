//! The admin API's part for releases: deploys and rollbacks, whose answers are streams, and the list of what there was.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use wasmhost_config::shown::one_line;
use wasmhost_store::StoreError;
use wasmhost_store::releases::{RELEASES_MAX, Release, ReleaseState};

use super::api::{
    DeployEvent, DeployRequest, PromoteRequest, RELEASES_LISTED, ReleaseDetail, ReleaseSource, ReleaseView,
    ReleasesView, RollbackRequest,
};
use super::jobs::page_size;
use super::request::{Given, Nothing};
use super::{Admin, ApiError, Shared};
use crate::release::views::{components, detail, no_release, view};
use crate::release::{NotTaken, OnCanary, TIMEOUT_DEFAULT, TIMEOUT_MAX, Wanted};
use crate::share::Share;

/// How often a list is read, at most, until no deploy has ended in between.
const READS_MAX: u32 = 5;

/// How much of what somebody sent a message shows, in bytes.
const SHOWN_BYTES: usize = 120;

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/v1/deploy", post(deploy))
        .route("/v1/rollback", post(rollback))
        .route("/v1/promote", post(promote))
        .route("/v1/abort", post(abort))
        .route("/v1/releases", get(list))
        .route("/v1/releases/{number}", get(show))
        .route("/v1/releases/{number}/source", get(source))
}

// --- orders

#[utoipa::path(
    post,
    path = "/v1/deploy",
    tag = "releases",
    operation_id = "deploy",
    summary = "Makes the formation's file the live release.",
    request_body = DeployRequest,
    responses((status = 200, description = "A line of JSON for each step; the last one says how it ended", body = DeployEvent, content_type = "application/x-ndjson"))
)]
async fn deploy(
    State(admin): Shared,
    Given(DeployRequest { dry_run, canary_percent, timeout_s }): Given<DeployRequest>,
) -> Result<Response, ApiError> {
    let canary = canary_percent.map(share).transpose()?;
    order(&admin, Wanted::File { dry_run, canary }, timeout_s)
}

fn share(percent: u64) -> Result<Share, ApiError> {
    let found = || ApiError::bad(format!("canary_percent: found {percent}, expected from 1 to 99"));
    Share::of_percent(percent).ok_or_else(found)
}

#[utoipa::path(
    post,
    path = "/v1/promote",
    tag = "releases",
    operation_id = "promote",
    summary = "Makes the release that is on canary live.",
    request_body = PromoteRequest,
    responses((status = 200, description = "As of a deploy", body = DeployEvent, content_type = "application/x-ndjson"))
)]
async fn promote(
    State(admin): Shared,
    Given(PromoteRequest { timeout_s }): Given<PromoteRequest>,
) -> Result<Response, ApiError> {
    order(&admin, Wanted::Promote, timeout_s)
}

#[utoipa::path(
    post,
    path = "/v1/abort",
    tag = "releases",
    operation_id = "abort",
    summary = "Ends the deploy that is under way, or the release that is on canary.",
    responses((status = 200, description = "As of a deploy", body = DeployEvent, content_type = "application/x-ndjson"))
)]
async fn abort(State(admin): Shared, _: Nothing) -> Result<Response, ApiError> {
    order(&admin, Wanted::Abort, None)
}

#[utoipa::path(
    post,
    path = "/v1/rollback",
    tag = "releases",
    operation_id = "rollback",
    summary = "Goes back to a release of before.",
    request_body = RollbackRequest,
    responses((status = 200, description = "As of a deploy", body = DeployEvent, content_type = "application/x-ndjson"))
)]
async fn rollback(
    State(admin): Shared,
    Given(RollbackRequest { to, timeout_s }): Given<RollbackRequest>,
) -> Result<Response, ApiError> {
    if let Some(number) = to {
        match admin.releases.release(number).await.map_err(unreadable)? {
            None => return Err(missing(&admin, number).await),
            Some(release) => can_come_back(&release).map_err(ApiError::conflict)?,
        }
    }
    order(&admin, Wanted::Release(to), timeout_s)
}

/// There is a way back to what was live before, and to nothing else.
fn can_come_back(Release { number, state, .. }: &Release) -> Result<(), String> {
    match state {
        ReleaseState::Replaced => Ok(()),
        ReleaseState::Live => Err(format!("v{number} is live already")),
        ReleaseState::Pending => Err(format!("v{number} is being deployed or on canary, and was never live")),
        ReleaseState::Failed => Err(format!(
            "v{number} failed and was never live: `wasmhost rollback` goes to the release that was live before, and `wasmhost deploy` \
             tries the formation's file again"
        )),
    }
}

/// Hands the order over. From then on it is carried out, whether its client stays or not.
fn order(admin: &Admin, wanted: Wanted, timeout_s: Option<f64>) -> Result<Response, ApiError> {
    let steps = admin.deployer.order(wanted, timeout(timeout_s)?).map_err(|not_taken| match not_taken {
        NotTaken::Busy | NotTaken::Canary(_) => ApiError::conflict(not_taken.to_string()),
        NotTaken::Stopping => ApiError::unavailable(not_taken.to_string()),
    })?;
    let lines = futures_util::stream::unfold(steps, |mut steps| async {
        steps.recv().await.map(|event| (Ok::<_, Infallible>(encode(&event)), steps))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

fn timeout(seconds: Option<f64>) -> Result<Duration, ApiError> {
    let Some(seconds) = seconds else { return Ok(TIMEOUT_DEFAULT) };
    let timeout = Duration::try_from_secs_f64(seconds).ok();
    timeout.filter(|timeout| !timeout.is_zero() && *timeout <= TIMEOUT_MAX).ok_or_else(|| {
        let most = TIMEOUT_MAX.as_secs();
        ApiError::bad(format!(
            "`timeout_s` (`--timeout`): found {seconds}, expected seconds above 0, and {most} (a week) at most"
        ))
    })
}

fn encode(event: &DeployEvent) -> Bytes {
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

// --- looking

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    n: Option<String>,
}

#[utoipa::path(
    get,
    path = "/v1/releases",
    tag = "releases",
    operation_id = "list_releases",
    summary = "The releases that are kept, the newest first.",
    params(("n" = Option<u32>, Query, description = "How many: 20, at most 1,000")),
    responses((status = 200, description = "The releases", body = ReleasesView))
)]
async fn list(
    State(admin): Shared,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<ReleasesView>, ApiError> {
    let Query(query) = query.map_err(|rejected| ApiError::bad(rejected.body_text()))?;
    let wanted = query.n.as_deref().map_or(Ok(RELEASES_LISTED), |text| page_size("n", text, RELEASES_MAX))?;
    let mut reads = 0;
    loop {
        let live = live_number(&admin).await?;
        let releases = read_list(&admin, wanted).await?;
        reads += 1;
        // A deploy that ended meanwhile has changed two states at once, of which the list may have one.
        if live_number(&admin).await? == live || reads == READS_MAX {
            return Ok(Json(ReleasesView { releases }));
        }
    }
}

/// One after the other: a release has megabytes of text at most.
async fn read_list(admin: &Admin, wanted: u32) -> Result<Vec<ReleaseView>, ApiError> {
    let (file, canary) = live(admin);
    let known: Arc<[u64]> = admin.releases.numbers(RELEASES_MAX).await.map_err(unreadable)?.into();
    let mut releases = Vec::new();
    for number in known.iter().copied().take(usize::try_from(wanted).unwrap_or(usize::MAX)) {
        let Some(release) = admin.releases.release(number).await.map_err(unreadable)? else { continue };
        let before = admin.releases.live_before(number).await.map_err(unreadable)?;
        let (file, known) = (file.clone(), known.clone());
        releases.push(blocking(move || view(&release, before.as_ref(), &known, canary, &file)).await?);
    }
    Ok(releases)
}

async fn live_number(admin: &Admin) -> Result<Option<u64>, ApiError> {
    Ok(admin.releases.live().await.map_err(unreadable)?.map(|live| live.number))
}

#[utoipa::path(
    get,
    path = "/v1/releases/{number}",
    tag = "releases",
    operation_id = "get_release",
    summary = "One release.",
    params(("number" = String, Path, description = "`7` or `v7`")),
    responses((status = 200, description = "The release", body = ReleaseDetail))
)]
async fn show(
    State(admin): Shared,
    Path(number): Path<String>,
    _: Nothing,
) -> Result<Json<ReleaseDetail>, ApiError> {
    let number = read_number(&number)?;
    let Some(release) = admin.releases.release(number).await.map_err(unreadable)? else {
        return Err(missing(&admin, number).await);
    };
    let before = admin.releases.live_before(number).await.map_err(unreadable)?;
    let (file, canary) = live(&admin);
    let known = admin.releases.numbers(RELEASES_MAX).await.map_err(unreadable)?;
    let detail = blocking(move || detail(release, before.as_ref(), &known, canary, &file));
    Ok(Json(detail.await?))
}

/// The formation's file, and the release that is on canary.
fn live(admin: &Admin) -> (PathBuf, Option<OnCanary>) {
    let live = admin.live.load();
    (live.formation.file.clone(), live.canary)
}

#[utoipa::path(
    get,
    path = "/v1/releases/{number}/source",
    tag = "releases",
    operation_id = "get_release_source",
    summary = "All that one needs to run a part of a release.",
    params(("number" = String, Path, description = "`7`, `v7`, or `live`")),
    responses((status = 200, description = "The texts and components", body = ReleaseSource))
)]
async fn source(
    State(admin): Shared,
    Path(number): Path<String>,
    _: Nothing,
) -> Result<Json<ReleaseSource>, ApiError> {
    let release = match number.as_str() {
        "live" => {
            let live = admin.releases.live().await.map_err(unreadable)?;
            live.ok_or_else(|| ApiError::missing("no release is live yet".to_owned()))?
        }
        number => {
            let number = read_number(number)?;
            let found = admin.releases.release(number).await.map_err(unreadable)?;
            match found {
                Some(release) => release,
                None => return Err(missing(&admin, number).await),
            }
        }
    };
    let components = components(&release);
    let Release { number, formation, dotenv, .. } = release;
    Ok(Json(ReleaseSource { number, formation, dotenv, components }))
}

/// Formations are read by it, which takes milliseconds each.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|err| ApiError::unavailable(err.to_string()))
}

/// `7` or `v7`.
fn read_number(text: &str) -> Result<u64, ApiError> {
    text.strip_prefix('v').unwrap_or(text).parse().map_err(|_| {
        let found = one_line(text, SHOWN_BYTES);
        ApiError::bad(format!("found \"{found}\", expected a release's number, such as 7 or v7"))
    })
}

async fn missing(admin: &Admin, number: u64) -> ApiError {
    match admin.releases.numbers(RELEASES_MAX).await {
        Ok(known) => ApiError::missing(no_release(number, &known)),
        Err(err) => unreadable(err),
    }
}

fn unreadable(err: StoreError) -> ApiError {
    ApiError::unavailable(err.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_a_time() {
        assert_eq!(timeout(None).unwrap(), TIMEOUT_DEFAULT);
        assert_eq!(timeout(Some(0.5)).unwrap(), Duration::from_millis(500));
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(timeout(Some(wrong)).unwrap_err().message.contains("above 0"), "{wrong}");
        }
    }

    #[test]
    fn a_release_has_a_number() {
        assert_eq!((read_number("7").unwrap(), read_number("v7").unwrap()), (7, 7));
        for text in ["", "v", "x", "-1"] {
            assert!(read_number(text).is_err(), "{text}");
        }
    }
}
