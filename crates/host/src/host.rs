//! A host's life: load -> start -> run until told -> drain -> gone.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use wasmhost_config::{Formation, Http, Isolation, Queue, Route, Run, StoreUrl, Trigger};
use wasmhost_engine::services::Services;
use wasmhost_engine::{Cache, CallLimits, Component, Engine, EngineError, EngineOptions, LoadError, Sandbox};
use wasmhost_store::jobs::{Backoff, ClaimQueue, Retention};
use wasmhost_store::{Counts, Jobs, MemoryStore, SqliteStore, StoreError, SystemClock, Ticks};

use crate::admin::{self, Admin};
use crate::capacity::{Capacity, TooMany};
use crate::event::Event;
use crate::ingress::{Certificates, FailureLog, HandedOver, Ingress, Listener, ServedAt, Web, listen};
use crate::logs::{LogFormat, Logs};
use crate::plan::{Plan, PlannedType};
use crate::pool::{Keeping, Pool, PoolParts};
use crate::services::{GrantedBy, Queues, Refusals};
use crate::state_dir::{StateDir, StateDirError};
use crate::supervisor::{Action, Backlog, Supervised, Supervisor};
use crate::trigger::Triggering;
use crate::trigger::ahead::Ahead;
use crate::trigger::queue::QueueTrigger;
use crate::trigger::release::{self, ReleaseFailed};
use crate::trigger::schedule::{ScheduleTrigger, Timeline};
use crate::trigger::underway::Underway;

/// How often ended jobs are looked through.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// What is left to a call that was interrupted: a tick, and the way back.
const INTERRUPTED_MAX: Duration = Duration::from_secs(5);

/// Calls at once in one instance of WASI 0.3, where the formation doesn't say: as many as `wasmtime serve` allows.
/// Other instances serve one at a time whatever is said.
const CONCURRENCY_DEFAULT: u32 = 16;

/// Waiting calls for each instance, where the formation doesn't say.
const BACKLOG_PER_INSTANCE: u32 = 50;

/// Actions that wait for the supervisor.
const ACTIONS_MAX: usize = 64;

/// How the program that runs a host wants it.
pub struct HostOptions {
    /// How guests' lines are printed.
    pub log_format: LogFormat,
    /// Where compiled components are kept.
    pub cache: Cache,
    /// Is told of progress while components compile: how many are done, of how many.
    pub progress: Box<dyn Fn(usize, usize) + Send + Sync>,
    /// Is told each place where requests are served, if any type takes them, before the first instance is started.
    pub serving: Box<dyn Fn(&ServedAt) + Send>,
    /// What a refused grant's warning advises.
    pub granted_by: GrantedBy,
    /// Sockets that were open before the host was.
    pub handed_over: HandedOver,
}

/// Why a host did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A component can't be loaded.
    #[error("process.{process}: {component} {err}")]
    Load {
        /// The type.
        process: String,
        /// Its component.
        component: String,
        /// What is wrong with it.
        err: LoadError,
    },
    /// The engine can't be made.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The state directory can't be had.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// The store can't be opened.
    #[error("can't open the store {url}: {err}")]
    Store {
        /// Which.
        url: String,
        /// Why.
        err: StoreError,
    },
    /// The certificates can't be used.
    #[error("{0}; correct `cert` and `key` under [http.tls]")]
    Certificates(String),
    /// The port is taken, or not ours to take.
    #[error("can't listen on {listen}: {err}{}", hint(.err))]
    Listen {
        /// Where.
        listen: String,
        /// Why.
        err: std::io::Error,
    },
    /// A release step failed.
    #[error(transparent)]
    Release(#[from] ReleaseFailed),
    /// The counts don't fit.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// The system refused something.
    #[error("can't start: {0}")]
    Io(#[from] std::io::Error),
}

fn hint(err: &std::io::Error) -> &'static str {
    match err.kind() {
        std::io::ErrorKind::AddrInUse => {
            "; another program listens there: stop it, or set `listen` under [http] to another place"
        }
        std::io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need a privilege, and a socket needs a writable directory: correct `listen` under [http]"
        }
        _ => "; correct `listen` under [http]",
    }
}

