//! The instances of one type, and the bounded line of calls that wait for one.
//!
//! ```text
//! admit -> idle <-> lent (a Lease) -> given back -> idle
//!                                  -> ended (its call ended it, or it was draining)
//! ```
//!
//! An idle instance goes to whoever waits longest; of several idle ones the one used last goes first, since its
//! memory is still in the processor's caches. Only the supervisor admits and drains. A lease gives back what it
//! holds when it is dropped, however that comes about.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use wasmhost_engine::services::InstanceName;
use wasmhost_engine::{CallEnd, Finished, Instance, Meter};

use crate::event::{Ended, Event, MemberId};

/// An instance as others see it while it serves.
pub(crate) struct Slot {
    pub(crate) member: MemberId,
    pub(crate) name: InstanceName,
    pub(crate) meter: Arc<Meter>,
    pub(crate) since: Instant,
    pub(crate) calls: AtomicU64,
    pub(crate) busy: AtomicBool,
    /// Set under the pool's lock; whoever gives the instance back sees it there.
    draining: AtomicBool,
}

impl Slot {
    pub(crate) fn new(member: MemberId, name: InstanceName, instance: &Instance) -> Arc<Slot> {
        Arc::new(Slot {
            member,
            name,
            meter: instance.meter().clone(),
            since: Instant::now(),
            calls: AtomicU64::new(0),
            busy: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        })
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Relaxed)
    }
}

/// See the module.
pub(crate) struct Pool {
    process: usize,
    inner: Mutex<Inner>,
    /// Rung when an instance becomes idle and nobody is in the line: triggers that look for work wait for it.
    idle: Notify,
    /// Counts calls that are under way.
    calls: TaskTracker,
    /// Unbounded, since each live instance has at most one event in it.
    events: mpsc::UnboundedSender<Event>,
}

struct Inner {
    /// The one used last is last.
    idle: Vec<Idle>,
    /// Those that serve and don't drain, idle or lent.
    live: HashMap<MemberId, Arc<Slot>>,
    line: VecDeque<oneshot::Sender<Result<Lease, NoInstance>>>,
    line_max: usize,
    outlook: Outlook,
}

struct Idle {
    instance: Instance,
    slot: Arc<Slot>,
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

impl Pool {
    pub(crate) fn new(
        process: usize,
        line_max: usize,
        events: mpsc::UnboundedSender<Event>,
        calls: TaskTracker,
    ) -> Arc<Pool> {
        let inner = Inner {
            idle: Vec::new(),
            live: HashMap::new(),
            line: VecDeque::new(),
            line_max,
            outlook: Outlook::Good,
        };
        Arc::new(Pool { process, inner: Mutex::new(inner), idle: Notify::new(), calls, events })
    }

    /// An instance for one call. Waits in the line for at most `wait_max`.
    pub(crate) async fn lend(self: &Arc<Self>, wait_max: Duration) -> Result<Lease, NoInstance> {
        let waiting = {
            let mut inner = self.lock();
            if let Some(lease) = self.lend_idle(&mut inner) {
                return Ok(lease);
            }
            match inner.outlook {
                Outlook::NoCount => return Err(NoInstance::NoCount),
                Outlook::AllInBackoff => return Err(NoInstance::AllInBackoff),
                Outlook::Good => {}
            }
            if inner.line.len() >= inner.line_max {
                // Those whose clients have gone don't count.
                inner.line.retain(|waiting| !waiting.is_closed());
                if inner.line.len() >= inner.line_max {
                    return Err(NoInstance::LineFull);
                }
            }
            let (sender, receiver) = oneshot::channel();
            inner.line.push_back(sender);
            receiver
        };
        match tokio::time::timeout(wait_max, waiting).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(NoInstance::NoCount),
            Err(_) => Err(NoInstance::TimedOut),
        }
    }

    /// An idle instance, if there is one now.
    pub(crate) fn try_lend(self: &Arc<Self>) -> Option<Lease> {
        self.lend_idle(&mut self.lock())
    }

    /// Waits for an idle instance, for as long as it takes, behind every call in the line.
    pub(crate) async fn lend_when_idle(self: &Arc<Self>) -> Lease {
        loop {
            let idle = self.idle.notified();
            if let Some(lease) = self.try_lend() {
                return lease;
            }
            idle.await;
        }
    }

    fn lend_idle(self: &Arc<Self>, inner: &mut Inner) -> Option<Lease> {
        inner.idle.pop().map(|idle| self.lease(idle))
    }

    fn lease(self: &Arc<Self>, idle: Idle) -> Lease {
        idle.slot.busy.store(true, Relaxed);
        Lease {
            pool: self.clone(),
            slot: idle.slot,
            instance: Some(idle.instance),
            settled: false,
            _call: self.calls.token(),
        }
    }

    /// A new instance serves from now on.
    pub(crate) fn admit(self: &Arc<Self>, slot: Arc<Slot>, instance: Instance) {
        self.lock().live.insert(slot.member, slot.clone());
        self.put(Idle { instance, slot });
    }

