//! Instances that were refused memory in a call that returned nevertheless. They are replaced, since such a guest has
//! fragments of what it couldn't finish in its memory; and nothing but a line in the log would say why.

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;
use wasmhost_engine::Shortage;

use super::{Pool, Slot};
use crate::few_lines::FewLines;

/// Lines of one type in one window.
const LINES_MAX: u32 = 1;
const WINDOW: Duration = Duration::from_secs(60);

pub(super) fn lines(process: Arc<str>) -> Arc<FewLines<()>> {
    FewLines::new(LINES_MAX, WINDOW, move |(), count| {
        warn!(%process, "{count} more calls within a minute were refused memory, and returned");
    })
}

impl Pool {
    pub(super) fn tell_shortage(&self, slot: &Slot, shortage: Shortage) {
        if self.shortages.has_room(()) {
            warn!(
                instance = %slot.name,
                "a call was refused memory, and returned ({shortage}): its instance is replaced"
            );
        }
    }
}
