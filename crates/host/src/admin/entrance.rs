//! The admin API from a host's first moment on. A host that starts may compile for minutes: meanwhile the API says what the
//! host does, has the lines that were written, and stops it. All other requests wait until the host has started.
//!
//! ```text
//! starting -> beginning -> serving
//!     └───────────┴──────> not started: those who wait are told why
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower_service::Service;
use tracing::info;
use wasmhost_config::Formation;

use super::api::{FormationView, HistoryView, OverviewView};
use super::logs::{LogsQuery, LogsRequest};
use super::overview::{self, OverviewQuery};
use super::request::Nothing;
use super::{Admin, ApiError, Remote, router, server};
use crate::host::Lasting;
use crate::ingress::ServedAt;
use crate::logs::Logs;
use crate::state_dir::AdminSocket;
use crate::supervisor::{Target, unknown_type};

/// Requests that wait until the host has started. Those past it are refused, so that `ps` and `stop` find a connection.
const WAITING_MAX: usize = 200;

/// How long those who wait for an answer may take at the end.
const ANSWERED_MAX: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Entrance {
    inside: Arc<Inside>,
    serving: JoinHandle<()>,
    end: CancellationToken,
    /// The same by TCP.
    remote: Arc<Remote>,
}

struct Inside {
    name: String,
    file: String,
    /// The types that the file names.
    types: Vec<String>,
    started: Instant,
    logs: Arc<Logs>,
    /// Cancelled when somebody asks that the host stops.
    stop: CancellationToken,
    stage: watch::Sender<Stage>,
    /// Room for requests that wait until the host has started.
    room: Semaphore,
}

enum Stage {
    /// With the host's present work, for a person.
    Starting(String),
    /// There may be instances, and it takes no time until all can be asked: everybody waits.
    Beginning,
    Serving(Router),
    /// With the reason.
    NotStarted(String),
}

impl Entrance {
    /// Answers requests from now on. `answering` is told each place beside the socket where it does.
    pub(crate) fn new(
        socket: AdminSocket,
        formation: &Formation,
        started: Instant,
        logs: Arc<Logs>,
        lasting: &Lasting,
        answering: Box<dyn Fn(&ServedAt) + Send + Sync>,
    ) -> Entrance {
        let inside = Arc::new(Inside {
            name: formation.name.clone(),
            file: formation.file.display().to_string(),
            types: formation.processes.iter().map(|process| process.name.clone()).collect(),
            started,
            logs,
            stop: CancellationToken::new(),
            stage: watch::Sender::new(Stage::Starting("reading its releases".to_owned())),
            room: Semaphore::new(WAITING_MAX),
        });
        let end = CancellationToken::new();
        let (at_door, starting) = (inside.clone(), starting(inside.clone()));
        let pass = move |request| pass(at_door.clone(), starting.clone(), request);
        let by_token = pass.clone();
        let remote = Remote::new(Arc::new(move |request| Box::pin(by_token(request))), lasting, answering);
        let serve = server::serve(socket, pass, end.clone());
        Entrance { inside, serving: lasting.spawn("the admin API", serve), end, remote }
    }

    /// The same by TCP.
    pub(crate) fn remote(&self) -> &Arc<Remote> {
        &self.remote
    }

    /// Says what the host does now, as long as it starts.
    pub(crate) fn tell(&self, what: impl Into<String>) {
        self.inside.stage.send_replace(Stage::Starting(what.into()));
    }

    /// Nothing takes long any more.
    pub(crate) fn begin(&self) {
        self.inside.stage.send_replace(Stage::Beginning);
    }

    /// Cancelled when somebody asks that the host stops.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.inside.stop
    }

    /// The host has started.
    pub(crate) fn open(&self, admin: Admin) {
        self.inside.stage.send_replace(Stage::Serving(router(admin)));
    }

    /// The host doesn't start.
    pub(crate) async fn refuse(self, why: &str) {
        self.inside.stage.send_replace(Stage::NotStarted(why.to_owned()));
        self.end().await;
    }

    /// Answers what was asked until now. A client that waits for counts, say, can't be answered any more.
    pub(crate) async fn end(self) {
        let Entrance { mut serving, end, remote, .. } = self;
        end.cancel();
        let _ = tokio::join!(tokio::time::timeout(ANSWERED_MAX, &mut serving), remote.end());
        serving.abort();
    }
}

