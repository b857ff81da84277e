//! The move: the supervisor is given a release's types, replaces instances in batches, and says how it went.

use std::collections::{BTreeMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tracing::warn;
use wasmhost_config::{Run, Trigger};

use super::deploying::{Attempt, Deploying, Places};
use super::{Release, ReleaseType};
use crate::admin::api::DeployEvent;
use crate::plan::PlannedType;
use crate::pool::Pool;
use crate::supervisor::{Action, Adopted, Supervised, Underway};

/// A deploy's wait for the supervisor, for a person.
pub(super) const UNANSWERED: &str = "the supervisor had not answered";

/// How long the instances of the release before may take to come back.
const BACK_MAX: Duration = Duration::from_secs(60);

/// How long the supervisor may take until they begin to.
const ADOPTED_MAX: Duration = Duration::from_secs(5);

/// How long a request is on its way from its route to the line of its type, and how long it may be in that line.
const ROUTED_MAX: Duration = Duration::from_millis(100);
const CALLED_MAX: Duration = Duration::from_secs(5);

impl Deploying {
    /// Begins to move the instances to a release, if there is time.
    pub(super) async fn begin_move(
        &self,
        next: &Release,
        attempt: &mut Attempt<'_>,
    ) -> Result<Underway, String> {
        attempt.waits_for = "the counts were being read".to_owned();
        // Those that were set live are for types that come back.
        let counts = attempt.within(self.parts.counts.load()).await?;
        let counts = counts.map_err(|err| format!("the counts can't be read: {err}"))?;
        attempt.waits_for = UNANSWERED.to_owned();
        match attempt.within(self.adopt(next, &counts, false)).await {
            Ok(underway) => underway,
            Err(why) => {
                self.go_back(&[]).await;
                Err(why)
            }
        }
    }

    /// Makes a release's types those of the supervisor.
    pub(super) async fn adopt(
        &self,
        next: &Release,
        counts: &BTreeMap<String, u32>,
        is_way_back: bool,
    ) -> Result<Underway, String> {
        let types = next.types.iter().map(|kind| Adopted {
            place: self.place_of(&kind.planned),
            supervised: supervised(kind, counts.get(kind.name()).copied()),
        });
        let (reply, answer) = oneshot::channel();
        let grace = next.formation.grace;
        let action = Action::Adopt { types: types.collect(), grace, is_way_back, reply };
        let stopping = "the host is stopping";
        self.parts.actions.send(action).await.map_err(|_| stopping.to_owned())?;
        answer.await.map_err(|_| stopping.to_owned())?.map_err(|refused| refused.to_string())
    }

    /// The place of the type that this one replaces. One that is called by other means is another type.
    pub(super) fn place_of(&self, next: &PlannedType) -> Option<usize> {
        let mut types = self.release.types.iter().zip(&self.places);
        let (before, (place, _)) = types.find(|(before, _)| before.name() == next.process.name)?;
        let now = &before.planned;
        let is_called_alike = std::mem::discriminant(&now.trigger) == std::mem::discriminant(&next.trigger)
            && now.runs_always() == next.runs_always();
        is_called_alike.then_some(*place)
    }

    /// Waits until every instance is of the new release.
    pub(super) async fn watch(&self, underway: Underway, attempt: &mut Attempt<'_>) -> Result<(), String> {
        let Underway { mut progress, mut ended, .. } = underway;
        let mut seen = (0, 0);
        let mut over = pin!(attempt.over());
        loop {
            tokio::select! {
                // Steps first: a move that is over at once has told one.
                biased;
                Ok(()) = progress.changed() => {
                    seen = *progress.borrow_and_update();
                    let (done, of) = seen;
                    attempt.tell(DeployEvent::Moving { done, of });
                }
                ended = &mut ended => return ended.unwrap_or_else(|_| Err("the host is stopping".to_owned())),
                () = &mut over => {
                    attempt.waits_for = format!("{} of {} instances had moved", seen.0, seen.1);
                    attempt.is_late = true;
                    return Err(attempt.why_over());
                }
            }
        }
    }

    /// The release that is live gets its instances back.
    pub(super) async fn go_back(&self, tried: &[(usize, Arc<Pool>)]) {
        let number = self.release.number;
        let counts = BTreeMap::new();
        let underway = match timeout(ADOPTED_MAX, self.adopt(&self.release, &counts, true)).await {
            Ok(Ok(underway)) => underway,
            Ok(Err(why)) => return warn!("v{number} could not come back: {why}"),
            Err(_) => return warn!("v{number} could not come back: the supervisor doesn't answer"),
        };
        self.retire(tried, &self.places).await;
        match timeout(BACK_MAX, underway.ended).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(why))) => warn!("v{number} has trouble coming back: {why}"),
            Ok(Err(_)) | Err(_) => warn!("v{number} hasn't got all its instances back yet"),
        }
    }

    /// Types of the former that the latter doesn't have leave.
    pub(super) async fn retire(&self, former: &[(usize, Arc<Pool>)], latter: &[(usize, Arc<Pool>)]) {
        let stay: HashSet<usize> = latter.iter().map(|(place, _)| *place).collect();
        let gone: Places = former.iter().filter(|(place, _)| !stay.contains(place)).cloned().collect();
        if !gone.is_empty() {
            retire(&self.parts.actions, &gone).await;
        }
    }
}

/// These types leave, when nobody waits for them any more.
pub(super) async fn retire(actions: &mpsc::Sender<Action>, gone: &[(usize, Arc<Pool>)]) {
    idle(gone.iter().map(|(_, pool)| &**pool)).await;
    let places = gone.iter().map(|(place, _)| *place).collect();
    // An error says that the host is stopping, and everything leaves.
    let _ = actions.send(Action::Retire { places }).await;
}

/// Waits until nobody waits for instances of these pools, that were called until now: a request that was routed a moment
/// ago still finds its type.
async fn idle(pools: impl Iterator<Item = &Pool>) {
    let until = Instant::now() + CALLED_MAX;
    tokio::time::sleep(ROUTED_MAX).await;
    for pool in pools {
        while pool.waiting() > 0 && Instant::now() < until {
            tokio::time::sleep(ROUTED_MAX).await;
        }
    }
}

pub(super) fn supervised(kind: &ReleaseType, live: Option<u32>) -> Supervised {
    let (trigger, scalable) = match kind.planned.trigger {
        Trigger::Http { .. } => ("http", true),
        Trigger::Queue { .. } => ("queue", true),
        Trigger::Schedule(_) => ("schedule", true),
        Trigger::Command { run: Run::Always } => ("command", true),
        Trigger::Command { run: Run::Release } => ("release", false),
        Trigger::Command { run: Run::Never } => ("manual", false),
    };
    Supervised {
        name: kind.name().into(),
        trigger,
        version: kind.version.clone(),
        count_in_file: kind.planned.count(),
        live: live.filter(|_| scalable),
        backlog: kind.planned.backlog(),
        runs_always: kind.planned.runs_always(),
        max_age: kind.planned.process.max_age,
        scalable,
        limits: kind.limits(),
        weight: kind.planned.process.weight,
    }
}
