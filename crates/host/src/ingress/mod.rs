//! The ingress accepts connections, finds the type of each request, and lets one of its instances answer. All http
//! types share it.
//!
//! ```text
//! listener -> connection -> (TLS) -> stream -> hyper -> answer: head -> router -> web
//! ```
//!
//! When the host drains, each listener stays open for `drain_delay`, then takes the connections that had come by then,
//! and closes. The same goes for a release that listens elsewhere; where it has a listener on the same socket, that one
//! accepts at once. Answers say `Connection: close` from the beginning, so that clients come back elsewhere. Connections that
//! stay silent are closed after a moment, and each request that was read is answered.

mod access;
mod addresses;
mod answer;
mod answer_body;
mod authority;
mod body;
mod connection;
mod failures;
mod forwarding;
mod framing;
mod gauge;
mod handed_over;
mod head;
mod identity;
mod lines;
mod listener;
mod measured;
mod open;
mod outgoing;
mod refusals;
mod room;
mod rounds;
mod router;
mod socket;
mod sockets;
mod stream;
mod streams;
mod tls;
mod traced;
mod web;

use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version, header};
use http_body_util::{Either, Full};
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioTimer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;
use wasmhost_config::{Http, Route, TrustedProxies};
use wasmhost_engine::ResponseBody;

use access::{Access, Begun, Served};
use addresses::{Addresses, Counted};
use answer::Failure;
use answer_body::{AnswerBody, Underway};
use body::{ReadAhead, RequestBody};
use connection::{Client, Via};
pub(crate) use failures::FailureLog;
use framing::Found;
use gauge::Timeouts;
use head::Head;
use identity::X_REQUEST_ID;
use measured::Measured;
use refusals::{Asked, RefusalLog};
use router::Router;
pub(crate) use socket::Stream;
use streams::Streams;

use crate::few_lines::FewLines;
use crate::host::Lasting;
use crate::measures::Measures;
use crate::output;
use crate::traces::Context;

pub use handed_over::HandedOver;
pub(crate) use listener::Listener;
pub use listener::ServedAt;
pub(crate) use rounds::Rounds;
pub(crate) use sockets::Sockets;
pub(crate) use stream::{Plain, Transport};
pub(crate) use tls::{Certificates, HTTP_1, Renewal};
pub(crate) use web::{Shared, Web};

/// How long a handshake that has begun may take when the listener closes.
const HANDSHAKE: Duration = Duration::from_millis(100);

/// How many connections are accepted before other tasks of the thread have their turn, if so many wait.
const ACCEPTED_AT_ONCE: u32 = 1024;

/// How long to wait after an accept that failed: out of file descriptors lasts, so don't spin.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// How long it isn't said again that there is no room for more connections; and how often within that time it is that
/// one can't be accepted.
const FULL_AGAIN: Duration = Duration::from_secs(60);
const NOT_ACCEPTED_LINES_MAX: u32 = 5;

/// Bytes that one HTTP/1 connection reads at once of a body, and those of an answer that may wait there for its client.
/// A guest's pieces have up to 128 KiB: with room for two of them it writes one while the other is sent. Only a body
/// that an instance takes is read, which bounds the sum.
const BODY_BUFFER_BYTES: usize = 256 << 10;

/// The bytes that one HTTP/2 connection may send before they are read, in all and in one stream, and the bytes of an
/// answer that may wait for its client.
const CONNECTION_WINDOW: u32 = 512 << 10;
const STREAM_WINDOW: u32 = 256 << 10;
const SEND_BUFFER: usize = 64 << 10;

/// Streams that a client may reset before they are looked at, and those that the host resets for what is wrong with
/// them, before it hangs up: CVE-2023-44487 and its kin.
const RESET_STREAMS_MAX: usize = 20;
const ERROR_STREAMS_MAX: usize = 1024;

