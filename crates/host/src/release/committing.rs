//! After the move: whatever calls instances is as the new release says.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};
use wasmhost_config::{Formation, Trigger};

use super::deploying::{Deploying, Done, Places};
use super::moving::retire;
use super::preparing::Prepared;
use super::{Live, Opened, Openings, Release, ReleaseType};
use crate::ingress::{FailureLog, Rounds, ServedAt, Shared, Web};
use crate::pool::Pool;
use crate::services::KnownQueues;

/// How long connections of a closed ingress may bring requests.
const CLOSED_MAX: Duration = Duration::from_secs(2);

impl Deploying {
    /// All instances of a release have moved.
    pub(super) async fn make_live(
        &mut self,
        prepared: Prepared,
        places: Places,
        opened: Openings,
    ) -> Result<Done, String> {
        let number = prepared.release.number;
        if let Err(err) = self.parts.releases.make_live(number).await {
            self.go_back(&places).await;
            return Err(format!("that v{number} is live could not be stored: {err}"));
        }
        self.take_over(prepared, places, opened).await;
        Ok(Done::Live(number))
    }

    /// The store says that a release is live, whose instances have moved. Nothing fails from here on.
    pub(super) async fn take_over(&mut self, prepared: Prepared, places: Places, opened: Openings) {
        let Prepared { release: next, changed, engine } = prepared;
        let number = next.number;
        self.parts.making.engine = engine;
        self.commit(next, places, &changed, opened).await;
        info!("v{number} is live");
    }

    /// Whatever calls instances is as the release says from now on.
    pub(super) async fn commit(
        &mut self,
        next: Release,
        places: Vec<(usize, Arc<Pool>)>,
        changed: &HashSet<String>,
        opened: Openings,
    ) {
        if let Some(opened) = opened.health {
            opened.serve(&self.parts.health);
        }
        if let Some(opened) = opened.admin {
            opened.serve(&self.parts.remote);
        }
        self.parts.queues.know(known_queues(&next));
        let before = std::mem::take(&mut self.webs);
        let stays_open = self.serve(&next, &places, &before, changed, opened.http);
        self.trigger(&next, &places, changed).await;
        let (webs, others): (Places, Places) =
            self.places.iter().cloned().partition(|(place, _)| !stays_open && before.contains_key(place));
        self.retire(&others, &places).await;
        self.retire_closed(webs, next.formation.drain_delay);
        let schedules = next.types.iter().filter(|kind| matches!(kind.planned.trigger, Trigger::Schedule(_)));
        let names: Vec<String> = schedules.map(|kind| kind.name().to_owned()).collect();
        if let Err(err) = self.parts.ticks.keep_only(&names).await {
            warn!("schedules that are gone could not be forgotten: {err}");
        }
        next.formation.unworked_queues().iter().for_each(|unworked| warn!("{unworked}"));
        self.places = places;
        self.release = next;
    }

    /// Requests go where the release says. False where nobody is to send any more.
    fn serve(
        &mut self,
        next: &Release,
        places: &[(usize, Arc<Pool>)],
        before: &HashMap<usize, Arc<Web>>,
        changed: &HashSet<String>,
        opened: Option<Opened>,
    ) -> bool {
        let mut webs = HashMap::new();
        let mut routes = vec![];
        for (kind, (place, pool)) in next.types.iter().zip(places) {
            let Trigger::Http { routes: of_type } = &kind.planned.trigger else { continue };
            let before = before.get(place).filter(|_| !changed.contains(kind.name())).cloned();
            let web = before.unwrap_or_else(|| Arc::new(web(kind, pool, &self.parts.front.rounds)));
            routes.extend(of_type.iter().map(|route| (route.clone(), web.clone())));
            webs.insert(*place, web);
        }
        self.webs = webs;
        let has_routes = !routes.is_empty();
        let Formation { http, drain_delay, grace, .. } = &next.formation;
        let front = &self.parts.front;
        match opened {
            Some(opened) => {
                let served_at = opened.served_at();
                let before = self.parts.live.load();
                served_at.iter().filter(|place| !before.http.contains(place)).for_each(&self.parts.serving);
                front.serve(http, opened, routes, *drain_delay, *grace);
                self.tell_live(next, Some(served_at));
            }
            None if !has_routes => {
                front.close(*drain_delay, *grace);
                self.tell_live(next, Some(vec![]));
            }
            None => {
                front.set_routes(routes);
                self.tell_live(next, None);
            }
        }
        has_routes
    }

