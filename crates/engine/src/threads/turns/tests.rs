use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A type whose turns take this long, and what it computed.
struct Sim {
    id: TypeId,
    turn_us: u64,
    turns: u64,
    us: u64,
    /// When its last turn began, and how long it ever had to wait for the next one.
    last_us: u64,
    gap_us: u64,
}

/// Types with so many calls that never wait, and so long turns.
fn sims(turns: &mut Turns<usize>, types: &[(usize, u64)]) -> Vec<Sim> {
    let sim = |(number, &(calls, turn_us)): (usize, &(usize, u64))| {
        let id = turns.add();
        (0..calls).for_each(|_| turns.push(id, number, PlaceInLine::Last).unwrap());
        Sim { id, turn_us, turns: 0, us: 0, last_us: 0, gap_us: 0 }
    };
    types.iter().enumerate().map(sim).collect()
}

/// The same with weights.
fn weighed(turns: &mut Turns<usize>, types: &[(u32, usize, u64)]) -> Vec<Sim> {
    let without: Vec<_> = types.iter().map(|&(_, calls, turn_us)| (calls, turn_us)).collect();
    let sims = sims(turns, &without);
    sims.iter().zip(types).for_each(|(sim, &(weight, ..))| turns.weigh(sim.id, weight));
    sims
}

/// So many threads run for so long, each turn to its end, and what ran wants to run on.
fn run(turns: &mut Turns<usize>, sims: &mut [Sim], threads: usize, us: u64) {
    // When each thread is free again, and what it runs until then.
    let mut busy: Vec<(u64, Option<usize>)> = vec![(0, None); threads];
    loop {
        let thread = busy.iter_mut().min_by_key(|thread| thread.0).unwrap();
        if thread.0 >= us {
            return;
        }
        if let Some(number) = thread.1.take() {
            // As a task does that woke itself: first it is put back, then its turn is over.
            turns.push(sims[number].id, number, PlaceInLine::Last).unwrap();
            turns.spent(sims[number].id, Duration::from_micros(sims[number].turn_us));
        }
        let Some((_, number)) = turns.take() else {
            // Until another thread puts something back.
            thread.0 += 1;
            continue;
        };
        let sim = &mut sims[number];
        (sim.turns, sim.us) = (sim.turns + 1, sim.us + sim.turn_us);
        sim.gap_us = sim.gap_us.max(thread.0.saturating_sub(sim.last_us));
        sim.last_us = thread.0;
        *thread = (thread.0 + sim.turn_us, Some(number));
    }
}

#[track_caller]
fn assert_near(one: u64, other: u64) {
    assert!(one.abs_diff(other) * 50 <= one.max(other), "{one} and {other}");
}

#[test]
fn a_type_with_a_hundred_loops_gets_as_many_turns_as_one_with_one() {
    for threads in [1, 2] {
        let mut turns = Turns::default();
        let mut sims = sims(&mut turns, &[(100, 1_000), (1, 1_000)]);
        run(&mut turns, &mut sims, threads, 1_000_000);
        assert_near(sims[0].turns, sims[1].turns);
        assert_near(sims[0].turns + sims[1].turns, 1_000 * threads as u64);
    }
}

#[test]
fn three_types_share_two_threads() {
    let mut turns = Turns::default();
    let mut sims = sims(&mut turns, &[(100, 1_000), (1, 1_000), (2, 1_000)]);
    run(&mut turns, &mut sims, 2, 3_000_000);
    sims.iter().for_each(|sim| assert_near(sim.turns, 2_000));
}

#[test]
fn short_calls_get_the_time_of_long_ones() {
    let mut turns = Turns::default();
    let mut sims = sims(&mut turns, &[(100, 1_000), (4, 50)]);
    run(&mut turns, &mut sims, 1, 1_000_000);
    assert_near(sims[0].us, sims[1].us);
    assert_near(sims[0].turns * 20, sims[1].turns);
}

