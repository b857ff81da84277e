//! The engine that all instances of a host share: compiled code, the pool of their memories and stacks, the ticker,
//! and the compute threads.

use std::sync::{Arc, Mutex, OnceLock};

use wasmtime::component::Linker;
use wasmtime::{Config, InstanceAllocationStrategy, ModuleVersionStrategy, PoolingAllocationConfig};

use crate::cache::Cache;
use crate::capability::outbound::HttpClient;
use crate::capability::{client, network};
use crate::compute::Compute;
use crate::inspect::Footprint;
use crate::state::State;
use crate::ticker::Ticker;

/// What the pool of instances is sized for.
#[derive(Debug, Clone, Copy)]
pub struct EngineOptions {
    /// Instances that may exist at once, of all types, with those that are being replaced.
    pub slots: u32,
    /// The largest memory that any type may have, in bytes.
    pub memory_bytes_max: u64,
    /// The most that an instance of any type takes.
    pub footprint: Footprint,
    /// For a single instance, which takes what it needs from the system as it needs it: there is no pool, and none of
    /// its bounds.
    pub alone: bool,
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The machine can't give the pool its address space or its maps.
    #[error(
        "can't reserve memory for {slots} instances: {reason}; set max_instances in the formation to fewer, or raise vm.max_map_count"
    )]
    Pool {
        /// How many instances it was to have room for.
        slots: u32,
        /// What the engine said.
        reason: String,
    },
    /// A thread could not be started.
    #[error("can't start the engine's threads: {0}")]
    Threads(#[from] std::io::Error),
}

/// See the module.
///
/// It is two of wasmtime's engines, each made when the first component needs it: calls of WASI 0.2 components are a
/// fifth faster on one that knows nothing of component-model async.
pub struct Engine {
    options: EngineOptions,
    plain: OnceLock<Flavor>,
    concurrent: OnceLock<Flavor>,
    making: Mutex<()>,
    pub(crate) ticker: Arc<Ticker>,
    pub(crate) client: HttpClient,
    pub(crate) cache: Cache,
    pub(crate) compute: Compute,
}

/// One of wasmtime's engines, and what its components may import.
pub(crate) struct Flavor {
    pub(crate) wasmtime: wasmtime::Engine,
    pub(crate) linker: Linker<State>,
}

/// A stack may be this deep in wasm; the rest of it is for the host's functions.
const WASM_STACK_BYTES: usize = 512 << 10;

/// Bytes of a memory that stay mapped, and are cleared by writing, when its instance goes. Worth it only where the
/// kernel can say which pages were written.
const KEEP_RESIDENT_BYTES: usize = 1 << 20;

/// The same of a table.
const KEEP_RESIDENT_TABLE_BYTES: usize = 64 << 10;

/// Components of some languages have many small core modules.
const CORE_INSTANCES_PER_COMPONENT: u32 = 100;
const INSTANCE_BYTES_MAX: usize = 16 << 20;

/// Elements of a table; the library's default of 20,000 refuses large programs.
const TABLE_ELEMENTS_MAX: usize = 200_000;

impl Engine {
    /// Makes the engine, and starts its threads.
    pub fn new(options: EngineOptions, cache: Cache) -> Result<Arc<Engine>, EngineError> {
        let ticker = Arc::new(Ticker::start()?);
        Ok(Arc::new(Engine {
            options,
            plain: OnceLock::new(),
            concurrent: OnceLock::new(),
            making: Mutex::new(()),
            ticker,
            client: HttpClient::default(),
            cache,
            compute: Compute::start()?,
        }))
    }

    /// What each thread that will run guests should do once, before it does.
    pub fn prepare_thread() {
        wasmtime::Engine::tls_eager_initialize();
    }

    /// The engine for components that use component-model async, or for those that don't.
    pub(crate) fn flavor(&self, is_async: bool) -> Result<&Flavor, EngineError> {
        let cell = if is_async { &self.concurrent } else { &self.plain };
        if let Some(flavor) = cell.get() {
            return Ok(flavor);
        }
        // Components load on several threads at once, and an engine reserves a lot of address space.
        let _making = self.making.lock().unwrap_or_else(|poison| poison.into_inner());
        if let Some(flavor) = cell.get() {
            return Ok(flavor);
        }
        let made = Flavor::new(self.options, is_async)?;
        self.ticker.drive(made.wasmtime.weak());
        Ok(cell.get_or_init(|| made))
    }
}

impl Flavor {
    fn new(options: EngineOptions, is_async: bool) -> Result<Flavor, EngineError> {
        let problem =
            |err: wasmtime::Error| EngineError::Pool { slots: options.slots, reason: format!("{err:#}") };
        let wasmtime = wasmtime::Engine::new(&config(options, is_async)).map_err(problem)?;
        let linker = linker(&wasmtime, is_async).map_err(problem)?;
        Ok(Flavor { wasmtime, linker })
    }
}

/// What of this has a part in what is compiled is part of the cache's keys.
pub(crate) fn config(options: EngineOptions, is_async: bool) -> Config {
    let mut config = Config::new();
    // Compiled files say by themselves only which major version made them. (Only names of 256 bytes are refused.)
    let _ = config.module_version(ModuleVersionStrategy::Custom(wasmtime_environ::VERSION.to_owned()));
    config.epoch_interruption(true);
    config.concurrency_support(is_async);
    config.wasm_component_model_async(is_async);
    config.max_wasm_stack(WASM_STACK_BYTES);
    if !options.alone {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(options)));
    }
    config
}

fn pool(options: EngineOptions) -> PoolingAllocationConfig {
    let Footprint { memories, tables, .. } = options.footprint;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(options.slots)
        .total_core_instances(options.slots.saturating_mul(CORE_INSTANCES_PER_COMPONENT))
        .total_memories(options.slots.saturating_mul(memories.max(1)))
        .total_tables(options.slots.saturating_mul(tables.max(1)))
        .total_stacks(options.slots)
        .total_gc_heaps(options.slots)
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(memories.max(1))
        .max_memories_per_module(memories.max(1))
        .max_tables_per_component(tables.max(1))
        .max_tables_per_module(tables.max(1))
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_component_instance_size(INSTANCE_BYTES_MAX)
        .max_core_instance_size(INSTANCE_BYTES_MAX)
        .max_memory_size(usize::try_from(options.memory_bytes_max).unwrap_or(usize::MAX));
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.linear_memory_keep_resident(KEEP_RESIDENT_BYTES).table_keep_resident(KEEP_RESIDENT_TABLE_BYTES);
        pool.pagemap_scan(wasmtime::Enabled::Yes);
    }
    pool
}

fn linker(engine: &wasmtime::Engine, is_async: bool) -> wasmtime::Result<Linker<State>> {
    use crate::bindings::producer::wasmhost::job::queue;
    use wasmtime::component::HasSelf;

    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    network::link_name_lookup(&mut linker)?;
    if is_async {
        wasmtime_wasi::p3::add_to_linker(&mut linker)?;
        wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
        client::link(&mut linker)?;
        network::link_async_name_lookup(&mut linker)?;
    }
    queue::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
    Ok(linker)
}
