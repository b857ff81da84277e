//! The admin API: HTTP and JSON on a unix socket that only this user can open and, where the formation says so, by TCP for
//! those who show a token (`remote`).
//!
//! | request | does |
//! | --- | --- |
//! | `GET /v1/formation` | how things stand: [`FormationView`] |
//! | `GET /v1/overview?type=web&after=17` | the same at a glance, and the last hour: [`api::OverviewView`] |
//! | `POST /v1/scale` | changes counts: [`ScaleRequest`] -> [`ScaleResponse`] |
//! | `POST /v1/restart` | replaces instances: [`RestartRequest`] -> [`RestartResponse`] |
//! | `POST /v1/stop` | drains and ends the host; answers 202 at once |
//! | `POST /v1/deploy`, `POST /v1/rollback` | [`api::DeployRequest`], [`api::RollbackRequest`] -> [`api::DeployEvent`]s |
//! | `POST /v1/promote`, `POST /v1/abort` | the end of a canary: [`api::PromoteRequest`] or nothing -> [`api::DeployEvent`]s |
//! | `GET /v1/releases?n=20`, `GET /v1/releases/{number}` | [`api::ReleasesView`], [`api::ReleaseDetail`] |
//! | `GET /v1/logs?n=100&follow=true&target=web.1&since=TIME&until=TIME` | guests' lines, each a [`api::LogLine`] |
//! | `GET /v1/logs?target=host&level=warn` | the host's own lines, as it writes them on standard error |
//! | `GET /v1/openapi.json` | the description of all this: [`openapi_document`] |
//! | `GET /v1/events?type=web&kind=job,tick&after=ID` | everything that changes, as server-sent events, each an [`api::EventView`] |
//! | `POST /v1/queues/{queue}/jobs` | enqueues one job or many: [`api::EnqueueRequest`] -> [`api::EnqueueResponse`] |
//! | `GET /v1/queues`, `POST /v1/queues/{queue}/pause`, `/resume` | [`api::QueuesView`], [`api::PauseResponse`] |
//! | `GET /v1/jobs`, `GET /v1/jobs/{id}` | [`api::JobsView`], [`api::JobDetail`] |
//! | `POST /v1/jobs/{id}/retry`, `/cancel`, `DELETE /v1/jobs/{id}` | [`api::JobMoved`] |
//! | `POST /v1/jobs/retry`, `/cancel`, `/discard` | to many: [`api::SweepRequest`] -> [`api::SweepResponse`] |
//! | `POST /v1/store/backup` | copies the store: [`api::BackupRequest`] -> [`api::BackupResponse`] |
//! | `GET /v1/schedules` | where each schedule stands: [`api::SchedulesView`] |
//! | `GET /v1/schedules/{process}/ticks?n=20` | what became of its last ticks: [`api::TicksView`] |
//! | `POST /v1/schedules/{process}/ticks` | runs a tick now -> [`api::TickResponse`] |
//!
//! A refusal answers 4xx or 503 with an [`api::Problem`]. While the host starts, all but `GET /v1/formation`, `GET /v1/logs` and `POST /v1/stop`
//! wait (`entrance`).

pub mod api;
mod enqueue;
mod entrance;
mod events;
mod hosts;
mod jobs;
mod logs;
mod openapi;
mod overview;
mod problem;
mod releases;
mod remote;
mod request;
mod schedules;
mod server;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::info;
use wasmhost_store::Releases;

use crate::deaths::Deaths;
use crate::feed::Feed;
use crate::history::History;
use crate::host::Backend;
use crate::ingress::ServedAt;
use crate::logs::Logs;
use crate::members::heart::Membership;
use crate::release::{Deployer, Live};
use crate::services::Queues;
use crate::supervisor::{Action, Target};
use crate::trigger::claimed::ClaimedJobs;
pub(crate) use entrance::Entrance;
pub use openapi::openapi_document;
pub(crate) use overview::Looks;
use problem::{ApiError, Limit};
pub use remote::AdminToken;
pub(crate) use remote::{Opened, Remote, Renewal};
use request::{Given, Nothing};

use api::{
    CanaryView, CountView, FormationView, RestartRequest, RestartResponse, ScaleRequest, ScaleResponse,
    TypeView,
};

/// The longest body of a request. Jobs that are enqueued together have 16 MiB of payload at most, and 1 MiB each; as
/// JSON a payload can take six times that, but seldom does.
const BODY_BYTES_MAX: usize = 32 << 20;

