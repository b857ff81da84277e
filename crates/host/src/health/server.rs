//! The connections of `[health]`. Their number, their heads and their time are bounded: a client that stalls costs its own
//! connection alone, and not for long.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::State;
use crate::ingress::{Listener, Stream};

/// Connections at once, all places together; those past it wait to be accepted.
pub(super) const CONNECTIONS_MAX: usize = 64;

/// How long a request's head may take, and how long a connection may stay without a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one connection may stay at all: one that never takes its answer would stay for ever.
const CONNECTION_MAX: Duration = Duration::from_secs(300);

/// A request's line and fields, in bytes. hyper takes no less.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// How long to wait where the system has no room for a connection.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// How long a request that was sent before the end may take.
const LAST_MAX: Duration = Duration::from_millis(200);

/// Answers at one place until it is left, or another listener has its turn there.
pub(super) async fn accept(state: Arc<State>, listener: Listener, left: CancellationToken) {
    let connections = TaskTracker::new();
    let begin =
        |stream, permit| drop(connections.spawn(connection(state.clone(), stream, left.clone(), permit)));
    let over = async {
        tokio::select! {
            () = left.cancelled() => {}
            () = listener.is_succeeded() => {}
        }
    };
    let accepting = async {
        loop {
            let Ok(permit) = state.room.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok(stream) => begin(stream, Some(permit)),
                Err(err) => {
                    debug!("a connection for probes can't be accepted: {err}");
                    tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                }
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        () = over => {}
    }
    if listener.begin_end(true) {
        listener.close().into_iter().for_each(|stream| begin(stream, None));
    }
    connections.close();
    connections.wait().await;
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
    let mut served = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), answer)
    );
    let ended = match left.run_until_cancelled(served.as_mut()).await {
        Some(ended) => ended,
        // The library would close a connection whose first request it hasn't read yet.
        None => match tokio::time::timeout(LAST_MAX, served.as_mut()).await {
            Ok(ended) => ended,
            Err(_) => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        },
    };
    ended.map_err(std::io::Error::other)
}
