//! The trigger, which calls an instance: `route`, `queue`, `schedule`, `every` or `run`, and the keys that belong to one of them.

use super::DURATION_OR_ZERO;
use super::schedule;
use crate::formation::{Route, Run, Trigger};
use crate::reader::{Item, Reading, Table};
use crate::spelling::{name_problem, quoted};
use std::collections::BTreeMap;
use std::time::Duration;

const ATTEMPTS_MAX: u32 = 1_000;
/// More attempts than this differ by nothing that a person would write down.
const BACKOFF_MAX: usize = 100;
const WEIGHT_MAX: u32 = 1_000;

/// Which process type has a route, and the line that says so.
#[derive(Default)]
pub(super) struct RouteOwners(BTreeMap<Route, (String, usize)>);

/// The trigger, and what of the keys beside it is the process type's.
pub(super) struct Read {
    pub(super) trigger: Option<Trigger>,
    pub(super) attempts: Option<u32>,
    pub(super) backoff: Vec<Duration>,
}

/// Reads the trigger and the keys that belong to one.
pub(super) fn trigger(
    cx: &mut Reading<'_>,
    table: &mut Table<'_>,
    process: &str,
    routes: &mut RouteOwners,
) -> Read {
    let [route, queue, cron, every, run] =
        ["route", "queue", "schedule", "every", "run"].map(|key| table.take(key));
    let [attempts, backoff] = ["attempts", "backoff"].map(|key| table.take(key));
    let time_zone = table.take("time_zone");
    let details = ["jitter", "missed", "overlap"].map(|key| table.take(key));

    refuse_several(
        cx,
        &[("route", &route), ("queue", &queue), ("schedule", &cron), ("every", &every), ("run", &run)],
    );
    if queue.is_none() {
        refuse_without(cx, [&attempts, &backoff], &["queue"]);
    }
    if cron.is_none() {
        // `every` counts from 1970 in UTC: no zone changes it.
        refuse_without(cx, [&time_zone], &["schedule"]);
        if every.is_none() {
            refuse_without(cx, &details, &["schedule", "every"]);
        }
    }

    // Each is read even where there are several: what is wrong in them is told at once.
    let http = route.map(|item| Trigger::Http { routes: read_routes(cx, &item, process, routes) });
    let queue = queue.map(|item| Trigger::Queue { queues: read_queues(cx, &item) });
    let details = schedule::Details::read(cx, time_zone, details);
    let cron = cron.map(|item| Trigger::Schedule(schedule::read_cron(cx, &item, &details)));
    let every = every.map(|item| Trigger::Schedule(schedule::read_every(cx, &item, &details)));
    let run = run.and_then(|item| {
        let run =
            item.choice(cx, &[("always", Run::Always), ("release", Run::Release), ("never", Run::Never)])?;
        Some(Trigger::Command { run })
    });
    Read {
        trigger: http.or(queue).or(cron).or(every).or(run),
        attempts: attempts.and_then(|item| item.whole(cx, 1..=ATTEMPTS_MAX)),
        backoff: backoff.map(|item| read_backoff(cx, &item)).unwrap_or_default(),
    }
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

fn refuse_without<'i, 't: 'i>(
    cx: &mut Reading<'_>,
    items: impl IntoIterator<Item = &'i Option<Item<'t>>>,
    needed: &[&str],
) {
    let keys: Vec<String> = needed.iter().map(|key| format!("`{key}`")).collect();
    let keys = keys.join(" or ");
    let (beside, add) = if needed.len() == 1 { ("it", keys.as_str()) } else { ("one of them", "one") };
    for item in items.into_iter().flatten() {
        item.problem(
            cx,
            format!("found without {keys}, expected only beside {beside}: add {add}, or leave this out"),
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

/// The waits after each attempt. A single duration would read as the first wait alone: it takes an array.
fn read_backoff(cx: &mut Reading<'_>, item: &Item<'_>) -> Vec<Duration> {
    let expected = "an array of durations such as [\"10s\", \"1m\", \"10m\"]";
    let Some(elements) = item.array(cx, expected) else { return Vec::new() };
    if elements.is_empty() {
        item.problem(
            cx,
            format!("found an empty array, expected {expected}; for the usual waits, leave it out"),
        );
    }
    if elements.len() > BACKOFF_MAX {
        item.problem(cx, format!("found {} durations, expected at most {BACKOFF_MAX}", elements.len()));
    }
    elements.iter().filter_map(|element| element.duration(cx, DURATION_OR_ZERO)).collect()
}