/// The parts of the host that the API answers from.
pub(crate) struct Admin {
    /// The formation's file, which a deploy reads. That of the live release may be the other one of a Procfile and a
    /// formation.toml.
    pub(crate) file: PathBuf,
    pub(crate) live: Arc<ArcSwap<Live>>,
    pub(crate) started: Instant,
    pub(crate) actions: mpsc::Sender<Action>,
    pub(crate) deployer: Deployer,
    pub(crate) releases: Arc<dyn Releases>,
    pub(crate) logs: Arc<Logs>,
    pub(crate) deaths: Arc<Deaths>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) history: Arc<History>,
    pub(crate) looks: Looks,
    pub(crate) queues: Arc<Queues>,
    /// The store, to be copied while it is used.
    pub(crate) backup: Backend,
    pub(crate) claimed: Arc<ClaimedJobs>,
    pub(crate) is_taking: watch::Receiver<bool>,
    /// Cancelled when somebody asks that the host stops.
    pub(crate) stop: CancellationToken,
    /// This host among others, where they share the store.
    pub(crate) membership: Option<Membership>,
}

/// The whole API, of a host that has started.
fn router(admin: Admin) -> Router {
    Router::new()
        .route("/v1/formation", get(formation))
        .route("/v1/overview", get(overview::overview))
        .route("/v1/scale", post(scale))
        .route("/v1/restart", post(restart))
        .route("/v1/stop", post(stop))
        .route("/v1/logs", get(logs::logs))
        .route("/v1/events", get(events::events))
        .route("/v1/openapi.json", get(openapi::openapi))
        .merge(releases::routes())
        .merge(jobs::routes())
        .merge(schedules::routes())
        .fallback(nothing_here)
        .method_not_allowed_fallback(nothing_here)
        .with_state(Arc::new(admin))
}

type Shared = State<Arc<Admin>>;

#[utoipa::path(
    get,
    path = "/v1/formation",
    tag = "host",
    operation_id = "get_formation",
    summary = "How things stand.",
    responses((status = 200, description = "The formation", body = FormationView))
)]
async fn formation(State(admin): Shared, _: Nothing) -> Result<Json<FormationView>, ApiError> {
    admin.formation().await.map(Json)
}

#[utoipa::path(
    post,
    path = "/v1/scale",
    tag = "host",
    operation_id = "scale",
    summary = "Changes counts: all of them, or none.",
    request_body = ScaleRequest,
    responses((status = 200, description = "The new counts", body = ScaleResponse))
)]
async fn scale(
    State(admin): Shared,
    Given(ScaleRequest { changes, reset, reset_all, wait_s }): Given<ScaleRequest>,
) -> Result<Json<ScaleResponse>, ApiError> {
    let ways = [!changes.is_empty(), reset.is_some(), reset_all];
    if ways.iter().filter(|is_given| **is_given).count() > 1 {
        return Err(ApiError::bad("`changes`, `reset` and `reset_all` exclude each other".into()));
    }
    if reset.as_ref().is_some_and(Vec::is_empty) {
        return Err(ApiError::bad(
            "reset: found an empty list, expected at least one type; `reset_all` is for all types".into(),
        ));
    }
    let changed = match reset.or(reset_all.then(Vec::new)) {
        Some(types) => admin.ask(|reply| Action::Reset { types, reply }).await?,
        None => admin.ask(|reply| Action::Scale { changes, reply }).await?,
    };
    let counts = changed.map_err(ApiError::refused)?;
    let summary: Vec<_> = counts.iter().map(|(name, count)| format!("{name}={count}")).collect();
    info!("scaled to {}", summary.join(" "));
    let begun = Instant::now();
    let settled = admin.settled(vec![], wait_s).await?;
    let is_wanted = |view: &TypeView| counts.contains_key(&view.process);
    let (settled, types) = match &admin.membership {
        Some(_) => admin.settled_everywhere(is_wanted, begun, wait_s).await?,
        None => (settled, admin.look().await?.into_iter().filter(is_wanted).collect()),
    };
    Ok(Json(ScaleResponse { settled, types: CountView::of(&types) }))
}

