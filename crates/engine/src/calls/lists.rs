//! The calls of an instance that serves several at once: who has come, who waits, who left last, and why nobody else may
//! come. Pure: [`service`](super::service) drives it.
//!
//! ```text
//! parked -> running (calls enter) -> parked
//!                                 -> ended, and with it every call in it
//!
//! enter -> arriving -> with the guest -> left, or given up
//! ```
//!
//! A call can't be ended by itself. One that is given up closes the instance: nobody enters any more, and it ends when
//! the others have left.

use std::collections::{HashMap, VecDeque};

use crate::call::CallEnd;

/// `C` is what is kept of a call until it is over, `G` what it gives the guest.
pub(super) struct Lists<C, G> {
    phase: Phase,
    /// The run under way, or the last one: a call's number in the meter.
    run: u64,
    /// Calls that have taken part in it.
    run_calls: u32,
    next_call: u64,
    /// The guest may still work on these.
    calls: HashMap<u64, C>,
    /// The guest hasn't been given these yet. Each is in `calls` too.
    arriving: VecDeque<(u64, G)>,
    /// The call that left last, where the guest goes on without any: its seat comes back with the end of the run.
    last: Option<C>,
    /// Why it takes no more calls, if so.
    closing: Option<CallEnd>,
    /// The guest has been given a call in its life.
    was_called: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Phase {
    Parked,
    Running,
    Ended(CallEnd),
}

/// A call that has entered.
#[derive(Debug, PartialEq)]
pub(super) struct Entered<C> {
    pub(super) call: u64,
    /// It is the first of a run, which the caller has to begin ([`Lists::begin_run`]).
    pub(super) begins_run: bool,
    /// The call that had left last. It is over, since another has its place.
    pub(super) over: Option<C>,
}

/// The instance after a call has left.
#[derive(Debug, PartialEq)]
pub(super) enum Left<C> {
    /// It was over already.
    WasOver,
    /// It was the last. It is over when the guest has nothing more to do.
    Last,
    /// It is over. `keep` says whether the instance takes other calls; `alone` that no call is left, but what was given
    /// up.
    Over { call: C, keep: bool, alone: bool },
}

/// The instance after a call was given up.
#[derive(Debug, PartialEq)]
pub(super) enum GivenUp<C> {
    /// It was over already.
    WasOver,
    /// Others go on, and this one is over.
    Others(C),
    /// No other is left. It is over when the run is, which is to be ended.
    Last,
}

/// A run that is over.
#[derive(Debug, PartialEq)]
pub(super) struct Parked<C> {
    /// The instance takes other calls.
    pub(super) keep: bool,
    /// Calls that took part in the run.
    pub(super) calls: u32,
    /// Those that have come to their end with it, each with how.
    pub(super) over: Vec<(C, CallEnd)>,
    /// The guest has not seen these, and won't take them.
    pub(super) refused: Vec<C>,
}

/// The calls of an instance that has ended.
#[derive(Debug, PartialEq)]
pub(super) struct Ended<C> {
    /// The guest had been given these, or the run was theirs.
    pub(super) begun: Vec<C>,
    /// The guest has not seen these.
    pub(super) unseen: Vec<C>,
    /// Why it has ended.
    pub(super) end: CallEnd,
}

impl<C, G> Default for Lists<C, G> {
    fn default() -> Self {
        Lists {
            phase: Phase::Parked,
            run: 0,
            run_calls: 0,
            next_call: 1,
            calls: HashMap::new(),
            arriving: VecDeque::new(),
            last: None,
            closing: None,
            was_called: false,
        }
    }
}

impl<C, G> Lists<C, G> {
    /// Why no call may enter, if so.
    pub(super) fn refusal(&self) -> Option<&CallEnd> {
        match &self.phase {
            Phase::Ended(end) => Some(end),
            Phase::Parked | Phase::Running => self.closing.as_ref(),
        }
    }

    /// The run under way, or the last one.
    pub(super) fn run(&self) -> u64 {
        self.run
    }

    /// The guest has been given a call in its life.
    pub(super) fn was_called(&self) -> bool {
        self.was_called
    }

    /// Adds a call, if none is refused ([`Lists::refusal`]).
    pub(super) fn enter(&mut self, call: C, given: G) -> Entered<C> {
        let number = self.next_call;
        self.next_call += 1;
        let begins_run = self.phase == Phase::Parked;
        if begins_run {
            self.phase = Phase::Running;
            self.run_calls = 0;
        }
        self.run_calls += 1;
        self.calls.insert(number, call);
        self.arriving.push_back((number, given));
        Entered { call: number, begins_run, over: self.last.take() }
    }

