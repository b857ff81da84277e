//! Ticks in memory.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::MemoryStore;
use crate::ticks::{HISTORY_MAX, TickEnd, TickResult, TickView, Ticks};
use crate::{StoreError, Timestamp, rules};

#[derive(Default)]
pub(super) struct Schedule {
    cursor: Option<Timestamp>,
    /// Each with its owner.
    ticks: BTreeMap<Timestamp, (TickView, String)>,
}

impl Schedule {
    /// Moves the cursor; false where it is there or past it already.
    fn advance(&mut self, nominal: Timestamp) -> bool {
        let later = self.cursor.is_none_or(|cursor| nominal > cursor);
        if later {
            self.cursor = Some(nominal);
        }
        later
    }
}

#[async_trait]
impl Ticks for MemoryStore {
    async fn cursor(&self, schedule: &str) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.state().schedules.get(schedule).and_then(|schedule| schedule.cursor))
    }

    async fn skip_to(&self, schedule: &str, nominal: Timestamp) -> Result<(), StoreError> {
        self.state().schedules.entry(schedule.to_string()).or_default().advance(nominal);
        Ok(())
    }

    async fn take(
        &self,
        schedule: &str,
        nominal: Timestamp,
        manual: bool,
        owner: &str,
    ) -> Result<bool, StoreError> {
        let started_at = self.clock.now();
        let mut state = self.state();
        let known = state.schedules.entry(schedule.to_string()).or_default();
        if (!manual && !known.advance(nominal)) || known.ticks.contains_key(&nominal) {
            return Ok(false);
        }
        let (schedule, result) = (schedule.to_string(), TickResult::Running);
        let view = TickView { schedule, nominal, manual, started_at, ended_at: None, result, error: None };
        known.ticks.insert(nominal, (view, owner.to_string()));
        while known.ticks.len() > HISTORY_MAX as usize {
            known.ticks.pop_first();
        }
        Ok(true)
    }

    async fn finish(&self, schedule: &str, nominal: Timestamp, end: TickEnd) -> Result<(), StoreError> {
        let ended_at = self.clock.now();
        let mut state = self.state();
        let tick = state.schedules.get_mut(schedule).and_then(|schedule| schedule.ticks.get_mut(&nominal));
        if let Some((tick, _)) = tick.filter(|(tick, _)| tick.result == TickResult::Running) {
            tick.ended_at = Some(ended_at);
            (tick.result, tick.error) = end.into_parts();
        }
        Ok(())
    }

    async fn interrupt(&self, prefix: &str) -> Result<u64, StoreError> {
        let mut state = self.state();
        let all = state.schedules.values_mut().flat_map(|schedule| schedule.ticks.values_mut());
        let left =
            all.filter(|(tick, owner)| tick.result == TickResult::Running && owner.starts_with(prefix));
        Ok(left.map(|(tick, _)| interrupt(tick)).count() as u64)
    }

    async fn history(&self, schedule: &str, limit: u32) -> Result<Vec<TickView>, StoreError> {
        let state = self.state();
        let Some(schedule) = state.schedules.get(schedule) else { return Ok(Vec::new()) };
        let newest = schedule.ticks.values().rev().take(limit.min(HISTORY_MAX) as usize);
        Ok(newest.map(|(tick, _)| tick.clone()).collect())
    }
}

fn interrupt(tick: &mut TickView) {
    tick.result = TickResult::Interrupted;
    tick.error = Some(rules::HOST_STOPPED.to_string());
}
