//! The instances of one type, and the bounded lines of calls that wait for one.
//!
//! ```text
//! admit -> idle <-> lent (a Lease) -> given back -> idle
//!                                  -> renewed (a fresh instance in the same place) -> idle
//!                                  -> ended (its call ended it, it has served long enough, or it was draining)
//! ```
//!
//! An idle instance goes to whoever waits longest; of several idle ones the one used last goes first, since its
//! memory is still in the processor's caches. A call that has to wait for a compute thread is promised one, and takes it
//! when its turn comes ([`Promise`]). Only the supervisor admits and drains. A lease gives back what it
//! holds when it is dropped, however that comes about.
//!
//! Where each call has a fresh instance, the pool makes it itself, as soon as the call before it is over and its
//! answer under way: the supervisor hears only of what goes wrong.

mod lease;
mod promise;
mod reuse;
mod seats;
mod slot;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{AcqRel, Relaxed, Release};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::task::TaskTracker;
use tracing::warn;
use wasmhost_engine::services::InstanceName;
use wasmhost_engine::{Component, Instance};

use crate::event::{Ended, Event, MemberId};
pub(crate) use lease::Lease;
pub(crate) use promise::Lent;
use promise::Promise;
pub(crate) use reuse::Need;
use reuse::Reuse;
use seats::{Left, Seats};
use slot::Life;
pub(crate) use slot::Slot;

/// See the module.
pub(crate) struct Pool {
    process: usize,
    name: Arc<str>,
    component: Component,
    keeping: Keeping,
    /// Each call has a fresh instance: the formation says so, the component can't do otherwise, or it was learned.
    fresh_each_call: AtomicBool,
    reuse: Reuse,
    inner: Mutex<Inner>,
    /// A call has left a line without an answer since they were last cleared of such. To look at each in a full line
    /// for each call that is refused would cost more than the refusal.
    left_line: AtomicBool,
    /// Rung when an instance, or a seat in one, is free and nobody is in the line: triggers that look for work wait
    /// for it.
    idle: Notify,
    /// Counts calls that are under way, and instances that start.
    calls: TaskTracker,
    /// Where instances start, whichever thread the call before was on.
    runtime: Handle,
    /// Unbounded, since each live instance has at most two events in it.
    events: mpsc::UnboundedSender<Event>,
}

/// What a pool is made with.
pub(crate) struct PoolParts {
    /// The type's place among the types.
    pub(crate) process: usize,
    pub(crate) name: Arc<str>,
    pub(crate) component: Component,
    pub(crate) keeping: Keeping,
    pub(crate) line_max: usize,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    pub(crate) calls: TaskTracker,
}

/// How long instances are kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keeping {
    pub(crate) fresh_each_call: bool,
    /// Whether instances turn out to be of no use after their first call.
    pub(crate) learns: bool,
    pub(crate) max_calls: Option<u64>,
    pub(crate) max_age: Option<Duration>,
    /// Calls that one instance serves at once.
    pub(crate) concurrency: u32,
}

struct Inner {
    /// The one used last is last.
    idle: Vec<Idle>,
    /// Those that serve and don't drain, idle or lent.
    live: HashMap<MemberId, Arc<Slot>>,
    seats: Seats,
    line: VecDeque<Waiting>,
    /// Calls that need an instance that was not called yet: they go before the others.
    fresh_line: VecDeque<Waiting>,
    line_max: usize,
    /// Calls that were promised one of those that are idle. There may be more than are idle once some of these had to
    /// leave.
    promised: usize,
    outlook: Outlook,
}

type Waiting = oneshot::Sender<Result<Lent, NoInstance>>;

/// Where in the line a call waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Behind the others, if there is room.
    Last,
    /// It was admitted before, and goes first.
    First,
}

/// Held by a call while it waits. Where it's dropped before there is an answer, what is in the line for it is of no
/// use.
struct PlaceInLine<'a> {
    left: &'a AtomicBool,
    is_answered: bool,
}

impl Drop for PlaceInLine<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.left.store(true, Release);
        }
    }
}

struct Idle {
    instance: Instance,
    slot: Arc<Slot>,
    /// Calls that it has served.
    served: u64,
}

/// Whether a call that waits has something to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// There are instances, or there will be in a moment.
    Good,
    /// The count is 0.
    NoCount,
    /// Every instance failed to start, and waits to be tried again.
    AllInBackoff,
}

