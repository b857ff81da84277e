//! When the times of a schedule are.

use std::time::Duration;

use crate::{Schedule, Times, cron};

impl Schedule {
    /// A text that is the same as long as the times are: another one says that the schedule was changed.
    pub fn identity(&self) -> String {
        match &self.times {
            Times::Cron { expression, time_zone } => {
                format!("{} {time_zone}", cron::spelled_plainly(expression))
            }
            Times::Every(every) => format!("every {} ms", milliseconds(*every)),
        }
    }

    /// The first time after `at`, both in milliseconds since 1970-01-01T00:00:00Z. `None` where there is none before
    /// the end of the calendar.
    pub fn next_after_ms(&self, at: i64) -> Option<i64> {
        match &self.times {
            Times::Cron { expression, time_zone } => {
                let next = cron::parse(expression).ok()?.find_next_occurrence(&zoned(at, time_zone)?, false);
                Some(next.ok()?.timestamp().as_millisecond())
            }
            Times::Every(every) => {
                let every = milliseconds(*every);
                at.div_euclid(every).checked_add(1)?.checked_mul(every)
            }
        }
    }

    /// The last time before `at`, both in milliseconds since 1970-01-01T00:00:00Z.
    pub fn last_before_ms(&self, at: i64) -> Option<i64> {
        match &self.times {
            Times::Cron { expression, time_zone } => {
                // Times are whole seconds. croner cuts `at` to one before it looks back, and so would miss the
                // second that has just begun.
                let at = at.checked_add(999)?.div_euclid(1000).checked_mul(1000)?;
                let last =
                    cron::parse(expression).ok()?.find_previous_occurrence(&zoned(at, time_zone)?, false);
                Some(last.ok()?.timestamp().as_millisecond())
            }
            Times::Every(every) => {
                let every = milliseconds(*every);
                at.checked_sub(1)?.div_euclid(every).checked_mul(every)
            }
        }
    }

