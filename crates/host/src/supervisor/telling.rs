//! The supervisor's part of the feed: instances and counts.

use std::sync::Arc;
use std::time::Duration;

use super::Supervisor;
use super::types::Type;
use crate::admin::api::{HostEvent, InstanceChange};
use crate::event::{Ended, MemberId};
use crate::feed::{self, Feed};

impl Supervisor {
    /// Tells this feed from now on.
    pub(crate) fn telling(self, feed: Arc<Feed>) -> Supervisor {
        Supervisor { feed, ..self }
    }

    /// An instance of the type's present version changes, for this reason where it isn't as it should be.
    pub(super) fn tell(&self, place: usize, index: u32, state: InstanceChange, why: Option<&str>) {
        let kind = &self.types[place];
        self.feed.tell(|| instance(kind, index, kind.given.version.release, state, why, None));
    }

    /// An instance serves, in the place of another one or not.
    pub(super) fn tell_serving(&self, place: usize, index: u32, instead_of: Option<MemberId>) {
        self.tell(place, index, InstanceChange::Serving, None);
        self.tell_draining(place, instead_of.as_slice());
    }

    pub(super) fn tell_draining(&self, place: usize, leaving: &[MemberId]) {
        let kind = &self.types[place];
        self.feed.tell_each(|| {
            let slots = leaving.iter().filter_map(|member| kind.slots.get(member));
            slots.map(|slot| {
                let (index, release) = (slot.name.index, slot.version.release);
                instance(kind, index, release, InstanceChange::Draining, None, None)
            })
        });
    }

    /// An instance that served is gone.
    pub(super) fn tell_gone(&self, place: usize, index: u32, release: u64, how: &Ended) {
        let (state, death) = match how {
            Ended::Drained | Ended::Spent | Ended::Cancelled => (InstanceChange::Ended, None),
            Ended::ByCall(death) => (InstanceChange::Crashed, Some(death)),
            Ended::FailedToStart(death) => (InstanceChange::FailedToStart, Some(death)),
            Ended::Exited(death) => (InstanceChange::Exited, Some(death)),
        };
        let why = death.map(|death| death.message.as_str());
        self.feed.tell(|| instance(&self.types[place], index, release, state, why, None));
    }

    pub(super) fn tell_backoff(&self, place: usize, index: u32, again_in: Duration, why: &str) {
        let kind = &self.types[place];
        let (release, state) = (kind.given.version.release, InstanceChange::Backoff);
        self.feed.tell(|| instance(kind, index, release, state, Some(why), Some(again_in)));
    }

    /// A canary has no count of its own.
    pub(super) fn tell_count(&self, place: usize, from: u32) {
        let kind = &self.types[place];
        if kind.count != from && !kind.is_canary {
            let process = || kind.given.name.to_string();
            self.feed.tell(|| HostEvent::Count { process: process(), from, to: kind.count });
        }
    }
}

fn instance(
    kind: &Type,
    index: u32,
    release: u64,
    state: InstanceChange,
    why: Option<&str>,
    again_in: Option<Duration>,
) -> HostEvent {
    let process = kind.given.name.to_string();
    let (instance, why) = (format!("{process}.{index}"), why.map(feed::text));
    HostEvent::Instance {
        process,
        instance,
        release,
        state,
        why,
        again_in_s: again_in.map(|time| time.as_secs_f64()),
    }
}
