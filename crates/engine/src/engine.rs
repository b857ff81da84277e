//! The engine that all instances of a host share: compiled code, the pool of their memories and stacks, the ticker,
//! and the compute threads.

use std::sync::{Arc, Mutex, OnceLock};

use wasmtime::component::Linker;

use crate::capability::outbound::HttpClient;
use crate::capability::state::State;
use crate::capability::{client, fields, files, name_lookup, queue, sockets, streams};
use crate::compiled::swap::PagesKept;
use crate::compiled::{Cache, EngineOptions, config};
use crate::error::{EngineError, Scarce};
use crate::inspection::Footprint;
use crate::sandbox::descriptors::Room;
use crate::sandbox::log_rate::{LogRate, LogRates};
use crate::threads::compute::Compute;
use crate::threads::current;
use crate::threads::ticker::Ticker;

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
    /// Those that guests may hold.
    pub(crate) descriptors: Arc<Room>,
    pub(crate) cache: Cache,
    pub(crate) compute: Arc<Compute>,
    log_rates: Arc<LogRates>,
    pages_kept: PagesKept,
}

/// One of wasmtime's engines, and what its components may import.
pub(crate) struct Flavor {
    pub(crate) wasmtime: wasmtime::Engine,
    pub(crate) linker: Linker<State>,
}

impl Engine {
    /// Makes the engine, and starts its threads.
    pub fn new(options: EngineOptions, cache: Cache) -> Result<Arc<Engine>, EngineError> {
        let ticker = Arc::new(Ticker::start()?);
        let descriptors = Room::new(options.guest_descriptors_max);
        Ok(Arc::new(Engine {
            options,
            plain: OnceLock::new(),
            concurrent: OnceLock::new(),
            making: Mutex::new(()),
            ticker,
            client: HttpClient::new(descriptors.clone()),
            descriptors,
            cache,
            compute: Arc::new(Compute::start()?),
            log_rates: Arc::default(),
            pages_kept: PagesKept::default(),
        }))
    }

    /// An engine with a pool of its own, which shares everything else with this one: threads, clock, clients, the
    /// directory of the cache, and what guests may hold.
    pub fn with_pool(&self, options: EngineOptions) -> Arc<Engine> {
        // Pools only grow: types that are changed in turn don't ask for another one each time.
        let options = EngineOptions {
            memory_bytes_max: options.memory_bytes_max.max(self.options.memory_bytes_max),
            footprint: options.footprint.max(self.options.footprint),
            ..options
        };
        Arc::new(Engine {
            options,
            plain: OnceLock::new(),
            concurrent: OnceLock::new(),
            making: Mutex::new(()),
            ticker: self.ticker.clone(),
            client: self.client.clone(),
            descriptors: self.descriptors.clone(),
            cache: self.cache.beside(),
            compute: self.compute.clone(),
            log_rates: self.log_rates.clone(),
            pages_kept: self.pages_kept.clone(),
        })
    }

    /// The rate at which instances of this type may write log lines, for a version of it that may write so much. All versions
    /// of the type share what it may write, on all engines that share this one's threads.
    pub fn log_rate(&self, process: &Arc<str>, bytes_per_second: u64) -> LogRate {
        self.log_rates.of(process, bytes_per_second)
    }

    /// Whether the pool has room for instances of such a size. `memory_bytes_max` is the largest memory, in bytes.
    pub fn fits(&self, memory_bytes_max: u64, footprint: Footprint) -> bool {
        let made_for = self.options;
        memory_bytes_max <= made_for.memory_bytes_max
            && footprint.max(made_for.footprint) == made_for.footprint
    }

    /// Says later whether all threads of the engine still work: guests neither yield nor compute without them. Where the
    /// engines that share them are gone they need not.
    pub fn watch_threads(&self) -> impl Fn() -> bool + Send + use<> {
        let (ticker, compute) = (Arc::downgrade(&self.ticker), Arc::downgrade(&self.compute));
        move || {
            ticker.upgrade().is_none_or(|ticker| ticker.is_alive())
                && compute.upgrade().is_none_or(|compute| compute.is_alive())
        }
    }

    /// Says later whether swap has come to a machine that had none when a pool was made, this engine's or that of one made by
    /// [`Engine::with_pool`]. Memory of its instances that was swapped out isn't cleared for their successors.
    pub fn watch_swap(&self) -> impl Fn() -> bool + Send + use<> {
        let pages_kept = self.pages_kept.clone();
        move || pages_kept.are_at_risk()
    }

    /// Prepares the thread that calls this for guests. Each thread that will run them does so once.
    pub fn prepare_thread() {
        current::prepare_thread();
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
        let made = Flavor::new(self.options, is_async, &self.pages_kept)?;
        self.ticker.drive(made.wasmtime.weak());
        Ok(cell.get_or_init(|| made))
    }
}

impl Flavor {
    fn new(options: EngineOptions, is_async: bool, pages_kept: &PagesKept) -> Result<Flavor, EngineError> {
        let keeps_pages = !options.alone && pages_kept.by_new_pool();
        let wasmtime = wasmtime::Engine::new(&config(options, is_async, keeps_pages)).map_err(|err| {
            let (slots, reason) = (options.slots, format!("{err:#}"));
            EngineError::Pool { slots, reason, advice: Scarce::now().advice(slots) }
        })?;
        let linker = linker(&wasmtime, is_async).map_err(|err| EngineError::Library(format!("{err:#}")))?;
        Ok(Flavor { wasmtime, linker })
    }
}

fn linker(engine: &wasmtime::Engine, is_async: bool) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    name_lookup::link(&mut linker)?;
    streams::link(&mut linker)?;
    files::plain::link(&mut linker)?;
    sockets::link(&mut linker)?;
    fields::link(&mut linker)?;
    if is_async {
        wasmtime_wasi::p3::add_to_linker(&mut linker)?;
        wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
        client::link(&mut linker)?;
        name_lookup::link_async(&mut linker)?;
        files::concurrent::link(&mut linker)?;
        sockets::link_async(&mut linker)?;
        fields::link_async(&mut linker)?;
    }
    queue::link(&mut linker)?;
    if is_async {
        queue::link_async(&mut linker)?;
    }
    Ok(linker)
}
