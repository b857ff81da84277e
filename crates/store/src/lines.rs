//! The operations that wait for the writer, in lines: one for each source, such as a process type, and one for all others.
//! Lines take turns. A type that enqueues without end doesn't hold up the jobs of others.
//!
//! It goes in rounds. A line has [`ROUND_COST`] in each, and the operation that passes it. Within a round operations go in
//! the order in which they came. An operation of a line that asks for little is in the round under way, and so waits for
//! no more than a round of each other line, and one operation of each.
//!
//! Turns alone aren't enough where one operation takes as long as hundreds of others: who waits for each answer before asking
//! again is never in line when the next of these is taken. So a source's operation that costs more than a round is heavy, and
//! the writer rests from heavy ones after each, for as long as it took. All that a source asked for behind a heavy one waits with it.
//!
//! This is a machine without threads: the `writer` of each backend drives it. `host/src/output/queue.rs` has the same rounds for lines of output:
//! a mend of one may be one of the other.

use std::collections::BTreeMap;

/// The cost of one line's operations in one round. A cost of 1 is about a row of a table that is written.
const ROUND_COST: usize = 64;

/// A line, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LineId(pub(crate) usize);

impl LineId {
    /// That of the host itself and of those who run it. None of its operations is heavy.
    pub(crate) const UNNAMED: LineId = LineId(0);
}

/// Whether heavy operations may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heavy {
    Taken,
    Resting,
}

/// See the module.
pub(crate) struct Lines<T> {
    light: Waiting<T>,
    /// Heavy ones, and those behind one in the same line.
    heavy: Waiting<T>,
    /// The latest that an operation was taken of.
    round: u64,
    next: u64,
    /// By the numbers of the lines.
    places: Vec<Place>,
}

/// By round, and by the order in which they came.
type Waiting<T> = BTreeMap<(u64, u64), InLine<T>>;

struct InLine<T> {
    line: LineId,
    cost: usize,
    item: T,
}

/// An operation whose turn it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken<T> {
    pub(crate) cost: usize,
    pub(crate) is_heavy: bool,
    pub(crate) item: T,
}

/// The round that a line's next operation belongs to, and the cost of those that it has in it.
#[derive(Clone, Copy, Default)]
struct Place {
    round: u64,
    cost: usize,
    /// Its operations among the heavy ones.
    heavy: usize,
}

fn is_heavy(line: LineId, cost: usize) -> bool {
    line != LineId::UNNAMED && cost > ROUND_COST
}

impl<T> Lines<T> {
    pub(crate) fn new() -> Lines<T> {
        Lines { light: BTreeMap::new(), heavy: BTreeMap::new(), round: 0, next: 0, places: Vec::new() }
    }

    /// An operation comes, whose cost is at least 1.
    pub(crate) fn put(&mut self, line: LineId, cost: usize, item: T) {
        if self.places.len() <= line.0 {
            self.places.resize(line.0 + 1, Place::default());
        }
        let place = &mut self.places[line.0];
        if place.round < self.round {
            (place.round, place.cost) = (self.round, 0);
        }
        let behind_heavy = place.heavy > 0 || is_heavy(line, cost);
        place.heavy += usize::from(behind_heavy);
        let waiting = if behind_heavy { &mut self.heavy } else { &mut self.light };
        waiting.insert((place.round, self.next), InLine { line, cost, item });
        self.next += 1;
        place.cost += cost;
        place.round += (place.cost / ROUND_COST) as u64;
        place.cost %= ROUND_COST;
    }

    /// The next operation, if it costs no more than this.
    pub(crate) fn take(&mut self, cost_max: usize, heavy: Heavy) -> Option<Taken<T>> {
        let of_heavy = heavy == Heavy::Taken
            && match (self.heavy.first_key_value(), self.light.first_key_value()) {
                (Some((heavy, _)), Some((light, _))) => heavy < light,
                (heavy, _) => heavy.is_some(),
            };
        let first = if of_heavy { self.heavy.first_entry() } else { self.light.first_entry() }?;
        if first.get().cost > cost_max {
            return None;
        }
        // A heavy one that rested is of a round that is over.
        self.round = self.round.max(first.key().0);
        let InLine { line, cost, item } = first.remove();
        if of_heavy {
            self.places[line.0].heavy -= 1;
        }
        Some(Taken { cost, is_heavy: is_heavy(line, cost), item })
    }

