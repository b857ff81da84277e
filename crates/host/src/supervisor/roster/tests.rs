mod moving;
mod slots;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// Both have one name, as a type and its canary do.
const NAME: &str = "web";
const TYPES: usize = 2;

/// Instances as a host has them, driven by a roster.
struct World {
    roster: Roster,
    slots: usize,
    /// All numbers under which something was started.
    numbers: BTreeSet<MemberId>,
    starting: BTreeMap<MemberId, usize>,
    /// Type and index.
    serving: BTreeMap<MemberId, (usize, u32)>,
    leaving: BTreeMap<MemberId, usize>,
    /// They go on when what they are for was tried again meanwhile.
    timers: Vec<(usize, MemberId)>,
}

fn roster(slots: usize) -> Roster {
    let mut roster = Roster::new(slots);
    (0..TYPES).for_each(|type_index| roster.begin(type_index, NAME.into(), 1));
    roster
}

impl World {
    fn new(slots: usize) -> World {
        World {
            roster: roster(slots),
            slots,
            numbers: BTreeSet::new(),
            starting: BTreeMap::new(),
            serving: BTreeMap::new(),
            leaving: BTreeMap::new(),
            timers: vec![],
        }
    }

    fn with_counts(slots: usize, counts: [usize; TYPES]) -> World {
        let mut world = World::new(slots);
        for (type_index, count) in counts.into_iter().enumerate() {
            world.desire(type_index, count);
        }
        world.start_all();
        world
    }

    fn desire(&mut self, type_index: usize, count: usize) {
        let leaving = self.roster.desire(type_index, count, |member| member.is_multiple_of(2));
        leaving.into_iter().for_each(|member| self.leave(member));
        self.carry_out();
    }

    fn leave(&mut self, member: MemberId) {
        let (type_index, _) = self.serving.remove(&member).expect("only those that serve are asked to leave");
        self.leaving.insert(member, type_index);
    }

    fn restart(&mut self, type_index: usize) {
        let members: Vec<_> = self.roster.kind(type_index).members().map(|(member, _)| member).collect();
        members.into_iter().for_each(|member| self.roster.restart(type_index, member));
        self.carry_out();
    }

    fn renew(&mut self, type_index: usize, version: u64) {
        self.roster.renew(type_index, version, |member| member.is_multiple_of(2));
        self.carry_out();
    }

    fn start_succeeds(&mut self, member: MemberId) {
        let type_index = self.starting.remove(&member).unwrap();
        if let Some(Wanted { index, instead_of }) = self.roster.started(type_index, member, false) {
            self.serving.insert(member, (type_index, index));
            instead_of.into_iter().for_each(|old| self.leave(old));
        }
        self.carry_out();
    }

    fn start_fails(&mut self, member: MemberId) {
        let type_index = self.starting.remove(&member).unwrap();
        if self.roster.failed_to_start(type_index, member).is_some() {
            self.timers.push((type_index, member));
        }
        self.carry_out();
    }

    fn ends(&mut self, member: MemberId, ending: Ending) {
        let type_index = match self.serving.remove(&member) {
            Some((type_index, _)) => type_index,
            None => self.leaving.remove(&member).unwrap(),
        };
        if self.roster.ended(type_index, member, ending).is_some() {
            self.timers.push((type_index, member));
        }
        self.carry_out();
    }

    fn timer_fires(&mut self, at: usize) {
        let (type_index, member) = self.timers.swap_remove(at);
        self.roster.waited(type_index, member);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        for cancelled in self.roster.take_cancelled() {
            assert!(self.starting.contains_key(&cancelled), "{cancelled} isn't starting");
        }
        for Start { type_index, member, .. } in self.roster.take_starts() {
            assert!(self.numbers.insert(member), "{member} is started twice");
            self.starting.insert(member, type_index);
        }
        self.check();
    }

