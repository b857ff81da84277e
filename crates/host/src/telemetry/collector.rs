//! The collector: one request to it.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prost::Message;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::messages::{ExportAnswer, PartialSuccess};
use super::retry::{Again, Refused};
use super::settings::Target;

/// How long a connection is kept that nothing is sent on.
const IDLE_MAX: Duration = Duration::from_secs(90);

/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// See the module.
pub(super) struct Collector {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    target: Target,
}

impl Collector {
    pub(super) fn new(target: Target) -> io::Result<Collector> {
        let tls = HttpsConnectorBuilder::new();
        let tls = match &target.certificate {
            None => tls.with_webpki_roots(),
            Some(file) => {
                let wrong = |err: String| {
                    let file = file.display();
                    io::Error::other(format!(
                        "OTEL_EXPORTER_OTLP_CERTIFICATE: {file} can't be used: {err}; expected certificates as PEM has them"
                    ))
                };
                let mut roots = RootCertStore::empty();
                let certificates =
                    CertificateDer::pem_file_iter(file).map_err(|err| wrong(err.to_string()))?;
                for certificate in certificates {
                    let certificate = certificate.map_err(|err| wrong(err.to_string()))?;
                    roots.add(certificate).map_err(|err| wrong(err.to_string()))?;
                }
                if roots.is_empty() {
                    return Err(wrong("there is none in it".to_owned()));
                }
                tls.with_tls_config(
                    ClientConfig::builder().with_root_certificates(roots).with_no_client_auth(),
                )
            }
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(1)
            .build(tls.https_or_http().enable_http1().build());
        Ok(Collector { client, target })
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// Sends a message. Returns what the collector says that it hasn't taken of it.
    pub(super) async fn send(&self, message: Bytes) -> Result<Option<PartialSuccess>, Refused> {
        let mut request = Request::new(Full::new(message));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.target.uri.clone();
        *request.headers_mut() = self.target.headers.clone();
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers
            .entry(header::USER_AGENT)
            .or_insert(HeaderValue::from_static(concat!("wasmhost/", env!("CARGO_PKG_VERSION"))));
        let timeout = self.target.timeout;
        let late =
            |_| Refused { why: format!("there was no answer within {timeout:?}"), again: Again::Later };
        tokio::time::timeout(timeout, self.ask(request)).await.map_err(late)?
    }

    async fn ask(&self, request: Request<Full<Bytes>>) -> Result<Option<PartialSuccess>, Refused> {
        let answer = self
            .client
            .request(request)
            .await
            .map_err(|err| Refused { why: told(&err), again: Again::Later })?;
        let (head, body) = answer.into_parts();
        if !head.status.is_success() {
            let retry_after = head.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
            let why = format!("the answer was {}", head.status);
            return Err(Refused { why, again: Again::of(head.status, retry_after) });
        }
        // It has been taken, whatever is to be read of the answer.
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let answer =
            body.ok().and_then(|body| ExportAnswer::decode(body.to_bytes()).ok()).unwrap_or_default();
        Ok(answer.partial_success)
    }
}

/// An error with what led to it: the client itself says little.
fn told(err: &(dyn std::error::Error + 'static)) -> String {
    let mut text = err.to_string();
    let mut next = err.source();
    while let Some(err) = next {
        text = format!("{text}: {err}");
        next = err.source();
    }
    text
}
