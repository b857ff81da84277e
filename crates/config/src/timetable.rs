//! When the times of a schedule are.

use croner::Cron;
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};

use crate::Schedule;

/// Reads a cron expression of five or six fields, or an `@daily` form.
pub(crate) fn parse_cron(expression: &str) -> Result<Cron, CronError> {
    CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build().parse(expression)
}

impl Schedule {
    /// The first time after `at`, both in milliseconds since 1970-01-01T00:00:00Z. `None` where there is none before
    /// the end of the calendar.
    pub fn next_after_ms(&self, at: i64) -> Option<i64> {
        let next = parse_cron(&self.cron).ok()?.find_next_occurrence(&self.zoned(at)?, false).ok()?;
        Some(next.timestamp().as_millisecond())
    }

    /// The last time before `at`, both in milliseconds since 1970-01-01T00:00:00Z.
    pub fn last_before_ms(&self, at: i64) -> Option<i64> {
        // Times are whole seconds. croner cuts `at` to one before it looks back, and so would miss the second that
        // has just begun.
        let at = at.checked_add(999)?.div_euclid(1000).checked_mul(1000)?;
        let last = parse_cron(&self.cron).ok()?.find_previous_occurrence(&self.zoned(at)?, false).ok()?;
        Some(last.timestamp().as_millisecond())
    }

    fn zoned(&self, at: i64) -> Option<jiff::Zoned> {
        jiff::Timestamp::from_millisecond(at).ok()?.in_tz(&self.time_zone).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Missed, Overlap};

    fn every_minute() -> Schedule {
        Schedule {
            cron: "* * * * *".into(),
            time_zone: "UTC".into(),
            missed: Missed::One,
            overlap: Overlap::Skip,
        }
    }

    fn ms(time: &str) -> i64 {
        time.parse::<jiff::Timestamp>().unwrap().as_millisecond()
    }

    #[test]
    fn the_next_time_is_after_and_not_at() {
        let minute = 1_700_000_040_000;
        assert_eq!(every_minute().next_after_ms(minute), Some(minute + 60_000));
        assert_eq!(every_minute().next_after_ms(minute - 1), Some(minute));
        assert_eq!(every_minute().last_before_ms(minute + 1), Some(minute));
        assert_eq!(every_minute().last_before_ms(minute), Some(minute - 60_000));
    }

    #[test]
    fn a_nightly_time_keeps_its_hour_through_a_change_of_the_clocks() {
        let nightly =
            Schedule { cron: "0 4 * * *".into(), time_zone: "Europe/Berlin".into(), ..every_minute() };
        // 2026-03-28 04:00 in Berlin is 03:00 UTC; a day later, after the change, it's 02:00 UTC.
        let before = ms("2026-03-28T03:00:00Z");
        let after = ms("2026-03-29T02:00:00Z");
        assert_eq!(nightly.next_after_ms(before), Some(after));
    }
}
