use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use proptest::prelude::*;

use super::*;

fn ring(hosts: impl IntoIterator<Item = usize>) -> Ring {
    Ring::of(hosts.into_iter().map(|host| format!("host-{host}").into()))
}

/// How many slots each host has.
fn loads(ring: &Ring, count: u32) -> Vec<usize> {
    let owners = ring.owners("web", count);
    (0..ring.hosts().len())
        .map(|host| owners.iter().filter(|owner| **owner as usize == host).count())
        .collect()
}

fn named(ring: &Ring, count: u32) -> Vec<Arc<str>> {
    ring.owners("web", count).into_iter().map(|host| ring.hosts()[host as usize].clone()).collect()
}

/// How many slots move between two splits, and how few could: each host that has more than before got these.
fn moves(from: &Ring, to: &Ring, count: u32) -> (usize, usize) {
    let (before, after) = (named(from, count), named(to, count));
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    let mut more = BTreeMap::<&str, isize>::new();
    after.iter().for_each(|host| *more.entry(host).or_default() += 1);
    before.iter().for_each(|host| *more.entry(host).or_default() -= 1);
    let least = more.values().filter(|more| **more > 0).sum::<isize>().unsigned_abs();
    (moved, least)
}

#[test]
fn a_host_alone_has_all_slots_and_none_has_what_nobody_wants() {
    assert_eq!(ring([1]).slots("host-1", "web", 3), [1, 2, 3]);
    assert_eq!(ring([1, 2]).slots("host-1", "web", 0), [0; 0]);
    assert_eq!(ring([1, 2]).slots("host-3", "web", 9), [0; 0]);
    assert_eq!(ring([]).slots("host-1", "web", 9), [0; 0]);
}

#[test]
fn the_split_is_the_same_in_all_versions() {
    // Hosts of two versions split one formation while it is upgraded. A change here needs a way for both.
    let owners = ring([1, 2, 3]).owners("web", 12);
    assert_eq!(owners, OF_TWELVE, "found {owners:?}");
}

#[test]
fn no_host_is_without_a_slot_where_there_are_enough() {
    for hosts in 1..40 {
        for count in [hosts, hosts + 1, 2 * hosts - 1, 3 * hosts] {
            let loads = loads(&ring(0..hosts), u32::try_from(count).unwrap());
            assert!(loads.iter().all(|load| *load == count / hosts || *load == count.div_ceil(hosts)));
        }
    }
}

#[test]
fn hosts_that_come_and_go_move_few_slots_that_need_not() {
    for (hosts, count, most) in
        [(2, 10, 1.3), (3, 30, 1.3), (10, 100, 1.8), (30, 3_000, 1.7), (100, 1_000, 3.5)]
    {
        let (mut moved, mut least) = (0, 0);
        let all: Vec<usize> = (0..hosts).collect();
        for round in 0..20 {
            let base = ring(all.iter().map(|host| host + round * 1_000));
            let more = ring(all.iter().copied().chain([500]).map(|host| host + round * 1_000));
            let (moves, fewest) = moves(&base, &more, count);
            let (back, fewest_back) = self::moves(&more, &base, count);
            (moved, least) = (moved + moves + back, least + fewest + fewest_back);
        }
        let times = moved as f64 / least as f64;
        assert!(times <= most, "{count} slots of {hosts} hosts: {times:.2} times the least");
    }
}

#[test]
fn a_larger_count_moves_few_of_the_slots_that_were_there() {
    let (mut moved, mut of) = (0, 0);
    let ring = ring(0..20);
    for count in 100..200 {
        let (before, after) = (ring.owners("web", count), ring.owners("web", count + 1));
        moved += before.iter().zip(&after).filter(|(before, after)| before != after).count();
        of += before.len();
    }
    let share = moved as f64 / of as f64;
    assert!(share < 0.03, "{share}");
}

#[test]
fn a_large_formation_is_split_in_no_time() {
    let begun = Instant::now();
    let ring = ring(0..1_000);
    let loads = loads_of_large(&ring);
    let took = begun.elapsed();
    assert!(loads.iter().all(|load| *load == 100));
    // Ten times what a busy machine took.
    assert!(took.as_secs() < 10, "{took:?}");
}

fn loads_of_large(ring: &Ring) -> Vec<usize> {
    let mut loads = vec![0; ring.hosts().len()];
    ring.owners("web", 100_000).into_iter().for_each(|host| loads[host as usize] += 1);
    loads
}

proptest! {
    #[test]
    fn every_slot_has_one_host_and_loads_differ_by_one(
        hosts in prop::collection::btree_set("[a-z0-9]{0,6}", 1..30),
        count in 0..500_u32,
        process in "[a-z]{1,8}",
    ) {
        let ring = Ring::of(hosts.iter().map(|host| host.as_str().into()));
        let owners = ring.owners(&process, count);
        prop_assert_eq!(owners.len(), count as usize);
        let mut slots = BTreeSet::new();
        let mut loads = BTreeSet::new();
        for host in &hosts {
            let own = ring.slots(host, &process, count);
            loads.insert(own.len());
            for slot in own {
                prop_assert!(slots.insert(slot), "{} has two hosts", slot);
            }
        }
        prop_assert_eq!(slots, (1..=count).collect::<BTreeSet<u32>>());
        prop_assert!(loads.last().unwrap() - loads.first().unwrap() <= 1);
    }

    #[test]
    fn the_order_of_the_list_is_of_no_account(count in 0..100_u32, shift in 0..10_usize) {
        let mut hosts: Vec<usize> = (0..10).collect();
        hosts.rotate_left(shift);
        let twice = hosts.iter().chain(&hosts).copied();
        prop_assert_eq!(ring(twice).owners("web", count), ring(0..10).owners("web", count));
    }
}

const OF_TWELVE: [u32; 12] = [1, 0, 2, 1, 2, 2, 0, 0, 2, 1, 0, 1];
