//! Who gets which instance of a type: calls are matched with idle instances, with seats in busy ones, and with each
//! other in the line. Instances and calls are told apart here and handed on, and never called.
//!
//! ```text
//! ask -> lent  an instance that is idle, or a seat in a busy one
//!     -> wait  in the line, until `next` hands out what came free
//!     -> refused
//! ```
//!
//! A call never goes before one that waits for the same. An idle instance goes to the call that waits longest; of
//! several idle ones the one used last goes first, since its memory is still in the processor's caches. Calls that need
//! an unused instance have a line of their own, which goes first: an instance was made for them. So have calls that a
//! version has failed while its type moves, and that the other one is to serve ([`other`]).
//!
//! Code that makes room calls [`Line::next`] until the line has nothing more to give.

mod other;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use self::other::OtherCalls;

use super::seats::{Left, Seats};
use crate::event::{Ended, MemberId};

/// An instance, as far as the line looks at it.
pub(super) trait Lendable: Sized {
    fn member(&self) -> MemberId;

    /// Another handle on it, for a call beside those that are in it; none where it serves one at a time.
    fn share(&self) -> Option<Self>;

    /// Whether another call may join those that are in it. A join that was refused once isn't allowed later.
    fn is_joinable(&self) -> bool;

    /// It was asked to leave.
    fn is_leaving(&self) -> bool;

    /// Calls that it serves at once.
    fn concurrency(&self) -> u32;

    /// It serves one call, and a fresh one comes after it. To be asked under the lock: what calls teach changes it
    /// there.
    fn is_for_one_call(&self) -> bool;

    /// The release whose version it is of.
    fn release(&self) -> u64;
}

/// A call that waits.
pub(super) trait Caller {
    /// It waits no more.
    fn has_gone(&self) -> bool;
}

/// See the module.
pub(super) struct Line<I, C> {
    /// The one used last is last.
    idle: Vec<Held<I>>,
    seats: Seats<I>,
    calls: VecDeque<C>,
    /// Calls that need an instance that was not called yet.
    fresh_calls: VecDeque<C>,
    /// Calls that need an instance of another version than one that failed them.
    other_calls: OtherCalls<C>,
    calls_max: usize,
    /// Calls that were promised one of those that are idle. There may be more than are idle once some of these had to
    /// leave.
    promised: usize,
    /// Fresh instances that are on their way for calls that need one.
    renewing: usize,
    outlook: Outlook,
    /// No call is to wait: those that find nothing free have other instances.
    is_closed: bool,
}

/// An instance, with the calls that it has served.
pub(super) struct Held<I> {
    pub(super) instance: I,
    pub(super) served: u64,
}

/// Which instance a call may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Any.
    Any,
    /// One that was not called yet.
    Fresh,
    /// One that was not called yet or, where all are busy, a seat beside other calls.
    FreshOrSeat,
    /// One of another version than this release's.
    OtherThan(u64),
}

/// Whether a call that waits has something to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// There are instances, or there will be in a moment.
    Good,
    /// The count is 0.
    NoCount,
    /// Every instance failed to start, and waits to be tried again.
    AllInBackoff,
}

/// Why a call got no instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoInstance {
    /// As many calls wait as may.
    LineFull,
    /// It waited as long as it may.
    TimedOut,
    /// The count is 0.
    NoCount,
    /// Every instance failed to start, and waits to be tried again.
    AllInBackoff,
}

impl NoInstance {
    /// For the log.
    pub(crate) fn summary(self) -> &'static str {
        match self {
            NoInstance::LineFull => "as many requests wait as may",
            NoInstance::TimedOut => "it waited for an instance for as long as it may",
            NoInstance::NoCount => "there are no instances: the count is 0",
            NoInstance::AllInBackoff => "every instance fails to start",
        }
    }
}

