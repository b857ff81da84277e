//! A formation whose fields can't be wrong: what later code works from, and never checks again.

use crate::admin::{Admin, AdminTls};
use crate::http::{CertificateFiles, Health, Http, Listen};
use crate::postgres_url::PostgresUrl;
pub use crate::written::Written;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Memory of an instance where the formation doesn't say.
pub const MEMORY_BYTES_DEFAULT: u64 = 128 << 20;

/// Bytes of log lines that a type may write a second, where the formation doesn't say. A guest that serves requests as fast
/// as a core can, with a line for each, writes a fifth of that.
pub const LOG_BYTES_PER_SECOND_DEFAULT: u64 = 16 << 20;

/// A type's weight where the formation doesn't say.
pub const WEIGHT_DEFAULT: u32 = 1;

/// Releases that are kept where the formation doesn't say.
pub const KEEP_RELEASES_DEFAULT: u32 = 10;

/// The process types of one app, and what they share.
#[derive(Debug, Clone, PartialEq)]
pub struct Formation {
    /// The app's name; the folder's name where the file gives none.
    pub name: String,
    /// The file this was read from, absolute.
    pub file: PathBuf,
    /// Where the lock, the socket and the default store live, absolute.
    pub state_dir: PathBuf,
    /// Instances that there is room for, all types together; `None` leaves it to the host.
    pub max_instances: Option<u32>,
    /// How long running calls may go on once the host drains.
    pub grace: Duration,
    /// How long the listener stays open for new connections once the host drains.
    pub drain_delay: Duration,
    /// The ingress that all http types share.
    pub http: Http,
    /// Where probes and metrics are answered, if anywhere.
    pub health: Option<Health>,
    /// Where the admin API is served beside its socket, if anywhere.
    pub admin: Option<Admin>,
    /// Where jobs, ticks, releases and counts live.
    pub store: StoreUrl,
    /// Releases that are kept for a rollback, the live one among them; at least 1.
    pub keep_releases: u32,
    /// How long the store keeps jobs that have ended.
    pub retention: Retention,
    /// The bounds of compiling one component.
    pub compile: CompileLimits,
    /// Settings of single queues; a queue that isn't here has the defaults.
    pub queues: BTreeMap<String, Queue>,
    /// The process types in the file's order; at least one, their names unique.
    pub processes: Vec<ProcessType>,
    /// Files whose contents are values of the environment (`env = { KEY = { file = ... } }`), absolute.
    pub secret_files: Vec<PathBuf>,
    /// How strings with variables were written: they are shown so.
    pub written: Written,
    /// The texts that it was read from.
    pub source: Source,
}

/// The texts that [`load`](crate::load) read a formation from: [`restore`](crate::restore) reads it from them again.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Source {
    /// The formation file's. Empty where there was no file.
    pub text: String,
    /// That of the `.env` beside it, where there is one.
    pub dotenv: Option<String>,
}

/// `[store] url`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// One SQLite file, by absolute path.
    Sqlite(PathBuf),
    /// A schema of a PostgreSQL database, which several hosts may share.
    Postgres(PostgresUrl),
    /// Nothing outlives the host: for tests.
    Memory,
}

/// `[store] keep_done` and its like: how long jobs that have ended are kept, and how many at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Done and cancelled jobs: for this long...
    pub done_for: Duration,
    /// ...and at most this many.
    pub done_max: u64,
    /// Dead jobs: for this long...
    pub dead_for: Duration,
    /// ...and at most this many.
    pub dead_max: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Retention {
            done_for: Duration::from_hours(1),
            done_max: 100_000,
            dead_for: Duration::from_hours(180 * 24),
            dead_max: 10_000,
        }
    }
}

/// `[compile]`: the most that compiling one component may take, for it is a program of somebody else's that says how much
/// work it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileLimits {
    /// Bytes of memory.
    pub memory_bytes_max: u64,
    /// CPU time, on all cores together: a busy machine refuses no component that an idle one compiles.
    pub cpu: Duration,
}

impl Default for CompileLimits {
    fn default() -> Self {
        CompileLimits { memory_bytes_max: 4 << 30, cpu: Duration::from_mins(5) }
    }
}

/// `[queues.NAME]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Queue {
    /// Waiting jobs past which `enqueue` is refused.
    pub max_depth: Option<u64>,
    /// Bytes of waiting jobs past which `enqueue` is refused.
    pub max_bytes: u64,
    /// Jobs that one producer (a type, or the admin API) may enqueue in a second; `None` is any number.
    pub max_per_second: Option<u32>,
    /// Jobs that run at once, over all types and hosts; `None` is as many as there are instances.
    pub concurrency: Option<u32>,
}

