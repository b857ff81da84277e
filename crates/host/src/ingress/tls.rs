//! Certificates are loaded from PEM files, chosen by the name that the client asks for, and loaded again when their
//! files change, or a deploy asks for it. Files that can't be used leave the certificates from before in use.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};
use tokio_rustls::TlsAcceptor;
use tracing::{error, info};
use wasmhost_config::{CertificateFiles, normal_host};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The most bytes of a PEM file. Chains have a few kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Says that a client may go on in HTTP/2, in the words of ALPN.
pub(super) const HTTP_2: &[u8] = b"h2";

/// The same for HTTP/1.1.
pub(crate) const HTTP_1: &[u8] = b"http/1.1";

/// See the module.
pub(crate) struct Certificates {
    files: Vec<CertificateFiles>,
    /// The files' contents when they were last used.
    contents: Mutex<Contents>,
    in_use: Arc<InUse>,
}

/// Certificates that were read again and can be used.
pub(crate) struct Renewal {
    certificates: Arc<Certificates>,
    contents: Contents,
    keys: Vec<Arc<CertifiedKey>>,
}

/// The bytes of each certificate's file and of its key's.
type Contents = Vec<(Vec<u8>, Vec<u8>)>;

#[derive(Debug)]
struct InUse(RwLock<Vec<Arc<CertifiedKey>>>);

impl Certificates {
    /// Loads them; an error says what is wrong with which file.
    pub(crate) fn load(files: &[CertificateFiles]) -> Result<Arc<Certificates>, String> {
        let contents = read(files)?;
        let keys = certified(files, &contents)?;
        Ok(Arc::new(Certificates {
            files: files.to_vec(),
            contents: Mutex::new(contents),
            in_use: Arc::new(InUse(RwLock::new(keys))),
        }))
    }

    /// Reads the files again. None where they are as they were; an error says what is wrong with which.
    pub(crate) fn read_again(self: Arc<Self>) -> Result<Option<Renewal>, String> {
        let contents = read(&self.files)?;
        if contents == *self.contents() {
            return Ok(None);
        }
        let keys = certified(&self.files, &contents)?;
        Ok(Some(Renewal { certificates: self, contents, keys }))
    }

    /// Whether one of those in use is for this name.
    pub(crate) fn are_for(&self, name: &str) -> bool {
        fitting(&self.in_use.0.read().unwrap_or_else(|poison| poison.into_inner()), name).is_some()
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        // No code that runs under the lock panics.
        self.contents.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    /// The acceptor that makes a connection one by TLS, in which one of these protocols is spoken.
    pub(crate) fn acceptor(&self, protocols: &[&[u8]]) -> Result<TlsAcceptor, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(self.in_use.clone());
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Looks at the files from time to time, for as long as it is polled.
    pub(crate) async fn follow(self: Arc<Self>) {
        // A certificate and its key can't be replaced at once: only what stays wrong is worth a line.
        let mut wrong: Option<(String, bool)> = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let this = self.clone();
            let Ok(found) = tokio::task::spawn_blocking(move || this.read_again()).await else { continue };
            wrong = match found {
                Ok(None) => None,
                Ok(Some(renewal)) => {
                    renewal.take_effect();
                    None
                }
                Err(problem) => {
                    let stays = wrong.filter(|(before, _)| *before == problem);
                    if let Some((_, false)) = stays {
                        error!("{problem}; the certificates from before stay in use");
                    }
                    Some((problem, stays.is_some()))
                }
            };
        }
    }
}

impl Renewal {
    /// The files of certificates that differ, themselves or by their keys.
    pub(crate) fn changed(&self) -> Vec<PathBuf> {
        let before = self.certificates.contents();
        let files = self.certificates.files.iter().zip(before.iter().zip(&self.contents));
        files.filter(|(_, (before, now))| before != now).map(|(files, _)| files.cert.clone()).collect()
    }

    /// New connections get the new ones.
    pub(crate) fn take_effect(self) {
        let Renewal { certificates, contents, keys } = self;
        *certificates.contents() = contents;
        *certificates.in_use.0.write().unwrap_or_else(|poison| poison.into_inner()) = keys;
        info!("the certificates have changed: new connections get the new ones");
    }
}

fn read(files: &[CertificateFiles]) -> Result<Contents, String> {
    files.iter().map(|files| Ok((read_file(&files.cert)?, read_file(&files.key)?))).collect()
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes))
        .map_err(|err| format!("can't read {}: {err}", path.display()))?;
    Ok(bytes)
}

fn certified(files: &[CertificateFiles], contents: &Contents) -> Result<Vec<Arc<CertifiedKey>>, String> {
    let provider = ring::default_provider();
    let pairs = files.iter().zip(contents);
    pairs.map(|(files, (cert, key))| certify(files, cert, key, &provider).map(Arc::new)).collect()
}

fn certify(
    files: &CertificateFiles,
    cert: &[u8],
    key: &[u8],
    provider: &CryptoProvider,
) -> Result<CertifiedKey, String> {
    let (cert_file, key_file) = (files.cert.display(), files.key.display());
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert).collect();
    let chain = chain.map_err(|err| format!("{cert_file} is no PEM file: {err}"))?;
    if chain.is_empty() {
        return Err(format!("{cert_file} has no certificate in it, expected one or more in PEM"));
    }
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|err| format!("{key_file} has no private key in it that can be read: {err}"))?;
    let certified = CertifiedKey::from_der(chain, key, provider)
        .map_err(|err| format!("{cert_file} and {key_file} can't be used together: {err}"))?;
    certified
        .end_entity_cert()
        .and_then(ParsedCertificate::try_from)
        .map_err(|err| format!("the certificate in {cert_file} can't be used: {err}"))?;
    Ok(certified)
}

impl ResolvesServerCert for InUse {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let keys = self.0.read().unwrap_or_else(|poison| poison.into_inner());
        let fitting = hello.server_name().and_then(|name| fitting(&keys, name));
        fitting.or(keys.first()).cloned()
    }
}

/// The first certificate for a name. A dot at the name's end is no part of it.
fn fitting<'a>(keys: &'a [Arc<CertifiedKey>], name: &str) -> Option<&'a Arc<CertifiedKey>> {
    let name = normal_host(name);
    let name = ServerName::try_from(&*name).ok()?;
    keys.iter().find(|key| is_for(key, &name))
}

fn is_for(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let cert = key.end_entity_cert().and_then(ParsedCertificate::try_from);
    cert.is_ok_and(|cert| verify_server_name(&cert, name).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_is_the_one_for_the_name_in_each_of_its_forms() {
        let names = ["a.example", "b.example", "*.c.example"];
        let provider = ring::default_provider();
        let keys = names.map(|name| {
            let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
            let files = CertificateFiles { cert: "cert.pem".into(), key: "key.pem".into() };
            let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
            Arc::new(certify(&files, cert.as_bytes(), key.as_bytes(), &provider).unwrap())
        });
        let found =
            |name| fitting(&keys, name).and_then(|found| keys.iter().position(|key| Arc::ptr_eq(key, found)));
        for (name, at) in [("b.example", 1), ("b.example.", 1), ("B.Example.", 1), ("x.c.example.", 2)] {
            assert_eq!(found(name), Some(at), "{name}");
        }
        for name in ["c.example.", "b.example..", "x.example", ""] {
            assert_eq!(found(name), None, "{name}");
        }
    }
}
