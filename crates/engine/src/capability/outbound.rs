//! Requests that guests make. They go to the hosts that `outbound` names, over connections that all instances of the
//! host share (connections carry no state of their own), in HTTP/1.1 or HTTP/2. Certificates are checked by name.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::uri::Scheme;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::time::{Instant, Sleep, sleep, timeout};
use wasmhost_config::shown::{NAME_BYTES_MAX, one_line};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::dial::{Dialler, NotDialled};
use super::framing::{comes_late, frame};
use super::network::{is_outright, names_host};
use crate::sandbox::Sandbox;
use crate::sandbox::descriptors::{Counter, Permit, Room};
use crate::sandbox::meter::Meter;
use crate::services::{Refusal, RefusalSink, Sending, Trace};

/// How long it may take to connect, with TLS: at most, whatever the guest says.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the head of the answer may take, where the guest doesn't say.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(60);

/// Connections that are kept for a host's next request.
const IDLE_CONNECTIONS_MAX: usize = 32;

/// Bytes that a guest may write to a body at once. A slow reader holds up to three of these: with 256 KiB it would cost
/// almost 1 MiB.
const BODY_CHUNK_BYTES: usize = 128 << 10;

/// How long a connection is kept that no request uses.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Bytes that are read ahead of a guest that doesn't read: a head must fit in it, too.
const READ_AHEAD_BYTES: usize = 128 << 10;

type Pooled = Client<HttpsConnector<Dialler>, Sent>;

/// The clients that all instances share. Each is made when its first request goes out: most formations make none.
#[derive(Clone)]
pub(crate) struct HttpClient {
    descriptors: Arc<Room>,
    /// For names that are granted outright.
    anywhere: Arc<OnceLock<Pooled>>,
    /// For names that a wildcard grants, which lead elsewhere. Connections aren't shared between the two.
    far: Arc<OnceLock<Pooled>>,
}

impl HttpClient {
    pub(crate) fn new(descriptors: Arc<Room>) -> HttpClient {
        HttpClient { descriptors, anywhere: Arc::default(), far: Arc::default() }
    }

    fn get(&self, reach: Reach) -> &Pooled {
        let far_only = reach == Reach::Far;
        let client = if far_only { &self.far } else { &self.anywhere };
        client.get_or_init(|| {
            let dialler = Dialler::new(self.descriptors.clone(), far_only, |tcp| {
                tcp.enforce_http(false);
                tcp.set_nodelay(true);
                tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
            });
            let tls = HttpsConnectorBuilder::new()
                .with_webpki_roots()
                .https_or_http()
                .enable_all_versions()
                .wrap_connector(dialler);
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
                .pool_idle_timeout(IDLE_MAX)
                .http1_max_buf_size(READ_AHEAD_BYTES)
                .build(tls)
        })
    }
}

/// Where a request may lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// To any address that the name has.
    Anywhere,
    /// Not back to this machine.
    Far,
}

/// The hooks of one instance: its type's grants, and the shared client.
pub(crate) struct OutboundHttp {
    pub(crate) client: HttpClient,
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) refusals: Arc<dyn RefusalSink>,
    pub(crate) meter: Arc<Meter>,
    /// Whether the component uses async, as those of WASI 0.3 do.
    pub(crate) is_async: bool,
    /// The library has asked how a body of WASI 0.3 that the guest itself writes is to be cut in pieces. It doesn't ask
    /// about a body that the guest passes on from elsewhere: nothing else tells the two apart.
    pub(crate) asked_for_chunks: bool,
    /// Where requests that have no end yet are counted.
    pub(crate) descriptors: Counter,
    /// The trace that the next request is part of.
    pub(crate) trace: Trace,
}

impl OutboundHttp {
    /// `None` where no grant names the host.
    fn reach(&self, uri: &http::Uri) -> Option<Reach> {
        let grants = &self.sandbox.grants;
        let host = uri.host()?;
        let (scheme, port) = scheme_and_port(uri);
        if grants.network_all {
            return Some(Reach::Anywhere);
        }
        let fitting = grants.outbound.iter().filter(|grant| {
            let scheme_fits = grant.scheme.as_deref().is_none_or(|granted| granted == scheme);
            scheme_fits && grant.port == port && names_host(grant, host)
        });
        let reaches = fitting.map(|grant| if is_outright(grant) { Reach::Anywhere } else { Reach::Far });
        reaches.reduce(|one, other| if one == Reach::Far { other } else { one })
    }

    fn refuse(&self, refusal: Refusal) {
        self.refusals.refused(&self.sandbox.process, refusal);
    }
}

/// The entry that `outbound` would need for a request to be granted.
fn wanted(uri: &http::Uri) -> String {
    let (scheme, port) = scheme_and_port(uri);
    let default = if scheme == "https" { 443 } else { 80 };
    let host = one_line(uri.host().unwrap_or_default(), NAME_BYTES_MAX);
    match port == default {
        true => format!("{scheme}://{host}"),
        false => format!("{scheme}://{host}:{port}"),
    }
}

