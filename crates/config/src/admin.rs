//! `[admin]`: where the admin API is served to those who show a token, beside its socket in the state directory.

use crate::http::{CertificateFiles, Listen};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Where the admin API is served, and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// At least one. A place that isn't on this machine has `tls`.
    pub listen: Vec<Listen>,
    /// The file with the token, by absolute path. Whether it has a good one is for whoever reads it to find out.
    pub token: PathBuf,
    /// The certificates, if there are any.
    pub tls: Option<AdminTls>,
}

/// Whose certificates the admin API is served by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminTls {
    /// `[admin.tls]`: at every place.
    Own(Vec<CertificateFiles>),
    /// Those of `[http.tls]`: at the places that aren't on this machine.
    OfHttp(Vec<CertificateFiles>),
}

impl Admin {
    /// Whether TLS is spoken at this place.
    pub fn is_tls(&self, place: &Listen) -> bool {
        match &self.tls {
            None => false,
            Some(AdminTls::Own(_)) => true,
            Some(AdminTls::OfHttp(_)) => !is_on_this_machine(place),
        }
    }

    /// The certificates; none where nothing but this machine reaches it.
    pub fn certificates(&self) -> Option<&[CertificateFiles]> {
        match self.tls.as_ref()? {
            AdminTls::Own(files) | AdminTls::OfHttp(files) => Some(files),
        }
    }
}

/// Whether the text alone says that no other machine reaches this place.
pub(crate) fn is_on_this_machine(place: &Listen) -> bool {
    match place {
        Listen::Unix(_) => true,
        Listen::HandedOver(_) => false,
        Listen::Tcp(address) => match address.parse::<SocketAddr>() {
            Ok(address) => is_loopback(address.ip()),
            Err(_) => {
                address.rsplit_once(':').is_some_and(|(host, _)| host.eq_ignore_ascii_case("localhost"))
            }
        },
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_addresses_and_unix_sockets_are_on_this_machine() {
        for near in
            ["127.0.0.1:1", "127.9.9.9:0", "[::1]:1", "[::ffff:127.0.0.1]:1", "Localhost:1", "unix:/a"]
        {
            assert!(is_on_this_machine(&near.parse().unwrap()), "{near}");
        }
        for far in
            ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "localhost.example:1", "admin.example:1", "fd:admin"]
        {
            assert!(!is_on_this_machine(&far.parse().unwrap()), "{far}");
        }
    }

    #[test]
    fn certificates_of_http_are_for_other_machines() {
        let files = vec![CertificateFiles { cert: "/c".into(), key: "/k".into() }];
        let admin = |tls| Admin { listen: vec![], token: "/t".into(), tls };
        let [near, far] = ["127.0.0.1:1", "0.0.0.0:1"].map(|place| place.parse::<Listen>().unwrap());
        let of_http = admin(Some(AdminTls::OfHttp(files.clone())));
        assert!(!of_http.is_tls(&near) && of_http.is_tls(&far));
        let own = admin(Some(AdminTls::Own(files)));
        assert!(own.is_tls(&near) && own.is_tls(&far));
        let none = admin(None);
        assert!(!none.is_tls(&near) && none.certificates().is_none());
    }
}
