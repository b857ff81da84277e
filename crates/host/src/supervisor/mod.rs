//! The one owner of desired and actual counts, and the only one that changes them. The supervisor hears of everything
//! that happens to instances ([`Event`]), is told what to do ([`Action`]), and keeps exactly as many instances of each
//! type as are desired.
//!
//! The [`roster`] decides, and knows neither instances nor clocks. [`counts`] makes changes of counts, and `types` has
//! the instances. The loop here joins them, and never waits for the disk.
//!
//! An instance that is to be replaced (a person says so, or it is old) serves on until its successor does. One that a
//! call ended is replaced at once. One that dies before it serves, and a command that exits, wait for 0, 1, 2, 4 ...
//! 60 s; a minute of health forgives.

mod action;
mod adopt;
mod canary;
mod counts;
mod measure;
mod naming;
mod pulse;
mod replacing;
mod roster;
mod shared;
mod telling;
mod types;
mod view;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Interval;
use tokio_util::task::TaskTracker;
use tracing::warn;
use wasmhost_engine::services::InstanceName;
use wasmhost_engine::{Instance, Meter};
use wasmhost_store::Counts;

pub(crate) use self::action::{Action, Refused, Target};
use self::adopt::Move;
pub(crate) use self::adopt::{Adopted, Underway};
pub(crate) use self::canary::Canary;
use self::counts::{Asked, Change, Saving, saved};
pub(crate) use self::measure::{STATES, TypeMeasure};
pub(crate) use self::naming::Name;
pub(crate) use self::pulse::Pulse;
use self::roster::{Ending, Roster, Start, Wait};
use self::shared::Part;
pub(crate) use self::types::{Backlog, Supervised};
use self::types::{Retry, Starting, Type, run_main};
use self::view::standing;
use crate::admin::api::InstanceChange;
use crate::capacity::Capacity;
use crate::deaths::{Death, Deaths};
use crate::event::{Ended, Event, MemberId};
use crate::feed::Feed;
use crate::measures::Measures;
use crate::members::heart::Membership;
use crate::pool::Learned;

const BACKOFF_MAX: Duration = Duration::from_secs(60);
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// Where it is noted what becomes of instances.
pub(crate) struct Records {
    pub(crate) deaths: Arc<Deaths>,
    pub(crate) measures: Arc<Measures>,
}

/// See the module.
pub(crate) struct Supervisor {
    types: Slab<Type>,
    /// The live release's types, in the order of its file.
    order: Vec<usize>,
    roster: Roster,
    /// The move to another release that is under way.
    moving: Option<Move>,
    learned: Arc<Learned>,
    /// Looks from time to time whether instances are too old, if they can be.
    ages: Option<Interval>,
    /// How long a move waits for the last call of an instance that leaves.
    grace: Duration,
    counts: Arc<dyn Counts>,
    capacity: Capacity,
    events: mpsc::UnboundedSender<Event>,
    /// Counts instances that start, and runs of `main`.
    calls: TaskTracker,
    pulse: Pulse,
    deaths: Arc<Deaths>,
    feed: Arc<Feed>,
    measures: Arc<Measures>,
    /// Those who wait until types are settled.
    waiting: Vec<(Vec<usize>, oneshot::Sender<()>)>,
    /// Changes of counts, of which the first may be on its way to the store.
    changes: VecDeque<Asked>,
    saving: Option<Saving>,
    /// When a change came to its end.
    changed_at: Option<Instant>,
    /// The part of the counts that this host has; all where there is none.
    part: Option<Part>,
    /// The host drains.
    changes_refused: bool,
    /// Nothing starts any more.
    ended: bool,
}

impl Supervisor {
    pub(crate) fn new(
        counts: Arc<dyn Counts>,
        capacity: Capacity,
        learned: Arc<Learned>,
        events: mpsc::UnboundedSender<Event>,
        calls: TaskTracker,
        pulse: Pulse,
        Records { deaths, measures }: Records,
    ) -> Supervisor {
        Supervisor {
            roster: Roster::new(as_usize(capacity.slots())),
            types: Slab::new(),
            order: vec![],
            moving: None,
            learned,
            ages: None,
            grace: Duration::ZERO,
            counts,
            capacity,
            events,
            calls,
            pulse,
            deaths,
            feed: Arc::default(),
            measures,
            waiting: vec![],
            changes: VecDeque::new(),
            saving: None,
            changed_at: None,
            part: None,
            changes_refused: false,
            ended: false,
        }
    }

