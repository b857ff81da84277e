//! A loaded component: compiled, linked, and ready to make instances.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::Store;
use wasmtime::component::InstancePre;
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use crate::bindings::{ticker::TickerPre, worker::WorkerPre};
use crate::call::CallEnd;
use crate::capability::outbound::OutboundHttp;
use crate::drive::{Drive, Driven, Placed, first_deadline, on_epoch};
use crate::engine::Engine;
use crate::inspect::Handler;
use crate::instance::{Entry, Instance, end_of};
use crate::meter::Meter;
use crate::services::{InstanceName, Services};
use crate::state::{Sandbox, State};

/// How long an instance may take to start: its start functions are guest code.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// One type's component.
#[derive(Clone)]
pub struct Component {
    engine: Arc<Engine>,
    entry: EntryPre,
    sandbox: Arc<Sandbox>,
    services: Services,
}

#[derive(Clone)]
enum EntryPre {
    Http(ProxyPre<State>),
    Job(WorkerPre<State>),
    Tick(TickerPre<State>),
    Command(CommandPre<State>),
}

/// Why a component could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It could not be compiled.
    #[error("can't be compiled: {0}")]
    Compile(String),
    /// It imports what nothing provides, or in another shape.
    #[error("can't be linked: {0}")]
    Link(String),
    /// This version can't call it so.
    #[error("exports {0}, which this version can't call yet")]
    Unsupported(Handler),
}

impl Component {
    /// Compiles and links `bytes`, whose calls go to `handler`. Takes all cores, for up to seconds: not for an async
    /// thread.
    pub fn load(
        engine: &Arc<Engine>,
        bytes: &[u8],
        handler: Handler,
        sandbox: Sandbox,
        services: Services,
    ) -> Result<Component, LoadError> {
        let component = wasmtime::component::Component::from_binary(&engine.wasmtime, bytes)
            .map_err(|err| LoadError::Compile(format!("{err:#}")))?;
        let pre = engine.linker.instantiate_pre(&component);
        let pre = pre.map_err(|err| LoadError::Link(format!("{err:#}")))?;
        let entry = EntryPre::new(pre, handler)?;
        Ok(Component { engine: engine.clone(), entry, sandbox: Arc::new(sandbox), services })
    }

    /// Makes an instance. Its start functions run under the type's limits, for 10 s at most; `meter` is the new
    /// instance's, and interrupts them too.
    pub async fn start(&self, index: u32, meter: Arc<Meter>) -> Result<Instance, CallEnd> {
        let name = InstanceName { process: self.sandbox.process.clone(), index };
        let outbound = OutboundHttp::new(
            self.engine.client.clone(),
            self.sandbox.clone(),
            self.services.refusals.clone(),
        );
        let state = State::new(name, self.sandbox.clone(), self.services.clone(), outbound, meter.clone())
            .map_err(|err| CallEnd::Host(format!("{err:#}")))?;
        let mut store = Store::new(&self.engine.wasmtime, state);
        store.limiter(|state| &mut state.limit);
        let ticker = self.engine.ticker.clone();
        store.epoch_deadline_callback(move |store| on_epoch(&store, &ticker));
        store.set_epoch_deadline(first_deadline());
        store.set_hostcall_fuel(HOSTCALL_FUEL);

        let deadline = Instant::now().checked_add(START_TIMEOUT);
        meter.begin_call(deadline);
        let entry = self.entry.clone();
        let starting = Box::pin(async move {
            let entry = entry.instantiate(&mut store).await;
            (store, entry)
        });
        let drive = Drive::new(starting, meter.clone(), self.engine.ticker.clone(), deadline);
        let placed = Placed::Here {
            work: Box::pin(drive),
            meter: meter.clone(),
            compute: self.engine.compute().clone(),
        };
        match placed.await {
            Driven::Ended((store, Ok(entry))) => Ok(Instance::new(store, entry, meter, self.engine.clone())),
            Driven::Ended((_, Err(err))) => Err(end_of(err, &meter)),
            Driven::Cut(cut) => Err(cut.into()),
        }
    }
}

/// Bytes that one host call may copy out of a guest; the library's default is 128 MiB.
const HOSTCALL_FUEL: usize = 32 << 20;

impl EntryPre {
    fn new(pre: InstancePre<State>, handler: Handler) -> Result<EntryPre, LoadError> {
        let entry = match handler {
            Handler::Http02 => ProxyPre::new(pre).map(EntryPre::Http),
            Handler::Job => WorkerPre::new(pre).map(EntryPre::Job),
            Handler::Tick => TickerPre::new(pre).map(EntryPre::Tick),
            Handler::Command02 => CommandPre::new(pre).map(EntryPre::Command),
            Handler::Http03 | Handler::AsyncJob | Handler::AsyncTick | Handler::Command03 => {
                return Err(LoadError::Unsupported(handler));
            }
        };
        entry.map_err(|err| LoadError::Link(format!("{err:#}")))
    }

    async fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<Entry> {
        Ok(match self {
            EntryPre::Http(pre) => Entry::Http(pre.instantiate_async(store).await?),
            EntryPre::Job(pre) => Entry::Job(pre.instantiate_async(store).await?),
            EntryPre::Tick(pre) => Entry::Tick(pre.instantiate_async(store).await?),
            EntryPre::Command(pre) => Entry::Command(pre.instantiate_async(store).await?),
        })
    }
}
