//! Certificates, and a client that speaks TLS.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{Formation, PATIENCE};

/// A certificate for a name, signed by itself, and its key.
pub(crate) struct Certified {
    pub(crate) cert: String,
    pub(crate) key: String,
    der: CertificateDer<'static>,
}

pub(crate) fn certify(name: &str) -> Certified {
    certify_all(&[name])
}

/// One certificate for several names and addresses.
pub(crate) fn certify_all(names: &[&str]) -> Certified {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    Certified { cert: made.cert.pem(), key: made.signing_key.serialize_pem(), der: made.cert.der().clone() }
}

impl Certified {
    /// Writes `FILE.pem` and `FILE.key` beside a formation.
    pub(crate) fn write(&self, formation: &Formation, file: &str) {
        std::fs::write(formation.path(&format!("{file}.pem")), &self.cert).unwrap();
        std::fs::write(formation.path(&format!("{file}.key")), &self.key).unwrap();
    }

    /// A connection of a client that trusts this certificate alone, after its handshake.
    pub(crate) fn connect(
        &self,
        address: SocketAddr,
        name: &str,
        protocols: &[&[u8]],
    ) -> Result<StreamOwned<ClientConnection, TcpStream>, String> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut stream).map_err(|err| err.to_string())?;
        }
        Ok(StreamOwned::new(connection, stream))
    }
}
