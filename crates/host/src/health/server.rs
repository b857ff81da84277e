//! The connections of `[health]`. Their number, their heads and their time are bounded: a client that stalls costs its own
//! connection alone, and not for long.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::State;
use crate::ingress::{Listener, Stream};
use crate::places;

/// Connections at once, all places together; those past it wait to be accepted.
pub(super) const CONNECTIONS_MAX: usize = 64;

/// How long one connection may stay at all: one that never takes its answer would stay for ever.
const CONNECTION_MAX: Duration = Duration::from_secs(300);

/// A request's line and fields, in bytes. hyper takes no less.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// Answers at one place until it is left.
pub(super) async fn accept(state: Arc<State>, listener: Listener, left: CancellationToken) {
    let room = || state.room.clone().acquire_owned();
    // Nobody closes the room.
    let begin = |stream, permit: Option<Result<_, _>>| {
        Some(connection(state.clone(), stream, left.clone(), permit.and_then(Result::ok)))
    };
    let failed = |err| debug!("a connection for probes can't be accepted: {err}");
    places::accept(listener, left.clone(), room, begin, failed).await;
}

async fn connection(
    state: Arc<State>,
    stream: Stream,
    left: CancellationToken,
    _permit: Option<OwnedSemaphorePermit>,
) {
    let served = async {
        match stream {
            Stream::Tcp(stream, _) => serve(state, TcpStream::from_std(stream)?, left).await,
            Stream::Unix(stream) => serve(state, UnixStream::from_std(stream)?, left).await,
        }
    };
    match tokio::time::timeout(CONNECTION_MAX, served).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(err)) => debug!("a connection for probes ended early: {err}"),
    }
}

async fn serve<S>(state: Arc<State>, stream: S, left: CancellationToken) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer = service_fn(move |request: Request<Incoming>| {
        let state = state.clone();
        async move { Ok::<Response<Full<Bytes>>, Infallible>(state.answer(&request).await) }
    });
    places::converse(stream, HEAD_BYTES_MAX, answer, left).await
}
