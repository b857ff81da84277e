//! Releases: how a host goes from one version of its formation to the next.
//!
//! ```text
//! read -> compare -> keep -> compile -> release steps -> try -> move -> live
//!                                                           -> move back, where an instance dies
//! ```
//!
//! A [`Deployer`] takes one order at a time, and [`Deploying`] carries it out. Whatever fails before the move has changed
//! nothing. The store says which release is live, and says so only when the move is over: a host that is killed in the
//! middle starts with the release that was live.

mod committing;
mod deploying;
mod front;
mod history;
mod making;
mod moving;
mod preparing;
mod shelf;
mod trial;
mod triggers;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use wasmhost_config::Formation;
use wasmhost_engine::CallLimits;

use crate::admin::api::DeployEvent;
use crate::ingress::ServedAt;
use crate::plan::PlannedType;
use crate::pool::Version;
use crate::trigger::schedule::ScheduleTrigger;
pub(crate) use deploying::{Deploying, Parts, TIMEOUT_MAX, change_lines};
pub(crate) use front::{Front, Opened};
pub(crate) use history::{Begin, START, at_start, record};
pub(crate) use making::{Making, engine_options, run_release_steps};
pub(crate) use shelf::Shelf;
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

impl ReleaseType {
    pub(crate) fn name(&self) -> &str {
        &self.planned.process.name
    }

    pub(crate) fn limits(&self) -> CallLimits {
        CallLimits { timeout: self.planned.timeout, cpu: self.planned.process.cpu }
    }
}

/// The view that others have of the live release.
pub(crate) struct Live {
    pub(crate) number: u64,
    pub(crate) formation: Formation,
    /// Where requests are served, if any type takes them.
    pub(crate) http: Vec<ServedAt>,
    /// By their types' names.
    pub(crate) schedules: HashMap<String, Arc<ScheduleTrigger>>,
}

impl Live {
    /// Before the first release is live.
    pub(crate) fn none(formation: &Formation) -> Live {
        Live { number: 0, formation: formation.clone(), http: vec![], schedules: HashMap::new() }
    }
}

/// Gives orders to what deploys.
#[derive(Clone)]
pub(crate) struct Deployer {
    orders: mpsc::Sender<Order>,
    /// One order at a time.
    turn: Arc<Semaphore>,
}

/// One deploy, or one way back.
pub(crate) struct Order {
    wanted: Wanted,
    timeout: Duration,
    /// Is told of each step. The last event is the end. Nobody need listen.
    events: mpsc::UnboundedSender<DeployEvent>,
    _turn: OwnedSemaphorePermit,
}

/// The formation or release that is to become live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The formation's file, as it is now.
    File {
        /// Only say what would change.
        dry_run: bool,
    },
    /// A release of before: this one or, where none is named, the one that was live before the present one.
    Release(Option<u64>),
}

/// Why an order isn't taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotTaken {
    #[error("another deploy is under way: wait until it has ended")]
    Busy,
    #[error("the host is stopping")]
    Stopping,
}

impl Deployer {
    /// Returns where the orders arrive, too.
    pub(crate) fn new() -> (Deployer, mpsc::Receiver<Order>) {
        let (orders, arrive) = mpsc::channel(1);
        (Deployer { orders, turn: Arc::new(Semaphore::new(1)) }, arrive)
    }

    /// Gives an order, if none is carried out now. Its steps come out, the last of which is its end.
    pub(crate) fn order(
        &self,
        wanted: Wanted,
        timeout: Duration,
    ) -> Result<mpsc::UnboundedReceiver<DeployEvent>, NotTaken> {
        let turn = self.turn.clone().try_acquire_owned().map_err(|_| NotTaken::Busy)?;
        let (events, steps) = mpsc::unbounded_channel();
        let order = Order { wanted, timeout, events, _turn: turn };
        self.orders.try_send(order).map_err(|_| NotTaken::Stopping)?;
        Ok(steps)
    }
}
