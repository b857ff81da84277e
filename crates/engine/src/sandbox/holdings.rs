//! The handles of a guest that cost the host more than memory of the guest's own: each is remembered with what it
//! holds, until the guest drops it.

use std::collections::HashMap;

use wasmtime_wasi::filesystem::Descriptor;

use super::descriptors::{Counter, Permit};
use super::lookups::{LookingUp, Lookups};

/// Header fields are counted anew when an instance has added so many bytes of them.
const FIELDS_ADDED_MAX: usize = 1 << 20;

/// The descriptors and lookups that the handles of one instance hold.
pub(crate) struct Holdings {
    /// Where descriptors are counted.
    pub(crate) descriptors: Counter,
    pub(crate) lookups: Lookups,
    by_handle: HashMap<u32, Holding>,
    /// Bytes of header fields and the like that were added since all of them were counted.
    fields_added: usize,
}

/// The descriptor or lookup that one handle holds.
#[derive(Default)]
pub(crate) struct Holding {
    pub(crate) descriptor: Option<Permit>,
    pub(crate) lookup: Option<LookingUp>,
    /// The granted directory that it was found in, by its place among the grants.
    pub(crate) grant: Option<usize>,
    /// The file or the directory, where the handle is a core module's: its library keeps them to itself.
    pub(crate) opened: Option<Descriptor>,
}

impl Holdings {
    pub(crate) fn new(descriptors: Counter) -> Holdings {
        Holdings { lookups: descriptors.lookups(), descriptors, by_handle: HashMap::new(), fields_added: 0 }
    }

    pub(crate) fn keep(&mut self, handle: u32, holding: Holding) {
        self.by_handle.insert(handle, holding);
    }

    /// To be called when the guest drops any handle that may hold something.
    pub(crate) fn give_back(&mut self, handle: u32) {
        self.by_handle.remove(&handle);
    }

    /// A core module gives a descriptor another number, and closes the one that had it.
    pub(crate) fn renumber(&mut self, from: u32, to: u32) {
        if from != to {
            self.by_handle.remove(&to);
            if let Some(holding) = self.by_handle.remove(&from) {
                self.by_handle.insert(to, holding);
            }
        }
    }

    /// Notes that the guest has added so many bytes of header fields. True when it's time to count all of them.
    pub(crate) fn add_fields(&mut self, bytes: usize) -> bool {
        self.fields_added = self.fields_added.saturating_add(bytes);
        let is_time = self.fields_added > FIELDS_ADDED_MAX;
        if is_time {
            self.fields_added = 0;
        }
        is_time
    }

    /// The look-up behind a handle has ended.
    pub(crate) fn finish_lookup(&mut self, handle: u32) {
        let lookup = self.by_handle.get_mut(&handle).and_then(|holding| holding.lookup.take());
        lookup.into_iter().for_each(LookingUp::finish);
    }

    /// The descriptor that a handle holds, for a stream of it that may outlive the handle.
    pub(crate) fn descriptor_of(&self, handle: u32) -> Option<Permit> {
        self.by_handle.get(&handle)?.descriptor.clone()
    }

    pub(crate) fn grant_of(&self, handle: u32) -> Option<usize> {
        self.by_handle.get(&handle)?.grant
    }

    /// The file or the directory that a core module's handle is of.
    pub(crate) fn opened(&self, handle: u32) -> Option<&Descriptor> {
        self.by_handle.get(&handle)?.opened.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::descriptors::Room;
    use super::*;

    fn holdings() -> Holdings {
        Holdings::new(Counter::new(&Room::new(100), Arc::default()))
    }

    #[test]
    fn a_handle_that_is_used_again_holds_one_thing() {
        let mut holdings = holdings();
        for grant in 0..2 {
            let descriptor = holdings.descriptors.take();
            holdings.keep(7, Holding { descriptor, grant: Some(grant), ..Holding::default() });
        }
        assert_eq!((holdings.descriptors.held(), holdings.grant_of(7)), (1, Some(1)));
        holdings.give_back(7);
        assert_eq!((holdings.descriptors.held(), holdings.grant_of(7)), (0, None));
    }
}
