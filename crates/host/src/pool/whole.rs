//! Instances and calls as the [line](super::line) sees them.

use std::sync::Arc;

use tokio::sync::oneshot;
use wasmhost_engine::Instance;

use super::line::{Caller, Lendable};
use super::{Lent, NoInstance, Slot};
use crate::event::MemberId;

/// An instance with its place.
pub(super) struct Whole {
    pub(super) instance: Instance,
    pub(super) slot: Arc<Slot>,
}

impl Lendable for Whole {
    fn member(&self) -> MemberId {
        self.slot.member
    }

    fn share(&self) -> Option<Whole> {
        let instance = self.instance.share()?;
        Some(Whole { instance, slot: self.slot.clone() })
    }

    fn is_joinable(&self) -> bool {
        !self.slot.is_draining() && !self.slot.is_spent() && self.instance.is_open()
    }

    fn is_leaving(&self) -> bool {
        self.slot.is_draining()
    }

    fn concurrency(&self) -> u32 {
        self.slot.version.keeping.concurrency
    }

    fn is_for_one_call(&self) -> bool {
        self.slot.version.is_fresh_each_call()
    }

    fn release(&self) -> u64 {
        self.slot.version.release
    }
}

pub(super) type Waiting = oneshot::Sender<Result<Lent, NoInstance>>;

impl Caller for Waiting {
    fn has_gone(&self) -> bool {
        self.is_closed()
    }
}
