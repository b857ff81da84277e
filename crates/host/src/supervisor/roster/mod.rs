//! The members of all types: who holds a place in a count, who replaces whom, and who is on its way out. It knows
//! neither instances nor clocks: what happened goes in, and what is to be done comes out.
//!
//! ```text
//! queued -> starting -> serving -> leaving -> gone
//!              |  ^        |
//!              v  |        +-> gone, and its place is queued again
//!            backoff
//! ```
//!
//! Each attempt at an instance has a number of its own, a [`MemberId`], which is started once and never used again. An
//! event of an attempt that isn't wanted any more (a timer that was overtaken, a start that came too late) finds
//! nothing under its number, and changes nothing.
//!
//! A member that is to be replaced serves until its successor does. Members and successors start as long as there are
//! slots: members first, and successors only in slots that no member waits for.

mod kind;
mod moving;
mod names;
#[cfg(test)]
mod tests;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use self::kind::Due;
pub(super) use self::kind::{Kind, Member, Phase, Successor, Wanted};
use crate::event::MemberId;

/// See the module.
pub(super) struct Roster {
    kinds: Vec<Kind>,
    /// Instances for which there is room, of all types, those included that start or leave.
    slots: usize,
    next: MemberId,
    /// Members without an instance, in the order in which they will have one.
    queue: VecDeque<(usize, MemberId)>,
    /// Starts to be begun.
    starts: Vec<Start>,
    /// Starts that aren't wanted any more, to be ended.
    cancelled: Vec<MemberId>,
    /// Names of instances that no type counts.
    reserved: Vec<(Arc<str>, u32)>,
    /// Nothing starts any more.
    stopped: bool,
}

/// An instance to be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) type_index: usize,
    pub(super) member: MemberId,
    pub(super) index: u32,
}

/// A member or a successor that is to wait before it is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait {
    pub(super) index: u32,
    /// Failures in a row before this one.
    pub(super) failures: u32,
}

/// How a serving member ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It was asked to leave.
    Left,
    /// It ended as it was planned.
    Recycled,
    Crashed,
    /// There is no fresh instance for its next call.
    FailedToStart,
    /// A command that should run always ended; it had run for so long that earlier ends don't count.
    Exited {
        forgiven: bool,
    },
}

impl Roster {
    pub(super) fn new(slots: usize) -> Roster {
        Roster {
            kinds: vec![],
            slots,
            next: 1,
            queue: VecDeque::new(),
            starts: vec![],
            cancelled: vec![],
            reserved: vec![],
            stopped: false,
        }
    }

    /// A type without members begins at this place, where there was none or one that is gone.
    pub(super) fn begin(&mut self, type_index: usize, name: Arc<str>, version: u64) {
        if self.kinds.len() <= type_index {
            self.kinds.resize_with(type_index + 1, Kind::default);
        }
        self.kinds[type_index] = Kind { name, version, ..Kind::default() };
    }

    pub(super) fn kind(&self, type_index: usize) -> &Kind {
        &self.kinds[type_index]
    }

    // --- what is wanted

    /// So many members from now on. Returns those that are to leave: members without an instance go first and leave
    /// nothing behind, then idle ones, then the highest index.
    pub(super) fn desire(
        &mut self,
        type_index: usize,
        count: usize,
        is_busy: impl Fn(MemberId) -> bool,
    ) -> Vec<MemberId> {
        let kind = &mut self.kinds[type_index];
        (kind.desired, kind.slots) = (count, None);
        let surplus = kind.members.len().saturating_sub(count);
        let surplus = self.surplus(type_index, surplus, is_busy);
        let leaving = self.shrink(type_index, surplus);
        self.grow(type_index);
        leaving
    }

    /// Members with these indexes from now on, which are in order, and no others: hosts share the count. Returns those that
    /// are to leave.
    pub(super) fn desire_slots(&mut self, type_index: usize, slots: Vec<u32>) -> Vec<MemberId> {
        let kind = &mut self.kinds[type_index];
        let is_surplus = |place: &Member| slots.binary_search(&place.index).is_err();
        let surplus = kind.members.iter().filter(|(_, place)| is_surplus(place));
        let surplus = surplus.map(|(member, place)| (place.phase == Phase::Serving, *member)).collect();
        (kind.desired, kind.slots) = (slots.len(), Some(slots));
        let leaving = self.shrink(type_index, surplus);
        self.grow(type_index);
        leaving
    }

