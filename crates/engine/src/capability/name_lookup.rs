//! Name look-up: a guest may resolve the names that `outbound` grants.

use std::net::IpAddr;

use wasmhost_config::shown::{NAME_BYTES_MAX, one_line};
use wasmtime::component::{Accessor, HasData, Linker, Resource};
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::{
    self, Host, HostResolveAddressStream, ResolveAddressStream,
};
use wasmtime_wasi::p2::bindings::sockets::network::{self, ErrorCode, IpAddress, Network};
use wasmtime_wasi::p2::{DynPollable, SocketError};
use wasmtime_wasi::p3::bindings::sockets::{ip_name_lookup as async_lookup, types as async_types};
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsView};

use super::network::names_host;
use super::state::State;
use crate::sandbox::holdings::Holding;
use crate::sandbox::lookups::LookingUp;
use crate::services::Refusal;

/// Name look-up that knows the grants, in the place of the library's, which allows all names or none.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    ip_name_lookup::add_to_linker::<State, GrantedNames>(linker, |state| Lookup { state })?;
    linker.allow_shadowing(false);
    Ok(())
}

/// The same for WASI 0.3.
pub(crate) fn link_async(linker: &mut Linker<State>) -> wasmtime::Result<()> {
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
        let may = name.len() <= NAME_BYTES_MAX && self.may_resolve(name);
        if !may {
            let refusal = Refusal::Lookup(one_line(name, NAME_BYTES_MAX).into_owned());
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
        // An address needs no look-up.
        let lookup = match name.parse::<IpAddr>() {
            Ok(_) => None,
            Err(_) => Some(self.state.holdings.lookups.begin().ok_or(ErrorCode::TemporaryResolverFailure)?),
        };
        let stream = Host::resolve_addresses(&mut self.state.sockets(), network, name.clone())?;
        self.state.holdings.keep(stream.rep(), Holding { lookup, ..Holding::default() });
        self.state.names.ask(stream.rep(), name);
        Ok(stream)
    }
}

impl HostResolveAddressStream for Lookup<'_> {
    fn resolve_next_address(
        &mut self,
        stream: Resource<ResolveAddressStream>,
    ) -> Result<Option<IpAddress>, SocketError> {
        let handle = stream.rep();
        let next = HostResolveAddressStream::resolve_next_address(&mut self.state.sockets(), stream);
        let is_under_way =
            next.as_ref().is_err_and(|error| matches!(error.downcast_ref(), Some(ErrorCode::WouldBlock)));
        if !is_under_way {
            self.state.holdings.finish_lookup(handle);
        }
        let next = next?;
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
        self.state.names.forget_asked(stream.rep());
        self.state.holdings.give_back(stream.rep());
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
        let lookup = match name.parse::<IpAddr>() {
            Ok(_) => None,
            Err(_) => match store.with(|mut access| access.get().state.holdings.lookups.begin()) {
                None => return Ok(Err(async_lookup::ErrorCode::TemporaryResolverFailure)),
                lookup => lookup,
            },
        };
        let sockets = store.with_getter::<WasiSockets>(|state| state.sockets());
        let found =
            <WasiSockets as async_lookup::HostWithStore<State>>::resolve_addresses(&sockets, name.clone());
        let found = found.await?;
        lookup.into_iter().for_each(LookingUp::finish);
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
