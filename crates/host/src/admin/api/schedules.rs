//! Schedules and ticks in the admin API's JSON. Times are RFC 3339, UTC.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wasmhost_store::Timestamp;
pub use wasmhost_store::ticks::TickResult;

/// The answer to `POST /v1/schedules/{process}/ticks`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TickResponse {
    /// The tick's time, RFC 3339.
    pub nominal: String,
    /// The words of the guest or the host for what went wrong; `null` where nothing did.
    pub error: Option<String>,
}

/// `GET /v1/schedules`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SchedulesView {
    /// By name.
    pub schedules: Vec<ScheduleView>,
}

/// Where a schedule stands.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ScheduleView {
    /// The process type.
    pub process: String,
    /// The cron expression, where it has one.
    pub schedule: Option<String>,
    /// The expression's time zone.
    pub time_zone: Option<String>,
    /// The interval in seconds, where it has one instead.
    pub every_s: Option<f64>,
    /// Each call is late by some time below this, in seconds.
    pub jitter_s: f64,
    /// The last time that was taken or passed over; `null` before the first look.
    pub cursor: Option<Timestamp>,
    /// The next five.
    pub next: Vec<NextTick>,
}

/// A time to come.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NextTick {
    /// The time that the schedule names.
    pub nominal: Timestamp,
    /// When its call begins, which the jitter delays.
    pub due: Timestamp,
}

/// `GET /v1/schedules/{process}/ticks`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TicksView {
    /// By nominal time, newest first.
    pub ticks: Vec<TickView>,
}

/// A tick that was taken, and what became of it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TickView {
    /// The process type.
    pub process: String,
    /// The time that the schedule names.
    pub nominal: Timestamp,
    /// True where a person asked for it.
    pub manual: bool,
    /// When it was taken.
    pub started_at: Timestamp,
    /// When its call ended; `null` while it runs, and where nobody saw it end.
    pub ended_at: Option<Timestamp>,
    /// Seconds between the two.
    pub duration_s: Option<f64>,
    /// `running`, `done`, `failed`, `skipped` (the one before it still ran) or `interrupted` (its host stopped).
    pub result: TickResult,
    /// Why it wasn't done; `null` where it was, and while it runs.
    pub error: Option<String>,
}