    fn grow(&mut self, type_index: usize) {
        let kind = &self.kinds[type_index];
        let missing = kind.desired.saturating_sub(kind.members.len());
        if self.stopped || missing == 0 {
            return;
        }
        let indexes = match &kind.slots {
            Some(slots) => {
                let taken: HashSet<u32> = kind.members.values().map(|place| place.index).collect();
                slots.iter().copied().filter(|slot| !taken.contains(slot)).collect()
            }
            None => self.free_indexes(&kind.name, missing),
        };
        for index in indexes {
            self.add(type_index, Member::queued(index));
        }
        self.fill();
    }

    /// The members that leave first, so many of them, and whether each of them serves.
    fn surplus(
        &self,
        type_index: usize,
        surplus: usize,
        is_busy: impl Fn(MemberId) -> bool,
    ) -> Vec<(bool, MemberId)> {
        if surplus == 0 {
            return vec![];
        }
        let members = self.kinds[type_index].members.iter();
        // Calls begin and end meanwhile: each is looked at once.
        let mut order: Vec<_> = members
            .map(|(member, place)| {
                let serves = place.phase == Phase::Serving;
                (serves, serves && is_busy(*member), std::cmp::Reverse(place.index), *member)
            })
            .collect();
        order.sort_unstable();
        order.into_iter().take(surplus).map(|(serves, _, _, member)| (serves, member)).collect()
    }

    fn shrink(&mut self, type_index: usize, surplus: Vec<(bool, MemberId)>) -> Vec<MemberId> {
        let mut leaving = Vec::new();
        for (serves, member) in surplus {
            if let Some(successor) = self.kinds[type_index].successor_of(member) {
                self.forget_successor(type_index, successor);
            }
            let Some(place) = self.remove(type_index, member) else { continue };
            if serves {
                self.kinds[type_index].leaving.insert(member, place.index);
                leaving.push(member);
            } else {
                self.cancel(type_index, member, place.phase);
            }
        }
        leaving
    }

    /// A person wants another instance in this member's place.
    pub(super) fn restart(&mut self, type_index: usize, member: MemberId) {
        let Some(place) = self.kinds[type_index].members.get(&member) else { return };
        match place.phase {
            Phase::Serving => self.replace(type_index, member, true),
            // It is about to be new.
            Phase::Queued | Phase::Starting => {}
            Phase::Backoff => self.try_again(type_index, member, true),
        }
    }

    /// This member is to be replaced, unless that was said before.
    pub(super) fn replace(&mut self, type_index: usize, member: MemberId, asked_for: bool) {
        let kind = &mut self.kinds[type_index];
        if kind.members.get(&member).is_none_or(|place| place.phase != Phase::Serving) {
            return;
        }
        if let Some(id) = kind.successor_of(member) {
            if let Some(successor) = kind.successors.get_mut(&id)
                && asked_for
            {
                successor.asked_for = true;
                if successor.phase == Phase::Backoff {
                    self.try_again(type_index, id, true);
                }
            }
            return;
        }
        match kind.due.iter_mut().find(|due| due.member == member) {
            Some(due) => due.asked_for |= asked_for,
            None => kind.due.push_back(Due { member, asked_for }),
        }
        self.fill();
    }

