//! The instances of one type, and the bounded lines of calls that wait for one.
//!
//! ```text
//! admit -> idle <-> lent (a Lease) -> given back -> idle
//!                                  -> renewed (a fresh instance in the same place) -> idle
//!                                  -> ended (its call ended it, it has served long enough, or it was draining)
//! ```
//!
//! The [`line`] decides who gets which instance; here its decisions are carried out. A call that has to wait for a
//! compute thread is promised an instance, and takes it when its turn comes ([`Promise`]). Only the supervisor admits
//! and drains. A lease gives back what it holds when it is dropped, however that comes about.
//!
//! Where each call has a fresh instance, the pool makes it itself, as soon as the call before it is over and its
//! answer under way: the supervisor hears only of what goes wrong.

mod learned;
mod learning;
mod lease;
mod line;
mod outlook;
mod promise;
mod reuse;
mod seats;
mod shortage;
mod slot;
mod version;
mod whole;

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{AcqRel, Relaxed, Release};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::task::TaskTracker;
use wasmhost_engine::Instance;
use wasmhost_engine::services::InstanceName;

use crate::deaths::Death;
use crate::event::{Ended, Event, MemberId};
use crate::few_lines::FewLines;
use crate::measures::TypeCounts;
pub(crate) use learned::{Learned, Subject};
pub(crate) use lease::{Lease, Reused};
use line::{Asked, Handed, Held, Line, Put, Turn};
pub(crate) use line::{Need, NoInstance, Outlook};
pub(crate) use promise::Lent;
use promise::Promise;
use seats::Left;
use slot::Life;
pub(crate) use slot::Slot;
pub(crate) use version::{Keeping, Version};
use whole::{Waiting, Whole};

/// See the module.
pub(crate) struct Pool {
    type_index: usize,
    name: Arc<str>,
    /// The version that instances are started of.
    version: ArcSwap<Version>,
    learned: Arc<Learned>,
    pub(crate) counts: Arc<TypeCounts>,
    inner: Mutex<Inner>,
    /// A call has left a line without an answer since they were last cleared of such.
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
    shortages: Arc<FewLines<()>>,
}

/// The parts that a pool is made with.
pub(crate) struct PoolParts {
    /// The type's place among the types.
    pub(crate) type_index: usize,
    pub(crate) name: Arc<str>,
    pub(crate) version: Arc<Version>,
    /// The facts known of components.
    pub(crate) learned: Arc<Learned>,
    /// Those of the type, whichever pools it had before or has beside this one.
    pub(crate) counts: Arc<TypeCounts>,
    pub(crate) line_max: usize,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    pub(crate) calls: TaskTracker,
}

struct Inner {
    line: Line<Whole, Waiting>,
    /// Those that serve and don't drain, idle or lent, with the releases whose versions they are of.
    live: HashMap<MemberId, u64>,
}

/// Held by a call while it waits. Where it's dropped before there is an answer, what is in the line for it is of no
/// use.
struct InLine<'a> {
    left: &'a AtomicBool,
    is_answered: bool,
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.left.store(true, Release);
        }
    }
}

impl Pool {
    /// To be called where instances will start: on the runtime of the I/O threads.
    pub(crate) fn new(parts: PoolParts) -> Arc<Pool> {
        let PoolParts { type_index, name, version, learned, counts, line_max, events, calls } = parts;
        let inner = Inner { line: Line::new(line_max), live: HashMap::new() };
        let shortages = shortage::lines(name.clone());
        let pool = Arc::new(Pool {
            type_index,
            name,
            version: ArcSwap::new(version),
            learned,
            counts,
            inner: Mutex::new(inner),
            left_line: AtomicBool::new(false),
            idle: Notify::new(),
            calls,
            runtime: Handle::current(),
            events,
            shortages,
        });
        pool.warn_of_one_call(&pool.version());
        pool
    }

    /// The version that instances are started of.
    pub(crate) fn version(&self) -> Arc<Version> {
        self.version.load_full()
    }

    /// Instances are started of this version from now on. Those that are there stay.
    pub(crate) fn set_version(&self, version: Arc<Version>) {
        self.warn_of_one_call(&version);
        self.version.store(version);
    }

    fn warn_of_one_call(&self, version: &Version) {
        if version.is_known_for_one_call {
            self.warn_of_single_use();
        }
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
        self.lend_from(Turn::Last, need, wait_max).await
    }

