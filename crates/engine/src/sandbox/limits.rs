//! The memory that one instance may have: all its linear memories and tables together, and the elements of each table.
//! The store asks for each of them, as it is made and as it grows, whatever the instance is for.

use std::sync::Arc;

use wasmtime::ResourceLimiter;

use super::meter::Meter;
use crate::call::Shortage;

/// The cost of an element of a table, in bytes.
const TABLE_ELEMENT_BYTES: usize = crate::inspection::TABLE_ELEMENT_BYTES as usize;

/// Counts what an instance holds. A growth that is refused fails in the guest (`memory.grow` answers -1); what the
/// guest makes of that is up to it, and the instance goes after the call either way.
pub(crate) struct MemoryLimit {
    meter: Arc<Meter>,
    bytes: u64,
    bytes_max: u64,
    /// Elements of one table.
    table_elements_max: u64,
    /// The bytes that the last growth added, should the engine fail to carry it out.
    last_growth: u64,
}

impl MemoryLimit {
    pub(crate) fn new(bytes_max: u64, table_elements_max: u64, meter: Arc<Meter>) -> Self {
        MemoryLimit { meter, bytes: 0, bytes_max, table_elements_max, last_growth: 0 }
    }

    fn grow(&mut self, current: usize, desired: usize, unit: usize) -> bool {
        let growth = desired.saturating_sub(current).saturating_mul(unit) as u64;
        let total = self.bytes.saturating_add(growth);
        if total > self.bytes_max {
            self.meter.refuse_memory(Shortage::Memory { wanted: total, max: self.bytes_max });
            return false;
        }
        self.last_growth = growth;
        self.set(total);
        true
    }

    fn undo(&mut self) {
        self.meter.refuse_memory(Shortage::System { wanted: self.bytes });
        self.set(self.bytes.saturating_sub(self.last_growth));
        self.last_growth = 0;
    }

    fn set(&mut self, bytes: u64) {
        self.bytes = bytes;
        self.meter.set_memory(bytes);
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(is_allowed(desired, maximum) && self.grow(current, desired, 1))
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.undo();
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let (wanted, max) = (desired as u64, self.table_elements_max);
        // Where a guest has no lower bound of its own, the pool's stands in its place, which is this one.
        let is_ours = maximum.is_none_or(|maximum| maximum as u64 >= max);
        if wanted > max && is_ours {
            self.meter.refuse_memory(Shortage::Table { wanted, max });
            return Ok(false);
        }
        Ok(is_allowed(desired, maximum) && self.grow(current, desired, TABLE_ELEMENT_BYTES))
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.undo();
        Ok(())
    }

    fn instances(&self) -> usize {
        CORE_ITEMS_MAX
    }

    fn tables(&self) -> usize {
        CORE_ITEMS_MAX
    }

    fn memories(&self) -> usize {
        CORE_ITEMS_MAX
    }
}

/// Whether a guest's own bound of a memory or table allows so much.
fn is_allowed(desired: usize, maximum: Option<usize>) -> bool {
    maximum.is_none_or(|maximum| desired <= maximum)
}

/// Core instances, tables and memories of one component. The pool has its own, lower, limits.
const CORE_ITEMS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_and_tables_share_one_budget() {
        let meter = Arc::new(Meter::default());
        let mut limit = MemoryLimit::new(1000, 50, meter.clone());
        assert!(limit.memory_growing(0, 600, None).unwrap());
        assert!(limit.table_growing(0, 40, None).unwrap());
        assert_eq!(meter.memory(), 920);
        assert!(!limit.memory_growing(600, 700, None).unwrap());
        assert_eq!(meter.shortage(), Some(Shortage::Memory { wanted: 1020, max: 1000 }));
        assert_eq!(meter.memory(), 920);
    }

    #[test]
    fn each_table_has_a_bound_of_its_own() {
        let meter = Arc::new(Meter::default());
        let mut limit = MemoryLimit::new(1000, 50, meter.clone());
        assert!(limit.table_growing(0, 50, None).unwrap());
        assert!(limit.table_growing(0, 50, None).unwrap());
        assert!(!limit.table_growing(0, 60, Some(40)).unwrap());
        assert_eq!(meter.shortage(), None, "its own bound is lower");
        assert!(!limit.table_growing(50, 51, Some(50)).unwrap());
        assert_eq!(meter.shortage(), Some(Shortage::Table { wanted: 51, max: 50 }));
        assert_eq!(meter.memory(), 800);
    }

    #[test]
    fn growth_past_the_guests_own_maximum_is_the_guests_affair() {
        let meter = Arc::new(Meter::default());
        let mut limit = MemoryLimit::new(1000, 50, meter.clone());
        assert!(!limit.memory_growing(0, 600, Some(500)).unwrap());
        assert!(!meter.memory_refused());
    }

    #[test]
    fn growth_that_the_engine_fails_is_taken_back() {
        let meter = Arc::new(Meter::default());
        let mut limit = MemoryLimit::new(1000, 50, meter.clone());
        assert!(limit.memory_growing(0, 600, None).unwrap());
        limit.memory_grow_failed(wasmtime::Error::msg("no memory")).unwrap();
        assert_eq!((meter.memory(), meter.memory_peak()), (0, 600));
        assert_eq!(meter.shortage(), Some(Shortage::System { wanted: 600 }));
    }
}
