//! A type as one release has it: what its instances are made of, and how long they are kept. While a type is moved from
//! one release to the next its pool has instances of both, and each [`Slot`](super::Slot) says which version it is of.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use wasmhost_engine::Component;

use super::learned::{Learned, Lesson, Subject};
use super::reuse::Reuse;

/// See the module.
pub(crate) struct Version {
    /// The number of the release that brought it.
    pub(crate) release: u64,
    pub(crate) component: Component,
    pub(super) keeping: Keeping,
    pub(super) subject: Subject,
    pub(super) reuse: Reuse,
    /// Each call has a fresh instance: the formation says so, the component can't do otherwise, or it was learned.
    fresh_each_call: AtomicBool,
    /// An earlier run has learned that an instance serves one call alone.
    pub(super) is_known_for_one_call: bool,
}

/// How long instances are kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keeping {
    pub(crate) fresh_each_call: bool,
    /// Whether instances turn out to be of no use after their first call.
    pub(crate) learns: bool,
    pub(crate) max_calls: Option<u64>,
    pub(crate) max_age: Option<Duration>,
    /// Calls that one instance serves at once: 1 where it can't serve more.
    pub(crate) concurrency: u32,
}

impl Version {
    pub(crate) fn new(
        release: u64,
        component: Component,
        keeping: Keeping,
        subject: Subject,
        learned: &Learned,
    ) -> Arc<Version> {
        let learns = keeping.learns && !keeping.fresh_each_call;
        let lesson = learned.of(&subject).filter(|_| learns);
        let once = lesson == Some(Lesson::Once);
        Arc::new(Version {
            release,
            component,
            keeping,
            subject,
            reuse: Reuse::new(learns, keeping.concurrency > 1, lesson),
            fresh_each_call: AtomicBool::new(keeping.fresh_each_call || once),
            is_known_for_one_call: once,
        })
    }

    pub(super) fn is_fresh_each_call(&self) -> bool {
        self.fresh_each_call.load(Relaxed)
    }

    /// Each call has a fresh instance from now on. To be called under the pool's lock.
    pub(super) fn give_up_reuse(&self) {
        self.fresh_each_call.store(true, Relaxed);
    }
}