    async fn lend_from(
        self: &Arc<Self>,
        turn: Turn,
        need: Need,
        wait_max: Duration,
    ) -> Result<Lent, NoInstance> {
        // One with a promise was counted when it came.
        let is_new = turn != Turn::First;
        let (waiting, renew, has_room) = {
            let mut inner = self.lock();
            let some_have_gone = || self.left_line.swap(false, AcqRel);
            let (turn, renew) = match inner.line.ask(need, turn, self.is_by_promise(), some_have_gone) {
                Asked::Handed(handed) => {
                    let lent = self.lent(handed);
                    drop(inner);
                    if is_new && matches!(lent, Lent::Now(_)) {
                        self.counts.requests.waited(Duration::ZERO);
                    }
                    return Ok(lent);
                }
                Asked::Refused(none) => return Err(none),
                Asked::Wait { turn, renew } => (turn, renew),
            };
            let (sender, waiting) = oneshot::channel();
            inner.line.wait(turn, sender);
            (waiting, renew, inner.line.room() > 0)
        };
        let asked = Instant::now();
        // Dropped after what waits, also where the client has gone.
        let mut in_line = InLine { left: &self.left_line, is_answered: false };
        if let Some(held) = renew {
            self.renew(held.instance.slot, Some(held.instance.instance), Renewal::ForCall);
        }
        if has_room {
            self.hand_out();
        }
        let answer = match tokio::time::timeout(wait_max, waiting).await {
            Ok(answer) => {
                in_line.is_answered = true;
                answer.unwrap_or(Err(NoInstance::NoCount))
            }
            Err(_) => Err(NoInstance::TimedOut),
        };
        match answer {
            Ok(Lent::InTurn(promise)) => Ok(Lent::InTurn(promise.asked_at(asked))),
            answer => {
                if is_new {
                    self.counts.requests.waited(asked.elapsed());
                }
                answer
            }
        }
    }

    /// An idle instance, or a seat in one that is busy, if there is one now and nobody waits for it.
    pub(crate) fn try_lend(self: &Arc<Self>) -> Option<Lease> {
        let held = self.lock().line.try_lend();
        held.map(|held| Lease::new(self, held))
    }

    /// An idle instance, if there is one now, for a call that no other may join.
    pub(crate) fn try_lend_alone(self: &Arc<Self>) -> Option<Lease> {
        let held = self.lock().line.try_lend_alone();
        held.map(|held| Lease::new(self, held))
    }

    /// Calls that could begin now.
    pub(crate) fn free(&self) -> usize {
        self.lock().line.room()
    }

    /// Ends when there may be room for a call. For one to wait for: it is told once of all the room that there is.
    pub(crate) async fn room(&self) {
        self.idle.notified().await;
    }

    /// Calls of the type compute for long: they are promised an instance, and take it when their turn comes.
    fn is_by_promise(&self) -> bool {
        self.version.load().component.is_long()
    }

    /// The instance or promise that the line has handed out, as calls have it.
    fn lent(self: &Arc<Self>, handed: Handed<Whole>) -> Lent {
        match handed {
            Handed::Instance(held) => Lent::Now(Lease::new(self, held)),
            Handed::Promise => Lent::InTurn(Promise::new(self)),
        }
    }

    // --- what comes back

    fn leave_seat(&self, slot: &Slot, failed: Option<Ended>) -> Left {
        self.lock().line.leave(slot.member, failed)
    }

    /// A new instance serves from now on and, where it replaces one, that one doesn't any more: it leaves when its
    /// call is over.
    pub(crate) fn admit(
        self: &Arc<Self>,
        slot: Arc<Slot>,
        instance: Instance,
        instead_of: Option<&Arc<Slot>>,
    ) {
        self.lock().live.insert(slot.member, slot.version.release);
        if let Some(replaced) = instead_of {
            self.drain(std::slice::from_ref(replaced));
        }
        self.put(Held { instance: Whole { instance, slot }, served: 0 });
    }

    /// A new instance that is never lent: it runs its `main`.
    pub(crate) fn admit_running(&self, slot: Arc<Slot>) {
        slot.busy.store(true, Relaxed);
        self.lock().live.insert(slot.member, slot.version.release);
    }

    /// The slot that a new instance of this version is admitted with.
    pub(crate) fn slot(
        &self,
        member: MemberId,
        index: u32,
        instance: &Instance,
        version: Arc<Version>,
    ) -> Arc<Slot> {
        let Keeping { max_calls, max_age, .. } = version.keeping;
        let name = InstanceName { process: self.name.clone(), index };
        Slot::new(member, name, instance, version, Life::begin(max_calls, max_age))
    }

    /// Keeps an instance for a call that comes, or hands it to the calls that wait.
    fn put(self: &Arc<Self>, held: Held<Whole>) {
        held.instance.slot.busy.store(false, Relaxed);
        let (put, next) = {
            let mut inner = self.lock();
            (inner.line.put(held), inner.line.next(self.is_by_promise()))
        };
        self.carry_out(put);
        self.hand_out_from(next);
    }

