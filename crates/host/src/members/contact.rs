//! The list of hosts that a host acts on, as heartbeats tell it. It knows no store and no clock: answers go in with the
//! time that they came.
//!
//! ```text
//!            an answer                  10 s without a break
//! no contact ─────────> contact since t ────────────────────> settled
//!                           ^                                    │
//!                           └────────────────────────────────────┘
//!                     the own heartbeat was 5 s old or older: the store was away, or this host stood still
//! ```
//!
//! A host that comes is in the list at once, and so is gone one that says it drains, or whose row it has taken away. A host
//! that falls silent leaves the list when it has been silent for 10 s, and then only if this host is settled. After an outage of the store every
//! heartbeat looks old, and after a freeze of this host nobody's does.

use std::sync::Arc;
use std::time::Duration;

use wasmhost_store::members::MEMBER_FOR;

/// How long contact must last before those who are silent are taken for gone.
pub(crate) const SETTLED_AFTER: Duration = Duration::from_secs(10);

/// A heartbeat that came so long after the one before breaks the contact. In an outage that is a little shorter than
/// [`MEMBER_FOR`], others' heartbeats grow older than that where they came a second or two before the own one.
const BROKEN_AFTER: Duration = MEMBER_FOR.checked_div(2).unwrap();

/// How long after the begin of a contact a row may be missing whose host is there: where a store was restored from a copy,
/// each host writes its row anew with its next heartbeat.
const WRITTEN_WITHIN: Duration = Duration::from_secs(5);

/// A host's row, as much of it as matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen<'a> {
    pub(crate) host: &'a str,
    pub(crate) standing: Standing,
    pub(crate) age: Duration,
}

/// Whether a host takes part in the split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It does, as long as it isn't silent.
    Joined,
    /// It doesn't: it starts, or drains.
    Apart,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Contact {
    /// When the contact began that hasn't been broken since, by a clock that doesn't step.
    since: Option<Duration>,
    /// In order.
    hosts: Vec<Arc<str>>,
}

impl Contact {
    /// The hosts among which slots are split, in order.
    pub(crate) fn hosts(&self) -> &[Arc<str>] {
        &self.hosts
    }

    /// Whether those who are silent may be taken for gone.
    pub(crate) fn is_settled(&self, now: Duration) -> bool {
        self.since.is_some_and(|since| now.saturating_sub(since) >= SETTLED_AFTER)
    }

