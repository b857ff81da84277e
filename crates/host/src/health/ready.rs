//! Whether the host, or one type of it, is ready.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use wasmhost_config::shown::{NAME_BYTES_MAX, one_line};
use wasmhost_engine::{CallEnd, CallLimits, RequestScheme};

use super::{Phase, State};
use crate::pool::{Need, Pool};
use crate::supervisor::{TypeMeasure, unknown_type};

/// How long an instance may take to answer on its type's `ready` path. (Longer than a probe waits as a rule.)
const ANSWERED_MAX: Duration = Duration::from_secs(10);

/// The bytes of its answer that are read. A longer one is an answer too.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Why something isn't ready: a status, and a line for a person.
type NotReady = (StatusCode, String);

impl State {
    /// `query` may name a type.
    pub(super) async fn is_ready(&self, query: Option<&str>) -> Result<(), NotReady> {
        let process = wanted_type(query)?;
        match self.phase() {
            Phase::Starting => return Err(unavailable("the host is starting")),
            Phase::Draining => return Err(unavailable("the host is draining")),
            Phase::Ready => {}
        }
        match process {
            None => Ok(()),
            Some(process) => self.is_type_ready(process).await,
        }
    }

    async fn is_type_ready(&self, process: &str) -> Result<(), NotReady> {
        let Some(types) = self.types().await else {
            return Err(unavailable("the supervisor doesn't answer"));
        };
        let versions: Vec<&TypeMeasure> = types.iter().filter(|kind| &*kind.process == process).collect();
        can_serve(process, &versions, &types)?;
        let live = self.sources.get().map(|sources| sources.live.load_full());
        let path = live.and_then(|live| live.formation.process(process)?.ready.clone());
        // Those that leave have their last calls, and a canary answers for itself in its deploy.
        let present = versions.iter().find(|kind| kind.is_present && kind.serving() > 0);
        match (path, present) {
            (Some(path), Some(kind)) => self.ask_instance(kind, path).await.map_err(unavailable),
            _ => Ok(()),
        }
    }

    /// Asks one instance at a time, where guests run: on the host's own threads.
    async fn ask_instance(&self, kind: &TypeMeasure, path: String) -> Result<(), String> {
        let Some(sources) = self.sources.get() else { return Ok(()) };
        let _turn = self.asking.instance.lock().await;
        let late = format!("\"{}\" doesn't answer GET {path}", kind.process);
        let ask = ask(kind.process.clone(), kind.pool.clone(), kind.limits, path);
        let asking = AbortOnDropHandle::new(sources.runtime.spawn(ask));
        match timeout(ANSWERED_MAX, asking).await {
            Ok(answered) => answered.unwrap_or_else(|_| Err("the host is stopping".to_owned())),
            Err(_) => Err(late),
        }
    }
}

/// The type that a query asks for.
fn wanted_type(query: Option<&str>) -> Result<Option<&str>, NotReady> {
    let mut process = None;
    for pair in query.into_iter().flat_map(|query| query.split('&')).filter(|pair| !pair.is_empty()) {
        match (pair.split_once('='), process) {
            (Some(("type", name)), None) => process = Some(name),
            _ => {
                let pair = one_line(pair, NAME_BYTES_MAX).into_owned();
                return Err((
                    StatusCode::BAD_REQUEST,
                    format!("found \"{pair}\", expected type=NAME, once, and nothing else"),
                ));
            }
        }
    }
    Ok(process)
}

/// Whether some instance of a type serves.
fn can_serve(process: &str, versions: &[&TypeMeasure], all: &[TypeMeasure]) -> Result<(), NotReady> {
    let missing = |why: String| Err((StatusCode::NOT_FOUND, why));
    if versions.is_empty() {
        let known: Vec<&str> = all.iter().map(|kind| &*kind.process).collect();
        return missing(unknown_type(&one_line(process, NAME_BYTES_MAX), &known));
    }
    if versions.iter().all(|kind| matches!(kind.trigger, "release" | "manual")) {
        return missing(format!("\"{process}\" keeps no instances"));
    }
    if versions.iter().any(|kind| kind.serving() > 0) {
        return Ok(());
    }
    Err(unavailable(match versions.iter().map(|kind| kind.desired).sum::<u64>() {
        0 if versions.iter().any(|kind| kind.count > 0) => {
            format!("no instance of \"{process}\" is for this host: other hosts have them all")
        }
        0 => format!("the count of \"{process}\" is 0"),
        desired if versions.iter().map(|kind| kind.in_backoff()).sum::<u64>() >= desired => {
            format!("no instance of \"{process}\" starts: all wait after a failure")
        }
        _ => format!("no instance of \"{process}\" serves at present"),
    }))
}

/// Asks an instance whether it is ready. It is a call like that of any client.
async fn ask(process: Arc<str>, pool: Arc<Pool>, limits: CallLimits, path: String) -> Result<(), String> {
    let lent = pool.lend(Need::Any, ANSWERED_MAX).await;
    let mut lease = lent.map_err(|none| format!("\"{process}\": {}", none.summary()))?;
    let Some(instance) = lease.take() else { return Err(format!("no instance of \"{process}\" is free")) };
    let request = Request::get(&path)
        .header(header::HOST, "localhost")
        .header(header::USER_AGENT, "wasmhost")
        .body(Empty::<Bytes>::new())
        .map_err(|err| format!("`ready` of \"{process}\" can't be asked: {err}"))?;
    let (over, ended) = oneshot::channel();
    let done = move |finished: wasmhost_engine::Finished| {
        let _ = over.send(finished.report.end.clone());
        lease.give_back(finished);
    };
    let told = |end: &CallEnd| format!("\"{process}\" was asked GET {path}, and the call {}", end.summary());
    let answer = instance.call_http(request, RequestScheme::Http, limits, None, done).await;
    let (head, body) = answer.map_err(|end| told(&end))?.into_parts();
    // The call ends when its body was read, or is given up.
    drop(Limited::new(body, ANSWER_BYTES_MAX).collect().await);
    match (ended.await, head.status) {
        (Ok(CallEnd::Returned(())), status) if status.is_success() => Ok(()),
        (Ok(CallEnd::Returned(())), status) => Err(format!("\"{process}\" answers GET {path} with {status}")),
        (Ok(end), _) => Err(told(&end)),
        (Err(_), _) => Err(format!("the call of \"{process}\" was lost")),
    }
}

fn unavailable(why: impl Into<String>) -> NotReady {
    (StatusCode::SERVICE_UNAVAILABLE, why.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_at_most_one_type() {
        assert_eq!(wanted_type(None), Ok(None));
        assert_eq!(wanted_type(Some("")), Ok(None));
        assert_eq!(wanted_type(Some("type=web")), Ok(Some("web")));
        for wrong in ["type", "types=web", "type=web&type=api", "verbose=1"] {
            let (status, why) = wanted_type(Some(wrong)).unwrap_err();
            assert_eq!(status, StatusCode::BAD_REQUEST);
            assert!(why.contains("expected type=NAME"), "{why}");
        }
        let long = "x".repeat(8_000);
        assert!(wanted_type(Some(&long)).unwrap_err().1.len() < 1_000);
    }
}
