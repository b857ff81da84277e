//! The places where the host answers others than those who send requests: `[health]` and `[admin]`. A release that has other
//! ones opens them before those of the release before are left.

use std::error::Error;
use std::io;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::HttpService;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::host::Lasting;
use crate::ingress::{Listener, Stream};

/// How long a request's head may take, and how long a connection may stay without a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a request that was sent before the end may take to be read.
const READ_MAX: Duration = Duration::from_millis(200);

/// How long to wait where the system has no room for a connection.
pub(crate) const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// The places that are open, with the tasks that serve them.
pub(crate) struct Places {
    lasting: Lasting,
    left: CancellationToken,
    ended: Vec<JoinHandle<()>>,
}

impl Places {
    /// None yet.
    pub(crate) fn new(lasting: &Lasting) -> Places {
        Places { lasting: lasting.clone(), left: CancellationToken::new(), ended: vec![] }
    }

    /// Cancelled when the places are left.
    pub(crate) fn left(&self) -> &CancellationToken {
        &self.left
    }

    /// Spawns a task that goes on until they are left.
    pub(crate) fn spawn(&mut self, name: String, task: impl Future<Output = ()> + Send + 'static) {
        self.ended.push(self.lasting.spawn_replaced(name, self.left.clone(), task));
    }

    /// Others have taken their turn. Connections finish by themselves.
    pub(crate) fn leave(&self) {
        self.left.cancel();
    }

    /// Closes them, and waits for the connections, but no longer than this.
    pub(crate) async fn end(self, at_most: Duration) {
        self.left.cancel();
        let all = async {
            for ended in self.ended {
                let _ = ended.await;
            }
        };
        let _ = tokio::time::timeout(at_most, all).await;
    }
}

/// Accepts at one place until it is left, or another listener has its turn there, and then waits for the connections. `room`
/// is waited for before each of them; those that had come by the end need none. `begin` makes the task of a connection, if
/// it is served, and `failed` is told where there is none to accept.
pub(crate) async fn accept<R, W, T>(
    listener: Listener,
    left: CancellationToken,
    room: impl Fn() -> W,
    begin: impl Fn(Stream, Option<R>) -> Option<T>,
    failed: impl Fn(io::Error),
) where
    W: Future<Output = R>,
    T: Future<Output = ()> + Send + 'static,
{
    let connections = TaskTracker::new();
    let serve = |stream, room| begin(stream, room).into_iter().for_each(|task| drop(connections.spawn(task)));
    let accepting = async {
        loop {
            let room = room().await;
            match listener.accept().await {
                Ok(stream) => serve(stream, Some(room)),
                Err(err) => {
                    failed(err);
                    tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                }
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        () = left.cancelled() => {}
        () = listener.is_succeeded() => {}
    }
    if listener.begin_end(true) {
        listener.close().into_iter().for_each(|stream| serve(stream, None));
    }
    connections.close();
    connections.wait().await;
}

/// Answers the requests of one connection, until its client closes it, or it is told to end. Heads have at most so many bytes.
pub(crate) async fn converse<S, V, B>(
    stream: S,
    head_bytes_max: usize,
    service: V,
    end: CancellationToken,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
    V: HttpService<Incoming, ResBody = B>,
    V::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut served = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(head_bytes_max)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = match end.run_until_cancelled(served.as_mut()).await {
        Some(ended) => ended,
        // The library would close a connection whose first request it hasn't read yet.
        None => match tokio::time::timeout(READ_MAX, served.as_mut()).await {
            Ok(ended) => ended,
            Err(_) => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        },
    };
    ended.map_err(io::Error::other)
}
