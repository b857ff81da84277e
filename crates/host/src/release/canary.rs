//! A canary: a release that gets a share of requests and jobs before it is live.
//!
//! ```text
//! deploy --canary: prepare -> start beside -> share
//!         promote: move -> what is beside leaves -> live
//!           abort: what is beside leaves -> failed
//! ```
//!
//! Types that take requests or jobs and get other instances have both versions until then: the live one stays where it is,
//! and the canary has a place of its own at the supervisor, with its own pool. All else that the release changes waits.
//! The store knows a release on canary as a pending one, so that a host that is killed starts with the live one.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use wasmhost_config::{Changes, How, Trigger};

use super::aborting::ABORTED;
use super::committing::web;
use super::deploying::{Attempt, Deploying, Done, Places};
use super::moving::{UNANSWERED, supervised};
use super::preparing::Prepared;
use super::telling;
use super::{Live, OnCanary, Openings, Release, ReleaseType};
use crate::admin::api::DeployEvent;
use crate::ingress::{Shared, Web};
use crate::plan::{Plan, PlannedType};
use crate::pool::Pool;
use crate::share::{Share, Takes};
use crate::supervisor::{Action, Canary, Refused};

/// A release on canary.
pub(super) struct Standing {
    pub(super) prepared: Prepared,
    share: Share,
    beside: Vec<Beside>,
}

/// A type in both versions.
struct Beside {
    process: String,
    /// The live version's place.
    live: usize,
    /// The canary's, and its pool.
    place: usize,
    pool: Arc<Pool>,
}

impl Standing {
    pub(super) fn number(&self) -> u64 {
        self.prepared.release.number
    }

    fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.beside.iter().map(|beside| &*beside.pool)
    }

    fn places(&self) -> Places {
        self.beside.iter().map(|beside| (beside.place, beside.pool.clone())).collect()
    }
}

impl Deploying {
    // --- deploy --canary

    /// Whether a canary of this would show anything, and has room. An error is for a person.
    pub(super) async fn can_be_shared(
        &self,
        plan: &Plan,
        changes: &Changes,
        share: Share,
        attempt: &mut Attempt<'_>,
    ) -> Result<(), String> {
        let kept = self.kept(plan, changes);
        let changed = plan.types.iter().filter(|planned| !kept.contains_key(&planned.process.name));
        let of: Vec<(usize, Takes)> =
            changed.filter_map(|planned| Some((self.place_of(planned)?, takes(planned)?))).collect();
        if of.is_empty() {
            return Err(
                "no type that takes requests or jobs gets other instances by this, so that there is nothing \
                        of which a canary could have a share: deploy it without --canary"
                    .to_owned(),
            );
        }
        attempt.waits_for = UNANSWERED.to_owned();
        attempt.within(self.ask(|reply| Action::CheckCanary { of, share, reply })).await?
    }

    /// Starts the instances of a release that was prepared, beside those of the live one.
    pub(super) async fn start_beside(
        &self,
        prepared: Prepared,
        share: Share,
        attempt: &mut Attempt<'_>,
    ) -> Result<Standing, String> {
        let shared = self.shared(&prepared.release);
        let canaries = shared.iter().map(|(place, takes, kind)| Canary {
            of: *place,
            supervised: supervised(kind, None),
            takes: *takes,
        });
        let canaries: Vec<Canary> = canaries.collect();
        attempt.waits_for = UNANSWERED.to_owned();
        let underway = attempt.within(self.ask(|reply| Action::Canary { canaries, share, reply })).await??;
        let places = underway.places.clone();
        let beside = shared.iter().zip(&places).map(|((live, _, kind), (place, pool))| Beside {
            process: kind.name().to_owned(),
            live: *live,
            place: *place,
            pool: pool.clone(),
        });
        let beside = beside.collect();
        if let Err(why) = self.watch(underway, attempt).await {
            self.retire(&places, &[]).await;
            return Err(why);
        }
        Ok(Standing { prepared, share, beside })
    }

