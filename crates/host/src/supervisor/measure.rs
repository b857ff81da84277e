//! How things stand, in figures: what metrics say of the instances that there are.

use std::sync::Arc;
use std::time::Duration;

use wasmhost_engine::CallLimits;

use super::roster::{Kind, Phase};
use super::types::Type;
use crate::measures::TypeCounts;
use crate::pool::Pool;

/// The states of instances, as `wasmhost ps` names them.
pub(crate) const STATES: [&str; 6] = ["starting", "idle", "busy", "draining", "backoff", "replacing"];
const STARTING: usize = 0;
const IDLE: usize = 1;
const BUSY: usize = 2;
const DRAINING: usize = 3;
const BACKOFF: usize = 4;
const REPLACING: usize = 5;

/// One type in one version. A canary and its type are measured by themselves, and so is a version that leaves.
pub(crate) struct TypeMeasure {
    pub(crate) process: Arc<str>,
    /// `http`, `queue`, `schedule`, `command`, `release` or `manual`.
    pub(crate) trigger: &'static str,
    pub(crate) pool: Arc<Pool>,
    pub(crate) limits: CallLimits,
    /// It is the live release's: neither a canary, nor about to leave.
    pub(crate) is_present: bool,
    /// Instances that there should be.
    pub(crate) desired: u64,
    /// The type's count, of all hosts together.
    pub(crate) count: u64,
    /// How many there are in each of [`STATES`].
    pub(crate) states: [u64; STATES.len()],
    pub(crate) calls: u64,
    pub(crate) waiting: u64,
    /// CPU time of the instances that there are.
    pub(crate) cpu: Duration,
    pub(crate) memory_bytes: u64,
    /// Planned replacements in this place.
    pub(crate) recycled: u64,
}

impl TypeMeasure {
    /// Instances that serve and don't drain.
    pub(crate) fn serving(&self) -> u64 {
        self.states[IDLE] + self.states[BUSY]
    }

    /// Instances that wait after a failure.
    pub(crate) fn in_backoff(&self) -> u64 {
        self.states[BACKOFF]
    }

    /// The counts of the type, in all its versions.
    pub(crate) fn counts(&self) -> &Arc<TypeCounts> {
        &self.pool.counts
    }
}

impl Type {
    pub(super) fn measure(&self, kind: &Kind) -> TypeMeasure {
        let mut measure = TypeMeasure {
            process: self.given.name.clone(),
            trigger: self.given.trigger,
            pool: self.pool.clone(),
            limits: self.given.limits,
            is_present: !self.is_canary && !self.is_retired,
            desired: self.desired.into(),
            count: self.count.into(),
            states: [0; STATES.len()],
            calls: 0,
            waiting: self.pool.waiting() as u64,
            cpu: Duration::ZERO,
            memory_bytes: 0,
            recycled: kind.recycled,
        };
        for (member, place) in kind.members() {
            let state = match place.phase {
                Phase::Serving if self.is_busy(member) => BUSY,
                Phase::Serving if self.slots.contains_key(&member) => IDLE,
                Phase::Serving | Phase::Queued | Phase::Starting => STARTING,
                Phase::Backoff => BACKOFF,
            };
            measure.states[state] += 1;
        }
        measure.states[DRAINING] = kind.leaving().len() as u64;
        measure.states[REPLACING] = kind.successors().len() as u64;
        for slot in self.slots.values() {
            let used = slot.used();
            measure.cpu += used.cpu;
            measure.memory_bytes += used.memory_bytes;
            if slot.is_busy() {
                measure.calls += u64::from(self.pool.calls_in(slot.member));
            }
        }
        measure
    }
}