    /// Says what the meter calls the run that has begun.
    pub(super) fn begin_run(&mut self, run: u64) {
        self.run = run;
    }

    /// The next call for the guest.
    pub(super) fn next(&mut self) -> Option<(u64, G)> {
        let next = self.arriving.pop_front();
        self.was_called |= next.is_some();
        next
    }

    pub(super) fn get_mut(&mut self, call: u64) -> Option<&mut C> {
        self.calls.get_mut(&call)
    }

    /// Those that the guest may still work on.
    pub(super) fn iter(&self) -> impl Iterator<Item = &C> {
        self.calls.values().chain(&self.last)
    }

    /// A call has its answer. The guest may go on with something else.
    pub(super) fn leave(&mut self, call: u64) -> Left<C> {
        let Some(call) = self.calls.remove(&call) else { return Left::WasOver };
        let (alone, keep) = (self.calls.is_empty(), self.closing.is_none());
        if alone && keep {
            self.last = Some(call);
            return Left::Last;
        }
        Left::Over { call, keep, alone }
    }

    /// A call won't have its answer, and can't be ended by itself: nobody enters any more.
    pub(super) fn give_up(&mut self, call: u64, reason: &CallEnd) -> GivenUp<C> {
        self.arriving.retain(|(arriving, _)| *arriving != call);
        let Some(call) = self.calls.remove(&call) else { return GivenUp::WasOver };
        self.closing = Some(reason.clone());
        match self.calls.is_empty() {
            false => GivenUp::Others(call),
            true => {
                self.last = Some(call);
                GivenUp::Last
            }
        }
    }

    /// This run has no calls left.
    pub(super) fn is_alone(&self, run: u64) -> bool {
        self.run == run && self.calls.is_empty()
    }

    /// Ends a run: the guest has nothing more to do. `ready` says whether it would take a call now; where it wouldn't,
    /// nothing is left that could change that. `usable` says whether the instance is good for other calls. There is no
    /// end where calls wait that the guest would take.
    pub(super) fn park(&mut self, ready: bool, usable: bool) -> Option<Parked<C>> {
        if ready && !self.arriving.is_empty() {
            return None;
        }
        let refused = self.take_arriving();
        let keep = ready && usable && self.closing.is_none();
        let last_end = self.closing.clone().unwrap_or(CallEnd::Returned(()));
        self.phase = match keep {
            true => Phase::Parked,
            false => Phase::Ended(CallEnd::Interrupted),
        };
        let returned = self.calls.drain().map(|(_, call)| (call, CallEnd::Returned(())));
        let over = returned.chain(self.last.take().map(|last| (last, last_end))).collect();
        Some(Parked { keep, calls: self.run_calls, over, refused })
    }

    /// Ends the instance, and every call in it.
    pub(super) fn end(&mut self, end: CallEnd) -> Ended<C> {
        // An interruption has a reason, if it comes from here.
        let end = match (end, self.closing.take()) {
            (CallEnd::Interrupted, Some(reason)) => reason,
            (end, _) => end,
        };
        self.phase = Phase::Ended(end.clone());
        let unseen = self.take_arriving();
        let begun = self.calls.drain().map(|(_, call)| call).chain(self.last.take()).collect();
        Ended { begun, unseen, end }
    }