    /// The types of a release that have both versions while it is on canary, with the live one's place.
    fn shared<'a>(&self, next: &'a Release) -> Vec<(usize, Takes, &'a ReleaseType)> {
        let live: HashMap<&str, &ReleaseType> =
            self.release.types.iter().map(|kind| (kind.name(), kind)).collect();
        let is_other = |kind: &ReleaseType| {
            live.get(kind.name()).is_some_and(|live| !Arc::ptr_eq(&live.version, &kind.version))
        };
        let shared = next
            .types
            .iter()
            .filter(|kind| is_other(kind))
            .filter_map(|kind| Some((self.place_of(&kind.planned)?, takes(&kind.planned)?, kind)));
        shared.collect()
    }

    /// The supervisor's answer.
    async fn ask<T>(
        &self,
        action: impl FnOnce(oneshot::Sender<Result<T, Refused>>) -> Action,
    ) -> Result<T, String> {
        let (reply, answer) = oneshot::channel();
        let stopping = "the host is stopping";
        self.parts.actions.send(action(reply)).await.map_err(|_| stopping.to_owned())?;
        answer.await.map_err(|_| stopping.to_owned())?.map_err(|refused| refused.to_string())
    }

    /// Requests and jobs are shared from now on. Nothing in it can fail.
    pub(super) async fn share(&mut self, standing: Standing, changes: &Changes) -> Done {
        let (number, share) = (standing.number(), standing.share);
        for beside in &standing.beside {
            let versions =
                (self.release.find(&beside.process), standing.prepared.release.find(&beside.process));
            let (Some(live), Some(kind)) = versions else { continue };
            let settings = &self.release.formation.queues;
            self.parts.triggers.begin_beside(beside.place, kind, live, &beside.pool, settings).await;
        }
        let types: Vec<String> = standing.beside.iter().map(|beside| beside.process.clone()).collect();
        self.canary = Some(standing);
        self.route();
        info!(
            "v{number} is on canary: it has {share} of the requests and jobs of {}, until it is promoted or aborted",
            types.join(", ")
        );
        Done::Canary { release: number, share, waits: waiting(changes, &types), types }
    }

    /// Sends requests where they are to go: to the live version or, where a type has a canary, to either. Others see that
    /// there is a canary, or none any more.
    fn route(&self) {
        let mut routes = vec![];
        for (kind, (place, _)) in self.release.types.iter().zip(&self.places) {
            let Trigger::Http { routes: of_type } = &kind.planned.trigger else { continue };
            let Some(live) = self.webs.get(place) else { continue };
            let web = self.shared_web(*place, live).unwrap_or_else(|| live.clone());
            routes.extend(of_type.iter().map(|route| (route.clone(), web.clone())));
        }
        if !routes.is_empty() {
            self.parts.front.set_routes(routes);
        }
        let canary = self.on_canary();
        self.parts.live.store(Arc::new(Live { canary, ..Live::clone(&self.parts.live.load()) }));
    }

    fn shared_web(&self, place: usize, live: &Arc<Web>) -> Option<Arc<Web>> {
        let Standing { prepared, share, beside } = self.canary.as_ref()?;
        let beside = beside.iter().find(|beside| beside.live == place)?;
        let kind = prepared.release.find(&beside.process)?;
        let canary = Web {
            version: Shared::WithLive(live.clone()),
            ..web(kind, &beside.pool, &self.parts.front.rounds)
        };
        Some(Arc::new(Web { version: Shared::WithCanary(Arc::new(canary), *share), ..Web::clone(live) }))
    }

    pub(super) fn on_canary(&self) -> Option<OnCanary> {
        self.canary.as_ref().map(|standing| OnCanary { release: standing.number(), share: standing.share })
    }

    // --- promote

    /// Makes the release on canary live. Where its instances die in the move it ends. Where the move can't begin, or takes
    /// too long, it stays on canary. Where it's aborted it ends.
    pub(super) async fn promote(
        &mut self,
        attempt: &mut Attempt<'_>,
        intake: &CancellationToken,
    ) -> Result<Done, String> {
        let moved = tokio::select! {
            moved = self.move_canary(attempt) => moved,
            () = intake.cancelled() => {
                if attempt.number.is_some() {
                    self.canary = None;
                }
                return Err("the host was told to stop".to_owned());
            }
        };
        let (opened, places) = match moved {
            Ok(moved) => moved,
            Err(why) if attempt.number.is_none() && !attempt.order.is_aborted() => {
                self.canary.iter().flat_map(Standing::pools).for_each(Pool::open_line);
                return Err(format!("{why}; it stays on canary"));
            }
            Err(why) => {
                attempt.number = self.canary.as_ref().map(Standing::number);
                self.end_canary().await;
                return Err(why);
            }
        };
        let Some(standing) = self.canary.take() else { return Err(NONE.to_owned()) };
        // The types' own places have its instances already. Nobody is to wait for the canary's while that is stored.
        self.route();
        self.leave(&standing.places()).await;
        self.make_live(standing.prepared, places, opened).await
    }

    async fn move_canary(&self, attempt: &mut Attempt<'_>) -> Result<(Openings, Places), String> {
        let Some(standing) = &self.canary else { return Err(NONE.to_owned()) };
        let next = &standing.prepared.release;
        attempt.tell(DeployEvent::Begun { release: next.number });
        let opened = self.open(next, attempt).await?;
        let underway = self.begin_move(next, attempt).await?;
        attempt.number = Some(next.number);
        // The types' own places get instances of it now. A request that waits for one of the canary's has one of those
        // ([`Shared::WithLive`]), however long the calls take that the canary has.
        standing.pools().for_each(Pool::close_line);
        let places = underway.places.clone();
        match self.watch(underway, attempt).await {
            Ok(()) => Ok((opened, places)),
            Err(why) => {
                self.go_back(&places).await;
                // Which says nothing against it.
                if attempt.is_late {
                    attempt.number = None;
                }
                Err(why)
            }
        }
    }

    // --- its end

    pub(super) async fn abort(&mut self, attempt: &mut Attempt<'_>) -> Result<Done, String> {
        let Some(OnCanary { release, .. }) = self.on_canary() else { return Err(NONE.to_owned()) };
        self.end_canary().await;
        attempt.number = Some(release);
        let failed = self.parts.releases.fail(release, ABORTED.to_owned()).await;
        failed.map_err(|err| format!("that v{release} was aborted could not be stored: {err}"))?;
        info!("v{release} is aborted, and v{} has all requests and jobs again", self.release.number);
        Ok(Done::Aborted(release))
    }

    /// The host stops: nobody can promote it any more.
    pub(super) async fn fail_canary(&mut self) {
        let Some(standing) = self.canary.take() else { return };
        let (number, share) = (standing.number(), standing.share);
        let why = format!("its host stopped while it was on canary ({share})");
        self.parts.feed.tell(|| telling::failed(Some(number), &why));
        if let Err(err) = self.parts.releases.fail(number, why).await {
            warn!("that v{number} failed could not be stored: {err}");
        }
    }

    /// The live version has all requests and jobs again.
    async fn end_canary(&mut self) {
        let Some(standing) = self.canary.take() else { return };
        self.route();
        self.leave(&standing.places()).await;
    }

    /// Canaries leave. The calls that they have begun are finished; whoever waits for one of their instances, or was sent
    /// to them a moment ago, finds none any more, and has the live version's ([`Shared::WithLive`]).
    async fn leave(&mut self, beside: &Places) {
        let places: Vec<usize> = beside.iter().map(|(place, _)| *place).collect();
        // An error says that the host is stopping, and everything leaves.
        let _ = self.parts.actions.send(Action::Retire { places: places.clone() }).await;
        for place in places {
            self.parts.triggers.stop(place).await;
        }
    }
}

