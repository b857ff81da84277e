pub(super) mod things;
mod versions;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use proptest::prelude::*;

use self::things::{Call, Thing};
use super::*;

/// How a type is called.
#[derive(Debug, Clone, Copy)]
struct Manner {
    fresh_each_call: bool,
    by_promise: bool,
}

const KEPT: Manner = Manner { fresh_each_call: false, by_promise: false };
const FRESH: Manner = Manner { fresh_each_call: true, by_promise: false };
const PROMISED: Manner = Manner { fresh_each_call: false, by_promise: true };

/// A line with those who use it.
struct World {
    line: Line<Thing, Call>,
    concurrency: u32,
    calls_max: usize,
    manner: Manner,
    next_member: MemberId,
    next_call: u32,
    /// The instances that calls have, by the call's number.
    lent: BTreeMap<u32, Held<Thing>>,
    promised: BTreeSet<u32>,
    waiting: BTreeMap<u32, (Need, Call)>,
    renewing: Vec<Thing>,
    /// Calls in the order in which they were given something.
    served: Vec<u32>,
}

impl World {
    fn new(concurrency: u32, calls_max: usize, manner: Manner) -> World {
        World {
            line: Line::new(calls_max),
            concurrency,
            calls_max,
            manner,
            next_member: 1,
            next_call: 1,
            lent: BTreeMap::new(),
            promised: BTreeSet::new(),
            waiting: BTreeMap::new(),
            renewing: vec![],
            served: vec![],
        }
    }

    fn with_instances(mut self, count: u32) -> World {
        (0..count).for_each(|_| self.admit());
        self
    }

    fn admit(&mut self) {
        let thing = Thing {
            member: self.next_member,
            concurrency: self.concurrency,
            for_one_call: self.manner.fresh_each_call,
            leaving: Rc::default(),
            release: 1,
        };
        self.next_member += 1;
        self.put(thing, 0);
    }

    /// A call asks; its number, and whether it was refused.
    fn ask(&mut self, need: Need) -> (u32, Option<NoInstance>) {
        let number = self.next_call;
        self.next_call += 1;
        let refused = match self.line.ask(need, Turn::Last, self.manner.by_promise, || true) {
            Asked::Handed(handed) => {
                self.goes_in_order(number, need);
                self.hand(number, handed);
                None
            }
            Asked::Wait { turn, renew } => {
                let call = Call { number, gone: Rc::default() };
                self.waiting.insert(number, (need, call.clone()));
                self.line.wait(turn, call);
                self.renewing.extend(renew.map(|held| held.instance));
                None
            }
            Asked::Refused(none) => Some(none),
        };
        self.hand_out();
        (number, refused)
    }

    fn any(&mut self) -> u32 {
        self.ask(Need::Any).0
    }

    fn hand(&mut self, number: u32, handed: Handed<Thing>) {
        self.served.push(number);
        match handed {
            Handed::Instance(held) => drop(self.lent.insert(number, held)),
            Handed::Promise => drop(self.promised.insert(number)),
        }
    }

    fn hand_out(&mut self) {
        while let Some((call, handed)) = self.line.next(self.manner.by_promise) {
            assert!(!call.has_gone());
            let (need, _) = self.waiting.remove(&call.number).unwrap();
            self.goes_in_order(call.number, need);
            self.hand(call.number, handed);
        }
        self.check();
    }

    /// No call waits that came before this one, and for the same. (One that may have a seat takes it, although another
    /// waits for the instance that is being renewed for it.)
    fn goes_in_order(&self, number: u32, need: Need) {
        if need != Need::FreshOrSeat {
            let first = self.waiting.iter().find(|(_, (of, _))| *of == need).map(|(first, _)| *first);
            assert!(first.is_none_or(|first| first > number), "{number} goes before {first:?}");
        }
    }

    fn put(&mut self, thing: Thing, served: u64) {
        match self.line.put(Held { instance: thing, served }) {
            Put::Kept | Put::Leaves(_) => {}
            Put::Renew(held) => self.renewing.push(held.instance),
        }
        self.hand_out();
    }

    /// The call is over; where it failed its instance is of no use.
    fn give_back(&mut self, number: u32, failed: bool) {
        let held = self.lent.remove(&number).unwrap();
        let failed = failed.then(|| Ended::ByCall("it failed".into()));
        match self.line.leave(held.instance.member, failed) {
            Left::Nobody(None) => self.put(held.instance, held.served + 1),
            Left::Nobody(Some(_)) | Left::Others => self.hand_out(),
        }
    }

