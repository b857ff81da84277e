//! Whether instances of a type can be called twice. Some components can't: they trap on their second call, and nobody
//! should have to know that in advance. What calls come to tells.
//!
//! ```text
//! unknown -> proven      an instance has returned from its second call
//!         -> suspected   one died on it, with a request that could not be repeated
//! any     -> once        three died on it in a row, and a fresh instance could serve what they couldn't
//! ```
//!
//! A request that may be repeated risks nothing on an instance that was called before, and others are kept from it
//! while it isn't known: before anything is, they take an instance that wasn't called yet where there is one, and
//! once the type is suspected they always do.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

/// Deaths in a row that are no accident, and requests on fresh instances of a suspected type that confirm it.
const CONFIRMATIONS: u32 = 3;

/// Which instance a call may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Any.
    Any,
    /// One that was not called yet, if one is idle.
    RatherFresh,
    /// One that was not called yet.
    Fresh,
}

/// What is known of a type.
pub(super) struct Reuse {
    /// There is something to learn. Otherwise nobody needs to lock anything.
    learning: AtomicBool,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Instances have returned from their second call.
    proven: bool,
    /// One died on its second call, and the type isn't proven.
    suspected: bool,
    /// Deaths on the second call in a row, whose requests went well on a fresh instance.
    deaths: u32,
    /// Requests that went well on fresh instances since the type is suspected.
    confirmed: u32,
    /// The formation has said it, or it has been learned.
    settled: bool,
}

impl Reuse {
    /// With `learns` false there is nothing to learn: the formation says how it is to be.
    pub(super) fn new(learns: bool) -> Reuse {
        let known = Known { settled: !learns, ..Known::default() };
        Reuse { learning: AtomicBool::new(learns), known: Mutex::new(known) }
    }

    /// What a request needs that can, or can't, be repeated should its instance fail.
    pub(super) fn need(&self, repeatable: bool) -> Need {
        if repeatable || !self.learning.load(Relaxed) {
            return Need::Any;
        }
        let known = self.lock();
        match (known.proven || known.settled, known.suspected) {
            (true, _) => Need::Any,
            (false, false) => Need::RatherFresh,
            (false, true) => Need::Fresh,
        }
    }

    /// An instance has returned from its second call, or from a later one.
    pub(super) fn survived(&self) {
        if !self.learning.load(Relaxed) {
            return;
        }
        let mut known = self.lock();
        *known = Known { proven: true, settled: known.settled, ..Known::default() };
        self.learning.store(false, Relaxed);
    }

    /// An instance died on its second call, and a fresh one has served the same request. True where that makes the
    /// type one of those that can be called once: it is said once.
    pub(super) fn died_and_was_repeated(&self) -> bool {
        let mut known = self.lock();
        known.deaths += 1;
        self.learning.store(!known.settled, Relaxed);
        self.settle(known.deaths >= CONFIRMATIONS, known)
    }

    /// An instance died on its second call, with a request that can't be repeated.
    pub(super) fn died_for_good(&self) {
        let mut known = self.lock();
        known.suspected = !known.proven;
    }

    /// A request that needed a fresh instance went well. True as above.
    pub(super) fn served_fresh(&self) -> bool {
        let mut known = self.lock();
        known.confirmed += u32::from(known.suspected);
        self.settle(known.confirmed >= CONFIRMATIONS, known)
    }

    fn settle(&self, enough: bool, mut known: MutexGuard<'_, Known>) -> bool {
        if !enough || known.settled {
            return false;
        }
        known.settled = true;
        self.learning.store(false, Relaxed);
        true
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // No code that runs under the lock panics.
        self.known.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_deaths_in_a_row_are_told_once() {
        let reuse = Reuse::new(true);
        let told: Vec<bool> = (0..5).map(|_| reuse.died_and_was_repeated()).collect();
        assert_eq!(told, [false, false, true, false, false]);
        assert_eq!(reuse.need(false), Need::Any);
    }

    #[test]
    fn a_survivor_ends_the_row() {
        let reuse = Reuse::new(true);
        for _ in 0..10 {
            assert!(!reuse.died_and_was_repeated());
            assert!(!reuse.died_and_was_repeated());
            reuse.survived();
        }
    }

    #[test]
    fn what_can_not_be_repeated_is_kept_from_instances_that_may_fail() {
        let reuse = Reuse::new(true);
        assert_eq!((reuse.need(true), reuse.need(false)), (Need::Any, Need::RatherFresh));
        reuse.died_for_good();
        assert_eq!((reuse.need(true), reuse.need(false)), (Need::Any, Need::Fresh));
        reuse.survived();
        assert_eq!(reuse.need(false), Need::Any);
        // Now it's an accident.
        reuse.died_for_good();
        assert_eq!(reuse.need(false), Need::Any);
    }

    #[test]
    fn requests_on_fresh_instances_confirm_a_suspicion() {
        let reuse = Reuse::new(true);
        assert!((0..9).all(|_| !reuse.served_fresh()));
        reuse.died_for_good();
        let told: Vec<bool> = (0..4).map(|_| reuse.served_fresh()).collect();
        assert_eq!(told, [false, false, true, false]);
    }

    #[test]
    fn where_the_formation_says_it_nothing_is_learned() {
        let reuse = Reuse::new(false);
        assert!((0..9).all(|_| !reuse.died_and_was_repeated()));
        assert_eq!(reuse.need(false), Need::Any);
    }
}