    /// Starts nothing any more.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
        self.starts.clear();
    }

    // --- what happened

    /// An instance is there. `None` where nobody wants it any more.
    pub(super) fn started(
        &mut self,
        type_index: usize,
        member: MemberId,
        keeps_failures: bool,
    ) -> Option<Wanted> {
        let kind = &mut self.kinds[type_index];
        let wanted = if let Some(successor) = kind.remove_successor(member) {
            kind.succeed(member, successor)
        } else if let Some(place) = kind.members.get_mut(&member)
            && place.phase == Phase::Starting
        {
            place.phase = Phase::Serving;
            kind.tally.remove(Phase::Starting);
            kind.tally.add(Phase::Serving);
            if !keeps_failures {
                place.failures = 0;
            }
            Some(Wanted { index: place.index, instead_of: None })
        } else {
            kind.unwanted.remove(&member);
            None
        };
        if kind.members.get(&member).is_some_and(|place| place.version != kind.version) {
            // The type moved to another version while it started.
            self.replace(type_index, member, true);
        }
        self.fill();
        wanted
    }

    /// An instance could not be started. `None` where nobody wants it any more.
    pub(super) fn failed_to_start(&mut self, type_index: usize, member: MemberId) -> Option<Wait> {
        self.kinds[type_index].unwanted.remove(&member);
        let wait = self.back_off(type_index, member);
        self.fill();
        wait
    }

    /// An instance that served is gone, or has left. Says whether its place waits before it is tried again, and how
    /// its number is then.
    pub(super) fn ended(&mut self, type_index: usize, member: MemberId, ending: Ending) -> Option<Wait> {
        let wait = self.end(type_index, member, ending);
        self.grow(type_index);
        self.fill();
        wait
    }

    fn end(&mut self, type_index: usize, member: MemberId, ending: Ending) -> Option<Wait> {
        let kind = &mut self.kinds[type_index];
        if kind.leaving.remove(&member).is_some() {
            kind.late.remove(&member);
            return None;
        }
        let place = kind.members.get_mut(&member).filter(|place| place.phase == Phase::Serving)?;
        match ending {
            Ending::Left | Ending::FailedToStart => {}
            Ending::Recycled => {
                place.recycled += 1;
                kind.recycled += 1;
            }
            Ending::Crashed => {
                place.restarts += 1;
                kind.restarts += 1;
            }
            Ending::Exited { forgiven: true } => place.failures = 0,
            Ending::Exited { forgiven: false } => {}
        }
        // A successor that is on its way takes the place now.
        if let Some(successor) = kind.successor_of(member) {
            kind.promote(member, successor);
            if kind.members.get(&successor).is_some_and(|place| place.phase == Phase::Queued) {
                self.queue.push_back((type_index, successor));
            }
            return None;
        }
        match ending {
            Ending::Exited { .. } | Ending::FailedToStart => return self.back_off(type_index, member),
            Ending::Left => drop(self.remove(type_index, member)),
            Ending::Recycled | Ending::Crashed => self.queue_again(type_index, member),
        }
        None
    }

    /// The wait after a failure is over.
    pub(super) fn waited(&mut self, type_index: usize, member: MemberId) {
        self.try_again(type_index, member, false);
    }

    fn back_off(&mut self, type_index: usize, member: MemberId) -> Option<Wait> {
        let kind = &mut self.kinds[type_index];
        let (index, failures) = if let Some(place) = kind.members.get_mut(&member) {
            kind.tally.remove(place.phase);
            kind.tally.add(Phase::Backoff);
            place.phase = Phase::Backoff;
            place.restarts += 1;
            (place.index, &mut place.failures)
        } else if let Some(successor) = kind.successors.get_mut(&member) {
            kind.successors_tally.remove(successor.phase);
            kind.successors_tally.add(Phase::Backoff);
            successor.phase = Phase::Backoff;
            (successor.index, &mut successor.failures)
        } else {
            return None;
        };
        let before = *failures;
        *failures = before.saturating_add(1);
        kind.restarts += 1;
        Some(Wait { index, failures: before })
    }

    /// One that waits after a failure is queued, under a number of its own.
    fn try_again(&mut self, type_index: usize, member: MemberId, forgiven: bool) {
        let kind = &mut self.kinds[type_index];
        let is_in_backoff = |phase: Phase| phase == Phase::Backoff;
        if let Some(place) = kind.members.get_mut(&member).filter(|place| is_in_backoff(place.phase)) {
            if forgiven {
                place.failures = 0;
            }
            self.queue_again(type_index, member);
        } else if kind.successors.get(&member).is_some_and(|successor| is_in_backoff(successor.phase))
            && let Some(successor) = kind.remove_successor(member)
        {
            let failures = if forgiven { 0 } else { successor.failures };
            let again = self.number();
            let kind = &mut self.kinds[type_index];
            kind.add_successor(again, Successor { phase: Phase::Queued, failures, ..successor });
            kind.successors_queued.push_back(again);
        }
        self.fill();
    }

    // --- who starts

    /// Starts as many of those that wait for a slot as there are slots for.
    fn fill(&mut self) {
        if self.stopped {
            return;
        }
        let held: usize = self.kinds.iter().map(Kind::held).sum();
        let mut free = self.slots.saturating_sub(held);
        while free > 0
            && let Some((type_index, member)) = self.queue.pop_front()
        {
            let kind = &mut self.kinds[type_index];
            let Some(place) = kind.members.get_mut(&member) else { continue };
            place.phase = Phase::Starting;
            place.version = kind.version;
            kind.tally.add(Phase::Starting);
            self.starts.push(Start { type_index, member, index: place.index });
            free -= 1;
        }
        let reserved: usize = self.kinds.iter().map(Kind::without_slot).sum();
        let mut free = free.saturating_sub(reserved);
        for type_index in 0..self.kinds.len() {
            while free > 0
                && let Some(start) = self.next_successor(type_index)
            {
                self.starts.push(start);
                free -= 1;
            }
        }
    }

    /// The next successor of a type that may start: one that waits already, or that of a member that is due.
    fn next_successor(&mut self, type_index: usize) -> Option<Start> {
        let kind = &mut self.kinds[type_index];
        while let Some(member) = kind.successors_queued.pop_front() {
            if let Some(successor) = kind.successors.get_mut(&member) {
                successor.phase = Phase::Starting;
                successor.version = kind.version;
                kind.successors_tally.add(Phase::Starting);
                return Some(Start { type_index, member, index: successor.index });
            }
        }
        let (Due { member: of, asked_for }, index) = kind.next_due()?;
        let version = kind.version;
        let member = self.number();
        let successor = Successor { of, index, phase: Phase::Starting, failures: 0, asked_for, version };
        self.kinds[type_index].add_successor(member, successor);
        Some(Start { type_index, member, index })
    }

    /// Starts that the caller is to begin.
    pub(super) fn take_starts(&mut self) -> Vec<Start> {
        std::mem::take(&mut self.starts)
    }

    /// Starts that the caller is to end: nobody wants them any more.
    pub(super) fn take_cancelled(&mut self) -> Vec<MemberId> {
        std::mem::take(&mut self.cancelled)
    }

    // --- steps of the above

    fn number(&mut self) -> MemberId {
        let member = self.next;
        self.next += 1;
        member
    }

    fn add(&mut self, type_index: usize, place: Member) {
        let member = self.number();
        self.kinds[type_index].members.insert(member, place);
        self.queue.push_back((type_index, member));
    }

    /// Its place is for another instance, with another number.
    fn queue_again(&mut self, type_index: usize, member: MemberId) {
        if let Some(place) = self.remove(type_index, member) {
            self.add(type_index, Member { phase: Phase::Queued, ..place });
        }
    }

    fn remove(&mut self, type_index: usize, member: MemberId) -> Option<Member> {
        let kind = &mut self.kinds[type_index];
        let place = kind.members.remove(&member)?;
        kind.tally.remove(place.phase);
        Some(place)
    }

    fn forget_successor(&mut self, type_index: usize, member: MemberId) {
        if let Some(successor) = self.kinds[type_index].remove_successor(member) {
            self.cancel(type_index, member, successor.phase);
        }
    }

    /// It isn't wanted any more, and holds its slot until its start has ended.
    fn cancel(&mut self, type_index: usize, member: MemberId, phase: Phase) {
        if phase != Phase::Starting {
            return;
        }
        // The caller may not have begun it yet.
        let before = self.starts.len();
        self.starts.retain(|start| start.member != member);
        if self.starts.len() == before {
            self.kinds[type_index].unwanted.insert(member);
            self.cancelled.push(member);
        }
    }
}
