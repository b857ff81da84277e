//! Ticks in memory.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::MemoryStore;
use crate::ticks::{HISTORY_MAX, TickView, Ticks};
use crate::{StoreError, Timestamp, rules};

#[derive(Default)]
pub(super) struct Schedule {
    cursor: Option<Timestamp>,
    ticks: BTreeMap<Timestamp, TickView>,
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

    async fn take(&self, schedule: &str, nominal: Timestamp, manual: bool) -> Result<bool, StoreError> {
        let started_at = self.clock.now();
        let mut state = self.state();
        let known = state.schedules.entry(schedule.to_string()).or_default();
        if (!manual && !known.advance(nominal)) || known.ticks.contains_key(&nominal) {
            return Ok(false);
        }
        let schedule = schedule.to_string();
        known
            .ticks
            .insert(nominal, TickView { schedule, nominal, manual, started_at, ended_at: None, error: None });
        while known.ticks.len() > HISTORY_MAX as usize {
            known.ticks.pop_first();
        }
        Ok(true)
    }

    async fn finish(
        &self,
        schedule: &str,
        nominal: Timestamp,
        error: Option<String>,
    ) -> Result<(), StoreError> {
        let ended_at = self.clock.now();
        let mut state = self.state();
        let tick = state.schedules.get_mut(schedule).and_then(|schedule| schedule.ticks.get_mut(&nominal));
        if let Some(tick) = tick.filter(|tick| tick.ended_at.is_none()) {
            tick.ended_at = Some(ended_at);
            tick.error = error.map(rules::cut);
        }
        Ok(())
    }

    async fn history(&self, schedule: &str, limit: u32) -> Result<Vec<TickView>, StoreError> {
        let state = self.state();
        let Some(schedule) = state.schedules.get(schedule) else { return Ok(Vec::new()) };
        Ok(schedule.ticks.values().rev().take(limit.min(HISTORY_MAX) as usize).cloned().collect())
    }
}
