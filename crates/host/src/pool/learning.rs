//! A pool's response to what calls teach of its type: [`Reuse`](super::reuse) judges, and the pool acts on it.

use std::sync::Arc;

use tracing::warn;

use super::learned::Lesson;
use super::line::{Held, Need};
use super::whole::Whole;
use super::{Pool, Renewal, Reused, Slot, Version};

impl Pool {
    /// The need of a request that can, or can't, be repeated should its instance fail.
    pub(crate) fn need(&self, repeatable: bool) -> Need {
        self.version.load().reuse.need(repeatable)
    }

    /// A reused instance crashed with a request that a fresh one has served.
    pub(crate) fn was_repeated(self: &Arc<Self>, slot: &Slot, failed: Reused) {
        if failed == Reused::Once && slot.version.reuse.died_and_was_repeated() {
            self.give_up_reuse(&slot.version);
        }
    }

    /// A reused instance crashed with a request that can't be repeated.
    pub(crate) fn was_not_repeated(&self, slot: &Slot, failed: Reused) {
        if failed == Reused::Once {
            slot.version.reuse.died_for_good();
        }
    }

    /// A request that needed a fresh instance went well.
    pub(crate) fn was_served_fresh(self: &Arc<Self>, slot: &Slot) {
        if slot.version.reuse.served_fresh() {
            self.give_up_reuse(&slot.version);
        }
    }

    /// An instance has returned from its second call.
    pub(super) fn survived(self: &Arc<Self>, slot: &Slot) {
        if slot.version.reuse.survived() {
            self.keep(&slot.version, Lesson::Proven);
        }
    }

    /// Keeps what was learned, on a thread that may wait for the disk.
    fn keep(self: &Arc<Self>, version: &Version, lesson: Lesson) {
        let (learned, subject) = (self.learned.clone(), version.subject.clone());
        drop(self.runtime.spawn_blocking(move || learned.keep(subject, lesson)));
    }

    pub(super) fn warn_of_single_use(&self) {
        warn!(
            "{name}: its instances crash on their second call, so that each call gets a fresh one, which is slower. Should that be as it is, write isolation = \"call\" under [process.{name}]; isolation = \"instance\" keeps them nevertheless",
            name = self.name
        );
    }

    fn give_up_reuse(self: &Arc<Self>, version: &Version) {
        let used = {
            let mut inner = self.lock();
            // Under the lock, so that whoever has it sees both or neither.
            version.give_up_reuse();
            inner.line.take_used()
        };
        version.reuse.comes_into_force();
        self.warn_of_single_use();
        self.keep(version, Lesson::Once);
        for Held { instance: Whole { instance, slot }, .. } in used {
            self.renew(slot, Some(instance), Renewal::ForCall);
        }
    }
}
