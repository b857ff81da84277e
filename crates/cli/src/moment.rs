//! A time as a person writes it: how long ago, a time of day, or a date and a time. All are UTC, as the times of log lines
//! are, unless they say their zone.

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use wasmhost_config::shown;
use wasmhost_config::units::parse_duration;

/// Reads `10m`, `05:08`, `2026-11-21T05:08:00Z` or `2026-11-21 05:08`.
pub(crate) fn moment(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let expected = || {
        format!(
            "found \"{}\", expected how long ago (10m), a time of day (05:08), or a date and a time (2026-11-21T05:08:00Z), in UTC",
            shown::one_line(text, shown::MESSAGE_BYTES_MAX)
        )
    };
    if let Ok(ago) = parse_duration(text) {
        return now.checked_sub(ago).map_err(|_| expected());
    }
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    if text.contains(':')
        && let Ok(time) = text.parse::<Time>()
    {
        return last_at(time, now).ok_or_else(expected);
    }
    let date = text.parse::<DateTime>().map_err(|_| expected())?;
    in_utc(date).ok_or_else(expected)
}

/// The last time that it was so late.
fn last_at(time: Time, now: Timestamp) -> Option<Timestamp> {
    let today = now.to_zoned(TimeZone::UTC).date().to_datetime(time);
    let at = in_utc(today)?;
    if at <= now { Some(at) } else { in_utc(today.checked_sub(Span::new().days(1)).ok()?) }
}

fn in_utc(date: DateTime) -> Option<Timestamp> {
    Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn is(text: &str, expected: &str) {
        let now = "2026-11-21T05:08:00Z".parse().unwrap();
        assert_eq!(moment(text, now).map(|time| time.to_string()), Ok(expected.to_owned()), "{text}");
    }

    #[test]
    fn a_time_is_said_in_several_ways() {
        is("10m", "2026-11-21T04:58:00Z");
        is("1h30m", "2026-11-21T03:38:00Z");
        is("05:00", "2026-11-21T05:00:00Z");
        is("05:07:59", "2026-11-21T05:07:59Z");
        is("05:08:01", "2026-11-20T05:08:01Z");
        is("2026-11-21T06:08:00+01:00", "2026-11-21T05:08:00Z");
        is("2026-11-20T12:30", "2026-11-20T12:30:00Z");
        is("2026-11-20 12:30:01", "2026-11-20T12:30:01Z");
        is("2026-11-20", "2026-11-20T00:00:00Z");
    }

    #[test]
    fn what_is_no_time_is_refused_with_what_is() {
        let now = "2026-11-21T05:08:00Z".parse().unwrap();
        for text in ["", "yesterday", "10", "25:00", "5 o'clock", "2026-13-01", "-10m", "99999999999999h"] {
            let problem = moment(text, now).unwrap_err();
            assert!(problem.contains(&format!("found \"{text}\", expected how long ago")), "{problem}");
        }
    }
}
