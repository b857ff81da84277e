//! The one owner of desired and actual counts, and the one who changes them. It hears of everything that happens to
//! instances ([`Event`]), is told what to do ([`Action`]), and sees to it that exactly as many instances of each type
//! serve as are desired.
//!
//! ```text
//! starting -> serving -> (drained | ended by a call) -> gone, or starting again
//!     \-> backoff -> starting
//! ```
//!
//! An instance that is to be replaced (a person says so, or it is old) serves on until its successor does. One that a
//! call ended is replaced at once. One that dies before it serves, and a command that exits,
//! wait for 0, 1, 2, 4 ... 60 s; a minute of health forgives.

mod members;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::task::TaskTracker;
use tracing::warn;
use wasmhost_engine::{CallEnd, CallLimits, Component, Instance, Meter};
use wasmhost_store::Counts;

use crate::admin::api::{ScaleChange, ScaleTo, TypeView};
use crate::capacity::Capacity;
use crate::event::{Ended, Event, MemberId};
use crate::pool::{Pool, Slot};
use members::{Due, Member, Phase, Successor, Type};

const BACKOFF_MAX: Duration = Duration::from_secs(60);
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// How often ages are looked at: a twentieth of the shortest `max_age`, within these.
const AGES_EVERY_MIN: Duration = Duration::from_millis(50);
const AGES_EVERY_MAX: Duration = Duration::from_secs(10);

/// What the supervisor may be told to do.
pub(crate) enum Action {
    /// Changes counts: all of them or, where one can't be, none. Answers with the new counts.
    Scale { changes: Vec<ScaleChange>, reply: oneshot::Sender<Result<BTreeMap<String, u32>, Refused>> },
    /// Goes back to the file's counts, of these types or of all.
    Reset { types: Vec<String>, reply: oneshot::Sender<Result<BTreeMap<String, u32>, Refused>> },
    /// Replaces instances, each by one that serves before it leaves. Answers when the old ones have been asked to.
    Restart { target: Target, reply: oneshot::Sender<Result<u32, Refused>> },
    /// Answers when every one of these types (or of all) has exactly the instances it should, and no replacement is
    /// under way.
    Settled { types: Vec<String>, reply: oneshot::Sender<()> },
    /// Answers with how things stand.
    Look { reply: oneshot::Sender<Vec<TypeView>> },
    /// The host drains: counts stay as they are, and what ends is still replaced, since calls go on.
    RefuseChanges,
    /// The host is going: starts nothing any more, and ends every call that still runs. Answers with how many there
    /// were, those of commands that run always left out: nothing can ask them to finish.
    InterruptAll { reply: oneshot::Sender<usize> },
}

/// Which instances: of a type, or one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) process: String,
    pub(crate) index: Option<u32>,
}

/// Why an action was refused, for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(pub(crate) String);

/// A type, as the supervisor is given it.
pub(crate) struct Supervised {
    pub(crate) name: Arc<str>,
    pub(crate) trigger: &'static str,
    pub(crate) component: Component,
    pub(crate) pool: Arc<Pool>,
    /// The count that the file says.
    pub(crate) count_in_file: u32,
    /// The count to begin with.
    pub(crate) count: u32,
    /// Waiting calls: so many for each instance, or so many in all.
    pub(crate) backlog: Backlog,
    /// Instances run their `main` by themselves.
    pub(crate) runs_always: bool,
    /// Time after which an instance is replaced.
    pub(crate) max_age: Option<Duration>,
    /// Counts of types that keep no instances can't be changed.
    pub(crate) scalable: bool,
    pub(crate) limits: CallLimits,
}

/// How many calls may wait for an instance of a type.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Backlog {
    PerInstance(u32),
    InAll(u32),
}

impl Backlog {
    pub(crate) fn line_max(self, count: u32) -> usize {
        let calls = match self {
            Backlog::PerInstance(each) => each.saturating_mul(count.max(1)),
            Backlog::InAll(all) => all,
        };
        usize::try_from(calls).unwrap_or(usize::MAX)
    }
}

