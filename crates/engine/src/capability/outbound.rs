//! Requests that guests make: to the hosts that `outbound` names, over connections that all instances of the host
//! share (they carry no state of their own), HTTP/1.1 or HTTP/2, certificates checked by name.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::uri::Scheme;
use http_body_util::BodyExt;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use crate::capability::network::names_host;
use crate::services::{Refusal, RefusalSink};
use crate::state::Sandbox;

/// How long connecting and waiting for the head of the answer may take, where the guest doesn't say.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(60);

/// Connections that are kept for a host's next request.
const IDLE_CONNECTIONS_MAX: usize = 32;

/// What a guest may write to a body at once: a slow reader holds a few of these.
const BODY_CHUNK_BYTES: usize = 64 << 10;

type Pooled = Client<HttpsConnector<HttpConnector>, WasiBody>;

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
    client: HttpClient,
    sandbox: Arc<Sandbox>,
    refusals: Arc<dyn RefusalSink>,
}

impl OutboundHttp {
    pub(crate) fn new(client: HttpClient, sandbox: Arc<Sandbox>, refusals: Arc<dyn RefusalSink>) -> Self {
        OutboundHttp { client, sandbox, refusals }
    }

    fn allows(&self, uri: &http::Uri) -> bool {
        let grants = &self.sandbox.grants;
        let Some(host) = uri.host() else { return false };
        let host = host.trim_start_matches('[').trim_end_matches(']');
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
        let first_byte = options.and_then(|options| options.first_byte_timeout).unwrap_or(FIRST_BYTE_TIMEOUT);
        Box::new(async move {
            let response = tokio::time::timeout(first_byte, client.request(request))
                .await
                .map_err(|_| Error::ConnectionReadTimeout)?
                .map_err(client_error)?;
            let body = response.map(|body| body.map_err(Error::from).boxed_unsync());
            Ok((body, Box::new(async { Ok(()) }) as Io))
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK_BYTES
    }
}

fn client_error(err: legacy::Error) -> Error {
    if err.is_connect() {
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&err);
        while let Some(cause) = source {
            if let Some(io) = cause.downcast_ref::<std::io::Error>() {
                return match io.kind() {
                    std::io::ErrorKind::TimedOut => Error::ConnectionTimeout,
                    std::io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
                    std::io::ErrorKind::InvalidData => Error::TlsProtocolError,
                    _ => Error::DestinationUnavailable,
                };
            }
            source = cause.source();
        }
        return Error::DnsError { rcode: None, info_code: None };
    }
    Error::InternalError(Some(err.to_string()))
}
