//! The admin API's JSON, which the command line uses too.

mod events;
mod jobs;
mod overview;
mod problem;
mod releases;
mod schedules;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use events::*;
pub use jobs::*;
pub use overview::*;
pub use problem::*;
pub use releases::*;
pub use schedules::*;
pub use wasmhost_config::{ScaleChange, ScaleTo};

/// `GET /v1/formation`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FormationView {
    /// The app.
    pub name: String,
    /// The formation's file.
    pub file: String,
    /// The release that is live: 7 is `v7`.
    #[serde(default)]
    pub release: u64,
    /// Where requests are served, if any type takes them: `http://127.0.0.1:8080/`, `unix:/run/app.sock`.
    pub http: Vec<String>,
    /// Where probes and metrics are answered.
    #[serde(default)]
    pub health: Vec<String>,
    /// Where this API is served by TCP, to those who show the token.
    #[serde(default)]
    pub admin: Vec<String>,
    /// Seconds since the host started.
    pub uptime_s: f64,
    /// The host's version.
    pub version: String,
    /// The host's process id.
    pub pid: u32,
    /// Whether no jobs are claimed and no ticks taken, since a person paused them by SIGUSR1.
    #[serde(default)]
    pub paused: bool,
    /// The present work of a host that hasn't started yet: `compiling components: 1 of 3`. It has no types before that.
    #[serde(default)]
    pub starting: Option<String>,
    /// The release that is on canary, if one is.
    #[serde(default)]
    pub canary: Option<CanaryView>,
    /// The hosts that share the formation, where its store is one that hosts can share. Types and instances are those of all
    /// of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostView>,
    /// In the file's order. A type with a canary is there twice: the live version, and then the canary.
    pub types: Vec<TypeView>,
}

/// A host that shares the formation with others, as it last said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HostView {
    /// The id that it has in all its boots.
    pub id: String,
    /// The machine's name, with the beginning of the id where several hosts have one name.
    pub name: String,
    /// Whether it is the one that answers.
    pub here: bool,
    /// `starting`, `joined`, `draining`, or `silent` where it has said nothing for 10 s: others have its instances then.
    pub state: String,
    /// Seconds since it said so.
    pub heard_s: f64,
    /// Its version of wasmhost.
    pub version: String,
    /// The release that it serves.
    pub release: u64,
    /// Its process id.
    pub pid: u32,
    /// Where it serves requests.
    pub http: Vec<String>,
    /// Instances that serve.
    pub actual: u32,
    /// Instances that it should have: its part of the formation's counts.
    pub desired: u32,
    /// Instances of these that it has no room for.
    pub lacks: u32,
}

/// A release on canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CanaryView {
    /// Its number.
    pub release: u64,
    /// Its share of requests, and of workers' instances.
    pub percent: u32,
}

/// One process type, in one version.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TypeView {
    /// Its name.
    pub process: String,
    /// `http`, `queue`, `schedule`, `command`, `release` or `manual`.
    pub trigger: String,
    /// The release that brought its version.
    #[serde(default)]
    pub release: u64,
    /// Whether it is the version that is on canary, of a type that is listed before it too.
    #[serde(default)]
    pub canary: bool,
    /// Whether the version has only its last calls to finish: the live release has another one of the type, or no such type.
    #[serde(default)]
    pub leaving: bool,
    /// The type's count: of both versions, where one of them is on canary.
    #[serde(default)]
    pub count: u32,
    /// Instances of this version that there should be.
    pub desired: u32,
    /// Instances that the file asks for.
    pub in_file: u32,
    /// Its share of the compute threads where types compete for them: so many times that of a type of weight 1.
    #[serde(default = "weight_default")]
    pub weight: u32,
    /// Instances that serve and don't drain.
    pub actual: u32,
    /// Instances that are being started, each to replace one that serves until then.
    pub replacing: u32,
    /// Instances that finish their last call.
    pub draining: u32,
    /// Instances that the host has no room for at present: they start when others have left.
    #[serde(default)]
    pub lacks: u32,
    /// Calls in the line.
    pub waiting: u32,
    /// Instances that were started again since the host started, because they crashed, exited or didn't start.
    pub restarts: u64,
    /// Instances that were replaced since the host started as it was planned: by `max_calls` or `max_age`, by a person's
    /// `restart`, or because the host had ended their call.
    pub recycled: u64,
    /// How the last instance that failed or crashed ended.
    pub last_end: Option<String>,
    /// The same with all that is known of it.
    #[serde(default)]
    pub last_crash: Option<CrashView>,
    /// Lines of its instances that standard output never had since the host started, because nobody read it fast enough.
    #[serde(default)]
    pub lines_dropped: u64,
    /// Lines of its instances that were dropped since the host started, because they were more than its `max_log`.
    #[serde(default)]
    pub lines_past_max_log: u64,
    /// The directories whose grants have `max_bytes`, in the file's order.
    #[serde(default)]
    pub directories: Vec<DirectoryView>,
    /// By index.
    pub instances: Vec<InstanceView>,
}