#[test]
fn a_type_that_waited_goes_first_and_has_nothing_to_catch_up() {
    let mut turns = Turns::default();
    let mut sims = sims(&mut turns, &[(100, 1_000), (100, 1_000), (0, 1_000)]);
    run(&mut turns, &mut sims, 1, 1_000_000);
    let late = sims[2].id;
    (0..100).for_each(|_| turns.push(late, 2, PlaceInLine::Last).unwrap());
    let next: Vec<_> = (0..90).map(|_| turns.take().unwrap().0).collect();
    assert!(next[..3].contains(&late));
    assert_eq!(next.iter().filter(|id| **id == late).count(), 30);
}

#[test]
fn a_type_that_uses_less_than_its_share_leaves_the_rest_and_starves_nobody() {
    // One call can't use two of four threads.
    let mut turns = Turns::default();
    let mut sims = sims(&mut turns, &[(100, 1_000), (1, 1_000)]);
    run(&mut turns, &mut sims, 4, 1_000_000);
    assert_near(sims[0].turns, 3_000);
    assert_near(sims[1].turns, 1_000);
    // A third type begins with the others, not where the second one is.
    let late = turns.add();
    (0..100).for_each(|_| turns.push(late, 2, PlaceInLine::Last).unwrap());
    let next: Vec<_> = (0..40).map(|_| turns.take().unwrap().0).collect();
    let of_first = next.iter().filter(|id| **id == sims[0].id).count();
    assert!((17..=23).contains(&of_first), "{next:?}");
}

#[test]
fn a_type_s_calls_run_in_their_order() {
    let mut turns = Turns::default();
    let id = turns.add();
    (0..5).for_each(|number| turns.push(id, number, PlaceInLine::Last).unwrap());
    turns.push(id, 5, PlaceInLine::First).unwrap();
    let order: Vec<_> = std::iter::from_fn(|| turns.take()).map(|(_, number)| number).collect();
    assert_eq!(order, [5, 0, 1, 2, 3, 4]);
}

#[test]
fn a_type_that_was_removed_leaves_nothing_behind() {
    let mut turns = Turns::default();
    let (gone, stays) = (turns.add(), turns.add());
    turns.push(gone, 1, PlaceInLine::Last).unwrap();
    turns.push(gone, 2, PlaceInLine::Last).unwrap();
    turns.push(stays, 3, PlaceInLine::Last).unwrap();
    assert_eq!(turns.remove(gone), [1, 2]);
    assert_eq!(turns.push(gone, 4, PlaceInLine::Last), Err(4));
    turns.spent(gone, TICK);
    assert_eq!(turns.take(), Some((stays, 3)));
    assert!(turns.take().is_none() && turns.types.len() == 1);
}

#[test]
fn a_type_of_weight_three_gets_three_times_the_time_of_others() {
    let mut turns = Turns::default();
    let mut sims = weighed(&mut turns, &[(3, 1, 1_000), (1, 100, 1_000), (1, 8, 100)]);
    run(&mut turns, &mut sims, 1, 5_000_000);
    assert_near(sims[0].us, 3_000_000);
    assert_near(sims[1].us, 1_000_000);
    assert_near(sims[2].us, 1_000_000);
}

#[test]
fn a_type_alone_gets_all_of_the_time_whatever_its_weight() {
    for weight in [1, 1_000] {
        let mut turns = Turns::default();
        let mut sims = weighed(&mut turns, &[(weight, 4, 1_000), (1_000, 0, 1_000)]);
        run(&mut turns, &mut sims, 2, 1_000_000);
        assert_near(sims[0].us, 2_000_000);
    }
}

#[test]
fn a_weight_that_changes_counts_from_then_on() {
    let mut turns = Turns::default();
    let mut sims = weighed(&mut turns, &[(1, 4, 1_000), (1, 4, 1_000)]);
    run(&mut turns, &mut sims, 1, 1_000_000);
    assert_near(sims[0].us, sims[1].us);
    turns.weigh(sims[0].id, 9);
    let before = (sims[0].us, sims[1].us);
    // One call of each is lost as the first run ends: there are others.
    run(&mut turns, &mut sims, 1, 1_000_000);
    assert_near(sims[0].us - before.0, 9 * (sims[1].us - before.1));
}