    /// A new instance that is never lent: it runs its `main`.
    pub(crate) fn admit_running(&self, slot: Arc<Slot>) {
        slot.busy.store(true, Relaxed);
        self.lock().live.insert(slot.member, slot);
    }

    /// Gives an instance to whoever waits longest, or keeps it.
    fn put(self: &Arc<Self>, mut idle: Idle) {
        loop {
            let waiting = {
                let mut inner = self.lock();
                if idle.slot.draining.load(Relaxed) {
                    drop(inner);
                    return self.ended(idle, Ended::Drained);
                }
                match inner.line.pop_front() {
                    Some(waiting) => waiting,
                    None => {
                        idle.slot.busy.store(false, Relaxed);
                        inner.idle.push(idle);
                        drop(inner);
                        self.idle.notify_one();
                        return;
                    }
                }
            };
            match waiting.send(Ok(self.lease(idle))) {
                Ok(()) => return,
                // It has gone in the meantime.
                Err(Ok(mut lease)) => match lease.instance.take() {
                    Some(instance) => {
                        lease.settled = true;
                        idle = Idle { instance, slot: lease.slot.clone() };
                    }
                    None => return,
                },
                Err(Err(_)) => return,
            }
        }
    }

    fn ended(&self, idle: Idle, how: Ended) {
        let Idle { instance, slot } = idle;
        drop(instance);
        self.report(&slot, how);
    }

    /// An instance is gone.
    pub(crate) fn report(&self, slot: &Slot, how: Ended) {
        self.lock().live.remove(&slot.member);
        // Nobody listens once the host is going.
        let _ = self.events.send(Event::Ended { process: self.process, member: slot.member, how });
    }

    /// Asks `count` instances to leave: idle ones first, then the highest index. Those that are idle have left when
    /// this returns; the others finish their call. Returns all of them.
    pub(crate) fn drain(&self, count: usize) -> Vec<Arc<Slot>> {
        let mut slots: Vec<_> = self.lock().live.values().cloned().collect();
        slots.sort_by_key(|slot| (slot.is_busy(), std::cmp::Reverse(slot.name.index)));
        slots.truncate(count);
        slots.iter().for_each(|slot| self.drain_one(slot));
        slots
    }

    /// Asks this instance to leave.
    pub(crate) fn drain_one(&self, slot: &Arc<Slot>) {
        let idle = {
            let mut inner = self.lock();
            slot.draining.store(true, Relaxed);
            inner.live.remove(&slot.member);
            let at = inner.idle.iter().position(|idle| idle.slot.member == slot.member);
            at.map(|at| inner.idle.remove(at))
        };
        if let Some(idle) = idle {
            self.ended(idle, Ended::Drained);
        }
    }

    /// Says what calls that find no idle instance have to expect, and sends those that wait away where it's nothing.
    pub(crate) fn set_outlook(&self, outlook: Outlook) {
        let refused = match outlook {
            Outlook::Good => None,
            Outlook::NoCount => Some(NoInstance::NoCount),
            Outlook::AllInBackoff => Some(NoInstance::AllInBackoff),
        };
        let line = {
            let mut inner = self.lock();
            inner.outlook = outlook;
            if refused.is_some() { std::mem::take(&mut inner.line) } else { VecDeque::new() }
        };
        if let Some(refused) = refused {
            for waiting in line {
                let _ = waiting.send(Err(refused));
            }
        }
    }

    /// Calls that may wait from now on.
    pub(crate) fn set_line_max(&self, line_max: usize) {
        self.lock().line_max = line_max;
    }

    /// Calls that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().line.len()
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

/// An instance that was lent for one call.
pub(crate) struct Lease {
    pool: Arc<Pool>,
    slot: Arc<Slot>,
    instance: Option<Instance>,
    settled: bool,
    _call: TaskTrackerToken,
}

impl Lease {
    /// Who it is.
    pub(crate) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    /// Takes the instance out, for a call that gives it back by [`Lease::give_back`].
    pub(crate) fn take(&mut self) -> Option<Instance> {
        self.slot.calls.fetch_add(1, Relaxed);
        self.instance.take()
    }

    /// The call is over.
    pub(crate) fn give_back<T>(mut self, finished: Finished<T>) {
        self.settled = true;
        match finished.instance {
            Some(instance) => {
                let slot = self.slot.clone();
                self.pool.put(Idle { instance, slot });
            }
            None => {
                let drained = self.slot.draining.load(Relaxed);
                let how = match &finished.report.end {
                    _ if drained => Ended::Drained,
                    CallEnd::Returned(_) => Ended::Spent,
                    end => Ended::ByCall(end.summary()),
                };
                self.pool.report(&self.slot, how);
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let slot = self.slot.clone();
        match self.instance.take() {
            Some(instance) => self.pool.put(Idle { instance, slot }),
            None => self.pool.report(&slot, Ended::ByCall("its call was dropped".into())),
        }
    }
}
