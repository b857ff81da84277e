//! The split: which host has which slots of each type. It is a function of the hosts' ids and of a type's name and count,
//! so that all hosts that know the same list come to the same answer without a word.
//!
//! Hosts are points on a ring ([`Ring`]), and a slot goes to the host of the next point, by a hash. A host has
//! `count / hosts` slots, and the hosts to which most slots would go have one more where some are left over. It takes those
//! with the lowest numbers, and the others go on to the next host that has room (consistent hashing with bounded loads,
//! where the bound leaves no room to spare).
//!
//! A host that comes takes slots from all, and one that goes leaves its own. Slots move that needn't, as there is no room to
//! spare: for each one that must move about 0.2 others with 3 hosts, 0.7 with 30, and 2 to 7 with hundreds, which is less
//! than 1% of the slots then. A slot costs a search of the ring, where the plain rendezvous would hash it with each host.

use std::cmp::Reverse;
use std::sync::Arc;

/// Points of each host on the ring: the more there are, the more slots find room at once.
const POINTS: u64 = 128;

/// The hosts among which slots are split.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ring {
    /// In order.
    hosts: Vec<Arc<str>>,
    hashes: Vec<u64>,
    /// Points, and which host each is of.
    points: Vec<(u64, u32)>,
}

impl Ring {
    /// A ring of these hosts, each of which is named once at least.
    pub(crate) fn of(hosts: impl IntoIterator<Item = Arc<str>>) -> Ring {
        let mut hosts: Vec<Arc<str>> = hosts.into_iter().collect();
        hosts.sort_unstable();
        hosts.dedup();
        let hashes: Vec<u64> = hosts.iter().map(|host| hash_of(host)).collect();
        let mut points = Vec::with_capacity(hosts.len() * POINTS as usize);
        for (host, hash) in (0..).zip(&hashes) {
            points.extend((0..POINTS).map(|point| (mix(hash ^ mix(point)), host)));
        }
        points.sort_unstable();
        Ring { hosts, hashes, points }
    }

    /// The hosts, in order.
    #[cfg(test)]
    pub(crate) fn hosts(&self) -> &[Arc<str>] {
        &self.hosts
    }

    /// The host of each slot of a type, as a place in [`Ring::hosts`]: that of slot 1 comes first. Nothing where there are
    /// no hosts.
    pub(crate) fn owners(&self, process: &str, count: u32) -> Vec<u32> {
        if self.hosts.is_empty() {
            return vec![];
        }
        let kind = hash_of(process);
        let places: Vec<u64> = (0..count).map(|slot| mix(kind ^ mix(slot.into()))).collect();
        let mut room = self.quotas(kind, &places);
        let mut owners = vec![0; places.len()];
        let mut points = self.points.clone();
        let mut waiting: Vec<u32> = (0..count).collect();
        // Each turn finds a host with room for one slot at least.
        while !waiting.is_empty() {
            points.retain(|(_, host)| room[*host as usize] > 0);
            waiting.retain(|slot| {
                let host = next(&points, places[*slot as usize]);
                let room = &mut room[host as usize];
                if *room > 0 {
                    *room -= 1;
                    owners[*slot as usize] = host;
                    return false;
                }
                true
            });
        }
        owners
    }

    /// How many slots of a type each host has, in the order of the hosts.
    fn quotas(&self, kind: u64, places: &[u64]) -> Vec<u32> {
        let mut wanted = vec![0_u32; self.hosts.len()];
        places.iter().for_each(|place| wanted[next(&self.points, *place) as usize] += 1);
        let hosts = self.hashes.iter().zip(wanted).enumerate();
        let mut order: Vec<_> =
            hosts.map(|(host, (hash, wanted))| (Reverse(wanted), mix(hash ^ kind), host)).collect();
        order.sort_unstable();
        let each = u32::try_from(places.len() / self.hosts.len()).unwrap_or(u32::MAX);
        let mut quotas = vec![each; self.hosts.len()];
        let left_over = places.len() % self.hosts.len();
        order.into_iter().take(left_over).for_each(|(_, _, host)| quotas[host] += 1);
        quotas
    }

    /// The numbers of the slots that a host has, in order. The first slot is 1. None where the host isn't in the ring.
    pub(crate) fn slots(&self, host: &str, process: &str, count: u32) -> Vec<u32> {
        let Ok(place) = self.hosts.binary_search_by(|other| (**other).cmp(host)) else { return vec![] };
        if self.hosts.len() == 1 {
            return (1..=count).collect();
        }
        let owners = (1..).zip(self.owners(process, count));
        owners.filter(|(_, owner)| *owner as usize == place).map(|(slot, _)| slot).collect()
    }
}

/// The host of the next point on the ring, of which there is one.
fn next(points: &[(u64, u32)], place: u64) -> u32 {
    let next = points.partition_point(|(point, _)| *point < place);
    points[if next < points.len() { next } else { 0 }].1
}

/// A number for a text: FNV-1a, and then mixed. It must be the same in all versions and on all machines.
pub(crate) fn hash_of(text: &str) -> u64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(hash)
}

/// The finalizer of splitmix64: each bit of the answer depends on each bit of the question.
fn mix(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
