//! Who waits for a component. One that nobody waits for any more need not be compiled: a compiler takes all cores, for
//! up to minutes, and keeps others waiting.

use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The one who waits, for as long as it lives: see [`Code::wanted_by`](crate::Code::wanted_by).
#[derive(Default)]
pub struct Waiter(Arc<()>);

/// Whether one still waits. The default always does.
#[derive(Clone, Default)]
pub(super) struct Wanted(Option<Weak<()>>);

/// All those that wait for the same.
#[derive(Default)]
pub(super) struct Crowd(Mutex<Vec<Weak<Wanted>>>);

impl Wanted {
    pub(super) fn by(waiter: &Waiter) -> Wanted {
        Wanted(Some(Arc::downgrade(&waiter.0)))
    }

    fn is_over(&self) -> bool {
        self.0.as_ref().is_some_and(|waiter| waiter.strong_count() == 0)
    }
}

impl Crowd {
    /// Adds one, for as long as the result lives.
    pub(super) fn join(&self, wanted: &Wanted) -> Arc<Wanted> {
        let member = Arc::new(wanted.clone());
        let mut members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        members.retain(|member| member.strong_count() > 0);
        members.push(Arc::downgrade(&member));
        member
    }

    /// Whether none of them waits any more.
    pub(super) fn is_over(&self) -> bool {
        let members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        members.iter().all(|member| member.upgrade().is_none_or(|wanted| wanted.is_over()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_waits_as_long_as_one_of_it_does() {
        let crowd = Crowd::default();
        let (first, second) = (Waiter::default(), Waiter::default());
        let first_member = crowd.join(&Wanted::by(&first));
        let second_member = crowd.join(&Wanted::by(&second));
        drop(first);
        assert!(!crowd.is_over());
        drop(second);
        assert!(crowd.is_over());
        let always = crowd.join(&Wanted::default());
        assert!(!crowd.is_over());
        drop(always);
        assert!(crowd.is_over());
        drop((first_member, second_member));
    }
}
