//! Instances of WASI 0.3 that are lent, and have seats for further calls.
//!
//! The first call takes an idle instance as any call does, and opens the others' seats. An instance goes back when
//! its last call leaves. Once a call has failed, or was given up, nobody joins it any more.

use std::sync::Arc;

use wasmhost_engine::Instance;

use super::{Idle, Slot};
use crate::event::Ended;

/// The lent instances of a pool with what is free in them.
pub(super) struct Seats {
    /// Calls at once in one instance; with 1 there is nothing to share.
    concurrency: u32,
    open: Vec<Open>,
}

struct Open {
    slot: Arc<Slot>,
    instance: Instance,
    served: u64,
    used: u32,
    failed: Option<Ended>,
}

impl Open {
    /// How many more calls may join.
    fn free(&self, concurrency: u32) -> u32 {
        let joinable = self.failed.is_none()
            && !self.slot.is_draining()
            && !self.slot.is_spent()
            && self.instance.is_open();
        if joinable { concurrency.saturating_sub(self.used) } else { 0 }
    }
}

/// What a call leaves behind in its instance.
pub(super) enum Left {
    /// Others, that go on.
    Others,
    /// Nobody: the instance is the caller's. It is of no use if a call in it has failed.
    Nobody(Option<Ended>),
}

impl Seats {
    pub(super) fn new(concurrency: u32) -> Seats {
        Seats { concurrency, open: Vec::new() }
    }

    /// An instance is about to be lent.
    pub(super) fn open(&mut self, idle: &Idle) {
        if self.concurrency > 1
            && let Some(instance) = idle.instance.share()
        {
            let (slot, served) = (idle.slot.clone(), idle.served);
            self.open.push(Open { slot, instance, served, used: 1, failed: None });
        }
    }

    /// How many are free.
    pub(super) fn free(&self) -> usize {
        let free = self.open.iter().map(|open| open.free(self.concurrency));
        free.fold(0, |all, free| all.saturating_add(usize::try_from(free).unwrap_or(usize::MAX)))
    }

    /// A seat in the instance that has the most of them.
    pub(super) fn take(&mut self) -> Option<Idle> {
        let concurrency = self.concurrency;
        let free = self.open.iter_mut().filter(|open| open.free(concurrency) > 0);
        let open = free.min_by_key(|open| open.used)?;
        let instance = open.instance.share()?;
        open.used += 1;
        open.served += 1;
        Some(Idle { instance, slot: open.slot.clone(), served: open.served })
    }

    /// A call leaves its seat, and says whether it has failed.
    pub(super) fn leave(&mut self, slot: &Slot, failed: Option<Ended>) -> Left {
        let Some(at) = self.open.iter().position(|open| open.slot.member == slot.member) else {
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
