//! Grants, the things that a sandbox may touch: `env`, `dirs`, `outbound`, `network`, `enqueue`.

use std::ops::RangeInclusive;

use super::trigger::queue_name;
use crate::files::read_file;
use crate::formation::{DirGrant, EnvVar, Grants, Outbound};
use crate::reader::{Item, Reading, Table};
use crate::spelling::quoted;

/// A secret is a key or a password; what is longer belongs in `dirs`.
const SECRET_BYTES_MAX: u64 = 1 << 20;

/// The bounds of a directory's `max_bytes`.
const DIR_BYTES: RangeInclusive<u64> = (64 << 10)..=(1024 << 30);

/// Variables by which the host itself tells a guest what it is.
pub(crate) const HOSTS_OWN: [&str; 6] = [
    "WASMHOST_TYPE",
    "WASMHOST_INSTANCE",
    "WASMHOST_JOB_ID",
    "WASMHOST_JOB_QUEUE",
    "WASMHOST_JOB_ATTEMPT",
    "WASMHOST_TICK_MS",
];

/// Reads the keys of a process type that grant something.
pub(super) fn grants(cx: &mut Reading<'_>, table: &mut Table<'_>) -> Grants {
    Grants {
        env: table.take("env").map(|item| env(cx, &item)).unwrap_or_default(),
        dirs: table.take("dirs").map(|item| dirs(cx, &item)).unwrap_or_default(),
        outbound: table.take("outbound").map(|item| outbound(cx, &item)).unwrap_or_default(),
        network_all: table
            .take("network")
            .and_then(|item| item.choice(cx, &[("all", true)]))
            .unwrap_or(false),
        enqueue: table.take("enqueue").map(|item| enqueue(cx, &item)).unwrap_or_default(),
    }
}

fn env(cx: &mut Reading<'_>, item: &Item<'_>) -> Vec<EnvVar> {
    let Some(table) = item.table(cx, "a table such as { LOG = \"info\" }") else { return Vec::new() };
    let mut variables = Vec::new();
    for (name, name_span, item) in table.entries() {
        if name.is_empty() || name.contains(['=', '\0']) {
            let message =
                format!("found the name {}, expected one without \"=\" or a zero byte", quoted(name));
            cx.report.add(&name_span, item.key.clone(), message);
        }
        if HOSTS_OWN.contains(&name) {
            cx.report.add(
                &name_span,
                item.key.clone(),
                "set by wasmhost itself for each instance: leave it out",
            );
        }
        let secret = item.is_table() || item.has_variables(cx);
        let value = if item.is_table() { secret_value(cx, &item) } else { plain_value(cx, &item) };
        let Some(value) = value else { continue };
        if value.contains('\0') {
            item.problem(cx, "its value has a zero byte in it, which no environment can hold");
        }
        variables.push(EnvVar { name: name.to_owned(), value, secret });
    }
    variables
}

fn plain_value(cx: &mut Reading<'_>, item: &Item<'_>) -> Option<String> {
    item.string_or(cx, "a string in quotes, { from_env = \"NAME\" } or { file = \"PATH\" }")
}

/// `{ from_env = "X" }` or `{ file = "PATH" }`.
fn secret_value(cx: &mut Reading<'_>, item: &Item<'_>) -> Option<String> {
    let mut table = item.table(cx, "")?;
    let (from_env, file) = (table.take("from_env"), table.take("file"));
    let value = match (from_env, file) {
        (Some(name), None) => from_env_value(cx, &name),
        (None, Some(path)) => file_value(cx, &path),
        (None, None) if table.misspells("from_env") || table.misspells("file") => None,
        _ => {
            item.problem(cx, "expected either from_env = \"NAME\" or file = \"PATH\"");
            None
        }
    };
    table.finish(cx);
    value
}

fn from_env_value(cx: &mut Reading<'_>, item: &Item<'_>) -> Option<String> {
    let name = item.text(cx, "the name of an environment variable")?;
    let message = match cx.environment.get(&name) {
        Ok(Some(value)) => return Some(value),
        Ok(None) => {
            format!("the environment variable {name} is not set: set it, or add it to .env beside this file")
        }
        Err(message) => message,
    };
    item.problem(cx, message);
    None
}

