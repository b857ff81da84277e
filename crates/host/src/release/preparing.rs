//! Before the move: everything that may fail without anybody noticing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::oneshot;
use tracing::{info, warn};
use wasmhost_config::{Changes, How, Run, Trigger};
use wasmhost_engine::Engine;
use wasmhost_store::releases::NewRelease;

use super::deploying::{Attempt, Deploying, within};
use super::history::record;
use super::making::run_release_steps;
use super::moving::UNANSWERED;
use super::shelf::put_back;
use super::trial::Trial;
use super::{Opened, Openings, Release, ReleaseType, Wanted};
use crate::admin;
use crate::admin::api::DeployEvent;
use crate::host::Progress;
use crate::ingress::Renewal;
use crate::plan::Plan;
use crate::pool::Version;
use crate::supervisor::{Action, Name};

/// A release that could be made live.
pub(super) struct Prepared {
    pub(super) release: Release,
    /// The types that change in any way, by name.
    pub(super) changed: HashSet<String>,
    /// The engine that it was made for.
    pub(super) engine: Arc<Engine>,
}

impl Deploying {
    /// Makes a release of a plan, and tries it.
    pub(super) async fn prepare(
        &mut self,
        plan: Plan,
        author: String,
        changes: &Changes,
        attempt: &mut Attempt<'_>,
    ) -> Result<Prepared, String> {
        let is_rollback = author != "deploy";
        attempt.waits_for = "its components were being kept".to_owned();
        let (plan, _) = attempt.within(self.keep(plan)).await??;
        let number = self.add(record(&plan, author, !is_rollback), attempt).await?;
        attempt.number = Some(number);
        attempt.tell(DeployEvent::Begun { release: number });
        self.make(number, plan, changes, !is_rollback, attempt).await
    }

    /// Compiles a release, and tries it.
    pub(super) async fn make(
        &self,
        number: u64,
        plan: Plan,
        changes: &Changes,
        with_steps: bool,
        attempt: &mut Attempt<'_>,
    ) -> Result<Prepared, String> {
        let kept = self.kept(&plan, changes);
        attempt.waits_for = "its components were being compiled".to_owned();
        let events = attempt.events.clone();
        let progress = move |now: Progress<'_>| {
            if let Progress::Done { done, of } = now {
                let _ = events.send(DeployEvent::Compiling { done, of });
            }
        };
        let made = attempt.within(self.parts.making.make(number, plan, &kept, &progress)).await?;
        let (next, engine) = made.map_err(|err| err.to_string())?;