/// Types that always have something to run, each as much as there are threads: weight, calls and the length of a turn.
fn busy(threads: usize) -> impl Strategy<Value = Vec<(u32, usize, u64)>> {
    vec((1_u32..=1_000, threads + 1..threads + 20, 10_u64..3_000), 2..6)
}

proptest! {
    #[test]
    fn shares_come_to_the_weights((threads, types) in (1_usize..=4).prop_flat_map(|n| (Just(n), busy(n)))) {
        let mut turns = Turns::default();
        let mut sims = weighed(&mut turns, &types);
        run(&mut turns, &mut sims, threads, 2_000_000);
        // In time for each unit of weight two types are never further from each other than by the turns that each has
        // under way, of which some were counted as full ones.
        let by_weight = |at: usize| sims[at].us as f64 / f64::from(types[at].0);
        let turn = |at: usize| sims[at].turn_us.max(1_000) as f64 / f64::from(types[at].0);
        for (one, sim) in sims.iter().enumerate() {
            for other in 0..types.len() {
                let apart = by_weight(one) - by_weight(other);
                // The share of a turn in a mark is rounded down.
                let rounded = sim.turns as f64 / (1_000 * MARKS_PER_NS) as f64;
                let bound = (threads + 1) as f64 * (turn(one) + turn(other)) + rounded;
                prop_assert!(apart <= bound, "{types:?}, {threads} threads: {one} and {other}: {apart} > {bound}");
            }
        }
        let in_all: u64 = sims.iter().map(|sim| sim.us).sum();
        prop_assert!(in_all >= 2_000_000 * threads as u64, "a thread had nothing to do");
    }

    #[test]
    fn nobody_waits_for_longer_than_the_others_shares_take(types in busy(1)) {
        let mut turns = Turns::default();
        let mut sims = weighed(&mut turns, &types);
        run(&mut turns, &mut sims, 1, 2_000_000);
        for (at, sim) in sims.iter().enumerate() {
            let own = sim.turn_us.max(1_000) as f64 / f64::from(types[at].0);
            let others = types.iter().enumerate().filter(|(other, _)| *other != at);
            let bound: f64 = others.map(|(_, &(weight, _, turn_us))| own * f64::from(weight) + 2.0 * turn_us.max(1_000) as f64).sum();
            let waits = sim.gap_us.max(2_000_000_u64.saturating_sub(sim.last_us)) as f64;
            prop_assert!(waits <= bound + sim.turn_us as f64, "{types:?}: {at} waited {waits} us, not {bound}");
        }
    }

    #[test]
    fn a_type_that_had_nothing_to_run_has_no_credit(types in busy(1), weight in 1_u32..=1_000, idle_us in 0_u64..1_000_000) {
        let mut turns = Turns::default();
        let mut sims = weighed(&mut turns, &types);
        let late = turns.add();
        turns.weigh(late, weight);
        // It ran once, long ago.
        turns.push(late, sims.len(), PlaceInLine::Last).unwrap();
        sims.push(Sim { id: late, turn_us: 1_000, turns: 0, us: 0, last_us: 0, gap_us: 0 });
        while turns.types[&late].waiting.front().is_some() {
            let (id, number) = turns.take().unwrap();
            turns.spent(id, Duration::from_micros(sims[number].turn_us));
            if id != late {
                turns.push(id, number, PlaceInLine::Last).unwrap();
            }
        }
        run(&mut turns, &mut sims, 1, idle_us);
        (0..20).for_each(|_| turns.push(late, types.len(), PlaceInLine::Last).unwrap());
        let before: Vec<u64> = sims.iter().map(|sim| sim.us).collect();
        run(&mut turns, &mut sims, 1, 1_000_000);
        let since = |at: usize| (sims[at].us - before[at]) as f64;
        let own = since(types.len()) / f64::from(weight);
        for (at, &(weight_of_other, _, turn_us)) in types.iter().enumerate() {
            let bound = 2.0 * (1_000.0 / f64::from(weight) + turn_us.max(1_000) as f64 / f64::from(weight_of_other));
            let other = since(at) / f64::from(weight_of_other);
            prop_assert!(own <= other + bound, "{own} us for each unit of weight, and the other {other}");
        }
    }
}