/// The answer to a call that asks for an instance.
pub(super) enum Asked<I> {
    Handed(Handed<I>),
    /// It is to wait ([`Line::wait`]).
    Wait {
        turn: Turn,
        /// An instance that is idle and used: to be renewed for the call, as [`Put::Renew`] says.
        renew: Option<Held<I>>,
    },
    Refused(NoInstance),
}

/// The instance, or the promise of one, that a call was given.
pub(super) enum Handed<I> {
    Instance(Held<I>),
    /// One of the idle instances, which one is decided later ([`Line::redeem`]).
    Promise,
}

/// Where in the line a call waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Behind the others, if there is room.
    Last,
    /// It was admitted before, and goes first.
    First,
    /// For an instance that was not called yet.
    Fresh,
    /// For an instance of another version than this release's.
    OtherThan(u64),
}

/// The fate of an instance that a call has left.
pub(super) enum Put<I> {
    /// It is idle.
    Kept,
    /// A fresh one is to take its place, and [`Line::renewed`] to be told of it.
    Renew(Held<I>),
    /// It was asked to leave.
    Leaves(Held<I>),
}

impl<I: Lendable, C: Caller> Line<I, C> {
    /// For so many calls that may wait.
    pub(super) fn new(calls_max: usize) -> Line<I, C> {
        Line {
            idle: Vec::new(),
            seats: Seats::new(),
            calls: VecDeque::new(),
            fresh_calls: VecDeque::new(),
            other_calls: OtherCalls::default(),
            calls_max,
            promised: 0,
            renewing: 0,
            outlook: Outlook::Good,
            is_closed: false,
        }
    }

    // --- who asks

    /// A call wants an instance. `turn` is where it waits, if it has to. `by_promise` says that
    /// calls are promised an instance, and take it when their turn comes. `some_have_gone` says whether calls in the
    /// line may have gone since it was asked last: to look at each of a full line, for each call that is refused, would
    /// cost more than the refusal.
    pub(super) fn ask(
        &mut self,
        need: Need,
        turn: Turn,
        by_promise: bool,
        some_have_gone: impl FnOnce() -> bool,
    ) -> Asked<I> {
        if let Some(handed) = self.lend_now(need, turn, by_promise) {
            return Asked::Handed(handed);
        }
        match self.outlook {
            Outlook::NoCount => return Asked::Refused(NoInstance::NoCount),
            Outlook::AllInBackoff => return Asked::Refused(NoInstance::AllInBackoff),
            Outlook::Good if self.is_closed => return Asked::Refused(NoInstance::LineFull),
            Outlook::Good => {}
        }
        if turn == Turn::Last && self.places_taken() >= self.calls_max {
            if some_have_gone() {
                self.calls.retain(|call| !call.has_gone());
                self.fresh_calls.retain(|call| !call.has_gone());
                self.other_calls.drop_gone();
            }
            if self.places_taken() >= self.calls_max {
                return Asked::Refused(NoInstance::LineFull);
            }
        }
        if let Need::OtherThan(release) = need {
            return Asked::Wait { turn: Turn::OtherThan(release), renew: None };
        }
        // Those that are idle have been called, or they would have been lent: one makes room for a fresh one.
        let wants_fresh = need == Need::Fresh || (need == Need::FreshOrSeat && self.free() > 0);
        if !wants_fresh {
            return Asked::Wait { turn, renew: None };
        }
        let renew = if self.fresh_calls.len() >= self.renewing { self.take_idle_used() } else { None };
        self.renewing += usize::from(renew.is_some());
        Asked::Wait { turn: Turn::Fresh, renew }
    }

    fn lend_now(&mut self, need: Need, turn: Turn, by_promise: bool) -> Option<Handed<I>> {
        let is_first = turn == Turn::First || !self.anyone_waits();
        match need {
            Need::Any if is_first => self.lend_any(by_promise),
            Need::Any => None,
            Need::Fresh => self.lend_fresh(),
            Need::OtherThan(release) => self.lend_other(release),
            Need::FreshOrSeat => {
                if let Some(handed) = self.lend_fresh() {
                    return Some(handed);
                }
                let may_join = is_first && self.free() == 0;
                if may_join { self.lend_seat() } else { None }
            }
        }
    }

