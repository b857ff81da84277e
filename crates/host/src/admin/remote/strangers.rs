//! The connections that haven't shown the right token yet. Few are inside at a time, and fewer of one address; the others
//! wait, in the order in which they came. Each that is inside has a moment to show the token. After it, one for whose place
//! somebody waits has to go. So nobody keeps others out by holding places: a newcomer waits for as many moments as there
//! are rounds before it.
//!
//! ```text
//! enter -> waits -> inside -> (the right token) let in: it is no stranger any more
//!                          -> gone, late, or its moment is over and somebody waits
//!       -> refused: too many wait already
//! ```

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;

/// The most that there may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) inside_max: usize,
    pub(super) inside_of_address_max: usize,
    pub(super) waiting_max: usize,
    pub(super) waiting_of_address_max: usize,
}

/// See the module. `Address` is a client's, and `Tell` how one that waits is told that it is inside.
pub(super) struct Strangers<Address, Tell> {
    bounds: Bounds,
    /// By number.
    inside: BTreeMap<u64, Address>,
    /// In the order in which they came.
    waiting: VecDeque<(u64, Address, Tell)>,
    last: u64,
}

/// Where one is that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entered {
    Inside(u64),
    Waits(u64),
    Refused,
}

impl<Address: Copy + Eq + Hash, Tell> Strangers<Address, Tell> {
    pub(super) fn new(bounds: Bounds) -> Strangers<Address, Tell> {
        Strangers { bounds, inside: BTreeMap::new(), waiting: VecDeque::new(), last: 0 }
    }

    /// One more has come.
    pub(super) fn enter(&mut self, address: Address, tell: Tell) -> Entered {
        let count = |all: &mut dyn Iterator<Item = &Address>| all.filter(|of| **of == address).count();
        let inside = count(&mut self.inside.values());
        let waiting = count(&mut self.waiting.iter().map(|(_, address, _)| address));
        let Bounds { inside_max, inside_of_address_max, waiting_max, waiting_of_address_max } = self.bounds;
        if self.inside.len() < inside_max && inside < inside_of_address_max {
            self.last += 1;
            self.inside.insert(self.last, address);
            return Entered::Inside(self.last);
        }
        if self.waiting.len() >= waiting_max || waiting >= waiting_of_address_max {
            return Entered::Refused;
        }
        self.last += 1;
        self.waiting.push_back((self.last, address, tell));
        Entered::Waits(self.last)
    }

    /// One has gone, or was let in. Returns those that are inside from now on.
    pub(super) fn leave(&mut self, number: u64) -> Vec<Tell> {
        if self.inside.remove(&number).is_none() {
            self.waiting.retain(|(waits, _, _)| *waits != number);
            return vec![];
        }
        let mut counts: HashMap<Address, usize> = HashMap::new();
        for address in self.inside.values() {
            *counts.entry(*address).or_default() += 1;
        }
        let mut told = vec![];
        for (number, address, tell) in std::mem::take(&mut self.waiting) {
            let count = counts.entry(address).or_default();
            if self.inside.len() < self.bounds.inside_max && *count < self.bounds.inside_of_address_max {
                *count += 1;
                self.inside.insert(number, address);
                told.push(tell);
            } else {
                self.waiting.push_back((number, address, tell));
            }
        }
        told
    }

