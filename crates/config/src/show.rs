//! A [`Formation`] in the shape of its file: units as people write them, defaults filled in, secrets hidden. A string
//! that had variables in it is shown as it was written.
//!
//! Values that depend on the component or on the machine (`timeout`, `backlog`, `max_instances`) are left out where
//! the file doesn't say them, so that the text reads back as the same formation. Paths are absolute, and `${`
//! is escaped as in the file.

use crate::admin::{Admin, AdminTls};
use crate::expand::escape;
use crate::formation::*;
use crate::http::{AccessLog, CertificateFiles, Health, Http, format_network};
use crate::units::{format_duration, format_rate, format_size};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

const SECRET: &str = "(secret)";

impl Serialize for Formation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.shown().serialize(serializer)
    }
}

impl Formation {
    /// The tables of the file, with strings that had variables as they were written.
    pub(crate) fn shown(&self) -> toml::Table {
        let mut file = self.with_values();
        self.written.restore(&mut file);
        file
    }

    /// The same with the values of those variables, which may be secrets: for comparing, not for people.
    pub(crate) fn with_values(&self) -> toml::Table {
        #[derive(Serialize)]
        struct File<'a> {
            name: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            max_instances: Option<u32>,
            state_dir: String,
            grace: String,
            drain_delay: String,
            keep_releases: u32,
            http: HttpTable,
            #[serde(skip_serializing_if = "Option::is_none")]
            health: Option<HealthTable>,
            #[serde(skip_serializing_if = "Option::is_none")]
            admin: Option<AdminTable>,
            store: StoreTable,
            compile: CompileTable,
            #[serde(skip_serializing_if = "InOrder::is_empty")]
            queues: InOrder<'a, QueueTable>,
            process: InOrder<'a, ProcessTable<'a>>,
        }
        #[derive(Serialize)]
        struct StoreTable {
            url: String,
            keep_done: String,
            keep_done_max: u64,
            keep_dead: String,
            keep_dead_max: u64,
        }
        #[derive(Serialize)]
        struct CompileTable {
            memory: String,
            cpu: String,
        }
        let file = File {
            name: escape(&self.name),
            max_instances: self.max_instances,
            state_dir: path(&self.state_dir),
            grace: format_duration(self.grace),
            drain_delay: format_duration(self.drain_delay),
            keep_releases: self.keep_releases,
            http: (&self.http).into(),
            health: self.health.as_ref().map(HealthTable::from),
            admin: self.admin.as_ref().map(AdminTable::from),
            store: StoreTable {
                url: escape(&self.store.to_string()),
                keep_done: format_duration(self.retention.done_for),
                keep_done_max: self.retention.done_max,
                keep_dead: format_duration(self.retention.dead_for),
                keep_dead_max: self.retention.dead_max,
            },
            compile: CompileTable {
                memory: format_size(self.compile.memory_bytes_max),
                cpu: format_duration(self.compile.cpu),
            },
            queues: InOrder(self.queues.iter().map(|(name, queue)| (name.as_str(), queue.into())).collect()),
            process: InOrder(
                self.processes.iter().map(|process| (process.name.as_str(), process.into())).collect(),
            ),
        };
        // Strings, numbers and tables always serialize.
        toml::Table::try_from(file).unwrap_or_default()
    }

    /// The formation as TOML, which reads back as the same formation where it has no secrets: those are
    /// replaced. Paths that aren't UTF-8 are shown with replacement characters.
    pub fn to_toml(&self) -> String {
        self.to_toml_with(&BTreeMap::new())
    }

    /// The same, with comments at the end of tables: `""` is the top of the file, `process.web` a process type.
    pub fn to_toml_with(&self, comments: &BTreeMap<String, Vec<String>>) -> String {
        let file = self.shown();
        let mut text = String::new();
        let mut write_section = |header: &str, table: &toml::Table| {
            write_section(&mut text, header, table);
            for comment in comments.get(header).into_iter().flatten() {
                // Writing to a String doesn't fail.
                let _ = writeln!(text, "# {}", comment.replace(char::is_control, " "));
            }
        };
        write_section("", &file);
        for (name, value) in &file {
            let toml::Value::Table(table) = value else { continue };
            // `queues` and `process` hold one table for each name, and no keys of their own.
            if !table.values().all(toml::Value::is_table) {
                write_section(name, table);
                continue;
            }
            for (inner, table) in table {
                if let toml::Value::Table(table) = table {
                    write_section(&format!("{name}.{inner}"), table);
                }
            }
        }
        text
    }
}

/// A header and its keys, each on a line, tables inline. The root (`""`) has no header and leaves its tables
/// out.
fn write_section(text: &mut String, header: &str, table: &toml::Table) {
    // Writing to a String doesn't fail.
    if !header.is_empty() {
        let _ = writeln!(text, "\n[{header}]");
    }
    for (key, value) in table {
        if !(header.is_empty() && value.is_table()) {
            let _ = writeln!(text, "{key} = {value}");
        }
    }
}