/// A host that serves.
pub struct Host {
    state: HostState,
    actions: mpsc::Sender<Action>,
    ingress: Option<(Arc<Ingress>, JoinHandle<()>)>,
    /// Begin nothing more.
    intake: CancellationToken,
    running: TaskTracker,
    triggers: TaskTracker,
    /// All that runs in any guest, those included that nobody waits for any more.
    calls: TaskTracker,
    http: Vec<ServedAt>,
    /// Somebody asked by the admin API that the host stops.
    stop: CancellationToken,
    admin: JoinHandle<()>,
    supervisor: JoinHandle<()>,
}

/// What lives as long as the host, and goes last.
struct HostState {
    store: Store,
    logs: Arc<Logs>,
    grace: Duration,
    drain_delay: Duration,
    _dir: StateDir,
}

/// How a host ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// Calls that were cut off when grace was over.
    pub cut_off: usize,
}

/// The store's parts, of one backend.
#[derive(Clone)]
struct Store {
    jobs: Arc<dyn Jobs>,
    ticks: Arc<dyn Ticks>,
    counts: Arc<dyn Counts>,
    /// The file that is closed last.
    sqlite: Option<Arc<SqliteStore>>,
}

impl Host {
    /// Takes the state directory and the port, loads every component, runs the release steps, starts the instances,
    /// and serves as soon as they are there.
    pub async fn start(plan: Plan, options: HostOptions) -> Result<Host, StartError> {
        let started = Instant::now();
        let formation = plan.formation.clone();
        let dir = StateDir::take(&formation.state_dir)?;
        // Early, so that a port in use is an answer of milliseconds, and clients wait instead of being refused.
        let mut handed_over = options.handed_over;
        let (listeners, certificates) = match plan.has_http() {
            true => (listen(&formation.http, &mut handed_over).await?, certificates(&formation.http)?),
            false => (Vec::new(), None),
        };
        let http: Vec<_> = listeners.iter().map(Listener::served_at).cloned().collect();
        let admin_listener = dir.listen()?;
        let store = open(&formation.store)?;
        let counts = store.counts.load().await;
        let counts = counts.map_err(|err| StartError::Store { url: formation.store.to_string(), err })?;
        let owner = take_ownership(&formation.store, &store).await?;

        let logs = Logs::start(options.log_format)?;
        let queues = Arc::new(Queues {
            jobs: store.jobs.clone(),
            settings: formation.queues.clone(),
            workers: workers(&plan),
        });
        let services = Services {
            logs: logs.clone(),
            enqueue: queues.clone(),
            refusals: Arc::new(Refusals::new(options.granted_by)),
        };
        let capacity = Capacity::find(&plan, &counts)?;
        let engine = Engine::new(engine_options(&plan, &capacity), options.cache)?;
        let loaded = load(engine, plan, services, options.progress).await?;
        run_release_steps(&loaded).await?;
        http.iter().for_each(|place| (options.serving)(place));

        let calls = TaskTracker::new();
        let (event_sender, events) = mpsc::unbounded_channel();
        let (actions, action_receiver) = mpsc::channel(ACTIONS_MAX);
        let wired: Vec<Wired> = loaded
            .into_iter()
            .enumerate()
            .map(|(process, loaded)| Wired::new(process, loaded, &event_sender, &calls))
            .collect();
        let supervised = wired.iter().map(|wired| wired.supervised(&counts)).collect();
        let connections_max =
            (!listeners.is_empty()).then(|| capacity.connections(formation.http.connections_max));
        let supervisor =
            Supervisor::new(supervised, store.counts.clone(), capacity, event_sender, calls.clone());
        let supervisor = tokio::spawn(supervisor.run(action_receiver, events));

        let intake = CancellationToken::new();
        let triggering = Triggering { intake: intake.clone(), running: TaskTracker::new() };
        let triggers = TaskTracker::new();
        let underway = Arc::new(Underway::default());
        let schedules =
            spawn_triggers(&wired, &store, &owner, &formation.queues, &underway, &triggering, &triggers);
        triggers.spawn(prune(store.jobs.clone(), retention(&formation), intake.clone()));

        let ingress = match connections_max {
            None => None,
            Some(connections_max) => {
                let ingress = Ingress::new(&formation.http, connections_max, routes(&wired))?;
                let run = ingress.clone().run(listeners, certificates, formation.drain_delay);
                Some((ingress, tokio::spawn(run)))
            }
        };
        let stop = CancellationToken::new();
        let admin = Admin {
            name: formation.name.clone(),
            file: formation.file.display().to_string(),
            http: http.iter().map(ServedAt::to_string).collect(),
            started,
            actions: actions.clone(),
            logs: logs.clone(),
            queues,
            backup: store.sqlite.clone(),
            underway,
            schedules,
            stop: stop.clone(),
        };
        let admin = tokio::spawn(admin::serve(admin_listener, admin));
        let state =
            HostState { store, logs, grace: formation.grace, drain_delay: formation.drain_delay, _dir: dir };
        let running = triggering.running;
        Ok(Host { state, actions, ingress, intake, running, triggers, calls, http, stop, admin, supervisor })
    }

