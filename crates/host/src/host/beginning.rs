//! A start until its first instance: the store, the release that it runs, listeners, components, release steps. Nothing calls
//! anything yet, and the admin API says how far it is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;
use tracing::warn;
use wasmhost_config::{Formation, StoreUrl};
use wasmhost_engine::services::Services;
use wasmhost_engine::{Cache, Engine};

use super::store::{self, Store};
use super::{Progress, StartError};
use crate::admin::Entrance;
use crate::capacity::{Capacity, capacity_warnings};
use crate::feed::Feed;
use crate::health::Health;
use crate::ingress::Sockets;
use crate::logs::Logs;
use crate::measures::Measures;
use crate::members::heart::Membership;
use crate::plan::{Plan, Surroundings};
use crate::pool::Learned;
use crate::release::{
    Begin, Making, NothingToRun, Opened, Release, Shared, Shelf, at_start, engine_options, run_release_steps,
};
use crate::services::{GrantedBy, Queues, Refusals};
use crate::state_dir::Identity;

/// How long the store may take to hear why there is no host, and how long where somebody has asked for the stop. A store that
/// hangs says it to the next start.
const FAILED_MAX: Duration = Duration::from_secs(10);
const FAILED_MAX_IF_STOPPED: Duration = Duration::from_secs(1);

/// The means of a start.
pub(super) struct Means<'a> {
    /// The store and the state directory of the file. A release of before may have named others.
    pub(super) url: StoreUrl,
    pub(super) state_dir: PathBuf,
    pub(super) identity: Identity,
    pub(super) logs: Arc<Logs>,
    pub(super) feed: Arc<Feed>,
    pub(super) cache: Cache,
    pub(super) cache_directory: Option<PathBuf>,
    pub(super) granted_by: GrantedBy,
    pub(super) progress: Box<dyn Fn(Progress) + Send + Sync>,
    pub(super) entrance: &'a Entrance,
    pub(super) health: &'a Health,
    pub(super) measures: Arc<Measures>,
}

/// A start that has come so far.
pub(super) struct Begun {
    pub(super) formation: Formation,
    pub(super) store: Store,
    pub(super) shelf: Arc<Shelf>,
    pub(super) queues: Arc<Queues>,
    /// This boot among the hosts that share the store, where they can.
    pub(super) membership: Option<Membership>,
    /// Keeps its row young until its heart beats.
    pub(super) keeping: Option<AbortOnDropHandle<()>>,
    pub(super) made: Made,
}

/// The release, and what it was made with.
pub(super) struct Made {
    /// The places where requests are served, if any type takes them.
    pub(super) opened: Option<Opened>,
    pub(super) counts: BTreeMap<String, u32>,
    /// The name of this boot in the store.
    pub(super) owner: String,
    pub(super) making: Making,
    pub(super) release: Release,
}

