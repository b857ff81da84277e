//! `wasi:sockets`, with `--network` but for the cases of [`DENIED`], on the loopback addresses.

use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::io::poll::{Pollable, poll};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};
use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress,
};
use wasip2::sockets::tcp::{ShutdownType, TcpSocket};
use wasip2::sockets::tcp_create_socket::create_tcp_socket;
use wasip2::sockets::udp::{OutgoingDatagram, UdpSocket};
use wasip2::sockets::udp_create_socket::create_udp_socket;

pub(crate) const CASES: &[crate::Case] = &[
    ("tcp_both_ways_v4", |_| tcp_both_ways(local(0))),
    ("tcp_both_ways_v6", |_| tcp_both_ways(local_v6(0))),
    ("tcp_much_data", |_| tcp_much_data()),
    ("tcp_options", |_| tcp_options()),
    ("tcp_wrong_order", |_| tcp_wrong_order()),
    ("tcp_nobody_listens", |_| tcp_nobody_listens()),
    ("tcp_address_in_use", |_| tcp_address_in_use()),
    ("tcp_wrong_family", |_| tcp_wrong_family()),
    ("udp_both_ways", |_| udp_both_ways()),
    ("udp_connected", |_| udp_connected()),
    ("udp_options", |_| udp_options()),
    ("lookup", |_| lookup()),
    ("denied_without_a_grant", |arguments| {
        if arguments.first().is_some_and(|argument| argument == "denied") {
            denied();
        }
    }),
];

fn local(port: u16) -> IpSocketAddress {
    IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address: (127, 0, 0, 1) })
}

fn local_v6(port: u16) -> IpSocketAddress {
    IpSocketAddress::Ipv6(Ipv6SocketAddress {
        port,
        address: (0, 0, 0, 0, 0, 0, 0, 1),
        flow_info: 0,
        scope_id: 0,
    })
}

fn family(address: &IpSocketAddress) -> IpAddressFamily {
    match address {
        IpSocketAddress::Ipv4(_) => IpAddressFamily::Ipv4,
        IpSocketAddress::Ipv6(_) => IpAddressFamily::Ipv6,
    }
}

fn port(address: IpSocketAddress) -> u16 {
    match address {
        IpSocketAddress::Ipv4(address) => address.port,
        IpSocketAddress::Ipv6(address) => address.port,
    }
}

fn same(a: IpSocketAddress, b: IpSocketAddress) -> bool {
    format!("{a:?}") == format!("{b:?}")
}

/// Repeats what would block until it doesn't.
fn wait<T>(ready: &Pollable, mut attempt: impl FnMut() -> Result<T, ErrorCode>) -> Result<T, ErrorCode> {
    loop {
        match attempt() {
            Err(ErrorCode::WouldBlock) => {
                let late = subscribe_duration(20_000_000_000);
                assert_eq!(poll(&[ready, &late])[0], 0, "waited for 20 s");
            }
            answer => return answer,
        }
    }
}

fn bind(socket: &TcpSocket, address: IpSocketAddress) -> Result<(), ErrorCode> {
    socket.start_bind(&instance_network(), address)?;
    wait(&socket.subscribe(), || socket.finish_bind())
}

fn listener(address: IpSocketAddress) -> TcpSocket {
    let socket = create_tcp_socket(family(&address)).unwrap();
    bind(&socket, address).unwrap();
    socket.start_listen().unwrap();
    wait(&socket.subscribe(), || socket.finish_listen()).unwrap();
    socket
}

fn connect(socket: &TcpSocket, address: IpSocketAddress) -> Result<(InputStream, OutputStream), ErrorCode> {
    socket.start_connect(&instance_network(), address)?;
    wait(&socket.subscribe(), || socket.finish_connect())
}

fn read_all(input: &InputStream) -> Vec<u8> {
    let mut read = Vec::new();
    loop {
        match input.blocking_read(1 << 16) {
            Ok(bytes) => read.extend(bytes),
            Err(StreamError::Closed) => return read,
            Err(err) => panic!("{err:?}"),
        }
    }
}

