//! The heartbeat of a host that shares its store: the one task that tells the other hosts how this one stands, and hears
//! of them. All that it hears goes to the supervisor: which slots are this host's, and which counts a person has set
//! elsewhere.
//!
//! It beats every two seconds, and sooner where its instances have changed, so that a person who scales by another host
//! isn't kept waiting. A store that doesn't answer changes nothing: hosts, counts and split stay as they were.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};
use wasmhost_config::shown::cut;
use wasmhost_store::members::{Answer, Beat, DeployUnderway, Heard, MEMBER_FOR, Member, MemberState, Shown};
use wasmhost_store::{Complaint, Members, StoreError, Ticks};

use super::clock::StoreClock;
use super::contact::{Contact, Seen, Standing};
use super::said::{Said, SaidPrepared, shown};
use super::split::Ring;
use crate::admin::api::TypeView;
use crate::plan::Plan;
use crate::state_dir::Identity;
use crate::supervisor::Action;

/// How often a host beats.
const BEAT_EVERY: Duration = Duration::from_secs(2);

/// How often it looks whether there is something new to tell.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How often the text for people is written where nothing has changed that others act on.
const SHOWN_EVERY: Duration = Duration::from_secs(6);

/// How long the store may take for a heartbeat.
const ANSWERED_MAX: Duration = Duration::from_secs(5);

/// How much of why a host can't run a release it says to the others.
const WHY_BYTES_MAX: usize = 1 << 10;

/// How long the row of a host is kept that has gone without a word.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(24);

/// How often old rows are looked for.
const FORGET_EVERY: Duration = Duration::from_hours(1);

/// How often a boot that finds its row taken looks again. The other one beats in between, if it lives.
const TAKEN_AGAIN: Duration = Duration::from_secs(1);

/// This boot among the hosts that share the store.
#[derive(Clone)]
pub(crate) struct Membership {
    members: Arc<dyn Members>,
    identity: Identity,
    boot: String,
    /// The rows as they were heard last, by the hosts' ids.
    known: watch::Sender<Arc<Known>>,
    clock: Arc<StoreClock>,
    /// The answer to the deploy of another host.
    prepared: Arc<Mutex<Option<SaidPrepared>>>,
    /// Whether a deploy of this host is under way here, whatever the store says of it.
    deploys: Arc<tokio::sync::Mutex<bool>>,
}

/// The state of the hosts.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) members: Vec<Member>,
    /// The live release.
    pub(crate) live: Option<u64>,
    /// The deploy that is under way.
    pub(crate) deploy: Option<DeployUnderway>,
    /// Those among whom slots are split, in order.
    hosts: Vec<Arc<str>>,
}

impl Known {
    /// The rows of the hosts among whom slots are split.
    pub(crate) fn taking_part(&self) -> impl Iterator<Item = &Member> {
        let is_in = |member: &&Member| self.hosts.binary_search_by(|host| (**host).cmp(&member.host)).is_ok();
        self.members.iter().filter(is_in)
    }
}

/// Why a host can't join.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotJoined {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "another host with this one's id ({host}) uses the store: \"{name}\" answered {age_s} s ago; is this a copy of its machine? Remove host_id from the state directory, so that this one gets an id of its own"
    )]
    Taken { host: String, name: String, age_s: u64 },
}

impl Membership {
    /// Takes the host's row in the store.
    ///
    /// # Errors
    ///
    /// [`NotJoined::Taken`] where another boot with the same id lives.
    pub(crate) async fn join(members: Arc<dyn Members>, identity: Identity) -> Result<Membership, NotJoined> {
        let boot = format!("{}-{:016x}", std::process::id(), fastrand::u64(..));
        let (known, clock, prepared, deploys) = Default::default();
        let membership = Membership { members, identity, boot, known, clock, prepared, deploys };
        let mut age = None;
        loop {
            let first = membership.beat(MemberState::Starting, true, Said::default().to_text(), None);
            let asked_at = Instant::now();
            match membership.members.beat(first).await? {
                Answer::Heard(heard) => {
                    membership.clock.hear(heard.now, asked_at.elapsed());
                    membership.know(heard, &Contact::default());
                    return Ok(membership);
                }
                // The other one's row grows old, or it was written anew.
                Answer::Taken(other) if age.is_none_or(|age| other.age > age) => age = Some(other.age),
                Answer::Taken(Member { host, name, age, .. }) => {
                    return Err(NotJoined::Taken { host, name, age_s: age.as_secs() });
                }
            }
            tokio::time::sleep(TAKEN_AGAIN).await;
        }
    }

