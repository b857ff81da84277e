//! Names of instances are a type's name and an index. No two instances have one name at a time, whatever brought them: a
//! type and its canary, a type that leaves and the one that came in its place, an instance that is tried before a release.
//! (A successor has the name of the one that it replaces, which finishes its last call.)

use std::collections::HashSet;
use std::sync::Arc;

use super::Roster;

impl Roster {
    /// The lowest indexes that no instance of this name has, those that are leaving included.
    pub(super) fn free_indexes(&self, name: &str, count: usize) -> Vec<u32> {
        let namesakes = self.kinds.iter().filter(|kind| &*kind.name == name);
        let reserved = self.reserved.iter().filter(|(of, _)| &**of == name).map(|(_, index)| *index);
        let taken: HashSet<u32> = namesakes.flat_map(|kind| kind.indexes()).chain(reserved).collect();
        (1..=u32::MAX).filter(|index| !taken.contains(index)).take(count).collect()
    }

    /// An index of this name for an instance that no type counts. No other instance has it until it is freed.
    pub(in crate::supervisor) fn reserve(&mut self, name: Arc<str>) -> u32 {
        let index = self.free_indexes(&name, 1).first().copied().unwrap_or(u32::MAX);
        self.reserved.push((name, index));
        index
    }

    pub(in crate::supervisor) fn free(&mut self, name: &str, index: u32) {
        self.reserved.retain(|(of, reserved)| (&**of, *reserved) != (name, index));
    }
}
