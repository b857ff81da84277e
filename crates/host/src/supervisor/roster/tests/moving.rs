//! Moves from one version to another.

use super::*;

#[test]
fn a_move_replaces_each_and_has_a_quarter_more_at_most_with_those_that_leave() {
    let mut world = World::with_counts(40, [16, 4]);
    let (before, others) = (world.numbers_of(0), world.numbers_of(1));
    world.renew(0, 2);
    let mut most = 0;
    while !(world.starting.is_empty() && world.leaving.is_empty()) {
        let alive = world.starting.len() + world.serving.len() + world.leaving.len();
        most = most.max(alive - others.len());
        match world.starting.first_key_value() {
            Some((member, _)) => world.start_succeeds(*member),
            None => {
                let leaving = *world.leaving.first_key_value().unwrap().0;
                world.ends(leaving, Ending::Left);
            }
        }
    }
    assert_eq!(most, 20);
    assert!(before.iter().all(|member| !world.serving.contains_key(member)));
    assert_eq!(world.numbers_of(1), others, "the other type isn't touched");
}

#[test]
fn a_move_waits_for_those_that_leave_but_not_for_late_ones() {
    let mut world = World::with_counts(40, [4, 0]);
    world.renew(0, 2);
    world.start_all();
    assert_eq!((world.leaving.len(), world.starting.len()), (1, 0));
    let leaving = *world.leaving.first_key_value().unwrap().0;
    world.roster.note_late(0, leaving);
    world.carry_out();
    assert_eq!(world.starting.len(), 1);
}

#[test]
fn a_way_back_keeps_those_that_had_not_moved() {
    let mut world = World::with_counts(40, [8, 0]);
    world.renew(0, 2);
    let first = *world.starting.first_key_value().unwrap().0;
    world.start_succeeds(first);
    let kept: Vec<MemberId> = world.numbers_of(0).into_iter().filter(|member| *member != first).collect();
    world.renew(0, 1);
    world.settle();
    assert!(kept.iter().all(|member| world.serving.contains_key(member)), "{kept:?} {:?}", world.serving);
    assert!(!world.serving.contains_key(&first));
    assert_eq!(world.serving.len(), 8);
}

#[test]
fn a_start_of_the_old_version_that_comes_late_is_replaced() {
    let mut world = World::new(10);
    world.desire(0, 1);
    let old = *world.starting.first_key_value().unwrap().0;
    world.renew(0, 2);
    world.start_succeeds(old);
    assert!(!world.roster.kind(0).is_settled());
    world.settle();
    assert!(!world.serving.contains_key(&old) && world.serving.len() == 1);
}

#[test]
fn those_that_leave_hold_up_no_restart_once_the_move_is_over() {
    let mut world = World::with_counts(40, [4, 0]);
    world.renew(0, 2);
    for left in (0..4).rev() {
        world.start_all();
        let leaving = *world.leaving.first_key_value().unwrap().0;
        if left > 0 {
            world.ends(leaving, Ending::Left);
        }
    }
    assert_eq!((world.roster.kind(0).of_present_version(), world.leaving.len()), (4, 1));
    // Nobody has said that the move is over: a later one may have come in its place.
    world.restart(0);
    assert_eq!(world.starting.len(), 1);
}
