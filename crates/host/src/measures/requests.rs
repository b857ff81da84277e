//! The counts of one type's calls that change with every request: each thread has its own.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http::StatusCode;

use super::histogram::{self, Buckets, Figures, REQUESTS};
use super::shards::{Mine, Shards};

/// How a request came out, as far as metrics tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome(usize);

/// The classes of statuses and the codes of the host's own answers.
const OUTCOMES: [(&str, &str); 13] = [
    ("1xx", ""),
    ("2xx", ""),
    ("3xx", ""),
    ("4xx", ""),
    ("5xx", ""),
    ("other", ""),
    ("gone", ""),
    ("5xx", "H10"),
    ("5xx", "H11"),
    ("5xx", "H12"),
    ("5xx", "H13"),
    ("5xx", "H14"),
    ("5xx", "H15"),
];
const OTHER: usize = 5;
const FIRST_CODE: usize = 7;

impl Outcome {
    /// The client went away before there was an answer.
    pub(crate) const GONE: Outcome = Outcome(6);

    /// The outcome of an answer; `code` is the host's own.
    pub(crate) fn of(status: StatusCode, code: Option<&str>) -> Outcome {
        let of_code = code.and_then(|code| OUTCOMES.iter().position(|(_, known)| *known == code));
        Outcome(of_code.unwrap_or_else(|| match status.as_u16() / 100 {
            class @ 1..=5 => usize::from(class) - 1,
            _ => OTHER,
        }))
    }

    pub(crate) fn all() -> impl Iterator<Item = Outcome> {
        (0..OUTCOMES.len()).map(Outcome)
    }

    /// The class of its status: `2xx`, `gone`.
    pub(crate) fn status(self) -> &'static str {
        OUTCOMES[self.0].0
    }

    /// The host's code, or nothing.
    pub(crate) fn code(self) -> &'static str {
        OUTCOMES[self.0].1
    }

    /// Whether every type that takes requests is said to have had so many of it, be it none.
    pub(crate) fn is_usual(self) -> bool {
        self.0 >= FIRST_CODE || (1..OTHER).contains(&self.0)
    }
}

/// See the module.
pub(crate) struct RequestCounts(Shards<Counts>);

#[derive(Default)]
struct Counts {
    by_outcome: [AtomicU64; OUTCOMES.len()],
    durations: Buckets,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    waits: Buckets,
    /// Instances that took the place of a used one without the supervisor.
    fresh_starts: AtomicU64,
}

/// A request that is over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answered {
    pub(crate) outcome: Outcome,
    pub(crate) took: Duration,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
}

impl RequestCounts {
    pub(super) fn new() -> RequestCounts {
        RequestCounts(Shards::new())
    }

    pub(crate) fn answered(&self, answered: Answered) {
        let Answered { outcome, took, received_bytes, sent_bytes } = answered;
        let mine = self.0.mine();
        mine.add(&mine.counts.by_outcome[outcome.0], 1);
        note(&mine, &mine.counts.durations, took);
        if received_bytes > 0 {
            mine.add(&mine.counts.received_bytes, received_bytes);
        }
        if sent_bytes > 0 {
            mine.add(&mine.counts.sent_bytes, sent_bytes);
        }
    }

    /// A call has its instance, or has given up, after so long in the line.
    pub(crate) fn waited(&self, time: Duration) {
        let mine = self.0.mine();
        note(&mine, &mine.counts.waits, time);
    }

    pub(crate) fn started_fresh(&self) {
        let mine = self.0.mine();
        mine.add(&mine.counts.fresh_starts, 1);
    }

    // --- for those who ask

    pub(crate) fn of_outcome(&self, outcome: Outcome) -> u64 {
        self.0.sum(|counts| &counts.by_outcome[outcome.0])
    }

    pub(crate) fn durations(&self) -> Figures {
        self.figures(|counts| &counts.durations)
    }

    pub(crate) fn waits(&self) -> Figures {
        self.figures(|counts| &counts.waits)
    }

    pub(crate) fn received_bytes(&self) -> u64 {
        self.0.sum(|counts| &counts.received_bytes)
    }

    pub(crate) fn sent_bytes(&self) -> u64 {
        self.0.sum(|counts| &counts.sent_bytes)
    }

    pub(crate) fn fresh_starts(&self) -> u64 {
        self.0.sum(|counts| &counts.fresh_starts)
    }

    fn figures(&self, of: fn(&Counts) -> &Buckets) -> Figures {
        let count = |bucket: usize| self.0.sum(|counts| &of(counts).counts[bucket]);
        Figures::of(count, self.0.sum(|counts| &of(counts).sum_ns))
    }
}

fn note(mine: &Mine<'_, Counts>, buckets: &Buckets, time: Duration) {
    let (bucket, ns) = histogram::place(&REQUESTS, time);
    mine.add(&buckets.counts[bucket], 1);
    mine.add(&buckets.sum_ns, ns);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_has_a_class_and_at_most_a_code_that_the_host_knows() {
        let of = |status: u16, code| {
            let outcome = Outcome::of(StatusCode::from_u16(status).unwrap(), code);
            (outcome.status(), outcome.code())
        };
        assert_eq!(of(204, None), ("2xx", ""));
        assert_eq!(of(503, Some("H11")), ("5xx", "H11"));
        assert_eq!(of(502, Some("made up")), ("5xx", ""));
        assert_eq!(of(404, None), ("4xx", ""));
        assert_eq!(of(999, None), ("other", ""));
        assert_eq!((Outcome::GONE.status(), Outcome::GONE.code()), ("gone", ""));
    }

    #[test]
    fn what_all_threads_counted_is_added_up() {
        let counts = RequestCounts::new();
        let outcome = Outcome::of(StatusCode::OK, None);
        let answered =
            Answered { outcome, took: Duration::from_millis(2), received_bytes: 0, sent_bytes: 14 };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| counts.answered(answered));
            }
        });
        assert_eq!((counts.of_outcome(outcome), counts.sent_bytes(), counts.received_bytes()), (4, 56, 0));
        let durations = counts.durations();
        assert_eq!((durations.counts[4], durations.sum), (4, Duration::from_millis(8)));
    }
}
