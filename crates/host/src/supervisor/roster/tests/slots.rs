//! Counts that hosts share: members have the indexes that are this host's, and no others.

use super::*;

impl World {
    fn desire_slots(&mut self, slots: &[u32]) {
        let leaving = self.roster.desire_slots(0, slots.to_vec());
        leaving.into_iter().for_each(|member| self.leave(member));
        self.carry_out();
    }

    fn indexes(&self) -> BTreeSet<u32> {
        self.roster.kind(0).members().map(|(_, place)| place.index).collect()
    }
}

#[test]
fn members_have_the_slots_of_their_host_and_those_that_stay_are_not_touched() {
    let mut world = World::new(10);
    world.desire_slots(&[2, 5, 7]);
    world.start_all();
    let before = world.serving.clone();
    world.desire_slots(&[1, 2, 7, 9]);
    assert_eq!(world.leaving.len(), 1, "the fifth is another host's now");
    world.start_all();
    assert_eq!(world.indexes(), BTreeSet::from([1, 2, 7, 9]));
    let stayed = before.iter().filter(|(member, _)| world.serving.contains_key(member));
    assert_eq!(stayed.map(|(_, (_, index))| *index).collect::<Vec<_>>(), [2, 7]);
    assert!(world.roster.kind(0).is_settled());
    world.desire_slots(&[]);
    assert_eq!((world.serving.len(), world.leaving.len()), (0, 5));
}

#[test]
fn a_slot_that_comes_back_has_a_new_instance_while_the_old_one_finishes_its_call() {
    let mut world = World::new(10);
    world.desire_slots(&[3]);
    world.start_all();
    world.desire_slots(&[]);
    world.desire_slots(&[3]);
    world.start_all();
    assert_eq!((world.serving.len(), world.leaving.len()), (1, 1));
    assert_eq!(world.indexes(), BTreeSet::from([3]));
}

#[test]
fn one_that_crashes_comes_back_in_its_slot_and_one_that_was_asked_to_leave_does_not() {
    let mut world = World::new(10);
    world.desire_slots(&[4, 6]);
    world.start_all();
    let crashed = *world.serving.first_key_value().unwrap().0;
    world.ends(crashed, Ending::Crashed);
    let left = world.serving.keys().copied().find(|member| *member != crashed).unwrap();
    world.ends(left, Ending::Left);
    world.start_all();
    assert_eq!(world.indexes(), BTreeSet::from([4, 6]));
    assert_eq!(world.serving.len(), 2);
}

#[test]
fn more_slots_than_there_is_room_for_wait() {
    let mut world = World::new(2);
    world.desire_slots(&[1, 2, 3]);
    world.start_all();
    assert_eq!(world.serving.len(), 2);
    assert!(!world.roster.kind(0).is_settled());
    world.desire_slots(&[2, 3]);
    world.start_all();
    let leaving: Vec<MemberId> = world.leaving.keys().copied().collect();
    leaving.into_iter().for_each(|member| world.ends(member, Ending::Left));
    world.start_all();
    assert_eq!(world.indexes(), BTreeSet::from([2, 3]));
    assert!(world.roster.kind(0).is_settled());
}
