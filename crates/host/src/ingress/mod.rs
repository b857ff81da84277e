//! The ingress that all http types share: accepts connections, finds the type of each request, and lets one of its
//! instances answer.
//!
//! Drain: the listener stays open for `drain_delay`, then takes what had connected by then and closes. Answers say
//! `Connection: close` from the beginning, so that clients come back elsewhere; connections that stay silent are
//! closed after a moment, and each request that was read is answered.

mod answer;
mod failures;
mod router;
mod web;

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Version, header};
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::warn;
use wasmhost_config::Route;
use wasmhost_engine::ResponseBody;

use answer::Failure;
pub(crate) use failures::FailureLog;
use router::Router;
pub(crate) use web::Web;

/// Connections that are open at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 10_000;

/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// How long a connection may take for its next request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a connection may stay silent once the host drains. A client that has just sent a request on a
/// connection that it thinks is open gets its answer if it comes within this time.
const LINGER: Duration = Duration::from_secs(1);

/// How long a connection without any request in it may take to end once the host drains: for the last bytes of an
/// answer that its client reads slowly. One that holds half a request would stay until its head is overdue.
const LAST_BYTES: Duration = Duration::from_secs(5);

/// How long a handshake may take that had begun when the listener closes.
const HANDSHAKE: Duration = Duration::from_millis(100);

/// See the module.
pub(crate) struct Ingress {
    router: Router<Arc<Web>>,
    /// Set once the host drains.
    closing: AtomicBool,
}

type Answer = Response<Either<ResponseBody, Full<Bytes>>>;

impl Ingress {
    pub(crate) fn new(routes: impl IntoIterator<Item = (Route, Arc<Web>)>) -> Arc<Ingress> {
        Arc::new(Ingress { router: Router::new(routes), closing: AtomicBool::new(false) })
    }

    /// Serves until `drain` says stop, and every connection is done.
    pub(crate) async fn run(
        self: Arc<Self>,
        listener: TcpListener,
        drain: CancellationToken,
        drain_delay: Duration,
    ) {
        let connections = TaskTracker::new();
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        {
            let mut closed = pin!(async {
                drain.cancelled().await;
                tokio::time::sleep(drain_delay).await;
                refuse_handshakes(&listener);
                tokio::time::sleep(HANDSHAKE).await;
            });
            loop {
                let accepted = tokio::select! {
                    accepted = accept(&listener, &permits) => accepted,
                    () = &mut closed => break,
                };
                if let Some((stream, permit)) = accepted {
                    connections.spawn(self.clone().serve_connection(stream, permit, drain.clone()));
                }
            }
        }
        for stream in close_listener(listener) {
            let Ok(permit) = permits.clone().try_acquire_owned() else { break };
            connections.spawn(self.clone().serve_connection(stream, permit, drain.clone()));
        }
        connections.close();
        connections.wait().await;
    }

