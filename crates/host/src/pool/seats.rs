//! Instances of WASI 0.3 that are lent, and have seats for further calls.
//!
//! The first call takes an idle instance as any call does, and opens the others' seats. An instance goes back when
//! its last call leaves. Once a call has failed, or was given up, no further call joins.

use super::line::{Held, Lendable};
use crate::event::{Ended, MemberId};

/// The lent instances of a pool with what is free in them.
pub(super) struct Seats<I> {
    open: Vec<Open<I>>,
}

struct Open<I> {
    instance: I,
    served: u64,
    used: u32,
    failed: Option<Ended>,
}

impl<I: Lendable> Open<I> {
    /// How many more calls may join.
    fn free(&self) -> u32 {
        let joinable = self.failed.is_none() && self.instance.is_joinable();
        if joinable { self.instance.concurrency().saturating_sub(self.used) } else { 0 }
    }
}

/// The calls that a call leaves behind in its instance.
pub(super) enum Left {
    /// Others, that go on.
    Others,
    /// Nobody: the instance is the caller's. It is of no use if a call in it has failed.
    Nobody(Option<Ended>),
}

impl<I: Lendable> Seats<I> {
    pub(super) fn new() -> Seats<I> {
        Seats { open: Vec::new() }
    }

    /// An instance is about to be lent.
    pub(super) fn open(&mut self, held: &Held<I>) {
        if held.instance.concurrency() > 1
            && let Some(instance) = held.instance.share()
        {
            self.open.push(Open { instance, served: held.served, used: 1, failed: None });
        }
    }

    /// How many are free.
    pub(super) fn free(&self) -> usize {
        let free = self.open.iter().map(Open::free);
        free.fold(0, |all, free| all.saturating_add(usize::try_from(free).unwrap_or(usize::MAX)))
    }

    /// A seat in the instance that has the most of them.
    pub(super) fn take(&mut self) -> Option<Held<I>> {
        let free = self.open.iter_mut().filter(|open| open.free() > 0);
        let open = free.min_by_key(|open| open.used)?;
        let instance = open.instance.share()?;
        open.used += 1;
        open.served += 1;
        Some(Held { instance, served: open.served })
    }

    /// How many calls are in this instance, if it's one that several may share.
    pub(super) fn used(&self, member: MemberId) -> Option<u32> {
        self.open.iter().find(|open| open.instance.member() == member).map(|open| open.used)
    }

    /// A call leaves its seat, and says whether it has failed.
    pub(super) fn leave(&mut self, member: MemberId, failed: Option<Ended>) -> Left {
        let Some(at) = self.open.iter().position(|open| open.instance.member() == member) else {
            return Left::Nobody(failed);
        };
        let open = &mut self.open[at];
        open.used -= 1;
        open.failed = open.failed.take().or(failed);
        match open.used {
            0 => Left::Nobody(self.open.swap_remove(at).failed),
            _ => Left::Others,
        }
    }
}
