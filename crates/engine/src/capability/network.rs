//! Sockets: a guest may connect to the hosts and ports that `outbound` names, and resolve those names alone.
//! Nothing may listen, and nothing may send datagrams, unless the type has `network = "all"`.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use wasmhost_config::{Outbound, normal_host};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::sockets::SocketAddrUse;

use crate::sandbox::Sandbox;
use crate::services::{Refusal, Services};

/// How many addresses of granted names one instance remembers.
const ADDRESSES_MAX: usize = 1_024;

/// The addresses that granted names resolved to: what ties an address that the guest connects to back to its grant.
#[derive(Clone, Default)]
pub(crate) struct ResolvedNames {
    shared: Arc<Mutex<Names>>,
}

#[derive(Default)]
struct Names {
    /// Look-ups under way, by the guest's handle.
    asked: HashMap<u32, String>,
    by_address: HashMap<IpAddr, HashSet<String>>,
}

impl ResolvedNames {
    fn with<R>(&self, act: impl FnOnce(&mut Names) -> R) -> R {
        act(&mut self.shared.lock().unwrap_or_else(|poison| poison.into_inner()))
    }

    /// Remembers which name a look-up under way is for.
    pub(super) fn ask(&self, handle: u32, name: String) {
        self.with(|names| names.asked.insert(handle, name));
    }

    /// The look-up is over.
    pub(super) fn forget_asked(&self, handle: u32) {
        self.with(|names| names.asked.remove(&handle));
    }

    pub(super) fn remember_asked(&self, handle: u32, address: IpAddr) {
        if let Some(name) = self.with(|names| names.asked.get(&handle).cloned()) {
            self.remember(&name, address);
        }
    }

    pub(super) fn remember(&self, name: &str, address: IpAddr) {
        self.with(|names| {
            if names.by_address.len() < ADDRESSES_MAX || names.by_address.contains_key(&address) {
                names.by_address.entry(address).or_default().insert(name.to_owned());
            }
        });
    }

    fn of(&self, address: IpAddr) -> Vec<String> {
        self.with(|names| {
            names.by_address.get(&address).map(|found| found.iter().cloned().collect()).unwrap_or_default()
        })
    }
}

/// Whether a grant names this host: the same name or address, or `*.` and an end of it. A dot at the host's end and the
/// brackets of an IPv6 address make no difference.
pub(crate) fn names_host(grant: &Outbound, host: &str) -> bool {
    let host = normal_host(host);
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
    match grant.host.strip_prefix('*') {
        Some(end) => host.len() > end.len() && host.ends_with(end),
        None => grant.host == host,
    }
}

/// What a type's sockets may do.
pub(crate) struct NetworkGrant {
    process: Arc<str>,
    all: bool,
    outbound: Vec<Outbound>,
    services: Services,
    names: ResolvedNames,
}

impl NetworkGrant {
    pub(crate) fn new(sandbox: &Sandbox, services: &Services, names: &ResolvedNames) -> Self {
        NetworkGrant {
            process: sandbox.process.clone(),
            all: sandbox.grants.network_all,
            outbound: sandbox.grants.outbound.clone(),
            services: services.clone(),
            names: names.clone(),
        }
    }

    /// Puts the grant where the library asks for it.
    pub(crate) fn apply(self, wasi: &mut WasiCtxBuilder) {
        wasi.allow_tcp(true).allow_udp(self.all).allow_ip_name_lookup(true);
        wasi.socket_addr_check(move |address, how| {
            let allowed = self.allows(address, how);
            Box::pin(async move { allowed })
        });
    }

    fn allows(&self, address: SocketAddr, how: SocketAddrUse) -> bool {
        if self.all {
            return true;
        }
        match how {
            SocketAddrUse::TcpConnect if self.may_connect(address) => true,
            SocketAddrUse::TcpConnect => {
                self.refuse(Refusal::Outbound(self.wanted(address)));
                false
            }
            // Connecting binds to any address and any port first.
            SocketAddrUse::TcpBind if address.ip().is_unspecified() && address.port() == 0 => true,
            _ => {
                self.refuse(Refusal::Network);
                false
            }
        }
    }

    fn may_connect(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let literal = ip.to_string();
        let names = self.names.of(ip);
        let sockets = self.outbound.iter().filter(|grant| grant.scheme.is_none());
        sockets
            .filter(|grant| grant.port == address.port())
            .any(|grant| names_host(grant, &literal) || names.iter().any(|name| names_host(grant, name)))
    }

    /// The line that would have granted it.
    fn wanted(&self, address: SocketAddr) -> String {
        match self.names.of(address.ip().to_canonical()).first() {
            Some(name) => format!("{name}:{}", address.port()),
            None => address.to_string(),
        }
    }

    fn refuse(&self, refusal: Refusal) {
        self.services.refusals.refused(&self.process, refusal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(host: &str, port: u16) -> Outbound {
        Outbound { scheme: None, host: host.into(), port }
    }

    #[test]
    fn a_star_grants_what_is_below_and_not_the_name_itself() {
        let star = grant("*.example.com", 443);
        assert!(names_host(&star, "api.example.com"));
        assert!(names_host(&star, "a.b.Example.com"));
        assert!(!names_host(&star, "example.com"));
        assert!(!names_host(&star, "evilexample.com"));
    }

    #[test]
    fn a_host_is_the_same_in_each_of_its_forms() {
        let named = grant("db.internal", 5432);
        assert!(names_host(&named, "db.internal.") && names_host(&named, "DB.Internal."));
        assert!(!names_host(&named, "db.internal..") && !names_host(&named, "db.internal.example"));
        let star = grant("*.example.com", 443);
        assert!(names_host(&star, "api.example.com."));
        assert!(!names_host(&star, "example.com.") && !names_host(&star, ".example.com.evil."));
        assert!(names_host(&grant("::1", 443), "[0:0::1]") && names_host(&grant("10.0.0.1", 80), "10.0.0.1"));
    }

    #[test]
    fn an_address_counts_under_the_name_it_was_resolved_from() {
        let names = ResolvedNames::default();
        names.ask(7, "db.internal".into());
        names.remember_asked(7, IpAddr::from([10, 0, 0, 1]));
        names.remember_asked(8, IpAddr::from([10, 0, 0, 2]));
        assert_eq!(names.of(IpAddr::from([10, 0, 0, 1])), ["db.internal"]);
        assert!(names.of(IpAddr::from([10, 0, 0, 2])).is_empty());
    }
}