    /// A heartbeat was answered. `own_age` is the age that the own row had, and `rows` are all rows in the order of their
    /// hosts. Returns whether the list has changed.
    pub(crate) fn heard<'a>(
        &mut self,
        now: Duration,
        own_age: Option<Duration>,
        rows: impl Iterator<Item = Seen<'a>>,
    ) -> bool {
        let is_broken = own_age.is_none_or(|age| age >= BROKEN_AFTER);
        if is_broken || self.since.is_none() {
            self.since = Some(now);
        }
        let is_settled = self.is_settled(now);
        let have_left = self.since.is_some_and(|since| now.saturating_sub(since) >= WRITTEN_WITHIN);
        let mut before = std::mem::take(&mut self.hosts).into_iter().peekable();
        let mut has_changed = false;
        for Seen { host, standing, age } in rows {
            while let Some(missing) = before.next_if(|before| **before < *host) {
                self.keep_silent(missing, have_left, &mut has_changed);
            }
            let known = before.next_if(|before| **before == *host);
            let is_silent = age >= MEMBER_FOR;
            match (standing, known) {
                (Standing::Joined, Some(known)) if is_silent => {
                    self.keep_silent(known, is_settled, &mut has_changed);
                }
                (Standing::Joined, Some(known)) => self.hosts.push(known),
                (Standing::Joined, None) if !is_silent => {
                    has_changed = true;
                    self.hosts.push(host.into());
                }
                (Standing::Joined, None) => {}
                (Standing::Apart, known) => has_changed |= known.is_some(),
            }
        }
        for missing in before {
            self.keep_silent(missing, have_left, &mut has_changed);
        }
        has_changed
    }

    /// A host of the list that isn't heard of stays until that says something.
    fn keep_silent(&mut self, host: Arc<str>, is_gone: bool, has_changed: &mut bool) {
        match is_gone {
            true => *has_changed = true,
            false => self.hosts.push(host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn joined(host: &str, age: u32) -> Seen<'_> {
        Seen { host, standing: Standing::Joined, age: age * SECOND }
    }

    fn apart(host: &str) -> Seen<'_> {
        Seen { standing: Standing::Apart, ..joined(host, 0) }
    }

    /// Hears at this second, where the own heartbeat before was so many seconds old.
    fn hear(contact: &mut Contact, at: u32, own_age: Option<u32>, rows: &[Seen<'_>]) -> bool {
        contact.heard(at * SECOND, own_age.map(|age| age * SECOND), rows.iter().copied())
    }

    fn hosts(contact: &Contact) -> Vec<&str> {
        contact.hosts().iter().map(|host| &**host).collect()
    }

    /// A host that has been in contact for a while, with those two.
    fn settled() -> Contact {
        let mut contact = Contact::default();
        assert!(hear(&mut contact, 0, None, &[joined("a", 0), joined("b", 1)]));
        assert!(!hear(&mut contact, 4, Some(4), &[joined("a", 0), joined("b", 1)]));
        assert!(!contact.is_settled(9 * SECOND) && contact.is_settled(10 * SECOND));
        contact
    }

    #[test]
    fn hosts_that_come_are_there_at_once_and_those_that_are_apart_are_not() {
        let mut contact = Contact::default();
        hear(&mut contact, 0, None, &[joined("a", 0), apart("b"), joined("c", 9), joined("d", 10)]);
        assert_eq!(hosts(&contact), ["a", "c"]);
        assert!(hear(&mut contact, 1, Some(1), &[joined("a", 0), joined("b", 0), joined("c", 10)]));
        assert_eq!(
            hosts(&contact),
            ["a", "b", "c"],
            "it isn't settled: the third may only seem to be silent"
        );
    }

    #[test]
    fn an_outage_that_is_shorter_than_a_host_may_be_silent_takes_nobody_away() {
        let mut contact = settled();
        let all = hosts(&contact).into_iter().map(str::to_owned).collect::<Vec<_>>();
        // All heartbeats failed for nine seconds, and others' last ones came before the own last one.
        let rows: Vec<_> = all.iter().map(|host| joined(host, 11)).collect();
        assert!(!hear(&mut contact, 1_000, Some(9), &rows));
        assert_eq!(hosts(&contact), all);
    }

    #[test]
    fn a_silent_host_leaves_after_ten_seconds() {
        let mut contact = settled();
        assert!(!hear(&mut contact, 12, Some(2), &[joined("a", 0), joined("b", 9)]));
        assert!(hear(&mut contact, 13, Some(1), &[joined("a", 0), joined("b", 10)]));
        assert_eq!(hosts(&contact), ["a"]);
    }

    #[test]
    fn a_host_that_has_left_is_gone_at_once_unless_all_rows_may_have_been_lost() {
        let mut contact = Contact::default();
        hear(&mut contact, 0, None, &[joined("a", 0), joined("b", 0)]);
        assert!(
            !hear(&mut contact, 4, Some(2), &[joined("a", 0)]),
            "a copy of the store may have no row of it"
        );
        assert!(hear(&mut contact, 5, Some(1), &[joined("a", 0)]));
        assert_eq!(hosts(&contact), ["a"]);
        assert!(hear(&mut contact, 6, Some(1), &[joined("a", 0), joined("b", 0)]));
        assert!(hear(&mut contact, 7, Some(1), &[joined("a", 0)]));
    }

    #[test]
    fn a_host_that_drains_leaves_at_once_and_comes_back_when_it_has_started() {
        let mut contact = Contact::default();
        hear(&mut contact, 0, None, &[joined("a", 0), joined("b", 0)]);
        assert!(hear(&mut contact, 1, Some(1), &[joined("a", 0), apart("b")]));
        assert_eq!(hosts(&contact), ["a"]);
        assert!(hear(&mut contact, 2, Some(1), &[joined("a", 0), joined("b", 0)]));
        assert_eq!(hosts(&contact), ["a", "b"]);
    }

    #[test]
    fn after_an_outage_nobody_is_taken_for_gone_for_ten_seconds() {
        let mut contact = settled();
        assert!(!hear(&mut contact, 75, Some(60), &[joined("a", 0), joined("b", 61)]));
        assert!(!hear(&mut contact, 84, Some(2), &[joined("a", 0), joined("b", 70)]));
        assert!(hear(&mut contact, 85, Some(1), &[joined("a", 0), joined("b", 71)]));
        assert_eq!(hosts(&contact), ["a"]);
    }

    #[test]
    fn a_host_that_was_forgotten_begins_anew() {
        let mut contact = settled();
        assert!(!hear(&mut contact, 100, None, &[joined("a", 0)]));
        assert_eq!(hosts(&contact), ["a", "b"]);
        assert!(hear(&mut contact, 110, Some(2), &[joined("a", 0)]));
    }
}