    /// The time that all hosts agree on.
    pub(crate) fn clock(&self) -> Arc<StoreClock> {
        self.clock.clone()
    }

    /// The host's own id.
    pub(crate) fn host(&self) -> &str {
        &self.identity.host
    }

    pub(crate) fn known(&self) -> Arc<Known> {
        self.known.borrow().clone()
    }

    /// The text that each host has for people, by the hosts' ids.
    pub(crate) async fn shown(&self) -> Result<Vec<Shown>, StoreError> {
        self.members.shown().await
    }

    /// The ring of those that take part at present, and of this one.
    pub(crate) fn ring(&self) -> Ring {
        let known = self.known();
        let is_there = |member: &&Member| member.state == MemberState::Joined && member.age < MEMBER_FOR;
        let others = known.members.iter().filter(is_there).map(|member| &*member.host);
        Ring::of(others.chain([self.host()]).map(Arc::from))
    }

    /// The counts that this host will have, with the hosts that there are.
    pub(crate) fn part_of(&self, plan: &Plan, counts: &BTreeMap<String, u32>) -> BTreeMap<String, u32> {
        let ring = self.ring();
        let part = plan.types.iter().map(|planned| {
            let name = &planned.process.name;
            let count = counts.get(name).copied().unwrap_or_else(|| planned.count());
            let here = ring.slots(self.host(), name, count).len();
            (name.clone(), u32::try_from(here).unwrap_or(u32::MAX))
        });
        part.collect()
    }

    fn beat(&self, state: MemberState, is_first: bool, said: String, shown: Option<String>) -> Beat {
        Beat {
            host: self.identity.host.clone(),
            boot: self.boot.clone(),
            place: self.identity.place.clone(),
            is_first,
            name: self.identity.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state,
            said,
            shown,
        }
    }

    fn know(&self, heard: Heard, contact: &Contact) {
        let Heard { members, live, deploy, .. } = heard;
        self.known.send_replace(Arc::new(Known { members, live, deploy, hosts: contact.hosts().to_vec() }));
    }

