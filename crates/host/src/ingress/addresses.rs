//! The connections of each address. One address may have a part of all connections, so that no client takes them all.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard};

/// See the module.
pub(super) struct Addresses {
    connections_max: u32,
    open: Mutex<HashMap<IpAddr, u32>>,
}

/// An open connection of an address.
pub(super) struct Counted {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Addresses {
    pub(super) fn new(connections_max: u32) -> Arc<Addresses> {
        Arc::new(Addresses { connections_max, open: Mutex::default() })
    }

    /// Counts one more connection; none if there are as many as may be.
    pub(super) fn count(self: &Arc<Self>, address: IpAddr) -> Option<Counted> {
        let address = client(address);
        let mut open = self.lock();
        let count = open.entry(address).or_default();
        if *count >= self.connections_max {
            return None;
        }
        *count += 1;
        Some(Counted { addresses: self.clone(), address })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        // No code that runs under the lock panics.
        self.open.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.addresses.lock();
        match open.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(open.remove(&self.address)),
        }
    }
}

/// A client of IPv6 has a /64 of addresses.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_connections() {
        let addresses = Addresses::new(2);
        let count = |address: &str| addresses.count(address.parse().unwrap());
        let (first, second) = (count("192.0.2.1"), count("::ffff:192.0.2.1"));
        assert!(first.is_some() && second.is_some() && count("192.0.2.1").is_none());
        assert!(count("192.0.2.2").is_some());
        drop(first);
        let third = count("192.0.2.1");
        assert!(third.is_some() && count("192.0.2.1").is_none());
        let all = [count("2001:db8::1"), count("2001:db8::2:0:0:1")];
        assert!(all.iter().all(Option::is_some));
        assert!(count("2001:db8::3").is_none() && count("2001:db8:0:1::1").is_some());
        drop((second, third, all));
        assert!(addresses.lock().is_empty());
    }
}
