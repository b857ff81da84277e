//! The history of a type: what its calls have shown so far.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::sandbox::meter::Meter;
use crate::threads::pace::Pace;

/// See the module. The default knows nothing.
#[derive(Debug, Default)]
pub(crate) struct TypeHistory {
    pub(crate) pace: Pace,
    told_not_ready: AtomicBool,
}

impl TypeHistory {
    /// Learns from a call that is over, or a run of several.
    pub(crate) fn note(&self, meter: &Meter) {
        if meter.has_held_thread() {
            self.pace.stay_long();
        }
    }

    /// A guest takes no more calls. True for the first of its type.
    pub(crate) fn is_first_not_ready(&self) -> bool {
        !self.told_not_ready.swap(true, Relaxed)
    }
}
