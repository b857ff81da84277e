//! How things stand, for the admin API.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::members::{Member, Phase, Type};
use crate::admin::api::{InstanceView, TypeView};
use crate::pool::Slot;

impl Type {
    pub(super) fn view(&self) -> TypeView {
        let mut instances: Vec<InstanceView> =
            self.members.values().map(|place| self.view_member(place)).collect();
        instances.extend(self.leaving.values().map(|slot| view_slot(slot, "draining", 0)));
        instances.sort_by(|a, b| (a.index, &a.state).cmp(&(b.index, &b.state)));
        let count = |state: &str| instances.iter().filter(|instance| instance.state == state).count();
        let as_u32 = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        TypeView {
            process: self.given.name.to_string(),
            trigger: self.given.trigger.to_owned(),
            desired: self.desired,
            in_file: self.given.count_in_file,
            actual: as_u32(count("idle") + count("busy")),
            draining: as_u32(count("draining")),
            waiting: as_u32(self.given.pool.waiting()),
            restarts: self.restarts,
            last_end: self.last_end.clone(),
            instances,
        }
    }

    fn view_member(&self, place: &Member) -> InstanceView {
        match &place.phase {
            Phase::Serving(slot) => {
                view_slot(slot, if slot.is_busy() { "busy" } else { "idle" }, place.restarts)
            }
            Phase::Starting(_) => self.view_absent(place, "starting", None),
            Phase::Backoff { until, why } => {
                let left = until.saturating_duration_since(Instant::now()).as_secs();
                self.view_absent(place, "backoff", Some(format!("{why}; again in {left} s")))
            }
        }
    }

    fn view_absent(&self, place: &Member, state: &str, note: Option<String>) -> InstanceView {
        InstanceView {
            name: format!("{}.{}", self.given.name, place.index),
            index: place.index,
            state: state.to_owned(),
            uptime_s: 0.0,
            calls: 0,
            restarts: place.restarts,
            cpu_s: 0.0,
            memory_bytes: 0,
            note,
        }
    }
}

fn view_slot(slot: &Slot, state: &str, restarts: u64) -> InstanceView {
    InstanceView {
        name: slot.name.to_string(),
        index: slot.name.index,
        state: state.to_owned(),
        uptime_s: slot.since.elapsed().as_secs_f64(),
        calls: slot.calls.load(Relaxed),
        restarts,
        cpu_s: slot.meter.cpu().as_secs_f64(),
        memory_bytes: slot.meter.memory(),
        note: None,
    }
}
