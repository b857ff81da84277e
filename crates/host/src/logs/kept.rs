//! The last lines of each type. A type that writes a lot pushes its own lines out, and those of no other.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::admin::api::LogLine;

/// Lines of one type that are kept, and their bytes.
pub(super) const LINES_MAX: usize = 10_000;
const BYTES_MAX: usize = 4 << 20;

/// Bytes of all types together. Past them the type that has the most of them loses its oldest.
const ALL_BYTES_MAX: usize = 32 << 20;

/// Bytes that a line counts beyond its text.
const LINE_BYTES: usize = 100;

/// See the module.
#[derive(Default)]
pub(super) struct Kept {
    types: BTreeMap<Arc<str>, Ring>,
    bytes: usize,
    next: u64,
}

/// One type's lines, each with its place among those of all types.
#[derive(Default)]
struct Ring {
    lines: VecDeque<(u64, Arc<LogLine>)>,
    bytes: usize,
}

impl Kept {
    pub(super) fn keep(&mut self, process: &Arc<str>, line: Arc<LogLine>) {
        let bytes = bytes(&line);
        if !self.types.contains_key(process) {
            self.types.insert(process.clone(), Ring::default());
        }
        let Some(ring) = self.types.get_mut(process) else { return };
        ring.lines.push_back((self.next, line));
        ring.bytes += bytes;
        self.bytes += bytes;
        self.next += 1;
        while ring.lines.len() > LINES_MAX || ring.bytes > BYTES_MAX {
            self.bytes -= ring.drop_oldest();
        }
        while self.bytes > ALL_BYTES_MAX {
            let Some(largest) = self.types.values_mut().max_by_key(|ring| ring.bytes) else { return };
            self.bytes -= largest.drop_oldest();
        }
    }

    /// The last `count` lines that are wanted, the oldest of them first.
    pub(super) fn last(&self, count: usize, wanted: impl Fn(&LogLine) -> bool) -> Vec<Arc<LogLine>> {
        let mut last: Vec<&(u64, Arc<LogLine>)> = self
            .types
            .values()
            .flat_map(|ring| ring.lines.iter().rev().filter(|(_, line)| wanted(line)).take(count))
            .collect();
        last.sort_unstable_by_key(|(number, _)| *number);
        let first = last.len().saturating_sub(count);
        last[first..].iter().map(|(_, line)| line.clone()).collect()
    }
}

impl Ring {
    /// Returns how many bytes that frees.
    fn drop_oldest(&mut self) -> usize {
        let Some((_, oldest)) = self.lines.pop_front() else { return self.bytes };
        let bytes = bytes(&oldest);
        self.bytes -= bytes;
        bytes
    }
}

fn bytes(line: &LogLine) -> usize {
    line.line.len() + LINE_BYTES
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
}
