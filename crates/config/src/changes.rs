//! The differences between two formations, as a deploy treats them: which instances are replaced, which settings change
//! for those that stay, and which can't change while the host runs.
//!
//! Both formations are compared in the shape of their files (`show.rs`): key by key. So a new key of the formation is
//! compared as soon as it is shown, and counts as one that needs new instances until [`SETTINGS`] names it.
//!
//! Each line is for a person: `memory 128MiB -> 256MiB`. A string with variables is shown as it was written, and the
//! value of a variable of the environment is never shown.

use crate::formation::{DirGrant, EnvVar, Formation, ProcessType, Trigger};
use crate::shown::{NAME_BYTES_MAX, one_line};
use serde::Serialize;
use toml::{Table, Value};

/// Keys of a process type that the host alone acts on: its instances stay.
const SETTINGS: &[&str] = &[
    "build",
    "count",
    "route",
    "queue",
    "attempts",
    "backoff",
    "schedule",
    "every",
    "time_zone",
    "jitter",
    "missed",
    "overlap",
    "timeout",
    "cpu",
    "weight",
    "backlog",
    "queue_timeout",
    "max_body",
    "ready",
];

/// Keys that say what calls an instance, and those that belong to one of them.
const TRIGGERS: &[&str] = &["route", "queue", "schedule", "every", "run"];
const OF_TRIGGERS: &[&str] = &["attempts", "backoff", "time_zone", "jitter", "missed", "overlap"];

/// Keys whose absence leaves the value to the host or to the component.
const LEFT_TO_THE_HOST: &[&str] = &["timeout", "concurrency", "isolation", "backlog", "max_instances"];

/// The text in the place of a difference that can't be shown.
const HIDDEN: &str = "(its value isn't shown)";

/// How a new formation differs from an old one. Each text is one line for a person.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Changes {
    /// Differences that no running host can make.
    pub refused: Vec<String>,
    /// The types that differ, in the new file's order; those that were removed come last.
    pub types: Vec<TypeChange>,
    /// Differences of `[http]` and `[http.tls]`.
    pub http: Vec<String>,
    /// Everything else: the name, times of the drain, retention, queues, how many releases are kept.
    pub others: Vec<String>,
}

/// How a process type differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TypeChange {
    /// Its name.
    pub process: String,
    /// The host's action for it.
    pub how: How,
    /// Its differences; the main keys where it was added, nothing where it was removed.
    pub what: Vec<String>,
}

/// The host's action for a type that differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// Starts it.
    Added,
    /// Ends it.
    Removed,
    /// Replaces its instances.
    Instances,
    /// Treats its instances in another way, and keeps them.
    Settings,
}

impl Changes {
    /// Compares two formations. `component_changed` says of a type whether its component's bytes differ, whatever its
    /// file is called.
    ///
    /// A type without a trigger is taken for one that no key describes: where one formation names the trigger and the
    /// other leaves it to the component's exports, instances are replaced. A caller that knows the exports fills the
    /// triggers in first.
    pub fn between(old: &Formation, new: &Formation, component_changed: &dyn Fn(&str) -> bool) -> Changes {
        let mut changes = Changes::default();
        let (before, after) = (Shape::of(old), Shape::of(new));
        for difference in differences(&before.leaves(""), &after.leaves("")) {
            match difference.key.as_str() {
                "store.url" | "state_dir" | "max_instances" => changes.refused.push(difference.line),
                key if key.starts_with("http.") => changes.http.push(difference.line),
                _ => changes.others.push(difference.line),
            }
        }
        for process in &new.processes {
            let after = after.process(process);
            let change = match old.process(&process.name) {
                None => Some(added(&after)),
                Some(known) => change(&before.process(known), &after, component_changed(&process.name)),
            };
            changes.types.extend(change);
        }
        let removed = old.processes.iter().filter(|process| new.process(&process.name).is_none());
        changes.types.extend(removed.map(|process| TypeChange {
            process: process.name.clone(),
            how: How::Removed,
            what: Vec::new(),
        }));
        changes
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        let Changes { refused, types, http, others } = self;
        refused.is_empty() && types.is_empty() && http.is_empty() && others.is_empty()
    }
}

fn added(process: &Process<'_>) -> TypeChange {
    let of_note = |leaf: &&Leaf| leaf.key == "component" || leaf.key == "count" || is_in(TRIGGERS, &leaf.key);
    let what = process.leaves.iter().filter(of_note);
    TypeChange {
        process: process.of.name.clone(),
        how: How::Added,
        what: what.map(|leaf| format!("{} {}", leaf.key, text(&leaf.shown))).collect(),
    }
}

