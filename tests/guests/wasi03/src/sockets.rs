//! `wasi:sockets`, with `--network` but for what [`denied_without_a_grant`] tries, on the loopback addresses.

use futures::future::join;
use wasip3::sockets::ip_name_lookup::resolve_addresses;
use wasip3::sockets::types::{
    IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress, TcpSocket, UdpSocket,
};
use wasip3::wit_stream;

use crate::case;

pub(crate) const CASES: &[crate::Case] = &[
    case!(tcp_both_ways),
    case!(tcp_both_ways_v6),
    case!(tcp_much_data),
    case!(tcp_options),
    case!(tcp_wrong_states),
    case!(tcp_nobody_listens),
    case!(udp_both_ways),
    case!(udp_connected),
    case!(lookup),
    case!(denied_without_a_grant),
];

fn local(port: u16) -> IpSocketAddress {
    IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address: (127, 0, 0, 1) })
}

/// The error's name is one of these.
#[track_caller]
fn fails<T, E: std::fmt::Debug>(result: Result<T, E>, expected: &[&str]) {
    match result {
        Ok(_) => panic!("it went well, and {expected:?} was expected"),
        Err(err) => {
            let name = format!("{err:?}");
            let name = name.trim_start_matches("ErrorCode::");
            assert!(expected.contains(&name), "{name}, and {expected:?} was expected");
        }
    }
}

async fn tcp_both_ways(_: Vec<String>) {
    exchange(IpAddressFamily::Ipv4, local(0)).await;
}

async fn tcp_both_ways_v6(_: Vec<String>) {
    let address = (0, 0, 0, 0, 0, 0, 0, 1);
    let any_port = Ipv6SocketAddress { port: 0, address, flow_info: 0, scope_id: 0 };
    exchange(IpAddressFamily::Ipv6, IpSocketAddress::Ipv6(any_port)).await;
}

async fn exchange(family: IpAddressFamily, address: IpSocketAddress) {
    let listening = TcpSocket::create(family).unwrap();
    listening.bind(address).unwrap();
    let mut connections = listening.listen().unwrap();
    assert!(listening.get_is_listening());
    let at = listening.get_local_address().unwrap();
    let client = TcpSocket::create(family).unwrap();
    let (connected, server) = join(client.connect(at), connections.next()).await;
    connected.unwrap();
    let server = server.unwrap();
    assert_eq!(format!("{:?}", client.get_remote_address()), format!("{:?}", Ok::<_, ()>(at)));
    assert_eq!(
        format!("{:?}", server.get_remote_address().unwrap()),
        format!("{:?}", client.get_local_address().unwrap())
    );
    for (from, to, words) in [(&client, &server, "ping"), (&server, &client, "pong")] {
        let (mut writer, reader) = wit_stream::new();
        let sent = from.send(reader);
        assert!(writer.write_all(words.as_bytes().to_vec()).await.is_empty());
        // The end of the stream closes this half, which is how the other side sees it.
        drop(writer);
        sent.await.unwrap();
        let (received, ended) = to.receive();
        assert_eq!(received.collect().await, words.as_bytes());
        ended.await.unwrap();
    }
}

async fn tcp_much_data(_: Vec<String>) {
    let listening = TcpSocket::create(IpAddressFamily::Ipv4).unwrap();
    listening.bind(local(0)).unwrap();
    let mut connections = listening.listen().unwrap();
    let client = TcpSocket::create(IpAddressFamily::Ipv4).unwrap();
    let (connected, server) =
        join(client.connect(listening.get_local_address().unwrap()), connections.next()).await;
    connected.unwrap();
    let server = server.unwrap();
    let all: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let sending = async {
        let (mut writer, reader) = wit_stream::new();
        let sent = client.send(reader);
        assert!(writer.write_all(all.clone()).await.is_empty());
        drop(writer);
        sent.await.unwrap();
    };
    let (received, ended) = server.receive();
    let ((), received) = join(sending, received.collect()).await;
    ended.await.unwrap();
    assert!(received == all);
}

async fn tcp_options(_: Vec<String>) {
    let socket = TcpSocket::create(IpAddressFamily::Ipv4).unwrap();
    assert!(matches!(socket.get_address_family(), IpAddressFamily::Ipv4));
    socket.set_keep_alive_enabled(true).unwrap();
    assert!(socket.get_keep_alive_enabled().unwrap());
    socket.set_keep_alive_idle_time(60_000_000_000).unwrap();
    assert_eq!(socket.get_keep_alive_idle_time().unwrap(), 60_000_000_000);
    socket.set_keep_alive_count(3).unwrap();
    assert_eq!(socket.get_keep_alive_count().unwrap(), 3);
    socket.set_hop_limit(42).unwrap();
    assert_eq!(socket.get_hop_limit().unwrap(), 42);
    fails(socket.set_hop_limit(0), &["InvalidArgument"]);
    fails(socket.set_keep_alive_count(0), &["InvalidArgument"]);
    fails(socket.set_send_buffer_size(0), &["InvalidArgument"]);
    socket.set_receive_buffer_size(0x1_0000).unwrap();
    assert!(socket.get_receive_buffer_size().unwrap() >= 0x1_0000);
}