    /// Where requests are served, if any type takes them.
    pub fn http(&self) -> &[ServedAt] {
        &self.http
    }

    /// Waits until every type has its instances.
    pub async fn settled(&self) {
        let (reply, settled) = oneshot::channel();
        let settle = Action::Settled { types: vec![], reply };
        if self.actions.send(settle).await.is_ok() {
            let _ = settled.await;
        }
    }

    /// Waits until somebody asks by the admin API that the host stops.
    pub fn stop_asked(&self) -> impl Future<Output = ()> + use<> {
        self.stop.clone().cancelled_owned()
    }

    /// Finishes what was begun, within grace, and stops. Ends the rest at once when `hurry` does.
    pub async fn drain(self, hurry: impl Future<Output = ()>) -> Stopped {
        let Host { state, actions, ingress, intake, running, triggers, calls, admin, supervisor, .. } = self;
        intake.cancel();
        if let Some((ingress, _)) = &ingress {
            ingress.drain();
        }
        // An error says that the supervisor has ended: there is nothing to refuse then.
        let _ = actions.send(Action::RefuseChanges).await;
        // Last, so that all of it is true for whom this line wakes.
        info!("draining: calls under way may take {:?}", state.grace);
        let finished = async {
            if let Some((_ingress, serving)) = ingress {
                let _ = serving.await;
            }
            triggers.close();
            triggers.wait().await;
            running.close();
            running.wait().await;
        };
        let over = async {
            tokio::select! {
                () = tokio::time::sleep(state.grace + state.drain_delay) => {}
                () = hurry => {}
            }
        };
        let mut finished = std::pin::pin!(finished);
        let cut_off = tokio::select! {
            () = &mut finished => 0,
            () = over => {
                let cut_off = interrupt(&actions).await;
                // They end at their next tick, and what they leave behind is settled.
                let _ = tokio::time::timeout(INTERRUPTED_MAX, &mut finished).await;
                cut_off
            }
        };
        interrupt(&actions).await;
        calls.close();
        // One that holds on for longer is in a host call that can't be interrupted.
        let _ = tokio::time::timeout(INTERRUPTED_MAX, calls.wait()).await;
        admin.abort();
        let _ = admin.await;
        supervisor.abort();
        let _ = supervisor.await;
        state.logs.close();
        if let Some(sqlite) = &state.store.sqlite {
            sqlite.close().await;
        }
        if cut_off > 0 {
            warn!("{cut_off} calls were cut off");
        }
        Stopped { cut_off }
    }
}

