//! The connections of the admin API, and those that come by its socket. Each has a bound on time, and so has their number: a client that stalls costs its
//! own connection alone.

use std::convert::Infallible;
use std::net::Shutdown;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::ApiError;
use crate::places::{self, ACCEPT_AGAIN_AFTER};
use crate::state_dir::AdminSocket;

/// A request's line and fields, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Connections at once; those past it wait to be accepted. Each `logs -f` is one.
const CONNECTIONS_MAX: usize = 256;

/// The text of a refusal that isn't a problem's JSON yet, in bytes.
const REFUSAL_BYTES_MAX: usize = 4 << 10;

/// Serves requests until it is told to end, and then those that were sent before.
pub(super) async fn serve<A, F>(mut socket: AdminSocket, answer: A, end: CancellationToken)
where
    A: Fn(Request) -> F + Clone + Send + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    let begin = |stream, permit| connections.spawn(connection(stream, answer.clone(), end.clone(), permit));
    while let Some(Ok(permit)) = end.run_until_cancelled(permits.clone().acquire_owned()).await {
        match end.run_until_cancelled(socket.accept()).await {
            None => break,
            Some(Ok(stream)) => drop(begin(stream, Some(permit))),
            Some(Err(err)) => {
                warn!("the admin API can't accept a connection: {err}");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
    // Nobody comes in any more. Those who wait here have sent a request, and are to know what became of it.
    let listener = socket.into_listener();
    let _ = SockRef::from(&listener).shutdown(Shutdown::Both);
    if let Ok(listener) = listener.into_std() {
        while let Ok((stream, _)) = listener.accept() {
            let stream = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream));
            stream.into_iter().for_each(|stream| drop(begin(stream, None)));
        }
    }
    connections.close();
    connections.wait().await;
}

async fn connection<F: Future<Output = Response>>(
    stream: UnixStream,
    answer: impl Fn(Request) -> F,
    end: CancellationToken,
    _permit: Option<OwnedSemaphorePermit>,
) {
    if let Err(err) = converse(stream, answer, end).await {
        debug!("a connection of the admin API ended early: {err}");
    }
}

/// Answers the requests of one connection, until its client closes it, or it is told to end.
pub(super) async fn converse<S, F>(
    stream: S,
    answer: impl Fn(Request) -> F,
    end: CancellationToken,
) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = Response>,
{
    let answer = service_fn(move |request: Request<Incoming>| with_problem(answer(request.map(Body::new))));
    places::converse(stream, HEAD_BYTES_MAX, answer, end).await
}

async fn with_problem(answer: impl Future<Output = Response>) -> Result<Response, Infallible> {
    let response = answer.await;
    let status = response.status();
    let told = response.headers().get(header::CONTENT_TYPE);
    let is_plain = told.is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    match (status.is_client_error() || status.is_server_error()) && is_plain {
        true => Ok(refusal_as_problem(response).await),
        false => Ok(response),
    }
}

/// The library refuses some requests by itself, with plain text.
async fn refusal_as_problem(response: Response) -> Response {
    let status = response.status();
    let text = axum::body::to_bytes(response.into_body(), REFUSAL_BYTES_MAX).await.unwrap_or_default();
    let message = match String::from_utf8_lossy(&text).trim() {
        "" => status.canonical_reason().unwrap_or("refused").to_lowercase(),
        text => text.to_owned(),
    };
    ApiError::new(status, message).into_response()
}
