//! A loaded component: compiled, linked, and ready to make instances.

use std::convert::Infallible;
use std::future::pending;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use wasmhost_config::CompileLimits;
use wasmtime::Store;
use wasmtime::component::{InstancePre, Linker};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::p3::bindings as async_cli;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p3::bindings as async_http;

use crate::bindings::async_ticker::AsyncTickerPre;
use crate::bindings::async_worker::AsyncWorkerPre;
use crate::bindings::{ticker::TickerPre, worker::WorkerPre};
use crate::call::{CallEnd, Deadline};
use crate::calls::drive::{Drive, Driven, Placed, first_deadline, on_epoch};
use crate::calls::history::TypeHistory;
use crate::calls::module;
use crate::calls::over::end_of;
use crate::calls::service::{Exports, Service};
use crate::calls::solo::{Entry, Solo};
use crate::capability::outbound::OutboundHttp;
use crate::capability::state::{State, WasiVersion, handles_max};
use crate::compiled::{Code, Compiled, SharedCode};
use crate::engine::Engine;
use crate::error::LoadError;
use crate::inspection::Handler;
use crate::instance::Instance;
use crate::sandbox::Sandbox;
use crate::sandbox::descriptors::Counter;
use crate::sandbox::directories::Directories;
use crate::sandbox::meter::{Bounds, Meter};
use crate::services::{InstanceName, Services};
use crate::threads::compute::Lane;

/// How long an instance may take to start: its start functions are guest code.
pub const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A larger memory takes more than a tenth of a second to fill, which a guest can do in one instruction: instances that
/// may have one compute on the compute threads.
const SMALL_BYTES_MAX: u64 = 256 << 20;

/// One type's component.
#[derive(Clone)]
pub struct Component {
    engine: Arc<Engine>,
    wasmtime: wasmtime::Engine,
    entry: EntryPre,
    is_async: bool,
    /// For as long as this lives, the cache has it for other types of the same component.
    _shared: SharedCode,
    sandbox: Arc<Sandbox>,
    services: Services,
    history: Arc<TypeHistory>,
    lane: Lane,
}

#[derive(Clone)]
enum EntryPre {
    Http(ProxyPre<State>),
    AsyncHttp(async_http::ServicePre<State>),
    Job(WorkerPre<State>),
    Tick(TickerPre<State>),
    AsyncJob(AsyncWorkerPre<State>),
    AsyncTick(AsyncTickerPre<State>),
    Command(CommandPre<State>),
    AsyncCommand(async_cli::CommandPre<State>),
    Core(wasmtime::InstancePre<State>),
}

impl Component {
    /// Compiles and links `code`, whose calls go to `handler`; `is_async` is what its inspection says. Takes all cores,
    /// for up to seconds, unless the cache has it, and no more than `limits` allow where the cache's compiler has processes
    /// of its own: not for an async thread.
    pub fn load(
        engine: &Arc<Engine>,
        code: &Code,
        handler: Handler,
        is_async: bool,
        limits: CompileLimits,
        sandbox: Sandbox,
        services: Services,
    ) -> Result<Component, LoadError> {
        let flavor = engine.flavor(is_async)?;
        let compiled = code.compiled(&flavor.wasmtime, &engine.cache, limits)?;
        let entry = match &*compiled {
            Compiled::Module(module) => EntryPre::Core(module::link(module, &sandbox)?),
            Compiled::Component(component) => {
                let pre = link(component, &flavor.linker, &sandbox);
                EntryPre::new(pre.map_err(|err| LoadError::link(&err))?, handler)?
            }
        };
        let history = Arc::<TypeHistory>::default();
        if sandbox.memory_bytes_max > SMALL_BYTES_MAX {
            history.pace.stay_long();
        }
        let lane = engine.compute.lane(&sandbox.process);
        Ok(Component {
            engine: engine.clone(),
            wasmtime: flavor.wasmtime.clone(),
            entry,
            is_async,
            _shared: compiled,
            sandbox: Arc::new(sandbox),
            services,
            history,
            lane,
        })
    }

