//! Whether instances of a type can be called twice. Some components can't: they trap on their second call, or return
//! without an answer. No user should have to know that in advance, so it is learned from what calls come to, and
//! [kept](super::learned) for the next start.
//!
//! ```text
//! unknown -> proven      an instance has returned from its second call
//!         -> suspected   one died on it, with a request that could not be repeated
//! any     -> once        three died on it in a row, and a fresh instance could serve what they couldn't
//! ```
//!
//! A request that may be repeated risks nothing on an instance that was called before: should the instance die, a
//! fresh one serves the request. Other requests get an unused instance until the type is proven.
//!
//! A type may have no other requests. Then nothing would ever be learned, and each request would pay for an instance
//! of its own. So one in [`UNPROVEN_MAX`] of them gets a used instance after all. It is lost if the component can be
//! called only once, and that is known from then on.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

use super::learned::Lesson;
use super::line::Need;

/// Deaths in a row that are no accident, and requests on fresh instances of a suspected type that confirm it.
const CONFIRMATIONS: u32 = 3;

/// Requests that can't be repeated, of a type that isn't proven, which have unused instances before one has not.
const UNPROVEN_MAX: u32 = 1_000;

/// The facts that are known of a type.
pub(super) struct Reuse {
    /// There is something to learn. Otherwise nobody needs to lock anything.
    learning: AtomicBool,
    /// Calls share an instance, so that an instance is in its second call as soon as two are in it.
    shares: bool,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Instances have returned from their second call.
    proven: bool,
    /// One died on its second call, and the type isn't proven.
    suspected: bool,
    /// Requests that got an unused instance, since that was decided otherwise.
    unproven: u32,
    /// Deaths on the second call in a row, whose requests went well on a fresh instance.
    deaths: u32,
    /// Requests that went well on fresh instances since the type is suspected.
    confirmed: u32,
    /// The formation has said it, or it has been learned.
    settled: bool,
    /// The pool does as was settled: no call gets a used instance any more, or the formation wants it so.
    in_force: bool,
}

impl Reuse {
    /// With `learns` false there is nothing to learn: the formation says how it is to be. `lesson` is what an earlier
    /// run has learned.
    pub(super) fn new(learns: bool, shares: bool, lesson: Option<Lesson>) -> Reuse {
        let known = Known {
            settled: !learns || lesson == Some(Lesson::Once),
            in_force: !learns || lesson == Some(Lesson::Once),
            proven: lesson == Some(Lesson::Proven),
            ..Known::default()
        };
        Reuse { learning: AtomicBool::new(!known.settled && !known.proven), shares, known: Mutex::new(known) }
    }

    /// The need of a request that can, or can't, be repeated should its instance fail.
    pub(super) fn need(&self, repeatable: bool) -> Need {
        if repeatable || !self.learning.load(Relaxed) {
            return Need::Any;
        }
        let mut known = self.lock();
        if known.proven || known.in_force {
            return Need::Any;
        }
        if known.suspected || known.settled {
            return Need::Fresh;
        }
        if known.unproven == UNPROVEN_MAX {
            known.unproven = 0;
            return Need::Any;
        }
        known.unproven += 1;
        // Where calls share an instance, one that waited for it to be unused would wait for all of them to end.
        if self.shares { Need::FreshOrSeat } else { Need::Fresh }
    }

    /// An instance has returned from its second call, or from a later one. True where that is news.
    pub(super) fn survived(&self) -> bool {
        if !self.learning.load(Relaxed) {
            return false;
        }
        let mut known = self.lock();
        let is_news = !known.proven;
        if known.settled {
            return false;
        }
        *known = Known { proven: true, ..Known::default() };
        self.learning.store(false, Relaxed);
        is_news
    }

    /// An instance died on its second call, and a fresh one has served the same request. True where that makes the
    /// type one of those that can be called once: it is said once.
    pub(super) fn died_and_was_repeated(&self) -> bool {
        let mut known = self.lock();
        known.deaths += 1;
        self.learning.store(!known.in_force, Relaxed);
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
        // An instance that was in its second call all the while doesn't change that any more.
        known.proven = false;
        true
    }