/// How often an HTTP/2 connection is asked whether it's still there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// See the module.
pub(crate) struct Ingress {
    router: ArcSwap<Router<Arc<Web>>>,
    http1: http1::Builder,
    http2: http2::Builder<Streams>,
    timeouts: Timeouts,
    trusted_proxies: TrustedProxies,
    access: Option<Access>,
    refusals: RefusalLog,
    measures: Arc<Measures>,
    permits: Arc<Semaphore>,
    connections_max: usize,
    addresses: Arc<Addresses>,
    /// Connections that were closed at once, since their addresses have too many.
    crowded: Arc<FewLines<()>>,
    read_ahead: ReadAhead,
    /// When it was last said that there are as many.
    told_full: Mutex<Option<Instant>>,
    /// Connections that weren't accepted, by the reason.
    not_accepted: Arc<FewLines<io::ErrorKind>>,
    connections: TaskTracker,
    /// Set before `hang_up` is, and cheaper to look at.
    draining: AtomicBool,
    hang_up: CancellationToken,
    /// Accept no more, whatever is left of `drain_delay`.
    closes: CancellationToken,
    /// Another ingress takes its place.
    replaced: CancellationToken,
    /// Set when the host drains, or another ingress takes its place.
    grace_ends: OnceLock<Instant>,
    /// How long to accept from then on.
    drain_delay: OnceLock<Duration>,
}

/// The places that an open connection holds: one of those of its address, and a part of all connections. They are given
/// back in this order: whoever takes the second next needs the first, too.
struct Seat {
    _counted: Option<Counted>,
    _permit: OwnedSemaphorePermit,
}

type Answer = Response<Either<ResponseBody, Full<Bytes>>>;

impl Ingress {
    pub(crate) fn new(
        http: &Http,
        connections_max: u32,
        routes: impl IntoIterator<Item = (Route, Arc<Web>)>,
        stderr: &output::Stream,
        measures: Arc<Measures>,
    ) -> Arc<Ingress> {
        let timeouts =
            Timeouts { header: http.header_timeout, idle: http.idle_timeout, body: http.body_timeout };
        let head_bytes_max = usize::try_from(http.header_bytes_max).unwrap_or(usize::MAX);
        let connections_max = usize::try_from(connections_max).unwrap_or(usize::MAX);
        let mut http1 = http1::Builder::new();
        http1.max_buf_size(head_bytes_max.max(BODY_BUFFER_BYTES)).max_header_size(head_bytes_max);
        let mut http2 = http2::Builder::new(Streams { stall_max: http.body_timeout });
        http2
            .timer(TokioTimer::new())
            .max_header_list_size(http.header_bytes_max)
            .max_concurrent_streams(http.streams_max)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_stream_window_size(STREAM_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
            .max_local_error_reset_streams(ERROR_STREAMS_MAX)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT);
        Arc::new(Ingress {
            router: ArcSwap::from_pointee(Router::new(routes)),
            http1,
            http2,
            timeouts,
            trusted_proxies: http.trusted_proxies.clone(),
            access: Access::new(http.access_log, stderr),
            refusals: RefusalLog::new(),
            measures,
            permits: Arc::new(Semaphore::new(connections_max)),
            connections_max,
            addresses: Addresses::new(http.connections_per_address_max),
            crowded: FewLines::new(NOT_ACCEPTED_LINES_MAX, FULL_AGAIN, |(), count| {
                warn!(
                    "{count} more connections within a minute were closed at once: their addresses have too many"
                );
            }),
            read_ahead: ReadAhead::new(),
            told_full: Mutex::new(None),
            not_accepted: FewLines::new(NOT_ACCEPTED_LINES_MAX, FULL_AGAIN, |kind, count| {
                warn!("can't accept a connection: {kind}, {count} more times within a minute");
            }),
            connections: TaskTracker::new(),
            draining: AtomicBool::new(false),
            hang_up: CancellationToken::new(),
            closes: CancellationToken::new(),
            replaced: CancellationToken::new(),
            grace_ends: OnceLock::new(),
            drain_delay: OnceLock::new(),
        })
    }

    /// Requests go these ways from now on.
    pub(crate) fn set_routes(&self, routes: impl IntoIterator<Item = (Route, Arc<Web>)>) {
        self.router.store(Arc::new(Router::new(routes)));
    }