/// The text of the error where there is no release on canary.
const NONE: &str = "no deploy is under way, and no release is on canary: `wasmhost deploy --canary 10%` gives one a share of requests and jobs";

impl OnCanary {
    /// Why a release can't be promoted or aborted, or why another has to wait.
    pub(super) fn refuse(live: &ArcSwap<Live>, wants_canary: bool) -> Result<(), String> {
        match (live.load().canary, wants_canary) {
            (None, true) => Err(NONE.to_owned()),
            (Some(OnCanary { release, share }), false) => Err(format!(
                "v{release} is on canary ({share}): promote it (`wasmhost promote`) or abort it (`wasmhost abort`) first"
            )),
            _ => Ok(()),
        }
    }
}

fn takes(planned: &PlannedType) -> Option<Takes> {
    match planned.trigger {
        Trigger::Http { .. } => Some(Takes::Requests),
        Trigger::Queue { .. } => Some(Takes::Jobs),
        Trigger::Schedule(_) | Trigger::Command { .. } => None,
    }
}

/// Types that change and have no canary, and `formation` for what belongs to no type.
fn waiting(changes: &Changes, shared: &[String]) -> Vec<String> {
    let of_types = changes.types.iter().filter(|kind| {
        // Settings of a type that has a canary wait too, and are in its line.
        !shared.contains(&kind.process) || matches!(kind.how, How::Added | How::Removed)
    });
    let names = of_types.map(|kind| kind.process.clone());
    let of_none = !(changes.http.is_empty() && changes.others.is_empty());
    names.chain(of_none.then(|| "formation".to_owned())).collect()
}
