//! A type as the supervisor drives it: what it was given, and the instances behind the numbers of the
//! [roster](super::roster).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;
use wasmhost_engine::{CallEnd, CallLimits, Instance, Meter};

use super::canary::Beside;
use super::roster::Kind;
use crate::deaths::Death;
use crate::event::{Ended, MemberId};
use crate::pool::{Outlook, Pool, Slot, Version};

/// A type, as the supervisor is given it.
pub(crate) struct Supervised {
    pub(crate) name: Arc<str>,
    pub(crate) trigger: &'static str,
    /// The version that instances are started of.
    pub(crate) version: Arc<Version>,
    /// The count that the file says.
    pub(crate) count_in_file: u32,
    /// The count that a person set live, for a type that begins.
    pub(crate) live: Option<u32>,
    /// Waiting calls: so many for each instance, or so many in all.
    pub(crate) backlog: Backlog,
    /// Instances run their `main` by themselves.
    pub(crate) runs_always: bool,
    /// Time after which an instance is replaced.
    pub(crate) max_age: Option<Duration>,
    /// Counts of types that keep no instances can't be changed.
    pub(crate) scalable: bool,
    pub(crate) limits: CallLimits,
    /// Its share of the compute threads beside other types.
    pub(crate) weight: u32,
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

/// A type, with what there is of it.
pub(super) struct Type {
    pub(super) given: Supervised,
    pub(super) pool: Arc<Pool>,
    /// The type's count, of both versions where it has a canary.
    pub(super) count: u32,
    /// Instances that there should be at this place.
    pub(super) desired: u32,
    /// Where its canary is, if it has one.
    pub(super) canary: Option<Beside>,
    /// It is a canary itself.
    pub(super) is_canary: bool,
    /// The count that a person set live.
    pub(super) live: Option<u32>,
    /// The live release doesn't have it any more.
    pub(super) is_retired: bool,
    /// Instances that serve, or leave.
    pub(super) slots: HashMap<MemberId, Arc<Slot>>,
    pub(super) starting: HashMap<MemberId, Starting>,
    pub(super) retries: HashMap<MemberId, Retry>,
    pub(super) last_end: Option<String>,
    /// The outlook that its pool was told.
    outlook: Outlook,
}

/// An instance that starts.
pub(super) struct Starting {
    pub(super) index: u32,
    pub(super) version: Arc<Version>,
    /// Interrupts a start that isn't wanted any more.
    pub(super) meter: Arc<Meter>,
}

/// The retry that a member that failed waits for.
pub(super) struct Retry {
    pub(super) at: Instant,
    pub(super) why: String,
}

impl Type {
    pub(super) fn new(given: Supervised, pool: Arc<Pool>) -> Type {
        Type {
            count: 0,
            desired: 0,
            canary: None,
            is_canary: false,
            live: given.live,
            is_retired: false,
            given,
            pool,
            slots: HashMap::new(),
            starting: HashMap::new(),
            retries: HashMap::new(),
            last_end: None,
            outlook: Outlook::Good,
        }
    }

    pub(super) fn is_busy(&self, member: MemberId) -> bool {
        self.slots.get(&member).is_some_and(|slot| slot.is_busy())
    }

    /// Asks instances to leave. A `main` can't be asked, as WASI has no signals: it is ended.
    pub(super) fn dismiss(&self, leaving: &[MemberId]) {
        let slots: Vec<_> = leaving.iter().filter_map(|member| self.slots.get(member).cloned()).collect();
        self.pool.drain(&slots);
        if self.given.runs_always {
            slots.iter().for_each(|slot| slot.interrupt());
        }
    }

    /// Ends the calls of all its instances, and says how many had one that could have finished.
    pub(super) fn interrupt(&self) -> usize {
        self.starting.values().for_each(|starting| starting.meter.interrupt());
        let mut busy = 0;
        for slot in self.slots.values() {
            busy += usize::from(slot.is_busy() && !self.given.runs_always);
            slot.interrupt();
        }
        busy
    }

    /// Tells the pool what calls that find no instance have to expect.
    pub(super) fn tell_outlook(&mut self, kind: &Kind) {
        let outlook = match kind.desired() {
            0 => Outlook::NoCount,
            _ if kind.are_all_in_backoff() => Outlook::AllInBackoff,
            _ => Outlook::Good,
        };
        if std::mem::replace(&mut self.outlook, outlook) != outlook {
            self.pool.set_outlook(outlook);
        }
    }
}

/// Runs a command's `main` until it ends.
pub(super) async fn run_main(instance: Instance, slot: Arc<Slot>, pool: Arc<Pool>, limits: CallLimits) {
    let report = instance.call_command(limits).await.report;
    let death = match &report.end {
        CallEnd::Returned(code) => Death::exited(*code),
        end => Death::of(end),
    };
    if let CallEnd::Trap(backtrace) = &report.end {
        warn!(instance = %slot.name, "trapped: {backtrace}");
    }
    pool.report(&slot, Ended::Exited(death));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_follows_the_count_unless_it_was_set() {
        assert_eq!(Backlog::PerInstance(50).line_max(4), 200);
        assert_eq!(Backlog::PerInstance(50).line_max(0), 50);
        assert_eq!(Backlog::InAll(7).line_max(4), 7);
    }
}
