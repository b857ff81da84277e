//! A host's life: load -> start -> run until told -> drain -> gone.
//!
//! `store` opens what outlives the host, `loading` compiles, `wiring` joins each type's pool with what calls it, and
//! `lasting` watches the tasks without which a host is none.

mod errors;
mod lasting;
mod loading;
mod store;
mod wiring;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use wasmhost_config::Http;
use wasmhost_engine::services::Services;
use wasmhost_engine::{Cache, Engine};

use crate::admin::api::InstanceView;
use crate::admin::{self, Admin};
use crate::capacity::{Capacity, capacity_warnings};
use crate::ingress::{Certificates, HandedOver, Ingress, Listener, ServedAt, listen};
use crate::logs::{LogFormat, Logs};
use crate::output::Output;
use crate::plan::Plan;
use crate::pool::Learned;
use crate::services::{GrantedBy, Queues, Refusals};
use crate::state_dir::StateDir;
use crate::supervisor::{Action, Supervisor};
use crate::trigger::Triggering;
use crate::trigger::claimed::ClaimedJobs;
use crate::trigger::prune::prune;
pub use errors::StartError;
pub(crate) use lasting::Lasting;
pub use lasting::Lost;
pub use loading::Progress;
use store::Store;
pub use store::backup_store;
use wiring::{Triggers, Wired};

/// What is left to a call that was interrupted: a tick, and the way back.
const INTERRUPTED_MAX: Duration = Duration::from_secs(5);

/// How long a drain looks at what it waits for.
const LOOK_MAX: Duration = Duration::from_millis(500);

/// How often a drain says what it waits for.
const TELL_OF_DRAIN_EVERY: Duration = Duration::from_secs(5);

/// Actions that wait for the supervisor.
const ACTIONS_MAX: usize = 64;

/// How the program that runs a host wants it.
pub struct HostOptions {
    /// Where guests' lines and the access log go. Whoever made it closes it, when the host has ended.
    pub output: Output,
    /// How guests' lines are printed.
    pub log_format: LogFormat,
    /// Where compiled components are kept.
    pub cache: Cache,
    /// Is told of progress while components compile.
    pub progress: Box<dyn Fn(Progress) + Send + Sync>,
    /// Is told each place where requests are served, if any type takes them, before the first instance is started.
    pub serving: Box<dyn Fn(&ServedAt) + Send>,
    /// What a refused grant's warning advises.
    pub granted_by: GrantedBy,
    /// Sockets that were open before the host was.
    pub handed_over: HandedOver,
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
    lasting: Lasting,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// Calls that were cut off when grace was over.
    pub cut_off: usize,
    /// What ended before the host did.
    pub lost: Option<Lost>,
}