    /// Whether there is one to be taken.
    pub(crate) fn has(&self, heavy: Heavy) -> bool {
        !self.light.is_empty() || heavy == Heavy::Taken && !self.heavy.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: LineId = LineId(1);
    const OTHER: LineId = LineId(2);

    #[test]
    fn operations_of_one_line_and_few_of_several_keep_their_order() {
        let mut lines = Lines::new();
        (0..1_000).for_each(|number| lines.put(ONE, 7, number));
        let order: Vec<_> =
            std::iter::from_fn(|| lines.take(usize::MAX, Heavy::Taken)).map(|taken| taken.item).collect();
        assert_eq!(order, (0..1_000).collect::<Vec<_>>());
        (0..50).for_each(|number| lines.put(if number % 3 == 0 { ONE } else { OTHER }, 1, number));
        let order: Vec<_> =
            std::iter::from_fn(|| lines.take(usize::MAX, Heavy::Taken)).map(|taken| taken.item).collect();
        assert_eq!(order, (0..50).collect::<Vec<_>>());
        assert!(!lines.has(Heavy::Taken));
    }

    #[test]
    fn an_operation_stands_behind_a_round_of_a_flood_and_not_behind_all_of_it() {
        let mut lines = Lines::new();
        (0..1_000).for_each(|number| lines.put(ONE, 1, number));
        lines.put(OTHER, 1, 1_000);
        let before = std::iter::from_fn(|| lines.take(usize::MAX, Heavy::Taken))
            .take_while(|taken| taken.item < 1_000);
        assert_eq!(before.count(), ROUND_COST);
        // Where it is one of large operations, behind none.
        let mut lines = Lines::new();
        (0..3).for_each(|number| lines.put(ONE, 1_000, number));
        assert_eq!(lines.take(512, Heavy::Taken), None);
        assert_eq!(lines.take(1_000, Heavy::Taken), Some(Taken { cost: 1_000, is_heavy: true, item: 0 }));
        lines.put(OTHER, 1, 3);
        assert_eq!(lines.take(512, Heavy::Taken), Some(Taken { cost: 1, is_heavy: false, item: 3 }));
        assert_eq!(lines.take(512, Heavy::Taken), None);
    }

    #[test]
    fn all_that_stands_behind_a_heavy_operation_in_its_line_rests_with_it() {
        let mut lines = Lines::new();
        let light = |item| Some(Taken { cost: 1, is_heavy: false, item });
        lines.put(ONE, 1, "before");
        lines.put(ONE, ROUND_COST + 1, "heavy");
        lines.put(ONE, 1, "behind");
        lines.put(OTHER, ROUND_COST, "other");
        assert_eq!(lines.take(1, Heavy::Resting), light("before"));
        let other = Taken { cost: ROUND_COST, is_heavy: false, item: "other" };
        assert_eq!(lines.take(ROUND_COST, Heavy::Resting), Some(other));
        assert!(!lines.has(Heavy::Resting) && lines.has(Heavy::Taken));
        assert_eq!(lines.take(usize::MAX, Heavy::Resting), None);
        let heavy = Taken { cost: ROUND_COST + 1, is_heavy: true, item: "heavy" };
        assert_eq!(lines.take(usize::MAX, Heavy::Taken), Some(heavy));
        lines.put(ONE, 1, "last");
        assert_eq!(lines.take(usize::MAX, Heavy::Taken), light("behind"));
        assert_eq!(lines.take(usize::MAX, Heavy::Taken), light("last"));
        lines.put(ONE, 1, "later");
        assert_eq!(lines.take(usize::MAX, Heavy::Resting), light("later"));
        assert_eq!(lines.take(usize::MAX, Heavy::Taken), None);
    }

    #[test]
    fn nothing_of_the_host_is_heavy() {
        let mut lines = Lines::new();
        lines.put(LineId::UNNAMED, 1_000, ());
        assert_eq!(lines.take(1_000, Heavy::Resting), Some(Taken { cost: 1_000, is_heavy: false, item: () }));
    }

    proptest! {
        /// Each line always has operations that wait, of its own size.
        #[test]
        fn busy_lines_get_the_same_share(costs in prop::collection::vec(1_usize..2_000, 2..6)) {
            let mut lines = Lines::new();
            let mut spent = vec![0; costs.len()];
            for (line, cost) in costs.iter().enumerate() {
                (0..3).for_each(|_| lines.put(LineId(line + 1), *cost, line));
            }
            for _ in 0..5_000 {
                let Taken { cost, item: line, .. } = lines.take(usize::MAX, Heavy::Taken).unwrap();
                spent[line] += cost;
                lines.put(LineId(line + 1), cost, line);
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
                let Taken { cost, item: line, .. } = lines.take(usize::MAX, Heavy::Taken).unwrap();
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
