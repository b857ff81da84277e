//! Turns on the compute threads. Each process type gets the same time, however many of its calls want to compute.
//!
//! Each type has a line, and a mark: the time that it has computed. The type with the lowest mark goes next. A type that
//! had nothing to run for a while begins where the others are, so that it can't claim the time it didn't use.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use super::ticker::TICK;

/// A turn's time until its real one is known: a type whose turns are still under way must not look as if
/// it had none.
const TURN_NS: u64 = TICK.as_nanos() as u64;

/// A type's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TypeId(u64);

/// Where in its type's line something is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlaceInLine {
    First,
    Last,
}

/// See the module.
pub(crate) struct Turns<R> {
    types: HashMap<TypeId, Line<R>>,
    /// The types with something to run, by their marks.
    ready: BTreeSet<(u64, TypeId)>,
    /// The highest mark that had its turn.
    now_ns: u64,
    next: u64,
}

struct Line<R> {
    mark_ns: u64,
    waiting: VecDeque<R>,
}

impl<R> Default for Turns<R> {
    fn default() -> Self {
        Turns { types: HashMap::new(), ready: BTreeSet::new(), now_ns: 0, next: 0 }
    }
}

impl<R> Turns<R> {
    /// Adds a type.
    pub(crate) fn add(&mut self) -> TypeId {
        let id = TypeId(self.next);
        self.next += 1;
        self.types.insert(id, Line { mark_ns: 0, waiting: VecDeque::new() });
        id
    }

    /// Forgets a type, and returns what it still had to run.
    pub(crate) fn remove(&mut self, id: TypeId) -> VecDeque<R> {
        let Some(line) = self.types.remove(&id) else { return VecDeque::new() };
        self.ready.remove(&(line.mark_ns, id));
        line.waiting
    }

    #[cfg(test)]
    pub(crate) fn has_no_types(&self) -> bool {
        self.types.is_empty()
    }

    /// Puts something into its type's line. A type that isn't there gets it back.
    pub(crate) fn push(&mut self, id: TypeId, runnable: R, place: PlaceInLine) -> Result<(), R> {
        let Some(line) = self.types.get_mut(&id) else { return Err(runnable) };
        if line.waiting.is_empty() {
            line.mark_ns = line.mark_ns.max(self.now_ns);
            self.ready.insert((line.mark_ns, id));
        }
        match place {
            PlaceInLine::First => line.waiting.push_front(runnable),
            PlaceInLine::Last => line.waiting.push_back(runnable),
        }
        Ok(())
    }

    /// The next to run, and its type. The caller tells [`Turns::spent`] how long the turn took.
    pub(crate) fn take(&mut self) -> Option<(TypeId, R)> {
        let (mark_ns, id) = self.ready.pop_first()?;
        self.now_ns = self.now_ns.max(mark_ns);
        let line = self.types.get_mut(&id)?;
        let runnable = line.waiting.pop_front()?;
        line.mark_ns = mark_ns + TURN_NS;
        if !line.waiting.is_empty() {
            self.ready.insert((line.mark_ns, id));
        }
        Some((id, runnable))
    }

    /// A turn is over.
    pub(crate) fn spent(&mut self, id: TypeId, cpu: Duration) {
        let Some(line) = self.types.get_mut(&id) else { return };
        let cpu_ns = u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX);
        let mark_ns = (line.mark_ns - TURN_NS).saturating_add(cpu_ns);
        if self.ready.remove(&(line.mark_ns, id)) {
            self.ready.insert((mark_ns, id));
        }
        line.mark_ns = mark_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A type whose turns take this long, and what it computed.
    struct Sim {
        id: TypeId,
        turn_us: u64,
        turns: u64,
        us: u64,
    }

    /// Types with so many calls that never wait, and so long turns.
    fn sims(turns: &mut Turns<usize>, types: &[(usize, u64)]) -> Vec<Sim> {
        let sim = |(number, &(calls, turn_us)): (usize, &(usize, u64))| {
            let id = turns.add();
            (0..calls).for_each(|_| turns.push(id, number, PlaceInLine::Last).unwrap());
            Sim { id, turn_us, turns: 0, us: 0 }
        };
        types.iter().enumerate().map(sim).collect()
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
}
