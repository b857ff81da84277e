//! TLS to the server, as `sslmode` says.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;
use wasmhost_config::{PostgresRoots, PostgresTls};

use crate::StoreError;

/// Whether TLS is used, and what does it.
pub(super) fn connector(tls: &PostgresTls) -> Result<(SslMode, MakeRustlsConnect), StoreError> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let config = config.map_err(|error| StoreError::Open(format!("TLS can't be used: {error}")))?;
    let (mode, verifier) = match tls {
        PostgresTls::Disable => (SslMode::Disable, Verifier::Nothing(provider)),
        PostgresTls::Prefer => (SslMode::Prefer, Verifier::Nothing(provider)),
        PostgresTls::Require => (SslMode::Require, Verifier::Nothing(provider)),
        PostgresTls::VerifyCa(file) => {
            (SslMode::Require, Verifier::Signer(web_pki(file_roots(file)?, provider)?))
        }
        PostgresTls::VerifyFull(roots) => {
            let roots = match roots {
                PostgresRoots::File(file) => file_roots(file)?,
                PostgresRoots::System => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
            };
            let config = config.with_root_certificates(roots).with_no_client_auth();
            return Ok((SslMode::Require, MakeRustlsConnect::new(config)));
        }
    };
    let config =
        config.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth();
    Ok((mode, MakeRustlsConnect::new(config)))
}

fn file_roots(file: &Path) -> Result<RootCertStore, StoreError> {
    let wrong = |why: String| {
        StoreError::Open(format!(
            "sslrootcert {} can't be used: {why}; expected certificates in PEM",
            file.display()
        ))
    };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(file).map_err(|error| wrong(error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    match roots.is_empty() {
        true => Err(wrong("no certificate is in it".to_owned())),
        false => Ok(roots),
    }
}

fn web_pki(
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, StoreError> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| StoreError::Open(format!("TLS can't be used: {error}")))
}

/// How a server proves who it is where less is asked than its name.
#[derive(Debug)]
enum Verifier {
    /// Not at all: `prefer` and `require` keep listeners out, and nobody who is in the way.
    Nothing(Arc<CryptoProvider>),
    /// Its certificate is signed by one that is trusted, for whatever name.
    Signer(Arc<WebPkiServerVerifier>),
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Verifier::Signer(verifier) = self else { return Ok(ServerCertVerified::assertion()) };
        match verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self {
            Verifier::Nothing(provider) => verify_tls12_signature(
                message,
                certificate,
                signed,
                &provider.signature_verification_algorithms,
            ),
            Verifier::Signer(verifier) => verifier.verify_tls12_signature(message, certificate, signed),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self {
            Verifier::Nothing(provider) => verify_tls13_signature(
                message,
                certificate,
                signed,
                &provider.signature_verification_algorithms,
            ),
            Verifier::Signer(verifier) => verifier.verify_tls13_signature(message, certificate, signed),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        match self {
            Verifier::Nothing(provider) => provider.signature_verification_algorithms.supported_schemes(),
            Verifier::Signer(verifier) => verifier.supported_verify_schemes(),
        }
    }
}
