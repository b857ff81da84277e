//! Random operations.

use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::subsequence;
use wasmhost_store::Timestamp;
use wasmhost_store::jobs::{
    AfterFailure, Backoff, Intervention, JobFilter, JobId, JobState, NewJob, Order, Page, Retention, Unique,
    UniqueScope,
};

pub(crate) const QUEUES: [&str; 3] = ["a", "b", "c"];
pub(crate) const OWNERS: [&str; 3] = ["host/1", "host/2", "other/1"];

#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// With delays as times since the epoch; they are moved to the clock's now.
    Enqueue(Vec<NewJob>),
    Claim {
        queues: Vec<usize>,
        concurrency: [Option<u32>; 3],
        owner: usize,
        limit: u32,
        lease: Duration,
        attempts: u32,
    },
    // Answers to the nth lease, counted back from the latest one; most of the early ones are stale.
    Complete(usize),
    Fail(usize, AfterFailure, Backoff),
    Release(usize),
    GiveBack(usize),
    Begin(usize),
    Renew(Vec<usize>, Duration),
    FreeLeases(&'static str),
    Pause(usize),
    Resume(usize),
    // An intervention in the nth job, counted back from the latest one.
    Intervene(i64, Intervention),
    InterveneAll(JobFilter, Intervention),
    List(JobFilter, Page),
    Advance(Duration),
    /// The wall clock is set, so many seconds forth or back.
    Step(i64),
    Prune(Retention),
}

fn seconds(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_secs)
}

fn key() -> impl Strategy<Value = String> {
    (0..3u8).prop_map(|key| format!("k{key}"))
}

fn new_job() -> impl Strategy<Value = NewJob> {
    let scope = prop_oneof![
        Just(UniqueScope::Waiting),
        Just(UniqueScope::Running),
        seconds(0..90).prop_map(UniqueScope::For)
    ];
    let unique = option::weighted(0.4, (key(), scope).prop_map(|(key, scope)| Unique { key, scope }));
    let depth = option::weighted(0.3, 0..6u64);
    let bytes = option::weighted(0.2, 200..2_000u64);
    let attempts = option::of(1..4u32);
    (0..3usize, option::of(seconds(0..60)), -1..2i16, unique, attempts, depth, bytes, 0..99usize).prop_map(
        |(queue, delay, priority, unique, attempts_max, max_depth, max_bytes, payload)| NewJob {
            max_bytes,
            payload: vec![7; payload],
            queue: QUEUES[queue].to_string(),
            priority,
            unique,
            attempts_max,
            max_depth,
            run_at: delay.map(|delay| Timestamp(0) + delay),
            ..NewJob::default()
        },
    )
}

fn filter() -> impl Strategy<Value = JobFilter> {
    let states = subsequence(JobState::ALL.to_vec(), 0..=3);
    let queue = option::of(0..3usize).prop_map(|queue| queue.map(|queue| QUEUES[queue].to_string()));
    (queue, states, option::weighted(0.2, key())).prop_map(|(queue, states, unique_key)| JobFilter {
        queue,
        states,
        unique_key,
    })
}

fn page() -> impl Strategy<Value = Page> {
    let order = prop_oneof![Just(Order::Newest), Just(Order::Oldest)];
    (option::of(0..60i64), 0..8u32, order).prop_map(|(after, limit, order)| Page {
        after: after.map(JobId),
        limit,
        order,
    })
}

fn intervention() -> impl Strategy<Value = Intervention> {
    prop_oneof![Just(Intervention::Cancel), Just(Intervention::Retry), Just(Intervention::Discard)]
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let concurrency = proptest::array::uniform3(option::weighted(0.3, 0..3u32));
    let claim = (vec(0..3usize, 1..4), concurrency, 0..3usize, 1..4u32, seconds(1..60), 1..5u32).prop_map(
        |(queues, concurrency, owner, limit, lease, attempts)| Op::Claim {
            queues,
            concurrency,
            owner,
            limit,
            lease,
            attempts,
        },
    );
    let then = prop_oneof![
        3 => Just(AfterFailure::Retry),
        2 => seconds(0..30).prop_map(AfterFailure::RetryAfter),
        3 => Just(AfterFailure::Crash),
        1 => Just(AfterFailure::CrashTogether),
        2 => Just(AfterFailure::Bury),
    ];
    let backoff = prop_oneof![
        Just(Backoff::Curve),
        vec(seconds(0..30), 0..3).prop_map(|waits| Backoff::List(waits.into())),
    ];
    let retention = (seconds(1..90), 0..5u64, seconds(1..90), 0..5u64).prop_map(
        |(done_for, done_max, dead_for, dead_max)| Retention { done_for, done_max, dead_for, dead_max },
    );
    let queue = 0..3usize;
    prop_oneof![
        12 => vec(new_job(), 1..4).prop_map(Op::Enqueue),
        16 => claim,
        6 => (0..6usize).prop_map(Op::Complete),
        12 => (0..6usize, then, backoff).prop_map(|(lease, then, backoff)| Op::Fail(lease, then, backoff)),
        4 => (0..6usize).prop_map(Op::Release),
        4 => (0..6usize).prop_map(Op::GiveBack),
        4 => (0..6usize).prop_map(Op::Begin),
        4 => (vec(0..6usize, 1..4), seconds(1..60)).prop_map(|(leases, lease)| Op::Renew(leases, lease)),
        2 => prop_oneof![Just("host/"), Just("host/1"), Just("other/"), Just("")].prop_map(Op::FreeLeases),
        2 => queue.clone().prop_map(Op::Pause),
        3 => queue.prop_map(Op::Resume),
        8 => (0..20i64, intervention()).prop_map(|(job, what)| Op::Intervene(job, what)),
        2 => (filter(), intervention()).prop_map(|(filter, what)| Op::InterveneAll(filter, what)),
        6 => (filter(), page()).prop_map(|(filter, page)| Op::List(filter, page)),
        12 => seconds(0..60).prop_map(Op::Advance),
        1 => prop_oneof![-90..90i64, Just(-3_600), Just(3_600)].prop_map(Op::Step),
        2 => retention.prop_map(Op::Prune),
    ]
}