    /// Types of an ingress that has closed leave when no more requests can come by it.
    fn retire_closed(&self, webs: Places, drain_delay: Duration) {
        if webs.is_empty() {
            return;
        }
        let (front, actions) = (self.parts.front.clone(), self.parts.actions.clone());
        tokio::spawn(async move {
            if front.closed(drain_delay + CLOSED_MAX).await {
                retire(&actions, &webs).await;
            }
        });
    }

    async fn trigger(&mut self, next: &Release, places: &[(usize, Arc<Pool>)], changed: &HashSet<String>) {
        let stay: HashSet<usize> = places.iter().map(|(place, _)| *place).collect();
        let gone: Vec<usize> =
            self.places.iter().map(|(place, _)| *place).filter(|place| !stay.contains(place)).collect();
        let triggers = &mut self.parts.triggers;
        for place in gone {
            triggers.stop(place).await;
        }
        for (kind, (place, pool)) in next.types.iter().zip(places) {
            if changed.contains(kind.name()) {
                triggers.begin(*place, kind, pool, &next.formation.queues).await;
            }
        }
        self.tell_live(next, None);
    }

    /// `http` is where requests are served, if that has changed.
    fn tell_live(&self, next: &Release, http: Option<Vec<ServedAt>>) {
        let http = http.unwrap_or_else(|| self.parts.live.load().http.clone());
        let (number, formation) = (next.number, next.formation.clone());
        let schedules = self.parts.triggers.schedules();
        let (canary, health) = (self.on_canary(), self.parts.health.served_at());
        let admin = self.parts.remote.served_at();
        self.parts.live.store(Arc::new(Live { number, formation, http, health, admin, canary, schedules }));
    }

    /// Releases that aren't kept any more go, with their components.
    pub(super) async fn forget(&self) {
        let named = match self.parts.releases.forget(self.release.formation.keep_releases).await {
            Ok(named) => named,
            Err(err) => return warn!("old releases could not be forgotten: {err}"),
        };
        if let Some(components) = &self.parts.components
            && let Err(err) = components.keep_only(&named).await
        {
            warn!("components of old releases could not be deleted from the store: {err}");
        }
        let shelf = self.parts.shelf.clone();
        let kept = tokio::task::spawn_blocking(move || shelf.keep_only(&named)).await;
        if let Err(err) = kept.map_err(std::io::Error::other).and_then(|kept| kept) {
            warn!("components of old releases could not be deleted: {err}");
        }
    }
}

pub(super) fn web(kind: &ReleaseType, pool: &Arc<Pool>, rounds: &Arc<Rounds>) -> Web {
    Web {
        pool: pool.clone(),
        limits: kind.limits(),
        wait_max: kind.planned.process.queue_timeout,
        failures: FailureLog::new(kind.name().into()),
        body_bytes_max: kind.planned.process.body_bytes_max,
        version: Shared::Not,
        rounds: rounds.of(kind.name()),
    }
}

/// The queues that a release says something of.
fn known_queues(release: &Release) -> KnownQueues {
    let mut known = KnownQueues { settings: release.formation.queues.clone(), ..KnownQueues::default() };
    for kind in &release.types {
        known.granted.extend(kind.planned.process.grants.enqueue.iter().cloned());
        let Trigger::Queue { queues } = &kind.planned.trigger else { continue };
        for (queue, _) in queues {
            known.workers.entry(queue.clone()).or_default().push(kind.name().to_owned());
        }
    }
    known
}