/// Why a call got no instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoInstance {
    /// As many calls wait as may.
    LineFull,
    /// It waited as long as it may.
    TimedOut,
    /// The count is 0.
    NoCount,
    /// Every instance failed to start, and waits to be tried again.
    AllInBackoff,
}

impl NoInstance {
    /// For the log.
    pub(crate) fn summary(self) -> &'static str {
        match self {
            NoInstance::LineFull => "as many requests wait as may",
            NoInstance::TimedOut => "it waited for an instance for as long as it may",
            NoInstance::NoCount => "there are no instances: the count is 0",
            NoInstance::AllInBackoff => "every instance fails to start",
        }
    }
}

impl Pool {
    /// To be called where instances will start: on the runtime of the I/O threads.
    pub(crate) fn new(parts: PoolParts) -> Arc<Pool> {
        let PoolParts { process, name, component, keeping, line_max, events, calls } = parts;
        let inner = Inner {
            idle: Vec::new(),
            live: HashMap::new(),
            seats: Seats::new(keeping.concurrency),
            line: VecDeque::new(),
            fresh_line: VecDeque::new(),
            line_max,
            promised: 0,
            outlook: Outlook::Good,
        };
        Arc::new(Pool {
            process,
            name,
            component,
            keeping,
            fresh_each_call: AtomicBool::new(keeping.fresh_each_call),
            reuse: Reuse::new(keeping.learns && !keeping.fresh_each_call),
            inner: Mutex::new(inner),
            left_line: AtomicBool::new(false),
            idle: Notify::new(),
            calls,
            runtime: Handle::current(),
            events,
        })
    }

    /// An instance for one call. Waits in the line for at most `wait_max`.
    pub(crate) async fn lend(self: &Arc<Self>, need: Need, wait_max: Duration) -> Result<Lease, NoInstance> {
        match self.lend_in_turn(need, wait_max).await? {
            Lent::Now(lease) => Ok(lease),
            Lent::InTurn(promise) => promise.redeem(wait_max).await,
        }
    }

    /// The same for a call that may begin on the compute threads ([`Pool::on_compute`]): where calls of the type compute
    /// for long, it gets its instance there.
    pub(crate) async fn lend_in_turn(
        self: &Arc<Self>,
        need: Need,
        wait_max: Duration,
    ) -> Result<Lent, NoInstance> {
        self.lend_from(Place::Last, need, wait_max).await
    }

    async fn lend_from(
        self: &Arc<Self>,
        place: Place,
        need: Need,
        wait_max: Duration,
    ) -> Result<Lent, NoInstance> {
        let waiting = {
            let mut inner = self.lock();
            if let Some(lent) = self.lend_idle(&mut inner, need) {
                return Ok(lent);
            }
            if need != Need::Fresh
                && let Some(lease) = self.lend_seat(&mut inner)
            {
                return Ok(Lent::Now(lease));
            }
            match inner.outlook {
                Outlook::NoCount => return Err(NoInstance::NoCount),
                Outlook::AllInBackoff => return Err(NoInstance::AllInBackoff),
                Outlook::Good => {}
            }
            if place == Place::Last && inner.places_taken() >= inner.line_max {
                if self.left_line.swap(false, AcqRel) {
                    inner.line.retain(|waiting| !waiting.is_closed());
                    inner.fresh_line.retain(|waiting| !waiting.is_closed());
                }
                if inner.places_taken() >= inner.line_max {
                    return Err(NoInstance::LineFull);
                }
            }
            let (sender, receiver) = oneshot::channel();
            match need {
                Need::Any | Need::RatherFresh => match place {
                    Place::Last => inner.line.push_back(sender),
                    Place::First => inner.line.push_front(sender),
                },
                Need::Fresh => {
                    inner.fresh_line.push_back(sender);
                    // Those that are idle have been called: one makes room.
                    if inner.free() > 0
                        && let Some(idle) = inner.idle.pop()
                    {
                        self.renew(idle.slot, Some(idle.instance));
                    }
                }
            }
            receiver
        };
        // Dropped after what waits, also where the client has gone.
        let mut place = PlaceInLine { left: &self.left_line, is_answered: false };
        match tokio::time::timeout(wait_max, waiting).await {
            Ok(answer) => {
                place.is_answered = true;
                answer.unwrap_or(Err(NoInstance::NoCount))
            }
            Err(_) => Err(NoInstance::TimedOut),
        }
    }

