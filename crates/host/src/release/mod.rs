//! Releases: how a host goes from one version of its formation to the next.
//!
//! ```text
//! read -> compare -> keep -> compile -> release steps -> try -> move -> live
//!                                                           -> move back, where an instance dies
//!                                                           -> canary, which is moved or aborted later
//! ```
//!
//! A [`Deployer`] takes one order at a time, and [`Deploying`] carries it out. Whatever fails before the move has changed
//! nothing. The store says which release is live, and says so only when the move is over: a host that is killed in the
//! middle starts with the release that was live.

mod aborting;
mod canary;
mod committing;
mod deploying;
mod everywhere;
mod following;
mod front;
mod history;
mod live;
mod making;
mod moving;
mod preparing;
mod shelf;
mod stored;
mod telling;
mod traced;
mod trial;
mod triggers;
pub(crate) mod views;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use wasmhost_config::Formation;
use wasmhost_engine::CallLimits;

use crate::admin::api::DeployEvent;
use crate::ingress::ServedAt;
use crate::plan::PlannedType;
use crate::pool::Version;
use crate::share::Share;
use crate::trigger::schedule::ScheduleTrigger;
use aborting::Abortable;
pub(crate) use deploying::{Deploying, Parts, TIMEOUT_MAX, change_lines};
pub(crate) use everywhere::hand_on;
pub(crate) use following::follow;
pub(crate) use front::{Front, Opened, Openings};
pub(crate) use history::{Begin, NothingToRun, Shared, at_start};
pub use live::LiveRelease;
pub(crate) use making::{Making, engine_options, run_release_steps};
pub(crate) use shelf::Shelf;
pub use stored::StoredReleases;
pub(crate) use triggers::Triggers;

/// How long a deploy may take, where nobody says.
pub(crate) const TIMEOUT_DEFAULT: Duration = Duration::from_mins(5);

/// One loaded version of the formation.
pub(crate) struct Release {
    pub(crate) number: u64,
    pub(crate) formation: Formation,
    /// In the file's order.
    pub(crate) types: Vec<ReleaseType>,
}

/// A type of a release.
pub(crate) struct ReleaseType {
    /// Without its component's bytes.
    pub(crate) planned: PlannedType,
    /// The component's SHA-256, in hexadecimal digits.
    pub(crate) digest: String,
    pub(crate) version: Arc<Version>,
}

impl Release {
    pub(crate) fn find(&self, process: &str) -> Option<&ReleaseType> {
        self.types.iter().find(|kind| kind.name() == process)
    }
}

impl ReleaseType {
    pub(crate) fn name(&self) -> &str {
        &self.planned.process.name
    }

    pub(crate) fn limits(&self) -> CallLimits {
        CallLimits { timeout: self.planned.timeout, cpu: self.planned.process.cpu }
    }
}

/// The view that others have of the live release.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) number: u64,
    pub(crate) formation: Formation,
    /// Where requests are served, if any type takes them.
    pub(crate) http: Vec<ServedAt>,
    /// Where probes and metrics are answered.
    pub(crate) health: Vec<ServedAt>,
    /// Where the admin API is served beside its socket.
    pub(crate) admin: Vec<ServedAt>,
    /// The release that has a share of requests and jobs beside this one, if one has.
    pub(crate) canary: Option<OnCanary>,
    /// By their types' names.
    pub(crate) schedules: HashMap<String, Arc<ScheduleTrigger>>,
}

/// A release on canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OnCanary {
    pub(crate) release: u64,
    pub(crate) share: Share,
}

impl Live {
    /// Before the first release is live.
    pub(crate) fn none(formation: &Formation) -> Live {
        Live {
            number: 0,
            formation: formation.clone(),
            http: vec![],
            health: vec![],
            admin: vec![],
            canary: None,
            schedules: HashMap::new(),
        }
    }
}

/// Gives orders to what deploys.
#[derive(Clone)]
pub(crate) struct Deployer {
    orders: mpsc::Sender<Order>,
    /// One order at a time.
    turn: Arc<Semaphore>,
    /// The order whose turn it is, or was last.
    underway: Arc<Mutex<Abortable>>,
    live: Arc<ArcSwap<Live>>,
}

/// One deploy, one way back, or the end of a canary.
pub(crate) struct Order {
    wanted: Wanted,
    timeout: Duration,
    /// Is told of each step. The last event is the end. Nobody need listen.
    events: mpsc::UnboundedSender<DeployEvent>,
    turn: OwnedSemaphorePermit,
    abortable: Abortable,
}

/// The formation or release that is to become live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The formation's file, as it is now.
    File {
        /// Only say what would change.
        dry_run: bool,
        /// Give it this share of requests and jobs, and don't make it live.
        canary: Option<Share>,
    },
    /// A release of before: this one or, where none is named, the one that was live before the present one.
    Release(Option<u64>),
    /// A release that another host deploys is to be prepared, and nothing else.
    Prepare(u64),
    /// A release that another host has made live.
    Follow(u64),
    /// The release that is on canary.
    Promote,
    /// None: the live release is to be alone again, and a deploy under way is to fail.
    Abort,
}

impl Wanted {
    /// Whether nothing is to change.
    fn is_dry_run(self) -> bool {
        matches!(self, Wanted::File { dry_run: true, .. } | Wanted::Prepare(_))
    }
}

/// Why an order isn't taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotTaken {
    #[error("another deploy is under way: wait until it has ended")]
    Busy,
    /// There is a release on canary, or none where one is meant.
    #[error("{0}")]
    Canary(String),
    #[error("the host is stopping")]
    Stopping,
}

impl Deployer {
    /// Returns where the orders arrive, too.
    pub(crate) fn new(live: Arc<ArcSwap<Live>>) -> (Deployer, mpsc::Receiver<Order>) {
        let (orders, arrive) = mpsc::channel(1);
        let underway = Arc::new(Mutex::new(Abortable::ended()));
        (Deployer { orders, turn: Arc::new(Semaphore::new(1)), underway, live }, arrive)
    }

    /// Gives an order, if none is carried out now. Its steps come out, the last of which is its end. An order to abort is for
    /// the one under way, if there is one, and its end comes out.
    pub(crate) fn order(
        &self,
        wanted: Wanted,
        timeout: Duration,
    ) -> Result<mpsc::UnboundedReceiver<DeployEvent>, NotTaken> {
        let mut underway = self.underway.lock().unwrap_or_else(|poison| poison.into_inner());
        let Ok(turn) = self.turn.clone().try_acquire_owned() else {
            let end = if wanted == Wanted::Abort { underway.abort() } else { None };
            return end.ok_or(NotTaken::Busy);
        };
        // Nothing changes it meanwhile: the turn is this order's.
        if !wanted.is_dry_run() {
            let wants_canary = matches!(wanted, Wanted::Promote | Wanted::Abort);
            OnCanary::refuse(&self.live, wants_canary).map_err(NotTaken::Canary)?;
        }
        let (events, steps) = mpsc::unbounded_channel();
        let abortable = Abortable::new();
        *underway = abortable.clone();
        let order = Order { wanted, timeout, events, turn, abortable };
        self.orders.try_send(order).map_err(|_| NotTaken::Stopping)?;
        Ok(steps)
    }
}
