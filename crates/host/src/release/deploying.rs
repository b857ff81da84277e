//! Deploys, one at a time: see [the module above](super).

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use wasmhost_config::{Changes, How, TypeChange};
use wasmhost_store::releases::{self, ReleaseState};
use wasmhost_store::{Components, Counts, Releases, StoreError, Ticks};

use super::aborting::{ABORTED, Abortable};
use super::canary::Standing;
use super::everywhere::fetch_components;
use super::history::plan_of;
use super::preparing::Prepared;
use super::telling;
use super::traced::DeploySpan;
use super::{Front, Live, Making, Opened, Openings, Order, Release, ReleaseType, Shelf, Triggers, Wanted};
use crate::admin::api::{DeployEvent, ReleaseChange};
use crate::admin::{self, Remote};
use crate::feed::Feed;
use crate::health::Health;
use crate::ingress::{Renewal, ServedAt, Web};
use crate::measures::Measures;
use crate::members::heart::Membership;
use crate::plan::{Plan, Surroundings};
use crate::pool::Pool;
use crate::services::{GrantedBy, Queues};
use crate::share::Share;
use crate::supervisor::Action;

/// The parts of a host that releases act on. They outlive each of them.
pub(crate) struct Parts {
    pub(crate) making: Making,
    pub(crate) releases: Arc<dyn Releases>,
    pub(crate) ticks: Arc<dyn Ticks>,
    pub(crate) counts: Arc<dyn Counts>,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) actions: mpsc::Sender<Action>,
    pub(crate) front: Arc<Front>,
    pub(crate) triggers: Triggers,
    pub(crate) queues: Arc<Queues>,
    pub(crate) measures: Arc<Measures>,
    pub(crate) health: Arc<Health>,
    /// The admin API by TCP.
    pub(crate) remote: Arc<Remote>,
    /// The formation's file. That of the live release may be the other one of a Procfile and a formation.toml.
    pub(crate) file: PathBuf,
    pub(crate) live: Arc<ArcSwap<Live>>,
    /// Is told each new place where requests are served.
    pub(crate) serving: Box<dyn Fn(&ServedAt) + Send + Sync>,
    /// The directory of compiled components, if they are kept.
    pub(crate) cache: Option<PathBuf>,
    pub(crate) granted_by: GrantedBy,
    pub(crate) feed: Arc<Feed>,
    /// The hosts that share the store, where they can, and what they hand on.
    pub(crate) membership: Option<Membership>,
    pub(crate) components: Option<Arc<dyn Components>>,
}

/// Carries deploys out.
pub(crate) struct Deploying {
    pub(super) parts: Parts,
    /// The live one.
    pub(super) release: Release,
    /// The supervisor's place and the pool of each of its types.
    pub(super) places: Places,
    /// The `Web` that requests of each http type find, by its place. Where it has a canary they find both.
    pub(super) webs: HashMap<usize, Arc<Web>>,
    /// The release on canary.
    pub(super) canary: Option<Standing>,
}

/// The supervisor's place and the pool of each type of a release.
pub(super) type Places = Vec<(usize, Arc<Pool>)>;

/// The longest that a deploy may take.
pub(crate) const TIMEOUT_MAX: Duration = Duration::from_hours(7 * 24);

/// A release on its way.
pub(super) struct Attempt<'a> {
    deadline: Instant,
    timeout: Duration,
    pub(super) order: Abortable,
    pub(super) events: &'a mpsc::UnboundedSender<DeployEvent>,
    /// Is told of releases that change. A dry run changes none.
    feed: Option<Arc<Feed>>,
    /// Once it has one.
    pub(super) number: Option<u64>,
    /// The deploy's present wait, for the one who reads that its time is over: how things were then.
    pub(super) waits_for: String,
    /// Its time was over before all instances had moved.
    pub(super) is_late: bool,
    /// Its time was over before the store had answered.
    pub(super) store_is_late: bool,
    /// Its span, if it is recorded. A dry run has none.
    span: DeploySpan,
}