    fn renew(&mut self, at: usize, succeeds: bool) {
        let thing = self.renewing.swap_remove(at);
        self.line.renewed();
        if succeeds {
            self.put(thing, 0);
        }
    }

    fn goes(&mut self, number: u32) {
        self.waiting.remove(&number).unwrap().1.gone.set(true);
        self.hand_out();
    }

    fn redeem(&mut self, number: u32) {
        self.promised.remove(&number);
        if let Some(held) = self.line.redeem() {
            self.lent.insert(number, held);
        }
        self.hand_out();
    }

    fn withdraw(&mut self, number: u32) {
        self.promised.remove(&number);
        self.line.withdraw();
        self.hand_out();
    }

    fn drain(&mut self, member: MemberId) {
        let all = self.line.idle.iter().map(|held| &held.instance);
        let all = all.chain(self.lent.values().map(|held| &held.instance)).chain(&self.renewing);
        all.filter(|thing| thing.member == member).for_each(|thing| thing.leaving.set(true));
        self.line.take_leaving();
        self.hand_out();
    }

    fn check(&self) {
        let mut calls: BTreeMap<MemberId, u32> = BTreeMap::new();
        for held in self.lent.values() {
            *calls.entry(held.instance.member).or_default() += 1;
        }
        let calls_max = if self.manner.fresh_each_call { 1 } else { self.concurrency };
        assert!(calls.values().all(|calls| *calls <= calls_max), "{calls:?}");
        assert!(self.line.idle.iter().all(|held| !calls.contains_key(&held.instance.member)));
        assert!(self.line.waiting() <= self.calls_max);
        assert_eq!(self.line.waiting(), self.waiting.len());
        assert_eq!(self.line.renewing, self.renewing.len());
        let waits = |wanted| self.waiting.values().any(|(need, _)| *need == wanted);
        assert!(!waits(Need::Any) || self.line.room() == 0, "a call waits, and there is room");
        let unused = self.line.idle.iter().any(|held| held.served == 0) && self.line.free() > 0;
        assert!(!waits(Need::Fresh) || !unused, "a call waits, and what it wants is there");
    }

    fn members(&self, numbers: &[u32]) -> Vec<MemberId> {
        numbers.iter().map(|number| self.lent[number].instance.member).collect()
    }
}

fn nth<T: Copy>(of: impl IntoIterator<Item = T>, at: usize) -> Option<T> {
    let all: Vec<T> = of.into_iter().collect();
    if all.is_empty() { None } else { Some(all[at % all.len()]) }
}