/// See the module.
pub(crate) struct Supervisor {
    types: Vec<Type>,
    counts: Arc<dyn Counts>,
    capacity: Capacity,
    events: mpsc::UnboundedSender<Event>,
    /// Counts instances that start, and runs of `main`.
    calls: TaskTracker,
    waiting: Vec<(Vec<usize>, oneshot::Sender<()>)>,
    next_member: MemberId,
    /// The host drains.
    changes_refused: bool,
    /// Nothing starts any more.
    ended: bool,
}

impl Supervisor {
    pub(crate) fn new(
        types: Vec<Supervised>,
        counts: Arc<dyn Counts>,
        capacity: Capacity,
        events: mpsc::UnboundedSender<Event>,
        calls: TaskTracker,
    ) -> Supervisor {
        let types = types.into_iter().map(Type::new).collect();
        Supervisor {
            types,
            counts,
            capacity,
            events,
            calls,
            waiting: vec![],
            next_member: 1,
            changes_refused: false,
            ended: false,
        }
    }

    /// Runs until nobody can send actions any more.
    pub(crate) async fn run(
        mut self,
        mut actions: mpsc::Receiver<Action>,
        mut events: mpsc::UnboundedReceiver<Event>,
    ) {
        (0..self.types.len()).for_each(|process| self.reconcile(process));
        let mut look_at_ages = self.age_timer();
        loop {
            tokio::select! {
                // Events first: an action then decides on how things are.
                biased;
                Some(event) = events.recv() => self.hear(event),
                action = actions.recv() => match action {
                    Some(action) => self.act(action).await,
                    None => return,
                },
                () = tick(&mut look_at_ages) => self.replace_the_old(),
            }
            self.start_successors();
            self.answer_settled();
        }
    }