/// How a deploy went that didn't fail.
pub(super) enum Done {
    Live(u64),
    Unchanged,
    Canary {
        release: u64,
        share: Share,
        /// The types that have both versions.
        types: Vec<String>,
        /// The changes that wait until it is promoted.
        waits: Vec<String>,
    },
    Aborted(u64),
}

/// A change to be made.
struct Change {
    plan: Plan,
    author: String,
    changes: Changes,
}

impl Attempt<'_> {
    pub(super) fn tell(&self, event: DeployEvent) {
        if let Some(feed) = &self.feed {
            feed.tell_each(|| telling::of_step(&event));
        }
        self.span.step(&event);
        // The one that asked may have gone.
        let _ = self.events.send(event);
    }

    /// Waits for a step as long as there is time, and nobody aborts it.
    pub(super) async fn within<T>(&self, step: impl Future<Output = T>) -> Result<T, String> {
        within(self.over(), step).await.ok_or_else(|| self.why_over())
    }

    /// Returns once there is no more time, or somebody has aborted it.
    pub(super) fn over(&self) -> impl Future<Output = ()> + Send + use<> {
        let (deadline, aborted) = (self.deadline, self.order.aborted());
        async move {
            tokio::select! {
                () = aborted => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }

    /// For a person.
    pub(super) fn why_over(&self) -> String {
        if self.order.is_aborted() {
            return ABORTED.to_owned();
        }
        format!("it wasn't done within {:?}: {}", self.timeout, self.waits_for)
    }
}

/// Waits for a step until this is over.
pub(super) async fn within<T>(over: impl Future<Output = ()>, step: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        // A step that is done is done.
        biased;
        done = step => Some(done),
        () = over => None,
    }
}

impl Deploying {
    /// Makes a host's first release live. Its instances start.
    pub(crate) async fn begin(
        parts: Parts,
        release: Release,
        opened: Option<Opened>,
        counts: &BTreeMap<String, u32>,
    ) -> Result<Deploying, String> {
        let empty = Release { number: 0, formation: release.formation.clone(), types: vec![] };
        // Before the first instance is started: whoever waits for the address need not wait for all of them.
        let http = opened.as_ref().map(Opened::served_at).unwrap_or_default();
        http.iter().for_each(&parts.serving);
        parts.live.store(Arc::new(Live { http, ..Live::none(&release.formation) }));
        let mut deploying =
            Deploying { parts, release: empty, places: vec![], webs: HashMap::new(), canary: None };
        let underway = deploying.adopt(&release, counts, false).await?;
        let changed = release.types.iter().map(|kind| kind.name().to_owned()).collect();
        let openings = Openings { http: opened, health: None, admin: None };
        deploying.commit(release, underway.places, &changed, openings).await;
        Ok(deploying)
    }

    /// Runs until the host drains.
    pub(crate) async fn run(mut self, mut orders: mpsc::Receiver<Order>, intake: CancellationToken) {
        loop {
            let order = tokio::select! {
                order = orders.recv() => order,
                () = intake.cancelled() => None,
            };
            let Some(order) = order else { break };
            self.carry_out(order, &intake).await;
        }
        intake.cancelled().await;
        self.fail_canary().await;
    }

