//! The file's tables -> [`Formation`]: the top level, then one file for each part of a process type.

mod admin;
mod compile;
mod grants;
mod http;
mod process;
mod schedule;
mod store;
mod trigger;

pub(crate) use grants::HOSTS_OWN;

use crate::formation::{Formation, KEEP_RELEASES_DEFAULT, ProcessType, Queue, Source, StoreUrl};
use crate::load::default_state_dir;
use crate::reader::{Item, Reading, Table};
use crate::spelling::{name_problem, quoted};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::de::DeTable;

const GRACE_DEFAULT: Duration = Duration::from_secs(30);
const NAME_BYTES_MAX: usize = 255;
const INSTANCES_MAX: u32 = 100_000;
/// Each may keep a component of many megabytes on the disk.
const KEEP_RELEASES_MAX: u32 = 1_000;
const QUEUE_DEPTH_MAX: u64 = 1_000_000_000;

/// Jobs that one producer may enqueue in a second.
const QUEUE_RATE_MAX: u32 = 1_000_000;

/// One job with the largest payload has room. SQLite files can be larger than 64 TiB, and disks are not.
const QUEUE_BYTES: RangeInclusive<u64> = (2 << 20)..=(64 << 40);

/// Long enough for any job; what is longer is a slip in the unit.
const DURATION_MAX: Duration = Duration::from_hours(7 * 24);

const DURATION_OR_ZERO: RangeInclusive<Duration> = Duration::ZERO..=DURATION_MAX;

/// Reads the whole file. The result is of use only where nothing was reported.
pub(crate) fn formation(cx: &mut Reading<'_>, root: &DeTable<'_>, file: PathBuf) -> Formation {
    let mut table = Table::root(root);
    let name = table.take("name").and_then(|item| app_name(cx, &item));
    let max_instances = table.take("max_instances").and_then(|item| item.whole(cx, 1..=INSTANCES_MAX));
    let state_dir = table.take("state_dir").and_then(|item| item.path(cx));
    let state_dir = state_dir.unwrap_or_else(|| default_state_dir(&file));
    let grace = table.take("grace").and_then(|item| item.duration(cx, DURATION_OR_ZERO));
    let drain_delay = table.take("drain_delay").and_then(|item| item.duration(cx, DURATION_OR_ZERO));
    let keep_releases = table.take("keep_releases").and_then(|item| item.whole(cx, 1..=KEEP_RELEASES_MAX));
    let mut listens = Vec::new();
    let http = table.take("http").and_then(|item| http::http(cx, &item, &mut listens));
    let health = table.take("health").and_then(|item| http::health(cx, &item, &mut listens));
    let admin = table.take("admin").and_then(|item| admin::admin(cx, &item, http.as_ref(), &mut listens));
    let store =
        table.take("store").and_then(|item| store::store(cx, &item, name.as_deref())).unwrap_or_default();
    let compile = table.take("compile").and_then(|item| compile::compile(cx, &item));
    let queues = table.take("queues").map(|item| queues(cx, &item));
    let processes = processes(cx, &mut table);
    table.not_yet(cx, "packages");
    table.finish(cx);
    Formation {
        name: name.unwrap_or_else(|| folder_name(cx.folder)),
        file,
        max_instances,
        grace: grace.unwrap_or(GRACE_DEFAULT),
        drain_delay: drain_delay.unwrap_or(Duration::ZERO),
        http: http.unwrap_or_default(),
        health,
        admin,
        store: store.url.unwrap_or_else(|| StoreUrl::Sqlite(state_dir.join("store.db"))),
        keep_releases: keep_releases.unwrap_or(KEEP_RELEASES_DEFAULT),
        retention: store.retention,
        compile: compile.unwrap_or_default(),
        state_dir,
        queues: queues.unwrap_or_default(),
        processes,
        secret_files: std::mem::take(&mut cx.secret_files),
        written: std::mem::take(&mut cx.written),
        source: Source::default(),
    }
}

fn app_name(cx: &mut Reading<'_>, item: &Item<'_>) -> Option<String> {
    let name = item.string(cx)?;
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(char::is_control) {
        let found = quoted(&name);
        item.problem(cx, format!("found {found}, expected 1 to {NAME_BYTES_MAX} bytes on one line"));
        return None;
    }
    Some(name)
}

/// The folder's name, as the app's. A folder may be called what an app may not: its control characters are
/// replaced.
fn folder_name(folder: &Path) -> String {
    let name = folder.file_name().map(|name| name.to_string_lossy().replace(char::is_control, "-"));
    name.unwrap_or_else(|| "app".to_owned())
}

fn queues(cx: &mut Reading<'_>, item: &Item<'_>) -> BTreeMap<String, Queue> {
    let mut queues = BTreeMap::new();
    let Some(table) = item.table(cx, "a table for each queue, such as [queues.mail]") else { return queues };
    for (name, name_span, item) in table.entries() {
        if let Some(message) = name_problem(name) {
            cx.report.add(&name_span, item.key.clone(), message);
        }
        let Some(mut settings) = item.table(cx, &format!("a table, such as [queues.{name}]")) else {
            continue;
        };
        let max_depth = settings.take("max_depth").and_then(|item| item.whole(cx, 1..=QUEUE_DEPTH_MAX));
        let max_bytes = settings.take("max_bytes").and_then(|item| item.size(cx, QUEUE_BYTES));
        let max_per_second =
            settings.take("max_per_second").and_then(|item| item.whole(cx, 1..=QUEUE_RATE_MAX));
        let concurrency = settings.take("concurrency").and_then(|item| item.whole(cx, 1..=INSTANCES_MAX));
        settings.finish(cx);
        queues.insert(
            name.to_owned(),
            Queue {
                max_depth,
                max_bytes: max_bytes.unwrap_or(Queue::MAX_BYTES_DEFAULT),
                max_per_second,
                concurrency,
            },
        );
    }
    queues
}

fn processes(cx: &mut Reading<'_>, root: &mut Table<'_>) -> Vec<ProcessType> {
    let missing = "no process types; add a table such as [process.web] with component = \"web.wasm\"";
    let Some(item) = root.take("process") else {
        // [proces.web] is reported as an unknown key: this would be the same mistake again.
        if !root.misspells("process") {
            cx.report.add(&root.span, "process", missing);
        }
        return Vec::new();
    };
    let Some(table) = item.table(cx, "a table for each process type, such as [process.web]") else {
        return Vec::new();
    };
    if table.is_empty() {
        item.problem(cx, missing);
    }
    let mut routes = trigger::RouteOwners::default();
    let mut processes = Vec::new();
    for (name, name_span, item) in table.entries() {
        if let Some(message) = name_problem(name).or_else(|| reserved(name)) {
            cx.report.add(&name_span, item.key.clone(), message);
        }
        processes.extend(process::process_type(cx, name, &item, &mut routes));
    }
    processes
}

/// The names of process types that mean something else where a type is named.
fn reserved(name: &str) -> Option<String> {
    let message =
        "found the name \"host\", which is the host itself in `wasmhost logs host`; give it another name";
    (name == "host").then(|| message.to_owned())
}