    fn check(&self) {
        let live = self.starting.len() + self.serving.len() + self.leaving.len();
        assert!(live <= self.slots, "{live} instances in {} slots", self.slots);
        let names: BTreeSet<_> = self.serving.values().map(|(_, index)| *index).collect();
        assert_eq!(names.len(), self.serving.len(), "two instances have one name: {:?}", self.serving);
        let members = (0..TYPES).flat_map(|type_index| self.roster.kind(type_index).members());
        let mut taken = BTreeSet::new();
        for (_, Member { index, .. }) in members {
            assert!(taken.insert(*index), "two members have the index {index}");
        }
        let mut held = 0;
        for type_index in 0..TYPES {
            let kind = self.roster.kind(type_index);
            let in_phase = |phase| kind.members().filter(move |(_, place)| place.phase == phase);
            let serving: BTreeSet<_> = in_phase(Phase::Serving).map(|(member, _)| member).collect();
            let here = self.serving.iter().filter(|(_, (of, _))| *of == type_index);
            assert_eq!(serving, here.map(|(member, _)| *member).collect());
            let leaving: BTreeSet<_> = kind.leaving().collect();
            let here = self.leaving.iter().filter(|(_, of)| **of == type_index);
            assert_eq!(leaving, here.map(|(member, _)| *member).collect());
            let indexes: BTreeSet<_> = kind.members().map(|(_, place)| place.index).collect();
            assert_eq!(indexes.len(), kind.desired(), "as many members as are desired, each with its index");
            let counted =
                [Phase::Starting, Phase::Serving, Phase::Backoff].map(|phase| in_phase(phase).count());
            assert_eq!(counted, [kind.tally.starting, kind.tally.serving, kind.tally.backoff]);
            held += kind.held();
        }
        assert_eq!(held, live, "the slots that are held are those of what there is");
    }

    fn start_all(&mut self) {
        while let Some((member, _)) = self.starting.first_key_value() {
            self.start_succeeds(*member);
        }
    }

    /// Everything goes well from now on, and nothing more is asked.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            self.start_all();
            while let Some((member, _)) = self.leaving.first_key_value() {
                self.ends(*member, Ending::Left);
            }
            match self.timers.is_empty() {
                false => self.timer_fires(0),
                true if self.starting.is_empty() => return,
                true => {}
            }
        }
        panic!("it doesn't come to an end");
    }

    fn numbers_of(&self, type_index: usize) -> Vec<MemberId> {
        let serving = self.serving.iter().filter(|(_, (of, _))| *of == type_index);
        serving.map(|(member, _)| *member).collect()
    }
}

fn nth<T: Copy>(mut of: impl ExactSizeIterator<Item = T>, at: usize) -> Option<T> {
    let count = of.len();
    if count == 0 { None } else { of.nth(at % count) }
}

