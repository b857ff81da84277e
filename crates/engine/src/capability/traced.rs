//! The traces of the calls that are in an instance of WASI 0.3: a request or a job that its guest sends is part of that of
//! the call which sends it.

use std::collections::VecDeque;
use std::sync::Arc;

use wasmtime::component::GuestTaskId;

use crate::services::{CallTrace, Trace};

/// Calls whose traces are known at once, at most. A call goes on after its answer, so that the end of one isn't seen: the
/// oldest give way.
const CALLS_MAX: usize = 1_000;

/// See the module.
#[derive(Default)]
pub(crate) struct CallTraces(VecDeque<(GuestTaskId, Arc<dyn CallTrace>)>);

impl CallTraces {
    /// A call has begun as this task of the guest.
    pub(crate) fn begin(&mut self, task: GuestTaskId, trace: Arc<dyn CallTrace>) {
        if self.0.len() >= CALLS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((task, trace));
    }

    /// Nothing is left in the guest.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The trace of the call that has one of these tasks. Numbers of tasks are used again: the youngest counts.
    pub(super) fn of(&self, mut tasks: impl Iterator<Item = GuestTaskId>) -> Trace {
        let of = |task: GuestTaskId| self.0.iter().rev().find(|(known, _)| *known == task);
        tasks.find_map(of).map(|(_, trace)| trace.clone())
    }
}
