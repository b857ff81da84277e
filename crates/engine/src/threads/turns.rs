//! Turns on the compute threads. Each process type gets time in proportion to its weight, however many of its calls want to
//! compute.
//!
//! Each type has a line, and a mark: the time that it has computed, divided by its weight. The type with the lowest mark
//! goes next. A type that had nothing to run for a while begins where the others are, so that it can't claim the time it
//! didn't use.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use super::ticker::TICK;

/// A turn's time until its real one is known: a type whose turns are still under way must not look as if
/// it had none.
const TURN_NS: u64 = TICK.as_nanos() as u64;

/// Marks are in this fraction of a nanosecond, so that a short turn of a type with a great weight counts too.
const MARKS_PER_NS: u64 = 16;

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
    now: u64,
    next: u64,
}

struct Line<R> {
    /// At least 1.
    weight: u32,
    mark: u64,
    waiting: VecDeque<R>,
}

impl<R> Default for Turns<R> {
    fn default() -> Self {
        Turns { types: HashMap::new(), ready: BTreeSet::new(), now: 0, next: 0 }
    }
}

impl<R> Turns<R> {
    /// Adds a type of weight 1.
    pub(crate) fn add(&mut self) -> TypeId {
        let id = TypeId(self.next);
        self.next += 1;
        self.types.insert(id, Line { weight: 1, mark: 0, waiting: VecDeque::new() });
        id
    }

    /// A type gets so many times the time of one of weight 1 from now on. Turns that are under way count by the weight that
    /// it has when they end.
    pub(crate) fn weigh(&mut self, id: TypeId, weight: u32) {
        if let Some(line) = self.types.get_mut(&id) {
            line.weight = weight.max(1);
        }
    }

    /// Forgets a type, and returns what it still had to run.
    pub(crate) fn remove(&mut self, id: TypeId) -> VecDeque<R> {
        let Some(line) = self.types.remove(&id) else { return VecDeque::new() };
        self.ready.remove(&(line.mark, id));
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
            line.mark = line.mark.max(self.now);
            self.ready.insert((line.mark, id));
        }
        match place {
            PlaceInLine::First => line.waiting.push_front(runnable),
            PlaceInLine::Last => line.waiting.push_back(runnable),
        }
        Ok(())
    }

    /// The next to run, and its type. The caller tells [`Turns::spent`] how long the turn took.
    pub(crate) fn take(&mut self) -> Option<(TypeId, R)> {
        let (mark, id) = self.ready.pop_first()?;
        self.now = self.now.max(mark);
        let line = self.types.get_mut(&id)?;
        let runnable = line.waiting.pop_front()?;
        line.mark = mark.saturating_add(line.share_of(TURN_NS));
        if !line.waiting.is_empty() {
            self.ready.insert((line.mark, id));
        }
        Some((id, runnable))
    }

    /// A turn is over.
    pub(crate) fn spent(&mut self, id: TypeId, cpu: Duration) {
        let Some(line) = self.types.get_mut(&id) else { return };
        let cpu_ns = u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX);
        let mark = line.mark.saturating_sub(line.share_of(TURN_NS)).saturating_add(line.share_of(cpu_ns));
        if self.ready.remove(&(line.mark, id)) {
            self.ready.insert((mark, id));
        }
        line.mark = mark;
    }
}

impl<R> Line<R> {
    /// The part that so much time adds to the mark.
    fn share_of(&self, cpu_ns: u64) -> u64 {
        cpu_ns.saturating_mul(MARKS_PER_NS) / u64::from(self.weight)
    }
}

#[cfg(test)]
mod tests;