/// Answers as long as the host starts.
fn starting(inside: Arc<Inside>) -> Router {
    Router::new()
        .route("/v1/formation", get(formation))
        .route("/v1/overview", get(overview))
        .route("/v1/stop", post(stop))
        .route("/v1/logs", get(logs))
        .fallback(wait)
        .method_not_allowed_fallback(wait)
        .with_state(inside)
}

/// Every request comes this way.
async fn pass(inside: Arc<Inside>, starting: Router, request: Request) -> Response {
    let serving = match &*inside.stage.borrow() {
        Stage::Serving(router) => Some(router.clone()),
        Stage::Starting(_) | Stage::Beginning | Stage::NotStarted(_) => None,
    };
    answer(serving.unwrap_or(starting), request).await
}

async fn answer(mut router: Router, request: Request) -> Response {
    // A router is always ready.
    let Ok(response) = router.call(request).await;
    response
}

async fn formation(State(inside): State<Arc<Inside>>, request: Request) -> Response {
    let Some(starting) = inside.starting() else { return wait(State(inside), request).await };
    match Nothing::from_request(request, &()).await {
        Ok(Nothing) => Json(inside.view(starting)).into_response(),
        Err(refused) => refused.into_response(),
    }
}

async fn overview(State(inside): State<Arc<Inside>>, request: Request) -> Response {
    let Some(starting) = inside.starting() else { return wait(State(inside), request).await };
    match overview::read(Query::<OverviewQuery>::from_request(request, &()).await) {
        Ok(_) => {
            let (formation, history) = (inside.view(starting), HistoryView::default());
            Json(OverviewView { formation, history }).into_response()
        }
        Err(refused) => refused.into_response(),
    }
}

async fn logs(
    State(inside): State<Arc<Inside>>,
    query: Result<Query<LogsQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let request = LogsRequest::read(query)?;
    if let Some(target) = request.target() {
        inside.check(target)?;
    }
    Ok(request.answer(&inside.logs))
}

impl Inside {
    /// Refuses a type that the file doesn't name. Nobody knows yet which instances there will be.
    fn check(&self, target: &Target) -> Result<(), ApiError> {
        let has_written = || !self.logs.last(1, |line| target.names(&line.instance)).is_empty();
        if self.types.contains(&target.process) || has_written() {
            return Ok(());
        }
        let known: Vec<&str> = self.types.iter().map(String::as_str).collect();
        Err(ApiError::missing(unknown_type(&target.process, &known)))
    }

    /// The present work of a host whose start may take long yet.
    fn starting(&self) -> Option<String> {
        match &*self.stage.borrow() {
            Stage::Starting(what) => Some(what.clone()),
            Stage::Beginning | Stage::Serving(_) | Stage::NotStarted(_) => None,
        }
    }

    /// A host that has nothing yet.
    fn view(&self, starting: String) -> FormationView {
        FormationView {
            name: self.name.clone(),
            file: self.file.clone(),
            release: 0,
            http: vec![],
            health: vec![],
            admin: vec![],
            uptime_s: self.started.elapsed().as_secs_f64(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            paused: false,
            starting: Some(starting),
            canary: None,
            hosts: vec![],
            types: vec![],
        }
    }
}

async fn stop(State(inside): State<Arc<Inside>>, _: Nothing) -> StatusCode {
    info!("asked to stop by the admin API");
    inside.stop.cancel();
    StatusCode::ACCEPTED
}

/// The host's answer, once it has started.
async fn wait(State(inside): State<Arc<Inside>>, request: Request) -> Response {
    let Ok(place) = inside.room.try_acquire() else {
        let full =
            format!("the host is starting, and {WAITING_MAX} requests wait until it has: try again later");
        return ApiError::unavailable(full).into_response();
    };
    let mut stage = inside.stage.subscribe();
    let is_over = |stage: &Stage| matches!(stage, Stage::Serving(_) | Stage::NotStarted(_));
    let router = match stage.wait_for(is_over).await.as_deref() {
        Ok(Stage::Serving(router)) => Ok(router.clone()),
        Ok(Stage::NotStarted(why)) => Err(format!("the host didn't start: {why}")),
        Ok(Stage::Starting(_) | Stage::Beginning) | Err(_) => Err("the host is stopping".to_owned()),
    };
    drop(place);
    match router {
        Ok(router) => answer(router, request).await,
        Err(why) => ApiError::unavailable(why).into_response(),
    }
}