    /// The call waits from now on.
    pub(super) fn wait(&mut self, turn: Turn, call: C) {
        match turn {
            Turn::Last => self.calls.push_back(call),
            Turn::First => self.calls.push_front(call),
            Turn::Fresh => self.fresh_calls.push_back(call),
            Turn::OtherThan(release) => self.other_calls.push(call, release),
        }
    }

    /// An idle instance, or a seat, for a call that won't wait.
    pub(super) fn try_lend(&mut self) -> Option<Held<I>> {
        if self.anyone_waits() {
            return None;
        }
        match self.lend_any(false)? {
            Handed::Instance(held) => Some(held),
            Handed::Promise => None,
        }
    }

    /// An idle instance, for a call that won't wait and that no other may join: its seats are not opened.
    pub(super) fn try_lend_alone(&mut self) -> Option<Held<I>> {
        if self.anyone_waits() {
            return None;
        }
        self.last_idle().map(|at| self.idle.remove(at))
    }

    /// The next call that need not wait any more, and what it gets.
    pub(super) fn next(&mut self, by_promise: bool) -> Option<(C, Handed<I>)> {
        if let Some(next) = self.next_other() {
            return Some(next);
        }
        drop_gone(&mut self.fresh_calls);
        drop_gone(&mut self.calls);
        if !self.fresh_calls.is_empty()
            && let Some(handed) = self.lend_fresh_to_first()
        {
            return self.fresh_calls.pop_front().map(|call| (call, handed));
        }
        if self.calls.is_empty() {
            return None;
        }
        let handed = self.lend_any(by_promise)?;
        self.calls.pop_front().map(|call| (call, handed))
    }

    /// A call comes for what it was promised. None is left where idle instances had to leave meanwhile.
    pub(super) fn redeem(&mut self) -> Option<Held<I>> {
        self.withdraw();
        let last = self.idle.len().checked_sub(1)?;
        Some(self.lend_at(last))
    }

    /// A promise is given back.
    pub(super) fn withdraw(&mut self) {
        self.promised -= 1;
    }

    // --- what comes and goes

    /// An instance comes, or comes back.
    pub(super) fn put(&mut self, held: Held<I>) -> Put<I> {
        if held.instance.is_leaving() {
            return Put::Leaves(held);
        }
        drop_gone(&mut self.fresh_calls);
        if held.served > 0 && (held.instance.is_for_one_call() || self.fresh_calls.len() > self.renewing) {
            self.renewing += 1;
            return Put::Renew(held);
        }
        self.idle.push(held);
        Put::Kept
    }

    /// A call leaves its instance, and says whether the instance is of no use any more.
    pub(super) fn leave(&mut self, member: MemberId, failed: Option<Ended>) -> Left {
        self.seats.leave(member, failed)
    }

    /// Takes out those idle instances that were asked to leave.
    pub(super) fn take_leaving(&mut self) -> Vec<Held<I>> {
        self.idle.extract_if(.., |held| held.instance.is_leaving()).collect()
    }

    /// An instance was renewed, or can't be.
    pub(super) fn renewed(&mut self) {
        self.renewing -= 1;
    }

    /// Takes out those idle instances that were called before, each to be renewed as [`Put::Renew`] says.
    pub(super) fn take_used(&mut self) -> Vec<Held<I>> {
        let used: Vec<_> = self.idle.extract_if(.., |held| held.served > 0).collect();
        self.renewing += used.len();
        used
    }

    /// Says what calls have to expect that find no instance. Returns those that wait where it is nothing.
    pub(super) fn outlook(&self) -> Outlook {
        self.outlook
    }

    pub(super) fn set_outlook(&mut self, outlook: Outlook) -> Vec<C> {
        self.outlook = outlook;
        match outlook {
            Outlook::Good => vec![],
            Outlook::NoCount | Outlook::AllInBackoff => self.take_waiting(),
        }
    }