fn weight_default() -> u32 {
    wasmhost_config::WEIGHT_DEFAULT
}

/// A directory that has a bound for the guests that write there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DirectoryView {
    /// Its path in the sandbox.
    pub guest: String,
    /// Bytes of its files, and 4 KiB for each entry: those of its last count, and all that guests have added since. Nothing
    /// where it can't be counted.
    pub bytes: Option<u64>,
    /// The most that there may be.
    pub bytes_max: u64,
    /// Files, directories and links in it, counted in the same way.
    pub entries: Option<u64>,
    /// The most that there may be.
    pub entries_max: u64,
}

/// One instance, or the place of one.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct InstanceView {
    /// `web.1`
    pub name: String,
    /// From 1.
    pub index: u32,
    /// The host that has it, where several share the formation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// `starting`, `idle`, `busy`, `draining`, `backoff`, or `replacing` for one that is being started while the one
    /// that it replaces serves.
    pub state: String,
    /// The release that brought its version. 0 where it has no instance.
    #[serde(default)]
    pub release: u64,
    /// Seconds since it began to serve.
    pub uptime_s: f64,
    /// Calls begun.
    pub calls: u64,
    /// Calls in it now.
    #[serde(default)]
    pub calls_now: u32,
    /// How often this place's instance crashed, exited or didn't start.
    pub restarts: u64,
    /// How often this place's instance was replaced as it was planned.
    pub recycled: u64,
    /// CPU seconds that its guest has used.
    pub cpu_s: f64,
    /// Bytes of its memories and tables.
    pub memory_bytes: u64,
    /// The most that they have been, since it began to serve or, where each call has a fresh instance, in one of these.
    #[serde(default)]
    pub memory_peak_bytes: u64,
    /// The most that they may be. 0 where it has no instance.
    #[serde(default)]
    pub memory_max_bytes: u64,
    /// Files, streams of files, sockets and requests under way that it holds.
    #[serde(default)]
    pub descriptors: u32,
    /// The most that it may hold. 0 where it has no instance.
    #[serde(default)]
    pub descriptors_max: u32,
    /// A note for a person, such as why it waits.
    pub note: Option<String>,
}

/// The end of an instance that failed or crashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CrashView {
    /// `web.2`
    pub instance: String,
    /// RFC 3339, UTC, with milliseconds.
    pub time: String,
    /// The cause of its death.
    pub cause: CrashCause,
    /// The guest's exit code, where it exited.
    pub exit_code: Option<i32>,
    /// True where it died before it served.
    pub starting: bool,
    /// One line for a person: of a trap the reason.
    pub message: String,
    /// A trap's reason, and the guest's backtrace, a frame a line. At most 16 KiB.
    pub backtrace: Option<String>,
    /// The last lines that it wrote: at most 20, of each at most 1 KiB.
    pub lines: Vec<LogLine>,
}

/// The cause of an instance's death.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CrashCause {
    /// It trapped.
    Trap,
    /// It exited.
    Exit,
    /// It ran out of the memory granted to it.
    OutOfMemory,
    /// It took longer than its `timeout`, or than starting may take.
    Timeout,
    /// It computed longer than its `cpu`.
    OutOfCpu,
    /// Something else, which the message says.
    Other,
}