    fn take_arriving(&mut self) -> Vec<C> {
        self.arriving.drain(..).filter_map(|(call, _)| self.calls.remove(&call)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Spent;

    type Names = Lists<&'static str, &'static str>;

    fn has_ended<C, G>(lists: &Lists<C, G>) -> bool {
        matches!(lists.phase, Phase::Ended(_))
    }

    /// An instance in which these calls are with the guest.
    fn with_guest(names: &[&'static str]) -> Names {
        let mut lists = Names::default();
        for name in names {
            lists.enter(name, name);
        }
        lists.begin_run(7);
        while lists.next().is_some() {}
        lists
    }

    fn returned(name: &'static str) -> (&'static str, CallEnd) {
        (name, CallEnd::Returned(()))
    }

    #[test]
    fn the_first_call_begins_a_run_and_others_join_it() {
        let mut lists = Names::default();
        assert_eq!(lists.enter("a", "a"), Entered { call: 1, begins_run: true, over: None });
        assert_eq!(lists.enter("b", "b"), Entered { call: 2, begins_run: false, over: None });
        assert!(!lists.was_called());
        assert_eq!((lists.next(), lists.next(), lists.next()), (Some((1, "a")), Some((2, "b")), None));
        assert!(lists.was_called());
    }

    #[test]
    fn the_last_call_to_leave_is_over_with_the_run() {
        let mut lists = with_guest(&["a", "b"]);
        assert_eq!(lists.leave(1), Left::Over { call: "a", keep: true, alone: false });
        assert_eq!(lists.leave(2), Left::Last);
        assert_eq!(lists.leave(2), Left::WasOver);
        assert!(lists.is_alone(7) && !lists.is_alone(6));
        let parked = lists.park(true, true);
        assert_eq!(parked, Some(Parked { keep: true, calls: 2, over: vec![returned("b")], refused: vec![] }));
        assert!(lists.enter("c", "c").begins_run);
    }

    #[test]
    fn a_call_that_enters_takes_the_place_of_the_one_that_left_last() {
        let mut lists = with_guest(&["a"]);
        assert_eq!(lists.leave(1), Left::Last);
        assert_eq!(lists.enter("b", "b"), Entered { call: 2, begins_run: false, over: Some("a") });
        assert!(!lists.is_alone(7));
    }

    #[test]
    fn a_run_is_not_over_while_calls_wait_for_the_guest() {
        let mut lists = with_guest(&["a"]);
        lists.enter("b", "b");
        assert_eq!(lists.park(true, true), None);
        lists.next();
        let parked = lists.park(true, true).unwrap();
        assert_eq!(parked.over.len(), 2);
    }

    #[test]
    fn a_guest_that_takes_no_more_calls_refuses_those_that_wait_and_ends_with_its_run() {
        let mut lists = with_guest(&["a"]);
        lists.enter("b", "b");
        let parked = lists.park(false, true);
        let over = vec![returned("a")];
        assert_eq!(parked, Some(Parked { keep: false, calls: 2, over, refused: vec!["b"] }));
        assert!(has_ended(&lists));
        // Without anybody who waits, too.
        let mut lists = with_guest(&["a"]);
        assert!(lists.park(false, true).is_some_and(|parked| !parked.keep && parked.refused.is_empty()));
    }

    #[test]
    fn an_instance_that_is_of_no_use_any_more_ends_with_its_run() {
        let mut lists = with_guest(&["a"]);
        let parked = lists.park(true, false);
        assert_eq!(
            parked,
            Some(Parked { keep: false, calls: 1, over: vec![returned("a")], refused: vec![] })
        );
        assert_eq!(lists.refusal(), Some(&CallEnd::Interrupted));
    }

    #[test]
    fn a_call_that_is_given_up_closes_the_instance_for_others() {
        let mut lists = with_guest(&["a", "b"]);
        assert_eq!(lists.refusal(), None);
        assert_eq!(lists.give_up(1, &CallEnd::Timeout(Spent::default())), GivenUp::Others("a"));
        assert_eq!(lists.refusal(), Some(&CallEnd::Timeout(Spent::default())));
        assert!(!has_ended(&lists));
        assert_eq!(lists.leave(2), Left::Over { call: "b", keep: false, alone: true });
        assert_eq!(
            lists.park(true, true),
            Some(Parked { keep: false, calls: 2, over: vec![], refused: vec![] })
        );
        assert!(has_ended(&lists));
    }

    #[test]
    fn the_only_call_that_is_given_up_is_over_with_its_reason() {
        let mut lists = with_guest(&["a"]);
        assert_eq!(lists.give_up(1, &CallEnd::Timeout(Spent::default())), GivenUp::Last);
        assert_eq!(lists.give_up(1, &CallEnd::Timeout(Spent::default())), GivenUp::WasOver);
        let parked = lists.park(true, true).unwrap();
        assert_eq!(parked.over, [("a", CallEnd::Timeout(Spent::default()))]);
    }

    #[test]
    fn a_call_that_is_given_up_before_the_guest_has_it_never_comes_to_it() {
        let mut lists = with_guest(&["a"]);
        lists.enter("b", "b");
        assert_eq!(lists.give_up(2, &CallEnd::Interrupted), GivenUp::Others("b"));
        assert_eq!(lists.next(), None);
    }

    #[test]
    fn the_end_parts_those_that_the_guest_has_seen_from_the_others() {
        let mut lists = with_guest(&["a", "b"]);
        lists.leave(1);
        lists.leave(2);
        lists.enter("c", "c");
        lists.next();
        lists.enter("d", "d");
        let end = CallEnd::Trap("unreachable".into());
        let ended = lists.end(end.clone());
        assert_eq!(ended, Ended { begun: vec!["c"], unseen: vec!["d"], end: end.clone() });
        assert_eq!(lists.refusal(), Some(&end));
    }

    #[test]
    fn an_interruption_is_told_by_its_reason() {
        let mut lists = with_guest(&["a"]);
        lists.give_up(1, &CallEnd::OutOfCpu(Spent::default()));
        let ended = lists.end(CallEnd::Interrupted);
        assert_eq!((ended.begun, ended.end), (vec!["a"], CallEnd::OutOfCpu(Spent::default())));
    }

    /// The same numbers for the same seed.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % bound
        }
    }

    /// Lists that random things happen to, and what is known of the calls meanwhile.
    struct Model {
        lists: Lists<u64, u64>,
        /// Calls that have entered, are with the guest, and are over.
        entered: Vec<u64>,
        seen: Vec<u64>,
        over: Vec<u64>,
    }

    impl Model {
        fn is_over(&mut self, call: u64) {
            assert!(self.entered.contains(&call), "{call} never entered");
            assert!(!self.over.contains(&call), "{call} is over twice");
            self.over.push(call);
        }

        fn is_over_unseen(&mut self, call: u64) {
            assert!(!self.seen.contains(&call), "the guest has seen {call}");
            self.is_over(call);
        }

        fn step(&mut self, random: &mut Random) {
            let any = |model: &Model, random: &mut Random| random.below(model.entered.len() + 1) as u64;
            match random.below(12) {
                0..4 if self.lists.refusal().is_none() => {
                    let call = self.entered.len() as u64 + 1;
                    let is_parked = self.lists.phase == Phase::Parked;
                    let entered = self.lists.enter(call, call);
                    assert_eq!((entered.call, entered.begins_run), (call, is_parked));
                    self.entered.push(call);
                    entered.over.into_iter().for_each(|call| self.is_over(call));
                }
                0..8 => {
                    if let Some((call, _)) = self.lists.next() {
                        assert!(!self.seen.contains(&call) && !self.over.contains(&call));
                        self.seen.push(call);
                    }
                }
                // A call has no answer before the guest has seen it.
                8 if !self.seen.is_empty() => {
                    let call = self.seen[random.below(self.seen.len())];
                    if let Left::Over { call, keep, .. } = self.lists.leave(call) {
                        assert_eq!(keep, self.lists.refusal().is_none());
                        self.is_over(call);
                    }
                }
                9 if random.below(4) == 0 => {
                    let given_up = self.lists.give_up(any(self, random), &CallEnd::Timeout(Spent::default()));
                    assert!(given_up == GivenUp::WasOver || self.lists.refusal().is_some());
                    if let GivenUp::Others(call) = given_up {
                        self.is_over(call);
                    }
                }
                10 if self.lists.phase == Phase::Running => {
                    let (ready, usable) = (random.below(8) > 0, random.below(8) > 0);
                    let waits = !self.lists.arriving.is_empty();
                    let parked = self.lists.park(ready, usable);
                    assert_eq!(parked.is_none(), ready && waits);
                    let Some(parked) = parked else { return };
                    assert_eq!(parked.keep, self.lists.refusal().is_none());
                    parked.over.into_iter().for_each(|(call, _)| self.is_over(call));
                    parked.refused.into_iter().for_each(|call| self.is_over_unseen(call));
                    assert_eq!(self.over.len(), self.entered.len(), "all are over with the run");
                }
                11 if random.below(8) == 0 => self.end(),
                _ => {}
            }
        }

        fn end(&mut self) {
            let ended = self.lists.end(CallEnd::Trap("unreachable".into()));
            ended.begun.into_iter().for_each(|call| self.is_over(call));
            ended.unseen.into_iter().for_each(|call| self.is_over_unseen(call));
            assert!(has_ended(&self.lists));
        }
    }

    #[test]
    fn whatever_happens_every_call_is_over_once() {
        for seed in 0..3_000 {
            let mut random = Random(seed);
            let mut model = Model { lists: Lists::default(), entered: vec![], seen: vec![], over: vec![] };
            for _ in 0..random.below(60) {
                model.step(&mut random);
            }
            model.end();
            assert_eq!(model.over.len(), model.entered.len(), "seed {seed}");
        }
    }
}
