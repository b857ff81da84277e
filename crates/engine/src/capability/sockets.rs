//! Sockets: the library's interfaces of WASI 0.2 and 0.3, with a bound for how many there are. Anybody may make one;
//! [`network`](super::network) says where it may connect.

use wasmtime::AsContextMut;
use wasmtime::component::{Access, Linker, Resource, ResourceType, StreamReader};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily};
use wasmtime_wasi::p2::bindings::sockets::tcp::{HostTcpSocket, TcpSocket};
use wasmtime_wasi::p2::bindings::sockets::tcp_create_socket::Host as _;
use wasmtime_wasi::p2::bindings::sockets::udp::{HostUdpSocket, UdpSocket};
use wasmtime_wasi::p2::bindings::sockets::udp_create_socket::Host as _;
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, SocketResult};
use wasmtime_wasi::p3::bindings::sockets::types as concurrent;
use wasmtime_wasi::p3::bindings::sockets::types::HostTcpSocketWithStore;
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsView};

use super::held::hold_until;
use super::replace::{Replacing, interface, returned};
use super::state::State;
use crate::sandbox::descriptors::Permit;
use crate::sandbox::holdings::Holding;

impl State {
    fn keep_socket(&mut self, handle: u32, descriptor: Permit) {
        self.holdings.keep(handle, Holding { descriptor: Some(descriptor), ..Holding::default() });
    }
}

/// `wasi:sockets` of WASI 0.2.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut replacing = Replacing::new(linker);
    const TCP: &str = "create-tcp-socket";
    replacing
        .item(interface::TCP_CREATE, TCP)?
        .func_wrap(TCP, |mut store, (family,): (IpAddressFamily,)| {
            returned(create_tcp(store.data_mut(), family))
        })?;
    const ACCEPT: &str = "[method]tcp-socket.accept";
    replacing
        .item(interface::TCP, ACCEPT)?
        .func_wrap(ACCEPT, |mut store, (listener,): (Resource<TcpSocket>,)| {
            returned(accept(store.data_mut(), listener))
        })?;
    const TCP_SOCKET: &str = "tcp-socket";
    replacing.item(interface::TCP, TCP_SOCKET)?.resource(
        TCP_SOCKET,
        ResourceType::host::<TcpSocket>(),
        |mut store, handle| {
            store.data_mut().holdings.give_back(handle);
            HostTcpSocket::drop(&mut store.data_mut().sockets(), Resource::new_own(handle))
        },
    )?;
    const UDP: &str = "create-udp-socket";
    replacing.item(interface::UDP_CREATE, UDP)?.func_wrap_async(
        UDP,
        |mut store, (family,): (IpAddressFamily,)| {
            Box::new(async move { returned(create_udp(store.data_mut(), family).await) })
        },
    )?;
    const UDP_SOCKET: &str = "udp-socket";
    replacing.item(interface::UDP, UDP_SOCKET)?.resource(
        UDP_SOCKET,
        ResourceType::host::<UdpSocket>(),
        |mut store, handle| {
            store.data_mut().holdings.give_back(handle);
            HostUdpSocket::drop(&mut store.data_mut().sockets(), Resource::new_own(handle))
        },
    )
}

fn take(state: &State) -> SocketResult<Permit> {
    state.holdings.descriptors.take().ok_or_else(|| ErrorCode::NewSocketLimit.into())
}

fn create_tcp(state: &mut State, family: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
    let descriptor = take(state)?;
    let socket = state.sockets().create_tcp_socket(family)?;
    state.keep_socket(socket.rep(), descriptor);
    Ok(socket)
}

async fn create_udp(state: &mut State, family: IpAddressFamily) -> SocketResult<Resource<UdpSocket>> {
    let descriptor = take(state)?;
    let socket = state.sockets().create_udp_socket(family).await?;
    state.keep_socket(socket.rep(), descriptor);
    Ok(socket)
}

type Accepted = (Resource<TcpSocket>, Resource<DynInputStream>, Resource<DynOutputStream>);

fn accept(state: &mut State, listener: Resource<TcpSocket>) -> SocketResult<Accepted> {
    let descriptor = take(state)?;
    let accepted = HostTcpSocket::accept(&mut state.sockets(), listener)?;
    state.keep_socket(accepted.0.rep(), descriptor);
    Ok(accepted)
}

