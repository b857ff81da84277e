//! Sockets: a guest may connect to the hosts and ports that `outbound` names, and resolve those names alone.
//! Nothing may listen, and nothing may send datagrams, unless the type has `network = "all"`.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use wasmhost_config::Outbound;
use wasmtime::component::{Accessor, HasData, Linker, Resource};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::{
    self, Host, HostResolveAddressStream, ResolveAddressStream,
};
use wasmtime_wasi::p2::bindings::sockets::network::{self, ErrorCode, IpAddress, Network};
use wasmtime_wasi::p2::{DynPollable, SocketError};
use wasmtime_wasi::p3::bindings::sockets::{ip_name_lookup as async_lookup, types as async_types};
use wasmtime_wasi::sockets::{SocketAddrUse, WasiSockets, WasiSocketsView};

use crate::services::{Refusal, Services};
use crate::state::{Sandbox, State};

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

    fn remember_asked(&self, handle: u32, address: IpAddr) {
        if let Some(name) = self.with(|names| names.asked.get(&handle).cloned()) {
            self.remember(&name, address);
        }
    }

    fn remember(&self, name: &str, address: IpAddr) {
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

/// Whether a grant names this host: the same name or address, or `*.` and an end of it.
pub(crate) fn names_host(grant: &Outbound, host: &str) -> bool {
    match grant.host.strip_prefix('*') {
        Some(end) => host.len() > end.len() && host.to_ascii_lowercase().ends_with(end),
        None => grant.host.eq_ignore_ascii_case(host),
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

/// Name look-up that knows the grants, in the place of the library's, which allows all names or none.
pub(crate) fn link_name_lookup(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    ip_name_lookup::add_to_linker::<State, GrantedNames>(linker, |state| Lookup { state })?;
    linker.allow_shadowing(false);
    Ok(())
}

/// The same for WASI 0.3.
pub(crate) fn link_async_name_lookup(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    async_lookup::add_to_linker::<State, GrantedNames>(linker, |state| Lookup { state })?;
    linker.allow_shadowing(false);
    Ok(())
}

struct GrantedNames;

impl HasData for GrantedNames {
    type Data<'a> = Lookup<'a>;
}

struct Lookup<'a> {
    state: &'a mut State,
}

impl Lookup<'_> {
    fn may_resolve(&self, name: &str) -> bool {
        let grants = &self.state.sandbox.grants;
        grants.network_all
            || name.parse::<IpAddr>().is_ok()
            || grants.outbound.iter().any(|grant| grant.scheme.is_none() && names_host(grant, name))
    }

    fn may_resolve_or_say(&self, name: &str) -> bool {
        let may = self.may_resolve(name);
        if !may {
            let refusal = Refusal::Lookup(name.to_owned());
            self.state.services.refusals.refused(&self.state.sandbox.process, refusal);
        }
        may
    }
}

/// The look-up interface turns its errors into the guest's by this one.
impl network::Host for Lookup<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn network_error_code(
        &mut self,
        error: Resource<wasmtime_wasi::p2::bindings::io::error::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        network::Host::network_error_code(&mut self.state.sockets(), error)
    }
}

impl network::HostNetwork for Lookup<'_> {
    fn drop(&mut self, network: Resource<Network>) -> wasmtime::Result<()> {
        network::HostNetwork::drop(&mut self.state.sockets(), network)
    }
}

impl Host for Lookup<'_> {
    fn resolve_addresses(
        &mut self,
        network: Resource<Network>,
        name: String,
    ) -> Result<Resource<ResolveAddressStream>, SocketError> {
        if !self.may_resolve_or_say(&name) {
            return Err(ErrorCode::PermanentResolverFailure.into());
        }
        let stream = Host::resolve_addresses(&mut self.state.sockets(), network, name.clone())?;
        self.state.names.with(|names| names.asked.insert(stream.rep(), name));
        Ok(stream)
    }
}

impl HostResolveAddressStream for Lookup<'_> {
    fn resolve_next_address(
        &mut self,
        stream: Resource<ResolveAddressStream>,
    ) -> Result<Option<IpAddress>, SocketError> {
        let handle = stream.rep();
        let next = HostResolveAddressStream::resolve_next_address(&mut self.state.sockets(), stream)?;
        if let Some(address) = next {
            self.state.names.remember_asked(handle, to_ip(address));
        }
        Ok(next)
    }

    fn subscribe(
        &mut self,
        stream: Resource<ResolveAddressStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        HostResolveAddressStream::subscribe(&mut self.state.sockets(), stream)
    }

    fn drop(&mut self, stream: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        self.state.names.with(|names| names.asked.remove(&stream.rep()));
        HostResolveAddressStream::drop(&mut self.state.sockets(), stream)
    }
}

impl async_lookup::Host for Lookup<'_> {}

impl async_lookup::HostWithStore<State> for GrantedNames {
    async fn resolve_addresses(
        store: &Accessor<State, Self>,
        name: String,
    ) -> wasmtime::Result<Result<Vec<async_types::IpAddress>, async_lookup::ErrorCode>> {
        let granted = store.with(|mut access| access.get().may_resolve_or_say(&name));
        if !granted {
            return Ok(Err(async_lookup::ErrorCode::PermanentResolverFailure));
        }
        let sockets = store.with_getter::<WasiSockets>(|state| state.sockets());
        let found =
            <WasiSockets as async_lookup::HostWithStore<State>>::resolve_addresses(&sockets, name.clone());
        let found = found.await?;
        if let Ok(addresses) = &found {
            let names = store.with(|mut access| access.get().state.names.clone());
            addresses.iter().for_each(|address| names.remember(&name, IpAddr::from(*address).to_canonical()));
        }
        Ok(found)
    }
}

fn to_ip(address: IpAddress) -> IpAddr {
    match address {
        IpAddress::Ipv4((a, b, c, d)) => IpAddr::from([a, b, c, d]),
        IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => IpAddr::from([a, b, c, d, e, f, g, h]).to_canonical(),
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
    fn an_address_counts_under_the_name_it_was_resolved_from() {
        let names = ResolvedNames::default();
        names.with(|names| names.asked.insert(7, "db.internal".into()));
        names.remember_asked(7, IpAddr::from([10, 0, 0, 1]));
        names.remember_asked(8, IpAddr::from([10, 0, 0, 2]));
        assert_eq!(names.of(IpAddr::from([10, 0, 0, 1])), ["db.internal"]);
        assert!(names.of(IpAddr::from([10, 0, 0, 2])).is_empty());
    }
}
