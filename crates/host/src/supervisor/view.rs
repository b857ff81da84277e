//! How things stand, for the admin API.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use slab::Slab;
use wasmhost_engine::{Fullness, INSTANCE_DESCRIPTORS_MAX};

use super::roster::{Kind, Member, Phase, Successor};
use super::types::{Retry, Type};
use crate::admin::api::{DirectoryView, InstanceView, TypeView};
use crate::event::MemberId;
use crate::pool::Slot;

/// The note on an instance that has to wait until another one has left.
const WAITS_FOR_ROOM: &str = "waits until an instance that drains has left";

impl Type {
    pub(super) fn view(&self, kind: &Kind) -> TypeView {
        let members = kind.members().map(|(member, place)| self.view_member(member, place));
        let leaving = kind.leaving().filter_map(|member| self.slots.get(&member));
        let leaving = leaving.map(|slot| self.view_slot(slot, "draining", None));
        let successors = kind.successors().map(|(member, successor)| self.view_successor(member, successor));
        let mut instances: Vec<InstanceView> = members.chain(leaving).chain(successors).collect();
        instances.sort_by(|a, b| (a.index, &a.state).cmp(&(b.index, &b.state)));
        let count = |state: &str| instances.iter().filter(|instance| instance.state == state).count();
        let as_u32 = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        TypeView {
            process: self.given.name.to_string(),
            trigger: self.given.trigger.to_owned(),
            release: self.given.version.release,
            canary: self.is_canary,
            leaving: self.is_retired,
            count: self.count,
            desired: self.desired,
            in_file: self.given.count_in_file,
            weight: self.given.weight,
            actual: as_u32(count("idle") + count("busy")),
            replacing: as_u32(kind.successors().len()),
            draining: as_u32(count("draining")),
            lacks: as_u32(kind.members().filter(|(_, place)| place.phase == Phase::Queued).count()),
            waiting: as_u32(self.pool.waiting()),
            restarts: kind.restarts,
            recycled: kind.recycled,
            last_end: self.last_end.clone(),
            last_crash: None,
            lines_dropped: 0,
            lines_past_max_log: 0,
            directories: self.given.version.component.directories().fullness().map(view_directory).collect(),
            instances,
        }
    }

    fn view_member(&self, member: MemberId, place: &Member) -> InstanceView {
        match (place.phase, self.slots.get(&member)) {
            (Phase::Serving, Some(slot)) => {
                self.view_slot(slot, if slot.is_busy() { "busy" } else { "idle" }, Some(place))
            }
            (Phase::Queued, _) => {
                self.view_absent(place.index, Some(place), "starting", Some(WAITS_FOR_ROOM.to_owned()))
            }
            (Phase::Starting | Phase::Serving, _) => {
                self.view_absent(place.index, Some(place), "starting", None)
            }
            (Phase::Backoff, _) => {
                self.view_absent(place.index, Some(place), "backoff", self.retries.get(&member).map(again))
            }
        }
    }

    fn view_successor(&self, member: MemberId, successor: &Successor) -> InstanceView {
        let note = match self.retries.get(&member) {
            Some(retry) => format!("will replace the one that serves: {}", again(retry)),
            None => "replaces the one that serves".to_owned(),
        };
        self.view_absent(successor.index, None, "replacing", Some(note))
    }

    /// `place` is what it has in the count, if it's not leaving.
    fn view_slot(&self, slot: &Slot, state: &str, place: Option<&Member>) -> InstanceView {
        let used = slot.used();
        InstanceView {
            name: slot.name.to_string(),
            index: slot.name.index,
            host: None,
            state: state.to_owned(),
            release: slot.version.release,
            uptime_s: slot.since.elapsed().as_secs_f64(),
            calls: slot.calls.load(Relaxed),
            calls_now: if slot.is_busy() { self.pool.calls_in(slot.member) } else { 0 },
            restarts: place.map_or(0, |place| place.restarts),
            recycled: place.map_or(0, |place| place.recycled),
            cpu_s: used.cpu.as_secs_f64(),
            memory_bytes: used.memory_bytes,
            memory_peak_bytes: used.memory_peak_bytes,
            memory_max_bytes: slot.version.component.memory_bytes_max(),
            descriptors: used.descriptors,
            descriptors_max: INSTANCE_DESCRIPTORS_MAX,
            note: None,
        }
    }

    fn view_absent(
        &self,
        index: u32,
        place: Option<&Member>,
        state: &str,
        note: Option<String>,
    ) -> InstanceView {
        InstanceView {
            name: format!("{}.{index}", self.given.name),
            index,
            host: None,
            state: state.to_owned(),
            release: 0,
            uptime_s: 0.0,
            calls: 0,
            calls_now: 0,
            restarts: place.map_or(0, |place| place.restarts),
            recycled: place.map_or(0, |place| place.recycled),
            cpu_s: 0.0,
            memory_bytes: 0,
            memory_peak_bytes: 0,
            memory_max_bytes: 0,
            descriptors: 0,
            descriptors_max: 0,
            note,
        }
    }
}

fn view_directory(found: Fullness<'_>) -> DirectoryView {
    DirectoryView {
        guest: found.guest.to_owned(),
        bytes: found.used.map(|used| used.bytes),
        bytes_max: found.bytes_max,
        entries: found.used.map(|used| used.entries),
        entries_max: found.entries_max,
    }
}

/// How many instances serve, and how many there should be: `web=4/4 worker=1/2`.
pub(super) fn standing(types: &Slab<Type>, order: &[usize]) -> String {
    let scalable = order.iter().map(|place| &types[*place]).filter(|kind| kind.given.scalable);
    let each = scalable.map(|kind| {
        let canary = kind.canary.and_then(|beside| types.get(beside.place));
        let canary = canary.map_or((0, 0), |canary| (canary.pool.live(), canary.desired));
        format!("{}={}/{}", kind.given.name, kind.pool.live() + canary.0, kind.desired + canary.1)
    });
    each.collect::<Vec<_>>().join(" ")
}

fn again(retry: &Retry) -> String {
    let Retry { at, why } = retry;
    format!("{why}; again in {} s", at.saturating_duration_since(Instant::now()).as_secs())
}
