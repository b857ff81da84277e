//! `[http]`: where the ingress listens, and what it lets a client do.

use crate::address::{AddressError, check_listen};
use crate::spelling::quoted;
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The ingress that all http types share.
#[derive(Debug, Clone, PartialEq)]
pub struct Http {
    /// Where plain HTTP is served. Empty only where there is `tls`.
    pub listen: Vec<Listen>,
    /// Mode of the unix sockets that are made.
    pub socket_mode: u32,
    /// `[http.tls]`
    pub tls: Option<Tls>,
    /// How long a TLS handshake, or a request's head from its first byte, may take.
    pub header_timeout: Duration,
    /// How long a connection may stay open without a request.
    pub idle_timeout: Duration,
    /// How long a client may leave a body alone that it sends or receives.
    pub body_timeout: Duration,
    /// Bytes of a request's head.
    pub header_bytes_max: u32,
    /// Connections that are open at once, all listeners together.
    pub connections_max: u32,
    /// Those of them that come from one address. Trusted proxies and unix sockets are not counted.
    pub connections_per_address_max: u32,
    /// Requests that one HTTP/2 connection may have under way.
    pub streams_max: u32,
    /// Peers whose `X-Forwarded-*` headers are believed.
    pub trusted_proxies: TrustedProxies,
    /// How each request is logged.
    pub access_log: AccessLog,
}

/// `[health]`: where probes and metrics are answered, apart from the ingress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// At least one.
    pub listen: Vec<Listen>,
}

/// `[http.tls]`: where HTTPS is served, and by which certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// At least one.
    pub listen: Vec<Listen>,
    /// At least one; the first is for clients that name no server, or one that none of them is for.
    pub certificates: Vec<CertificateFiles>,
}

/// A certificate and its key: PEM files by absolute path. Whether they fit is for whoever loads them to find out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and what leads from it to its root.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// One place to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// Host and port; a host name is resolved when the listener opens. Port 0 takes any free one.
    Tcp(String),
    /// A unix socket, by absolute path.
    Unix(PathBuf),
    /// Sockets that whoever started the host opened for it: all of them, or those of this name.
    HandedOver(Option<String>),
}

/// `trusted_proxies`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustedProxies {
    /// By address.
    pub networks: Vec<IpNet>,
    /// Every client that comes by a unix socket.
    pub unix: bool,
}

/// `access_log`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessLog {
    /// Not at all.
    #[default]
    Off,
    /// One line each, for people.
    Text,
    /// One JSON object each.
    Json,
}

pub(crate) const LISTEN_DEFAULT: &str = "127.0.0.1:8080";

impl Default for Http {
    fn default() -> Self {
        Http {
            listen: vec![Listen::Tcp(LISTEN_DEFAULT.to_owned())],
            socket_mode: 0o660,
            tls: None,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(30),
            header_bytes_max: 64 << 10,
            connections_max: 10_000,
            connections_per_address_max: 5_000,
            streams_max: 100,
            trusted_proxies: TrustedProxies::default(),
            access_log: AccessLog::Off,
        }
    }
}

/// The path of a unix socket stays as it is written: whoever reads a file makes it absolute.
///
/// # Errors
///
/// A text that is neither `HOST:PORT`, `unix:PATH`, `systemd` nor `fd:NAME`.
impl FromStr for Listen {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text == "systemd" {
            return Ok(Listen::HandedOver(None));
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.is_empty() || path.contains('\0') {
                true => Err(AddressError::new(format!("found {}, expected \"unix:PATH\"", quoted(text)))),
                false => Ok(Listen::Unix(path.into())),
            };
        }
        match text.strip_prefix("fd:") {
            // The names that systemd takes for FileDescriptorName.
            Some(name)
                if (1..=255).contains(&name.len())
                    && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':') =>
            {
                Ok(Listen::HandedOver(Some(name.to_owned())))
            }
            Some(_) => Err(AddressError::new(format!(
                "found {}, expected \"fd:NAME\", with the FileDescriptorName of a socket unit",
                quoted(text)
            ))),
            None => check_listen(text).map(|()| Listen::Tcp(text.to_owned())),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => f.write_str(address),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
            Listen::HandedOver(None) => f.write_str("systemd"),
            Listen::HandedOver(Some(name)) => write!(f, "fd:{name}"),
        }
    }
}

impl TrustedProxies {
    /// Whether this peer is one; `None` is one that came by a unix socket.
    pub fn contains(&self, peer: Option<IpAddr>) -> bool {
        match peer {
            Some(address) => self.networks.iter().any(|network| network.contains(&address)),
            None => self.unix,
        }
    }
}

/// One entry of `trusted_proxies`, where it isn't `unix`: a network or a single address.
pub(crate) fn parse_network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().map(IpNet::from).ok())
}

/// A network as it is written: a single address without its length.
pub(crate) fn format_network(network: &IpNet) -> String {
    match network.prefix_len() == network.max_prefix_len() {
        true => network.addr().to_string(),
        false => network.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_to_listen_reads_back_as_it_is_shown() {
        for text in ["127.0.0.1:8080", "[::]:0", "unix:/run/app.sock", "unix:app.sock", "systemd", "fd:web"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        for text in ["unix:", "fd:", "fd:a b", "fd:a:b", "systemd:", "8080", "fd"] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }

    #[test]
    fn proxies_are_trusted_by_network_by_address_or_by_socket() {
        let networks = ["10.0.0.0/8", "192.0.2.7", "fd00::/8"].map(|text| parse_network(text).unwrap());
        let trusted = TrustedProxies { networks: networks.to_vec(), unix: false };
        let contains = |text: &str| trusted.contains(Some(text.parse().unwrap()));
        assert!(contains("10.1.2.3") && contains("192.0.2.7") && contains("fd00::1"));
        assert!(!contains("11.0.0.0") && !contains("192.0.2.8") && !contains("::1"));
        assert!(!trusted.contains(None) && TrustedProxies { unix: true, ..trusted }.contains(None));
        assert_eq!(networks.map(|network| format_network(&network)), ["10.0.0.0/8", "192.0.2.7", "fd00::/8"]);
    }
}