    /// The state of the hosts, each time that they were heard of.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Known>> {
        self.known.subscribe()
    }

    /// This boot of the host.
    pub(crate) fn boot(&self) -> &str {
        &self.boot
    }

    /// Whether other hosts take part.
    pub(crate) fn has_others(&self) -> bool {
        let known = self.known();
        let is_there = |member: &Member| member.state == MemberState::Joined && member.age < MEMBER_FOR;
        known.members.iter().any(|member| is_there(member) && member.host != self.host())
    }

    /// Beats for a host that starts, until the handle is dropped.
    pub(crate) fn keep_starting(&self) -> AbortOnDropHandle<()> {
        let membership = self.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                tokio::time::sleep(BEAT_EVERY).await;
                let said = Said::default().to_text();
                let beat = membership.beat(MemberState::Starting, false, said, None);
                // One that is missed is no harm, and the store's trouble is told by those who need it.
                if let Ok(Ok(Answer::Heard(heard))) =
                    tokio::time::timeout(ANSWERED_MAX, membership.members.beat(beat)).await
                {
                    membership.know(heard, &Contact::default());
                }
            }
        }))
    }

    /// Waits for the turn of this start. No other host starts or deploys until [`Membership::end_deploy`].
    pub(crate) async fn begin_start(&self) -> Result<(), StoreError> {
        while self.begin_deploy(0).await?.is_some() {
            tokio::time::sleep(TAKEN_AGAIN).await;
        }
        Ok(())
    }

    // --- deploys

    /// Begins a deploy, unless another host does, whose is returned. Release 0 is for a host that starts.
    pub(crate) async fn begin_deploy(&self, release: u64) -> Result<Option<DeployUnderway>, StoreError> {
        let (host, boot) = (self.identity.host.clone(), self.boot.clone());
        let mut deploys = self.deploys.lock().await;
        *deploys = true;
        self.members.begin_deploy(DeployUnderway { release, host, boot }).await
    }

    /// The deploy that this host began is over.
    pub(crate) async fn end_deploy(&self) -> Result<(), StoreError> {
        *self.deploys.lock().await = false;
        self.members.end_deploy(&self.boot).await
    }

    /// Ends a deploy of this host that is over, where the store was away as it was to be told so. The others would wait for it
    /// for as long as this host runs.
    async fn end_left(&self) {
        let is_own = self.known().deploy.as_ref().is_some_and(|deploy| deploy.boot == self.boot);
        // No deploy begins meanwhile.
        if is_own
            && let Ok(deploys) = self.deploys.try_lock()
            && !*deploys
        {
            // The next heartbeat tells whether it has ended.
            let _ = self.members.end_deploy(&self.boot).await;
        }
    }

    /// Whether this host has answered to another's deploy.
    pub(crate) fn has_prepared(&self, deploy: &DeployUnderway) -> bool {
        let is_of = |said: &SaidPrepared| said.release == deploy.release && said.by == deploy.boot;
        self.said_prepared().is_some_and(|said| is_of(&said))
    }

    /// Says from now on how it went to prepare another host's release.
    pub(crate) fn prepared(&self, deploy: &DeployUnderway, why: Option<String>) {
        let why = why.map(|why| cut(&why, WHY_BYTES_MAX).to_owned());
        let said = SaidPrepared { release: deploy.release, by: deploy.boot.clone(), why };
        *self.prepared.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
    }

    fn said_prepared(&self) -> Option<SaidPrepared> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The host is gone, as it was planned.
    pub(crate) async fn leave(&self) {
        let left = self.members.leave(&self.identity.host, &self.boot);
        match tokio::time::timeout(ANSWERED_MAX, left).await {
            Ok(Ok(())) => {}
            Ok(Err(err)) => warn!("the other hosts could not be told that this one is gone: {err}"),
            Err(_) => {
                warn!("the other hosts could not be told that this one is gone: the store doesn't answer")
            }
        }
    }
}

/// The task. See the module.
pub(crate) struct Heart {
    pub(crate) membership: Membership,
    pub(crate) actions: mpsc::Sender<Action>,
    pub(crate) ticks: Arc<dyn Ticks>,
    /// The words to say beside the types.
    pub(crate) about: Box<dyn Fn() -> Said + Send + Sync>,
    /// The host drains.
    pub(crate) intake: CancellationToken,
    /// Another host has taken this one's id: it has to stop.
    pub(crate) stop: CancellationToken,
}

impl Heart {
    /// Beats until `end`.
    pub(crate) async fn run(self, end: CancellationToken) {
        let started = Instant::now();
        let (mut contact, complaint) = (Contact::default(), Complaint::default());
        let mut forget_at = Instant::now() + FORGET_EVERY;
        let (mut is_first_joined, mut shown_last) = (true, None::<(Instant, Said)>);
        loop {
            let asked_at = Instant::now();
            let Some(types) = self.look().await else { return end.cancelled().await };
            let said = self.said(&types);
            let state = if self.intake.is_cancelled() { MemberState::Draining } else { MemberState::Joined };
            // The long text is written seldom, as it says how much CPU time each instance has used, which always changes.
            let is_old =
                shown_last.as_ref().is_none_or(|(at, of)| at.elapsed() >= SHOWN_EVERY || *of != said);
            let long = is_old.then(|| shown(&types));
            let beat = self.membership.beat(state, false, said.to_text(), long);
            match tokio::time::timeout(ANSWERED_MAX, self.membership.members.beat(beat)).await {
                Ok(Ok(Answer::Heard(heard))) => {
                    self.membership.clock.hear(heard.now, asked_at.elapsed());
                    if is_old {
                        shown_last = Some((asked_at, said.clone()));
                    }
                    self.hear(heard, &mut contact, started.elapsed(), asked_at).await;
                    self.membership.end_left().await;
                    if std::mem::take(&mut is_first_joined) {
                        info!("this host is {}, one of {}", self.membership.host(), contact.hosts().len());
                    }
                }
                Ok(Ok(Answer::Taken(other))) => {
                    error!(
                        "another host with this one's id ({}) has taken its place in the store, \"{}\": this one stops",
                        other.host, other.name
                    );
                    self.stop.cancel();
                    return end.cancelled().await;
                }
                Ok(Err(err)) => complaint.tell(|left_out| {
                    warn!("the store doesn't say how other hosts stand, and all stays as it was: {err}{left_out}");
                }),
                Err(_) => complaint.tell(|left_out| {
                    warn!(
                        "the store doesn't say how other hosts stand, and all stays as it was: it didn't answer within {ANSWERED_MAX:?}{left_out}"
                    );
                }),
            }
            if Instant::now() >= forget_at && contact.is_settled(started.elapsed()) {
                forget_at = Instant::now() + FORGET_EVERY;
                // The next time is as good.
                let _ = self.membership.members.forget(FORGOTTEN_AFTER).await;
            }
            tokio::select! {
                () = end.cancelled() => return,
                () = self.rest(asked_at + BEAT_EVERY, &said, state) => {}
            }
        }
    }

