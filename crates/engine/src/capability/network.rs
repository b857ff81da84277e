//! Sockets: a guest may connect to the hosts and ports that `outbound` names, and resolve those names alone.
//! Nothing may listen, and nothing may send datagrams, unless the type has `network = "all"`.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use wasmhost_config::{Outbound, normal_host};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::sockets::SocketAddrUse;

use super::near::is_near;
use crate::sandbox::Sandbox;
use crate::services::{Refusal, Services};

/// How many addresses of granted names one instance remembers, and names of one address.
const ADDRESSES_MAX: usize = 1_024;
const NAMES_OF_ADDRESS_MAX: usize = 16;

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
                let known = names.by_address.entry(address).or_default();
                if known.len() < NAMES_OF_ADDRESS_MAX {
                    known.insert(name.to_owned());
                }
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

/// Whether a grant names one host, not all of those below a name.
pub(crate) fn is_outright(grant: &Outbound) -> bool {
    !grant.host.starts_with('*')
}

/// The grant of a type's sockets: the addresses that they may use, and how.
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
        // A socket that isn't used is harmless: the check is asked before it is bound, connected or sent by.
        wasi.allow_tcp(true).allow_udp(true).allow_ip_name_lookup(true);
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
            SocketAddrUse::TcpConnect => match refusal(&self.outbound, &self.names, address) {
                None => true,
                Some(refusal) => {
                    self.refuse(refusal);
                    false
                }
            },
            // Connecting binds to any address and any port first.
            SocketAddrUse::TcpBind if address.ip().is_unspecified() && address.port() == 0 => true,
            _ => {
                self.refuse(Refusal::Network);
                false
            }
        }
    }

    fn refuse(&self, refusal: Refusal) {
        self.services.refusals.refused(&self.process, refusal);
    }
}

/// Why the guest may not connect to an address, if it may not.
fn refusal(outbound: &[Outbound], names: &ResolvedNames, address: SocketAddr) -> Option<Refusal> {
    let ip = address.ip().to_canonical();
    let literal = ip.to_string();
    let names = names.of(ip);
    let sockets = outbound.iter().filter(|grant| grant.scheme.is_none());
    let fitting = sockets.filter(|grant| {
        grant.port == address.port()
            && (names_host(grant, &literal) || names.iter().any(|name| names_host(grant, name)))
    });
    // The line that would grant it.
    let wanted = || match names.first() {
        Some(name) => format!("{name}:{}", address.port()),
        None => address.to_string(),
    };
    if fitting.clone().next().is_none() {
        return Some(Refusal::Outbound(wanted()));
    }
    (!fitting.clone().any(is_outright) && is_near(ip)).then(|| Refusal::Near(wanted()))
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

    #[test]
    fn a_wildcard_does_not_lead_back_to_this_machine() {
        let names = ResolvedNames::default();
        let local = IpAddr::from([127, 0, 0, 1]);
        for name in ["a.example.com", "localhost"] {
            names.remember(name, local);
        }
        let refused =
            |granted: &[Outbound], address: &str| refusal(granted, &names, address.parse().unwrap());
        let star = [grant("*.example.com", 80)];
        assert!(matches!(refused(&star, "127.0.0.1:80"), Some(Refusal::Near(_))));
        assert!(matches!(refused(&star, "[::ffff:127.0.0.1]:80"), Some(Refusal::Near(_))));
        // By the address, or by a name outright.
        for outright in ["127.0.0.1", "localhost", "a.example.com"] {
            assert_eq!(refused(&[star[0].clone(), grant(outright, 80)], "127.0.0.1:80"), None, "{outright}");
        }
        assert!(matches!(refused(&star, "127.0.0.1:81"), Some(Refusal::Outbound(_))));

        names.remember("far.example.com", IpAddr::from([192, 0, 2, 1]));
        assert_eq!(refused(&star, "192.0.2.1:80"), None);
    }
}