    /// Serves until the host drains, and every connection is done.
    pub(crate) async fn run(
        self: Arc<Self>,
        listeners: Vec<Listener>,
        certificates: Option<Arc<Certificates>>,
        lasting: &Lasting,
    ) {
        let tls = certificates.as_ref().and_then(|certificates| {
            certificates
                .acceptor(&[tls::HTTP_2, tls::HTTP_1])
                .inspect_err(|err| warn!("TLS can't be served: {err}"))
                .ok()
        });
        let follow = |certificates: Arc<Certificates>| {
            lasting.spawn("what follows the files of certificates", certificates.follow())
        };
        let following = certificates.map(follow);
        let accepting = TaskTracker::new();
        for listener in listeners {
            let via = Via {
                tls: if listener.is_tls() { tls.clone() } else { None },
                authority: HeaderValue::from_str(&listener.authority())
                    .unwrap_or(HeaderValue::from_static("localhost")),
            };
            let name = format!("what accepts connections at {}", listener.served_at());
            let accept = self.clone().accept(listener, Arc::new(via));
            lasting.spawn_until(&accepting, name, self.replaced(), accept);
        }
        accepting.close();
        accepting.wait().await;
        self.connections.close();
        self.connections.wait().await;
        self.refusals.close();
        self.not_accepted.end_window();
        self.crowded.end_window();
        if let Some(following) = following {
            following.abort();
        }
    }

    /// Takes no more connections, once `drain_delay` has passed, and says from now on that the old ones close. Those that
    /// wait for nothing but their clients end within `grace` from then.
    pub(crate) fn drain(&self, drain_delay: Duration, grace: Duration) {
        // Only the first one counts.
        let _ = self.grace_ends.set(Instant::now() + drain_delay + grace);
        let _ = self.drain_delay.set(drain_delay);
        self.draining.store(true, Ordering::SeqCst);
        self.hang_up.cancel();
    }

    /// Accepts no more from now on.
    pub(crate) fn close(&self) {
        self.closes.cancel();
    }