    /// The same for a caller that hands out itself.
    fn put_back(self: &Arc<Self>, held: Held<Whole>) {
        held.instance.slot.busy.store(false, Relaxed);
        let put = self.lock().line.put(held);
        self.carry_out(put);
    }

    fn carry_out(self: &Arc<Self>, put: Put<Whole>) {
        match put {
            Put::Kept => {}
            Put::Renew(Held { instance: Whole { instance, slot }, .. }) => {
                self.renew(slot, Some(instance), Renewal::ForCall);
            }
            Put::Leaves(Held { instance: Whole { instance, slot }, .. }) => {
                self.leave(slot, Some(instance), Ended::Drained);
            }
        }
    }

    /// Hands what is free to the calls that wait.
    fn hand_out(self: &Arc<Self>) {
        let next = self.lock().line.next(self.is_by_promise());
        self.hand_out_from(next);
    }

    fn hand_out_from(self: &Arc<Self>, mut next: Option<(Waiting, Handed<Whole>)>) {
        while let Some((waiting, handed)) = next {
            match waiting.send(Ok(self.lent(handed))) {
                Ok(()) | Err(Err(_)) => {}
                // It has gone in the meantime, and what it was handed is for the next one.
                Err(Ok(Lent::Now(lease))) => lease.put_back(),
                Err(Ok(Lent::InTurn(promise))) => promise.withdraw(),
            }
            next = self.lock().line.next(self.is_by_promise());
        }
        self.idle.notify_one();
    }

    /// Puts a fresh instance in a place whose own is of no use any more. On a thread that serves requests this
    /// runs when the answer is written: the task is next on the same thread.
    fn renew(self: &Arc<Self>, slot: Arc<Slot>, used: Option<Instance>, renewal: Renewal) {
        let pool = self.clone();
        slot.busy.store(true, Relaxed);
        let renewing = async move {
            if let Some(used) = used {
                used.discard().await;
            }
            let meter = slot.next_meter();
            let started = slot.version.component.start(slot.name.index, meter).await;
            if renewal == Renewal::ForCall {
                pool.lock().line.renewed();
            }
            match started {
                Ok(instance) => {
                    pool.counts.requests.started_fresh();
                    pool.put(Held { instance: Whole { instance, slot }, served: 0 });
                }
                Err(end) => pool.report(&slot, Ended::FailedToStart(Death::of(&end))),
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
        let _ = self.events.send(Event::Ended { type_index: self.type_index, member: slot.member, how });
    }

    /// Makes a call on the compute threads, as soon as it's the type's turn there. It is dropped, there, when this is.
    pub(crate) async fn on_compute<T: Send + 'static>(
        &self,
        call: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let version = self.version();
        version.component.on_compute(call).await
    }

    // --- what the supervisor wants

    /// Asks these instances to leave. Those that are idle have left when this returns; the others finish their calls.
    pub(crate) fn drain(self: &Arc<Self>, slots: &[Arc<Slot>]) {
        if slots.is_empty() {
            return;
        }
        let idle = {
            let mut inner = self.lock();
            for slot in slots {
                slot.draining.store(true, Relaxed);
                inner.live.remove(&slot.member);
            }
            inner.line.take_leaving()
        };
        for Held { instance: Whole { instance, slot }, .. } in idle {
            self.leave(slot, Some(instance), Ended::Drained);
        }
    }

    /// No call waits from now on: those that do are sent away, as all are that find nothing free.
    pub(crate) fn close_line(&self) {
        let sent_away = self.lock().line.close();
        for waiting in sent_away {
            let _ = waiting.send(Err(NoInstance::LineFull));
        }
    }

    /// Calls may wait again.
    pub(crate) fn open_line(&self) {
        self.lock().line.open();
    }

    /// Calls that may wait from now on.
    pub(crate) fn set_line_max(&self, line_max: usize) {
        self.lock().line.set_calls_max(line_max);
    }

    /// Calls that wait. Those that have given up keep their place in the line until somebody needs it.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().line.waiting()
    }

    /// Calls in a lent instance.
    pub(crate) fn calls_in(&self, member: MemberId) -> u32 {
        self.lock().line.calls_in(member)
    }

    /// Those that serve and don't drain.
    pub(crate) fn live(&self) -> usize {
        self.lock().live.len()
    }

    /// Whether instances of another version than this release's serve too: the type is moving.
    pub(crate) fn has_other_than(&self, release: u64) -> bool {
        self.lock().live.values().any(|other| *other != release)
    }

    /// Whether instances of this release's version serve.
    pub(crate) fn has(&self, release: u64) -> bool {
        self.lock().live.values().any(|version| *version == release)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code that runs under the lock panics; were it to, the lists would still be whole.
        self.inner.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

/// Why an instance is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Renewal {
    /// Each call has a fresh one.
    EachCall,
    /// The line wants it.
    ForCall,
}
