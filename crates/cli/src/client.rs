//! A client of the admin API, for the verbs that ask a running host.

mod local;
mod remote;
mod target;
mod trace;
mod url;

use std::error::Error;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use wasmhost_host::admin::api::{FormationView, Problem};
use wasmhost_host::{StoredReleases, is_in_use};

use crate::exit::{Exit, Failed, Outcome};
use crate::formation_file::FormationFile;
use crate::print;
use local::Local;
use remote::{Connected, Remote};
pub(crate) use target::{Target, refuse_remote, refuse_remote_exec};

/// How long a host may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an answer may take before a person is told what it waits for.
const TELL_AFTER: Duration = Duration::from_secs(1);

/// How long a host may take to say how things stand before it is taken for one that hangs.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// How things stand.
const LOOK: &str = "/v1/formation";

/// Requests that a host answers that is only starting.
const ASKED_OF_ANY: [&str; 2] = [LOOK, "/v1/stop"];

/// The client of one host.
pub(crate) struct Client {
    way: Way,
}

/// How the host is reached.
enum Way {
    Local(Local),
    Remote(Box<Remote>),
}

/// Runs a verb that asks this host.
pub(crate) fn with(target: Target, verb: impl AsyncFnOnce(Client) -> Outcome) -> Outcome {
    let client = target.client()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(verb(client));
    // A read of the standard input may be under way, which nothing can end.
    runtime.shutdown_background();
    outcome
}

/// Why there is no answer to a request.
pub(crate) enum NoAnswer {
    /// The host says no, and perhaps when to try again.
    Refused { status: StatusCode, problem: Problem, retry_after: Option<Duration> },
    /// There is no host ([`Exit::NoHost`]), or something else went wrong.
    Failed(Failed),
}

impl From<Failed> for NoAnswer {
    fn from(failed: Failed) -> NoAnswer {
        NoAnswer::Failed(failed)
    }
}

impl From<NoAnswer> for Failed {
    fn from(none: NoAnswer) -> Failed {
        match none {
            NoAnswer::Refused { status, problem, .. } => Failed::new(exit_of(status), problem.detail),
            NoAnswer::Failed(failed) => failed,
        }
    }
}

impl Client {
    /// A client for one who has read the formation already.
    pub(crate) fn of(file: FormationFile, state_dir: PathBuf) -> Client {
        Client { way: Way::Local(Local::of(file, state_dir)) }
    }

    /// Refuses a host that runs another formation on this one's state directory.
    pub(crate) fn refuse_other(&self) -> Result<(), Failed> {
        match &self.way {
            Way::Local(local) => local.refuse_other(),
            Way::Remote(_) => Ok(()),
        }
    }

    /// The formation's file, where that is what names the host.
    pub(crate) fn file(&self) -> Option<&FormationFile> {
        match &self.way {
            Way::Local(local) => local.file.as_ref(),
            Way::Remote(_) => None,
        }
    }

    /// Whether files that a person names are the host's too.
    pub(crate) fn is_on_this_machine(&self) -> bool {
        matches!(self.way, Way::Local(_))
    }

    /// Whether the host is there, answering or not.
    pub(crate) async fn is_there(&self) -> bool {
        match &self.way {
            Way::Local(Local { file: Some(_), state_dir, .. }) => is_in_use(state_dir),
            Way::Local(local) => !matches!(local.connect().await, Err(failed) if failed.exit == Exit::NoHost),
            Way::Remote(remote) => {
                !matches!(remote.connect().await, Err(failed) if failed.exit == Exit::NoHost)
            }
        }
    }

