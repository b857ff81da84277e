//! The state that the tasks of a store share with each other and with its handles.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::errors::Place;
use super::session::{Db, Session};
use crate::clock::Moment;
use crate::jobs::{Holder, JobId, Lease};
use crate::written::Meter;
use crate::{Clock, Timestamp};

/// How long a host must have been in contact before it takes others for gone: after the server was away, each lease looks
/// like one that nobody renews.
const SETTLED_AFTER: Duration = Duration::from_secs(10);

/// Commits whose answers were lost, that are remembered at most.
const UNSURE_MAX: usize = 100_000;

/// The clock that the store goes by.
pub(super) enum Time {
    /// The server's, so that hosts agree whatever their own clocks say.
    Server,
    /// A test's.
    Given(Arc<dyn Clock>),
}

impl Time {
    /// The server has one clock, by which everything goes. A step of it is a step for leases, too.
    pub(super) async fn now(&self, session: &Session) -> Db<Moment> {
        match self {
            Time::Given(clock) => Ok(Moment::of(&**clock)),
            Time::Server => {
                const NOW: &str = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";
                let rows = session.query(NOW, &[]).await?;
                let now = rows.first().map_or(Ok(Timestamp(0)), |row| row.try_get(0).map(Timestamp))?;
                Ok(Moment { now, steady: now })
            }
        }
    }

    pub(super) fn is_given(&self) -> bool {
        matches!(self, Time::Given(_))
    }
}

/// See the module.
pub(super) struct Shared {
    pub(super) place: Place,
    pub(super) time: Time,
    pub(super) meter: Meter,
    pub(super) holder: OnceLock<Arc<dyn Holder>>,
    pub(super) changes: watch::Sender<u64>,
    /// Names this store among those that notify each other.
    pub(super) name: String,
    state: Mutex<State>,
    /// Somebody has something to tell other hosts.
    pub(super) to_tell: Notify,
}

struct State {
    /// Queues with jobs that a claim left there because of the queue's concurrency, since changes were told last.
    held_back: HashSet<String>,
    /// Queues that claims of this host had a concurrency for: other hosts may wait for room in them.
    limited: HashSet<String>,
    /// Queues that other hosts are to look at.
    news: BTreeSet<String>,
    in_contact_since: Instant,
    heard_at: Instant,
    /// Answers to leases whose commit was not answered.
    unsure: HashMap<Lease, Instant>,
    /// The owner of this process's claims, and how long they last.
    owner: Option<(String, Duration)>,
}

impl Shared {
    pub(super) fn new(place: Place, time: Time) -> Shared {
        let now = Instant::now();
        let state = State {
            held_back: HashSet::new(),
            limited: HashSet::new(),
            news: BTreeSet::new(),
            in_contact_since: now,
            heard_at: now,
            unsure: HashMap::new(),
            owner: None,
        };
        Shared {
            place,
            time,
            meter: Meter::default(),
            holder: OnceLock::new(),
            changes: watch::channel(0).0,
            name: format!("{:016x}", fastrand::u64(..)),
            state: Mutex::new(state),
            to_tell: Notify::new(),
        }
    }

    /// Jobs of these queues may have become available. Those who wait here are told now, and other hosts soon.
    pub(super) fn tell<'a>(&self, queues: impl IntoIterator<Item = &'a String>) {
        let mut state = self.state();
        state.news.extend(queues.into_iter().cloned());
        state.held_back.clear();
        drop(state);
        self.wake();
        self.to_tell.notify_one();
    }

    /// Makes those who wait for jobs here look again.
    pub(super) fn wake(&self) {
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    /// There is room in this queue for what another host may wait for.
    pub(super) fn room_for_others(&self, queue: &str) {
        let mut state = self.state();
        if state.limited.contains(queue) && state.news.insert(queue.to_owned()) {
            drop(state);
            self.to_tell.notify_one();
        }
    }

    pub(super) fn take_news(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.state().news)
    }

    /// A claim had a concurrency for this queue.
    pub(super) fn is_limited(&self, queue: &str) {
        remember(&mut self.state().limited, queue);
    }

    /// A claim would have taken more of this queue, had it not as many leased jobs as it may.
    pub(super) fn hold_back(&self, queue: &str) {
        remember(&mut self.state().held_back, queue);
    }

    pub(super) fn is_held_back(&self, queue: &str) -> bool {
        self.state().held_back.contains(queue)
    }

    /// The server is in reach again. Its words about others from before are not believed at once.
    pub(super) fn contact_begins(&self) {
        let mut state = self.state();
        state.in_contact_since = Instant::now();
        state.heard_at = Instant::now();
    }

    /// Called each second or so. A long time without it means that this process was stopped.
    pub(super) fn beat(&self) {
        let mut state = self.state();
        if state.heard_at.elapsed() > SETTLED_AFTER / 2 {
            state.in_contact_since = Instant::now();
        }
        state.heard_at = Instant::now();
    }

    /// Whether this host may take others for gone. A test's clock has no outages.
    pub(super) fn is_settled(&self) -> bool {
        let state = self.state();
        let is_stopped = state.heard_at.elapsed() > SETTLED_AFTER / 2;
        self.time.is_given() || !is_stopped && state.in_contact_since.elapsed() >= SETTLED_AFTER
    }

    pub(super) fn claims_as(&self, owner: &str, lease: Duration) {
        let mut state = self.state();
        if state.owner.as_ref().is_none_or(|(known, _)| known != owner) {
            state.owner = Some((owner.to_owned(), lease));
        }
    }

    pub(super) fn owner(&self) -> Option<(String, Duration)> {
        self.state().owner.clone()
    }

    /// Nobody knows whether the answer to this lease was stored.
    pub(super) fn is_unsure(&self, lease: Lease) {
        let mut state = self.state();
        if state.unsure.len() >= UNSURE_MAX {
            state.unsure.retain(|_, since| since.elapsed() < Duration::from_secs(600));
        }
        if state.unsure.len() < UNSURE_MAX {
            state.unsure.insert(lease, Instant::now());
        }
    }

    /// Those of these leases of which that is so.
    pub(super) fn was_unsure(&self, leases: impl IntoIterator<Item = Lease>) -> Vec<Lease> {
        let state = self.state();
        match state.unsure.is_empty() {
            true => Vec::new(),
            false => leases.into_iter().filter(|lease| state.unsure.contains_key(lease)).collect(),
        }
    }

    /// Whether a call of this process has this lease.
    pub(super) fn is_held(&self, id: JobId, claim: i64) -> bool {
        self.holder.get().is_some_and(|holder| holder.holds(Lease { id, claim }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

fn remember<T: Eq + Hash + for<'a> From<&'a str> + std::borrow::Borrow<str>>(
    set: &mut HashSet<T>,
    name: &str,
) {
    if !set.contains(name) {
        set.insert(name.into());
    }
}
