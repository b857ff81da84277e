//! wasmtime's settings: those of compiled code, which are part of the cache's keys, and those of the pool of instances,
//! which are not.

use wasmtime::{Config, InstanceAllocationStrategy, ModuleVersionStrategy, PoolingAllocationConfig};

use super::inspect::CORE_ITEMS_MAX;
use crate::inspection::{Footprint, TABLE_ELEMENTS_MAX};
use crate::sandbox::WASM_STACK_BYTES;

/// The size of the pool of instances.
#[derive(Debug, Clone, Copy)]
pub struct EngineOptions {
    /// Instances that may exist at once, of all types, with those that are being replaced.
    pub slots: u32,
    /// The largest memory that any type may have, in bytes.
    pub memory_bytes_max: u64,
    /// The most that an instance of any type takes.
    pub footprint: Footprint,
    /// File descriptors of the host that guests may hold, all instances together: opened files, sockets, connections
    /// of their requests.
    pub guest_descriptors_max: u32,
    /// For a single instance, which takes what it needs from the system as it needs it: there is no pool, and none of
    /// its bounds.
    pub alone: bool,
}

/// Bytes of a memory that stay mapped, and are cleared by writing, when its instance goes. Worth it only where the
/// kernel can say which pages were written, and safe only where there is no [`swap`](super::swap).
const KEEP_RESIDENT_BYTES: usize = 1 << 20;

/// The same of a table.
const KEEP_RESIDENT_TABLE_BYTES: usize = 64 << 10;

/// Components of some languages have many small core modules.
const CORE_INSTANCES_PER_COMPONENT: u32 = CORE_ITEMS_MAX;
const INSTANCE_BYTES_MAX: usize = 16 << 20;

/// The settings of one of the engines. Those that change compiled code are part of the cache's keys. `keeps_pages`, which
/// isn't, says how its pool clears memories.
pub(crate) fn config(options: EngineOptions, is_async: bool, keeps_pages: bool) -> Config {
    let mut config = Config::new();
    // Compiled files say by themselves only which major version made them. (Only names of 256 bytes are refused.)
    let _ = config.module_version(ModuleVersionStrategy::Custom(wasmtime_environ::VERSION.to_owned()));
    config.epoch_interruption(true);
    config.concurrency_support(is_async);
    config.wasm_component_model_async(is_async);
    config.max_wasm_stack(WASM_STACK_BYTES);
    if !options.alone {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(options, is_async, keeps_pages)));
    }
    config
}

fn pool(options: EngineOptions, is_async: bool, keeps_pages: bool) -> PoolingAllocationConfig {
    let Footprint { memories, tables, stacks, .. } = options.footprint;
    let stacks = if is_async { stacks.max(1) } else { 1 };
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(options.slots)
        .total_core_instances(options.slots.saturating_mul(CORE_INSTANCES_PER_COMPONENT))
        .total_memories(options.slots.saturating_mul(memories.max(1)))
        .total_tables(options.slots.saturating_mul(tables.max(1)))
        .total_stacks(options.slots.saturating_mul(stacks))
        .total_gc_heaps(options.slots)
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(memories.max(1))
        .max_memories_per_module(memories.max(1))
        .max_tables_per_component(tables.max(1))
        .max_tables_per_module(tables.max(1))
        .table_elements(usize::try_from(TABLE_ELEMENTS_MAX).unwrap_or(usize::MAX))
        .max_component_instance_size(INSTANCE_BYTES_MAX)
        .max_core_instance_size(INSTANCE_BYTES_MAX)
        .max_memory_size(usize::try_from(options.memory_bytes_max).unwrap_or(usize::MAX));
    if keeps_pages {
        pool.linear_memory_keep_resident(KEEP_RESIDENT_BYTES).table_keep_resident(KEEP_RESIDENT_TABLE_BYTES);
        pool.pagemap_scan(wasmtime::Enabled::Yes);
    }
    pool
}