    /// Takes an answer to heart.
    async fn hear(&self, heard: Heard, contact: &mut Contact, now: Duration, asked_at: Instant) {
        let before = contact.hosts().to_vec();
        let rows = heard.members.iter().map(|member| Seen {
            host: &member.host,
            standing: match member.state {
                MemberState::Joined => Standing::Joined,
                MemberState::Starting | MemberState::Draining => Standing::Apart,
            },
            age: member.age,
        });
        let has_changed = contact.heard(now, heard.own_age, rows);
        let is_draining = self.intake.is_cancelled();
        // One that drains keeps its instances until their last calls are over.
        if has_changed && !is_draining {
            let ring = Arc::new(Ring::of(contact.hosts().iter().cloned()));
            let _ = self.actions.send(Action::Share { ring, host: self.membership.host().into() }).await;
            self.tell(&before, contact.hosts(), &heard.members).await;
        }
        let _ = self.actions.send(Action::HearCounts { counts: heard.counts.clone(), asked_at }).await;
        self.membership.know(heard, contact);
    }

    /// Says who has come and gone. A tick that a host had begun which is gone without a word has no other end.
    async fn tell(&self, before: &[Arc<str>], now: &[Arc<str>], members: &[Member]) {
        let find = |host: &str| members.iter().find(|member| member.host == host);
        let name = |host: &str| find(host).map_or(host.to_owned(), |row| format!("{} ({host})", row.name));
        for host in now.iter().filter(|host| !before.contains(host) && ***host != *self.membership.host()) {
            info!("the host {} is one of {} now", name(host), now.len());
        }
        for host in before.iter().filter(|host| !now.contains(host)) {
            let is_apart = find(host).is_none_or(|row| row.state != MemberState::Joined);
            let how = if is_apart { "has stopped" } else { "is silent" };
            info!("the host {} {how}: its instances are for the other {}", name(host), now.len());
            if !is_apart && let Err(err) = self.ticks.interrupt(&format!("host/{host}/")).await {
                warn!("ticks that it had begun could not be marked as interrupted: {err}");
            }
        }
    }

    /// Waits until this time, or until there is something new to say.
    async fn rest(&self, until: Instant, said: &Said, state: MemberState) {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            tokio::select! {
                () = self.intake.cancelled(), if state != MemberState::Draining => return,
                () = tokio::time::sleep(left.min(LOOK_EVERY)) => {}
            }
            if left <= LOOK_EVERY {
                return;
            }
            let types = self.look().await.unwrap_or_default();
            if self.said(&types) != *said {
                return;
            }
        }
    }

    fn said(&self, types: &[TypeView]) -> Said {
        Said { types: Said::of(types), prepared: self.membership.said_prepared(), ..(self.about)() }
    }

    /// How this host's types stand; nothing where the supervisor is gone.
    async fn look(&self) -> Option<Vec<TypeView>> {
        let (reply, types) = oneshot::channel();
        self.actions.send(Action::Look { reply }).await.ok()?;
        types.await.ok()
    }
}

#[cfg(test)]
#[path = "heart_tests.rs"]
mod tests;