impl Queue {
    /// The bound of a queue that the formation doesn't mention: millions of jobs, and not yet most disks.
    pub const MAX_BYTES_DEFAULT: u64 = 4 << 30;
}

impl Default for Queue {
    fn default() -> Queue {
        Queue {
            max_depth: None,
            max_bytes: Queue::MAX_BYTES_DEFAULT,
            max_per_second: None,
            concurrency: None,
        }
    }
}

/// `[process.NAME]`: a component, its trigger, its limits, its grants, its count.
#[derive(Debug, Clone, PartialEq)]
pub struct ProcessType {
    /// Lower-case letters, digits and `-`, a letter first, at most 63 bytes.
    pub name: String,
    /// The component's file, absolute. Whether it exists is for whoever loads it to find out.
    pub component: PathBuf,
    /// The shell command that makes the component, run in the file's folder by `wasmhost build` and `wasmhost dev`.
    pub build: Option<String>,
    /// Whether the component may be compiled code, which runs outside of the sandbox.
    pub trust_cwasm: bool,
    /// Whether an import that nothing provides ends the call that uses it, and isn't refused at the start.
    pub missing_imports_trap: bool,
    /// A command's arguments, without its own name.
    pub args: Vec<String>,
    /// How many instances to keep.
    pub count: u32,
    /// The trigger, where the keys say one; `None` leaves it to the component's exports.
    pub trigger: Option<Trigger>,
    /// Bytes of linear memory and tables that one instance may have.
    pub memory_bytes_max: u64,
    /// Wall time that one call may take; `None` where the file says nothing, and the trigger's default
    /// applies.
    pub timeout: Option<Duration>,
    /// Guest CPU time that one call may spend; `None` has no limit.
    pub cpu: Option<Duration>,
    /// Where types compete for the compute threads, this one gets so many times the time of one of weight 1; at least 1.
    pub weight: u32,
    /// Requests that one instance serves at once; WASI 0.3 only. Where it isn't set the host decides.
    pub concurrency: Option<u32>,
    /// Whether an instance serves one call or many; `None` is many, unless the component turns out to be made for one.
    pub isolation: Option<Isolation>,
    /// Calls after which an instance is replaced.
    pub max_calls: Option<u64>,
    /// Time after which an instance is replaced, idle or not.
    pub max_age: Option<Duration>,
    /// Calls that may wait for an instance; `None` is 50 for each instance.
    pub backlog: Option<u32>,
    /// How long a call may wait for an instance.
    pub queue_timeout: Duration,
    /// Bytes that a request's body may have; `None` is any number.
    pub body_bytes_max: Option<u64>,
    /// Bytes of lines that its instances may write in a second, all together. Lines past that are dropped.
    pub log_bytes_per_second: u64,
    /// The path that a new instance is asked for until it answers 2xx, before others follow it in a deploy. It begins
    /// with `/` and may have a query. `None` asks nothing.
    pub ready: Option<String>,
    /// How many tries a job of this type has, where its producer didn't say.
    pub attempts: u32,
    /// How long a failed job of this type waits after its first attempt, its second, ...: the last repeats. Where it
    /// is empty the waits are the host's own.
    pub backoff: Vec<Duration>,
    /// Everything that the sandbox may touch.
    pub grants: Grants,
}

/// How much of an instance one caller shares with the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Nothing: each call has a fresh instance.
    Call,
    /// The instance: it serves call after call.
    Instance,
}

/// The kind of calls that an instance gets.
#[derive(Debug, Clone, PartialEq)]
pub enum Trigger {
    /// Requests that match one of these.
    Http {
        /// At least one; no other process type has the same.
        routes: Vec<Route>,
    },
    /// Jobs of these queues, with weights of at least 1, in the file's order.
    Queue {
        /// At least one, each once.
        queues: Vec<(String, u32)>,
    },
    /// The times of a schedule.
    Schedule(Schedule),
    /// Nothing: the component's `main` runs.
    Command {
        /// When it runs.
        run: Run,
    },
}

/// When a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// All the time: it is started again when it ends.
    Always,
    /// Once before a release goes live, at each start and deploy.
    Release,
    /// Only by `wasmhost exec`.
    Never,
}

/// `schedule = "*/5 * * * *"` or `every = "30s"`, and the keys beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// When its times are.
    pub times: Times,
    /// Each call is late by some time below this: see [`Schedule::delay`].
    pub jitter: Duration,
    /// How times are treated that passed while no host ran.
    pub missed: Missed,
    /// How a tick is treated that comes while the one before it runs.
    pub overlap: Overlap,
}

/// When the times of a schedule are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Times {
    /// `schedule` and `time_zone`.
    Cron {
        /// A cron expression of five or six fields, or an `@daily` form; known to parse.
        expression: String,
        /// IANA name; UTC where the file gives none. Known to exist.
        time_zone: String,
    },
    /// `every`: the multiples of this since 1970-01-01T00:00:00Z, so that restarts and other hosts come to the same
    /// times. At least a second.
    Every(Duration),
}

