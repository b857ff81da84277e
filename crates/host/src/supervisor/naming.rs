//! Names for instances that the supervisor doesn't start: no other instance has one of them meanwhile.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::Supervisor;
use crate::event::Event;

/// A type's name and an index that are free again when this is dropped.
pub(crate) struct Name {
    process: Arc<str>,
    pub(crate) index: u32,
    events: mpsc::UnboundedSender<Event>,
}

impl Drop for Name {
    fn drop(&mut self) {
        // Nobody listens once the host is going.
        let _ = self.events.send(Event::NameFree { process: self.process.clone(), index: self.index });
    }
}

impl Supervisor {
    pub(super) fn name(&mut self, process: Arc<str>) -> Name {
        let index = self.roster.reserve(process.clone());
        Name { process, index, events: self.events.clone() }
    }
}
