//! The last events, in a bounded ring. Each event has the number after that of the one before it; the oldest go where there
//! is no room. A reader has a place: the number of the event that it wants next.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::admin::api::{EventView, HostEvent};

/// Events that are kept at most, and their bytes.
const EVENTS_MAX: usize = 10_000;
const BYTES_MAX: usize = 4 << 20;

/// Bytes that an event counts beyond its text.
const EVENT_BYTES: usize = 256;

/// See the module.
#[derive(Default)]
pub(super) struct Ring {
    kept: VecDeque<Arc<EventView>>,
    bytes: usize,
    /// The number of the next event.
    next: u64,
    /// No event has been left out since the one of this number.
    whole_since: u64,
}

/// A place in the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The event that is wanted next.
    pub(super) next: u64,
    /// Events before it are missing, and nobody knows how many.
    pub(super) has_gap: bool,
}

impl Ring {
    /// Keeps events from now on, after a time in which nobody did. Numbers begin with `at_least`, if they haven't come so far.
    pub(super) fn begin(&mut self, at_least: u64) {
        self.forget();
        self.next = self.next.max(at_least);
        self.whole_since = self.next;
    }

    /// Nobody wants them any more.
    pub(super) fn forget(&mut self) {
        (self.kept, self.bytes) = (VecDeque::new(), 0);
    }

    pub(super) fn push(&mut self, time: String, what: HostEvent) {
        let event = EventView { id: self.next, time, what };
        self.next += 1;
        self.bytes += bytes(&event);
        self.kept.push_back(Arc::new(event));
        while self.kept.len() > EVENTS_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.kept.pop_front() else { return };
            self.bytes -= bytes(&oldest);
        }
    }

    /// The place of a reader whose last event had this number, or of one who begins.
    pub(super) fn place_after(&self, last: Option<u64>) -> Place {
        let Some(last) = last else { return Place { next: self.next, has_gap: false } };
        match last.checked_add(1) {
            Some(next) if (self.whole_since..=self.next).contains(&next) => Place { next, has_gap: false },
            // It is of an earlier run, or of no run of this host.
            _ => Place { next: self.whole_since, has_gap: true },
        }
    }

    /// Up to `max` events from this number on, and how many are missing before them.
    pub(super) fn read(&self, next: u64, max: usize) -> (u64, Vec<Arc<EventView>>) {
        let first = self.next - self.kept.len() as u64;
        let missed = first.saturating_sub(next);
        let skipped = usize::try_from(next.saturating_sub(first)).unwrap_or(usize::MAX);
        (missed, self.kept.iter().skip(skipped).take(max).cloned().collect())
    }
}

fn bytes(event: &EventView) -> usize {
    event.what.foreign_text().map_or(0, str::len) + EVENT_BYTES
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn push(ring: &mut Ring, text_bytes: usize) {
        let event = HostEvent::Refusal { process: "web".into(), tried: "x".repeat(text_bytes) };
        ring.push(String::new(), event);
    }

    fn ring(begins_at: u64, events: usize) -> Ring {
        let mut ring = Ring::default();
        ring.begin(begins_at);
        (0..events).for_each(|_| push(&mut ring, 1));
        ring
    }

    #[test]
    fn a_reader_goes_on_behind_the_last_event_that_it_had() {
        let ring = ring(100, 5);
        assert_eq!(ring.place_after(None), Place { next: 105, has_gap: false });
        for (last, next) in [(99, 100), (102, 103), (104, 105)] {
            assert_eq!(ring.place_after(Some(last)), Place { next, has_gap: false }, "{last}");
        }
        let (missed, read) = ring.read(103, 10);
        assert_eq!((missed, read.len(), read[0].id), (0, 2, 103));
        assert_eq!(ring.read(105, 10), (0, vec![]));
    }

    #[test]
    fn one_whose_last_event_is_of_an_earlier_run_has_missed_nobody_knows_how_many() {
        let mut ring = ring(100, 5);
        for last in [0, 7, 98, 105, u64::MAX] {
            assert_eq!(ring.place_after(Some(last)), Place { next: 100, has_gap: true }, "{last}");
        }
        ring.begin(0);
        assert_eq!(ring.place_after(Some(104)), Place { next: 105, has_gap: false }, "it had all there was");
        assert_eq!(ring.place_after(Some(103)), Place { next: 105, has_gap: true });
    }

    proptest! {
        #[test]
        fn every_event_is_read_in_its_order_or_counted_as_missed_and_the_ring_is_bounded(
            steps in prop::collection::vec((1_usize..4_000, 0_usize..2_000, 0_usize..5_000), 1..20),
        ) {
            let mut ring = ring(1_000, 0);
            let (mut next, mut told, mut pushed) = (1_000, 0_u64, 0_u64);
            for (events, text_bytes, max) in steps {
                (0..events).for_each(|_| push(&mut ring, text_bytes));
                pushed += events as u64;
                prop_assert!(ring.kept.len() <= EVENTS_MAX && ring.bytes <= BYTES_MAX);
                let (missed, read) = ring.read(next, max);
                let ids: Vec<u64> = read.iter().map(|event| event.id).collect();
                let expected: Vec<u64> = (next + missed..).take(read.len()).collect();
                prop_assert_eq!(ids, expected);
                next += missed + read.len() as u64;
                told += missed + read.len() as u64;
            }
            let (missed, read) = ring.read(next, usize::MAX);
            prop_assert_eq!(told + missed + read.len() as u64, pushed);
        }
    }
}
