//! A TCP connection, by WASI's own words for it. The formation has to grant its host and port.

use std::io;

use wasmhost_guest::wasi::io::streams::{InputStream, OutputStream, StreamError};
use wasmhost_guest::wasi::sockets::instance_network::instance_network;
use wasmhost_guest::wasi::sockets::ip_name_lookup::resolve_addresses;
use wasmhost_guest::wasi::sockets::network::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress, Network,
};
use wasmhost_guest::wasi::sockets::tcp::TcpSocket;
use wasmhost_guest::wasi::sockets::tcp_create_socket::create_tcp_socket;

/// Bytes that one write may have.
const WRITE_BYTES_MAX: usize = 4096;

/// See the module. Fields are dropped in their order, and streams have to go before their socket.
pub(crate) struct Connection {
    input: InputStream,
    output: OutputStream,
    _socket: TcpSocket,
}

impl Connection {
    /// Connects to the first address of a host that answers.
    pub(crate) fn open(host: &str, port: u16) -> io::Result<Connection> {
        let network = instance_network();
        let addresses = resolve_addresses(&network, host).map_err(error)?;
        let mut failed = ErrorCode::NameUnresolvable;
        loop {
            match addresses.resolve_next_address() {
                Err(ErrorCode::WouldBlock) => addresses.subscribe().block(),
                Ok(Some(address)) => match connect(&network, address, port) {
                    Ok(connection) => return Ok(connection),
                    Err(code) => failed = code,
                },
                Ok(None) => return Err(error(failed)),
                Err(code) => return Err(error(code)),
            }
        }
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        bytes.chunks(WRITE_BYTES_MAX).try_for_each(|piece| {
            self.output.blocking_write_and_flush(piece).map_err(|err| io::Error::other(err.to_string()))
        })
    }

    /// Some bytes, when there are some. None come after the end.
    pub(crate) fn read(&self) -> io::Result<Vec<u8>> {
        match self.input.blocking_read(64 << 10) {
            Err(StreamError::Closed) => Ok(vec![]),
            read => read.map_err(|err| io::Error::other(err.to_string())),
        }
    }

    /// Whether it is open, and nothing has come that nobody asked for.
    pub(crate) fn is_quiet(&self) -> bool {
        matches!(self.input.read(1), Ok(bytes) if bytes.is_empty())
    }
}

fn connect(network: &Network, address: IpAddress, port: u16) -> Result<Connection, ErrorCode> {
    let (family, address) = match address {
        IpAddress::Ipv4(address) => {
            (IpAddressFamily::Ipv4, IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address }))
        }
        IpAddress::Ipv6(address) => (
            IpAddressFamily::Ipv6,
            IpSocketAddress::Ipv6(Ipv6SocketAddress { port, address, flow_info: 0, scope_id: 0 }),
        ),
    };
    let socket = create_tcp_socket(family)?;
    socket.start_connect(network, address)?;
    loop {
        match socket.finish_connect() {
            Err(ErrorCode::WouldBlock) => socket.subscribe().block(),
            connected => {
                let (input, output) = connected?;
                return Ok(Connection { input, output, _socket: socket });
            }
        }
    }
}

fn error(code: ErrorCode) -> io::Error {
    io::Error::other(code.name())
}