#[utoipa::path(
    post,
    path = "/v1/restart",
    tag = "host",
    operation_id = "restart",
    summary = "Replaces instances by fresh ones.",
    request_body = RestartRequest,
    responses((status = 200, description = "How many", body = RestartResponse))
)]
async fn restart(
    State(admin): Shared,
    Given(RestartRequest { target, wait_s }): Given<RestartRequest>,
) -> Result<Json<RestartResponse>, ApiError> {
    let target = Target::parse(&target).map_err(ApiError::bad)?;
    let (process, named) = (target.process.clone(), target.to_string());
    let restarted = admin.ask(|reply| Action::Restart { target, reply }).await?;
    let restarted = restarted.map_err(ApiError::refused)?;
    info!("restarting {named}");
    let settled = admin.settled(vec![process], wait_s).await?;
    Ok(Json(RestartResponse { restarted, settled }))
}

#[utoipa::path(
    post,
    path = "/v1/stop",
    tag = "host",
    operation_id = "stop",
    summary = "Drains, and ends the host.",
    responses((status = 202, description = "It will stop"))
)]
async fn stop(State(admin): Shared, _: Nothing) -> StatusCode {
    info!("asked to stop by the admin API");
    admin.stop.cancel();
    StatusCode::ACCEPTED
}

async fn nothing_here(request: Request) -> ApiError {
    ApiError::missing(format!("there is nothing at {} {}", request.method(), request.uri().path()))
}

impl Admin {
    /// How things stand, whole.
    async fn formation(&self) -> Result<FormationView, ApiError> {
        let live = self.live.load_full();
        let paused = !*self.is_taking.borrow();
        let mut types = self.look().await?;
        for view in &mut types {
            view.lines_dropped = self.logs.dropped(&view.process);
            view.lines_past_max_log = self.logs.dropped_past_rate(&view.process);
            view.last_crash = self.deaths.last(&view.process);
        }
        let mut formation = FormationView {
            name: live.formation.name.clone(),
            file: self.file.display().to_string(),
            release: live.number,
            http: live.http.iter().map(ServedAt::to_string).collect(),
            health: live.health.iter().map(ServedAt::to_string).collect(),
            admin: live.admin.iter().map(ServedAt::to_string).collect(),
            uptime_s: self.started.elapsed().as_secs_f64(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            paused,
            starting: None,
            canary: live
                .canary
                .map(|canary| CanaryView { release: canary.release, percent: canary.share.percent() }),
            hosts: vec![],
            types,
        };
        self.add_hosts(&mut formation).await;
        Ok(formation)
    }

    /// The types as they stand.
    async fn look(&self) -> Result<Vec<TypeView>, ApiError> {
        self.ask(|reply| Action::Look { reply }).await
    }

    /// Sends the supervisor an action, and waits for its answer.
    async fn ask<T>(&self, action: impl FnOnce(oneshot::Sender<T>) -> Action) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        let stopping = || ApiError::unavailable("the host is stopping".into());
        self.actions.send(action(reply)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())
    }

    /// Waits until these types have what they should, for `wait_s` at most; whether they have.
    async fn settled(&self, types: Vec<String>, wait_s: Option<f64>) -> Result<bool, ApiError> {
        let wait = wait_s.map_or(Ok(Duration::ZERO), Duration::try_from_secs_f64);
        let wait = wait.map_err(|err| ApiError::bad(format!("wait_s: {err}")))?;
        match tokio::time::timeout(wait, self.ask(|reply| Action::Settled { types, reply })).await {
            Ok(answer) => answer.map(|()| true),
            Err(_) => Ok(false),
        }
    }
}

impl Target {
    /// Reads `web` or `web.1`.
    fn parse(text: &str) -> Result<Target, String> {
        let Some((process, index)) = text.rsplit_once('.') else {
            return Ok(Target { process: text.to_owned(), index: None });
        };
        let index = index.parse().map_err(|_| {
            format!("\"{text}\" names no instance: a type (web) or an instance (web.1) is expected")
        })?;
        Ok(Target { process: process.to_owned(), index: Some(index) })
    }

    fn names(&self, instance: &str) -> bool {
        match self.index {
            Some(index) => instance == format!("{}.{index}", self.process),
            None => instance.rsplit_once('.').is_some_and(|(process, _)| process == self.process),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.index {
            Some(index) => write!(f, "{}.{index}", self.process),
            None => f.write_str(&self.process),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_type_or_an_instance() {
        let instance = Target::parse("web.2").unwrap();
        assert!(instance.names("web.2") && !instance.names("web.20"));
        let process = Target::parse("web").unwrap();
        assert!(process.names("web.20") && !process.names("webs.1"));
        assert!(Target::parse("web.x").is_err());
    }
}
