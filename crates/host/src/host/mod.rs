//! A host's life: load -> start -> run until told -> drain -> gone.
//!
//! `store` opens what outlives the host, `loading` compiles, and `lasting` watches the tasks without which a host is none.
//! Which types there are, and what calls them, is a [release](crate::release)'s.

mod beginning;
mod by_signal;
mod draining;
mod errors;
mod lasting;
mod loading;
mod sharing;
mod store;
mod swap;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use wasmhost_engine::Cache;

use crate::admin::api::{DeployEvent, HostChange, HostEvent};
use crate::admin::{Admin, Entrance, Looks};
use crate::deaths::Deaths;
use crate::feed::Feed;
use crate::health::{Health, Sources};
use crate::history::History;
use crate::ingress::{HandedOver, ServedAt, Sockets};
use crate::logs::{LogFormat, Logs};
use crate::members::heart::Membership;
use crate::output::Output;
use crate::plan::Plan;
use crate::release::{Deployer, Deploying, Front, Live, Making, Parts, TIMEOUT_DEFAULT, Triggers, Wanted};
use crate::services::GrantedBy;
use crate::state_dir::{Identity, StateDir};
use crate::supervisor::{Action, Pulse, Records, Supervisor};
use crate::systemd::ServiceManager;
use crate::telemetry::{self, Telemetry, TelemetrySettings};
use crate::trigger::Triggering;
use crate::trigger::claimed::ClaimedJobs;
use crate::trigger::prune::prune;
use beginning::{Begun, Made, Means, begin};
pub use by_signal::Step;
use draining::{INTERRUPTED_MAX, LOOK_MAX, at_work, interrupt, tell_of_drain};
pub use errors::StartError;
pub(crate) use lasting::Lasting;
pub use lasting::Lost;
pub use loading::Progress;
pub(crate) use loading::{Loaded, load};
use sharing::Sharing;
pub(crate) use store::Backend;
use store::Store;
pub use store::{backup_store, enqueue_without_host};

/// How long a host takes for its end, beyond grace, if all goes as it should.
const ENDED_MAX: Duration = Duration::from_secs(30);

/// How long the supervisor may take for its end.
const SUPERVISOR_ENDED_MAX: Duration = Duration::from_secs(1);

/// Actions that wait for the supervisor.
const ACTIONS_MAX: usize = 64;

/// How the program that runs a host wants it.
pub struct HostOptions {
    /// Where guests' lines and the access log go. Its maker closes it, when the host has ended.
    pub output: Output,
    /// How guests' lines are printed.
    pub log_format: LogFormat,
    /// Where compiled components are kept.
    pub cache: Cache,
    /// Its directory, if they are kept.
    pub cache_directory: Option<PathBuf>,
    /// Is told of progress while components compile.
    pub progress: Box<dyn Fn(Progress) + Send + Sync>,
    /// Is told each place where requests are served, if any type takes them.
    pub serving: Box<dyn Fn(&ServedAt) + Send + Sync>,
    /// Is told each place where probes and metrics are answered.
    pub answering: Box<dyn Fn(&ServedAt) + Send + Sync>,
    /// Is told each place beside its socket where the admin API is served.
    pub administering: Box<dyn Fn(&ServedAt) + Send + Sync>,
    /// The keys or flags that a refused grant's warning advises.
    pub granted_by: GrantedBy,
    /// Sockets that were open before the host was.
    pub handed_over: HandedOver,
    /// Is told how the host stands.
    pub manager: ServiceManager,
    /// Where traces and metrics are sent, if they are.
    pub telemetry: TelemetrySettings,
}

/// A host that serves.
pub struct Host {
    state: HostState,
    actions: mpsc::Sender<Action>,
    front: Arc<Front>,
    live: Arc<ArcSwap<Live>>,
    deployer: Deployer,
    /// Begin nothing more.
    intake: CancellationToken,
    /// Take jobs and ticks at present.
    is_taking: watch::Sender<bool>,
    running: TaskTracker,
    triggers: TaskTracker,
    /// All that runs in any guest, those included that nobody waits for any more.
    calls: TaskTracker,
    /// The admin API.
    admin: Entrance,
    health: Arc<Health>,
    supervisor: JoinHandle<()>,
    lasting: Lasting,
}