#[derive(Debug, Clone)]
enum Step {
    Desire(usize, usize),
    Restart(usize),
    Renew(usize, u64),
    Late(usize),
    Due(usize),
    Succeeds(usize),
    Fails(usize),
    Ends(usize, Ending),
    Leaves(usize),
    Timer(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let ending = prop_oneof![
        Just(Ending::Recycled),
        Just(Ending::Crashed),
        Just(Ending::FailedToStart),
        Just(Ending::Exited { forgiven: false }),
        Just(Ending::Exited { forgiven: true }),
        Just(Ending::Left),
    ];
    prop_oneof![
        2 => (0..TYPES, 0..5_usize).prop_map(|(type_index, count)| Step::Desire(type_index, count)),
        2 => (0..TYPES).prop_map(Step::Restart),
        2 => (0..TYPES, 1..4_u64).prop_map(|(type_index, version)| Step::Renew(type_index, version)),
        1 => any::<usize>().prop_map(Step::Late),
        2 => any::<usize>().prop_map(Step::Due),
        6 => any::<usize>().prop_map(Step::Succeeds),
        2 => any::<usize>().prop_map(Step::Fails),
        4 => (any::<usize>(), ending).prop_map(|(at, ending)| Step::Ends(at, ending)),
        3 => any::<usize>().prop_map(Step::Leaves),
        3 => any::<usize>().prop_map(Step::Timer),
    ]
}

impl World {
    fn take(&mut self, step: Step) {
        match step {
            Step::Desire(type_index, count) => self.desire(type_index, count),
            Step::Restart(type_index) => self.restart(type_index),
            Step::Renew(type_index, version) => self.renew(type_index, version),
            Step::Late(at) => {
                if let Some((member, type_index)) = nth(self.leaving.iter(), at) {
                    self.roster.note_late(*type_index, *member);
                    self.carry_out();
                }
            }
            Step::Due(at) => {
                if let Some((member, (type_index, _))) = nth(self.serving.iter(), at) {
                    self.roster.replace(*type_index, *member, false);
                    self.carry_out();
                }
            }
            Step::Succeeds(at) => {
                if let Some(member) = nth(self.starting.keys(), at) {
                    self.start_succeeds(*member);
                }
            }
            Step::Fails(at) => {
                if let Some(member) = nth(self.starting.keys(), at) {
                    self.start_fails(*member);
                }
            }
            Step::Ends(at, ending) => {
                if let Some(member) = nth(self.serving.keys(), at) {
                    self.ends(*member, ending);
                }
            }
            Step::Leaves(at) => {
                if let Some(member) = nth(self.leaving.keys(), at) {
                    self.ends(*member, Ending::Left);
                }
            }
            Step::Timer(at) => {
                if let Some(at) = nth(0..self.timers.len(), at) {
                    self.timer_fires(at);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// There is room for one more than the most that are desired. Whatever happens in whatever order: no place has two
    /// instances, no more instances live than there are slots for, and once nothing happens any more exactly as many
    /// serve as are desired, all of the version that their type has.
    #[test]
    fn every_count_is_reached_and_no_member_has_two_instances(
        slots in 9..14_usize,
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let mut world = World::new(slots);
        steps.into_iter().for_each(|step| world.take(step));
        world.settle();
        for type_index in 0..TYPES {
            let kind = world.roster.kind(type_index);
            prop_assert!(kind.is_settled());
            prop_assert_eq!(world.numbers_of(type_index).len(), kind.desired());
            prop_assert_eq!(kind.of_present_version(), kind.desired());
            prop_assert_eq!((kind.successors().len(), kind.leaving().len()), (0, 0));
        }
    }
}

#[test]
fn a_restart_in_backoff_is_the_one_start_of_its_member() {
    let mut world = World::new(10);
    world.desire(0, 1);
    let first = *world.starting.first_key_value().unwrap().0;
    world.start_fails(first);
    assert_eq!((world.timers.len(), world.starting.len()), (1, 0));
    world.restart(0);
    assert_eq!(world.starting.len(), 1);
    // Its timer goes off, before the start has ended or after it.
    world.timers.push((0, first));
    world.timer_fires(0);
    assert_eq!(world.starting.len(), 1);
    world.start_all();
    world.timer_fires(0);
    assert_eq!((world.starting.len(), world.serving.len()), (0, 1));
    world.desire(0, 0);
    world.settle();
    assert!(world.serving.is_empty());
}

#[test]
fn a_member_that_was_scaled_away_in_backoff_does_not_come_back() {
    let mut world = World::new(10);
    world.desire(0, 1);
    let first = *world.starting.first_key_value().unwrap().0;
    world.start_fails(first);
    world.desire(0, 0);
    world.timer_fires(0);
    assert!(world.starting.is_empty());
}

#[test]
fn a_restart_replaces_each_and_each_serves_until_its_successor_does() {
    let mut world = World::with_counts(12, [4, 0]);
    let before = world.numbers_of(0);
    world.restart(0);
    assert_eq!((world.serving.len(), world.starting.len()), (4, 1), "a quarter at once");
    world.settle();
    let after = world.numbers_of(0);
    assert!(before.iter().all(|member| !after.contains(member)), "{before:?} {after:?}");
    let kind = world.roster.kind(0);
    assert_eq!((kind.recycled, kind.restarts), (4, 0));
}

#[test]
fn a_successor_that_waits_after_a_failure_is_tried_at_once_where_a_person_asks() {
    let mut world = World::with_counts(10, [1, 0]);
    world.restart(0);
    let successor = *world.starting.first_key_value().unwrap().0;
    world.start_fails(successor);
    assert!(world.starting.is_empty());
    world.restart(0);
    assert_eq!(world.starting.len(), 1);
    world.settle();
    assert!(world.roster.kind(0).is_settled());
}

#[test]
fn a_successor_takes_the_place_of_a_member_that_dies_first() {
    let mut world = World::with_counts(10, [1, 0]);
    world.restart(0);
    let (member, successor) = (world.numbers_of(0)[0], *world.starting.first_key_value().unwrap().0);
    world.ends(member, Ending::Crashed);
    assert_eq!(world.starting.len(), 1, "there is one start, and not two");
    world.start_all();
    assert_eq!(world.numbers_of(0), [successor]);
}

#[test]
fn what_leaves_of_one_type_takes_no_room_from_replacements_of_another_where_slots_are_free() {
    // Room for ten, and for ten more that leave or come.
    let mut world = World::with_counts(20, [9, 1]);
    world.desire(0, 0);
    world.desire(0, 9);
    world.start_all();
    world.desire(0, 0);
    assert_eq!((world.leaving.len(), world.serving.len()), (18, 1));
    world.restart(1);
    assert_eq!(world.starting.len(), 1);
}

#[test]
fn members_wait_for_a_slot_and_go_before_successors() {
    let mut world = World::with_counts(5, [4, 0]);
    world.desire(0, 0);
    world.desire(0, 3);
    // Four still leave.
    assert_eq!((world.leaving.len(), world.starting.len()), (4, 1));
    world.start_all();
    world.restart(0);
    assert_eq!(world.starting.len(), 0);
    let leaving = *world.leaving.first_key_value().unwrap().0;
    world.ends(leaving, Ending::Left);
    let started = *world.starting.first_key_value().unwrap().0;
    assert!(world.roster.kind(0).members().any(|(member, _)| member == started));
    world.settle();
    assert_eq!(world.numbers_of(0).len(), 3);
}

#[test]
fn those_without_an_instance_leave_first_then_idle_ones_then_the_highest_index() {
    let mut world = World::with_counts(20, [4, 0]);
    let index_of = |world: &World| world.serving.values().map(|(_, index)| *index).collect::<BTreeSet<u32>>();
    world.desire(0, 5);
    world.desire(0, 4);
    assert_eq!(index_of(&world).len(), 4, "the fifth had none");
    // Those with even numbers are busy, and their indexes are their numbers.
    world.desire(0, 3);
    assert_eq!(index_of(&world), BTreeSet::from([1, 2, 4]));
    world.desire(0, 1);
    assert_eq!(index_of(&world), BTreeSet::from([2]));
}

#[test]
fn nothing_starts_once_it_is_stopped() {
    let mut world = World::with_counts(10, [2, 0]);
    world.roster.stop();
    let member = world.numbers_of(0)[0];
    world.ends(member, Ending::Crashed);
    world.restart(0);
    assert!(world.starting.is_empty());
}

#[test]
fn an_index_is_free_when_nothing_of_that_name_has_it() {
    let mut world = World::with_counts(40, [2, 1]);
    let other: Arc<str> = "worker".into();
    assert_eq!(world.roster.reserve(other.clone()), 1, "another name");
    assert_eq!(world.roster.reserve(NAME.into()), 4);
    world.desire(0, 3);
    assert!(world.roster.kind(0).members().any(|(_, place)| place.index == 5));
    world.roster.free(NAME, 4);
    // One that leaves has its index until it has left.
    world.start_all();
    world.desire(1, 0);
    world.desire(0, 5);
    let indexes: BTreeSet<u32> = world.roster.kind(0).members().map(|(_, place)| place.index).collect();
    assert_eq!(indexes, BTreeSet::from([1, 2, 4, 5, 6]));
    assert_eq!(world.roster.reserve(other), 2);
    // A type that comes back while its instances leave.
    world.start_all();
    world.desire(0, 0);
    world.roster.begin(2, NAME.into(), 1);
    world.roster.desire(2, 2, |_| false);
    let indexes: BTreeSet<u32> = world.roster.kind(2).members().map(|(_, place)| place.index).collect();
    assert_eq!(indexes, BTreeSet::from([7, 8]), "all others leave");
}