    /// An idle instance, or a seat in one that is busy, if there is one now.
    pub(crate) fn try_lend(self: &Arc<Self>) -> Option<Lease> {
        let mut inner = self.lock();
        let idle = if inner.free() > 0 { self.lend_last(&mut inner) } else { None };
        idle.or_else(|| self.lend_seat(&mut inner))
    }

    /// An idle instance, if there is one now, for a call that no other may join.
    pub(crate) fn try_lend_alone(self: &Arc<Self>) -> Option<Lease> {
        let mut inner = self.lock();
        // Its seats are not opened.
        if inner.free() > 0 { inner.idle.pop().map(|idle| Lease::new(self, idle)) } else { None }
    }

    /// Calls that could begin now.
    pub(crate) fn free(&self) -> usize {
        let inner = self.lock();
        inner.free().saturating_add(inner.seats.free())
    }

    /// Ends when there may be room for a call. For one to wait for: it is told once of all the room that there is.
    pub(crate) async fn room(&self) {
        self.idle.notified().await;
    }

    /// One of the idle instances that weren't promised to others.
    fn lend_idle(self: &Arc<Self>, inner: &mut Inner, need: Need) -> Option<Lent> {
        if inner.free() == 0 {
            return None;
        }
        let fresh = || inner.idle.iter().rposition(|idle| idle.served == 0);
        let at = match need {
            Need::Any if self.component.is_long() => {
                inner.promised += 1;
                return Some(Lent::InTurn(Promise::new(self)));
            }
            Need::Any => inner.idle.len().checked_sub(1),
            Need::RatherFresh => fresh().or(inner.idle.len().checked_sub(1)),
            Need::Fresh => fresh(),
        };
        at.map(|at| Lent::Now(self.lend_at(inner, at)))
    }

    /// The idle instance that was used last.
    fn lend_last(self: &Arc<Self>, inner: &mut Inner) -> Option<Lease> {
        inner.idle.len().checked_sub(1).map(|at| self.lend_at(inner, at))
    }

    fn lend_at(self: &Arc<Self>, inner: &mut Inner, at: usize) -> Lease {
        let idle = inner.idle.remove(at);
        if !self.is_fresh_each_call() {
            inner.seats.open(&idle);
        }
        Lease::new(self, idle)
    }

    fn lend_seat(self: &Arc<Self>, inner: &mut Inner) -> Option<Lease> {
        inner.seats.take().map(|seat| Lease::new(self, seat))
    }

    /// A call has left others behind in its instance: its seat is for whoever waits longest.
    fn fill_seats(self: &Arc<Self>) {
        loop {
            let mut inner = self.lock();
            if inner.line.is_empty() {
                drop(inner);
                self.idle.notify_one();
                return;
            }
            let Some(lease) = self.lend_seat(&mut inner) else { return };
            let waiting = inner.line.pop_front();
            drop(inner);
            let Some(waiting) = waiting else { return };
            match waiting.send(Ok(Lent::Now(lease))) {
                // The other side has gone in the meantime: the lease comes back, and with it the seat.
                Err(Ok(Lent::Now(back))) => back.leave_unused(),
                _ => return,
            }
        }
    }

    fn leave_seat(&self, slot: &Slot, failed: Option<Ended>) -> Left {
        self.lock().seats.leave(slot, failed)
    }

    /// A new instance serves from now on and, where it replaces one, that one doesn't any more: it leaves when its
    /// call is over.
    pub(crate) fn admit(
        self: &Arc<Self>,
        slot: Arc<Slot>,
        instance: Instance,
        instead_of: Option<&Arc<Slot>>,
    ) {
        let replaced = {
            let mut inner = self.lock();
            inner.live.insert(slot.member, slot.clone());
            instead_of.and_then(|old| inner.take_out(old))
        };
        if let Some(idle) = replaced {
            self.leave(idle.slot, Some(idle.instance), Ended::Drained);
        }
        self.put(Idle { instance, slot, served: 0 });
    }

    /// A new instance that is never lent: it runs its `main`.
    pub(crate) fn admit_running(&self, slot: Arc<Slot>) {
        slot.busy.store(true, Relaxed);
        self.lock().live.insert(slot.member, slot);
    }

    /// What a new instance is admitted with.
    pub(crate) fn slot(&self, member: MemberId, index: u32, instance: &Instance) -> Arc<Slot> {
        let Keeping { max_calls, max_age, .. } = self.keeping;
        let name = InstanceName { process: self.name.clone(), index };
        Slot::new(member, name, instance, Life::begin(max_calls, max_age))
    }