#[derive(Debug, Clone)]
enum Step {
    Ask(Need),
    GiveBack(usize, bool),
    Goes(usize),
    Renewed(usize, bool),
    Redeem(usize),
    Withdraw(usize),
    Admit,
    Drain(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let need = prop_oneof![3 => Just(Need::Any), 1 => Just(Need::Fresh), 1 => Just(Need::FreshOrSeat)];
    prop_oneof![
        8 => need.prop_map(Step::Ask),
        6 => (any::<usize>(), prop::bool::weighted(0.1)).prop_map(|(at, failed)| Step::GiveBack(at, failed)),
        2 => any::<usize>().prop_map(Step::Goes),
        3 => (any::<usize>(), prop::bool::weighted(0.9)).prop_map(|(at, succeeds)| Step::Renewed(at, succeeds)),
        2 => any::<usize>().prop_map(Step::Redeem),
        1 => any::<usize>().prop_map(Step::Withdraw),
        2 => Just(Step::Admit),
        1 => any::<usize>().prop_map(Step::Drain),
    ]
}

impl World {
    fn take(&mut self, step: Step) {
        match step {
            Step::Ask(need) => drop(self.ask(need)),
            Step::GiveBack(at, failed) => {
                if let Some(number) = nth(self.lent.keys().copied(), at) {
                    self.give_back(number, failed);
                }
            }
            Step::Goes(at) => {
                if let Some(number) = nth(self.waiting.keys().copied(), at) {
                    self.goes(number);
                }
            }
            Step::Renewed(at, succeeds) => {
                if let Some(at) = nth(0..self.renewing.len(), at) {
                    self.renew(at, succeeds);
                }
            }
            Step::Redeem(at) => {
                if let Some(number) = nth(self.promised.iter().copied(), at) {
                    self.redeem(number);
                }
            }
            Step::Withdraw(at) => {
                if let Some(number) = nth(self.promised.iter().copied(), at) {
                    self.withdraw(number);
                }
            }
            Step::Admit if self.next_member < 6 => self.admit(),
            Step::Admit => {}
            Step::Drain(at) => {
                if let Some(member) = nth(1..self.next_member, at) {
                    self.drain(member);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: no call goes before one that waits for the same, none waits while there is
    /// room for it, and no instance has more calls than it may. [`World`] checks it after each step.
    #[test]
    fn nobody_is_overtaken_and_nobody_waits_where_there_is_room(
        concurrency in 1..4_u32,
        calls_max in 0..12_usize,
        manner in prop_oneof![Just(KEPT), Just(FRESH), Just(PROMISED)],
        steps in prop::collection::vec(step(), 0..150),
    ) {
        let mut world = World::new(concurrency, calls_max, manner);
        steps.into_iter().for_each(|step| world.take(step));
        // All calls that still wait are served by what is given back at the end.
        world.admit();
        loop {
            if let Some(number) = world.promised.first().copied() {
                world.redeem(number);
            } else if !world.renewing.is_empty() {
                world.renew(0, true);
            } else if let Some(number) = world.lent.keys().next().copied() {
                world.give_back(number, false);
            } else {
                break;
            }
        }
        prop_assert!(world.waiting.is_empty(), "{:?} still wait", world.waiting.keys());
    }
}

#[test]
fn an_instance_that_comes_free_takes_as_many_of_the_line_as_it_has_seats() {
    let mut world = World::new(4, 100, KEPT);
    let numbers: Vec<u32> = (0..6).map(|_| world.any()).collect();
    world.admit();
    assert_eq!(world.served, numbers[..4]);
    world.give_back(numbers[1], false);
    assert_eq!(world.served, numbers[..5]);
}

#[test]
fn who_comes_goes_behind_those_who_wait() {
    let mut world = World::new(2, 100, KEPT).with_instances(1);
    let numbers: Vec<u32> = (0..3).map(|_| world.any()).collect();
    // A seat comes free, and before it is handed out another call asks.
    let held = world.lent.remove(&numbers[0]).unwrap();
    assert!(matches!(world.line.leave(held.instance.member, None), Left::Others));
    assert!(world.line.try_lend().is_none(), "nor does one that won't wait");
    let late = world.any();
    assert_eq!(world.served, numbers);
    assert!(world.waiting.contains_key(&late));
}

#[test]
fn nobody_waits_in_a_closed_line_and_what_is_free_is_lent() {
    for manner in [KEPT, FRESH, PROMISED] {
        let mut world = World::new(1, 100, manner).with_instances(1);
        let (first, waiting) = (world.any(), [world.any(), world.ask(Need::Fresh).0]);
        let mut sent_away: Vec<u32> = world.line.close().iter().map(|call| call.number).collect();
        sent_away.sort_unstable();
        assert_eq!(sent_away, waiting);
        world.waiting.clear();
        assert_eq!(world.ask(Need::Any).1, Some(NoInstance::LineFull));
        if manner.by_promise {
            world.redeem(first);
        }
        world.give_back(first, false);
        while !world.renewing.is_empty() {
            world.renew(0, true);
        }
        let (next, refused) = world.ask(Need::Any);
        assert_eq!((refused, world.served.last()), (None, Some(&next)));
        world.line.open();
        assert_eq!(world.ask(Need::Any).1, None);
    }
}

#[test]
fn one_that_was_admitted_before_goes_first() {
    let mut world = World::new(1, 100, KEPT);
    let (first, _) = (world.any(), world.any());
    let call = Call { number: 99, gone: Rc::default() };
    world.waiting.insert(99, (Need::FreshOrSeat, call.clone()));
    assert!(matches!(
        world.line.ask(Need::Any, Turn::First, false, || false),
        Asked::Wait { turn: Turn::First, .. }
    ));
    world.line.wait(Turn::First, call);
    world.admit();
    assert_eq!(world.served, [99]);
    world.give_back(99, false);
    assert_eq!(world.served, [99, first]);
}

#[test]
fn of_idle_instances_the_one_used_last_is_next() {
    let mut world = World::new(1, 100, KEPT).with_instances(3);
    let numbers: Vec<u32> = (0..3).map(|_| world.any()).collect();
    assert_eq!(world.members(&numbers), [3, 2, 1]);
    world.give_back(numbers[1], false);
    world.give_back(numbers[0], false);
    let next = world.any();
    assert_eq!(world.members(&[next]), [3]);
}

#[test]
fn a_full_line_refuses_until_somebody_has_gone() {
    let mut world = World::new(1, 2, KEPT);
    let (first, second) = (world.any(), world.any());
    assert_eq!(world.ask(Need::Any).1, Some(NoInstance::LineFull));
    world.goes(second);
    assert_eq!(world.ask(Need::Any).1, None);
    world.admit();
    assert_eq!(world.served, [first]);
}

#[test]
fn a_call_that_needs_an_unused_instance_has_a_used_one_renewed() {
    let mut world = World::new(1, 100, KEPT).with_instances(1);
    let used = world.any();
    world.give_back(used, false);
    let (fresh, _) = world.ask(Need::Fresh);
    assert_eq!(world.renewing.len(), 1);
    world.renew(0, true);
    assert_eq!(world.served, [used, fresh]);
    assert_eq!(world.lent[&fresh].served, 0);
}

#[test]
fn no_more_instances_are_renewed_than_calls_wait_for() {
    let mut world = World::new(1, 100, KEPT).with_instances(4);
    let numbers: Vec<u32> = (0..4).map(|_| world.any()).collect();
    let (fresh, _) = world.ask(Need::Fresh);
    numbers.iter().for_each(|number| world.give_back(*number, false));
    assert_eq!(world.renewing.len(), 1);
    world.renew(0, true);
    assert!(world.lent.contains_key(&fresh));
    // Others are as they were.
    let next = world.any();
    assert_eq!(world.lent[&next].served, 1);
}

#[test]
fn a_call_that_may_have_a_seat_takes_it_where_all_are_busy() {
    let mut world = World::new(3, 100, KEPT).with_instances(1);
    let first = world.ask(Need::FreshOrSeat).0;
    let second = world.ask(Need::FreshOrSeat).0;
    assert_eq!(world.members(&[first, second]), [1, 1]);
    world.give_back(first, false);
    world.give_back(second, false);
    // Idle and used: it is renewed.
    let third = world.ask(Need::FreshOrSeat).0;
    assert_eq!((world.renewing.len(), world.waiting.contains_key(&third)), (1, true));
}

#[test]
fn an_instance_that_was_lent_alone_has_no_seats() {
    let mut world = World::new(3, 100, KEPT).with_instances(1);
    let held = world.line.try_lend_alone().unwrap();
    let waiting = world.any();
    assert!(world.waiting.contains_key(&waiting));
    assert!(world.line.try_lend_alone().is_none());
    assert!(matches!(world.line.leave(held.instance.member, None), Left::Nobody(None)));
    world.put(held.instance, held.served + 1);
    assert!(world.lent.contains_key(&waiting));
}

#[test]
fn an_instance_in_which_a_call_has_failed_takes_no_more() {
    let mut world = World::new(3, 100, KEPT).with_instances(1);
    let (first, second) = (world.any(), world.any());
    world.give_back(first, true);
    let third = world.any();
    assert!(world.waiting.contains_key(&third));
    world.give_back(second, false);
    assert!(world.waiting.contains_key(&third), "it isn't kept either");
}

#[test]
fn a_promise_keeps_an_instance_and_not_a_certain_one() {
    let mut world = World::new(1, 100, PROMISED).with_instances(2);
    let (first, second) = (world.any(), world.any());
    let third = world.any();
    assert!(world.waiting.contains_key(&third));
    world.redeem(second);
    world.redeem(first);
    assert_eq!(world.members(&[second, first]), [2, 1]);
    world.give_back(second, false);
    assert!(world.promised.contains(&third));
}

#[test]
fn where_there_is_nothing_to_wait_for_nobody_waits() {
    let mut world = World::new(1, 100, KEPT);
    let (waiting, _) = (world.any(), world.ask(Need::Fresh));
    let sent_away = world.line.set_outlook(Outlook::NoCount);
    assert_eq!(sent_away.len(), 2);
    assert!(sent_away.iter().any(|call| call.number == waiting));
    world.waiting.clear();
    assert_eq!(world.ask(Need::Any).1, Some(NoInstance::NoCount));
    world.line.set_outlook(Outlook::AllInBackoff);
    assert_eq!(world.ask(Need::Any).1, Some(NoInstance::AllInBackoff));
    world.line.set_outlook(Outlook::Good);
    assert_eq!(world.ask(Need::Any).1, None);
}
