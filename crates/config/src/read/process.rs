//! `[process.NAME]`.

use super::{DURATION_MAX, DURATION_OR_ZERO, INSTANCES_MAX, grants, trigger};
use crate::formation::{Isolation, ProcessType, Times, Trigger};
use crate::normal::has_whole_escapes;
use crate::reader::{Item, Reading, Table};
use crate::spelling::quoted;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

const MEMORY_BYTES_MIN: u64 = 64 << 10;
const MEMORY_BYTES_MAX: u64 = 4 << 30;
/// 1 TiB: what is longer is a slip in the unit.
const BODY_BYTES_MAX: u64 = 1 << 40;
const LOG_BYTES_PER_SECOND: RangeInclusive<u64> = (1 << 10)..=(1 << 30);
const BACKLOG_MAX: u32 = 1_000_000;
/// As that of a queue beside others.
const WEIGHT_MAX: u32 = 1_000;
const CONCURRENCY_MAX: u32 = 10_000;
const READY_BYTES_MAX: usize = 1 << 10;
const CALLS_MAX: u64 = 1_000_000_000_000;

/// Shorter lives would be spent on starting.
const AGE_MIN: Duration = Duration::from_secs(1);
const AGE_MAX: Duration = Duration::from_hours(365 * 24);

const EXPECTED_BUILD: &str =
    "the command that makes the component, such as \"cargo build --release --target wasm32-wasip2\"";

/// Reads one process type; `None` where it is no table at all.
pub(super) fn process_type(
    cx: &mut Reading<'_>,
    name: &str,
    item: &Item<'_>,
    routes: &mut trigger::RouteOwners,
) -> Option<ProcessType> {
    let mut table = item.table(cx, &format!("a table, such as [process.{name}]"))?;
    let component = component(cx, &mut table);
    let mut process = ProcessType::new(name, component.unwrap_or_default());
    process.build = table.take("build").and_then(|item| item.text(cx, EXPECTED_BUILD));
    process.trust_cwasm = table.take("trust_cwasm").and_then(|item| item.boolean(cx)).unwrap_or(false);
    process.missing_imports_trap = table
        .take("missing_imports")
        .and_then(|item| item.choice(cx, &[("refuse", false), ("trap", true)]))
        .unwrap_or(false);
    if let Some(count) = table.take("count").and_then(|item| count(cx, &item)) {
        process.count = count;
    }
    let trigger::Read { trigger, attempts, backoff } = trigger::trigger(cx, &mut table, name, routes);
    process.trigger = trigger;
    process.attempts = attempts.unwrap_or(process.attempts);
    process.backoff = backoff;
    if let Some(memory) =
        table.take("memory").and_then(|item| item.size(cx, MEMORY_BYTES_MIN..=MEMORY_BYTES_MAX))
    {
        process.memory_bytes_max = memory;
    }
    process.timeout =
        table.take("timeout").and_then(|item| item.duration(cx, Duration::from_millis(1)..=DURATION_MAX));
    process.cpu =
        table.take("cpu").and_then(|item| item.duration(cx, Duration::from_millis(1)..=DURATION_MAX));
    process.weight =
        table.take("weight").and_then(|item| item.whole(cx, 1..=WEIGHT_MAX)).unwrap_or(process.weight);
    process.concurrency = table.take("concurrency").and_then(|item| item.whole(cx, 1..=CONCURRENCY_MAX));
    process.isolation = table
        .take("isolation")
        .and_then(|item| item.choice(cx, &[("instance", Isolation::Instance), ("call", Isolation::Call)]));
    process.max_calls = table.take("max_calls").and_then(|item| item.whole(cx, 1..=CALLS_MAX));
    process.max_age = table.take("max_age").and_then(|item| item.duration(cx, AGE_MIN..=AGE_MAX));
    process.backlog = table.take("backlog").and_then(|item| item.whole(cx, 0..=BACKLOG_MAX));
    if let Some(queue_timeout) =
        table.take("queue_timeout").and_then(|item| item.duration(cx, DURATION_OR_ZERO))
    {
        process.queue_timeout = queue_timeout;
    }
    process.body_bytes_max = table.take("max_body").and_then(|item| item.size(cx, 0..=BODY_BYTES_MAX));
    if let Some(max_log) = table.take("max_log").and_then(|item| item.rate(cx, LOG_BYTES_PER_SECOND)) {
        process.log_bytes_per_second = max_log;
    }
    let trigger = process.trigger.as_ref();
    process.ready = table.take("ready").and_then(|item| ready(cx, &item, trigger));
    process.grants = grants::grants(cx, &mut table);
    process.args = table.take("args").map(|item| args(cx, &item)).unwrap_or_default();
    table.not_yet(cx, "autoscale");
    table.finish(cx);
    Some(process)
}