    /// Keeps an instance for a call that comes, or gives it to whoever waits longest.
    fn put(self: &Arc<Self>, idle: Idle) {
        self.give(Some(idle));
    }

    /// The same where an instance is there already.
    fn give(self: &Arc<Self>, mut new: Option<Idle>) {
        loop {
            let given = {
                let mut inner = self.lock();
                if let Some(idle) = new.take() {
                    if idle.slot.is_draining() {
                        drop(inner);
                        return self.leave(idle.slot, Some(idle.instance), Ended::Drained);
                    }
                    let used = idle.served > 0;
                    let no_use = used && (self.is_fresh_each_call() || !inner.fresh_line.is_empty());
                    if no_use {
                        drop(inner);
                        return self.renew(idle.slot, Some(idle.instance));
                    }
                    idle.slot.busy.store(false, Relaxed);
                    inner.idle.push(idle);
                }
                self.match_up(&mut inner)
            };
            let Some((waiting, lent)) = given else { return self.idle.notify_one() };
            match waiting.send(Ok(lent)) {
                // It has gone in the meantime.
                Err(Ok(Lent::Now(lease))) => match lease.into_idle() {
                    Some(back) => new = Some(back),
                    None => return,
                },
                Err(Ok(Lent::InTurn(promise))) => promise.withdraw(),
                Ok(()) | Err(Err(_)) => return,
            }
        }
    }

    /// Who waits longest for one of the instances that are there, and that.
    fn match_up(self: &Arc<Self>, inner: &mut Inner) -> Option<(Waiting, Lent)> {
        if !inner.fresh_line.is_empty()
            && let Some(lent) = self.lend_idle(inner, Need::Fresh)
        {
            return inner.fresh_line.pop_front().map(|waiting| (waiting, lent));
        }
        if inner.line.is_empty() {
            return None;
        }
        let lent = self.lend_idle(inner, Need::Any)?;
        inner.line.pop_front().map(|waiting| (waiting, lent))
    }

    /// Puts a fresh instance in a place whose own is of no use any more. On a thread that serves requests this
    /// runs when the answer is written: the task is next on the same thread.
    fn renew(self: &Arc<Self>, slot: Arc<Slot>, used: Option<Instance>) {
        let pool = self.clone();
        let renewing = async move {
            if let Some(used) = used {
                used.discard().await;
            }
            let meter = slot.next_meter();
            match pool.component.start(slot.name.index, meter).await {
                Ok(instance) => pool.put(Idle { instance, slot, served: 0 }),
                Err(end) => pool.report(&slot, Ended::FailedToStart(end.summary())),
            }
        };
        self.calls.spawn_on(renewing, &self.runtime);
    }

    /// An instance leaves: it is freed, and then reported.
    fn leave(self: &Arc<Self>, slot: Arc<Slot>, instance: Option<Instance>, how: Ended) {
        let large = match instance {
            Some(instance) if instance.is_large() => instance,
            small => {
                drop(small);
                return self.report(&slot, how);
            }
        };
        let pool = self.clone();
        let leaving = async move {
            large.discard().await;
            pool.report(&slot, how);
        };
        self.calls.spawn_on(leaving, &self.runtime);
    }

    /// An instance is gone.
    pub(crate) fn report(&self, slot: &Slot, how: Ended) {
        self.lock().live.remove(&slot.member);
        // Nobody listens once the host is going.
        let _ = self.events.send(Event::Ended { process: self.process, member: slot.member, how });
    }

    fn is_fresh_each_call(&self) -> bool {
        self.fresh_each_call.load(Relaxed)
    }

