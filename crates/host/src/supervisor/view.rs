//! How things stand, for the admin API.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::members::{Member, Phase, Successor, Type};
use crate::admin::api::{InstanceView, TypeView};
use crate::pool::Slot;

impl Type {
    pub(super) fn view(&self) -> TypeView {
        let mut instances: Vec<InstanceView> =
            self.members.values().map(|place| self.view_member(place)).collect();
        instances.extend(self.leaving.values().map(|slot| view_slot(slot, "draining", None)));
        instances.extend(self.successors.values().map(|successor| self.view_successor(successor)));
        instances.sort_by(|a, b| (a.index, &a.state).cmp(&(b.index, &b.state)));
        let count = |state: &str| instances.iter().filter(|instance| instance.state == state).count();
        let as_u32 = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        TypeView {
            process: self.given.name.to_string(),
            trigger: self.given.trigger.to_owned(),
            desired: self.desired,
            in_file: self.given.count_in_file,
            actual: as_u32(count("idle") + count("busy")),
            replacing: as_u32(self.successors.len()),
            draining: as_u32(count("draining")),
            waiting: as_u32(self.given.pool.waiting()),
            restarts: self.restarts,
            recycled: self.recycled,
            last_end: self.last_end.clone(),
            instances,
        }
    }

    fn view_member(&self, place: &Member) -> InstanceView {
        match &place.phase {
            Phase::Serving(slot) => {
                view_slot(slot, if slot.is_busy() { "busy" } else { "idle" }, Some(place))
            }
            Phase::Starting(_) => self.view_absent(place, "starting", None),
            Phase::Backoff { until, why } => self.view_absent(place, "backoff", Some(again(*until, why))),
        }
    }

    fn view_successor(&self, successor: &Successor) -> InstanceView {
        let place = Member::starting(successor.index);
        let note = match &successor.phase {
            Phase::Backoff { until, why } => {
                format!("will replace the one that serves: {}", again(*until, why))
            }
            Phase::Starting(_) | Phase::Serving(_) => "replaces the one that serves".to_owned(),
        };
        self.view_absent(&place, "replacing", Some(note))
    }

    fn view_absent(&self, place: &Member, state: &str, note: Option<String>) -> InstanceView {
        InstanceView {
            name: format!("{}.{}", self.given.name, place.index),
            index: place.index,
            state: state.to_owned(),
            uptime_s: 0.0,
            calls: 0,
            restarts: place.restarts,
            recycled: place.recycled,
            cpu_s: 0.0,
            memory_bytes: 0,
            note,
        }
    }
}

fn again(until: Instant, why: &str) -> String {
    format!("{why}; again in {} s", until.saturating_duration_since(Instant::now()).as_secs())
}

/// `place` is what it has in the count, if it's not leaving.
fn view_slot(slot: &Slot, state: &str, place: Option<&Member>) -> InstanceView {
    InstanceView {
        name: slot.name.to_string(),
        index: slot.name.index,
        state: state.to_owned(),
        uptime_s: slot.since.elapsed().as_secs_f64(),
        calls: slot.calls.load(Relaxed),
        restarts: place.map_or(0, |place| place.restarts),
        recycled: place.map_or(0, |place| place.recycled),
        cpu_s: slot.cpu().as_secs_f64(),
        memory_bytes: slot.memory(),
        note: None,
    }
}