/// The file's text without its last newline, which editors and `echo` add.
fn file_value(cx: &mut Reading<'_>, item: &Item<'_>) -> Option<String> {
    let path = item.path(cx)?;
    cx.secret_files.push(path.clone());
    let shown = quoted(&path.to_string_lossy());
    let message = match read_file(&path, SECRET_BYTES_MAX) {
        Err(error) => format!("the file {shown} can't be read: {error}"),
        Ok(None) => {
            format!("the file {shown} has more than {SECRET_BYTES_MAX} bytes, too many for a variable")
        }
        Ok(Some(bytes)) => match String::from_utf8(bytes) {
            Ok(text) => {
                let line = text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
                return Some(line.unwrap_or(&text).to_owned());
            }
            Err(_) => format!("the file {shown} isn't UTF-8 text"),
        },
    };
    item.problem(cx, message);
    None
}

fn dirs(cx: &mut Reading<'_>, item: &Item<'_>) -> Vec<DirGrant> {
    let expected = "an array of tables such as [{ host = \"public\", guest = \"/public\" }]";
    let mut dirs: Vec<DirGrant> = Vec::new();
    for element in item.array(cx, expected).unwrap_or_default() {
        let Some(mut table) = element.table(cx, "a table such as { host = \"public\", guest = \"/public\" }")
        else {
            continue;
        };
        let host = required(cx, &mut table, "host").and_then(|item| item.path(cx));
        let guest_item = required(cx, &mut table, "guest");
        let guest =
            guest_item.as_ref().and_then(|item| item.text(cx, "a path in the sandbox, such as \"/public\""));
        let access = table.take("access");
        let writable = match access {
            Some(item) => item.choice(cx, &[("read", false), ("write", true)]),
            None => Some(false),
        };
        let max_bytes = table.take("max_bytes");
        let bytes_max = max_bytes.as_ref().and_then(|item| item.size(cx, DIR_BYTES));
        if let Some(item) = max_bytes.filter(|_| writable == Some(false)) {
            item.problem(cx, "bounds what is written, and this grant is for reading: write access = \"write\", or leave it out");
        }
        table.finish(cx);
        let (Some(host), Some(guest)) = (host, guest) else { continue };
        if let Some(item) = guest_item
            && dirs.iter().any(|dir| dir.guest == guest)
        {
            item.problem(cx, format!("the path {} is given to two directories", quoted(&guest)));
        }
        dirs.push(DirGrant { host, guest, writable: writable.unwrap_or(false), bytes_max });
    }
    dirs
}

fn required<'t>(cx: &mut Reading<'_>, table: &mut Table<'t>, key: &'static str) -> Option<Item<'t>> {
    let item = table.take(key);
    if item.is_none() && !table.misspells(key) {
        let message =
            "missing; a directory needs its path on the host and its path in the sandbox, `host` and `guest`";
        cx.report.add(&table.span, table.path(key), message);
    }
    item
}

fn outbound(cx: &mut Reading<'_>, item: &Item<'_>) -> Vec<Outbound> {
    let mut grants = Vec::new();
    for element in
        item.array(cx, "an array of hosts such as [\"https://api.example.com\"]").unwrap_or_default()
    {
        let Some(text) = element.string(cx) else { continue };
        match text.parse::<Outbound>() {
            Ok(grant) => grants.push(grant),
            Err(error) => element.problem(cx, error.to_string()),
        }
    }
    grants
}

fn enqueue(cx: &mut Reading<'_>, item: &Item<'_>) -> Vec<String> {
    let mut queues: Vec<String> = Vec::new();
    for element in item.array(cx, "an array of queue names such as [\"default\"]").unwrap_or_default() {
        let Some(name) = queue_name(cx, &element, "a queue's name") else { continue };
        if queues.contains(&name) {
            element.problem(cx, format!("the queue {} is given twice", quoted(&name)));
        }
        queues.push(name);
    }
    queues
}
