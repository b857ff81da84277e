//! The handles of a guest that cost the host more than memory of the guest's own: each is remembered with what it
//! holds, until the guest drops it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::descriptors::{Counter, Permit};
use super::lookups::{LookingUp, Lookups};

/// Bytes of directories that are being listed at once. One listing may always be made, however large.
const LISTED_BYTES_MAX: u64 = 8 << 20;

/// The least that a listing counts for, in bytes.
const LISTING_BYTES_MIN: u64 = 16 << 10;

/// Header fields are counted anew when an instance has added so many bytes of them.
const FIELDS_ADDED_MAX: usize = 1 << 20;

/// The descriptors, listings and lookups that the handles of one instance hold.
#[derive(Debug)]
pub(crate) struct Holdings {
    /// Where descriptors are counted.
    pub(crate) descriptors: Counter,
    pub(crate) listings: Listings,
    pub(crate) lookups: Lookups,
    by_handle: HashMap<u32, Holding>,
    /// Bytes of header fields and the like that were added since all of them were counted.
    fields_added: usize,
}

/// The descriptor, listing or lookup that one handle holds.
#[derive(Debug, Default)]
pub(crate) struct Holding {
    pub(crate) descriptor: Option<Permit>,
    #[expect(dead_code, reason = "it is held, and counts until it is dropped")]
    pub(crate) listing: Option<Listing>,
    pub(crate) lookup: Option<LookingUp>,
    /// The granted directory that it was found in, by its place among the grants.
    pub(crate) grant: Option<usize>,
}

/// The directories of one instance that are being listed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listings {
    /// Bytes that they take on the disk, which is about what their entries take in memory.
    listed: Arc<AtomicU64>,
}

/// The right to keep the entries of one directory in memory.
#[derive(Debug)]
pub(crate) struct Listing {
    listed: Arc<AtomicU64>,
    bytes: u64,
}

impl Holdings {
    pub(crate) fn new(descriptors: Counter) -> Holdings {
        Holdings {
            lookups: descriptors.lookups(),
            descriptors,
            listings: Listings::default(),
            by_handle: HashMap::new(),
            fields_added: 0,
        }
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
}

impl Listings {
    /// The right to list a directory that takes so many bytes on the disk; `None` while others are listed that leave
    /// no room for it.
    pub(crate) fn begin(&self, bytes: u64) -> Option<Listing> {
        let bytes = bytes.max(LISTING_BYTES_MIN);
        let fits = |listed| (listed == 0 || listed + bytes <= LISTED_BYTES_MAX).then_some(listed + bytes);
        self.listed.fetch_update(Relaxed, Relaxed, fits).ok()?;
        Some(Listing { listed: self.listed.clone(), bytes })
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        self.listed.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::descriptors::Room;
    use super::*;

    fn holdings() -> Holdings {
        Holdings::new(Counter::new(&Room::new(100), Arc::default()))
    }

    #[test]
    fn one_listing_may_always_be_made_and_others_beside_it_are_bounded() {
        let listings = Listings::default();
        let large = listings.begin(100 << 20).unwrap();
        assert!(listings.begin(0).is_none());
        drop(large);
        let small: Vec<_> = std::iter::from_fn(|| listings.begin(0)).collect();
        assert_eq!(small.len() as u64, LISTED_BYTES_MAX / LISTING_BYTES_MIN);
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