fn tcp_both_ways(address: IpSocketAddress) {
    let listening = listener(address);
    assert!(listening.is_listening());
    let at = listening.local_address().unwrap();
    assert_ne!(port(at), 0);
    let client = create_tcp_socket(family(&address)).unwrap();
    assert!(!client.is_listening());
    let (client_in, client_out) = connect(&client, at).unwrap();
    let (server, server_in, server_out) = wait(&listening.subscribe(), || listening.accept()).unwrap();
    assert!(same(client.remote_address().unwrap(), at));
    assert!(same(server.local_address().unwrap(), at));
    assert!(same(server.remote_address().unwrap(), client.local_address().unwrap()));

    client_out.blocking_write_and_flush(b"ping").unwrap();
    assert_eq!(server_in.blocking_read(10).unwrap(), b"ping");
    server_out.blocking_write_and_flush(b"pong").unwrap();
    assert_eq!(client_in.blocking_read(10).unwrap(), b"pong");

    // One half can be closed, and the other goes on.
    client.shutdown(ShutdownType::Send).unwrap();
    assert_eq!(read_all(&server_in), b"");
    server_out.blocking_write_and_flush(b"still").unwrap();
    drop((server_in, server_out));
    drop(server);
    assert_eq!(read_all(&client_in), b"still");
    assert!(matches!(listening.accept(), Err(ErrorCode::WouldBlock)));
}

fn tcp_much_data() {
    let listening = listener(local(0));
    let client = create_tcp_socket(IpAddressFamily::Ipv4).unwrap();
    let (_client_in, client_out) = connect(&client, listening.local_address().unwrap()).unwrap();
    let (_server, server_in, _server_out) = wait(&listening.subscribe(), || listening.accept()).unwrap();
    let all: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (mut sent, mut received) = (0, Vec::new());
    while received.len() < all.len() {
        if sent < all.len() {
            let room = client_out.check_write().unwrap() as usize;
            let end = all.len().min(sent + room);
            client_out.write(&all[sent..end]).unwrap();
            sent = end;
        }
        match server_in.read(1 << 16) {
            Ok(bytes) if bytes.is_empty() => {
                let (write, read) = (client_out.subscribe(), server_in.subscribe());
                if sent < all.len() { drop(poll(&[&write, &read])) } else { read.block() }
            }
            Ok(bytes) => received.extend(bytes),
            Err(err) => panic!("{err:?}"),
        }
    }
    assert!(received == all);
}

fn tcp_options() {
    let socket = create_tcp_socket(IpAddressFamily::Ipv4).unwrap();
    assert_eq!(socket.address_family(), IpAddressFamily::Ipv4);
    socket.set_keep_alive_enabled(true).unwrap();
    assert_eq!(socket.keep_alive_enabled(), Ok(true));
    socket.set_keep_alive_idle_time(60_000_000_000).unwrap();
    assert_eq!(socket.keep_alive_idle_time(), Ok(60_000_000_000));
    socket.set_keep_alive_interval(5_000_000_000).unwrap();
    assert_eq!(socket.keep_alive_interval(), Ok(5_000_000_000));
    socket.set_keep_alive_count(3).unwrap();
    assert_eq!(socket.keep_alive_count(), Ok(3));
    socket.set_hop_limit(42).unwrap();
    assert_eq!(socket.hop_limit(), Ok(42));
    for refused in [
        socket.set_hop_limit(0),
        socket.set_keep_alive_count(0),
        socket.set_keep_alive_idle_time(0),
        socket.set_keep_alive_interval(0),
        socket.set_receive_buffer_size(0),
        socket.set_send_buffer_size(0),
    ] {
        assert_eq!(refused, Err(ErrorCode::InvalidArgument));
    }
    socket.set_receive_buffer_size(0x1_0000).unwrap();
    assert!(socket.receive_buffer_size().unwrap() >= 0x1_0000);
    socket.set_send_buffer_size(0x1_0000).unwrap();
    assert!(socket.send_buffer_size().unwrap() >= 0x1_0000);
    socket.set_listen_backlog_size(10).unwrap();
}

fn tcp_wrong_order() {
    let socket = create_tcp_socket(IpAddressFamily::Ipv4).unwrap();
    assert_eq!(socket.finish_bind(), Err(ErrorCode::NotInProgress));
    assert_eq!(socket.finish_connect().err(), Some(ErrorCode::NotInProgress));
    assert_eq!(socket.finish_listen(), Err(ErrorCode::NotInProgress));
    assert_eq!(socket.accept().err(), Some(ErrorCode::InvalidState));
    assert_eq!(socket.start_listen(), Err(ErrorCode::InvalidState), "it isn't bound");
    assert_eq!(socket.local_address().err(), Some(ErrorCode::InvalidState));
    assert_eq!(socket.remote_address().err(), Some(ErrorCode::InvalidState));
    assert_eq!(socket.shutdown(ShutdownType::Both), Err(ErrorCode::InvalidState));
    bind(&socket, local(0)).unwrap();
    assert_eq!(bind(&socket, local(0)), Err(ErrorCode::InvalidState));
    let listening = listener(local(0));
    assert_eq!(connect(&listening, local(1)).err(), Some(ErrorCode::InvalidState));
    assert_eq!(listening.start_listen(), Err(ErrorCode::InvalidState));
}

