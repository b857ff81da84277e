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
use hyper_util::client::legacy::connect::{HttpConnector, capture_connection};
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::time::{Instant, Sleep, sleep, timeout};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::framing::{comes_late, frame};
use super::network::names_host;
use crate::sandbox::Sandbox;
use crate::sandbox::meter::Meter;
use crate::services::{Refusal, RefusalSink};

/// How long it may take to connect, with TLS: at most, whatever the guest says.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the head of the answer may take, where the guest doesn't say.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(60);

/// Connections that are kept for a host's next request.
const IDLE_CONNECTIONS_MAX: usize = 32;

/// What a guest may write to a body at once. A slow reader holds up to three of these: with 256 KiB it would cost
/// almost 1 MiB.
const BODY_CHUNK_BYTES: usize = 128 << 10;

type Pooled = Client<HttpsConnector<HttpConnector>, Sent>;

/// The client that all instances share. It is made when the first request goes out: most formations make none.
#[derive(Clone, Default)]
pub(crate) struct HttpClient {
    client: Arc<OnceLock<Pooled>>,
}

impl HttpClient {
    fn get(&self) -> &Pooled {
        self.client.get_or_init(|| {
            let mut tcp = HttpConnector::new();
            tcp.enforce_http(false);
            tcp.set_nodelay(true);
            tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
            let tls = HttpsConnectorBuilder::new()
                .with_webpki_roots()
                .https_or_http()
                .enable_all_versions()
                .wrap_connector(tcp);
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
                .build(tls)
        })
    }
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
}

impl OutboundHttp {
    fn allows(&self, uri: &http::Uri) -> bool {
        let grants = &self.sandbox.grants;
        let Some(host) = uri.host() else { return false };
        let (scheme, port) = scheme_and_port(uri);
        grants.network_all
            || grants.outbound.iter().any(|grant| {
                let scheme_fits = grant.scheme.as_deref().is_none_or(|granted| granted == scheme);
                scheme_fits && grant.port == port && names_host(grant, host)
            })
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
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Io,
    ) -> Box<dyn Future<Output = Result<(http::Response<WasiBody>, Io), Error>> + Send> {
        if request.uri().authority().is_some_and(|authority| authority.as_str().contains('@')) {
            // A password would go out in `Host`, and in the clear: it belongs into `Authorization`.
            return Box::new(async { Err(Error::HttpRequestUriInvalid) });
        }
        if !self.allows(request.uri()) {
            let (scheme, port) = scheme_and_port(request.uri());
            let default = if scheme == "https" { 443 } else { 80 };
            let host = request.uri().host().unwrap_or_default();
            let wanted = match port == default {
                true => format!("{scheme}://{host}"),
                false => format!("{scheme}://{host}:{port}"),
            };
            self.refusals.refused(&self.sandbox.process, Refusal::Outbound(wanted));
            return Box::new(async { Err(Error::HttpRequestDenied) });
        }
        let client = self.client.get().clone();
        let (meter, is_async) = (self.meter.clone(), self.is_async);
        Box::new(async move {
            let (request, late) = frame(request, is_async).await?;
            send(client, request, late, options.unwrap_or_default(), meter).await
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
) -> Result<(http::Response<WasiBody>, Io), Error> {
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
    // Of a body that couldn't be sent the client says no more than that.
    let response = answered.map_err(|err| has_failed.try_recv().unwrap_or_else(|_| client_error(&err)))?;
    let response = response.map(|body| Received::new(body, options.between_bytes_timeout).boxed_unsync());
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
    /// Of the instance that sends it.
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
            // What is dropped with its instance ends without an error, too, and must not look whole.
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

/// A body that comes for a guest.
struct Received {
    body: Incoming,
    /// How long the guest waits for the next piece, and until when it waits for this one.
    patience: Option<(Duration, Pin<Box<Sleep>>)>,
}

impl Received {
    fn new(body: Incoming, between_bytes_timeout: Option<Duration>) -> Received {
        Received { body, patience: between_bytes_timeout.map(|pause| (pause, Box::pin(sleep(pause)))) }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Received { body, patience } = &mut *self;
        match (Pin::new(body).poll_frame(cx), patience) {
            (Poll::Ready(frame), patience) => {
                if let Some((pause, until)) = patience {
                    until.as_mut().reset(Instant::now() + *pause);
                }
                Poll::Ready(frame.map(|frame| frame.map_err(|err| http_error(&err))))
            }
            (Poll::Pending, Some((_, until))) => {
                ready!(until.as_mut().poll(cx));
                Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
            }
            (Poll::Pending, None) => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn client_error(err: &legacy::Error) -> Error {
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
        // What the standard library says of a name that it couldn't look up has no kind.
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