/// A map that keeps its order.
struct InOrder<'a, V>(Vec<(&'a str, V)>);

impl<V> InOrder<'_, V> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<V: Serialize> Serialize for InOrder<'_, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// A list of one is written as its one element.
#[derive(Serialize)]
#[serde(untagged)]
enum OneOrMore<T, M> {
    One(T),
    More(M),
}

#[derive(Serialize)]
struct HttpTable {
    listen: OneOrMore<String, Vec<String>>,
    socket_mode: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<TlsTable>,
    header_timeout: String,
    idle_timeout: String,
    body_timeout: String,
    max_header: String,
    max_connections: u32,
    max_connections_per_address: u32,
    max_streams: u32,
    trusted_proxies: Vec<String>,
    access_log: &'static str,
}

#[derive(Serialize)]
struct TlsTable {
    listen: OneOrMore<String, Vec<String>>,
    cert: OneOrMore<String, Vec<String>>,
    key: OneOrMore<String, Vec<String>>,
}

#[derive(Serialize)]
struct HealthTable {
    listen: OneOrMore<String, Vec<String>>,
}

impl From<&Health> for HealthTable {
    fn from(health: &Health) -> Self {
        HealthTable { listen: one_or_more(health.listen.iter().map(|place| escape(&place.to_string()))) }
    }
}

#[derive(Serialize)]
struct AdminTable {
    listen: OneOrMore<String, Vec<String>>,
    token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<AdminTlsTable>,
}

#[derive(Serialize)]
struct AdminTlsTable {
    cert: OneOrMore<String, Vec<String>>,
    key: OneOrMore<String, Vec<String>>,
}

impl From<&Admin> for AdminTable {
    fn from(admin: &Admin) -> Self {
        let own = match &admin.tls {
            Some(AdminTls::Own(files)) => Some(files),
            Some(AdminTls::OfHttp(_)) | None => None,
        };
        AdminTable {
            listen: one_or_more(admin.listen.iter().map(|place| escape(&place.to_string()))),
            token: path(&admin.token),
            tls: own.map(|files| AdminTlsTable {
                cert: paths(files, |of| &of.cert),
                key: paths(files, |of| &of.key),
            }),
        }
    }
}

fn paths(
    files: &[CertificateFiles],
    of: fn(&CertificateFiles) -> &PathBuf,
) -> OneOrMore<String, Vec<String>> {
    one_or_more(files.iter().map(|files| path(of(files))))
}

impl From<&Http> for HttpTable {
    fn from(http: &Http) -> Self {
        let trusted = &http.trusted_proxies;
        let mut trusted_proxies: Vec<_> = trusted.networks.iter().map(format_network).collect();
        trusted_proxies.extend(trusted.unix.then(|| "unix".to_owned()));
        HttpTable {
            listen: one_or_more(http.listen.iter().map(|place| escape(&place.to_string()))),
            socket_mode: format!("{:04o}", http.socket_mode),
            tls: http.tls.as_ref().map(|tls| TlsTable {
                listen: one_or_more(tls.listen.iter().map(|place| escape(&place.to_string()))),
                cert: paths(&tls.certificates, |of| &of.cert),
                key: paths(&tls.certificates, |of| &of.key),
            }),
            header_timeout: format_duration(http.header_timeout),
            idle_timeout: format_duration(http.idle_timeout),
            body_timeout: format_duration(http.body_timeout),
            max_header: format_size(http.header_bytes_max.into()),
            max_connections: http.connections_max,
            max_connections_per_address: http.connections_per_address_max,
            max_streams: http.streams_max,
            trusted_proxies,
            access_log: match http.access_log {
                AccessLog::Off => "off",
                AccessLog::Text => "text",
                AccessLog::Json => "json",
            },
        }
    }
}

fn one_or_more(elements: impl Iterator<Item = String>) -> OneOrMore<String, Vec<String>> {
    let mut elements: Vec<_> = elements.collect();
    match elements.len() {
        1 => OneOrMore::One(elements.remove(0)),
        _ => OneOrMore::More(elements),
    }
}

#[derive(Serialize)]
struct QueueTable {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_depth: Option<u64>,
    max_bytes: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_per_second: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<u32>,
}

impl From<&Queue> for QueueTable {
    fn from(queue: &Queue) -> Self {
        QueueTable {
            max_depth: queue.max_depth,
            max_bytes: format_size(queue.max_bytes),
            max_per_second: queue.max_per_second,
            concurrency: queue.concurrency,
        }
    }
}

