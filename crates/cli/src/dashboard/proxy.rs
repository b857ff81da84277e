//! The connections of browsers. A request that the guard lets through goes to the host, and its answer back, as it comes: logs and events
//! are answers that don't end.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmhost_dashboard::{Answer, Guard, Until, Verdict, secure};
use wasmhost_host::admin::api::{PROBLEM_MEDIA_TYPE, Problem};

use super::lock;
use crate::client::Client;
use crate::exit::Failed;

/// Connections of browsers at once; those past it wait.
const CONNECTIONS_MAX: usize = 256;

/// How long a request's head may take, and how long a connection may stay without a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// How long to wait where the system has no room for a connection.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// The fields of a browser that are the host's business, and those of the host that are the browser's.
const ASKED: [HeaderName; 3] = [ACCEPT, CONTENT_TYPE, HeaderName::from_static("last-event-id")];
const ANSWERED: [HeaderName; 2] = [CONTENT_TYPE, RETRY_AFTER];

type Body = BoxBody<Bytes, hyper::Error>;

/// Serves browsers. Never ends.
pub(super) async fn serve(listener: TcpListener, client: Arc<Client>, guard: Arc<Mutex<Guard>>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(permit) = permits.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, client.clone(), guard.clone(), permit));
            }
            Err(_) => tokio::time::sleep(ACCEPT_AGAIN_AFTER).await,
        }
    }
}

async fn connection(
    stream: TcpStream,
    client: Arc<Client>,
    guard: Arc<Mutex<Guard>>,
    _permit: OwnedSemaphorePermit,
) {
    let _ = stream.set_nodelay(true);
    let answer = service_fn(|request| {
        let (client, guard) = (client.clone(), guard.clone());
        async move { Ok::<_, Infallible>(answer(&client, &guard, request).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    // A browser that has gone is nobody's mistake.
    let _ = http.serve_connection(TokioIo::new(stream), answer).await;
}

async fn answer(client: &Client, guard: &Mutex<Guard>, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let verdict = lock(guard).judge(&head, false, Instant::now());
    match verdict {
        Verdict::Answer(answer) | Verdict::Page(answer) => whole(answer),
        Verdict::Api(ended) => match ask(client, Request::from_parts(head, body)).await {
            Ok(response) => response.map(|body| Until::new(body, ended).boxed()),
            Err(failed) => no_host(&failed),
        },
    }
}

fn whole(answer: Answer) -> Response<Body> {
    let body = match answer.body {
        std::borrow::Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        std::borrow::Cow::Owned(bytes) => Bytes::from(bytes),
    };
    let mut response = Response::new(full(body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response
}

/// The host's answer. Nothing that is between the browser and the guard goes to the host.
async fn ask(client: &Client, request: Request<Incoming>) -> Result<Response<Body>, Failed> {
    let (head, body) = request.into_parts();
    let mut asked = Request::new(body);
    *asked.method_mut() = head.method;
    *asked.uri_mut() = head.uri;
    asked.headers_mut().insert(HOST, HeaderValue::from_static("wasmhost"));
    for name in ASKED {
        if let Some(value) = head.headers.get(&name) {
            asked.headers_mut().insert(name, value.clone());
        }
    }
    let answered = client.forward(asked).await?;
    let (head, body) = answered.into_parts();
    let mut response = Response::new(body.boxed());
    *response.status_mut() = head.status;
    for name in ANSWERED {
        if let Some(value) = head.headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    secure(response.headers_mut());
    Ok(response)
}

/// There is no answer of the host. The page tells it from a host's refusal by the status.
fn no_host(failed: &Failed) -> Response<Body> {
    let status = StatusCode::BAD_GATEWAY;
    let problem = Problem::of_status(status.as_u16(), "Bad Gateway", failed.message.clone());
    let json = serde_json::to_vec(&problem).unwrap_or_default();
    let mut response = Response::new(full(json.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_MEDIA_TYPE));
    secure(response.headers_mut());
    response
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}
