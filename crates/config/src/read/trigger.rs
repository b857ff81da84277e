//! What calls an instance: `route`, `queue`, `schedule` or `run`, and the keys that belong to one of them.

use crate::formation::{Missed, Overlap, Route, Run, Schedule, Trigger};
use crate::reader::{Item, Reading, Table};
use crate::spelling::{name_problem, nearest, quoted};
use crate::timetable::parse_cron;
use croner::errors::CronError;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;

const ATTEMPTS_MAX: u32 = 1_000;
const WEIGHT_MAX: u32 = 1_000;
const NICKNAMES: [&str; 6] = ["@hourly", "@daily", "@weekly", "@monthly", "@yearly", "@annually"];

/// Which process type has a route, and the line that says so.
#[derive(Default)]
pub(super) struct RouteOwners(BTreeMap<Route, (String, usize)>);

/// Reads the trigger, and the `attempts` that belong to a queue.
pub(super) fn trigger(
    cx: &mut Reading<'_>,
    table: &mut Table<'_>,
    process: &str,
    routes: &mut RouteOwners,
) -> (Option<Trigger>, Option<u32>) {
    let [route, queue, schedule, run] = ["route", "queue", "schedule", "run"].map(|key| table.take(key));
    let attempts = table.take("attempts");
    let schedule_details = ["time_zone", "missed", "overlap"].map(|key| table.take(key));

    refuse_several(cx, &[("route", &route), ("queue", &queue), ("schedule", &schedule), ("run", &run)]);
    if queue.is_none() {
        refuse_without(cx, attempts.as_ref(), "queue");
    }
    if schedule.is_none() {
        for detail in &schedule_details {
            refuse_without(cx, detail.as_ref(), "schedule");
        }
    }

    // Each is read even where there are several: what is wrong in them is told at once.
    let http = route.map(|item| Trigger::Http { routes: read_routes(cx, &item, process, routes) });
    let queue = queue.map(|item| Trigger::Queue { queues: read_queues(cx, &item) });
    let schedule = schedule.map(|item| Trigger::Schedule(read_schedule(cx, &item, &schedule_details)));
    let run = run.and_then(|item| {
        let run =
            item.choice(cx, &[("always", Run::Always), ("release", Run::Release), ("never", Run::Never)])?;
        Some(Trigger::Command { run })
    });
    let attempts = attempts.and_then(|item| item.whole(cx, 1..=ATTEMPTS_MAX));
    (http.or(queue).or(schedule).or(run), attempts)
}

