//! Log lines about something that goes on: one is written a minute for each kind, and says how often it was since the last.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long no second line of one kind is written.
const PAUSE: Duration = Duration::from_secs(60);

/// Kinds that are remembered. Those past it have no lines.
const KINDS_MAX: usize = 1_000;

/// See the module.
pub(crate) struct RareLines<Kind> {
    told: Mutex<HashMap<Kind, Told>>,
}

struct Told {
    at: Instant,
    more: u64,
}

impl<Kind> Default for RareLines<Kind> {
    fn default() -> Self {
        RareLines { told: Mutex::default() }
    }
}

impl<Kind: Eq + Hash> RareLines<Kind> {
    /// It has happened. Where a line is due: how often it did since the last one, without a line.
    pub(crate) fn is_due(&self, kind: Kind) -> Option<u64> {
        self.is_due_at(kind, Instant::now())
    }

    fn is_due_at(&self, kind: Kind, now: Instant) -> Option<u64> {
        let mut told = self.told.lock().unwrap_or_else(|poison| poison.into_inner());
        if let Some(told) = told.get_mut(&kind) {
            if now.saturating_duration_since(told.at) < PAUSE {
                told.more += 1;
                return None;
            }
            return Some(std::mem::replace(told, Told { at: now, more: 0 }).more);
        }
        if told.len() == KINDS_MAX {
            told.retain(|_, told| now.saturating_duration_since(told.at) < PAUSE);
        }
        let has_room = told.len() < KINDS_MAX;
        has_room.then(|| told.insert(kind, Told { at: now, more: 0 }).map_or(0, |told| told.more))
    }
}

/// How a line says that.
pub(crate) fn and_more(more: u64, what: &str) -> String {
    match more {
        0 => String::new(),
        more => format!("; {more} more {what} since the last such line"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_a_minute_says_how_many_there_were() {
        let (lines, begun) = (RareLines::default(), Instant::now());
        let due = |kind, seconds| lines.is_due_at(kind, begun + Duration::from_secs(seconds));
        assert_eq!((due("a", 0), due("a", 1), due("a", 59)), (Some(0), None, None));
        assert_eq!(due("b", 30), Some(0));
        assert_eq!((due("a", 60), due("a", 61)), (Some(2), None));
        assert_eq!(due("a", 500), Some(1));
    }

    #[test]
    fn kinds_without_end_take_no_more_memory() {
        let (lines, begun) = (RareLines::default(), Instant::now());
        let told = (0..10_000).filter(|kind| lines.is_due_at(*kind, begun).is_some()).count();
        assert_eq!(told, KINDS_MAX);
        assert_eq!(lines.is_due_at(20_000, begun + PAUSE), Some(0));
    }
}