fn scheme_and_port(uri: &http::Uri) -> (&str, u16) {
    let scheme = uri.scheme_str().unwrap_or("http");
    let default = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
    (scheme, uri.port_u16().unwrap_or(default))
}

type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl WasiHttpHooks for OutboundHttp {
    fn send_request(
        &mut self,
        mut request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Io,
    ) -> Box<dyn Future<Output = Result<(http::Response<WasiBody>, Io), Error>> + Send> {
        if request.uri().authority().is_some_and(|authority| authority.as_str().contains('@')) {
            // A password would go out in `Host`, and in the clear: it belongs into `Authorization`.
            return Box::new(async { Err(Error::HttpRequestUriInvalid) });
        }
        let Some(reach) = self.reach(request.uri()) else {
            self.refuse(Refusal::Outbound(wanted(request.uri())));
            return Box::new(async { Err(Error::HttpRequestDenied) });
        };
        let Some(permit) = self.descriptors.take_use() else {
            return Box::new(async { Err(Error::ConnectionLimitReached) });
        };
        let client = self.client.get(reach).clone();
        let near = Refusal::Near(wanted(request.uri()));
        let (refusals, process) = (self.refusals.clone(), self.sandbox.process.clone());
        let (meter, is_async) = (self.meter.clone(), self.is_async);
        let sending = self.trace.as_ref().and_then(|trace| {
            let (method, uri) = (request.method().clone(), request.uri().clone());
            trace.request(&method, &uri, request.headers_mut())
        });
        Box::new(async move {
            let mut in_use = InUse { _permit: permit, sending };
            let sent = match frame(request, is_async).await {
                Ok((request, late)) => {
                    send(client, request, late, options.unwrap_or_default(), meter, &mut in_use).await
                }
                Err(err) => Err(err),
            };
            match sent {
                Ok((response, sent)) => {
                    let between_bytes = options.and_then(|options| options.between_bytes_timeout);
                    let response =
                        response.map(|body| Received::new(body, between_bytes, in_use).boxed_unsync());
                    Ok((response, sent))
                }
                Err(err) => {
                    in_use.failed(&err);
                    if let Error::DestinationIpProhibited = err {
                        refusals.refused(&process, near);
                    }
                    Err(err)
                }
            }
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK_BYTES
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        self.asked_for_chunks = true;
        BODY_CHUNK_BYTES
    }
}

async fn send(
    client: Pooled,
    request: http::Request<WasiBody>,
    late: Option<WasiBody>,
    options: RequestOptions,
    meter: Arc<Meter>,
    in_use: &mut InUse,
) -> Result<(http::Response<Incoming>, Io), Error> {
    let (failed, mut has_failed) = oneshot::channel();
    let length = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let mut request = request.map(|body| Sent { body, length, sent: 0, failed: Some(failed), meter });
    let connect_timeout = options.connect_timeout.unwrap_or(CONNECT_TIMEOUT).min(CONNECT_TIMEOUT);
    let first_byte_timeout = options.first_byte_timeout.unwrap_or(FIRST_BYTE_TIMEOUT);
    let mut captured = capture_connection(&mut request);
    let connected = async {
        captured.wait_for_connection_metadata().await;
    };
    let mut response = Box::pin(client.request(request));
    let mut late = std::pin::pin!(comes_late(late));
    let answered = tokio::select! {
        biased;
        answered = &mut response => answered,
        err = &mut late => return Err(err),
        connected = timeout(connect_timeout, connected) => {
            connected.map_err(|_| Error::ConnectionTimeout)?;
            let answered = tokio::select! {
                biased;
                answered = timeout(first_byte_timeout, response) => answered,
                err = late => return Err(err),
            };
            answered.map_err(|_| Error::ConnectionReadTimeout)?
        }
    };
    // The client says no more of a body that couldn't be sent than that.
    let response = answered.map_err(|err| has_failed.try_recv().unwrap_or_else(|_| client_error(&err)))?;
    if let Some(sending) = &mut in_use.sending {
        sending.answered(response.status().as_u16());
    }
    let sent: Io = match has_failed.try_recv() {
        Err(TryRecvError::Closed) => Box::new(async { Ok(()) }),
        failed => Box::new(async move {
            // An error now would be taken for that of the answer, which is there.
            tokio::task::yield_now().await;
            match failed {
                Ok(err) => Err(err),
                Err(_) => has_failed.await.map_or(Ok(()), Err),
            }
        }),
    };
    Ok((response, sent))
}

/// A body that a guest sends.
struct Sent {
    body: WasiBody,
    /// As the head says.
    length: Option<u64>,
    sent: u64,
    /// Is told why not all of it could be sent.
    failed: Option<oneshot::Sender<Error>>,
    /// The meter of the instance that sends the body.
    meter: Arc<Meter>,
}

impl Sent {
    fn fail(&mut self, err: Error) -> Poll<Option<Result<Frame<Bytes>, NotSent>>> {
        if let Some(failed) = self.failed.take() {
            // Nobody may want to know any more.
            let _ = failed.send(err);
        }
        Poll::Ready(Some(Err(NotSent)))
    }
}

/// As the client sees it: the reason is told elsewhere.
#[derive(Debug, thiserror::Error)]
#[error("the guest couldn't send its body")]
struct NotSent;

impl Body for Sent {
    type Data = Bytes;
    type Error = NotSent;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, NotSent>>> {
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                self.sent += frame.data_ref().map_or(0, Bytes::len) as u64;
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(err)) => self.fail(err),
            // A guest's body may end too early without an error, if its last piece had to wait.
            None if self.length.is_some_and(|length| self.sent < length) => {
                let sent = self.sent;
                self.fail(Error::HttpRequestBodySize(Some(sent)))
            }
            // A body that is dropped with its instance ends without an error, too, and must not look whole.
            None if self.meter.has_ended_badly() => self.fail(Error::ConnectionTerminated),
            None => {
                self.failed = None;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        // It isn't always asked whether it is over, and where none is expected it isn't asked for anything.
        let is_over = self.sent == 0 || self.body.is_end_stream() || self.length == Some(self.sent);
        if let Some(failed) = self.failed.take().filter(|_| !is_over) {
            let _ = failed.send(Error::ConnectionTerminated);
        }
    }
}

/// A request counts, and is part of a trace, until the guest has done with its answer.
struct InUse {
    _permit: Permit,
    sending: Option<Box<dyn Sending>>,
}

impl InUse {
    fn failed(&mut self, err: &Error) {
        if let Some(sending) = &mut self.sending {
            // Its name alone: the rest may be a text from anywhere.
            let shown = format!("{err:?}");
            sending.failed(shown.split(['(', ' ', '{']).next().unwrap_or_default());
        }
    }
}

/// A body that comes for a guest.
struct Received {
    body: Incoming,
    /// How long the guest waits for the next piece, and until when it waits for this one.
    patience: Option<(Duration, Pin<Box<Sleep>>)>,
    in_use: InUse,
}

impl Received {
    fn new(body: Incoming, between_bytes_timeout: Option<Duration>, in_use: InUse) -> Received {
        let patience = between_bytes_timeout.map(|pause| (pause, Box::pin(sleep(pause))));
        Received { body, patience, in_use }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Received { body, patience, in_use } = &mut *self;
        let failed = match (Pin::new(body).poll_frame(cx), patience) {
            (Poll::Ready(frame), patience) => {
                if let Some((pause, until)) = patience {
                    until.as_mut().reset(Instant::now() + *pause);
                }
                match frame {
                    Some(Err(err)) => http_error(&err),
                    frame => return Poll::Ready(frame.map(|frame| frame.map_err(|err| http_error(&err)))),
                }
            }
            (Poll::Pending, Some((_, until))) => {
                ready!(until.as_mut().poll(cx));
                Error::ConnectionReadTimeout
            }
            (Poll::Pending, None) => return Poll::Pending,
        };
        in_use.failed(&failed);
        Poll::Ready(Some(Err(failed)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn client_error(err: &legacy::Error) -> Error {
    if let Some(reason) = cause::<NotDialled>(err) {
        return reason.code();
    }
    if err.is_connect()
        && let Some(err) = cause::<io::Error>(err)
    {
        return connect_error(err);
    }
    match cause::<hyper::Error>(err) {
        Some(err) => http_error(err),
        None => Error::InternalError(Some(err.to_string())),
    }
}

/// The first of what led to an error that is of this kind.
fn cause<E: std::error::Error + 'static>(err: &legacy::Error) -> Option<&E> {
    let mut next = err.source();
    while let Some(err) = next {
        if let Some(found) = err.downcast_ref() {
            return Some(found);
        }
        next = err.source();
    }
    None
}

fn connect_error(err: &io::Error) -> Error {
    let inner = err.get_ref();
    // One may hold another.
    if let Some(err) = inner.and_then(|err| err.downcast_ref::<io::Error>()) {
        return connect_error(err);
    }
    if let Some(err) = inner.and_then(|err| err.downcast_ref::<rustls::Error>()) {
        return match err {
            rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
                Error::TlsCertificateError
            }
            _ => Error::TlsProtocolError,
        };
    }
    match err.kind() {
        io::ErrorKind::TimedOut => Error::ConnectionTimeout,
        io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
        // The standard library's error for a name that it couldn't look up has no kind.
        _ if err.to_string().starts_with("failed to lookup address information") => {
            Error::DnsError { rcode: Some("address not available".to_owned()), info_code: None }
        }
        _ => Error::DestinationUnavailable,
    }
}

fn http_error(err: &hyper::Error) -> Error {
    match err.is_timeout() {
        true => Error::HttpResponseTimeout,
        false => Error::HttpProtocolError,
    }
}
