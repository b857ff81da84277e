//! The times of schedules: each happens once, however many hosts share the store.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{StoreError, Timestamp, rules};

/// How many ticks of each schedule are kept, and the most that [`Ticks::history`] lists.
pub const HISTORY_MAX: u32 = 1_000;

/// One time of a schedule that was taken, and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TickView {
    /// The process type.
    pub schedule: String,
    /// The time that the schedule names.
    pub nominal: Timestamp,
    /// True where a person asked for it.
    pub manual: bool,
    /// When its call began.
    pub started_at: Timestamp,
    /// When its call ended; `None` while it runs, and where nobody saw it end.
    pub ended_at: Option<Timestamp>,
    /// How it went.
    pub result: TickResult,
    /// Why it failed, was skipped or interrupted; `None` while it runs and where it went well.
    pub error: Option<String>,
}

/// How a tick went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TickResult {
    /// Its call is under way.
    Running,
    /// It went well.
    Done,
    /// It didn't.
    Failed,
    /// It was not called, since the one before it still ran.
    Skipped,
    /// Its host died, or was stopped, before its call ended.
    Interrupted,
}

impl TickResult {
    /// Its name, as in JSON and in the database.
    pub fn name(self) -> &'static str {
        match self {
            TickResult::Running => "running",
            TickResult::Done => "done",
            TickResult::Failed => "failed",
            TickResult::Skipped => "skipped",
            TickResult::Interrupted => "interrupted",
        }
    }

    /// The result of that name.
    pub fn from_name(name: &str) -> Option<TickResult> {
        use TickResult::*;
        [Running, Done, Failed, Skipped, Interrupted].into_iter().find(|result| result.name() == name)
    }
}

/// Where a schedule goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// After this time, the last that was taken or passed over.
    After(Timestamp),
    /// Now: it wasn't known.
    New,
    /// Now: its times have changed.
    Changed,
}

/// How a tick's call ended; the texts are for people, and cut at 4 KiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TickEnd {
    /// It went well.
    Done,
    /// It didn't, and why.
    Failed(String),
    /// It was not called, and why.
    Skipped(String),
    /// The host ended it early, and why.
    Interrupted(String),
}

impl TickEnd {
    /// The result and the text that are kept.
    pub(crate) fn into_parts(self) -> (TickResult, Option<String>) {
        match self {
            TickEnd::Done => (TickResult::Done, None),
            TickEnd::Failed(why) => (TickResult::Failed, Some(rules::cut(why))),
            TickEnd::Skipped(why) => (TickResult::Skipped, Some(rules::cut(why))),
            TickEnd::Interrupted(why) => (TickResult::Interrupted, Some(rules::cut(why))),
        }
    }
}

/// Where schedules stand.
#[async_trait]
pub trait Ticks: Send + Sync + 'static {
    /// Where this schedule begins or goes on. `times` says when its times are: a text that differs where they do.
    ///
    /// A schedule that isn't known begins at `now`, and so does one whose times have changed since: its cursor is moved
    /// there, also back. One that an older wasmhost left is taken for the same.
    async fn begin(&self, schedule: &str, times: &str, now: Timestamp) -> Result<Begun, StoreError>;

    /// Forgets where all other schedules stand: they are away, and begin anew when they come back. The history of
    /// their ticks is kept. Returns how many they were.
    async fn keep_only(&self, schedules: &[String]) -> Result<u64, StoreError>;

    /// The last time of this schedule that was taken or passed over; `None` before its first.
    async fn cursor(&self, schedule: &str) -> Result<Option<Timestamp>, StoreError>;

    /// Moves the cursor to `nominal` without a tick: missed times that are skipped. It never moves back.
    async fn skip_to(&self, schedule: &str, nominal: Timestamp) -> Result<(), StoreError>;

    /// Takes the tick, and moves the cursor to it unless it is `manual`: both or neither. False where somebody has
    /// taken it already, or (unless it is `manual`) the cursor has passed it.
    ///
    /// The cursor of a tick that isn't `manual` is at `nominal` or later afterwards, whatever the answer is, so that the
    /// next time that a host computes from it is a new one.
    ///
    /// `owner` is who runs it: unique for each boot of each host, as in [`Claim`](crate::jobs::Claim).
    async fn take(
        &self,
        schedule: &str,
        nominal: Timestamp,
        manual: bool,
        owner: &str,
    ) -> Result<bool, StoreError>;

    /// Keeps how the tick's call ended. The first answer stays; a tick that isn't known is passed over.
    async fn finish(&self, schedule: &str, nominal: Timestamp, end: TickEnd) -> Result<(), StoreError>;

    /// Marks every tick that owners whose names begin with `prefix` left running as interrupted: earlier boots of
    /// this host, which are dead. They are not run again. Returns how many.
    async fn interrupt(&self, prefix: &str) -> Result<u64, StoreError>;

    /// The last `limit` ticks of a schedule by nominal time, newest first; at most [`HISTORY_MAX`].
    async fn history(&self, schedule: &str, limit: u32) -> Result<Vec<TickView>, StoreError>;
}