    /// Where types compete for the compute threads, this one gets so many times the time of one of weight 1, in all its
    /// versions together. It is 1 until this is called.
    pub fn weigh(&self, weight: u32) {
        self.lane.weigh(weight);
    }

    /// Whether its requests are best called on the compute threads ([`Component::on_compute`]), since their calls usually
    /// compute for long. Where calls share an instance, that finds its threads by itself.
    pub fn is_long(&self) -> bool {
        self.history.pace.is_long() && matches!(self.entry, EntryPre::Http(_))
    }

    /// Bytes of memories and tables that one instance may have.
    pub fn memory_bytes_max(&self) -> u64 {
        self.sandbox.memory_bytes_max
    }

    /// The directories that its instances were granted.
    pub fn directories(&self) -> &Directories {
        &self.sandbox.directories
    }

    /// Runs `work` on the compute threads, as soon as it's the type's turn there. It is dropped, there, when this is.
    pub async fn on_compute<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        let (wanted, unwanted) = oneshot::channel::<Infallible>();
        let spawned = self.lane.spawn(async move {
            tokio::select! {
                biased;
                _ = unwanted => None,
                output = work => Some(output),
            }
        });
        let ended = spawned.await;
        drop(wanted);
        match ended {
            Ok(Ok(Some(output))) => output,
            Ok(Err(panic)) => resume_unwind(panic),
            // The compute threads are ending, and the host with them.
            Ok(Ok(None)) | Err(_) => pending().await,
        }
    }

    /// Makes an instance. Its start functions run under the type's limits, for [`START_TIMEOUT`] at most; `meter` is the
    /// new instance's, and interrupts them too.
    pub fn start(&self, index: u32, meter: Arc<Meter>) -> impl Future<Output = Result<Instance, CallEnd>> {
        self.start_within(START_TIMEOUT, index, meter)
    }

    /// The same within another time.
    pub async fn start_within(
        &self,
        timeout: Duration,
        index: u32,
        meter: Arc<Meter>,
    ) -> Result<Instance, CallEnd> {
        let name = InstanceName { process: self.sandbox.process.clone(), index };
        let descriptors = match self.sandbox.program {
            Some(_) => Counter::of_program(&self.engine.descriptors, meter.descriptor_count()),
            None => Counter::new(&self.engine.descriptors, meter.descriptor_count()),
        };
        let outbound = OutboundHttp {
            client: self.engine.client.clone(),
            sandbox: self.sandbox.clone(),
            refusals: self.services.refusals.clone(),
            meter: meter.clone(),
            is_async: self.is_async,
            asked_for_chunks: false,
            descriptors: descriptors.clone(),
            trace: None,
        };
        let wasi = if let EntryPre::Core(_) = self.entry { WasiVersion::P1 } else { WasiVersion::Component };
        let services = self.services.clone();
        let state =
            State::new(name, self.sandbox.clone(), services, outbound, meter.clone(), descriptors, wasi);
        let mut store = Store::new(&self.wasmtime, state);
        store.limiter(|state| &mut state.limit);
        let ticker = self.engine.ticker.clone();
        store.epoch_deadline_callback(move |store| on_epoch(&store, &ticker));
        store.set_epoch_deadline(first_deadline());
        let bounds = Bounds {
            handles_max: handles_max(&self.sandbox, wasi),
            copied_bytes_max: self.sandbox.hostcall_fuel(),
        };
        store.set_hostcall_fuel(bounds.copied_bytes_max);
        store.set_max_component_handles(bounds.handles_max);
        meter.set_bounds(bounds);

        let deadline = Deadline::after(Instant::now(), timeout);
        meter.begin_call(deadline, None);
        let entry = self.entry.clone();
        let starting = Box::pin(async move {
            let entry = entry.instantiate(&mut store).await;
            (store, entry)
        });
        let drive = Drive::new(starting, meter.clone(), self.engine.ticker.clone());
        let placed = match self.history.pace.stays_long() {
            true => Placed::on_compute(drive, &self.lane),
            false => Placed::Here { work: Box::pin(drive), meter: meter.clone(), lane: self.lane.clone() },
        };
        let driven = placed.await;
        self.history.note(&meter);
        match driven {
            Driven::Ended((store, Ok(started))) => Ok(started.with(store, meter, self)),
            Driven::Ended((_, Err(err))) => Err(end_of(err, &meter)),
            Driven::Cut(cut) => Err(cut.into()),
        }
    }
}