    async fn carry_out(&mut self, order: Order, intake: &CancellationToken) {
        let Order { wanted, timeout, events, turn, abortable } = order;
        let begun = Instant::now();
        let deadline = begun.checked_add(timeout).unwrap_or(begun + TIMEOUT_MAX);
        let waits_for = "the formation was being read".to_owned();
        let mut attempt = Attempt {
            deadline,
            timeout,
            order: abortable.clone(),
            events: &events,
            feed: (!wanted.is_dry_run()).then(|| self.parts.feed.clone()),
            number: None,
            waits_for,
            is_late: false,
            store_is_late: false,
            span: DeploySpan::begin(&self.parts.measures, wanted),
        };
        let before = self.release.number;
        let ended = self.attempt(wanted, &mut attempt, intake).await;
        let (live, number) = (self.release.number, attempt.number);
        if live != before {
            self.parts.feed.tell(|| telling::changed(before, ReleaseChange::Replaced));
        }
        let end = match ended {
            Ok(Done::Live(release)) => DeployEvent::Live { release },
            Ok(Done::Unchanged) => DeployEvent::Unchanged { release: live },
            Ok(Done::Canary { release, share, types, waits }) => {
                DeployEvent::Canary { release, percent: share.percent(), types, waits }
            }
            Ok(Done::Aborted(release)) => DeployEvent::Aborted { release, live },
            Err(why) => {
                warn!("{} failed, and v{live} is live as before: {why}", name(number));
                if let Some(number) = number
                    && let Err(err) = self.parts.releases.fail(number, why.clone()).await
                {
                    warn!("that v{number} failed could not be stored: {err}");
                }
                DeployEvent::Failed { release: number, live, why }
            }
        };
        // The next one does it where nobody is to wait for the store any longer.
        if !attempt.store_is_late {
            self.forget().await;
        }
        self.end_everywhere().await;
        if !wanted.is_dry_run() {
            self.parts.measures.deployed(&end);
        }
        // A client that hears of the end may give the next order at once.
        drop(turn);
        abortable.end(&end);
        attempt.tell(end);
    }

    async fn attempt(
        &mut self,
        wanted: Wanted,
        attempt: &mut Attempt<'_>,
        intake: &CancellationToken,
    ) -> Result<Done, String> {
        match wanted {
            Wanted::Promote => return self.promote(attempt, intake).await,
            Wanted::Abort => return self.abort(attempt).await,
            Wanted::File { .. } | Wanted::Release(_) | Wanted::Prepare(_) | Wanted::Follow(_) => {}
        }
        let stopped = || Err("the host was told to stop".to_owned());
        if let Wanted::Prepare(number) | Wanted::Follow(number) = wanted {
            return tokio::select! {
                followed = self.follow(wanted, number, attempt) => followed,
                () = intake.cancelled() => stopped(),
            };
        }
        let change = tokio::select! {
            change = self.compare(wanted, attempt) => change?,
            () = intake.cancelled() => return stopped(),
        };
        let Some(change) = change else { return Ok(Done::Unchanged) };
        if let Wanted::File { canary: Some(share), .. } = wanted {
            let changes = change.changes.clone();
            let standing = tokio::select! {
                standing = self.stand_beside(change, share, attempt) => standing?,
                () = intake.cancelled() => return stopped(),
            };
            return Ok(self.share(standing, &changes).await);
        }
        let (prepared, places, opened) = tokio::select! {
            moved = self.move_to(change, attempt) => moved?,
            () = intake.cancelled() => return stopped(),
        };
        self.make_live(prepared, places, opened).await
    }

