//! The answers of `[health]`:
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /livez` | 200 as long as the host can go on |
//! | `GET /readyz` | 200 from when all instances are up until the host drains, otherwise 503 and why |
//! | `GET /readyz?type=web` | the same, and 503 where no instance of that type serves, or its `ready` path isn't answered with 2xx |
//! | `GET /metrics` | metrics in the text format of Prometheus |

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc, oneshot};
use wasmhost_engine::Loads;
use wasmhost_store::Jobs;
use wasmhost_store::jobs::QueueCounts;

use super::{Phase, State, text};
use crate::host::Backend;
use crate::logs::Logs;
use crate::release::{Front, Live};
use crate::supervisor::{Action, TypeMeasure};

/// How long a part of the host may take to say how it stands.
const ASKED_MAX: Duration = Duration::from_secs(1);

const WHAT_IS_HERE: &str =
    "there are /livez, /readyz, /readyz?type=TYPE and /metrics here, for GET and HEAD\n";

/// The parts of a host that has started.
pub(crate) struct Sources {
    pub(crate) actions: mpsc::Sender<Action>,
    pub(crate) live: Arc<ArcSwap<Live>>,
    pub(crate) jobs: Arc<dyn Jobs>,
    pub(crate) store: Backend,
    pub(crate) front: Arc<Front>,
    pub(crate) logs: Arc<Logs>,
    pub(crate) loads: Arc<Loads>,
    /// The host's own, on which instances are called.
    pub(crate) runtime: Handle,
}

/// Those who ask a part of the host take turns, so that no more than one waits for one that hangs.
#[derive(Default)]
pub(super) struct Asking {
    supervisor: Asked,
    store: Asked,
    pub(super) instance: Arc<Mutex<()>>,
}

#[derive(Default)]
struct Asked {
    turn: Arc<Mutex<()>>,
    /// Metrics that went without its answer.
    failures: AtomicU64,
}

impl Asked {
    /// The answer, if it comes in time. The next one asks when this one was answered.
    async fn ask<T: Send + 'static>(
        &self,
        ask: impl Future<Output = Option<T>> + Send + 'static,
    ) -> Option<T> {
        let asked = async {
            let turn = self.turn.clone().lock_owned().await;
            let asking = tokio::spawn(async move {
                let answer = ask.await;
                drop(turn);
                answer
            });
            asking.await.ok().flatten()
        };
        tokio::time::timeout(ASKED_MAX, asked).await.ok().flatten()
    }
}

impl Asking {
    /// Scrapes that went without a part's answer, by the part.
    pub(super) fn failures(&self) -> [(&'static str, u64); 2] {
        let count = |asked: &Asked| asked.failures.load(Relaxed);
        [("supervisor", count(&self.supervisor)), ("store", count(&self.store))]
    }
}

impl State {
    pub(super) async fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if !["/livez", "/readyz", "/metrics"].contains(&path) {
            return plain(StatusCode::NOT_FOUND, WHAT_IS_HERE);
        }
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, WHAT_IS_HERE);
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match path {
            "/livez" => self.live(),
            "/readyz" => match self.is_ready(request.uri().query()).await {
                Ok(()) => plain(StatusCode::OK, "ok\n"),
                Err((status, why)) => plain(status, format!("{why}\n")),
            },
            _ => {
                let mut response = plain(StatusCode::OK, self.metrics().await);
                let media_type = HeaderValue::from_static(text::MEDIA_TYPE);
                response.headers_mut().insert(header::CONTENT_TYPE, media_type);
                response
            }
        }
    }

    fn live(&self) -> Response<Full<Bytes>> {
        match self.lasting.first_lost() {
            None => plain(StatusCode::OK, "ok\n"),
            Some(lost) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{lost}\n")),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        **self.phase.load()
    }

    /// The types as the supervisor has them, if it says so in time.
    pub(super) async fn types(&self) -> Option<Vec<TypeMeasure>> {
        let actions = self.sources.get()?.actions.clone();
        let ask = async move {
            let (reply, answer) = oneshot::channel();
            actions.send(Action::Measure { reply }).await.ok()?;
            answer.await.ok()
        };
        self.asking.supervisor.ask(ask).await
    }

    /// The queues as the store has them, if it says so in time.
    async fn queues(&self) -> Option<Vec<QueueCounts>> {
        let jobs = self.sources.get()?.jobs.clone();
        self.asking.store.ask(async move { jobs.counts().await.ok() }).await
    }

    async fn metrics(&self) -> String {
        let (types, queues) = self.asked().await;
        self.text(types.as_deref(), queues.as_deref())
    }

    /// The types and the queues, as far as they are told in time.
    pub(super) async fn asked(&self) -> (Option<Vec<TypeMeasure>>, Option<Vec<QueueCounts>>) {
        let (types, queues) = tokio::join!(self.types(), self.queues());
        if self.sources.get().is_some() {
            self.asking.supervisor.failures.fetch_add(types.is_none().into(), Relaxed);
            self.asking.store.failures.fetch_add(queues.is_none().into(), Relaxed);
        }
        (types, queues)
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