/// The parts that live as long as the host, and go last.
struct HostState {
    store: Store,
    logs: Arc<Logs>,
    feed: Arc<Feed>,
    manager: ServiceManager,
    telemetry: Option<Telemetry>,
    /// This host among those that share the store, where they can.
    membership: Option<Membership>,
    /// Ends the heartbeat.
    beating: CancellationToken,
    _dir: StateDir,
}

/// How a host ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// Calls that were cut off when grace was over.
    pub cut_off: usize,
    /// The part of the host that ended before the host did.
    pub lost: Option<Lost>,
}

impl Host {
    /// Takes the state directory and the port, loads every component, runs the release steps, starts the instances,
    /// and serves as soon as they are there. Where `until` ends before there is any, there will be none.
    pub async fn start(
        plan: Plan,
        options: HostOptions,
        until: impl Future<Output = ()>,
    ) -> Result<Host, StartError> {
        let started = Instant::now();
        let HostOptions {
            output,
            log_format,
            cache,
            cache_directory,
            progress,
            serving,
            answering,
            administering,
            granted_by,
            handed_over,
            manager,
            telemetry,
        } = options;
        let dir = StateDir::take(&plan.formation.state_dir, &plan.formation.file)?;
        let lasting = Lasting::new();
        let logs = Logs::new(&output, log_format);
        let socket = dir.listen()?;
        let entrance = Entrance::new(socket, &plan.formation, started, logs.clone(), &lasting, administering);
        let file = plan.formation.file.clone();
        let mut sockets = Sockets::new(handed_over);
        let (measures, telemetry) = telemetry::prepare(telemetry, &plan.formation.name)?;
        let health = Health::new(&lasting, &measures, answering);
        let telemetry = telemetry.map(|prepared| prepared.start(&health)).transpose()?;
        let loads = cache.loads().clone();
        let deaths = Deaths::new(&logs);
        let feed = Arc::<Feed>::default();
        let means = Means {
            url: plan.formation.store.clone(),
            state_dir: plan.formation.state_dir.clone(),
            identity: Identity::of(&plan.formation.state_dir),
            logs: logs.clone(),
            feed: feed.clone(),
            cache,
            cache_directory: cache_directory.clone(),
            granted_by,
            progress,
            entrance: &entrance,
            health: &health,
            measures: measures.clone(),
        };
        let begun = match begin(plan, means, &mut sockets, until).await {
            Ok(begun) => begun,
            Err(err) => return Err(give_up(entrance, &health, &logs, &lasting, err).await),
        };
        let Begun { formation, store, shelf, queues, membership, keeping, made } = begun;
        let Made { opened, counts, owner, making, release } = made;
        let Making { engine, capacity, learned, .. } = &making;
        let (engine, capacity, learned) = (engine.clone(), capacity.clone(), learned.clone());
        let kept = shelf.keep_in_background(&release);
        sharing::hand_on_in_background(&store, &shelf, &release, kept);

        store.watch(&lasting);
        lasting.watch_thread("a thread that guests run on", engine.watch_threads());
        swap::watch(&lasting, engine.watch_swap());
        drop(engine);
        for stream in [output.stdout(), output.stderr()] {
            let (name, stream) = (format!("the writer of {stream}"), stream.clone());
            lasting.watch_thread(&name, move || stream.is_alive());
        }
        let calls = TaskTracker::new();
        let (event_sender, events) = mpsc::unbounded_channel();
        let (actions, action_receiver) = mpsc::channel(ACTIONS_MAX);
        let (is_taking, takes) = watch::channel(true);
        let supervisor = Supervisor::new(
            store.counts.clone(),
            capacity.clone(),
            learned,
            event_sender,
            calls.clone(),
            Pulse::new(manager.clone(), takes.clone()),
            Records { deaths: deaths.clone(), measures: measures.clone() },
        )
        .telling(feed.clone())
        .sharing(membership.as_ref());
        let supervisor = lasting.spawn("the supervisor", supervisor.run(action_receiver, events));

        let intake = CancellationToken::new();
        let triggering =
            Triggering { intake: intake.clone(), is_taking: takes.clone(), running: TaskTracker::new() };
        let running = triggering.running.clone();
        let claimed = Arc::new(ClaimedJobs::default());
        store.jobs.hold(claimed.clone());
        lasting.spawn("what renews leases", claimed.clone().keep_valid(store.jobs.clone()));
        let triggers = TaskTracker::new();
        let live = Arc::new(ArcSwap::from_pointee(Live::none(&formation)));
        let prune = prune(store.jobs.clone(), live.clone(), intake.clone());
        lasting.spawn_on(&triggers, "what deletes old jobs", prune);

        let front = Front::new(lasting.clone(), output.stderr().clone(), capacity, sockets, measures.clone());
        let front = Arc::new(front);
        let parts = Parts {
            making,
            releases: store.releases.clone(),
            ticks: store.ticks.clone(),
            counts: store.counts.clone(),
            shelf,
            actions: actions.clone(),
            front: front.clone(),
            triggers: Triggers {
                jobs: store.jobs.clone(),
                ticks: store.ticks.clone(),
                owner,
                clock: sharing::clock(membership.as_ref()),
                is_shared: store.is_shared(),
                claimed: claimed.clone(),
                measures: measures.clone(),
                lasting: lasting.clone(),
                tracker: triggers.clone(),
                triggering,
                running: Default::default(),
                feed: feed.clone(),
            },
            queues: queues.clone(),
            measures: measures.clone(),
            health: health.clone(),
            remote: entrance.remote().clone(),
            file: file.clone(),
            live: live.clone(),
            serving,
            cache: cache_directory,
            granted_by,
            feed: feed.clone(),
            membership: membership.clone(),
            components: store.components.clone(),
        };
        let (deployer, orders) = Deployer::new(live.clone());
        let deploying = match Deploying::begin(parts, release, opened, &counts).await {
            Ok(deploying) => deploying,
            Err(why) => {
                return Err(
                    give_up(entrance, &health, &logs, &lasting, std::io::Error::other(why).into()).await
                );
            }
        };
        lasting.spawn_on(&triggers, "what deploys", deploying.run(orders, intake.clone()));

        health.started(Sources {
            actions: actions.clone(),
            live: live.clone(),
            jobs: store.jobs.clone(),
            store: store.backend.clone(),
            front: front.clone(),
            logs: logs.clone(),
            loads,
            runtime: Handle::current(),
        });
        drop(keeping);
        let beating = CancellationToken::new();
        if let Some(membership) = &membership {
            let sharing =
                Sharing { membership, actions: &actions, store: &store, live: &live, deployer: &deployer };
            sharing.begin(&lasting, &triggers, intake.clone(), entrance.stop().clone(), beating.clone());
        }
        let history = History::begin(&lasting, measures, &actions, &store.jobs, &queues);
        entrance.open(Admin {
            file,
            live: live.clone(),
            started,
            actions: actions.clone(),
            deployer: deployer.clone(),
            releases: store.releases.clone(),
            logs: logs.clone(),
            deaths,
            feed: feed.clone(),
            history,
            looks: Looks::default(),
            queues,
            backup: store.backend.clone(),
            claimed,
            is_taking: takes,
            stop: entrance.stop().clone(),
            membership: membership.clone(),
        });
        let state = HostState { store, logs, feed, manager, telemetry, membership, beating, _dir: dir };
        Ok(Host {
            state,
            actions,
            front,
            live,
            deployer,
            intake,
            is_taking,
            running,
            triggers,
            calls,
            admin: entrance,
            health,
            supervisor,
            lasting,
        })
    }

