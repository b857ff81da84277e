//! `wasi:random`

use wasip2::random::{insecure, insecure_seed, random};

pub(crate) const CASES: &[crate::Case] = &[
    ("bytes_have_the_length_asked_for", |_| {
        for length in [0, 1, 7, 4096, 100_000] {
            assert_eq!(random::get_random_bytes(length).len() as u64, length);
            assert_eq!(insecure::get_insecure_random_bytes(length).len() as u64, length);
        }
    }),
    ("no_two_are_the_same", |_| {
        assert_ne!(random::get_random_bytes(32), random::get_random_bytes(32));
        assert_ne!(random::get_random_u64(), random::get_random_u64());
        assert_ne!(insecure::get_insecure_random_bytes(32), insecure::get_insecure_random_bytes(32));
        assert_ne!(insecure::get_insecure_random_u64(), insecure::get_insecure_random_u64());
    }),
    ("all_bytes_come_up", |_| {
        let mut seen = [false; 256];
        random::get_random_bytes(100_000).iter().for_each(|byte| seen[usize::from(*byte)] = true);
        assert!(seen.iter().all(|seen| *seen));
    }),
    ("a_seed_is_given", |_| assert_ne!(insecure_seed::insecure_seed(), (0, 0))),
    ("the_standard_library_has_its_seed", |_| {
        let map: std::collections::HashMap<_, _> = [("a", 1)].into();
        assert_eq!(map["a"], 1);
    }),
];