    /// Reads what is wanted, and says what that changes. Nothing is returned where there is nothing to do.
    async fn compare(&self, wanted: Wanted, attempt: &mut Attempt<'_>) -> Result<Option<Change>, String> {
        let (plan, author) = attempt.within(self.read(wanted)).await??;
        let changes = self.changes(&plan);
        attempt.waits_for = "the certificates were being read".to_owned();
        let renewal = attempt.within(self.read_certificates(wanted, &plan)).await??;
        let renewed = renewal.iter().flat_map(Renewal::changed);
        let renewed = renewed.map(|file| format!("http.tls.cert {} has changed", file.display()));
        attempt.waits_for = "the token of the admin API was being read".to_owned();
        let admin = attempt.within(self.read_admin(wanted, &plan)).await??;
        let renewed = renewed.chain(admin.iter().flat_map(admin::Renewal::changes));
        attempt.waits_for = "the counts were being read".to_owned();
        let counts = attempt.within(self.parts.counts.load()).await?;
        let counts = counts.map_err(|err| format!("the counts can't be read: {err}"))?;
        let lines = change_lines(&changes).into_iter().chain(count_lines(&plan, &changes, &counts));
        let lines: Vec<String> = lines.chain(renewed).collect();
        let is_dry = wanted.is_dry_run();
        let (plan, damaged) = match changes.is_empty() && !is_dry {
            true => self.mend(plan, attempt).await?,
            false => (plan, vec![]),
        };
        attempt.tell(DeployEvent::Changes { lines: lines.into_iter().chain(damaged).collect() });
        if !changes.refused.is_empty() {
            return Err(format!(
                "this can't change while the host runs: {}. Stop the host, and start it again",
                changes.refused.join("; ")
            ));
        }
        // Before a release step is run for nothing.
        let here = self.part_of(&plan, &counts);
        self.parts.making.capacity.check_plan(&plan, &here).map_err(|too_many| too_many.to_string())?;
        if let Wanted::File { canary: Some(share), .. } = wanted
            && !changes.is_empty()
        {
            if self.parts.membership.is_some() {
                return Err(
                    "there is no canary where hosts share a formation: deploy without --canary".to_owned()
                );
            }
            self.can_be_shared(&plan, &changes, share, attempt).await?;
        }
        if let Some(renewal) = renewal.filter(|_| !is_dry) {
            renewal.take_effect();
        }
        if let Some(renewal) = admin.filter(|_| !is_dry) {
            renewal.take_effect();
        }
        Ok((!is_dry && !changes.is_empty()).then_some(Change { plan, author, changes }))
    }

    /// Puts damaged components of the live release back, where a deploy has nothing else to do.
    async fn mend(&self, plan: Plan, attempt: &mut Attempt<'_>) -> Result<(Plan, Vec<String>), String> {
        attempt.waits_for = "its components were being kept".to_owned();
        attempt.within(self.keep(plan)).await?
    }

    async fn stand_beside(
        &mut self,
        change: Change,
        share: Share,
        attempt: &mut Attempt<'_>,
    ) -> Result<Standing, String> {
        let Change { plan, author, changes } = change;
        let prepared = self.prepare(plan, author, &changes, attempt).await?;
        self.start_beside(prepared, share, attempt).await
    }

    /// Moves the instances, and comes back where that fails.
    async fn move_to(
        &mut self,
        change: Change,
        attempt: &mut Attempt<'_>,
    ) -> Result<(Prepared, Places, Openings), String> {
        let Change { plan, author, changes } = change;
        let prepared = self.prepare(plan, author, &changes, attempt).await?;
        self.prepare_everywhere(&prepared.release, attempt).await?;
        self.move_prepared(prepared, attempt).await
    }

    pub(super) async fn move_prepared(
        &self,
        prepared: Prepared,
        attempt: &mut Attempt<'_>,
    ) -> Result<(Prepared, Places, Openings), String> {
        let opened = self.open(&prepared.release, attempt).await?;
        let underway = self.begin_move(&prepared.release, attempt).await?;
        let places = underway.places.clone();
        if let Err(why) = self.watch(underway, attempt).await {
            self.go_back(&places).await;
            return Err(why);
        }
        Ok((prepared, places, opened))
    }

    // --- what is asked for

