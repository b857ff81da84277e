//! `[compile]`.

use crate::formation::CompileLimits;
use crate::reader::{Item, Reading};
use std::ops::RangeInclusive;
use std::time::Duration;

/// The compiler of an empty component takes less than the least of both.
const MEMORY_BYTES: RangeInclusive<u64> = (64 << 20)..=(1 << 40);
const CPU: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);

/// Reads `[compile]`.
pub(super) fn compile(cx: &mut Reading<'_>, item: &Item<'_>) -> Option<CompileLimits> {
    let mut table = item.table(cx, "a table such as [compile]")?;
    let default = CompileLimits::default();
    let memory = table.take("memory").and_then(|item| item.size(cx, MEMORY_BYTES));
    let cpu = table.take("cpu").and_then(|item| item.duration(cx, CPU));
    table.finish(cx);
    Some(CompileLimits {
        memory_bytes_max: memory.unwrap_or(default.memory_bytes_max),
        cpu: cpu.unwrap_or(default.cpu),
    })
}
