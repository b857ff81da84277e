//! The last lines that were written, bounded in number and in bytes. Each process type has a ring of its own: a type that
//! writes a lot pushes its own lines out, and those of no other.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::Line;
use crate::admin::api::LogLine;

/// Lines of one ring, and their bytes.
pub(super) const LINES_MAX: usize = 10_000;
const BYTES_MAX: usize = 4 << 20;

/// Bytes of all types together. Past them the type that has the most of them loses its oldest.
const ALL_BYTES_MAX: usize = 32 << 20;

/// The lines of all types.
#[derive(Default)]
pub(super) struct Kept {
    types: BTreeMap<Arc<str>, Ring<LogLine>>,
    bytes: usize,
    next: u64,
}

/// The last lines of one origin, each with its place among those of all.
pub(super) struct Ring<T> {
    lines: VecDeque<(u64, Arc<T>)>,
    bytes: usize,
}

impl Kept {
    pub(super) fn keep(&mut self, process: &Arc<str>, line: Arc<LogLine>) {
        if !self.types.contains_key(process) {
            self.types.insert(process.clone(), Ring::default());
        }
        let Some(ring) = self.types.get_mut(process) else { return };
        self.bytes -= ring.bytes;
        ring.keep(self.next, line);
        self.bytes += ring.bytes;
        self.next += 1;
        while self.bytes > ALL_BYTES_MAX {
            let Some(largest) = self.types.values_mut().max_by_key(|ring| ring.bytes) else { return };
            self.bytes -= largest.drop_oldest();
        }
    }

    /// The last `count` lines that are wanted, the oldest of them first.
    pub(super) fn last(&self, count: usize, wanted: impl Fn(&LogLine) -> bool) -> Vec<Arc<LogLine>> {
        let mut last: Vec<&(u64, Arc<LogLine>)> =
            self.types.values().flat_map(|ring| ring.newest(&wanted).take(count)).collect();
        last.sort_unstable_by_key(|(number, _)| *number);
        let first = last.len().saturating_sub(count);
        last[first..].iter().map(|(_, line)| line.clone()).collect()
    }

    /// The same among the last `among` lines of one type.
    pub(super) fn last_of(
        &self,
        process: &str,
        count: usize,
        among: usize,
        wanted: impl Fn(&LogLine) -> bool,
    ) -> Vec<Arc<LogLine>> {
        let Some(ring) = self.types.get(process) else { return vec![] };
        let newest = ring.newest(|_| true).take(among).filter(|(_, line)| wanted(line)).take(count);
        let mut last: Vec<_> = newest.map(|(_, line)| line.clone()).collect();
        last.reverse();
        last
    }
}

impl<T: Line> Ring<T> {
    /// Keeps a line with its place; older ones go where there is no room.
    pub(super) fn keep(&mut self, number: u64, line: Arc<T>) {
        self.bytes += line.bytes();
        self.lines.push_back((number, line));
        while self.lines.len() > LINES_MAX || self.bytes > BYTES_MAX {
            self.drop_oldest();
        }
    }

    /// The lines that are wanted, the newest of them first.
    pub(super) fn newest(&self, wanted: impl Fn(&T) -> bool) -> impl Iterator<Item = &(u64, Arc<T>)> {
        self.lines.iter().rev().filter(move |(_, line)| wanted(line))
    }

    /// Returns how many bytes that frees.
    fn drop_oldest(&mut self) -> usize {
        let Some((_, oldest)) = self.lines.pop_front() else { return self.bytes };
        let bytes = oldest.bytes();
        self.bytes -= bytes;
        bytes
    }
}

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Ring { lines: VecDeque::new(), bytes: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(kept: &mut Kept, process: &str, text: &str) {
        let line = LogLine {
            time: String::new(),
            instance: format!("{process}.1"),
            stream: "stdout".into(),
            line: text.into(),
        };
        kept.keep(&process.into(), Arc::new(line));
    }

    fn texts(lines: &[Arc<LogLine>]) -> Vec<&str> {
        lines.iter().map(|line| line.line.as_str()).collect()
    }

    #[test]
    fn a_type_that_writes_a_lot_pushes_out_its_own_lines_alone() {
        let mut kept = Kept::default();
        keep(&mut kept, "quiet", "first");
        (0..LINES_MAX + 5).for_each(|n| keep(&mut kept, "loud", &n.to_string()));
        keep(&mut kept, "quiet", "last");
        let of = |process: &'static str| move |line: &LogLine| line.instance.starts_with(process);
        assert_eq!(texts(&kept.last(usize::MAX, of("quiet"))), ["first", "last"]);
        let loud = kept.last(usize::MAX, of("loud"));
        assert_eq!((loud.len(), loud[0].line.as_str()), (LINES_MAX, "5"));
        let all = kept.last(3, |_| true);
        assert_eq!(texts(&all), ["10003", "10004", "last"]);
        assert_eq!(kept.last(0, |_| true).len(), 0);
    }

    #[test]
    fn all_types_together_are_bounded_and_the_small_ones_keep_theirs() {
        let mut kept = Kept::default();
        keep(&mut kept, "quiet", "first");
        let long = "x".repeat(16 << 10);
        for process in 0..20 {
            (0..300).for_each(|_| keep(&mut kept, &format!("loud{process}"), &long));
        }
        assert!(kept.bytes <= ALL_BYTES_MAX);
        assert_eq!(kept.bytes, kept.types.values().map(|ring| ring.bytes).sum::<usize>());
        assert_eq!(texts(&kept.last(usize::MAX, |line| line.instance == "quiet.1")), ["first"]);
    }

    #[test]
    fn the_last_lines_of_one_type_are_looked_for_among_so_many() {
        let mut kept = Kept::default();
        (0..10).for_each(|n| keep(&mut kept, "web", &n.to_string()));
        keep(&mut kept, "other", "x");
        let even = |line: &LogLine| line.line.parse::<u32>().is_ok_and(|n| n % 2 == 0);
        assert_eq!(texts(&kept.last_of("web", 2, 100, even)), ["6", "8"]);
        assert_eq!(texts(&kept.last_of("web", 9, 3, even)), ["8"]);
        assert_eq!(kept.last_of("nobody", 9, 3, even).len(), 0);
    }
}
