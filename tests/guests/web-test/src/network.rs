//! The ways out of the sandbox, in WASI's own words.

use std::io::Read;

use wasmhost_guest::http::Response;
use wasmhost_guest::wasi::http::outgoing_handler;
use wasmhost_guest::wasi::http::types::{Fields, Method, OutgoingBody, OutgoingRequest, Scheme};
use wasmhost_guest::wasi::sockets::instance_network::instance_network;
use wasmhost_guest::wasi::sockets::ip_name_lookup::resolve_addresses;
use wasmhost_guest::wasi::sockets::network::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress, Network,
};
use wasmhost_guest::wasi::sockets::tcp_create_socket::create_tcp_socket;

pub(crate) fn send(method: &str, url: &str, body: Option<String>) -> Result<Response, String> {
    let method = match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        other => Method::Other(other.to_string()),
    };
    let request = request(method, url)?;
    let sent = match &body {
        Some(_) => Some(request.body().map_err(|()| "no body")?),
        None => None,
    };
    let future = outgoing_handler::handle(request, None).map_err(|error| format!("{error:?}"))?;
    if let (Some(sent), Some(body)) = (sent, body) {
        let stream = sent.write().map_err(|()| "no stream")?;
        if !body.is_empty() {
            stream.blocking_write_and_flush(body.as_bytes()).map_err(|error| format!("{error:?}"))?;
        }
        drop(stream);
        OutgoingBody::finish(sent, None).map_err(|error| format!("{error:?}"))?;
    }
    future.subscribe().block();
    let response = future.get().ok_or("no answer")?.map_err(|()| "taken already")?;
    let response = response.map_err(|error| format!("{error:?}"))?;
    let mut text = format!("{}\n", response.status()).into_bytes();
    let body = response.consume().map_err(|()| "no body")?;
    let mut stream = body.stream().map_err(|()| "no stream")?;
    stream.read_to_end(&mut text).map_err(|error| error.to_string())?;
    Ok(Response::text(text))
}

pub(crate) fn upload_and_trap(url: &str) -> Result<Response, String> {
    let request = request(Method::Post, url)?;
    let body = request.body().map_err(|()| "no body")?;
    let stream = body.write().map_err(|()| "no stream")?;
    let future = outgoing_handler::handle(request, None).map_err(|error| format!("{error:?}"))?;
    stream.blocking_write_and_flush(b"some").map_err(|error| format!("{error:?}"))?;
    // The server answers when it has some of it.
    future.subscribe().block();
    panic!("asked to trap");
}

fn request(method: Method, url: &str) -> Result<OutgoingRequest, String> {
    let (scheme, rest) = url.split_once("://").ok_or("not a URL")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let request = OutgoingRequest::new(Fields::new());
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    request
        .set_method(&method)
        .and_then(|()| request.set_scheme(Some(&scheme)))
        .and_then(|()| request.set_authority(Some(authority)))
        .and_then(|()| request.set_path_with_query(Some(if path.is_empty() { "/" } else { path })))
        .map_err(|()| "not a URL")?;
    Ok(request)
}

pub(crate) fn connect(address: &str) -> Result<Response, String> {
    let (host, port) = address.rsplit_once(':').ok_or("not HOST:PORT")?;
    let port = port.parse().map_err(|_| "not a port")?;
    let network = instance_network();
    let error = |error: ErrorCode| error.name().to_string();
    let address = resolve(&network, host).map_err(error)?;
    open(&network, address, port).map_err(error)?;
    Ok(Response::text("connected\n"))
}

/// An address as it is, or the first one of a name.
fn resolve(network: &Network, host: &str) -> Result<IpAddress, ErrorCode> {
    let addresses = resolve_addresses(network, host.trim_matches(['[', ']']))?;
    loop {
        match addresses.resolve_next_address() {
            Err(ErrorCode::WouldBlock) => addresses.subscribe().block(),
            Ok(None) => return Err(ErrorCode::NameUnresolvable),
            Ok(Some(address)) => return Ok(address),
            Err(error) => return Err(error),
        }
    }
}

fn open(network: &Network, address: IpAddress, port: u16) -> Result<(), ErrorCode> {
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
            // Children of the socket: to be dropped before it.
            Ok((input, output)) => {
                drop((input, output));
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
}
