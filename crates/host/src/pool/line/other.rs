//! Calls that an instance failed while its type moves from one version to another. Each is to be served by an instance of
//! the other version. There are few of them, and none where no type moves.

use std::collections::VecDeque;

use super::{Caller, Handed, Held, Lendable, Line};

/// See the module. Each call has the release beside it whose version it is not for.
pub(super) struct OtherCalls<C>(VecDeque<(C, u64)>);

impl<C> Default for OtherCalls<C> {
    fn default() -> OtherCalls<C> {
        OtherCalls(VecDeque::new())
    }
}

impl<C: Caller> OtherCalls<C> {
    pub(super) fn push(&mut self, call: C, release: u64) {
        self.0.push_back((call, release));
    }

    pub(super) fn drop_gone(&mut self) {
        self.0.retain(|(call, _)| !call.has_gone());
    }

    pub(super) fn take(&mut self) -> impl Iterator<Item = C> + use<C> {
        std::mem::take(&mut self.0).into_iter().map(|(call, _)| call)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &C> {
        self.0.iter().map(|(call, _)| call)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl<I: Lendable, C: Caller> Line<I, C> {
    /// The first of these calls that can be served, and the instance.
    pub(super) fn next_other(&mut self) -> Option<(C, Handed<I>)> {
        if self.other_calls.len() == 0 {
            return None;
        }
        self.other_calls.drop_gone();
        let mut calls = self.other_calls.0.iter().map(|(_, release)| *release).enumerate();
        let (at, release) = calls.find(|(_, release)| self.idle_other(*release).is_some())?;
        let handed = self.lend_other(release)?;
        let (call, _) = self.other_calls.0.remove(at)?;
        Some((call, handed))
    }

    pub(super) fn lend_other(&mut self, release: u64) -> Option<Handed<I>> {
        let at = self.idle_other(release)?;
        Some(Handed::Instance(self.lend_at(at)))
    }

    /// Where an idle instance is that isn't of this release's version, if one is free.
    fn idle_other(&self, release: u64) -> Option<usize> {
        if self.free() == 0 {
            return None;
        }
        self.idle.iter().rposition(|held: &Held<I>| held.instance.release() != release)
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::super::tests::things::{Call, Thing};
    use super::super::{Asked, Need, Outlook, Put, Turn};
    use super::*;

    fn line(releases: &[u64]) -> Line<Thing, Call> {
        let mut line = Line::new(8);
        for (member, release) in (1..).zip(releases) {
            assert!(matches!(put(&mut line, member, *release), Put::Kept));
        }
        line
    }

    fn put(line: &mut Line<Thing, Call>, member: u64, release: u64) -> Put<Thing> {
        let leaving = Rc::default();
        let instance = Thing { member, concurrency: 1, for_one_call: false, leaving, release };
        line.put(Held { instance, served: 1 })
    }

    /// The member that is lent at once, if one is.
    fn ask(line: &mut Line<Thing, Call>, need: Need) -> Option<u64> {
        match line.ask(need, Turn::Last, false, || false) {
            Asked::Handed(Handed::Instance(held)) => Some(held.instance.member()),
            Asked::Wait { turn, .. } => {
                line.wait(turn, Call { number: 0, gone: Rc::default() });
                None
            }
            _ => panic!("neither lent nor waiting"),
        }
    }

    fn next(line: &mut Line<Thing, Call>) -> Option<u64> {
        match line.next(false)?.1 {
            Handed::Instance(held) => Some(held.instance.member()),
            Handed::Promise => panic!("nobody wants a promise"),
        }
    }

    #[test]
    fn a_call_gets_an_instance_of_the_other_version_alone() {
        let mut line = line(&[1, 2, 2]);
        assert_eq!(ask(&mut line, Need::OtherThan(2)), Some(1));
        assert_eq!(ask(&mut line, Need::OtherThan(1)), Some(3));
        assert_eq!(ask(&mut line, Need::OtherThan(2)), None);
        assert_eq!(line.waiting(), 1);
        // The idle one of the second release isn't for it.
        assert_eq!(next(&mut line), None);
        assert_eq!(ask(&mut line, Need::Any), Some(2));
        put(&mut line, 3, 2);
        assert_eq!(next(&mut line), None);
        put(&mut line, 1, 1);
        assert_eq!(next(&mut line), Some(1));
        assert_eq!(line.waiting(), 0);
    }

    #[test]
    fn one_that_waits_for_the_other_version_goes_before_those_who_take_any() {
        let mut line = line(&[]);
        assert_eq!(ask(&mut line, Need::Any), None);
        assert_eq!(ask(&mut line, Need::OtherThan(2)), None);
        put(&mut line, 1, 2);
        assert_eq!(next(&mut line), Some(1), "the one that takes any");
        assert_eq!(ask(&mut line, Need::Any), None);
        put(&mut line, 2, 1);
        assert_eq!(next(&mut line), Some(2));
        assert_eq!((next(&mut line), line.waiting()), (None, 1), "the one that takes any waits");
        assert_eq!(line.set_outlook(Outlook::NoCount).len(), 1);
    }

    #[test]
    fn one_that_has_gone_is_forgotten() {
        let mut line = line(&[2]);
        let call = Call { number: 7, gone: Rc::default() };
        line.wait(Turn::OtherThan(2), call.clone());
        call.gone.set(true);
        assert_eq!(line.waiting(), 0);
        put(&mut line, 2, 1);
        assert_eq!((next(&mut line), line.other_calls.len()), (None, 0));
    }
}