        if with_steps {
            self.prepare_data(&next, attempt).await?;
        }
        for kind in next.types.iter().filter(|kind| !kept.contains_key(kind.name()) || self.asks_anew(kind)) {
            self.try_type(kind, attempt).await?;
        }
        let mut changed: HashSet<String> = changes.types.iter().map(|kind| kind.process.clone()).collect();
        if self.release.formation.queues != next.formation.queues {
            changed.extend(next.types.iter().map(|kind| kind.name().to_owned()));
        }
        Ok(Prepared { release: next, changed, engine })
    }

    /// Stores a release, if there is time. One that the store takes later than that has failed.
    async fn add(&self, release: NewRelease, attempt: &mut Attempt<'_>) -> Result<u64, String> {
        attempt.waits_for = "the release was being stored".to_owned();
        let releases = self.parts.releases.clone();
        let mut adding = tokio::spawn(async move { releases.add(release).await });
        let added = match attempt.within(&mut adding).await {
            Ok(added) => added.map_err(|err| err.to_string())?,
            Err(overdue) => {
                attempt.store_is_late = true;
                let (releases, why) = (self.parts.releases.clone(), overdue.clone());
                tokio::spawn(async move {
                    if let Ok(Ok(number)) = adding.await
                        && let Err(err) = releases.fail(number, why).await
                    {
                        warn!("that v{number} failed could not be stored: {err}");
                    }
                });
                return Err(overdue);
            }
        };
        added.map_err(|err| format!("the release could not be stored: {err}"))
    }

    /// Opens the places where a release will serve and have probes answered, if they are others.
    pub(super) async fn open(&self, next: &Release, attempt: &mut Attempt<'_>) -> Result<Openings, String> {
        let http = self.open_http(next, attempt).await?;
        attempt.waits_for = "its listeners were being opened".to_owned();
        let opening = self.parts.front.open_health(&self.parts.health, next.formation.health.as_ref());
        let health = attempt.within(opening).await?.map_err(|err| err.to_string())?;
        let opening = self.parts.front.open_admin(&self.parts.remote, next.formation.admin.as_ref());
        let admin = attempt.within(opening).await?.map_err(|err| err.to_string())?;
        Ok(Openings { http, health: Some(health), admin: Some(admin) })
    }

    async fn open_http(&self, next: &Release, attempt: &mut Attempt<'_>) -> Result<Option<Opened>, String> {
        let is_elsewhere =
            !takes_requests(&self.release) || self.release.formation.http != next.formation.http;
        if !takes_requests(next) || !is_elsewhere {
            return Ok(None);
        }
        attempt.waits_for = "its listeners were being opened".to_owned();
        let opened = attempt.within(self.parts.front.open(&next.formation.http)).await?;
        opened.map(Some).map_err(|err| err.to_string())
    }

    /// Runs the release steps. One that takes too long is named.
    async fn prepare_data(&self, next: &Release, attempt: &mut Attempt<'_>) -> Result<(), String> {
        let (over, events) = (attempt.over(), attempt.events);
        let waits_for = &mut attempt.waits_for;
        let begun = |process: &str| {
            *waits_for = format!("the release step \"{process}\" was running");
            // The one that asked may have gone.
            let _ = events.send(DeployEvent::Step { process: process.to_owned() });
        };
        match within(over, run_release_steps(next, begun)).await {
            Some(ran) => ran.map_err(|err| err.to_string()),
            None => Err(attempt.why_over()),
        }
    }

    /// Whether a type whose instances stay is to be asked by another path whether it is ready.
    fn asks_anew(&self, kind: &ReleaseType) -> bool {
        let ready = |kind: &ReleaseType| kind.planned.process.ready.clone();
        let before = self.release.find(kind.name());
        ready(kind).is_some() && before.is_some_and(|before| ready(before) != ready(kind))
    }

    /// Reads the certificates again that the release goes on with. Those of a `[http]` that has changed are read when it
    /// is opened, and a way back doesn't depend on what somebody does to the files at the time.
    pub(super) async fn read_certificates(
        &self,
        wanted: Wanted,
        plan: &Plan,
    ) -> Result<Option<Renewal>, String> {
        let stays = plan.has_http()
            && takes_requests(&self.release)
            && self.release.formation.http == plan.formation.http;
        match wanted {
            Wanted::File { .. } if stays => {
                self.parts.front.read_certificates().await.map_err(|err| err.to_string())
            }
            _ => Ok(None),
        }
    }

    /// The same for the token and the certificates of the admin API by TCP. Those of an `[admin]` that has changed are looked
    /// at too, so that a dry run says what is wrong with them.
    pub(super) async fn read_admin(
        &self,
        wanted: Wanted,
        plan: &Plan,
    ) -> Result<Option<admin::Renewal>, String> {
        match wanted {
            Wanted::File { .. } => {
                let read = self.parts.remote.read_again(plan.formation.admin.as_ref());
                read.await.map_err(|err| err.to_string())
            }
            _ => Ok(None),
        }
    }

    /// Keeps a plan's components, so that it can be run again. Returns a line for each that was damaged, too.
    pub(super) async fn keep(&self, plan: Plan) -> Result<(Plan, Vec<String>), String> {
        let shelf = self.parts.shelf.clone();
        let keeping = tokio::task::spawn_blocking(move || {
            let mut lines = vec![];
            for planned in &plan.types {
                if shelf.put(&planned.code.digest(), planned.code.contents())? {
                    lines.push(put_back(&planned.process.name));
                }
            }
            lines.iter().for_each(|line| info!("{line}"));
            Ok::<_, std::io::Error>((plan, lines))
        });
        let kept = keeping.await.map_err(std::io::Error::other).and_then(|kept| kept);
        kept.map_err(|err| format!("its components can't be kept in the state directory: {err}"))
    }

    /// The versions of types whose instances stay.
    pub(super) fn kept(&self, plan: &Plan, changes: &Changes) -> HashMap<String, Arc<Version>> {
        let changed: HashSet<&str> = changes
            .types
            .iter()
            .filter(|kind| !matches!(kind.how, How::Settings))
            .map(|kind| kind.process.as_str())
            .collect();
        let planned: HashMap<&str, _> =
            plan.types.iter().map(|planned| (&*planned.process.name, planned)).collect();
        let stays = |kind: &&ReleaseType| {
            let Some(next) = planned.get(kind.name()) else { return false };
            !changed.contains(kind.name()) && next.handler == kind.planned.handler
        };
        let kinds = self.release.types.iter().filter(stays);
        kinds.map(|kind| (kind.name().to_owned(), kind.version.clone())).collect()
    }

    async fn try_type(&self, kind: &ReleaseType, attempt: &mut Attempt<'_>) -> Result<(), String> {
        if matches!(&kind.planned.trigger, Trigger::Command { run } if *run != Run::Always) {
            return Ok(());
        }
        attempt.tell(DeployEvent::Trying { process: kind.name().to_owned() });
        attempt.waits_for = UNANSWERED.to_owned();
        let name = attempt.within(self.free_name(kind.name())).await??;
        let trial = Trial {
            process: kind.name(),
            trigger: &kind.planned.trigger,
            ready: kind.planned.process.ready.as_deref(),
            version: &kind.version,
            limits: kind.limits(),
            index: name.index,
        };
        attempt.waits_for = format!("the first instance of \"{}\" was being tried", kind.name());
        let (over, waits_for) = (attempt.over(), &mut attempt.waits_for);
        match within(over, trial.run(|asked| *waits_for = asked)).await {
            Some(tried) => tried,
            None => Err(attempt.why_over()),
        }
    }

    /// A name that no instance of this type has.
    async fn free_name(&self, process: &str) -> Result<Name, String> {
        let (reply, answer) = oneshot::channel();
        let stopping = "the host is stopping";
        let action = Action::Name { process: process.into(), reply };
        self.parts.actions.send(action).await.map_err(|_| stopping.to_owned())?;
        answer.await.map_err(|_| stopping.to_owned())
    }
}

fn takes_requests(release: &Release) -> bool {
    release.types.iter().any(|kind| matches!(kind.planned.trigger, Trigger::Http { .. }))
}