#[derive(Serialize)]
struct ProcessTable<'a> {
    component: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    build: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    trust_cwasm: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing_imports: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<String>,
    count: u32,
    #[serde(flatten)]
    trigger: Option<TriggerKeys<'a>>,
    memory: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu: Option<String>,
    weight: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<u32>,
    isolation: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_calls: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_age: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backlog: Option<u32>,
    queue_timeout: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_body: Option<String>,
    max_log: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ready: Option<String>,
    #[serde(skip_serializing_if = "InOrder::is_empty")]
    env: InOrder<'a, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dirs: Vec<DirTable>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    outbound: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    enqueue: Vec<String>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum TriggerKeys<'a> {
    Http {
        route: OneOrMore<String, Vec<String>>,
    },
    Queue {
        queue: OneOrMore<String, InOrder<'a, u32>>,
        attempts: u32,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        backoff: Vec<String>,
    },
    Schedule {
        #[serde(flatten)]
        times: TimesKeys,
        jitter: String,
        missed: &'static str,
        overlap: &'static str,
    },
    Command {
        run: &'static str,
    },
}

#[derive(Serialize)]
#[serde(untagged)]
enum TimesKeys {
    Cron { schedule: String, time_zone: String },
    Every { every: String },
}

#[derive(Serialize)]
struct DirTable {
    host: String,
    guest: String,
    access: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bytes: Option<String>,
}

impl<'a> From<&'a ProcessType> for ProcessTable<'a> {
    fn from(process: &'a ProcessType) -> Self {
        let grants = &process.grants;
        ProcessTable {
            component: path(&process.component),
            build: process.build.as_deref().map(escape),
            trust_cwasm: process.trust_cwasm,
            missing_imports: process.missing_imports_trap.then_some("trap"),
            args: process.args.iter().map(|arg| escape(arg)).collect(),
            count: process.count,
            trigger: process.trigger.as_ref().map(|trigger| trigger_keys(trigger, process)),
            memory: format_size(process.memory_bytes_max),
            timeout: process.timeout.map(format_duration),
            cpu: process.cpu.map(format_duration),
            weight: process.weight,
            concurrency: process.concurrency,
            isolation: process.isolation.map(|isolation| match isolation {
                Isolation::Call => "call",
                Isolation::Instance => "instance",
            }),
            max_calls: process.max_calls,
            max_age: process.max_age.map(format_duration),
            backlog: process.backlog,
            queue_timeout: format_duration(process.queue_timeout),
            max_body: process.body_bytes_max.map(format_size),
            max_log: format_rate(process.log_bytes_per_second),
            ready: process.ready.as_deref().map(escape),
            env: InOrder(
                grants.env.iter().map(|variable| (variable.name.as_str(), shown_value(variable))).collect(),
            ),
            dirs: grants.dirs.iter().map(DirTable::from).collect(),
            outbound: grants.outbound.iter().map(|grant| escape(&grant.to_string())).collect(),
            network: grants.network_all.then_some("all"),
            enqueue: grants.enqueue.iter().map(|queue| escape(queue)).collect(),
        }
    }
}

impl From<&DirGrant> for DirTable {
    fn from(dir: &DirGrant) -> Self {
        let access = if dir.writable { "write" } else { "read" };
        let max_bytes = dir.bytes_max.map(format_size);
        DirTable { host: path(&dir.host), guest: escape(&dir.guest), access, max_bytes }
    }
}

fn trigger_keys<'a>(trigger: &'a Trigger, process: &ProcessType) -> TriggerKeys<'a> {
    match trigger {
        Trigger::Http { routes } => TriggerKeys::Http {
            route: match routes.as_slice() {
                [only] => OneOrMore::One(shown_route(only)),
                more => OneOrMore::More(more.iter().map(shown_route).collect()),
            },
        },
        Trigger::Queue { queues } => TriggerKeys::Queue {
            queue: match queues.as_slice() {
                [(only, 1)] => OneOrMore::One(escape(only)),
                more => OneOrMore::More(InOrder(
                    more.iter().map(|(name, weight)| (name.as_str(), *weight)).collect(),
                )),
            },
            attempts: process.attempts,
            backoff: process.backoff.iter().copied().map(format_duration).collect(),
        },
        Trigger::Schedule(schedule) => TriggerKeys::Schedule {
            times: match &schedule.times {
                Times::Cron { expression, time_zone } => {
                    TimesKeys::Cron { schedule: escape(expression), time_zone: escape(time_zone) }
                }
                Times::Every(every) => TimesKeys::Every { every: format_duration(*every) },
            },
            jitter: format_duration(schedule.jitter),
            missed: match schedule.missed {
                Missed::Skip => "skip",
                Missed::One => "one",
                Missed::All => "all",
            },
            overlap: match schedule.overlap {
                Overlap::Skip => "skip",
                Overlap::Allow => "allow",
            },
        },
        Trigger::Command { run } => TriggerKeys::Command {
            run: match run {
                Run::Always => "always",
                Run::Release => "release",
                Run::Never => "never",
            },
        },
    }
}

/// With the host's slash kept, unlike [`Route`]'s `Display`: a host of one label needs it to be read back.
fn shown_route(route: &Route) -> String {
    escape(&format!("{}{}", route.host.as_deref().unwrap_or_default(), route.path))
}

fn shown_value(variable: &EnvVar) -> String {
    if variable.secret { SECRET.to_owned() } else { escape(&variable.value) }
}

fn path(path: &Path) -> String {
    escape(&path.to_string_lossy())
}