    /// Answers say from now on that their connection closes.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    async fn serve_connection(
        self: Arc<Self>,
        stream: TcpStream,
        _permit: OwnedSemaphorePermit,
        drain: CancellationToken,
    ) {
        // Without it small answers would wait for acknowledgements; failing is no reason not to serve.
        let _ = stream.set_nodelay(true);
        let underway = TaskTracker::new();
        let service = service_fn(|request| {
            let ingress = self.clone();
            let token = underway.token();
            async move {
                let answer = ingress.answer(request).await;
                Ok::<_, Infallible>(answer.map(|body| Held { body, _token: token }))
            }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES_MAX);
        builder.http2().timer(TokioTimer::new()).max_header_list_size(HEAD_BYTES_MAX as u32);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut silent_too_long = pin!(async {
            drain.cancelled().await;
            tokio::time::sleep(LINGER).await;
        });
        // An error is the client's affair: it went away, or it doesn't speak HTTP.
        tokio::select! {
            _ = connection.as_mut() => return,
            () = &mut silent_too_long => connection.as_mut().graceful_shutdown(),
        }
        let mut was_empty = false;
        loop {
            tokio::select! {
                _ = connection.as_mut() => return,
                () = tokio::time::sleep(LAST_BYTES) => {
                    if was_empty && underway.is_empty() {
                        return;
                    }
                    was_empty = underway.is_empty();
                }
            }
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let http1 = request.version() < Version::HTTP_2;
        let mut response = match self.route(&request) {
            Ok(web) => web.serve(request).await,
            Err(failure) => failure.response().map(Either::Right),
        };
        if http1 && self.closing.load(Ordering::Relaxed) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn route(&self, request: &Request<Incoming>) -> Result<Arc<Web>, Failure> {
        if request.method() == Method::CONNECT || request.headers().contains_key(header::UPGRADE) {
            return Err(Failure::UPGRADE);
        }
        let authority = authority(request).ok_or(Failure::NO_AUTHORITY)?;
        self.router.find(authority, request.uri().path()).cloned().ok_or(Failure::NO_ROUTE)
    }
}

/// An answer's body, and with it the proof that its request is not done.
struct Held<B> {
    body: B,
    _token: TaskTrackerToken,
}

impl<B: Body + Unpin> Body for Held<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The one authority that a request names: in its target, or in `Host`. Two that differ are none.
fn authority<B>(request: &Request<B>) -> Option<&str> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host =
        hosts.next().map(|host| host.to_str().ok()).unwrap_or_default().filter(|host| !host.is_empty());
    if hosts.next().is_some() {
        return None;
    }
    match (request.uri().authority(), host) {
        (Some(target), Some(host)) if !target.as_str().eq_ignore_ascii_case(host) => None,
        (Some(target), _) => Some(target.as_str()),
        (None, host) => host,
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let permit = permits.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, permit)),
        Err(err) => {
            // Most often it's a client that has gone already. Out of file descriptors lasts, so don't spin.
            if err.raw_os_error().is_some_and(|code| code != rustix::io::Errno::CONNABORTED.raw_os_error()) {
                warn!("can't accept a connection: {err}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            None
        }
    }
}

/// Closes the listener, and returns the connections that it had taken by then: their clients were promised an answer,
/// and closing alone would reset them.
fn close_listener(listener: TcpListener) -> Vec<TcpStream> {
    let mut waiting = Vec::new();
    let Ok(listener) = listener.into_std() else { return waiting };
    // It doesn't block. The runtime may not know yet of connections that are there, but the system does.
    while let Ok((stream, _)) = listener.accept() {
        let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
        waiting.extend(stream.ok());
    }
    waiting
}

/// From here on the listener begins no handshake, and finishes those that it has begun, so that nothing comes between
/// the last accept and the end. Clients try again for a moment, and then find it closed.
#[cfg(target_os = "linux")]
fn refuse_handshakes(listener: &TcpListener) {
    use socket2::SockFilter;
    /// A socket filter, as linux/filter.h writes it, over the TCP header: drop what has SYN set, keep the rest.
    const DROP_SYN: [SockFilter; 4] = [
        // BPF_LD | BPF_B | BPF_ABS: the byte with the flags
        SockFilter::new(0x30, 0, 0, 13),
        // BPF_JMP | BPF_JSET | BPF_K: with SYN the next instruction, otherwise the one behind it
        SockFilter::new(0x45, 0, 1, 0x02),
        // BPF_RET | BPF_K
        SockFilter::new(0x06, 0, 0, 0),
        SockFilter::new(0x06, 0, 0, u32::MAX),
    ];
    if let Err(err) = socket2::SockRef::from(listener).attach_filter(&DROP_SYN) {
        warn!("clients that connect right now may be reset: {err}");
    }
}

#[cfg(not(target_os = "linux"))]
fn refuse_handshakes(_listener: &TcpListener) {}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, hosts: &[&str]) -> Request<()> {
        let mut request = Request::builder().uri(target);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn a_request_has_one_authority_or_none() {
        assert_eq!(authority(&request("/", &["a.example"])), Some("a.example"));
        assert_eq!(authority(&request("http://A.example/", &["a.example"])), Some("A.example"));
        assert_eq!(authority(&request("http://b.example/", &["a.example"])), None);
        assert_eq!(authority(&request("/", &["a.example", "b.example"])), None);
        assert_eq!(authority(&request("/", &[])), None);
        assert_eq!(authority(&request("/", &[""])), None);
    }
}