impl Host {
    /// Takes the state directory and the port, loads every component, runs the release steps, starts the instances,
    /// and serves as soon as they are there.
    pub async fn start(plan: Plan, options: HostOptions) -> Result<Host, StartError> {
        let started = Instant::now();
        let formation = plan.formation.clone();
        let dir = StateDir::take(&formation.state_dir, &formation.file)?;
        // Early, so that a port in use is an answer of milliseconds, and clients wait instead of being refused.
        let mut handed_over = options.handed_over;
        let (listeners, certificates) = match plan.has_http() {
            true => (listen(&formation.http, &mut handed_over).await?, certificates(&formation.http)?),
            false => (Vec::new(), None),
        };
        let http: Vec<_> = listeners.iter().map(Listener::served_at).cloned().collect();
        let admin_listener = dir.listen()?;
        let store = store::open(&formation.store)?;
        let counts = store::counts(&formation, &store, dir.left_by()).await?;
        let owner = store::take_ownership(&formation.store, &store).await?;
        store::forget_other_schedules(&formation.store, &store, &plan).await?;

        let logs = Logs::new(options.output.stdout(), options.log_format);
        formation.unworked_queues().iter().for_each(|unworked| warn!("{unworked}"));
        let queues = Arc::new(Queues {
            jobs: store.jobs.clone(),
            settings: formation.queues.clone(),
            workers: wiring::workers(&plan),
        });
        let services = Services {
            logs: logs.clone(),
            enqueue: queues.clone(),
            refusals: Arc::new(Refusals::new(options.granted_by)),
        };
        let capacity = Capacity::find(&plan, &counts)?;
        capacity_warnings(&plan, &counts).iter().for_each(|warning| warn!("{warning}"));
        let engine = Engine::new(loading::engine_options(&plan, &capacity), options.cache)?;
        let loaded = loading::load(engine.clone(), plan, services, options.progress).await?;
        loading::run_release_steps(&loaded).await?;
        http.iter().for_each(|place| (options.serving)(place));

        let lasting = Lasting::new();
        store.watch(&lasting);
        // Weak, since the engine goes with its last instance.
        let weak = Arc::downgrade(&engine);
        lasting.watch_thread("a thread that guests run on", move || {
            weak.upgrade().is_none_or(|engine| engine.is_alive())
        });
        for stream in [options.output.stdout(), options.output.stderr()] {
            let (name, stream) = (format!("the writer of {stream}"), stream.clone());
            lasting.watch_thread(&name, move || stream.is_alive());
        }
        let calls = TaskTracker::new();
        let (event_sender, events) = mpsc::unbounded_channel();
        let (actions, action_receiver) = mpsc::channel(ACTIONS_MAX);
        let learned = Learned::open(&formation.state_dir);
        let wired: Vec<Wired> = loaded
            .into_iter()
            .enumerate()
            .map(|(type_index, loaded)| Wired::new(type_index, loaded, &learned, &event_sender, &calls))
            .collect();
        let supervised = wired.iter().map(|wired| wired.supervised(&counts)).collect();
        let connections_max =
            (!listeners.is_empty()).then(|| capacity.connections(formation.http.connections_max));
        let supervisor =
            Supervisor::new(supervised, store.counts.clone(), capacity, event_sender, calls.clone());
        let supervisor = lasting.spawn("the supervisor", supervisor.run(action_receiver, events));

        let intake = CancellationToken::new();
        let triggering = Triggering { intake: intake.clone(), running: TaskTracker::new() };
        let triggers = Triggers { tracker: TaskTracker::new(), lasting: lasting.clone() };
        let claimed = Arc::new(ClaimedJobs::default());
        store.jobs.hold(claimed.clone());
        lasting.spawn("what renews leases", claimed.clone().keep_valid(store.jobs.clone()));
        let schedules = triggers.spawn_all(&wired, &store, &owner, &formation.queues, &claimed, &triggering);
        let prune = prune(store.jobs.clone(), store::retention(&formation), intake.clone());
        triggers.spawn("what deletes old jobs", prune);

        let ingress = match connections_max {
            None => None,
            Some(connections_max) => {
                let (routes, stderr) = (wiring::routes(&wired), options.output.stderr());
                let ingress = Ingress::new(&formation.http, connections_max, routes, stderr);
                let run = ingress.clone().run(listeners, certificates, formation.drain_delay);
                Some((ingress, lasting.spawn("the ingress", run)))
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
            claimed,
            schedules,
            stop: stop.clone(),
        };
        let admin = lasting.spawn("the admin API", admin::serve(admin_listener, admin));
        let state =
            HostState { store, logs, grace: formation.grace, drain_delay: formation.drain_delay, _dir: dir };
        let running = triggering.running;
        let triggers = triggers.tracker;
        Ok(Host {
            state,
            actions,
            ingress,
            intake,
            running,
            triggers,
            calls,
            http,
            stop,
            admin,
            supervisor,
            lasting,
        })
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

    /// Waits until something ends that the host can't do without.
    pub fn lost(&self) -> impl Future<Output = Lost> + use<> {
        self.lasting.lost()
    }

    /// Finishes what was begun, within grace, and stops. Ends the rest at once when `hurry` does.
    pub async fn drain(self, hurry: impl Future<Output = ()>) -> Stopped {
        let Host {
            state,
            actions,
            ingress,
            intake,
            running,
            triggers,
            calls,
            admin,
            supervisor,
            lasting,
            ..
        } = self;
        lasting.release();
        intake.cancel();
        if let Some((ingress, _)) = &ingress {
            ingress.drain(state.grace + state.drain_delay);
        }
        // An error says that the supervisor was lost: nothing changes counts any more.
        let _ = actions.send(Action::RefuseChanges).await;
        // Last, so that all of it is true for whom this line wakes.
        let at_work_now = at_work(&actions).await;
        info!("draining: {at_work_now}; calls under way may take {:?}", state.grace);
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
            () = tell_of_drain(&actions) => 0,
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
        state.logs.end_followers().await;
        admin.abort();
        let _ = admin.await;
        supervisor.abort();
        let _ = supervisor.await;
        state.store.sqlite.close().await;
        if cut_off > 0 {
            warn!("{cut_off} calls were cut off");
        }
        Stopped { cut_off, lost: lasting.first_lost() }
    }
}

/// Says from time to time what a drain waits for. Never ends.
async fn tell_of_drain(actions: &mpsc::Sender<Action>) {
    loop {
        tokio::time::sleep(TELL_OF_DRAIN_EVERY).await;
        let at_work_now = at_work(actions).await;
        info!("still draining: {at_work_now}");
    }
}

/// How many instances are in a call, by type: `3 instances are in a call (web 2, worker 1)`.
async fn at_work(actions: &mpsc::Sender<Action>) -> String {
    let look = async {
        let (reply, types) = oneshot::channel();
        let _ = actions.send(Action::Look { reply }).await;
        types.await.unwrap_or_default()
    };
    // A supervisor that waits for the disk is no reason to wait for it here.
    let types = tokio::time::timeout(LOOK_MAX, look).await.unwrap_or_default();
    let busy = types.iter().map(|view| {
        let is_busy = |instance: &&InstanceView| matches!(instance.state.as_str(), "busy" | "draining");
        (view.process.as_str(), view.instances.iter().filter(is_busy).count())
    });
    let busy: Vec<_> = busy.filter(|(_, count)| *count > 0).collect();
    let total: usize = busy.iter().map(|(_, count)| count).sum();
    let each: Vec<_> = busy.iter().map(|(process, count)| format!("{process} {count}")).collect();
    match total {
        0 => "no instance is in a call".to_owned(),
        1 => format!("1 instance is in a call ({})", each.join(", ")),
        _ => format!("{total} instances are in a call ({})", each.join(", ")),
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