/// Ends every instance; says how many were busy.
async fn interrupt(actions: &mpsc::Sender<Action>) -> usize {
    let (reply, interrupted) = oneshot::channel();
    match actions.send(Action::InterruptAll { reply }).await {
        Ok(()) => interrupted.await.unwrap_or(0),
        Err(_) => 0,
    }
}

fn certificates(http: &Http) -> Result<Option<Certificates>, StartError> {
    http.tls.as_ref().map(Certificates::load).transpose().map_err(StartError::Certificates)
}

fn open(url: &StoreUrl) -> Result<Store, StartError> {
    match url {
        StoreUrl::Memory => {
            let store = Arc::new(MemoryStore::new());
            Ok(Store { jobs: store.clone(), ticks: store.clone(), counts: store, sqlite: None })
        }
        StoreUrl::Sqlite(path) => {
            if let Some(parent) = path.parent() {
                // Opening says what is wrong, should this fail.
                let _ = std::fs::create_dir_all(parent);
            }
            let store =
                SqliteStore::open(path).map_err(|err| StartError::Store { url: url.to_string(), err })?;
            let store = Arc::new(store);
            Ok(Store {
                jobs: store.clone(),
                ticks: store.clone(),
                counts: store.clone(),
                sqlite: Some(store),
            })
        }
    }
}

/// Copies a store that no host need be using. Returns the copy's length in bytes.
pub async fn backup_store(url: &StoreUrl, to: &std::path::Path) -> Result<u64, StoreError> {
    let StoreUrl::Sqlite(path) = url else {
        return Err(StoreError::Invalid(format!("{url} can't be backed up: only a SQLite store can")));
    };
    if !path.exists() {
        return Err(StoreError::Open(format!("there is no store at {} yet", path.display())));
    }
    let store = SqliteStore::open(path)?;
    let copied = store.backup(to).await;
    store.close().await;
    copied.map(|()| std::fs::metadata(to).map(|file| file.len()).unwrap_or_default())
}

/// Names this boot, and sees to what earlier boots of this host had begun: they are dead, since the state directory's
/// lock is ours. Their jobs are freed, and their ticks marked as interrupted.
async fn take_ownership(url: &StoreUrl, store: &Store) -> Result<String, StartError> {
    const PREFIX: &str = "host/";
    let freed = store.jobs.free_leases(PREFIX).await;
    let freed = freed.map_err(|err| StartError::Store { url: url.to_string(), err })?;
    if freed > 0 {
        info!("{freed} jobs that the last run had begun will run again");
    }
    let left = store.ticks.interrupt(PREFIX).await;
    let left = left.map_err(|err| StartError::Store { url: url.to_string(), err })?;
    if left > 0 {
        info!("{left} ticks that the last run had begun were interrupted by its end, and are not run again");
    }
    Ok(format!("{PREFIX}{}-{:x}", std::process::id(), fastrand::u64(..)))
}

fn engine_options(plan: &Plan, capacity: &Capacity) -> EngineOptions {
    let memory = plan.types.iter().map(|planned| planned.process.memory_bytes_max).max();
    EngineOptions {
        slots: capacity.slots(),
        memory_bytes_max: memory.unwrap_or(0),
        footprint: plan.footprint(),
        alone: false,
    }
}

/// A type with its compiled component.
struct Loaded {
    planned: PlannedType,
    component: Component,
}

/// Compiles every component that the cache doesn't have, each on a thread of its own.
async fn load(
    engine: Arc<Engine>,
    plan: Plan,
    services: Services,
    progress: Box<dyn Fn(usize, usize) + Send + Sync>,
) -> Result<Vec<Loaded>, StartError> {
    let count = plan.types.len();
    progress(0, count);
    let compiling: Vec<_> = plan
        .types
        .into_iter()
        .map(|planned| {
            let (engine, services) = (engine.clone(), services.clone());
            tokio::task::spawn_blocking(move || load_type(&engine, planned, services))
        })
        .collect();
    let mut loaded = Vec::with_capacity(count);
    for compiling in compiling {
        loaded.push(compiling.await.map_err(std::io::Error::other)??);
        progress(loaded.len(), count);
    }
    Ok(loaded)
}