/// `POST /v1/scale`
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScaleRequest {
    /// All of them are made, or none.
    #[serde(default, deserialize_with = "super::request::objects")]
    pub changes: Vec<ScaleChange>,
    /// Instead of changes: back to the file's counts, for these types. There is at least one.
    #[serde(default)]
    pub reset: Option<Vec<String>>,
    /// The same for all types.
    #[serde(default)]
    pub reset_all: bool,
    /// Answer only when the counts are live, or after this many seconds.
    #[serde(default)]
    pub wait_s: Option<f64>,
}

/// The answer to `POST /v1/scale`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ScaleResponse {
    /// False where `wait_s` passed first.
    pub settled: bool,
    /// Every type's counts.
    pub types: Vec<CountView>,
}

/// A type's counts.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CountView {
    /// The type.
    pub process: String,
    /// Instances that there should be.
    pub desired: u32,
    /// Instances that serve and don't drain.
    pub actual: u32,
    /// Why there are fewer, where it's known.
    pub note: Option<String>,
}

impl CountView {
    /// The counts of types that are listed by version. Instances of a canary that are more than its type's count aren't
    /// counted.
    pub fn of(types: &[TypeView]) -> Vec<CountView> {
        let mut counts: Vec<CountView> = vec![];
        for view in types {
            if counts.iter().any(|count| count.process == view.process) {
                continue;
            }
            let versions = || types.iter().filter(|other| other.process == view.process);
            let sum = |number: fn(&TypeView) -> u32| versions().map(number).fold(0, u32::saturating_add);
            let more = sum(|version| version.desired).saturating_sub(view.count);
            let actual = sum(|version| version.actual).saturating_sub(more);
            let instances = || versions().flat_map(|version| &version.instances);
            let note = (actual != view.count).then(|| {
                let noted = instances().find_map(|instance| instance.note.clone());
                noted.or_else(|| versions().find_map(|version| version.last_end.clone()))
            });
            let (process, desired) = (view.process.clone(), view.count);
            counts.push(CountView { process, desired, actual, note: note.flatten() });
        }
        counts
    }
}

/// `POST /v1/restart`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestartRequest {
    /// A type (`web`) or an instance (`web.1`).
    pub target: String,
    /// Answer only when the new ones serve, or after this many seconds.
    #[serde(default)]
    pub wait_s: Option<f64>,
}

/// The answer to `POST /v1/restart`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RestartResponse {
    /// How many were restarted.
    pub restarted: u32,
    /// False where `wait_s` passed first.
    pub settled: bool,
}

/// The `target` of `GET /v1/logs` that means the host's own lines. No process type is called so.
pub const HOST_TARGET: &str = "host";

/// One line of `GET /v1/logs`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// RFC 3339, UTC, with milliseconds.
    pub time: String,
    /// `web.1`
    pub instance: String,
    /// `stdout` or `stderr`
    pub stream: String,
    /// Without its end.
    pub line: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn version(process: &str, count: u32, desired: u32, actual: u32) -> TypeView {
        let view = json!({
            "process": process, "trigger": "http", "count": count, "desired": desired, "in_file": count,
            "actual": actual, "replacing": 0, "draining": 0, "waiting": 0, "restarts": 0, "recycled": 0,
            "last_end": "trapped", "instances": [],
        });
        serde_json::from_value(view).unwrap()
    }

    #[test]
    fn versions_of_a_type_are_counted_together_and_what_a_canary_has_beside_the_count_is_not() {
        let types = [
            version("web", 4, 4, 4),
            version("web", 4, 1, 1),
            version("worker", 4, 3, 3),
            version("worker", 4, 1, 0),
            // One that leaves.
            version("web", 0, 0, 0),
        ];
        let counts = CountView::of(&types);
        let each: Vec<_> = counts.iter().map(|of| (&*of.process, of.desired, of.actual)).collect();
        assert_eq!(each, [("web", 4, 4), ("worker", 4, 3)]);
        let notes: Vec<_> = counts.iter().map(|of| of.note.as_deref()).collect();
        assert_eq!(notes, [None, Some("trapped")]);
    }
}