/// How times are treated that passed while no host ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// Forget them.
    Skip,
    /// Run once for all of them.
    One,
    /// Run once for each.
    All,
}

/// How a tick is treated that comes while the one before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap {
    /// Leave the new one out, and say so.
    Skip,
    /// Run both.
    Allow,
}

/// A host name (or any) and a path prefix of whole segments.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Lower case, without a port; `None` matches every host.
    pub host: Option<String>,
    /// Starts with `/`, and ends without one unless it is `/` alone.
    pub path: String,
}

/// Everything that a sandbox may touch. The default is nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Grants {
    /// The environment, in the file's order.
    pub env: Vec<EnvVar>,
    /// Directories of the host.
    pub dirs: Vec<DirGrant>,
    /// Hosts to which connections may be made.
    pub outbound: Vec<Outbound>,
    /// Every socket there is, listening ones too.
    pub network_all: bool,
    /// Queues that jobs may be put on.
    pub enqueue: Vec<String>,
}

/// One entry of `env`. Its value is known: `from_env` and `file` have been read.
#[derive(Clone, PartialEq, Eq)]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// True where the value came from `from_env`, `file` or a `${VAR}`: it is never shown.
    pub secret: bool,
}

/// One entry of `dirs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirGrant {
    /// Absolute path on the host.
    pub host: PathBuf,
    /// Path in the sandbox.
    pub guest: String,
    /// `access = "write"` reads too.
    pub writable: bool,
    /// Bytes that may be in it, all its files together, before guests can write no more; `None` is any number.
    pub bytes_max: Option<u64>,
}

/// One entry of `outbound`: `https://api.stripe.com` or `postgres.internal:5432`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    /// `http` or `https`, for requests alone; `None` is a TCP connection, and a request with either scheme.
    pub scheme: Option<String>,
    /// Lower-case host name, or an IP address without brackets. `*.example.com` grants every name below it.
    pub host: String,
    /// The port; with a scheme its default one where none was given.
    pub port: u16,
}

/// Passwords may be in both texts: neither is printed.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

impl fmt::Debug for EnvVar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = if self.secret { "(secret)" } else { &self.value };
        write!(f, "{}={value}", self.name)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Some(host) if self.path == "/" => f.write_str(host),
            Some(host) => write!(f, "{host}{}", self.path),
            None => f.write_str(&self.path),
        }
    }
}

impl fmt::Display for StoreUrl {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUrl::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            StoreUrl::Postgres(url) => url.fmt(f),
            StoreUrl::Memory => f.write_str("memory:"),
        }
    }
}

impl fmt::Display for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(scheme) = &self.scheme {
            write!(f, "{scheme}://")?;
        }
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl Formation {
    /// The process type of that name.
    pub fn process(&self, name: &str) -> Option<&ProcessType> {
        self.processes.iter().find(|process| process.name == name)
    }

    /// All files of certificates that the host serves by.
    pub fn certificates(&self) -> impl Iterator<Item = &CertificateFiles> {
        let own = self.admin.as_ref().and_then(|admin| match &admin.tls {
            Some(AdminTls::Own(files)) => Some(files),
            Some(AdminTls::OfHttp(_)) | None => None,
        });
        let of_http = self.http.tls.as_ref().map(|tls| &tls.certificates);
        of_http.into_iter().chain(own).flatten()
    }

    /// The places where something else than requests is answered: `[health]` and `[admin]`.
    pub fn places_apart(&self) -> impl Iterator<Item = &Listen> {
        let health = self.health.iter().flat_map(|health| &health.listen);
        health.chain(self.admin.iter().flat_map(|admin| &admin.listen))
    }
}

impl ProcessType {
    /// One instance of a component with every default and no grants; its exports decide what calls it.
    pub fn new(name: impl Into<String>, component: PathBuf) -> Self {
        ProcessType {
            name: name.into(),
            component,
            build: None,
            trust_cwasm: false,
            missing_imports_trap: false,
            args: Vec::new(),
            count: 1,
            trigger: None,
            memory_bytes_max: MEMORY_BYTES_DEFAULT,
            timeout: None,
            cpu: None,
            weight: WEIGHT_DEFAULT,
            concurrency: None,
            isolation: None,
            max_calls: None,
            max_age: None,
            backlog: None,
            queue_timeout: Duration::from_secs(5),
            body_bytes_max: None,
            log_bytes_per_second: LOG_BYTES_PER_SECOND_DEFAULT,
            ready: None,
            attempts: 25,
            backoff: Vec::new(),
            grants: Grants::default(),
        }
    }
}