    /// Makes a call on the compute threads, as soon as it's the type's turn there. It is dropped, there, when this is.
    pub(crate) async fn on_compute<T: Send + 'static>(
        &self,
        call: impl Future<Output = T> + Send + 'static,
    ) -> T {
        self.component.on_compute(call).await
    }

    // --- what is learned of reuse

    /// What a request needs that can, or can't, be repeated should its instance fail.
    pub(crate) fn need(&self, repeatable: bool) -> Need {
        self.reuse.need(repeatable)
    }

    /// A reused instance crashed with a request that a fresh one has served.
    pub(crate) fn was_repeated(self: &Arc<Self>, failed: Reused) {
        if failed == Reused::Once && self.reuse.died_and_was_repeated() {
            self.give_up_reuse();
        }
    }

    /// A reused instance crashed with a request that can't be repeated.
    pub(crate) fn was_not_repeated(&self, failed: Reused) {
        if failed == Reused::Once {
            self.reuse.died_for_good();
        }
    }

    /// A request that needed a fresh instance went well.
    pub(crate) fn was_served_fresh(self: &Arc<Self>) {
        if self.reuse.served_fresh() {
            self.give_up_reuse();
        }
    }

    fn give_up_reuse(self: &Arc<Self>) {
        self.fresh_each_call.store(true, Relaxed);
        warn!(
            "{name}: its instances crash on their second call, so that each call gets a fresh one from now on, which is slower. Should that be as it is, write isolation = \"call\" under [process.{name}]; isolation = \"instance\" keeps them nevertheless",
            name = self.name
        );
        let (used, unused) = {
            let mut inner = self.lock();
            std::mem::take(&mut inner.idle).into_iter().partition(|idle| idle.served > 0)
        };
        let used: Vec<Idle> = used;
        let unused: Vec<Idle> = unused;
        unused.into_iter().for_each(|idle| self.put(idle));
        used.into_iter().for_each(|idle| self.renew(idle.slot, Some(idle.instance)));
    }

    // --- what the supervisor wants

    /// Asks `count` instances to leave: idle ones first, then the highest index. Those that are idle have left when
    /// this returns; the others finish their call. Returns all of them.
    pub(crate) fn drain(self: &Arc<Self>, count: usize) -> Vec<Arc<Slot>> {
        let mut slots: Vec<_> = self.lock().live.values().cloned().collect();
        slots.sort_by_key(|slot| (slot.is_busy(), std::cmp::Reverse(slot.name.index)));
        slots.truncate(count);
        slots.iter().for_each(|slot| self.drain_one(slot));
        slots
    }

    /// Asks this instance to leave.
    pub(crate) fn drain_one(self: &Arc<Self>, slot: &Arc<Slot>) {
        let idle = self.lock().take_out(slot);
        if let Some(idle) = idle {
            self.leave(idle.slot, Some(idle.instance), Ended::Drained);
        }
    }

    /// Says what calls that find no idle instance have to expect, and sends those that wait away where it's nothing.
    pub(crate) fn set_outlook(&self, outlook: Outlook) {
        let refused = match outlook {
            Outlook::Good => None,
            Outlook::NoCount => Some(NoInstance::NoCount),
            Outlook::AllInBackoff => Some(NoInstance::AllInBackoff),
        };
        let lines = {
            let mut inner = self.lock();
            inner.outlook = outlook;
            if refused.is_none() {
                return;
            }
            [std::mem::take(&mut inner.fresh_line), std::mem::take(&mut inner.line)]
        };
        if let Some(refused) = refused {
            for waiting in lines.into_iter().flatten() {
                let _ = waiting.send(Err(refused));
            }
        }
    }

    /// Calls that may wait from now on.
    pub(crate) fn set_line_max(&self, line_max: usize) {
        self.lock().line_max = line_max;
    }

    /// Calls that wait. Those that have given up keep their place in the line until somebody needs it.
    pub(crate) fn waiting(&self) -> usize {
        let inner = self.lock();
        inner.line.iter().chain(&inner.fresh_line).filter(|waiting| !waiting.is_closed()).count()
    }

    /// Those that serve and don't drain.
    pub(crate) fn live(&self) -> usize {
        self.lock().live.len()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code that runs under the lock panics; were it to, the lists would still be whole.
        self.inner.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl Inner {
    /// Idle instances that weren't promised.
    fn free(&self) -> usize {
        self.idle.len().saturating_sub(self.promised)
    }

    /// Those in the line, also of calls that have given up.
    fn places_taken(&self) -> usize {
        self.line.len() + self.fresh_line.len()
    }

    /// It serves no more. Returns it where it's idle; otherwise whoever has it finds out.
    fn take_out(&mut self, slot: &Slot) -> Option<Idle> {
        slot.draining.store(true, Relaxed);
        self.live.remove(&slot.member);
        let at = self.idle.iter().position(|idle| idle.slot.member == slot.member);
        at.map(|at| self.idle.remove(at))
    }
}

/// How often an instance had been called before the call that it is lent for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reused {
    Not,
    Once,
    Often,
}