fn load_type(
    engine: &Arc<Engine>,
    mut planned: PlannedType,
    services: Services,
) -> Result<Loaded, StartError> {
    let process = &planned.process;
    let sandbox = Sandbox {
        process: process.name.as_str().into(),
        grants: process.grants.clone(),
        args: process.args.clone(),
        memory_bytes_max: process.memory_bytes_max,
        program: None,
    };
    let code = std::mem::take(&mut planned.code);
    match Component::load(engine, &code, planned.handler, planned.is_async, sandbox, services) {
        Ok(component) => Ok(Loaded { planned, component }),
        Err(err) => Err(StartError::Load {
            process: planned.process.name.clone(),
            component: planned.process.component.display().to_string(),
            err,
        }),
    }
}

async fn run_release_steps(loaded: &[Loaded]) -> Result<(), StartError> {
    for Loaded { planned, component } in loaded {
        if matches!(planned.trigger, Trigger::Command { run: Run::Release }) {
            let limits = limits(planned);
            release::run(&planned.process.name, component, limits).await?;
        }
    }
    Ok(())
}

/// A type that is ready to be supervised and triggered.
struct Wired {
    planned: PlannedType,
    component: Component,
    pool: Arc<Pool>,
    name: Arc<str>,
}

impl Wired {
    fn new(
        process: usize,
        loaded: Loaded,
        events: &mpsc::UnboundedSender<Event>,
        calls: &TaskTracker,
    ) -> Wired {
        let Loaded { planned, component } = loaded;
        let line_max = backlog(&planned).line_max(planned.count());
        let name: Arc<str> = planned.process.name.as_str().into();
        let pool = Pool::new(PoolParts {
            process,
            name: name.clone(),
            component: component.clone(),
            keeping: keeping(&planned),
            line_max,
            events: events.clone(),
            calls: calls.clone(),
        });
        Wired { name, planned, component, pool }
    }

    fn limits(&self) -> CallLimits {
        limits(&self.planned)
    }

    fn supervised(&self, counts: &BTreeMap<String, u32>) -> Supervised {
        let (trigger, scalable) = match self.planned.trigger {
            Trigger::Http { .. } => ("http", true),
            Trigger::Queue { .. } => ("queue", true),
            Trigger::Schedule(_) => ("schedule", true),
            Trigger::Command { run: Run::Always } => ("command", true),
            Trigger::Command { run: Run::Release } => ("release", false),
            Trigger::Command { run: Run::Never } => ("manual", false),
        };
        let count_in_file = self.planned.count();
        let live = counts.get(&*self.name).copied().filter(|_| scalable);
        Supervised {
            name: self.name.clone(),
            trigger,
            component: self.component.clone(),
            pool: self.pool.clone(),
            count_in_file,
            count: live.unwrap_or(count_in_file),
            backlog: backlog(&self.planned),
            runs_always: self.planned.runs_always(),
            max_age: self.planned.process.max_age,
            scalable,
            limits: self.limits(),
        }
    }
}

fn limits(planned: &PlannedType) -> CallLimits {
    CallLimits { timeout: planned.timeout, cpu: planned.process.cpu }
}

/// A command's `main` can be entered once, and one call is what `max_calls = 1` says too.
fn keeping(planned: &PlannedType) -> Keeping {
    let process = &planned.process;
    let fresh_each_call = process.isolation == Some(Isolation::Call)
        || process.max_calls == Some(1)
        || planned.handler.is_command();
    Keeping {
        fresh_each_call,
        learns: process.isolation.is_none(),
        // Those of a place are counted together there, and each is fresh anyway.
        max_calls: process.max_calls.filter(|_| !fresh_each_call),
        max_age: process.max_age,
        concurrency: process.concurrency.unwrap_or(CONCURRENCY_DEFAULT),
    }
}

