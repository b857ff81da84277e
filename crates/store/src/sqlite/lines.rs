//! The operations that wait for the writer, in lines: one for each source, such as a process type, and one for all others.
//! Lines take turns. A type that enqueues without end doesn't hold up the jobs of others.
//!
//! It goes in rounds. A line has [`ROUND_COST`] in each, and the operation that passes it. Within a round operations go in
//! the order in which they came. An operation of a line that asks for little is in the round under way, and so waits for
//! no more than a round of each other line, and one operation of each.
//!
//! This is a machine without threads: `writer` drives it. `host/src/output/queue.rs` has the same rounds for lines of output:
//! a mend of one may be one of the other.

use std::collections::BTreeMap;

/// The cost of one line's operations in one round. A cost of 1 is about a row of a table that is written.
const ROUND_COST: usize = 64;

/// A line, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LineId(pub(super) usize);

/// See the module.
pub(super) struct Lines<T> {
    /// By round, and by the order in which they came.
    waiting: BTreeMap<(u64, u64), Waiting<T>>,
    /// That of the operation that was taken last.
    round: u64,
    next: u64,
    /// By the numbers of the lines.
    places: Vec<Place>,
}

struct Waiting<T> {
    cost: usize,
    item: T,
}

/// The round that a line's next operation belongs to, and the cost of those that it has in it.
#[derive(Clone, Copy, Default)]
struct Place {
    round: u64,
    cost: usize,
}

impl<T> Lines<T> {
    pub(super) fn new() -> Lines<T> {
        Lines { waiting: BTreeMap::new(), round: 0, next: 0, places: Vec::new() }
    }

    /// An operation comes, whose cost is at least 1.
    pub(super) fn put(&mut self, line: LineId, cost: usize, item: T) {
        if self.places.len() <= line.0 {
            self.places.resize(line.0 + 1, Place::default());
        }
        let place = &mut self.places[line.0];
        if place.round < self.round {
            *place = Place { round: self.round, cost: 0 };
        }
        self.waiting.insert((place.round, self.next), Waiting { cost, item });
        self.next += 1;
        place.cost += cost;
        place.round += (place.cost / ROUND_COST) as u64;
        place.cost %= ROUND_COST;
    }

    /// The next operation, if it costs no more than this, and its cost.
    pub(super) fn take(&mut self, cost_max: usize) -> Option<(usize, T)> {
        let first = self.waiting.first_entry()?;
        if first.get().cost > cost_max {
            return None;
        }
        self.round = first.key().0;
        let Waiting { cost, item } = first.remove();
        Some((cost, item))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: LineId = LineId(0);
    const OTHER: LineId = LineId(1);

    #[test]
    fn operations_of_one_line_and_few_of_several_keep_their_order() {
        let mut lines = Lines::new();
        (0..1_000).for_each(|number| lines.put(ONE, 7, number));
        let order: Vec<_> = std::iter::from_fn(|| lines.take(usize::MAX)).map(|(_, number)| number).collect();
        assert_eq!(order, (0..1_000).collect::<Vec<_>>());
        (0..50).for_each(|number| lines.put(if number % 3 == 0 { ONE } else { OTHER }, 1, number));
        let order: Vec<_> = std::iter::from_fn(|| lines.take(usize::MAX)).map(|(_, number)| number).collect();
        assert_eq!(order, (0..50).collect::<Vec<_>>());
        assert!(lines.is_empty());
    }

    #[test]
    fn an_operation_stands_behind_a_round_of_a_flood_and_not_behind_all_of_it() {
        let mut lines = Lines::new();
        (0..1_000).for_each(|number| lines.put(ONE, 1, number));
        lines.put(OTHER, 1, 1_000);
        let before = std::iter::from_fn(|| lines.take(usize::MAX)).take_while(|(_, number)| *number < 1_000);
        assert_eq!(before.count(), ROUND_COST);
        // Where it is one of large operations, behind none.
        let mut lines = Lines::new();
        (0..3).for_each(|number| lines.put(ONE, 1_000, number));
        assert_eq!(lines.take(512), None);
        assert_eq!(lines.take(1_000), Some((1_000, 0)));
        lines.put(OTHER, 1, 3);
        assert_eq!(lines.take(512), Some((1, 3)));
        assert_eq!(lines.take(512), None);
    }

    proptest! {
        /// Each line always has operations that wait, of its own size.
        #[test]
        fn busy_lines_get_the_same_share(costs in prop::collection::vec(1_usize..2_000, 2..6)) {
            let mut lines = Lines::new();
            let mut spent = vec![0; costs.len()];
            for (line, cost) in costs.iter().enumerate() {
                (0..3).for_each(|_| lines.put(LineId(line), *cost, line));
            }
            for _ in 0..5_000 {
                let (cost, line) = lines.take(usize::MAX).unwrap();
                spent[line] += cost;
                lines.put(LineId(line), cost, line);
            }
            for (one, cost) in costs.iter().enumerate() {
                for (other, cost_of_other) in costs.iter().enumerate() {
                    let bound = 2 * ROUND_COST + cost + cost_of_other;
                    prop_assert!(spent[one] <= spent[other] + bound, "{costs:?}: {spent:?}");
                }
            }
        }

        /// A line that had nothing to do gets no more for it.
        #[test]
        fn a_line_that_was_idle_has_no_credit(before in 0_usize..3_000, cost in 1_usize..1_500) {
            let mut lines = Lines::new();
            lines.put(OTHER, cost, 1);
            (0..3).for_each(|_| lines.put(ONE, 10, 0));
            let mut spent = [0, 0];
            for number in 0..before + 3_000 {
                if number == before {
                    spent = [0, 0];
                    (0..5_000).for_each(|_| lines.put(OTHER, cost, 1));
                }
                let (cost, line) = lines.take(usize::MAX).unwrap();
                spent[line] += cost;
                if line == 0 {
                    lines.put(ONE, 10, 0);
                }
            }
            // Each line may pass its round by one operation of its own.
            prop_assert!(spent[1] <= spent[0] + 2 * ROUND_COST + cost + 10, "{spent:?}");
        }
    }
}