    /// The releases in the formation's store, for one who finds no host. None where there is no store.
    pub(crate) fn stored_releases(&self) -> Result<Option<StoredReleases>, String> {
        match &self.way {
            Way::Local(local) => local.file.as_ref().map_or(Ok(None), |file| local.stored_releases(file)),
            Way::Remote(_) => Ok(None),
        }
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failed> {
        let response = self.send(Method::GET, path, Bytes::new()).await?;
        Ok(serde_json::from_slice(&read(response).await?)?)
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failed> {
        let body = Bytes::from(serde_json::to_vec(body)?);
        let response = self.send(Method::POST, path, body).await?;
        Ok(serde_json::from_slice(&read(response).await?)?)
    }

    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failed> {
        let response = self.send(Method::DELETE, path, Bytes::new()).await?;
        Ok(serde_json::from_slice(&read(response).await?)?)
    }

    /// The same for one who can do without a host.
    pub(crate) async fn try_get<T: DeserializeOwned>(&self, path: &str) -> Result<T, NoAnswer> {
        let response = self.try_send(Method::GET, path, Bytes::new()).await?;
        Ok(serde_json::from_slice(&read(response).await?).map_err(Failed::from)?)
    }

    /// The same for one who can do without a host, or tells refusals apart.
    pub(crate) async fn try_post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, NoAnswer> {
        let body = Bytes::from(serde_json::to_vec(body).map_err(Failed::from)?);
        let response = self.try_send(Method::POST, path, body).await?;
        Ok(serde_json::from_slice(&read(response).await?).map_err(Failed::from)?)
    }

    /// For requests whose answer has no body.
    pub(crate) async fn post_empty(&self, path: &str) -> Result<(), Failed> {
        self.send(Method::POST, path, Bytes::new()).await.map(drop)
    }

    /// The lines of the answer, as they come.
    pub(crate) async fn post_stream(&self, path: &str, body: &impl Serialize) -> Result<Lines, Failed> {
        let body = Bytes::from(serde_json::to_vec(body)?);
        let response = self.send(Method::POST, path, body).await?;
        Ok(Lines { body: response.into_body(), come: BytesMut::new() })
    }

    /// The answer's body as it comes.
    pub(crate) async fn stream(&self, path: &str) -> Result<Incoming, Failed> {
        Ok(self.send(Method::GET, path, Bytes::new()).await?.into_body())
    }

    /// Waits for work that the host was given, and gives it up where the host doesn't answer anything any more. After
    /// `patience` the host is looked at now and then: one that answers may be late, and says itself when its time is over.
    pub(crate) async fn while_it_answers<T>(
        &self,
        patience: Duration,
        work: impl Future<Output = Result<T, Failed>>,
    ) -> Result<T, Failed> {
        let mut work = pin!(work);
        let mut wait = patience;
        loop {
            if let Ok(done) = tokio::time::timeout(wait, work.as_mut()).await {
                return done;
            }
            if tokio::time::timeout(ANSWER_MAX, self.any_answer()).await.is_err() {
                let message = format!(
                    "the host has not answered for {:.0} s, and may still do what it was asked for: if its process is stopped or hangs, end it by a signal",
                    ANSWER_MAX.as_secs_f64()
                );
                return Err(Failed::new(Exit::Failed, message));
            }
            wait = ANSWER_MAX;
        }
    }

    /// Waits until the host answers anything: how things stand, which it knows while it starts, or that there is nothing at
    /// this path, for which it asks no part of itself.
    async fn any_answer(&self) {
        let [how_things_stand, nothing] =
            [LOOK, "/"].map(|path| Box::pin(self.try_get::<serde_json::Value>(path)));
        tokio::select! {
            _ = how_things_stand => {}
            _ = nothing => {}
        }
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, Failed> {
        self.try_send(method, path, body).await.map_err(Failed::from)
    }

    async fn try_send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, NoAnswer> {
        let mut sender = self.open().await?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "wasmhost")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|err| Failed::new(Exit::Usage, err))?;
        self.show_token(request.headers_mut());
        trace::pass_on(request.headers_mut());
        let mut answered = pin!(sender.send_request(request));
        let response = match tokio::time::timeout(TELL_AFTER, &mut answered).await {
            Ok(response) => response,
            Err(_) => {
                self.tell_if_starting(path).await;
                answered.await
            }
        };
        let response = response.map_err(gone)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let retry_after =
            response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = read(response).await?;
        let problem = serde_json::from_slice(&body).unwrap_or_else(|_| {
            Problem::of_status(status.as_u16(), "", format!("the host answered {status}"))
        });
        let problem = match &self.way {
            Way::Remote(remote) if status == StatusCode::UNAUTHORIZED => remote.not_let_in(problem),
            _ => problem,
        };
        Err(NoAnswer::Refused { status, problem, retry_after: retry_after.map(Duration::from_secs) })
    }

    /// Passes a request on as it is, and the answer back, also a refusal.
    pub(crate) async fn forward(&self, mut request: Request<Incoming>) -> Result<Response<Incoming>, Failed> {
        self.show_token(request.headers_mut());
        self.open().await?.send_request(request).await.map_err(gone)
    }

    /// Says which host is meant, and shows its token where it asks for one.
    fn show_token(&self, fields: &mut HeaderMap) {
        let (host, authorization) = match &self.way {
            Way::Local(local) => (None, local.authorization.clone()),
            Way::Remote(remote) => {
                (HeaderValue::from_str(remote.authority()).ok(), Some(remote.authorization()))
            }
        };
        for (name, value) in [(HOST, host), (AUTHORIZATION, authorization)] {
            if let Some(value) = value {
                fields.insert(name, value);
            }
        }
    }

    async fn open<B>(&self) -> Result<SendRequest<B>, Failed>
    where
        B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        match &self.way {
            Way::Local(local) => begin(local.connect().await?).await,
            Way::Remote(remote) => match remote.connect().await? {
                Connected::Plain(stream) => begin(stream).await,
                Connected::Tls(stream) => begin(stream).await,
            },
        }
    }