fn tcp_nobody_listens() {
    // Bound and not listening: nobody else gets the port meanwhile.
    let taken = create_tcp_socket(IpAddressFamily::Ipv4).unwrap();
    bind(&taken, local(0)).unwrap();
    let socket = create_tcp_socket(IpAddressFamily::Ipv4).unwrap();
    let refused = connect(&socket, taken.local_address().unwrap());
    assert_eq!(refused.err(), Some(ErrorCode::ConnectionRefused));
    for address in [local(0), IpSocketAddress::Ipv4(Ipv4SocketAddress { port: 80, address: (0, 0, 0, 0) })] {
        let socket = create_tcp_socket(IpAddressFamily::Ipv4).unwrap();
        assert_eq!(connect(&socket, address).err(), Some(ErrorCode::InvalidArgument), "{address:?}");
    }
}

fn tcp_address_in_use() {
    let first = listener(local(0));
    let second = create_tcp_socket(IpAddressFamily::Ipv4).unwrap();
    assert_eq!(bind(&second, first.local_address().unwrap()), Err(ErrorCode::AddressInUse));
    let third = create_tcp_socket(IpAddressFamily::Ipv4).unwrap();
    let elsewhere = IpSocketAddress::Ipv4(Ipv4SocketAddress { port: 0, address: (192, 0, 2, 1) });
    assert_eq!(bind(&third, elsewhere), Err(ErrorCode::AddressNotBindable));
}

fn tcp_wrong_family() {
    let socket = create_tcp_socket(IpAddressFamily::Ipv4).unwrap();
    assert_eq!(bind(&socket, local_v6(0)), Err(ErrorCode::InvalidArgument));
    let socket = create_tcp_socket(IpAddressFamily::Ipv6).unwrap();
    assert_eq!(connect(&socket, local(80)).err(), Some(ErrorCode::InvalidArgument));
    let mapped = IpSocketAddress::Ipv6(Ipv6SocketAddress {
        port: 80,
        address: (0, 0, 0, 0, 0, 0xffff, 0x7f00, 1),
        flow_info: 0,
        scope_id: 0,
    });
    assert_eq!(connect(&socket, mapped).err(), Some(ErrorCode::InvalidArgument));
}

fn udp(address: IpSocketAddress) -> UdpSocket {
    let socket = create_udp_socket(family(&address)).unwrap();
    socket.start_bind(&instance_network(), address).unwrap();
    wait(&socket.subscribe(), || socket.finish_bind()).unwrap();
    socket
}

fn udp_both_ways() {
    let (one, two) = (udp(local(0)), udp(local(0)));
    let (one_in, one_out) = one.stream(None).unwrap();
    let (two_in, two_out) = two.stream(None).unwrap();
    let to_two =
        OutgoingDatagram { data: b"ping".to_vec(), remote_address: Some(two.local_address().unwrap()) };
    assert!(wait(&one_out.subscribe(), || one_out.check_send()).unwrap() >= 1);
    assert_eq!(one_out.send(&[to_two]), Ok(1));
    let received = receive(&two_in);
    assert_eq!(received.0, b"ping");
    assert!(same(received.1, one.local_address().unwrap()));
    assert!(wait(&two_out.subscribe(), || two_out.check_send()).unwrap() >= 1);
    let back = OutgoingDatagram { data: vec![b'x'; 1000], remote_address: Some(received.1) };
    assert_eq!(two_out.send(&[back]), Ok(1));
    assert_eq!(receive(&one_in).0.len(), 1000);
    assert!(one_in.receive(10).unwrap().is_empty());
}

fn receive(from: &wasip2::sockets::udp::IncomingDatagramStream) -> (Vec<u8>, IpSocketAddress) {
    loop {
        if let Some(datagram) = from.receive(1).unwrap().pop() {
            return (datagram.data, datagram.remote_address);
        }
        let late = subscribe_duration(20_000_000_000);
        assert_eq!(poll(&[&from.subscribe(), &late])[0], 0, "waited for 20 s");
    }
}