    fn hear(&mut self, event: Event) {
        let process = match event {
            Event::Started { process, member, result: Ok(instance) } => {
                self.started(process, member, instance);
                process
            }
            Event::Started { process, member, result: Err(end) } => {
                let message = format!("failed to start: {}", end.summary());
                self.failed(process, member, &message);
                process
            }
            Event::Ended { process, member, how } => {
                self.ended(process, member, how);
                process
            }
            Event::BackoffOver { process, member } => {
                self.start(process, member);
                process
            }
            Event::Due { process, member } => {
                self.types[process].replace(Due { member, asked_for: false });
                process
            }
        };
        self.reconcile(process);
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Scale { changes, reply } => {
                let _ = reply.send(self.scale(changes).await);
            }
            Action::Reset { types, reply } => {
                let _ = reply.send(self.reset(types).await);
            }
            Action::Restart { target, reply } => {
                let _ = reply.send(self.restart(&target));
            }
            Action::Settled { types, reply } => {
                let wanted = self.indexes_of(&types);
                self.waiting.push((wanted, reply));
            }
            Action::Look { reply } => {
                let _ = reply.send(self.types.iter().map(Type::view).collect());
            }
            Action::RefuseChanges => self.changes_refused = true,
            Action::InterruptAll { reply } => {
                self.ended = true;
                let _ = reply.send(self.types.iter().map(Type::interrupt).sum());
            }
        }
    }

    // --- what is desired

    async fn scale(&mut self, changes: Vec<ScaleChange>) -> Result<BTreeMap<String, u32>, Refused> {
        let mut wanted = BTreeMap::new();
        for change in changes {
            let process = self.index_of(&change.process)?;
            let kind = &self.types[process];
            if !kind.given.scalable {
                return Err(Refused(format!(
                    "\"{}\" keeps no instances: it runs once, before a release, or by hand",
                    change.process
                )));
            }
            let now = wanted.get(&process).copied().unwrap_or(kind.desired);
            let count = match change.to {
                ScaleTo::Count(count) => count,
                ScaleTo::More(by) => now.saturating_add(by),
                ScaleTo::Fewer(by) => now.saturating_sub(by),
            };
            wanted.insert(process, count);
        }
        let live = wanted.iter().map(|(process, count)| (*process, Some(*count))).collect();
        self.desire(wanted, live).await
    }

    async fn reset(&mut self, types: Vec<String>) -> Result<BTreeMap<String, u32>, Refused> {
        for name in &types {
            self.index_of(name)?;
        }
        let processes = self.indexes_of(&types);
        let wanted =
            processes.iter().map(|process| (*process, self.types[*process].given.count_in_file)).collect();
        let live = processes.iter().map(|process| (*process, None)).collect();
        self.desire(wanted, live).await
    }

    /// Makes these counts the desired ones, in the store first.
    async fn desire(
        &mut self,
        wanted: BTreeMap<usize, u32>,
        live: BTreeMap<usize, Option<u32>>,
    ) -> Result<BTreeMap<String, u32>, Refused> {
        if self.changes_refused {
            return Err(Refused("the host is stopping".into()));
        }
        self.admit(&wanted)?;
        let name = |process: &usize| self.types[*process].given.name.to_string();
        let saved = live.iter().map(|(process, count)| (name(process), *count)).collect();
        let saved = self.counts.save(saved).await;
        saved
            .map_err(|err| Refused(format!("the counts could not be saved, and were not changed: {err}")))?;
        for (process, count) in &wanted {
            self.types[*process].desired = *count;
            self.reconcile(*process);
        }
        let scalable = self.types.iter().filter(|kind| kind.given.scalable);
        Ok(scalable.map(|kind| (kind.given.name.to_string(), kind.desired)).collect())
    }

    /// Whether these counts fit; the answer shows the sum.
    fn admit(&self, wanted: &BTreeMap<usize, u32>) -> Result<(), Refused> {
        let kinds = self.types.iter().enumerate().filter(|(_, kind)| kind.given.scalable);
        let counts: Vec<(&str, u32)> = kinds
            .map(|(process, kind)| (&*kind.given.name, wanted.get(&process).copied().unwrap_or(kind.desired)))
            .collect();
        let fits = self.capacity.check(&counts);
        fits.map_err(|too_many| Refused(format!("{too_many}. Nothing was changed")))
    }

    // --- what there is

    /// Brings a type's members to the desired number.
    fn reconcile(&mut self, process: usize) {
        if self.ended {
            return;
        }
        let desired = usize::try_from(self.types[process].desired).unwrap_or(usize::MAX);
        let missing = desired.saturating_sub(self.types[process].members.len());
        let indexes = if missing > 0 { self.types[process].free_indexes(missing) } else { vec![] };
        for index in indexes {
            let member = self.next_member;
            self.next_member += 1;
            self.types[process].members.insert(member, Member::starting(index));
            self.start(process, member);
        }
        let kind = &mut self.types[process];
        if kind.members.len() > desired {
            kind.shrink_to(desired);
        }
        kind.given.pool.set_line_max(kind.given.backlog.line_max(kind.desired));
        kind.given.pool.set_outlook(kind.outlook());
    }

    /// Starts the instance of a member or of a successor, in a task of its own.
    fn start(&mut self, process: usize, member: MemberId) {
        if self.ended {
            return;
        }
        let kind = &mut self.types[process];
        let place = kind.members.get_mut(&member).map(|place| (&mut place.phase, place.index));
        let place =
            place.or_else(|| kind.successors.get_mut(&member).map(|place| (&mut place.phase, place.index)));
        // It may not be wanted any more.
        let Some((phase, index)) = place else { return };
        let meter = Arc::new(Meter::default());
        *phase = Phase::Starting(meter.clone());
        let (component, events) = (kind.given.component.clone(), self.events.clone());
        self.calls.spawn(async move {
            let result = component.start(index, meter).await;
            let _ = events.send(Event::Started { process, member, result });
        });
    }

    fn started(&mut self, process: usize, member: MemberId, instance: Instance) {
        let kind = &mut self.types[process];
        let replaced = kind.successors.remove(&member).and_then(|successor| kind.succeed(member, &successor));
        // It may not be wanted any more.
        let Some(place) = kind.members.get_mut(&member) else { return };
        let slot = kind.given.pool.slot(member, place.index, &instance);
        place.phase = Phase::Serving(slot.clone());
        if kind.given.runs_always {
            kind.given.pool.admit_running(slot.clone());
            self.calls.spawn(run_main(instance, slot, kind.given.pool.clone(), kind.given.limits));
            if let Some(replaced) = replaced {
                kind.given.dismiss(&replaced);
            }
        } else {
            place.failures = 0;
            kind.given.pool.admit(slot, instance, replaced.as_ref());
        }
    }

    fn failed(&mut self, process: usize, member: MemberId, message: &str) {
        let events = self.events.clone();
        let kind = &mut self.types[process];
        kind.last_end = Some(message.to_owned());
        let (phase, failures, index) = match kind.members.get_mut(&member) {
            Some(place) => {
                place.restarts += 1;
                (&mut place.phase, &mut place.failures, place.index)
            }
            None => match kind.successors.get_mut(&member) {
                Some(place) => (&mut place.phase, &mut place.failures, place.index),
                None => return,
            },
        };
        if self.ended {
            return;
        }
        let wait = backoff(*failures);
        *failures = failures.saturating_add(1);
        kind.restarts += 1;
        warn!(instance = %format!("{}.{index}", kind.given.name), again_in_s = wait.as_secs(), "{message}");
        *phase = Phase::Backoff { until: Instant::now() + wait, why: message.to_owned() };
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let _ = events.send(Event::BackoffOver { process, member });
        });
    }

    fn ended(&mut self, process: usize, member: MemberId, how: Ended) {
        let kind = &mut self.types[process];
        if kind.leaving.remove(&member).is_some() {
            return;
        }
        let Some(place) = kind.members.get_mut(&member) else { return };
        match &how {
            Ended::Drained => {
                kind.members.remove(&member);
                return;
            }
            Ended::Spent | Ended::Cancelled => {
                place.recycled += 1;
                kind.recycled += 1;
            }
            Ended::ByCall(why) => {
                place.restarts += 1;
                kind.restarts += 1;
                kind.last_end = Some(why.clone());
            }
            Ended::FailedToStart(_) => {}
            Ended::Exited(_) => {
                if let Phase::Serving(slot) = &place.phase
                    && slot.since.elapsed() >= FORGIVEN_AFTER
                {
                    place.failures = 0;
                }
            }
        }
        // A successor that is on its way takes the place now.
        if let Some((id, successor)) = kind.take_successor(member) {
            kind.promote(member, id, successor);
            return;
        }
        match how {
            Ended::Exited(why) => self.failed(process, member, &why),
            Ended::FailedToStart(why) => self.failed(process, member, &format!("failed to start: {why}")),
            _ => self.start(process, member),
        }
    }

    /// Gives each chosen member a successor, behind which it leaves.
    fn restart(&mut self, target: &Target) -> Result<u32, Refused> {
        if self.changes_refused {
            return Err(Refused("the host is stopping".into()));
        }
        let process = self.index_of(&target.process)?;
        let kind = &self.types[process];
        let mut chosen: Vec<(u32, MemberId)> = kind
            .members
            .iter()
            .filter(|(_, place)| target.index.is_none_or(|index| index == place.index))
            .map(|(member, place)| (place.index, *member))
            .collect();
        chosen.sort_unstable();
        if let (Some(index), true) = (target.index, chosen.is_empty()) {
            return Err(Refused(format!(
                "there is no {}.{index}: {} has {} instances",
                target.process,
                target.process,
                kind.members.len()
            )));
        }
        for (_, member) in &chosen {
            self.restart_member(process, *member);
        }
        Ok(u32::try_from(chosen.len()).unwrap_or(u32::MAX))
    }

    fn restart_member(&mut self, process: usize, member: MemberId) {
        let kind = &mut self.types[process];
        match kind.members.get_mut(&member) {
            Some(Member { phase: Phase::Serving(_), .. }) => kind.replace(Due { member, asked_for: true }),
            // It was just about to be new.
            Some(Member { phase: Phase::Starting(_), .. }) | None => {}
            Some(place @ Member { phase: Phase::Backoff { .. }, .. }) => {
                place.failures = 0;
                self.start(process, member);
            }
        }
    }

    /// Starts as many of the successors that are due as there is room for.
    fn start_successors(&mut self) {
        if self.ended {
            return;
        }
        let taken: usize = self.types.iter().map(|kind| kind.successors.len() + kind.leaving.len()).sum();
        let room = usize::try_from(self.capacity.successors_max()).unwrap_or(usize::MAX);
        let mut room = room.saturating_sub(taken);
        for process in 0..self.types.len() {
            while room > 0
                && let Some((due, index)) = self.types[process].next_due()
            {
                let successor = Successor {
                    of: due.member,
                    index,
                    phase: Phase::Starting(Arc::default()),
                    failures: 0,
                    asked_for: due.asked_for,
                };
                let member = self.next_member;
                self.next_member += 1;
                self.types[process].successors.insert(member, successor);
                self.start(process, member);
                room -= 1;
            }
        }
    }

    /// How often it is looked whether instances are too old, if they can be.
    fn age_timer(&self) -> Option<Interval> {
        let shortest = self.types.iter().filter_map(|kind| kind.given.max_age).min()?;
        let mut timer = tokio::time::interval((shortest / 20).clamp(AGES_EVERY_MIN, AGES_EVERY_MAX));
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Some(timer)
    }

    fn replace_the_old(&mut self) {
        let now = Instant::now();
        for kind in &mut self.types {
            let mut old: Vec<(Instant, MemberId)> = Vec::new();
            for (member, place) in &kind.members {
                if let Phase::Serving(slot) = &place.phase
                    && slot.is_expired(now)
                {
                    old.push((slot.since, *member));
                }
            }
            old.sort_unstable();
            old.into_iter().for_each(|(_, member)| kind.replace(Due { member, asked_for: false }));
        }
    }

    // --- who asks

    fn answer_settled(&mut self) {
        let types = &self.types;
        let is_settled = |wanted: &Vec<usize>| wanted.iter().all(|process| types[*process].is_settled());
        let (settled, waiting) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(wanted, _)| is_settled(wanted));
        self.waiting = waiting;
        self.waiting.retain(|(_, reply)| !reply.is_closed());
        let settled: Vec<(Vec<usize>, oneshot::Sender<()>)> = settled;
        for (_, reply) in settled {
            let _ = reply.send(());
        }
    }

    fn index_of(&self, name: &str) -> Result<usize, Refused> {
        self.types.iter().position(|kind| &*kind.given.name == name).ok_or_else(|| {
            let known: Vec<_> = self.types.iter().map(|kind| &*kind.given.name).collect();
            Refused(unknown_type(name, &known))
        })
    }

    fn indexes_of(&self, names: &[String]) -> Vec<usize> {
        let all = 0..self.types.len();
        match names.is_empty() {
            true => all.collect(),
            false => all
                .filter(|process| names.iter().any(|name| **name == *self.types[*process].given.name))
                .collect(),
        }
    }
}