    /// The counts are shared with other hosts from the beginning.
    pub(crate) fn sharing(mut self, membership: Option<&Membership>) -> Supervisor {
        self.part = membership
            .map(|membership| Part { ring: Arc::new(membership.ring()), host: membership.host().into() });
        self
    }

    /// Runs until nobody can send actions any more.
    pub(crate) async fn run(
        mut self,
        mut actions: mpsc::Receiver<Action>,
        mut events: mpsc::UnboundedReceiver<Event>,
    ) {
        loop {
            tokio::select! {
                // Events first: an action then decides on how things are.
                biased;
                Some(event) = events.recv() => self.hear(event),
                saved = saved(&mut self.saving) => self.changed(saved),
                action = actions.recv() => match action {
                    Some(action) => self.act(action),
                    None => return,
                },
                () = tick(&mut self.ages) => self.replace_the_old(),
                () = self.pulse.due() => {}
            }
            self.begin_starts();
            self.look_at_move();
            self.forget_retired();
            self.answer_settled();
            let is_draining = self.changes_refused;
            self.pulse.turned(is_draining, || standing(&self.types, &self.order));
        }
    }

    fn hear(&mut self, event: Event) {
        if let Event::NameFree { process, index } = &event {
            return self.roster.free(process, *index);
        }
        let Some(type_index) = event.type_index().filter(|place| self.types.contains(*place)) else { return };
        match event {
            Event::Started { member, result: Ok(instance), .. } => self.started(type_index, member, instance),
            Event::Started { member, result: Err(end), .. } => {
                let starting = self.types[type_index].starting.remove(&member);
                if let Some(wait) = self.roster.failed_to_start(type_index, member) {
                    let death = Death::of(&end).at_start();
                    self.types[type_index].pool.counts.restarted(death.cause());
                    if let Some(Starting { version, index, .. }) = starting {
                        self.move_failed_to_start(type_index, &version, index, &death.message);
                    }
                    let process = self.types[type_index].given.name.clone();
                    self.deaths.note(&InstanceName { process, index: wait.index }, None, &death);
                    self.tell(type_index, wait.index, InstanceChange::FailedToStart, Some(&death.message));
                    self.back_off(type_index, member, wait, death.message);
                }
            }
            Event::Ended { member, how, .. } => self.gone(type_index, member, how),
            Event::BackoffOver { member, .. } => {
                self.types[type_index].retries.remove(&member);
                self.roster.waited(type_index, member);
            }
            Event::Due { member, .. } => self.roster.replace(type_index, member, false),
            Event::Late { member, .. } => self.roster.note_late(type_index, member),
            Event::NameFree { .. } | Event::Look => {}
        }
        self.types[type_index].tell_outlook(self.roster.kind(type_index));
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Scale { changes, reply } => self.change(Asked { change: Change::Scale(changes), reply }),
            Action::Reset { types, reply } => self.change(Asked { change: Change::Reset(types), reply }),
            // Nobody would watch the move.
            Action::Adopt { reply, .. } | Action::Canary { reply, .. } if reply.is_closed() => {}
            Action::Adopt { types, grace, is_way_back, reply } => {
                self.grace = grace;
                let _ = reply.send(self.adopt(types, is_way_back));
            }
            Action::CheckCanary { of, share, reply } => {
                let _ = reply.send(self.check_room_beside(&of, share));
            }
            Action::Canary { canaries, share, reply } => {
                let _ = reply.send(self.begin_canary(canaries, share));
            }
            Action::Retire { places } => self.retire(&places),
            Action::Name { process, reply } => drop(reply.send(self.name(process))),
            Action::Share { ring, host } => self.share(Part { ring, host }),
            Action::HearCounts { counts, asked_at } => self.hear_counts(&counts, asked_at),
            Action::Restart { target, reply } => {
                let _ = reply.send(self.restart(&target));
            }
            Action::Settled { types, reply } => {
                let wanted = self.indexes_of(&types);
                self.waiting.push((wanted, reply));
            }
            Action::Look { reply } => {
                let mut places: Vec<usize> =
                    self.order.iter().flat_map(|place| self.places_of(*place)).collect();
                // Types that the live release doesn't have any more.
                let others = self.types.iter().map(|(place, _)| place);
                let others: Vec<usize> = others.filter(|place| !places.contains(place)).collect();
                places.extend(others);
                let places = places.into_iter();
                let views = places.map(|place| self.types[place].view(self.roster.kind(place)));
                let _ = reply.send(views.collect());
            }
            Action::Measure { reply } => {
                let types = self.types.iter().map(|(place, kind)| kind.measure(self.roster.kind(place)));
                let _ = reply.send(types.collect());
            }
            Action::RefuseChanges => self.changes_refused = true,
            Action::InterruptAll { reply } => {
                self.ended = true;
                self.roster.stop();
                let _ = reply.send(self.types.iter().map(|(_, kind)| kind.interrupt()).sum());
            }
        }
    }

    // --- what there is

    /// Brings a type's members to this number or, where hosts share the count, to this host's part of it.
    fn desire(&mut self, type_index: usize, count: u32) {
        let kind = &mut self.types[type_index];
        let slots = self.part.as_ref().map(|part| part.slots(&kind.given.name, count));
        let count = slots.as_ref().map_or(count, |slots| u32::try_from(slots.len()).unwrap_or(u32::MAX));
        kind.desired = count;
        let leaving = match slots {
            Some(slots) => self.roster.desire_slots(type_index, slots),
            None => self.roster.desire(type_index, as_usize(count), |member| kind.is_busy(member)),
        };
        kind.dismiss(&leaving);
        kind.pool.set_line_max(kind.given.backlog.line_max(count));
        kind.tell_outlook(self.roster.kind(type_index));
        self.tell_draining(type_index, &leaving);
    }

    /// Does what the roster has decided on.
    fn begin_starts(&mut self) {
        for member in self.roster.take_cancelled() {
            let starting = self.types.iter().filter_map(|(_, kind)| kind.starting.get(&member));
            starting.for_each(|starting| starting.meter.interrupt());
        }
        for start in self.roster.take_starts() {
            self.start(start);
        }
    }

    /// Starts an instance, in a task of its own.
    fn start(&mut self, start: Start) {
        let Start { type_index, member, index } = start;
        let kind = &mut self.types[type_index];
        let (version, meter) = (kind.given.version.clone(), Arc::new(Meter::default()));
        kind.starting.insert(member, Starting { index, version: version.clone(), meter: meter.clone() });
        self.tell(type_index, index, InstanceChange::Starting, None);
        let events = self.events.clone();
        self.calls.spawn(async move {
            let result = version.component.start(index, meter).await;
            let _ = events.send(Event::Started { type_index, member, result });
        });
    }

    fn started(&mut self, type_index: usize, member: MemberId, instance: Instance) {
        let kind = &mut self.types[type_index];
        let starting = kind.starting.remove(&member);
        let runs_always = kind.given.runs_always;
        // It may not be wanted any more.
        let wanted = self.roster.started(type_index, member, runs_always);
        let (Some(wanted), Some(Starting { version, .. })) = (wanted, starting) else { return };
        let pool = kind.pool.clone();
        let slot = pool.slot(member, wanted.index, &instance, version);
        kind.slots.insert(member, slot.clone());
        pool.counts.started();
        if runs_always {
            pool.admit_running(slot.clone());
            self.calls.spawn(run_main(instance, slot, pool, kind.given.limits));
            kind.dismiss(wanted.instead_of.as_slice());
        } else {
            let replaced = wanted.instead_of.and_then(|replaced| kind.slots.get(&replaced));
            pool.admit(slot, instance, replaced);
        }
        self.tell_serving(type_index, wanted.index, wanted.instead_of);
        self.wait_for_leaving(type_index, wanted.instead_of.as_slice());
    }

    /// An instance that served is gone.
    fn gone(&mut self, type_index: usize, member: MemberId, how: Ended) {
        let kind = &mut self.types[type_index];
        let slot = kind.slots.remove(&member);
        if let Some(slot) = &slot {
            kind.pool.counts.gone(slot.used().cpu);
        }
        let lived = slot.as_ref().map_or(Duration::ZERO, |slot| slot.since.elapsed());
        if let Some(slot) = &slot
            && self.roster.kind(type_index).has(member)
        {
            self.move_lost(type_index, &slot.version, slot.name.index, &how);
        }
        if let Some(slot) = &slot {
            self.tell_gone(type_index, slot.name.index, slot.version.release, &how);
        }
        let kind = &mut self.types[type_index];
        let (ending, death) = match how {
            Ended::Drained => (Ending::Left, None),
            Ended::Spent | Ended::Cancelled => (Ending::Recycled, None),
            Ended::ByCall(death) => (Ending::Crashed, Some(death)),
            Ended::FailedToStart(death) => (Ending::FailedToStart, Some(death.at_start())),
            Ended::Exited(death) => (Ending::Exited { forgiven: lived >= FORGIVEN_AFTER }, Some(death)),
        };
        if self.roster.kind(type_index).has(member)
            && let (Some(death), Some(slot)) = (&death, slot)
        {
            kind.last_end = Some(death.message.clone());
            self.deaths.note(&slot.name, Some(lived), death);
        }
        let restarts = self.roster.kind(type_index).restarts;
        let wait = self.roster.ended(type_index, member, ending);
        if let Some(death) = &death
            && self.roster.kind(type_index).restarts > restarts
        {
            self.types[type_index].pool.counts.restarted(death.cause());
        }
        if let Some(wait) = wait {
            self.back_off(type_index, member, wait, death.map(|death| death.message).unwrap_or_default());
        }
    }

    /// One that failed is tried again after a while.
    fn back_off(&mut self, type_index: usize, member: MemberId, wait: Wait, why: String) {
        let kind = &mut self.types[type_index];
        kind.last_end = Some(why.clone());
        if self.ended {
            return;
        }
        let Wait { index, failures } = wait;
        let wait = backoff(failures);
        self.tell_backoff(type_index, index, wait, &why);
        let kind = &mut self.types[type_index];
        warn!(instance = %format!("{}.{index}", kind.given.name), again_in_s = wait.as_secs(), "{why}");
        kind.retries.insert(member, Retry { at: Instant::now() + wait, why });
        let events = self.events.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let _ = events.send(Event::BackoffOver { type_index, member });
        });
    }

    // --- who asks

    fn answer_settled(&mut self) {
        let (types, roster) = (&self.types, &self.roster);
        let is_settled = |wanted: &Vec<usize>| {
            wanted.iter().all(|type_index| {
                let kind = roster.kind(*type_index);
                // The pool hears first of an instance that is gone.
                kind.is_settled() && types[*type_index].pool.live() == kind.desired()
            })
        };
        self.waiting.retain(|(_, reply)| !reply.is_closed());
        for (_, reply) in self.waiting.extract_if(.., |(wanted, _)| is_settled(wanted)) {
            let _ = reply.send(());
        }
    }

    fn index_of(&self, name: &str) -> Result<usize, Refused> {
        let mut places = self.order.iter().copied();
        places.find(|place| &*self.types[*place].given.name == name).ok_or_else(|| {
            let known: Vec<_> = self.order.iter().map(|place| &*self.types[*place].given.name).collect();
            Refused::Conflict(unknown_type(name, &known))
        })
    }

    /// The types of these names, or all where there are none, with their canaries.
    fn indexes_of(&self, names: &[String]) -> Vec<usize> {
        self.live_of(names).into_iter().flat_map(|place| self.places_of(place)).collect()
    }

    /// The same without canaries.
    fn live_of(&self, names: &[String]) -> Vec<usize> {
        let is_wanted = |kind: &Type| names.iter().any(|name| **name == *kind.given.name);
        let all = self.order.iter().copied();
        all.filter(|place| names.is_empty() || is_wanted(&self.types[*place])).collect()
    }
}

/// The message to a person who misspells a type. `known` may list a type once for each of its versions.
pub fn unknown_type(name: &str, known: &[&str]) -> String {
    let mut seen = HashSet::new();
    let known: Vec<_> = known.iter().copied().filter(|known| seen.insert(*known)).collect();
    format!("there is no process type \"{name}\"; this formation has {}", known.join(", "))
}

/// Waits for the timer, forever where there is none.
async fn tick(timer: &mut Option<Interval>) {
    match timer {
        Some(timer) => {
            timer.tick().await;
        }
        None => std::future::pending().await,
    }
}

/// How long to wait after `failures` failures in a row before this one: 0, 1, 2, 4 ... 60 s, and up to a tenth more.
fn backoff(failures: u32) -> Duration {
    let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
    let wait = BACKOFF_MAX.min(Duration::from_secs(1 << doublings.min(6)));
    wait.mul_f64(1.0 + 0.1 * fastrand::f64())
}

fn as_usize(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_a_minute() {
        let whole: Vec<u64> = (0..9).map(|failures| backoff(failures).as_secs()).collect();
        assert_eq!(whole[..4], [0, 1, 2, 4]);
        assert!(whole[8] >= 60 && whole[8] <= 66, "{whole:?}");
    }
}