fn udp_connected() {
    let (one, two, three) = (udp(local(0)), udp(local(0)), udp(local(0)));
    let (one_in, one_out) = one.stream(Some(two.local_address().unwrap())).unwrap();
    assert!(same(one.remote_address().unwrap(), two.local_address().unwrap()));
    let (two_in, two_out) = two.stream(None).unwrap();
    let (_three_in, three_out) = three.stream(None).unwrap();
    let to = |data: &[u8], remote_address| OutgoingDatagram { data: data.to_vec(), remote_address };
    wait(&one_out.subscribe(), || one_out.check_send()).unwrap();
    assert_eq!(one_out.send(&[to(b"a", None)]), Ok(1));
    assert_eq!(receive(&two_in).0, b"a");
    // Only the one that it is connected to reaches it.
    let address = Some(one.local_address().unwrap());
    wait(&three_out.subscribe(), || three_out.check_send()).unwrap();
    assert_eq!(three_out.send(&[to(b"stranger", address)]), Ok(1));
    wait(&two_out.subscribe(), || two_out.check_send()).unwrap();
    assert_eq!(two_out.send(&[to(b"friend", address)]), Ok(1));
    assert_eq!(receive(&one_in).0, b"friend");
    wait(&one_out.subscribe(), || one_out.check_send()).unwrap();
    let elsewhere = three.local_address().unwrap();
    assert_eq!(one_out.send(&[to(b"x", Some(elsewhere))]).err(), Some(ErrorCode::InvalidArgument));
}

fn udp_options() {
    let socket = create_udp_socket(IpAddressFamily::Ipv4).unwrap();
    assert_eq!(socket.local_address().err(), Some(ErrorCode::InvalidState));
    assert_eq!(socket.finish_bind(), Err(ErrorCode::NotInProgress));
    socket.set_unicast_hop_limit(42).unwrap();
    assert_eq!(socket.unicast_hop_limit(), Ok(42));
    assert_eq!(socket.set_unicast_hop_limit(0), Err(ErrorCode::InvalidArgument));
    socket.set_receive_buffer_size(0x1_0000).unwrap();
    assert!(socket.receive_buffer_size().unwrap() >= 0x1_0000);
}

fn resolved(name: &str) -> Result<Vec<IpAddress>, ErrorCode> {
    let addresses = resolve_addresses(&instance_network(), name)?;
    let mut all = Vec::new();
    while let Some(address) = wait(&addresses.subscribe(), || addresses.resolve_next_address())? {
        all.push(address);
    }
    Ok(all)
}

fn lookup() {
    assert_eq!(
        format!("{:?}", resolved("127.0.0.1").unwrap()),
        format!("{:?}", [IpAddress::Ipv4((127, 0, 0, 1))])
    );
    let v6 = IpAddress::Ipv6((0, 0, 0, 0, 0, 0, 0, 1));
    assert_eq!(format!("{:?}", resolved("::1").unwrap()), format!("{:?}", [v6]));
    assert!(!resolved("localhost").unwrap().is_empty());
    for wrong in ["", "not a name", "a.b<&>", "http://localhost"] {
        assert_eq!(resolved(wrong).err(), Some(ErrorCode::InvalidArgument), "{wrong}");
    }
    assert!(resolved("nothing.invalid").is_err());
}

fn denied() {
    let socket = create_tcp_socket(IpAddressFamily::Ipv4).unwrap();
    assert_eq!(bind(&socket, local(8080)).err(), Some(ErrorCode::AccessDenied));
    let socket = create_tcp_socket(IpAddressFamily::Ipv4).unwrap();
    assert_eq!(connect(&socket, local(8080)).err(), Some(ErrorCode::AccessDenied));
    assert_eq!(resolved("localhost").err(), Some(ErrorCode::PermanentResolverFailure));
    // Already the making of a socket, or its use.
    let socket = create_udp_socket(IpAddressFamily::Ipv4);
    let bound = socket.and_then(|socket| {
        socket.start_bind(&instance_network(), local(0))?;
        wait(&socket.subscribe(), || socket.finish_bind())
    });
    assert!(matches!(bound, Err(ErrorCode::AccessDenied | ErrorCode::NotSupported)), "{bound:?}");
}

/// Connects, and prints `connected`; or the error, and exits with 1.
pub(crate) fn connect_to(address: &str) {
    let address: std::net::SocketAddrV4 = address.parse().unwrap();
    let [a, b, c, d] = address.ip().octets();
    let address = IpSocketAddress::Ipv4(Ipv4SocketAddress { port: address.port(), address: (a, b, c, d) });
    let socket = create_tcp_socket(IpAddressFamily::Ipv4).unwrap();
    match connect(&socket, address) {
        Ok(_) => println!("connected"),
        Err(err) => panic!("{}", err.name()),
    }
}