/// How a type that both formations have differs; `None` where it is the same.
fn change(old: &Process<'_>, new: &Process<'_>, component_changed: bool) -> Option<TypeChange> {
    let mut found = trigger_differences(old, new);
    let by_key = differences(&old.leaves, &new.leaves);
    let by_key = by_key.into_iter().filter(|difference| {
        let told =
            !found.is_empty() && (is_in(TRIGGERS, &difference.key) || is_in(OF_TRIGGERS, &difference.key));
        !told && difference.key != "env" && difference.key != "dirs"
    });
    let by_key: Vec<Difference> = by_key.collect();
    found.splice(0..0, by_key);
    found.extend(env_differences(&old.of.grants.env, &new.of.grants.env));
    found.extend(dirs_differences(old, new));
    let same_path = old.of.component == new.of.component;
    if (component_changed || !same_path) && !found.iter().any(|found| found.key == "component") {
        let what = if component_changed { "has changed" } else { HIDDEN };
        let line = format!("component {} {what}", new.shown("component"));
        found.insert(0, Difference { key: "component".to_owned(), line });
    }
    if found.is_empty() {
        return None;
    }
    let replaced = found.iter().any(|difference| !is_in(SETTINGS, &difference.key));
    Some(TypeChange {
        process: new.of.name.clone(),
        how: if replaced { How::Instances } else { How::Settings },
        what: found.into_iter().map(|difference| difference.line).collect(),
    })
}

/// One line where another kind of trigger, or another form of it, calls the instances. Then no key of either trigger has
/// a line of its own.
fn trigger_differences(old: &Process<'_>, new: &Process<'_>) -> Vec<Difference> {
    let (before, after) = (old.trigger(), new.trigger());
    let key_of = |leaf: Option<&Leaf>| leaf.map(|leaf| leaf.key.clone());
    if key_of(before) == key_of(after) {
        return Vec::new();
    }
    let shown = |leaf: Option<&Leaf>| match leaf {
        Some(leaf) => format!("{} {}", leaf.key, text(&leaf.shown)),
        None => "by its exports".to_owned(),
    };
    // A cron expression and an interval are both schedules.
    let same_kind = matches!(
        (&old.of.trigger, &new.of.trigger),
        (Some(Trigger::Schedule(_)), Some(Trigger::Schedule(_)))
    );
    let key = if same_kind { "schedule" } else { "trigger" };
    vec![Difference { key: key.to_owned(), line: format!("trigger {} -> {}", shown(before), shown(after)) }]
}

/// The order of variables means nothing.
fn env_differences(old: &[EnvVar], new: &[EnvVar]) -> Vec<Difference> {
    let line = |name: &str, what: &str| Difference {
        key: "env".to_owned(),
        line: format!("env {}{what}", one_line(name, NAME_BYTES_MAX)),
    };
    let find = |all: &[EnvVar], name: &str| {
        all.iter().find(|variable| variable.name == name).map(|variable| variable.value.clone())
    };
    let in_new = new.iter().filter_map(|variable| match find(old, &variable.name) {
        None => Some(line(&variable.name, " added")),
        Some(value) => (value != variable.value).then(|| line(&variable.name, "")),
    });
    let removed = old.iter().filter(|variable| find(new, &variable.name).is_none());
    in_new.chain(removed.map(|variable| line(&variable.name, " removed"))).collect()
}

/// One line for each directory of the sandbox.
fn dirs_differences(old: &Process<'_>, new: &Process<'_>) -> Vec<Difference> {
    let line = |what: String| Difference { key: "dirs".to_owned(), line: format!("dirs {what}") };
    let mut found = Vec::new();
    for (index, dir) in new.of.grants.dirs.iter().enumerate() {
        let (guest, host) = new.dir(index);
        match old.of.grants.dirs.iter().position(|known| known.guest == dir.guest) {
            None => found.push(line(format!("{guest} {host} added"))),
            Some(at) if old.of.grants.dirs[at] == *dir => {}
            Some(at) => {
                let before = old.dir(at).1;
                let what = if before == host { HIDDEN.to_owned() } else { format!("{before} -> {host}") };
                found.push(line(format!("{guest} {what}")));
            }
        }
    }
    let is_gone = |dir: &DirGrant| !new.of.grants.dirs.iter().any(|kept| kept.guest == dir.guest);
    let removed = old.of.grants.dirs.iter().enumerate().filter(|(_, dir)| is_gone(dir));
    found.extend(removed.map(|(index, _)| line(format!("{} removed", old.dir(index).0))));
    found
}

/// A formation in the shape of its file: once to compare, once to show.
struct Shape {
    values: Table,
    shown: Table,
}

/// A process type in the shape of its table.
struct Process<'a> {
    of: &'a ProcessType,
    leaves: Vec<Leaf>,
}

/// A key and its value, which is no table unless it is a value of a process type.
struct Leaf {
    /// `http.tls.cert`; in a process type the key alone.
    key: String,
    value: Value,
    shown: Value,
}

struct Difference {
    key: String,
    line: String,
}