    /// How long after `nominal` (in milliseconds since 1970-01-01T00:00:00Z) the call of `process` is due: less than
    /// `jitter`, spread evenly, and the same on whichever host and in whichever version.
    pub fn delay(&self, process: &str, nominal: i64) -> Duration {
        let jitter = milliseconds(self.jitter) as u64;
        // FNV-1a: fixed for ever, unlike the standard library's hash. The rest mixes what neighbours differ in into
        // all bits (the end of MurmurHash3).
        let bytes = process.bytes().chain(nominal.to_be_bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        let hash = hash ^ (hash >> 33);
        Duration::from_millis(hash.checked_rem(jitter).unwrap_or(0))
    }
}

/// The larger ones would end after the calendar does, and a schedule's are at least one.
fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn zoned(at: i64, time_zone: &str) -> Option<jiff::Zoned> {
    jiff::Timestamp::from_millisecond(at).ok()?.in_tz(time_zone).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::{Missed, Overlap};

    #[test]
    fn a_schedule_that_is_spelled_in_another_way_is_the_same() {
        assert_eq!(cron("0 4 * * MON", "UTC").identity(), cron(" 0  4 * * mon", "UTC").identity());
        let others = [
            cron("0 9 * * mon", "UTC"),
            cron("0 4 * * mon", "Europe/Berlin"),
            cron("0 0 4 * * mon", "UTC"),
            every(60),
            every(61),
        ];
        for (nth, other) in others.iter().enumerate() {
            assert_ne!(other.identity(), cron("0 4 * * mon", "UTC").identity());
            assert!(others[..nth].iter().all(|before| before.identity() != other.identity()));
        }
    }

    fn schedule(times: Times) -> Schedule {
        Schedule { times, jitter: Duration::ZERO, missed: Missed::One, overlap: Overlap::Skip }
    }

    fn cron(expression: &str, time_zone: &str) -> Schedule {
        schedule(Times::Cron { expression: expression.into(), time_zone: time_zone.into() })
    }

    fn every(seconds: u64) -> Schedule {
        schedule(Times::Every(Duration::from_secs(seconds)))
    }

    fn ms(time: &str) -> i64 {
        time.parse::<jiff::Timestamp>().unwrap().as_millisecond()
    }

    /// The times in a span, its beginning left out, as one who goes forward finds them.
    fn forward(schedule: &Schedule, after: i64, until: i64) -> Vec<i64> {
        let next = |at: &i64| schedule.next_after_ms(*at).filter(|next| *next <= until);
        std::iter::successors(next(&after), next).collect()
    }

    /// The same as one who goes back finds them, oldest first.
    fn backward(schedule: &Schedule, after: i64, until: i64) -> Vec<i64> {
        let last = |at: &i64| schedule.last_before_ms(*at).filter(|last| *last > after);
        let mut found: Vec<_> = std::iter::successors(last(&(until + 1)), last).collect();
        found.reverse();
        found
    }

    #[test]
    fn the_next_time_is_after_and_not_at() {
        let minute = 1_700_000_040_000;
        for schedule in [cron("* * * * *", "UTC"), every(60)] {
            assert_eq!(schedule.next_after_ms(minute), Some(minute + 60_000));
            assert_eq!(schedule.next_after_ms(minute - 1), Some(minute));
            assert_eq!(schedule.last_before_ms(minute + 1), Some(minute));
            assert_eq!(schedule.last_before_ms(minute), Some(minute - 60_000));
        }
    }

    #[test]
    fn an_interval_counts_from_1970() {
        assert_eq!(every(86_400).next_after_ms(ms("2026-03-29T12:00:00Z")), Some(ms("2026-03-30T00:00:00Z")));
        let odd = schedule(Times::Every(Duration::from_millis(1_700)));
        assert_eq!(forward(&odd, -1_700, 5_100), [0, 1_700, 3_400, 5_100]);
        assert_eq!(odd.next_after_ms(i64::MAX), None);
        assert_eq!(odd.last_before_ms(i64::MIN), None);
    }

    /// In each zone the clocks are set forth and back, by half an hour on Lord Howe Island. By cron's custom a time
    /// of day is kept: one that is left out comes when the clocks have been set, one that comes twice is taken the
    /// first time. Times that come again and again come in each hour that there is.
    #[test]
    fn changes_of_the_clocks_leave_out_nothing_and_repeat_nothing() {
        let table = [
            // 02:00 -> 03:00 at 01:00 UTC.
            ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "01:00 00:30"),
            ("0 4 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "02:00 02:00"),
            ("*/30 1-3 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "00:00 00:30 01:00 01:30"),
            // 03:00 -> 02:00 at 01:00 UTC.
            ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "00:30 01:30"),
            ("0 4 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "03:00 03:00"),
            ("*/30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "00:00 00:30 01:00 01:30"),
            // Several times a day come whenever the clocks show them.
            ("30 2,14 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "13:30"),
            ("30 2,14 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "12:30 00:30 01:30"),
            // 02:00 -> 02:30 at 15:30 UTC.
            ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", "15:30 15:15"),
            ("*/15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", "15:30 15:45"),
            // 02:00 -> 01:30 at 15:00 UTC.
            ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00:00Z", "14:45 15:15"),
            (
                "*/15 1 * * *",
                "Australia/Lord_Howe",
                "2026-04-04T12:00:00Z",
                "14:00 14:15 14:30 14:45 15:00 15:15",
            ),
        ];
        for (expression, zone, after, expected) in table {
            let schedule = cron(expression, zone);
            // Two nights for what comes once in each, one for the rest.
            let hours =
                if expected.split(' ').count() == 2 && !expression.starts_with('*') { 48 } else { 24 };
            let (after, until) = (ms(after), ms(after) + hours * 3_600_000);
            let found = forward(&schedule, after, until);
            let shown: Vec<_> = found
                .iter()
                .map(|at| jiff::Timestamp::from_millisecond(*at).unwrap().strftime("%H:%M").to_string())
                .collect();
            assert_eq!(shown.join(" "), expected, "{expression} in {zone}");
            assert_eq!(backward(&schedule, after, until), found, "{expression} in {zone}");
        }
    }

    proptest! {
        #[test]
        fn whoever_looks_back_sees_what_whoever_goes_forward_does(
            zone in select(vec!["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/New_York", "Asia/Kathmandu"]),
            change in select(vec![
                "2026-03-29T01:00:00Z", "2026-10-25T01:00:00Z", "2026-04-04T15:00:00Z", "2026-10-03T15:30:00Z",
                "2026-03-08T07:00:00Z", "2026-11-01T06:00:00Z", "2026-07-01T00:00:00Z",
            ]),
            expression in "(\\*|\\*/[1-9]|[0-5]?[0-9]|0,30|45-59) (\\*|\\*/[2-9]|[0-9]|2[0-3]|1-3) \\* \\* (\\*|0|1)",
            before in 0i64..20_000_000,
            span in 1i64..40_000_000,
        ) {
            let schedule = cron(&expression, zone);
            let after = ms(change) - before;
            let found = forward(&schedule, after, after + span);
            prop_assert!(found.is_sorted_by(|one, next| one < next), "{found:?}");
            prop_assert_eq!(backward(&schedule, after, after + span), found);
        }

        #[test]
        fn an_interval_looks_the_same_from_both_sides(ms in 1_000u64..100_000, after: i32, span in 1i64..10_000_000) {
            let schedule = schedule(Times::Every(Duration::from_millis(ms)));
            let (after, until) = (i64::from(after), i64::from(after) + span);
            let found = forward(&schedule, after, until);
            prop_assert!(found.windows(2).all(|pair| pair[1] - pair[0] == ms as i64));
            prop_assert_eq!(backward(&schedule, after, until), found);
        }

        #[test]
        fn a_delay_is_below_the_jitter(process in "[a-z]{1,9}", nominal: i64, jitter in 1u64..3_600_000) {
            let schedule = Schedule { jitter: Duration::from_millis(jitter), ..every(3_600) };
            prop_assert!(schedule.delay(&process, nominal) < schedule.jitter);
        }
    }

    #[test]
    fn delays_are_the_same_for_ever_and_spread_evenly() {
        let schedule = Schedule { jitter: Duration::from_secs(10), ..every(60) };
        // Hosts of other versions may share the store: a change of these would run times out of their order.
        assert_eq!(schedule.delay("clock", 1_700_000_040_000), Duration::from_millis(4_302));
        assert_eq!(schedule.delay("clock", 1_700_000_100_000), Duration::from_millis(9_615));
        assert_eq!(schedule.delay("report", 1_700_000_040_000), Duration::from_millis(3_882));
        let mut seconds = [0; 10];
        for minute in 0..10_000 {
            seconds[schedule.delay("clock", minute * 60_000).as_secs() as usize] += 1;
        }
        assert!(seconds.iter().all(|count| (900..1_100).contains(count)), "{seconds:?}");
        assert_eq!(every(60).delay("clock", 1_700_000_040_000), Duration::ZERO);
    }
}