/// Comes as far as the module says, or until somebody asks that the host stops: by the admin API, or as `until` ends.
pub(super) async fn begin(
    plan: Plan,
    means: Means<'_>,
    sockets: &mut Sockets,
    until: impl Future<Output = ()>,
) -> Result<Begun, StartError> {
    // Before all that may take long.
    means.health.open(plan.formation.health.as_ref(), sockets).await?.serve(means.health);
    let remote = means.entrance.remote();
    remote.open(plan.formation.admin.as_ref(), sockets).await?.serve(remote);
    let store = store::open(&means.url).await?;
    let membership = match &store.members {
        Some(members) => {
            means.entrance.tell("joining the other hosts");
            let joined = Membership::join(members.clone(), means.identity.clone()).await;
            Some(joined.map_err(|err| StartError::NotJoined(err.to_string()))?)
        }
        None => None,
    };
    let keeping = membership.as_ref().map(Membership::keep_starting);
    let shelf = Arc::new(Shelf::of(&means.state_dir)?);
    let stop = means.entrance.stop();
    let mut stopped = std::pin::pin!(async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = until => {}
        }
    });
    if let Some(membership) = &membership {
        means.entrance.tell("waiting for another host's start or deploy");
        let begun = tokio::select! {
            begun = membership.begin_start() => begun,
            () = &mut stopped => return Err(StartError::Stopped),
        };
        begun.map_err(|err| StartError::Store { url: means.url.to_string(), err })?;
    }
    let shared =
        membership.as_ref().map(|membership| Shared { membership, components: store.components.as_ref() });
    let surroundings = Surroundings { cache: means.cache_directory.as_deref(), granted_by: means.granted_by };
    let at_start = tokio::select! {
        at_start = at_start(&*store.releases, &shelf, plan, &surroundings, shared) => at_start,
        () = &mut stopped => return Err(StartError::Stopped),
    };
    if at_start.is_err() {
        leave(membership.as_ref()).await;
    }
    let (plan, begin) = at_start.map_err(|why| match why {
        NothingToRun::Store(err) => StartError::Store { url: means.url.to_string(), err },
        NothingToRun::Lost(why) => StartError::Lost(why),
    })?;
    let formation = plan.formation.clone();
    let queues = Arc::new(Queues::new(store.jobs.clone(), means.measures.clone(), means.feed.clone()));
    let made = tokio::select! {
        made = make(plan, begin, means, &store, &queues, membership.as_ref(), sockets) => made,
        () = &mut stopped => Err(StartError::Stopped),
    };
    if let Some(membership) = &membership
        && let Err(err) = membership.end_deploy().await
    {
        warn!("the other hosts could not be told that this one has begun: {err}");
    }
    match made {
        Ok(made) => Ok(Begun { formation, store, shelf, queues, membership, keeping, made }),
        Err(err) => {
            let is_stopped = matches!(err, StartError::Stopped);
            let told = store::release_failed(&store, begin, &err);
            let told =
                tokio::time::timeout(if is_stopped { FAILED_MAX_IF_STOPPED } else { FAILED_MAX }, told);
            tokio::select! {
                _ = told => {}
                () = &mut stopped, if !is_stopped => {}
            }
            leave(membership.as_ref()).await;
            Err(err)
        }
    }
}

/// There will be no host: the others need not wait until its row is old.
async fn leave(membership: Option<&Membership>) {
    if let Some(membership) = membership {
        membership.leave().await;
    }
}

async fn make(
    plan: Plan,
    begin: Begin,
    means: Means<'_>,
    store: &Store,
    queues: &Arc<Queues>,
    membership: Option<&Membership>,
    sockets: &mut Sockets,
) -> Result<Made, StartError> {
    let Means {
        url,
        state_dir,
        identity,
        logs,
        feed,
        cache,
        granted_by,
        progress,
        entrance,
        health,
        measures,
        ..
    } = means;
    let failed = |err| StartError::Store { url: url.to_string(), err };
    // Early, so that a port in use is an answer of milliseconds, and clients wait instead of being refused.
    entrance.tell("opening its listeners");
    // The release that runs may be another than that of the file.
    health.open(plan.formation.health.as_ref(), sockets).await?.serve(health);
    entrance.remote().open(plan.formation.admin.as_ref(), sockets).await?.serve(entrance.remote());
    let opened = match plan.has_http() {
        true => Some(Opened::open(&plan.formation.http, sockets).await?),
        false => None,
    };
    let counts = store.counts.load().await.map_err(failed)?;
    let owner = store::take_ownership(&url, store, &identity).await?;
    let here = membership.map_or_else(|| counts.clone(), |membership| membership.part_of(&plan, &counts));
    let capacity = Capacity::find(&plan, &here)?;
    capacity_warnings(&plan, &here).iter().for_each(|warning| warn!("{warning}"));
    let engine = Engine::new(engine_options(plan.types.iter(), &capacity), cache)?;
    let learned = Learned::open(&state_dir);
    let refusals = Arc::new(Refusals::new(granted_by, measures, feed));
    let services = Services { logs, enqueue: queues.clone(), refusals };
    let making = Making { engine, capacity, services, learned };
    let told = |now: Progress<'_>| {
        if let Progress::Done { done, of } = now {
            entrance.tell(format!("compiling components: {done} of {of}"));
        }
        progress(now);
    };
    let (release, _) = making.make(begin.number, plan, &Default::default(), &told).await?;
    if !begin.is_without_steps {
        let begun = |step: &str| entrance.tell(format!("running the release step \"{step}\""));
        run_release_steps(&release, begun).await?;
    }
    store.releases.make_live(begin.number).await.map_err(failed)?;
    entrance.begin();
    Ok(Made { opened, counts, owner, making, release })
}