    /// The plan that is to become live, and who says so.
    pub(super) async fn read(&self, wanted: Wanted) -> Result<(Plan, String), String> {
        let file = self.parts.file.clone();
        let record = match wanted {
            Wanted::Release(number) => Some(self.find(number).await?),
            Wanted::Prepare(number) | Wanted::Follow(number) => Some(self.made_elsewhere(number).await?),
            Wanted::File { .. } | Wanted::Promote | Wanted::Abort => None,
        };
        if let Some(record) = &record {
            fetch_components(record, self.parts.components.as_ref(), &self.parts.shelf).await?;
        }
        let author =
            record.as_ref().map_or("deploy".to_owned(), |record| format!("rollback to v{}", record.number));
        let (cache, granted_by) = (self.parts.cache.clone(), self.parts.granted_by);
        let shelf = self.parts.shelf.clone();
        if self.release.formation.source.text.is_empty() {
            return Err("this host runs an app by its flags, and has no formation to read again".to_owned());
        }
        let read = tokio::task::spawn_blocking(move || {
            let surroundings = Surroundings { cache: cache.as_deref(), granted_by };
            match record {
                Some(record) => plan_of(&record, &shelf, &file, &surroundings)
                    .map_err(|why| format!("v{} can't be run again: {why}", record.number)),
                None => {
                    let formation = wasmhost_config::load(&file).map_err(|err| err.to_string())?;
                    Plan::new(formation, &surroundings).map_err(|err| err.to_string())
                }
            }
        });
        let plan = read.await.map_err(|err| err.to_string())??;
        Ok((plan, author))
    }

    /// The release that a rollback goes to.
    async fn find(&self, number: Option<u64>) -> Result<releases::Release, String> {
        let releases = &self.parts.releases;
        let failed = |err: StoreError| err.to_string();
        let Some(number) = number else {
            let last = releases.last_replaced().await.map_err(failed)?;
            return last.ok_or_else(|| "no release that was live before this one is kept".to_owned());
        };
        if number == self.release.number {
            return Err(format!("v{number} is live already"));
        }
        let record = releases.release(number).await.map_err(failed)?.ok_or_else(|| {
            format!(
                "there is no v{number}, or it isn't kept any more: `wasmhost releases` lists those that are"
            )
        })?;
        match record.state {
            ReleaseState::Replaced => Ok(record),
            state => {
                Err(format!("v{number} was never live (it is {state}), so that there is no way back to it"))
            }
        }
    }

    pub(super) fn changes(&self, plan: &Plan) -> Changes {
        let now: HashMap<&str, &ReleaseType> =
            self.release.types.iter().map(|kind| (kind.name(), kind)).collect();
        let next: HashMap<&str, String> =
            plan.types.iter().map(|planned| (&*planned.process.name, planned.code.digest())).collect();
        let has_changed = |process: &str| match (now.get(process), next.get(process)) {
            (Some(now), Some(next)) => now.digest != *next,
            _ => false,
        };
        Changes::between(&self.release.formation, &plan.formation, &has_changed)
    }
}

fn name(number: Option<u64>) -> String {
    number.map_or("the deploy".to_owned(), |number| format!("v{number}"))
}

/// The changes, a line each, for a person.
pub(crate) fn change_lines(changes: &Changes) -> Vec<String> {
    let of_types = changes.types.iter().flat_map(|kind| {
        let what = match kind.how {
            How::Added => vec!["added".to_owned()],
            How::Removed => vec!["removed".to_owned()],
            How::Instances | How::Settings => kind.what.clone(),
        };
        what.into_iter().map(|what| format!("{}: {what}", kind.process))
    });
    of_types.chain(changes.http.iter().cloned()).chain(changes.others.iter().cloned()).collect()
}

/// A line for each type that the file has changed whose count isn't the file's, but one that was set live.
fn count_lines(plan: &Plan, changes: &Changes, counts: &BTreeMap<String, u32>) -> Vec<String> {
    let line = |kind: &TypeChange| {
        let name = &kind.process;
        let planned = plan.types.iter().find(|planned| planned.process.name == *name)?;
        let (live, of_file) = (*counts.get(name)?, planned.count());
        (live != of_file).then(|| {
            format!("{name}: its count is {live}, which `scale` has set, and not {of_file}; `wasmhost scale --reset {name}` takes the file's")
        })
    };
    changes.types.iter().filter_map(line).collect()
}