    /// The pool lends no used instance from now on.
    pub(super) fn comes_into_force(&self) {
        self.lock().in_force = true;
        self.learning.store(false, Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // No code that runs under the lock panics.
        self.known.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown() -> Reuse {
        Reuse::new(true, false, None)
    }

    #[test]
    fn three_deaths_in_a_row_are_told_once() {
        let reuse = unknown();
        let told: Vec<bool> = (0..5).map(|_| reuse.died_and_was_repeated()).collect();
        assert_eq!(told, [false, false, true, false, false]);
        // There may be used instances still.
        assert_eq!(reuse.need(false), Need::Fresh);
        reuse.comes_into_force();
        assert_eq!(reuse.need(false), Need::Any);
    }

    #[test]
    fn a_survivor_ends_the_row() {
        let reuse = unknown();
        for _ in 0..10 {
            assert!(!reuse.died_and_was_repeated());
            assert!(!reuse.died_and_was_repeated());
            reuse.survived();
        }
    }

    #[test]
    fn that_one_survived_is_news_once() {
        let reuse = unknown();
        assert_eq!([reuse.survived(), reuse.survived()], [true, false]);
        // A death and a survivor teach nothing new.
        reuse.died_and_was_repeated();
        assert!(!reuse.survived());
    }

    #[test]
    fn what_can_not_be_repeated_is_kept_from_used_instances_until_the_type_is_proven() {
        let reuse = unknown();
        assert_eq!((reuse.need(true), reuse.need(false)), (Need::Any, Need::Fresh));
        reuse.died_for_good();
        assert_eq!((reuse.need(true), reuse.need(false)), (Need::Any, Need::Fresh));
        reuse.survived();
        assert_eq!(reuse.need(false), Need::Any);
        // Now it's an accident.
        reuse.died_for_good();
        assert_eq!(reuse.need(false), Need::Any);
    }

    #[test]
    fn calls_that_share_an_instance_do_not_wait_for_all_of_them_to_end() {
        let reuse = Reuse::new(true, true, None);
        assert_eq!((reuse.need(true), reuse.need(false)), (Need::Any, Need::FreshOrSeat));
    }

    #[test]
    fn a_type_that_gets_nothing_else_risks_one_request_in_many() {
        let reuse = unknown();
        let needs: Vec<Need> = (0..2 * UNPROVEN_MAX + 2).map(|_| reuse.need(false)).collect();
        let risked: Vec<usize> =
            needs.iter().enumerate().filter(|(_, need)| **need == Need::Any).map(|(at, _)| at).collect();
        assert_eq!(risked, [1_000, 2_001]);
        // The first one is lost, and no other.
        reuse.died_for_good();
        assert!((0..2 * UNPROVEN_MAX).all(|_| reuse.need(false) == Need::Fresh));
    }

    #[test]
    fn requests_on_fresh_instances_confirm_a_suspicion() {
        let reuse = unknown();
        assert!((0..9).all(|_| !reuse.served_fresh()));
        reuse.died_for_good();
        let told: Vec<bool> = (0..4).map(|_| reuse.served_fresh()).collect();
        assert_eq!(told, [false, false, true, false]);
    }

    #[test]
    fn what_an_earlier_run_has_learned_holds_from_the_start() {
        let proven = Reuse::new(true, false, Some(Lesson::Proven));
        assert_eq!(proven.need(false), Need::Any);
        assert!(!proven.survived(), "it is no news");
        // It may have become otherwise, by its environment.
        let told: Vec<bool> = (0..3).map(|_| proven.died_and_was_repeated()).collect();
        assert_eq!(told, [false, false, true]);
        let once = Reuse::new(true, false, Some(Lesson::Once));
        assert!((0..9).all(|_| !once.died_and_was_repeated()));
        assert_eq!(once.need(false), Need::Any);
    }

    #[test]
    fn where_the_formation_says_it_nothing_is_learned() {
        let reuse = Reuse::new(false, false, None);
        assert!((0..9).all(|_| !reuse.died_and_was_repeated()));
        assert_eq!(reuse.need(false), Need::Any);
    }
}
