//! `schedule` and `every`: the times of a schedule, and the keys beside them.

use crate::cron;
use crate::formation::{Missed, Overlap, Schedule, Times};
use crate::reader::{Item, Reading};
use crate::spelling::{nearest, quoted};
use crate::units::format_duration;
use jiff::tz::TimeZone;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Calls that come more often belong into a loop of the guest's own.
const EVERY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(365 * 24);

/// Longer ones would take a call out of the time that its schedule names.
const JITTER: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(1);

/// The keys beside either.
pub(super) struct Details<'t> {
    time_zone: Option<String>,
    jitter: Option<(Item<'t>, Duration)>,
    missed: Missed,
    overlap: Overlap,
}

impl<'t> Details<'t> {
    /// Reads `time_zone`, and `jitter`, `missed` and `overlap`, whether there is a schedule or not: what is wrong in
    /// them is told at once.
    pub(super) fn read(
        cx: &mut Reading<'_>,
        time_zone: Option<Item<'t>>,
        [jitter, missed, overlap]: [Option<Item<'t>>; 3],
    ) -> Details<'t> {
        let time_zone = time_zone.and_then(|item| {
            let name = item.string_or(cx, "the name of a time zone, such as \"Europe/Berlin\"")?;
            zone_name(&name).map_err(|message| item.problem(cx, message)).ok()
        });
        let jitter = jitter.and_then(|item| {
            let jitter = item.duration(cx, JITTER)?;
            Some((item, jitter))
        });
        let missed = missed.and_then(|item| {
            item.choice(cx, &[("skip", Missed::Skip), ("one", Missed::One), ("all", Missed::All)])
        });
        let overlap =
            overlap.and_then(|item| item.choice(cx, &[("skip", Overlap::Skip), ("allow", Overlap::Allow)]));
        Details {
            time_zone,
            jitter,
            missed: missed.unwrap_or(Missed::One),
            overlap: overlap.unwrap_or(Overlap::Skip),
        }
    }

    fn schedule(&self, times: Times) -> Schedule {
        let jitter = self.jitter.as_ref().map_or(Duration::ZERO, |(_, jitter)| *jitter);
        Schedule { times, jitter, missed: self.missed, overlap: self.overlap }
    }
}

/// Reads `schedule`.
pub(super) fn read_cron(cx: &mut Reading<'_>, item: &Item<'_>, details: &Details<'_>) -> Schedule {
    let expression = item.string_or(cx, "a cron expression such as \"*/5 * * * *\" or \"@daily\"");
    if let Some(Err(message)) = expression.as_deref().map(check_cron) {
        item.problem(cx, message);
    }
    let time_zone = details.time_zone.clone().unwrap_or_else(|| "UTC".to_owned());
    details.schedule(Times::Cron { expression: expression.unwrap_or_default(), time_zone })
}

/// Reads `every`.
pub(super) fn read_every(cx: &mut Reading<'_>, item: &Item<'_>, details: &Details<'_>) -> Schedule {
    let every = item.duration(cx, EVERY);
    if let (Some(every), Some((item, jitter))) = (every, &details.jitter)
        && *jitter >= every
    {
        let found = format_duration(*jitter);
        item.problem(
            cx,
            format!("found {found:?}, expected less than `every`, or times would overtake each other"),
        );
    }
    details.schedule(Times::Every(every.unwrap_or(*EVERY.start())))
}

fn check_cron(text: &str) -> Result<(), String> {
    let found = quoted(text);
    let cron = cron::parse(text).map_err(|fault| {
        format!("found {found}, {fault}; expected a cron expression such as \"*/5 * * * *\" or \"@daily\"")
    })?;
    // From a fixed day, so that a file is right or wrong whenever it is read; 29 February is within 8 years
    // of any.
    let start = jiff::civil::date(2000, 1, 1).to_zoned(TimeZone::UTC).map_err(|error| error.to_string())?;
    match cron.find_next_occurrence(&start, true) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("found {found}, which never comes: no date matches it")),
    }
}

/// The name of a time zone as the database spells it.
fn zone_name(name: &str) -> Result<String, String> {
    if let Ok(zone) = TimeZone::get(name)
        && let Some(name) = zone.iana_name()
    {
        return Ok(name.to_owned());
    }
    let zones: Vec<String> = jiff::tz::db().available().map(|zone| zone.to_string()).collect();
    let near = nearest(name, zones.iter().map(String::as_str));
    let hint = near.map(|zone| format!("; did you mean {zone:?}?")).unwrap_or_default();
    Err(format!("found {}, expected the name of a time zone, such as \"Europe/Berlin\"{hint}", quoted(name)))
}