/// What a person is told who misspells a type.
pub(crate) fn unknown_type(name: &str, known: &[&str]) -> String {
    format!("there is no process type \"{name}\"; this formation has {}", known.join(", "))
}

/// Runs a command's `main` until it ends.
async fn run_main(instance: Instance, slot: Arc<Slot>, pool: Arc<Pool>, limits: CallLimits) {
    let report = instance.call_command(limits).await.report;
    let why = match &report.end {
        CallEnd::Returned(code) => format!("exited with code {code}"),
        end => end.summary(),
    };
    if let CallEnd::Trap(backtrace) = &report.end {
        warn!(instance = %slot.name, "trapped: {backtrace}");
    }
    pool.report(&slot, Ended::Exited(why));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_a_minute() {
        let whole: Vec<u64> = (0..9).map(|failures| backoff(failures).as_secs()).collect();
        assert_eq!(whole[..4], [0, 1, 2, 4]);
        assert!(whole[8] >= 60 && whole[8] <= 66, "{whole:?}");
    }

    #[test]
    fn a_backlog_follows_the_count_unless_it_was_set() {
        assert_eq!(Backlog::PerInstance(50).line_max(4), 200);
        assert_eq!(Backlog::PerInstance(50).line_max(0), 50);
        assert_eq!(Backlog::InAll(7).line_max(4), 7);
    }
}