    /// Whether somebody would be inside if this one weren't.
    pub(super) fn is_awaited(&self, number: u64) -> bool {
        let Some(address) = self.inside.get(&number) else { return false };
        let of_address = |of: &Address| self.inside.values().filter(|inside| *inside == of).count();
        let is_full = self.inside.len() >= self.bounds.inside_max;
        self.waiting.iter().any(|(_, waits, _)| {
            waits == address || (is_full && of_address(waits) < self.bounds.inside_of_address_max)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn strangers(inside: [usize; 2], waiting: [usize; 2]) -> Strangers<char, u64> {
        Strangers::new(Bounds {
            inside_max: inside[0],
            inside_of_address_max: inside[1],
            waiting_max: waiting[0],
            waiting_of_address_max: waiting[1],
        })
    }

    #[test]
    fn those_that_wait_come_in_by_their_turn() {
        let mut strangers = strangers([2, 2], [9, 9]);
        assert_eq!(strangers.enter('a', 1), Entered::Inside(1));
        assert_eq!(strangers.enter('a', 2), Entered::Inside(2));
        assert_eq!(strangers.enter('b', 3), Entered::Waits(3));
        assert_eq!(strangers.enter('a', 4), Entered::Waits(4));
        assert_eq!(strangers.leave(1), [3]);
        assert_eq!(strangers.leave(2), [4]);
        assert!(strangers.leave(2).is_empty());
        assert_eq!(strangers.enter('c', 5), Entered::Waits(5));
        assert!(strangers.leave(5).is_empty(), "it waits no more");
        assert!(strangers.leave(3).is_empty());
    }

    #[test]
    fn an_address_that_has_its_part_keeps_no_other_one_waiting() {
        let mut strangers = strangers([4, 2], [9, 9]);
        for tell in 1..=2 {
            strangers.enter('a', tell);
        }
        assert_eq!(strangers.enter('a', 3), Entered::Waits(3));
        assert_eq!(strangers.enter('b', 4), Entered::Inside(4));
        assert!(strangers.is_awaited(1) && !strangers.is_awaited(4), "a waits for places of a alone");
        assert!(strangers.leave(4).is_empty());
        assert_eq!(strangers.leave(1), [3]);
    }

    #[test]
    fn a_place_is_awaited_where_somebody_would_have_it() {
        let mut strangers = strangers([2, 1], [9, 9]);
        strangers.enter('a', 1);
        strangers.enter('b', 2);
        assert!(!strangers.is_awaited(1));
        strangers.enter('a', 3);
        assert!(strangers.is_awaited(1) && !strangers.is_awaited(2));
        strangers.enter('c', 4);
        assert!(strangers.is_awaited(1) && strangers.is_awaited(2) && !strangers.is_awaited(4));
    }

    #[test]
    fn past_those_that_may_wait_one_is_refused() {
        let mut strangers = strangers([1, 1], [3, 2]);
        assert_eq!(strangers.enter('a', 1), Entered::Inside(1));
        assert_eq!(strangers.enter('a', 2), Entered::Waits(2));
        assert_eq!(strangers.enter('a', 3), Entered::Waits(3));
        assert_eq!(strangers.enter('a', 4), Entered::Refused);
        assert_eq!(strangers.enter('b', 5), Entered::Waits(4));
        assert_eq!(strangers.enter('c', 6), Entered::Refused);
    }

    proptest! {
        #[test]
        fn bounds_hold_and_whoever_waits_comes_in_when_those_before_it_leave(
            comers in proptest::collection::vec((0u8..5, any::<bool>()), 0..200),
        ) {
            let bounds =
                Bounds { inside_max: 6, inside_of_address_max: 3, waiting_max: 12, waiting_of_address_max: 5 };
            let mut strangers = Strangers::new(bounds);
            let (mut inside, mut waits) = (vec![], vec![]);
            for (address, leaves) in comers {
                let next = strangers.last + 1;
                match strangers.enter(address, next) {
                    Entered::Inside(number) => inside.push(number),
                    Entered::Waits(number) => waits.push(number),
                    Entered::Refused => {}
                }
                if leaves && !inside.is_empty() {
                    let told = strangers.leave(inside.remove(0));
                    prop_assert!(told.is_sorted());
                    waits.retain(|number| !told.contains(number));
                    inside.extend(told);
                }
                prop_assert!(strangers.inside.len() <= 6 && strangers.waiting.len() <= 12);
                for one in 0..5 {
                    prop_assert!(strangers.inside.values().filter(|of| **of == one).count() <= 3);
                    prop_assert!(strangers.waiting.iter().filter(|(_, of, _)| *of == one).count() <= 5);
                }
                // Nobody waits for nothing.
                prop_assert!(waits.is_empty() || strangers.inside.keys().any(|number| strangers.is_awaited(*number)));
            }
            while !inside.is_empty() {
                let told = strangers.leave(inside.remove(0));
                waits.retain(|number| !told.contains(number));
                inside.extend(told);
            }
            prop_assert!(waits.is_empty() && strangers.waiting.is_empty());
        }
    }
}