impl Shape {
    fn of(formation: &Formation) -> Shape {
        Shape { values: formation.with_values(), shown: formation.shown() }
    }

    /// All keys but those of process types, in the file's order.
    fn leaves(&self, prefix: &str) -> Vec<Leaf> {
        let mut leaves = Vec::new();
        // A queue may have that name too.
        let is_of_types = |name: &str| prefix.is_empty() && name == "process";
        for (name, value) in self.values.iter().filter(|(name, _)| !is_of_types(name)) {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            let Some(shown) = self.shown.get(name) else { continue };
            match (value, shown) {
                (Value::Table(values), Value::Table(shown)) => {
                    leaves.extend(Shape { values: values.clone(), shown: shown.clone() }.leaves(&key));
                }
                _ => leaves.push(Leaf { key, value: value.clone(), shown: shown.clone() }),
            }
        }
        leaves
    }

    fn process<'a>(&self, of: &'a ProcessType) -> Process<'a> {
        let table = |file: &Table| {
            let table = file.get("process").and_then(|all| all.get(&of.name)).and_then(Value::as_table);
            table.cloned().unwrap_or_default()
        };
        let (values, mut shown) = (table(&self.values), table(&self.shown));
        let leaf = |(key, value)| {
            let shown = shown.remove(&key)?;
            Some(Leaf { key, value, shown })
        };
        Process { of, leaves: values.into_iter().filter_map(leaf).collect() }
    }
}

impl Process<'_> {
    /// The key that says what calls it.
    fn trigger(&self) -> Option<&Leaf> {
        self.leaves.iter().find(|leaf| is_in(TRIGGERS, &leaf.key))
    }

    fn shown(&self, key: &str) -> String {
        self.leaves.iter().find(|leaf| leaf.key == key).map(|leaf| text(&leaf.shown)).unwrap_or_default()
    }

    /// A granted directory: its path in the sandbox, and what is there.
    fn dir(&self, index: usize) -> (String, String) {
        let dirs = self.leaves.iter().find(|leaf| leaf.key == "dirs");
        let dir = dirs.and_then(|leaf| leaf.shown.get(index));
        let part = |key: &str| dir.and_then(|dir| dir.get(key)).map(text).unwrap_or_default();
        let access = if part("access") == "write" { " (write)" } else { "" };
        (part("guest"), format!("{}{access}", part("host")))
    }
}

/// The keys that differ, in the order of the new ones; those that are gone come last.
fn differences(old: &[Leaf], new: &[Leaf]) -> Vec<Difference> {
    let find = |all: &[Leaf], key: &str| all.iter().position(|leaf| leaf.key == key);
    let gone = old.iter().filter(|leaf| find(new, &leaf.key).is_none()).map(|leaf| (Some(leaf), None));
    let in_new = new.iter().map(|leaf| (find(old, &leaf.key).map(|at| &old[at]), Some(leaf)));
    let all = in_new
        .chain(gone)
        .filter(|(before, after)| before.map(|leaf| &leaf.value) != after.map(|leaf| &leaf.value));
    let difference = |(before, after): (Option<&Leaf>, Option<&Leaf>)| {
        let key = before.or(after)?.key.clone();
        let shown = |leaf: Option<&Leaf>| match leaf {
            Some(leaf) => text(&leaf.shown),
            None => absent(&key).to_owned(),
        };
        let (before, after) = (shown(before), shown(after));
        let what = if before == after { HIDDEN.to_owned() } else { format!("{before} -> {after}") };
        Some(Difference { line: format!("{} {what}", one_line(&key, NAME_BYTES_MAX)), key })
    };
    all.filter_map(difference).collect()
}

/// The word for a key that isn't there.
fn absent(key: &str) -> &'static str {
    match key {
        "missing_imports" => "refuse",
        "trust_cwasm" => "false",
        key if is_in(LEFT_TO_THE_HOST, key) => "default",
        _ => "none",
    }
}

/// A value on one line, of a bounded length: a word without quotes, the elements of a list with commas.
fn text(value: &Value) -> String {
    let listed = |elements: Vec<String>| match elements.is_empty() {
        true => "none".to_owned(),
        false => elements.join(", "),
    };
    let text = match value {
        Value::String(text) if is_word(text) => text.clone(),
        Value::String(text) => format!("\"{text}\""),
        Value::Array(elements) => listed(elements.iter().map(self::text).collect()),
        Value::Table(table) => {
            listed(table.iter().map(|(key, value)| format!("{key}={}", self::text(value))).collect())
        }
        other => other.to_string(),
    };
    one_line(&text, NAME_BYTES_MAX).into_owned()
}

/// Whether a text is told apart from what is around it without quotes.
fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c == ',' || c == '"')
}

fn is_in(keys: &[&str], key: &str) -> bool {
    keys.contains(&key)
}

#[cfg(test)]
#[path = "changes/tests.rs"]
mod tests;
