//! Instances and calls of tests.

use std::cell::Cell;
use std::rc::Rc;

use super::super::{Caller, Lendable};
use crate::event::MemberId;

#[derive(Clone)]
pub(in super::super) struct Thing {
    pub(in super::super) member: MemberId,
    pub(in super::super) concurrency: u32,
    pub(in super::super) for_one_call: bool,
    pub(in super::super) leaving: Rc<Cell<bool>>,
    pub(in super::super) release: u64,
}

impl Lendable for Thing {
    fn member(&self) -> MemberId {
        self.member
    }

    fn share(&self) -> Option<Thing> {
        (self.concurrency > 1).then(|| self.clone())
    }

    fn is_joinable(&self) -> bool {
        !self.leaving.get()
    }

    fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    fn concurrency(&self) -> u32 {
        self.concurrency
    }

    fn is_for_one_call(&self) -> bool {
        self.for_one_call
    }

    fn release(&self) -> u64 {
        self.release
    }
}

#[derive(Clone)]
pub(in super::super) struct Call {
    pub(in super::super) number: u32,
    pub(in super::super) gone: Rc<Cell<bool>>,
}

impl Caller for Call {
    fn has_gone(&self) -> bool {
        self.gone.get()
    }
}
