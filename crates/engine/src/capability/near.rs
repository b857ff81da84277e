//! Addresses that lead back to this machine, or to what a cloud tells it in confidence. A grant reaches them only if it
//! names them: by address, or by a name outright. A name below `*.example.com` doesn't, wherever it resolves to.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// Whether an address is this machine's own, of its link alone, or that of a cloud's metadata.
pub(crate) fn is_near(address: IpAddr) -> bool {
    is_special(address) || is_own(address)
}

fn is_special(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_special_v4(address),
        IpAddr::V6(address) => is_special_v6(address) || embedded(address).is_some_and(is_special_v4),
    }
}

fn is_special_v4(address: Ipv4Addr) -> bool {
    // "This network", whose 0.0.0.0 reaches this machine.
    address.octets()[0] == 0
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_multicast()
        // Special-purpose, by RFC 6890; a metadata service of Oracle's is among them.
        || address.octets()[..3] == [192, 0, 0]
        // Metadata of Alibaba's cloud, and of Azure's.
        || address.octets() == [100, 100, 100, 200]
        || address.octets() == [168, 63, 129, 16]
}

fn is_special_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address.is_unicast_link_local()
        // Site-local, which is deprecated (RFC 3879).
        || segments[0] & 0xffc0 == 0xfec0
        // NAT64 of this site's own (RFC 8215).
        || segments[..3] == [0x64, 0xff9b, 1]
        // Metadata of AWS, and of Google's cloud.
        || segments[..2] == [0xfd00, 0xec2]
        || segments[..2] == [0xfd20, 0xce]
}

/// The IPv4 address that an IPv6 address stands for.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let bytes = address.octets();
    let v4 = |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
    match address.segments() {
        // IPv4-compatible, deprecated (RFC 4291), and NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(v4(12)),
        // IPv4-translated (RFC 2765).
        [0, 0, 0, 0, 0xffff, 0, ..] => Some(v4(12)),
        // 6to4 (RFC 3056).
        [0x2002, ..] => Some(v4(2)),
        // Teredo (RFC 4380) has it inverted.
        [0x2001, 0, ..] => Some(Ipv4Addr::from_bits(!v4(12).to_bits())),
        _ => None,
    }
}

/// One of this machine's interfaces has it: the system lets nobody bind to others.
fn is_own(address: IpAddr) -> bool {
    match UdpSocket::bind((address, 0)) {
        Ok(_) => true,
        Err(err) => err.kind() != ErrorKind::AddrNotAvailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_lead_back_are_near_in_every_form() {
        for address in [
            "127.0.0.1",
            "127.8.9.10",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "169.254.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "255.255.255.255",
            "224.0.0.1",
            "::",
            "::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "2001:0:1:2:3:4:80ff:fffe",
        ] {
            assert!(is_near(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn addresses_elsewhere_are_not() {
        for address in ["93.184.215.14", "192.0.2.1", "2001:db8::1", "64:ff9b::c000:201", "2606:4700::1111"] {
            assert!(!is_special(address.parse().unwrap()), "{address}");
        }
        // Kept for documentation: no machine has them.
        assert!(!is_own("192.0.2.1".parse().unwrap()));
        assert!(is_own("127.0.0.1".parse().unwrap()));
    }
}