fn link(
    component: &wasmtime::component::Component,
    linker: &Linker<State>,
    sandbox: &Sandbox,
) -> wasmtime::Result<InstancePre<State>> {
    if !sandbox.missing_imports_trap {
        return linker.instantiate_pre(component);
    }
    let mut linker = linker.clone();
    linker.define_unknown_imports_as_traps(component)?;
    linker.instantiate_pre(component)
}

impl EntryPre {
    fn new(pre: InstancePre<State>, handler: Handler) -> Result<EntryPre, LoadError> {
        let entry = match handler {
            Handler::Http02 => ProxyPre::new(pre).map(EntryPre::Http),
            Handler::Job => WorkerPre::new(pre).map(EntryPre::Job),
            Handler::Tick => TickerPre::new(pre).map(EntryPre::Tick),
            Handler::Command02 => CommandPre::new(pre).map(EntryPre::Command),
            Handler::Http03 => async_http::ServicePre::new(pre).map(EntryPre::AsyncHttp),
            Handler::AsyncJob => AsyncWorkerPre::new(pre).map(EntryPre::AsyncJob),
            Handler::AsyncTick => AsyncTickerPre::new(pre).map(EntryPre::AsyncTick),
            Handler::Command03 => async_cli::CommandPre::new(pre).map(EntryPre::AsyncCommand),
            // A core module is no component: `module` links it.
            Handler::CoreCommand => {
                return Err(LoadError::Unsupported(handler));
            }
        };
        entry.map_err(|err| LoadError::link(&err))
    }

    async fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<Started> {
        Ok(match self {
            EntryPre::Http(pre) => Started::Solo(Entry::Http(pre.instantiate_async(store).await?)),
            EntryPre::AsyncHttp(pre) => Started::Service(Exports::Http(pre.instantiate_async(store).await?)),
            EntryPre::AsyncJob(pre) => Started::Service(Exports::Job(pre.instantiate_async(store).await?)),
            EntryPre::AsyncTick(pre) => Started::Service(Exports::Tick(pre.instantiate_async(store).await?)),
            EntryPre::Job(pre) => Started::Solo(Entry::Job(pre.instantiate_async(store).await?)),
            EntryPre::Tick(pre) => Started::Solo(Entry::Tick(pre.instantiate_async(store).await?)),
            EntryPre::Command(pre) => Started::Solo(Entry::Command(pre.instantiate_async(store).await?)),
            EntryPre::AsyncCommand(pre) => {
                Started::Solo(Entry::AsyncCommand(pre.instantiate_async(store).await?))
            }
            EntryPre::Core(pre) => Started::Solo(Entry::Core(pre.instantiate_async(store).await?)),
        })
    }
}

/// An instance's exports.
enum Started {
    Solo(Entry),
    Service(Exports),
}

impl Started {
    fn with(self, store: Store<State>, meter: Arc<Meter>, component: &Component) -> Instance {
        let (engine, history, lane) =
            (component.engine.clone(), component.history.clone(), component.lane.clone());
        match self {
            Started::Solo(entry) => Solo { store, entry, meter, engine, history, lane }.into(),
            Started::Service(exports) => Service::new(store, exports, meter, engine, history, lane).into(),
        }
    }
}