fn backlog(planned: &PlannedType) -> Backlog {
    match planned.process.backlog {
        Some(all) => Backlog::InAll(all),
        None => Backlog::PerInstance(BACKLOG_PER_INSTANCE),
    }
}

fn routes(wired: &[Wired]) -> Vec<(Route, Arc<Web>)> {
    let mut routes = Vec::new();
    for wired in wired {
        let Trigger::Http { routes: of_type } = &wired.planned.trigger else { continue };
        let web = Arc::new(Web {
            pool: wired.pool.clone(),
            limits: wired.limits(),
            wait_max: wired.planned.process.queue_timeout,
            failures: FailureLog::new(wired.name.clone()),
            body_bytes_max: wired.planned.process.body_bytes_max,
        });
        routes.extend(of_type.iter().map(|route| (route.clone(), web.clone())));
    }
    routes
}

fn spawn_triggers(
    wired: &[Wired],
    store: &Store,
    owner: &str,
    settings: &BTreeMap<String, Queue>,
    underway: &Arc<Underway>,
    triggering: &Triggering,
    triggers: &TaskTracker,
) -> HashMap<String, Arc<ScheduleTrigger>> {
    let mut schedules = HashMap::new();
    for wired in wired {
        match &wired.planned.trigger {
            Trigger::Queue { queues } => {
                let trigger = Arc::new(QueueTrigger {
                    pool: wired.pool.clone(),
                    jobs: store.jobs.clone(),
                    owner: owner.to_owned(),
                    queues: queues.iter().map(|queue| claim_queue(settings, queue)).collect(),
                    attempts: wired.planned.process.attempts,
                    backoff: Backoff::List(wired.planned.process.backoff.as_slice().into()),
                    limits: wired.limits(),
                    underway: underway.clone(),
                    ahead: Ahead::default(),
                });
                triggers.spawn(trigger.run(triggering.clone()));
            }
            Trigger::Schedule(schedule) => {
                let timeline = Timeline {
                    process: wired.name.clone(),
                    schedule: schedule.clone(),
                    ticks: store.ticks.clone(),
                    clock: Arc::new(SystemClock::new()),
                    owner: owner.to_owned(),
                };
                let trigger = Arc::new(ScheduleTrigger {
                    timeline: Arc::new(timeline),
                    pool: wired.pool.clone(),
                    limits: wired.limits(),
                    wait_max: wired.planned.process.queue_timeout,
                    underway: TaskTracker::new(),
                    triggering: triggering.clone(),
                });
                triggers.spawn(trigger.clone().run());
                schedules.insert(wired.name.to_string(), trigger);
            }
            Trigger::Http { .. } | Trigger::Command { .. } => {}
        }
    }
    schedules
}

/// The types that work each queue.
fn workers(plan: &Plan) -> BTreeMap<String, Vec<String>> {
    let mut workers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for planned in &plan.types {
        let Trigger::Queue { queues } = &planned.trigger else { continue };
        for (queue, _) in queues {
            workers.entry(queue.clone()).or_default().push(planned.process.name.clone());
        }
    }
    workers
}

fn claim_queue(settings: &BTreeMap<String, Queue>, (name, weight): &(String, u32)) -> ClaimQueue {
    let concurrency = settings.get(name).and_then(|settings| settings.concurrency);
    ClaimQueue { name: name.clone(), weight: *weight, concurrency }
}

fn retention(formation: &Formation) -> Retention {
    let wasmhost_config::Retention { done_for, done_max, dead_for, dead_max } = formation.retention;
    Retention { done_for, done_max, dead_for, dead_max }
}

/// Deletes jobs that have ended and been kept for long enough, from time to time.
async fn prune(jobs: Arc<dyn Jobs>, retention: Retention, intake: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(PRUNE_EVERY) => {}
            () = intake.cancelled() => return,
        }
        loop {
            match jobs.prune(retention).await {
                Ok(0) => break,
                Ok(_) => tokio::task::yield_now().await,
                Err(err) => {
                    warn!("old jobs could not be deleted: {err}");
                    break;
                }
            }
        }
    }
}