/// `wasi:sockets` of WASI 0.3. A stream holds its connection open, also when the guest has dropped the socket.
pub(crate) fn link_async(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut replacing = Replacing::new(linker);
    link_async_creating(&mut replacing)?;
    const SEND: &str = "[method]tcp-socket.send";
    replacing.item(interface::ASYNC_SOCKETS, SEND)?.func_wrap(
        SEND,
        |mut store, (socket, data): (Resource<concurrent::TcpSocket>, StreamReader<u8>)| {
            let descriptor = store.data().holdings.descriptor_of(socket.rep());
            let access = Access::<State, WasiSockets>::new(store.as_context_mut(), State::sockets);
            let ended = <WasiSockets as HostTcpSocketWithStore<State>>::send(access, socket, data)?;
            Ok((hold_until(&mut store, ended, descriptor)?,))
        },
    )?;
    const RECEIVE: &str = "[method]tcp-socket.receive";
    replacing.item(interface::ASYNC_SOCKETS, RECEIVE)?.func_wrap(
        RECEIVE,
        |mut store, (socket,): (Resource<concurrent::TcpSocket>,)| {
            let descriptor = store.data().holdings.descriptor_of(socket.rep());
            let access = Access::<State, WasiSockets>::new(store.as_context_mut(), State::sockets);
            let (data, ended) = <WasiSockets as HostTcpSocketWithStore<State>>::receive(access, socket)?;
            Ok(((data, hold_until(&mut store, ended, descriptor)?),))
        },
    )
}

fn link_async_creating(replacing: &mut Replacing<'_>) -> wasmtime::Result<()> {
    const TCP: &str = "[static]tcp-socket.create";
    replacing.item(interface::ASYNC_SOCKETS, TCP)?.func_wrap(
        TCP,
        |mut store, (family,): (concurrent::IpAddressFamily,)| {
            let state = store.data_mut();
            let Some(descriptor) = state.holdings.descriptors.take() else { return Ok((Err(too_many()),)) };
            let socket = returned(concurrent::HostTcpSocket::create(&mut state.sockets(), family))?;
            if let (Ok(socket),) = &socket {
                state.keep_socket(socket.rep(), descriptor);
            }
            Ok(socket)
        },
    )?;
    const TCP_SOCKET: &str = "tcp-socket";
    replacing.item(interface::ASYNC_SOCKETS, TCP_SOCKET)?.resource(
        TCP_SOCKET,
        ResourceType::host::<concurrent::TcpSocket>(),
        |mut store, handle| {
            store.data_mut().holdings.give_back(handle);
            concurrent::HostTcpSocket::drop(&mut store.data_mut().sockets(), Resource::new_own(handle))
        },
    )?;
    const UDP: &str = "[static]udp-socket.create";
    replacing.item(interface::ASYNC_SOCKETS, UDP)?.func_wrap_async(
        UDP,
        |mut store, (family,): (concurrent::IpAddressFamily,)| {
            Box::new(async move {
                let state = store.data_mut();
                let Some(descriptor) = state.holdings.descriptors.take() else {
                    return Ok((Err(too_many()),));
                };
                let created = concurrent::HostUdpSocket::create(&mut state.sockets(), family).await;
                let socket = returned(created)?;
                if let (Ok(socket),) = &socket {
                    state.keep_socket(socket.rep(), descriptor);
                }
                Ok(socket)
            })
        },
    )?;
    const UDP_SOCKET: &str = "udp-socket";
    replacing.item(interface::ASYNC_SOCKETS, UDP_SOCKET)?.resource(
        UDP_SOCKET,
        ResourceType::host::<concurrent::UdpSocket>(),
        |mut store, handle| {
            store.data_mut().holdings.give_back(handle);
            concurrent::HostUdpSocket::drop(&mut store.data_mut().sockets(), Resource::new_own(handle))
        },
    )
}

/// WASI 0.3 has no error of its own for it.
fn too_many() -> concurrent::ErrorCode {
    concurrent::ErrorCode::Other(Some("too many open sockets".to_owned()))
}