    /// Calls may wait from now on.
    pub(super) fn open(&mut self) {
        self.is_closed = false;
    }

    /// No call is to wait from now on. Returns those that do.
    pub(super) fn close(&mut self) -> Vec<C> {
        self.is_closed = true;
        self.take_waiting()
    }

    fn take_waiting(&mut self) -> Vec<C> {
        let others = self.other_calls.take();
        others.chain(self.fresh_calls.drain(..)).chain(self.calls.drain(..)).collect()
    }

    pub(super) fn set_calls_max(&mut self, calls_max: usize) {
        self.calls_max = calls_max;
    }

    // --- how things stand

    /// Calls in a lent instance.
    pub(super) fn calls_in(&self, member: MemberId) -> u32 {
        self.seats.used(member).unwrap_or(1)
    }

    /// Calls that could begin now.
    pub(super) fn room(&self) -> usize {
        self.free().saturating_add(self.seats.free())
    }

    /// Calls that wait.
    pub(super) fn waiting(&self) -> usize {
        let calls = self.calls.iter().chain(&self.fresh_calls).chain(self.other_calls.iter());
        calls.filter(|call| !call.has_gone()).count()
    }

    /// Idle instances that weren't promised.
    fn free(&self) -> usize {
        self.idle.len().saturating_sub(self.promised)
    }

    /// Places in the line, those of calls included that have gone.
    fn places_taken(&self) -> usize {
        self.calls.len() + self.fresh_calls.len() + self.other_calls.len()
    }

    /// Whether a call that needs no fresh instance would go before another.
    fn anyone_waits(&mut self) -> bool {
        drop_gone(&mut self.calls);
        !self.calls.is_empty()
    }

    // --- what is lent

    /// An idle instance, a promise of one, or a seat.
    fn lend_any(&mut self, by_promise: bool) -> Option<Handed<I>> {
        if by_promise && self.free() > 0 {
            self.promised += 1;
            return Some(Handed::Promise);
        }
        match self.last_idle() {
            Some(at) => Some(Handed::Instance(self.lend_at(at))),
            None => self.lend_seat(),
        }
    }

    /// Where the idle instance is that was used last, if one is free for a call that may have any.
    fn last_idle(&mut self) -> Option<usize> {
        if self.free() == 0 {
            return None;
        }
        drop_gone(&mut self.fresh_calls);
        match self.fresh_calls.is_empty() {
            true => self.idle.len().checked_sub(1),
            // An unused one is for those.
            false => self.idle.iter().rposition(|held| held.served > 0),
        }
    }

    fn lend_fresh(&mut self) -> Option<Handed<I>> {
        drop_gone(&mut self.fresh_calls);
        if self.fresh_calls.is_empty() { self.lend_fresh_to_first() } else { None }
    }

    fn lend_fresh_to_first(&mut self) -> Option<Handed<I>> {
        if self.free() == 0 {
            return None;
        }
        let at = self.idle.iter().rposition(|held| held.served == 0)?;
        Some(Handed::Instance(self.lend_at(at)))
    }

    fn lend_seat(&mut self) -> Option<Handed<I>> {
        self.seats.take().map(Handed::Instance)
    }

    fn lend_at(&mut self, at: usize) -> Held<I> {
        let held = self.idle.remove(at);
        if !held.instance.is_for_one_call() {
            self.seats.open(&held);
        }
        held
    }

    /// An idle instance that was called before, and isn't to be lent any more.
    fn take_idle_used(&mut self) -> Option<Held<I>> {
        if self.free() == 0 {
            return None;
        }
        let at = self.idle.iter().rposition(|held| held.served > 0)?;
        Some(self.idle.remove(at))
    }
}

/// Calls at the head of a line that have gone.
fn drop_gone<C: Caller>(calls: &mut VecDeque<C>) {
    while calls.front().is_some_and(C::has_gone) {
        calls.pop_front();
    }
}
