//! A host on another machine: by its `[admin]`, with its token, and by TLS.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::header::HeaderValue;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore, version};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wasmhost_config::read_file;
use wasmhost_host::AdminToken;
use wasmhost_host::admin::api::Problem;

use super::CONNECT_TIMEOUT;
use super::url::Url;
use crate::exit::{Exit, Failed};

/// Thousands of certificates have less.
const CA_BYTES_MAX: u64 = 16 << 20;

/// See the module.
pub(super) struct Remote {
    url: Url,
    token: AdminToken,
    token_file: PathBuf,
    tls: Option<Tls>,
}

struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
    /// The file with the certificates that are trusted, where not those of public authorities are.
    ca: Option<PathBuf>,
}

/// A connection to it.
pub(super) enum Connected {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Remote {
    pub(super) fn new(
        url: Url,
        (token, token_file): (AdminToken, PathBuf),
        ca: Option<&Path>,
    ) -> Result<Remote, Failed> {
        let tls = match (url.is_tls, ca) {
            (true, ca) => Some(Tls::new(&url, ca).map_err(|why| Failed::new(Exit::Usage, why))?),
            (false, None) => None,
            (false, Some(_)) => {
                let message = format!("--ca is for https://, and {url} has no certificate: leave it out");
                return Err(Failed::new(Exit::Usage, message));
            }
        };
        Ok(Remote { url, token, token_file, tls })
    }

    pub(super) fn authority(&self) -> &str {
        &self.url.authority
    }

    pub(super) fn authorization(&self) -> HeaderValue {
        self.token.header()
    }

    /// A refusal of the token, with the file that it is from.
    pub(super) fn not_let_in(&self, problem: Problem) -> Problem {
        let (url, file) = (&self.url, self.token_file.display());
        let detail = format!("the host at {url} doesn't take the token in {file}: {}", problem.detail);
        Problem { detail, ..problem }
    }

    pub(super) async fn connect(&self) -> Result<Connected, Failed> {
        let connecting = async {
            let stream = self.dial().await?;
            let Some(tls) = &self.tls else { return Ok(Connected::Plain(stream)) };
            let shaken = tls.connector.connect(tls.name.clone(), stream).await;
            let stream = shaken.map_err(|err| self.no_tls(tls, &err))?;
            Ok(Connected::Tls(Box::new(stream)))
        };
        timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or_else(|_| {
            let seconds = CONNECT_TIMEOUT.as_secs();
            Err(self.unreachable(&format!("it has not answered within {seconds} s")))
        })
    }

    async fn dial(&self) -> Result<TcpStream, Failed> {
        let found = tokio::net::lookup_host((self.url.host.as_str(), self.url.port)).await;
        let addresses: Vec<SocketAddr> = match found {
            // A name that should be this machine may be told to be another.
            Ok(found) => {
                found.filter(|address| self.url.is_tls || address.ip().to_canonical().is_loopback()).collect()
            }
            Err(err) => return Err(self.unreachable(&format!("its name has no address ({err})"))),
        };
        let mut failed = "its name has no address".to_owned();
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // Without it small requests would wait for acknowledgements; failing is no reason not to send them.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(err) => failed = format!("{address}: {err}"),
            }
        }
        Err(self.unreachable(&failed))
    }

    fn unreachable(&self, why: &str) -> Failed {
        let url = &self.url;
        let message =
            format!("can't reach a host at {url}: {why}; is it running, and does its [admin] listen there?");
        Failed::new(Exit::NoHost, message)
    }

    fn no_tls(&self, tls: &Tls, err: &io::Error) -> Failed {
        let url = &self.url;
        let of_tls = err.get_ref().and_then(|err| err.downcast_ref::<rustls::Error>());
        let trusts = match &tls.ca {
            Some(ca) => format!("the certificates in {}", ca.display()),
            None => "public authorities".to_owned(),
        };
        let message = match of_tls {
            // Another certificate may have its issuer's name.
            Some(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            )) => format!(
                "the certificate of {url} isn't trusted: it isn't from {trusts}; --ca names a PEM file with the certificate, or with the authority that signed it"
            ),
            Some(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => format!(
                "the certificate of {url} is for another name than {}: use the name that it is for",
                self.url.host
            ),
            Some(rustls::Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            )) => format!("the certificate of {url} has expired"),
            Some(rustls::Error::InvalidCertificate(CertificateError::Other(_))) if is_authority(err) => {
                format!(
                    "the certificate of {url} is an authority's, which no server may show: make it with `-addext basicConstraints=critical,CA:FALSE`"
                )
            }
            Some(rustls::Error::InvalidCertificate(why)) => {
                format!("the certificate of {url} isn't trusted: {why}")
            }
            Some(rustls::Error::InvalidMessage(_)) => {
                format!(
                    "{url} doesn't speak TLS: if its [admin] has no certificate, it is asked by http:// on its own machine"
                )
            }
            _ => format!("no TLS connection to {url} comes about: {err}"),
        };
        Failed::new(Exit::Failed, message)
    }
}

/// Whether a server showed the certificate of an authority as its own, as `openssl req -x509` makes them.
fn is_authority(err: &io::Error) -> bool {
    err.to_string().contains("CaUsedAsEndEntity")
}

impl Tls {
    fn new(url: &Url, ca: Option<&Path>) -> Result<Tls, String> {
        let name = ServerName::try_from(url.host.clone())
            .map_err(|_| format!("found \"{}\", expected a name or an address of a host", url.host))?;
        let roots = match ca {
            Some(ca) => roots(ca)?,
            None => RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        };
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(|err| err.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        Ok(Tls { connector, name, ca: ca.map(Path::to_owned) })
    }
}

fn roots(ca: &Path) -> Result<RootCertStore, String> {
    let shown = ca.display();
    let bytes = read_file(ca, CA_BYTES_MAX).map_err(|err| format!("can't read {shown}: {err}"))?;
    let bytes =
        bytes.ok_or_else(|| format!("{shown} is longer than a file of certificates: expected PEM"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|err| format!("{shown} is no PEM file: {err}"))?;
        roots.add(certificate).map_err(|err| format!("a certificate in {shown} can't be used: {err}"))?;
    }
    match roots.is_empty() {
        true => Err(format!("{shown} has no certificate in it, expected one or more in PEM")),
        false => Ok(roots),
    }
}
