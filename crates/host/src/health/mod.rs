//! `[health]`: where probes and metrics are answered. It is apart from all else: it has a thread and a runtime of its own,
//! so that it answers while the host has more to do than it can, and while the store or the supervisor hangs.
//!
//! ```text
//! starting -> ready -> draining          (livez: 200 all the time, readyz: 200 while it is ready)
//! ```
//!
//! A release that has another `[health]` opens its new places before the old ones close, as it does with those of `[http]`.

mod answers;
mod families;
mod metrics;
mod points;
mod ready;
mod server;
mod sink;
mod text;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::{Builder, Handle};
use tokio::sync::Semaphore;
use tracing::warn;
use wasmhost_config::Health as Wanted;

use crate::host::{Lasting, StartError};
use crate::ingress::{Listener, ServedAt, Sockets};
use crate::measures::Measures;
use crate::places::Places;
use crate::telemetry::messages::Metric;
pub(crate) use answers::Sources;

/// How long connections may take at the end.
const ENDED_MAX: Duration = Duration::from_millis(500);

/// See the module.
pub(crate) struct Health {
    state: Arc<State>,
    lasting: Lasting,
    answering: Box<dyn Fn(&ServedAt) + Send + Sync>,
    serving: Mutex<Serving>,
}

#[derive(Default)]
struct Serving {
    runtime: Option<Handle>,
    /// `[health]` of the release that they are of.
    wanted: Option<Wanted>,
    /// The places that are open.
    present: Option<Places>,
    served_at: Vec<ServedAt>,
}

/// The parts that answers are made from.
struct State {
    phase: ArcSwap<Phase>,
    /// Once the host has started.
    sources: OnceLock<Sources>,
    lasting: Lasting,
    measures: Arc<Measures>,
    asking: answers::Asking,
    room: Arc<Semaphore>,
}

/// Where a host is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Ready,
    Draining,
}

/// A change of the places where it answers, before anybody is answered there.
#[must_use]
pub(crate) struct Opened {
    /// None where they stay as they are.
    change: Option<(Option<Wanted>, Vec<Listener>)>,
}

impl Opened {
    /// Answers there from now on, and nowhere else.
    pub(crate) fn serve(self, health: &Health) {
        if let Some((wanted, listeners)) = self.change {
            health.serve(wanted, listeners);
        }
    }
}

impl Health {
    /// `answering` is told each place where it answers.
    pub(crate) fn new(
        lasting: &Lasting,
        measures: &Arc<Measures>,
        answering: Box<dyn Fn(&ServedAt) + Send + Sync>,
    ) -> Arc<Health> {
        let state = Arc::new(State {
            phase: ArcSwap::from_pointee(Phase::Starting),
            sources: OnceLock::new(),
            lasting: lasting.clone(),
            measures: measures.clone(),
            asking: Default::default(),
            room: Arc::new(Semaphore::new(server::CONNECTIONS_MAX)),
        });
        Arc::new(Health { state, lasting: lasting.clone(), answering, serving: Mutex::default() })
    }

    /// Opens all places that a release's `[health]` names, if they aren't those that are open.
    pub(crate) async fn open(
        &self,
        wanted: Option<&Wanted>,
        sockets: &mut Sockets,
    ) -> Result<Opened, StartError> {
        if self.lock().wanted.as_ref() == wanted {
            return Ok(Opened { change: None });
        }
        let listeners = match wanted {
            Some(wanted) => sockets.open_health(wanted).await?,
            None => vec![],
        };
        Ok(Opened { change: Some((wanted.cloned(), listeners)) })
    }

    fn serve(&self, wanted: Option<Wanted>, listeners: Vec<Listener>) {
        self.state.measures.turn_on(!listeners.is_empty());
        let mut serving = self.lock();
        serving.wanted = wanted;
        // A place that both have isn't closed: the claim of the new listener keeps its socket.
        if let Some(before) = serving.present.take() {
            before.leave();
        }
        let served_at: Vec<ServedAt> =
            listeners.iter().map(|listener| listener.served_at().clone()).collect();
        let new = served_at.iter().filter(|place| !serving.served_at.contains(place));
        new.for_each(&self.answering);
        serving.served_at = served_at;
        if !listeners.is_empty() {
            match serving.runtime() {
                Ok(runtime) => serving.present = Some(self.begin(&runtime, listeners)),
                Err(err) => warn!("probes and metrics can't be answered: {err}"),
            }
        }
    }

    fn begin(&self, runtime: &Handle, listeners: Vec<Listener>) -> Places {
        let mut places = Places::new(&self.lasting);
        // Tasks are spawned there.
        let _entered = runtime.enter();
        for listener in listeners {
            listener.take_turn(wasmhost_config::Http::default().socket_mode);
            let name = format!("what answers probes at {}", listener.served_at());
            match listener.on(runtime) {
                Ok(listener) => {
                    let accept = server::accept(self.state.clone(), listener, places.left().clone());
                    places.spawn(name, accept);
                }
                Err(err) => warn!("{name} can't begin: {err}"),
            }
        }
        places
    }

    /// The places where it answers.
    pub(crate) fn served_at(&self) -> Vec<ServedAt> {
        self.lock().served_at.clone()
    }

    /// All metrics, for a collector. The times are when counting began, and now, in nanoseconds since 1970.
    pub(crate) async fn points(&self, since_ns: u64, now_ns: u64) -> Vec<Metric> {
        let (types, queues) = self.state.asked().await;
        self.state.points(since_ns, now_ns, types.as_deref(), queues.as_deref())
    }

    /// The host has started, and this is what it is made of.
    pub(crate) fn started(&self, sources: Sources) {
        let _ = self.state.sources.set(sources);
    }

    /// All instances are up.
    pub(crate) fn ready(&self) {
        self.state.phase.rcu(|phase| match **phase {
            Phase::Starting => Phase::Ready,
            other => other,
        });
    }

    /// The host is going.
    pub(crate) fn drain(&self) {
        self.state.phase.store(Arc::new(Phase::Draining));
    }

    /// Closes all places.
    pub(crate) async fn end(&self) {
        let present = self.lock().present.take();
        if let Some(places) = present {
            places.end(ENDED_MAX).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Serving> {
        // No code that runs under the lock panics.
        self.serving.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl Serving {
    /// The runtime that answers, on a thread of its own from the first place on.
    fn runtime(&mut self) -> std::io::Result<Handle> {
        if let Some(runtime) = &self.runtime {
            return Ok(runtime.clone());
        }
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        std::thread::Builder::new()
            .name("wasmhost-health".to_owned())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
        self.runtime = Some(handle.clone());
        Ok(handle)
    }
}