    /// Cancelled where another ingress takes its place: then this one may end while the host goes on.
    pub(crate) fn replaced(&self) -> CancellationToken {
        self.replaced.clone()
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    async fn accept(self: Arc<Self>, listener: Listener, via: Arc<Via>) {
        let mut left = Vec::new();
        {
            let drained = async {
                self.hang_up.cancelled().await;
                let drain_delay = self.drain_delay.get().copied().unwrap_or_default();
                let _ = tokio::time::timeout(drain_delay, self.closes.cancelled()).await;
            };
            let over = async {
                tokio::select! {
                    () = drained => {}
                    () = listener.is_succeeded() => {}
                }
            };
            left.extend(self.accept_until(over, &listener, &via).await);
        }
        if listener.begin_end(self.replaced.is_cancelled()) {
            let over = tokio::time::sleep(HANDSHAKE);
            left.extend(self.accept_until(over, &listener, &via).await);
            left.extend(listener.close());
        } else {
            drop(listener);
        }
        for stream in left {
            // The others end now, if there are too many.
            let Ok(permit) = self.permits.clone().acquire_owned().await else { return };
            self.begin(stream, permit, &via);
        }
    }

    /// Accepts and serves. A connection that was accepted and found no room in time is returned.
    async fn accept_until(
        self: &Arc<Self>,
        over: impl Future<Output = ()>,
        listener: &Listener,
        via: &Arc<Via>,
    ) -> Option<Stream> {
        let mut over = pin!(over);
        let mut at_once = 0;
        loop {
            at_once += 1;
            if at_once == ACCEPTED_AT_ONCE {
                at_once = 0;
                tokio::task::yield_now().await;
            }
            let accepted = tokio::select! {
                // With tokio's own bound, 128, a host that was late for a moment would never catch up: its other tasks
                // come in between, and with each of them more connections.
                accepted = tokio::task::unconstrained(listener.accept()) => accepted,
                () = &mut over => return None,
            };
            let stream = match accepted {
                Ok(stream) => stream,
                Err(err) => {
                    // Most often it's a client that has gone already.
                    if err.raw_os_error() != Some(rustix::io::Errno::CONNABORTED.raw_os_error()) {
                        if self.not_accepted.has_room(err.kind()) {
                            warn!("can't accept a connection: {err}");
                        }
                        tokio::time::sleep(ACCEPT_AGAIN).await;
                    }
                    continue;
                }
            };
            tokio::select! {
                permit = self.room() => self.begin(stream, permit?, via),
                () = &mut over => return Some(stream),
            }
        }
    }

    async fn answer(&self, client: &Client, mut request: Request<Incoming>) -> Response<AnswerBody> {
        let underway = Underway::begin(&client.gauge);
        let begun = self.measures.is_on().then(Instant::now);
        let (method, version) = (request.method().clone(), request.version());
        let http1 = version < Version::HTTP_2;
        let found = if http1 { client.gauge.judgement() } else { Found::default() };
        let arrived = self.measures.traces().map(|traces| (traces, Context::of_headers(request.headers())));
        let (request_id, head) = head::settle(&mut request, &client.peer, found);
        let trace = arrived.map(|(traces, remote)| traced::enter(traces, remote, request.headers_mut()));
        let mut span = trace.as_ref().and_then(|trace| {
            traced::begin(trace, &request, head.as_ref().ok(), || self.remote(client, &request))
        });
        let mut log = self.access.as_ref().map(|access| {
            let begun = Begun {
                remote: self.remote(client, &request),
                method: request.method().clone(),
                path: request.uri().path().to_owned(),
                version: request.version(),
            };
            Box::new(access.begin(begun, request_id.clone()))
        });
        let mut served = Served { trace, ..Served::default() };
        let mut request =
            request.map(|body| RequestBody::new(body, self.timeouts.body, client.gauge.clone()));
        let fault = request.body().fault().map(|fault| (fault, self.asked(client, &request)));
        let routed = head.and_then(|head| Ok((self.route(&head, &mut request)?, head.scheme)));
        let (mut response, mut measured) = match routed {
            Ok((web, scheme)) => {
                let measured = Measured::begin(begun, span.take(), web, request.body());
                let response = measured.web.serve(request, scheme, &self.read_ahead, &mut served).await;
                (response, Some(measured))
            }
            Err(failure) => {
                self.refusals.request(failure, &self.asked(client, &request), &request_id);
                (failure.response().map(Either::Right), None)
            }
        };
        if let Some((fault, asked)) = fault {
            fault.answer();
            if let Some(failure) = fault.failure() {
                if !fault.is_gone() {
                    self.refusals.request(failure, &asked, &request_id);
                }
                response = failure.response().map(Either::Right);
            }
        }
        match &mut measured {
            Some(measured) => measured.answered(&response),
            None => measured::unrouted(&self.measures, begun, span, &response),
        }
        if let Some(log) = &mut log {
            let code = response.headers().get(answer::WASMHOST_ERROR).cloned();
            log.answered(response.status(), code, served);
        }
        let headers = response.headers_mut();
        headers.insert(X_REQUEST_ID, request_id);
        if http1 && self.is_draining() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let content = outgoing::frame(&mut response, &method, version);
        response.map(|body| AnswerBody::new(body, content, log, measured, underway))
    }

    /// Who has sent a request whose head is in order.
    fn remote<B>(&self, client: &Client, request: &Request<B>) -> Option<IpAddr> {
        forwarding::client(request, &client.peer, |address| self.trusted_proxies.contains(Some(address)))
    }

    fn asked<B>(&self, client: &Client, request: &Request<B>) -> Asked {
        Asked {
            remote: self.remote(client, request),
            method: request.method().clone(),
            uri: request.uri().clone(),
        }
    }

    /// The type that a request is for, if it may have it.
    fn route(&self, head: &Head, request: &mut Request<RequestBody>) -> Result<Arc<Web>, Failure> {
        let authority = head.authority.to_str().map_err(|_| Failure::NO_AUTHORITY)?;
        let router = self.router.load();
        let web = router.find(authority, request.uri().path()).ok_or(Failure::NO_ROUTE)?.version();
        if let Some(bytes_max) = web.body_bytes_max {
            // The length that it says is known to be true: hyper reads no more.
            if request.body().size_hint().lower() > bytes_max {
                return Err(Failure::BODY_TOO_LONG);
            }
            request.body_mut().limit(bytes_max);
        }
        Ok(web.clone())
    }
}