/// A process type has one trigger: reported at the last of several keys, which names them all.
fn refuse_several(cx: &mut Reading<'_>, triggers: &[(&str, &Option<Item<'_>>)]) {
    let mut given: Vec<(&str, &Item<'_>)> =
        triggers.iter().filter_map(|(key, item)| item.as_ref().map(|item| (*key, item))).collect();
    given.sort_by_key(|(_, item)| item.span.start);
    let [others @ .., (_, last)] = given.as_slice() else { return };
    if others.is_empty() {
        return;
    }
    let keys: Vec<String> = given.iter().map(|(key, _)| format!("`{key}`")).collect();
    let message = format!(
        "found {}, expected one of them: each says what calls an instance; \
         for more, make a process type for each, of the same component",
        keys.join(" and ")
    );
    last.problem(cx, message);
}

fn refuse_without(cx: &mut Reading<'_>, item: Option<&Item<'_>>, needed: &str) {
    if let Some(item) = item {
        item.problem(
            cx,
            format!("found without `{needed}`, expected only beside it: add `{needed}`, or leave this out"),
        );
    }
}

fn read_routes(cx: &mut Reading<'_>, item: &Item<'_>, process: &str, owners: &mut RouteOwners) -> Vec<Route> {
    let elements = match item.is_array() {
        true => item.array(cx, "").unwrap_or_default(),
        false => vec![item.clone()],
    };
    if elements.is_empty() {
        item.problem(cx, "found an empty array, expected at least one route, such as \"/\"");
    }
    let mut routes = Vec::new();
    for element in elements {
        let Some(text) = element.string_or(cx, "a route such as \"/v1\", or an array of them") else {
            continue;
        };
        let route = match text.parse::<Route>() {
            Ok(route) => route,
            Err(error) => {
                element.problem(cx, error.to_string());
                continue;
            }
        };
        match owners.0.get(&route) {
            None => {
                owners.0.insert(route.clone(), (process.to_owned(), cx.report.line(element.span.start)));
                routes.push(route);
            }
            Some((owner, _)) if owner == process => {
                element.problem(cx, format!("the route {} is given twice", quoted(&route.to_string())));
            }
            Some((owner, line)) => {
                let message = format!(
                    "the route {} is already process.{owner}'s (line {line}), and process.{process} \
                     can't have it too: give one of them another host or path",
                    quoted(&route.to_string())
                );
                element.problem(cx, message);
            }
        }
    }
    routes
}

fn read_queues(cx: &mut Reading<'_>, item: &Item<'_>) -> Vec<(String, u32)> {
    let expected = "a queue's name, or names with weights such as { default = 3, mail = 1 }";
    if item.is_str() {
        return queue_name(cx, item, expected).map(|name| vec![(name, 1)]).unwrap_or_default();
    }
    let Some(table) = item.table(cx, expected) else { return Vec::new() };
    if table.is_empty() {
        item.problem(cx, format!("found an empty table, expected {expected}"));
    }
    let mut queues = Vec::new();
    for (name, name_span, weight) in table.entries() {
        if let Some(message) = name_problem(name) {
            cx.report.add(&name_span, weight.key.clone(), message);
        }
        queues.extend(weight.whole(cx, 1..=WEIGHT_MAX).map(|weight| (name.to_owned(), weight)));
    }
    queues
}

/// The name of a queue, as a value.
pub(super) fn queue_name(cx: &mut Reading<'_>, item: &Item<'_>, expected: &str) -> Option<String> {
    let name = item.string_or(cx, expected)?;
    match name_problem(&name) {
        None => Some(name),
        Some(message) => {
            item.problem(cx, message);
            None
        }
    }
}

fn read_schedule(cx: &mut Reading<'_>, item: &Item<'_>, details: &[Option<Item<'_>>; 3]) -> Schedule {
    let [time_zone, missed, overlap] = details.each_ref().map(Option::as_ref);
    let cron = item.string_or(cx, "a cron expression such as \"*/5 * * * *\" or \"@daily\"");
    if let Some(Err(message)) = cron.as_deref().map(check_cron) {
        item.problem(cx, message);
    }
    let time_zone = time_zone.and_then(|item| {
        let name = item.string_or(cx, "the name of a time zone, such as \"Europe/Berlin\"")?;
        zone_name(&name).map_err(|message| item.problem(cx, message)).ok()
    });
    let missed = missed.and_then(|item| {
        item.choice(cx, &[("skip", Missed::Skip), ("one", Missed::One), ("all", Missed::All)])
    });
    let overlap =
        overlap.and_then(|item| item.choice(cx, &[("skip", Overlap::Skip), ("allow", Overlap::Allow)]));
    Schedule {
        cron: cron.unwrap_or_default(),
        time_zone: time_zone.unwrap_or_else(|| "UTC".to_owned()),
        missed: missed.unwrap_or(Missed::One),
        overlap: overlap.unwrap_or(Overlap::Skip),
    }
}

fn check_cron(text: &str) -> Result<(), String> {
    let found = quoted(text);
    let expected = "expected a cron expression such as \"*/5 * * * *\" or \"@daily\"";
    if text.trim_start().starts_with('@') {
        if NICKNAMES.iter().any(|nickname| text.trim().eq_ignore_ascii_case(nickname)) {
            return Ok(());
        }
        return Err(format!("found {found}, expected one of {}", NICKNAMES.join(", ")));
    }
    let fields = text.split_whitespace().count();
    if !(5..=6).contains(&fields) {
        return Err(format!(
            "found {found}, of {fields} fields, {expected}: 5 fields, or 6 with seconds first"
        ));
    }
    let cron =
        parse_cron(text).map_err(|error| format!("found {found}, {expected}: {}", cron_fault(error)))?;
    // From a fixed day, so that a file is right or wrong whenever it is read; 29 February is within 8 years
    // of any.
    let start = jiff::civil::date(2000, 1, 1).to_zoned(TimeZone::UTC).map_err(|error| error.to_string())?;
    match cron.find_next_occurrence(&start, true) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("found {found}, which never comes: no date matches it")),
    }
}

/// What croner says, without its own names for the parts of an expression.
fn cron_fault(error: CronError) -> String {
    match error {
        CronError::InvalidPattern(fault)
        | CronError::IllegalCharacters(fault)
        | CronError::ComponentError(fault) => {
            fault.replace("CronPattern contains ", "").trim_end_matches('.').to_lowercase()
        }
        other => other.to_string(),
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