    /// Says what a person waits for, where the host hasn't started yet.
    async fn tell_if_starting(&self, path: &str) {
        if ASKED_OF_ANY.contains(&path) {
            return;
        }
        if let Some(starting) = self.starting().await {
            print::note(format_args!("the host is starting ({starting}): waiting until it has started"));
        }
    }

    /// The present work of a host that hasn't started yet.
    pub(crate) async fn starting(&self) -> Option<String> {
        let view = Box::pin(self.try_get::<FormationView>(LOOK));
        let view = tokio::time::timeout(TELL_AFTER, view).await;
        view.ok()?.ok()?.starting
    }
}

/// HTTP on a connection.
async fn begin<S, B>(stream: S) -> Result<SendRequest<B>, Failed>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(gone)?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Hands the whole lines of an answer on as they come, as many at once as there are, until its end, or until nobody reads
/// any more what is printed.
pub(crate) async fn follow_lines(
    mut body: Incoming,
    mut act: impl FnMut(&[u8]) -> Result<(), Failed>,
) -> Outcome {
    let mut unfinished = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|err| Failed::new(Exit::Failed, format!("the host went away: {err}")))?;
        let Ok(data) = frame.into_data() else { continue };
        unfinished.extend_from_slice(&data);
        let Some(end) = unfinished.iter().rposition(|byte| *byte == b'\n') else { continue };
        let rest = unfinished.split_off(end + 1);
        act(&unfinished)?;
        if print::is_broken() {
            return Ok(Exit::Done);
        }
        unfinished = rest;
    }
    Ok(Exit::Done)
}

/// An answer that is a line after the other.
pub(crate) struct Lines {
    body: Incoming,
    /// Bytes that came, and were not handed out yet.
    come: BytesMut,
}

impl Lines {
    /// The next line, with its end. None where the last one has come whole.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failed> {
        loop {
            if let Some(end) = self.come.iter().position(|byte| *byte == b'\n') {
                return Ok(Some(self.come.split_to(end + 1).freeze()));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(data) = frame.map_err(gone)?.into_data() {
                        self.come.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

fn exit_of(status: StatusCode) -> Exit {
    if status == StatusCode::BAD_REQUEST { Exit::Usage } else { Exit::Failed }
}

async fn read(response: Response<Incoming>) -> Result<Bytes, Failed> {
    Ok(response.into_body().collect().await.map_err(gone)?.to_bytes())
}

fn gone(err: hyper::Error) -> Failed {
    Failed::new(Exit::Failed, format!("the host went away while it answered: {err}"))
}
