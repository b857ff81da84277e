//! `wasi:clocks`

use futures::future::{Either, join, select};
use wasip3::clocks::{monotonic_clock, system_clock};

use crate::case;

const MS: u64 = 1_000_000;

pub(crate) const CASES: &[crate::Case] = &[
    case!(monotonic_never_goes_back),
    case!(a_duration_passes),
    case!(an_instant_comes),
    case!(waits_overlap),
    case!(the_first_of_two_wakes),
    case!(system_is_today),
];

async fn monotonic_never_goes_back(_: Vec<String>) {
    let mut last = monotonic_clock::now();
    for _ in 0..10_000 {
        let now = monotonic_clock::now();
        assert!(now >= last, "{now} < {last}");
        last = now;
    }
    assert!(monotonic_clock::get_resolution() > 0);
}

async fn a_duration_passes(_: Vec<String>) {
    let start = monotonic_clock::now();
    monotonic_clock::wait_for(0).await;
    monotonic_clock::wait_for(20 * MS).await;
    let passed = monotonic_clock::now() - start;
    assert!(passed >= 20 * MS, "{passed}");
}

async fn an_instant_comes(_: Vec<String>) {
    monotonic_clock::wait_until(0).await;
    let when = monotonic_clock::now() + 20 * MS;
    monotonic_clock::wait_until(when).await;
    assert!(monotonic_clock::now() >= when);
}

async fn waits_overlap(_: Vec<String>) {
    let start = monotonic_clock::now();
    let wait = || monotonic_clock::wait_for(2_000 * MS);
    join(join(wait(), wait()), join(wait(), wait())).await;
    let passed = monotonic_clock::now() - start;
    assert!((2_000 * MS..7_000 * MS).contains(&passed), "{passed}");
}

async fn the_first_of_two_wakes(_: Vec<String>) {
    let late = Box::pin(monotonic_clock::wait_for(60_000 * MS));
    let soon = Box::pin(monotonic_clock::wait_for(10 * MS));
    assert!(matches!(select(late, soon).await, Either::Right(_)));
}

async fn system_is_today(_: Vec<String>) {
    let before = system_clock::now();
    // 2024-01-01 and 2100-01-01.
    assert!((1_704_067_200..4_102_444_800).contains(&before.seconds), "{before:?}");
    assert!(before.nanoseconds < 1_000_000_000);
    assert!(system_clock::get_resolution() > 0);
    monotonic_clock::wait_for(5 * MS).await;
    let after = system_clock::now();
    assert!((after.seconds, after.nanoseconds) > (before.seconds, before.nanoseconds));
}
