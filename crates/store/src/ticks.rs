//! The times of schedules: each happens once, however many hosts share the store.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{StoreError, Timestamp};

/// How many ticks of each schedule are kept, and the most that [`Ticks::history`] lists.
pub const HISTORY_MAX: u32 = 1_000;

/// One time of a schedule that was taken, and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TickView {
    /// The process type.
    pub schedule: String,
    /// The time that the schedule names.
    pub nominal: Timestamp,
    /// True where a person asked for it.
    pub manual: bool,
    /// When its call began.
    pub started_at: Timestamp,
    /// When its call ended; `None` while it runs, or where its host died.
    pub ended_at: Option<Timestamp>,
    /// Why it failed; `None` while it runs and where it went well.
    pub error: Option<String>,
}

/// Where schedules stand.
#[async_trait]
pub trait Ticks: Send + Sync + 'static {
    /// The last time of this schedule that was taken or passed over; `None` before its first.
    async fn cursor(&self, schedule: &str) -> Result<Option<Timestamp>, StoreError>;

    /// Moves the cursor to `nominal` without a tick: the start of a new schedule, or missed times that are skipped.
    /// It never moves back.
    async fn skip_to(&self, schedule: &str, nominal: Timestamp) -> Result<(), StoreError>;

    /// Takes the tick, and moves the cursor to it unless it is `manual`: both or neither. False where somebody has
    /// taken it already, or (unless it is `manual`) the cursor has passed it.
    ///
    /// Whatever it returns, the cursor of a tick that isn't `manual` is at `nominal` or later afterwards, so that the
    /// next time that a host computes from it is a new one.
    async fn take(&self, schedule: &str, nominal: Timestamp, manual: bool) -> Result<bool, StoreError>;

    /// Keeps how the tick's call ended; `error` is cut at 4 KiB. The first answer stays; a tick that isn't known is
    /// passed over.
    async fn finish(
        &self,
        schedule: &str,
        nominal: Timestamp,
        error: Option<String>,
    ) -> Result<(), StoreError>;

    /// The last `limit` ticks of a schedule by nominal time, newest first; at most [`HISTORY_MAX`].
    async fn history(&self, schedule: &str, limit: u32) -> Result<Vec<TickView>, StoreError>;
}