async fn tcp_wrong_states(_: Vec<String>) {
    let socket = TcpSocket::create(IpAddressFamily::Ipv4).unwrap();
    fails(socket.get_local_address(), &["InvalidState"]);
    fails(socket.get_remote_address(), &["InvalidState"]);
    assert!(!socket.get_is_listening());
    socket.bind(local(0)).unwrap();
    fails(socket.bind(local(0)), &["InvalidState"]);
    let connections = socket.listen().unwrap();
    fails(socket.listen().map(drop), &["InvalidState"]);
    fails(socket.connect(local(1)).await, &["InvalidState"]);
    drop(connections);
    let second = TcpSocket::create(IpAddressFamily::Ipv4).unwrap();
    let elsewhere = IpSocketAddress::Ipv4(Ipv4SocketAddress { port: 0, address: (192, 0, 2, 1) });
    fails(second.bind(elsewhere), &["AddressNotBindable"]);
}

async fn tcp_nobody_listens(_: Vec<String>) {
    let taken = TcpSocket::create(IpAddressFamily::Ipv4).unwrap();
    taken.bind(local(0)).unwrap();
    let socket = TcpSocket::create(IpAddressFamily::Ipv4).unwrap();
    fails(socket.connect(taken.get_local_address().unwrap()).await, &["ConnectionRefused"]);
    let socket = TcpSocket::create(IpAddressFamily::Ipv4).unwrap();
    fails(socket.connect(local(0)).await, &["InvalidArgument"]);
    let any = IpSocketAddress::Ipv4(Ipv4SocketAddress { port: 80, address: (0, 0, 0, 0) });
    let socket = TcpSocket::create(IpAddressFamily::Ipv4).unwrap();
    fails(socket.connect(any).await, &["InvalidArgument"]);
}

fn udp() -> UdpSocket {
    let socket = UdpSocket::create(IpAddressFamily::Ipv4).unwrap();
    socket.bind(local(0)).unwrap();
    socket
}

async fn udp_both_ways(_: Vec<String>) {
    let (one, two) = (udp(), udp());
    one.send(b"ping".to_vec(), Some(two.get_local_address().unwrap())).await.unwrap();
    let (data, from) = two.receive().await.unwrap();
    assert_eq!(data, b"ping");
    assert_eq!(format!("{from:?}"), format!("{:?}", one.get_local_address().unwrap()));
    two.send(vec![b'x'; 1000], Some(from)).await.unwrap();
    assert_eq!(one.receive().await.unwrap().0.len(), 1000);
}

async fn udp_connected(_: Vec<String>) {
    let (one, two, three) = (udp(), udp(), udp());
    fails(one.get_remote_address(), &["InvalidState"]);
    one.connect(two.get_local_address().unwrap()).unwrap();
    one.send(b"a".to_vec(), None).await.unwrap();
    assert_eq!(two.receive().await.unwrap().0, b"a");
    // Only the one that it is connected to reaches it.
    let at = one.get_local_address().unwrap();
    three.send(b"stranger".to_vec(), Some(at)).await.unwrap();
    two.send(b"friend".to_vec(), Some(at)).await.unwrap();
    assert_eq!(one.receive().await.unwrap().0, b"friend");
    one.disconnect().unwrap();
    fails(one.send(b"a".to_vec(), None).await, &["InvalidArgument"]);
}

async fn lookup(_: Vec<String>) {
    let found = resolve_addresses("127.0.0.1".to_owned()).await.unwrap();
    assert_eq!(format!("{found:?}"), "[IpAddress::Ipv4((127, 0, 0, 1))]");
    assert_eq!(resolve_addresses("::1".to_owned()).await.unwrap().len(), 1);
    assert!(!resolve_addresses("localhost".to_owned()).await.unwrap().is_empty());
    fails(resolve_addresses("not a name".to_owned()).await, &["InvalidArgument"]);
    assert!(resolve_addresses("nothing.invalid".to_owned()).await.is_err());
}

async fn denied_without_a_grant(arguments: Vec<String>) {
    if arguments.first().is_none_or(|argument| argument != "denied") {
        return;
    }
    let socket = TcpSocket::create(IpAddressFamily::Ipv4).unwrap();
    fails(socket.bind(local(8080)), &["AccessDenied"]);
    let socket = TcpSocket::create(IpAddressFamily::Ipv4).unwrap();
    fails(socket.connect(local(8080)).await, &["AccessDenied"]);
    fails(resolve_addresses("localhost".to_owned()).await, &["AccessDenied", "PermanentResolverFailure"]);
    let socket = UdpSocket::create(IpAddressFamily::Ipv4);
    fails(socket.and_then(|socket| socket.bind(local(0))), &["AccessDenied", "NotSupported"]);
}