    /// Where requests are served, if any type takes them.
    pub fn http(&self) -> Vec<ServedAt> {
        self.live.load().http.clone()
    }

    /// Waits until every type has its instances. The host is ready from then on.
    pub async fn settled(&self) {
        let (reply, settled) = oneshot::channel();
        let settle = Action::Settled { types: vec![], reply };
        if self.actions.send(settle).await.is_ok() && settled.await.is_ok() {
            self.health.ready();
        }
    }

    /// Reads the formation again, and deploys it: what a signal asks for. Ends when the deploy does; how it went is
    /// logged.
    pub fn deploy(&self) -> impl Future<Output = ()> + Send + use<> {
        let order = self.deployer.order(Wanted::File { dry_run: false, canary: None }, TIMEOUT_DEFAULT);
        let reloading = self.state.manager.reloading();
        async move {
            let _reloading = reloading;
            let mut steps = match order {
                Ok(steps) => steps,
                Err(not_taken) => return warn!("the formation is not deployed: {not_taken}"),
            };
            while let Some(step) = steps.recv().await {
                if let DeployEvent::Unchanged { release } = step {
                    info!("the formation hasn't changed: v{release} stays live");
                }
            }
        }
    }

    /// Waits until somebody asks by the admin API that the host stops.
    pub fn stop_asked(&self) -> impl Future<Output = ()> + use<> {
        self.admin.stop().clone().cancelled_owned()
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
            front,
            live,
            intake,
            running,
            triggers,
            calls,
            admin,
            health,
            supervisor,
            lasting,
            ..
        } = self;
        // First: whoever sends requests here is to send them elsewhere.
        health.drain();
        let (grace, drain_delay) = {
            let live = live.load();
            (live.formation.grace, live.formation.drain_delay)
        };
        lasting.release();
        let within = grace + drain_delay;
        let _extending = state.manager.stopping(within + ENDED_MAX);
        state.feed.tell(|| HostEvent::Host { state: HostChange::Draining });
        intake.cancel();
        front.drain(drain_delay, grace);
        // One that is lost or hangs changes no counts any more.
        let _ = tokio::time::timeout(LOOK_MAX, actions.send(Action::RefuseChanges)).await;
        // Last, so that all of it is true for whom this line wakes.
        let at_work_now = at_work(&actions).await;
        info!("draining: {at_work_now}; calls under way may take {grace:?}");
        state.manager.status(&format!("draining: {at_work_now}"));
        let finished = async {
            front.ended().await;
            triggers.close();
            triggers.wait().await;
            running.close();
            running.wait().await;
        };
        let over = async {
            tokio::select! {
                () = tokio::time::sleep(within) => {}
                () = hurry => {}
            }
        };
        let mut finished = std::pin::pin!(finished);
        let cut_off = tokio::select! {
            () = &mut finished => 0,
            () = tell_of_drain(&actions, &state.manager) => 0,
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
        // While the supervisor can still be asked for its figures.
        if let Some(telemetry) = state.telemetry {
            telemetry.end().await;
        }
        tokio::join!(state.logs.end_followers(), state.feed.end());
        admin.end().await;
        supervisor.abort();
        let _ = tokio::time::timeout(SUPERVISOR_ENDED_MAX, supervisor).await;
        state.beating.cancel();
        if let Some(membership) = &state.membership {
            membership.leave().await;
        }
        state.store.backend.close().await;
        health.end().await;
        if cut_off > 0 {
            warn!("{cut_off} calls were cut off");
        }
        Stopped { cut_off, lost: lasting.first_lost() }
    }
}

/// The host doesn't start. Clients that wait are told why.
async fn give_up(
    entrance: Entrance,
    health: &Health,
    logs: &Logs,
    lasting: &Lasting,
    err: StartError,
) -> StartError {
    lasting.release();
    health.end().await;
    logs.end_followers().await;
    entrance.refuse(&err.to_string()).await;
    err
}
