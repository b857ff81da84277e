//! A slot is the place of one instance, as others see it while the instance serves, and says how long the instance may
//! stay.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use wasmhost_engine::services::InstanceName;
use wasmhost_engine::{Instance, Meter, Shortage};

use super::Version;
use crate::event::MemberId;

/// See the module. Where each call has a fresh instance, the instances come one after another into the same slot.
pub(crate) struct Slot {
    pub(crate) member: MemberId,
    pub(crate) name: InstanceName,
    pub(crate) version: Arc<Version>,
    pub(crate) since: Instant,
    /// Calls begun.
    pub(crate) calls: AtomicU64,
    /// It is lent, or a fresh instance is on its way.
    pub(super) busy: AtomicBool,
    /// Set under the pool's lock, where it is seen when the instance is given back.
    pub(super) draining: AtomicBool,
    life: Life,
    meters: Mutex<Meters>,
}

/// The resources that the instances of a slot have used.
struct Meters {
    present: Arc<Meter>,
    /// CPU time of those before it.
    cpu_before: Duration,
    /// The most memory that one of them had, in bytes.
    memory_peak_before: u64,
    /// No instance of this slot may run any more.
    interrupted: bool,
}

/// The resources that a slot has used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    /// CPU time of all its instances.
    pub(crate) cpu: Duration,
    /// Memories and tables of the present one.
    pub(crate) memory_bytes: u64,
    /// The most that one of them had.
    pub(crate) memory_peak_bytes: u64,
    /// Descriptors of the host that the present one holds.
    pub(crate) descriptors: u32,
}

impl Slot {
    pub(crate) fn new(
        member: MemberId,
        name: InstanceName,
        instance: &Instance,
        version: Arc<Version>,
        life: Life,
    ) -> Arc<Slot> {
        let present = instance.meter().clone();
        Arc::new(Slot {
            member,
            name,
            version,
            since: Instant::now(),
            calls: AtomicU64::new(0),
            busy: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            life,
            meters: Mutex::new(Meters {
                present,
                cpu_before: Duration::ZERO,
                memory_peak_before: 0,
                interrupted: false,
            }),
        })
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Relaxed)
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// The resources that its guests have used, and those that the present one holds.
    pub(crate) fn used(&self) -> Used {
        let meters = self.meters();
        Used {
            cpu: meters.cpu_before + meters.present.cpu(),
            memory_bytes: meters.present.memory(),
            memory_peak_bytes: meters.present.memory_peak().max(meters.memory_peak_before),
            descriptors: meters.present.descriptors(),
        }
    }

    /// The memory that its instance wanted when it was last refused some, if it was.
    pub(super) fn shortage(&self) -> Option<Shortage> {
        self.meters().present.shortage()
    }

    /// Ends the call under way, and lets none begin.
    pub(crate) fn interrupt(&self) {
        let mut meters = self.meters();
        meters.interrupted = true;
        meters.present.interrupt();
    }

    /// The meter of the next instance in this slot.
    pub(super) fn next_meter(&self) -> Arc<Meter> {
        let next = Arc::new(Meter::default());
        let mut meters = self.meters();
        if meters.interrupted {
            next.interrupt();
        }
        let before = std::mem::replace(&mut meters.present, next.clone());
        meters.cpu_before += before.cpu();
        meters.memory_peak_before = meters.memory_peak_before.max(before.memory_peak());
        next
    }

    fn meters(&self) -> MutexGuard<'_, Meters> {
        // No code that runs under the lock panics.
        self.meters.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    /// Counts a call that begins. True for the one at which a replacement should be started, so that it is ready when
    /// this instance may serve no more.
    pub(super) fn begin_call(&self) -> bool {
        self.calls.fetch_add(1, Relaxed) + 1 == self.life.calls_before_successor
    }

    /// It has served all the calls that it may.
    pub(super) fn is_spent(&self) -> bool {
        self.calls.load(Relaxed) >= self.life.calls_max
    }

    /// It is as old as it may get.
    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        self.life.expires.is_some_and(|expires| now >= expires)
    }
}

/// How long one instance stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life {
    calls_max: u64,
    /// The number of the call with which its successor is asked for.
    calls_before_successor: u64,
    expires: Option<Instant>,
}

/// An instance stays for up to a fifth less than it may, each for another time, so that those that began together
/// don't leave together.
const JITTER: f64 = 0.2;

impl Life {
    /// The life of an instance that begins now.
    pub(crate) fn begin(max_calls: Option<u64>, max_age: Option<Duration>) -> Life {
        Life::with_jitter(max_calls, max_age, JITTER * fastrand::f64())
    }

    fn with_jitter(max_calls: Option<u64>, max_age: Option<Duration>, jitter: f64) -> Life {
        let less = |calls: u64| calls - ((calls as f64 * jitter) as u64).min(calls - 1);
        let calls_max = max_calls.map_or(u64::MAX, |calls| less(calls.max(1)));
        // A tenth of its calls is time enough to start one, and as much as is given away if it's there sooner.
        let ahead = (calls_max / 10).max(1);
        Life {
            calls_max,
            calls_before_successor: match max_calls {
                Some(_) => calls_max.saturating_sub(ahead).max(1),
                None => u64::MAX,
            },
            expires: max_age.and_then(|age| Instant::now().checked_add(age.mul_f64(1.0 - jitter))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_is_asked_for_before_the_last_call() {
        let life = |calls, jitter| {
            let life = Life::with_jitter(Some(calls), None, jitter);
            (life.calls_before_successor, life.calls_max)
        };
        assert_eq!(life(1000, 0.0), (900, 1000));
        assert_eq!(life(1000, 0.2), (720, 800));
        assert_eq!(life(10, 0.1), (8, 9));
        assert_eq!((life(2, 0.2), life(1, 0.2)), ((1, 2), (1, 1)));
    }

    #[test]
    fn without_limits_it_stays() {
        let life = Life::begin(None, None);
        assert_eq!((life.calls_before_successor, life.calls_max, life.expires), (u64::MAX, u64::MAX, None));
    }

    #[test]
    fn no_life_is_longer_than_it_may_be_and_they_differ() {
        let age = Duration::from_secs(1000);
        let lives: Vec<Life> = (0..100).map(|_| Life::begin(Some(1000), Some(age))).collect();
        let now = Instant::now();
        for life in &lives {
            assert!((800..=1000).contains(&life.calls_max), "{life:?}");
            let left = life.expires.unwrap() - now;
            assert!(left > age.mul_f64(0.79) && left <= age, "{life:?}");
        }
        assert!(lives.iter().any(|life| life.calls_max != lives[0].calls_max));
    }
}
