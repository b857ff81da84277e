//! `wasi:clocks`

use wasip2::clocks::{monotonic_clock, wall_clock};
use wasip2::io::poll::poll;

const MS: u64 = 1_000_000;

pub(crate) const CASES: &[crate::Case] = &[
    ("monotonic_never_goes_back", |_| {
        let mut last = monotonic_clock::now();
        for _ in 0..10_000 {
            let now = monotonic_clock::now();
            assert!(now >= last, "{now} < {last}");
            last = now;
        }
        assert!(monotonic_clock::resolution() > 0);
    }),
    ("a_duration_passes", |_| {
        let start = monotonic_clock::now();
        let timer = monotonic_clock::subscribe_duration(20 * MS);
        assert!(!timer.ready());
        timer.block();
        assert!(timer.ready());
        let passed = monotonic_clock::now() - start;
        assert!(passed >= 20 * MS, "{passed}");
    }),
    ("an_instant_comes", |_| {
        let when = monotonic_clock::now() + 20 * MS;
        monotonic_clock::subscribe_instant(when).block();
        assert!(monotonic_clock::now() >= when);
    }),
    ("what_is_past_is_ready", |_| {
        monotonic_clock::subscribe_duration(0).block();
        monotonic_clock::subscribe_instant(0).block();
        monotonic_clock::subscribe_instant(monotonic_clock::now()).block();
    }),
    ("the_first_of_several_wakes", |_| {
        let start = monotonic_clock::now();
        let late = monotonic_clock::subscribe_duration(60_000 * MS);
        let soon = monotonic_clock::subscribe_duration(10 * MS);
        assert_eq!(poll(&[&late, &soon]), [1]);
        assert!(monotonic_clock::now() - start < 30_000 * MS);
        assert!(!late.ready());
        let other = monotonic_clock::subscribe_duration(10 * MS);
        other.block();
        // In any order.
        let mut ready = poll(&[&other, &late, &soon]);
        ready.sort();
        assert_eq!(ready, [0, 2]);
    }),
    ("wall_is_today", |_| {
        let now = wall_clock::now();
        // 2024-01-01 and 2100-01-01.
        assert!((1_704_067_200..4_102_444_800).contains(&now.seconds), "{now:?}");
        assert!(now.nanoseconds < 1_000_000_000);
        let resolution = wall_clock::resolution();
        assert!(resolution.seconds > 0 || resolution.nanoseconds > 0);
    }),
    ("wall_goes_on", |_| {
        let before = wall_clock::now();
        monotonic_clock::subscribe_duration(5 * MS).block();
        let after = wall_clock::now();
        assert!((after.seconds, after.nanoseconds) > (before.seconds, before.nanoseconds));
    }),
];