fn component(cx: &mut Reading<'_>, table: &mut Table<'_>) -> Option<PathBuf> {
    let Some(item) = table.take("component") else {
        let message = "missing; name the component's file, such as component = \"web.wasm\"";
        // A misspelt key is reported as unknown: this would be the same mistake again.
        if !table.misspells("component") {
            cx.report.add(&table.span, table.path("component"), message);
        }
        return None;
    };
    let path = item.text(cx, "the path of a component, such as \"web.wasm\"")?;
    let problem = match path.split_once("://") {
        None => return Some(cx.absolute(&path)),
        Some(("oci", _)) => {
            "\"oci://\" components are not supported yet by this version: name a file".to_owned()
        }
        Some((scheme, _)) => {
            format!("found a URL ({}), expected a file's path", quoted(&format!("{scheme}://")))
        }
    };
    item.problem(cx, problem);
    None
}

fn count(cx: &mut Reading<'_>, item: &Item<'_>) -> Option<u32> {
    if item.is_table() {
        item.problem(
            cx,
            "a range of counts is not supported yet by this version: give one number, such as count = 4",
        );
        return None;
    }
    item.whole(cx, 0..=INSTANCES_MAX)
}

/// A path of the type's own. Where no key says what calls an instance, the component's exports may yet make it an http
/// type.
fn ready(cx: &mut Reading<'_>, item: &Item<'_>, trigger: Option<&Trigger>) -> Option<String> {
    const EXPECTED: &str = "a path such as \"/healthz\"";
    let key = match trigger {
        None | Some(Trigger::Http { .. }) => None,
        Some(Trigger::Queue { .. }) => Some("queue"),
        Some(Trigger::Schedule(schedule)) => Some(match schedule.times {
            Times::Cron { .. } => "schedule",
            Times::Every(_) => "every",
        }),
        Some(Trigger::Command { .. }) => Some("run"),
    };
    if let Some(key) = key {
        item.problem(
            cx,
            format!("found beside `{key}`, expected only for a type that requests call: leave this out"),
        );
    }
    let path = item.string_or(cx, EXPECTED)?;
    let problem = if !path.starts_with('/')
        || !path.bytes().all(is_of_path)
        || !has_whole_escapes(path.as_bytes())
    {
        format!(
            "found {}, expected {EXPECTED}: it begins with \"/\", and spaces and the like in it are written as in \
             a request (\"%20\")",
            quoted(&path)
        )
    } else if path.len() > READY_BYTES_MAX {
        format!("found {}, which has {} bytes; expected at most {READY_BYTES_MAX}", quoted(&path), path.len())
    } else {
        return Some(path);
    };
    item.problem(cx, problem);
    None
}

/// Whether a byte may stand in the path or query of a request (RFC 3986, sections 3.3 and 3.4).
fn is_of_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(&byte)
}

fn args(cx: &mut Reading<'_>, item: &Item<'_>) -> Vec<String> {
    let elements = item.array(cx, "an array of strings").unwrap_or_default();
    let mut args = Vec::new();
    for element in elements {
        let Some(arg) = element.string(cx) else { continue };
        if arg.contains('\0') {
            element.problem(cx, format!("found {}, expected a string without a zero byte", quoted(&arg)));
        }
        args.push(arg);
    }
    args
}
