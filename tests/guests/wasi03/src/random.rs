//! `wasi:random`

use wasip3::random::{insecure, insecure_seed, random};

use crate::case;

pub(crate) const CASES: &[crate::Case] = &[
    case!(bytes_are_as_many_as_asked_for_at_most),
    case!(no_two_are_the_same),
    case!(all_bytes_come_up),
    case!(a_seed_is_given),
    case!(the_standard_library_has_its_seed),
];

async fn bytes_are_as_many_as_asked_for_at_most(_: Vec<String>) {
    assert!(random::get_random_bytes(0).is_empty() && insecure::get_insecure_random_bytes(0).is_empty());
    for length in [1, 7, 4096] {
        for bytes in [random::get_random_bytes(length), insecure::get_insecure_random_bytes(length)] {
            assert!((1..=length).contains(&(bytes.len() as u64)), "{} of {length}", bytes.len());
        }
    }
}

async fn no_two_are_the_same(_: Vec<String>) {
    assert_ne!(random::get_random_bytes(32), random::get_random_bytes(32));
    assert_ne!(random::get_random_u64(), random::get_random_u64());
    assert_ne!(insecure::get_insecure_random_bytes(32), insecure::get_insecure_random_bytes(32));
    assert_ne!(insecure::get_insecure_random_u64(), insecure::get_insecure_random_u64());
}

async fn all_bytes_come_up(_: Vec<String>) {
    let mut seen = [false; 256];
    for _ in 0..100 {
        random::get_random_bytes(1_000).iter().for_each(|byte| seen[usize::from(*byte)] = true);
    }
    assert!(seen.iter().all(|seen| *seen));
}

async fn a_seed_is_given(_: Vec<String>) {
    assert_ne!(insecure_seed::get_insecure_seed(), (0, 0));
}

async fn the_standard_library_has_its_seed(_: Vec<String>) {
    let map: std::collections::HashMap<_, _> = [("a", 1)].into();
    assert_eq!(map["a"], 1);
}
