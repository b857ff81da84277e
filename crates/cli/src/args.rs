//! The command line.

pub(crate) mod exec;
pub(crate) mod help;
pub(crate) mod jobs;
pub(crate) mod look;
pub(crate) mod project;
pub(crate) mod releases;
mod remote;
pub(crate) mod setup;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use wasmhost_config::{Outbound, ScaleChange};

use crate::complete;
use exec::{EXEC_HELP, Exec};
use jobs::{Enqueue, Jobs};
pub(crate) use look::{Dashboard, Events, Logs, Ps};
use project::{BUILD_HELP, Build, COMPONENTIZE_HELP, Componentize, DEV_HELP, Dev, NEW_HELP, New};
use releases::{
    ABORT_HELP, Abort, DEPLOY_HELP, Deploy, PROMOTE_HELP, Promote, RELEASES_HELP, ROLLBACK_HELP, Releases,
    Rollback,
};
pub(crate) use remote::RemoteFlags;
use setup::{Export, IMPORT_HELP, INIT_HELP, Import, Init};

/// Runs the process formation of a twelve-factor app as WebAssembly.
#[derive(Parser)]
#[command(name = "wasmhost", version, propagate_version = true, max_term_width = 80, after_help = help::ALL)]
pub(crate) struct Arguments {
    /// The formation file, or a Procfile [env: WASMHOST_FILE] [default: formation.toml, else Procfile]
    #[arg(short, short_alias = 'F', long, global = true, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) remote: RemoteFlags,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

impl Verb {
    /// The name of a verb that asks no host.
    pub(crate) fn is_of_this_machine(&self) -> Option<&'static str> {
        match self {
            Verb::Run(_) => Some("run"),
            Verb::Check(_) => Some("check"),
            Verb::Compile(_) => Some("compile"),
            Verb::New(_) => Some("new"),
            Verb::Build(_) => Some("build"),
            Verb::Dev(_) => Some("dev"),
            Verb::Componentize(_) => Some("componentize"),
            Verb::Init(_) => Some("init"),
            Verb::Import(_) => Some("import"),
            Verb::Export(_) => Some("export"),
            Verb::Completions { .. } => Some("completions"),
            Verb::Man { .. } => Some("man"),
            _ => None,
        }
    }
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Run a formation in the foreground until SIGTERM or Ctrl-C, or one app without a formation.
    #[command(after_help = help::RUN)]
    Run(Run),
    /// Say what is wrong with a formation, or print it as it is understood.
    #[command(after_help = help::CHECK)]
    Check(Check),
    /// Compile a component or core module to a .cwasm, for this version of wasmhost on machines like this one.
    #[command(after_help = help::COMPILE)]
    Compile(Compile),
    /// Show process types and instances.
    #[command(after_help = help::PS)]
    Ps(Ps),
    /// Change counts while the formation runs.
    #[command(after_help = help::SCALE)]
    Scale(Scale),
    /// Make the formation's file, as it is now, what the host runs, without a gap.
    #[command(after_help = DEPLOY_HELP)]
    Deploy(Deploy),
    /// Make the release that is on canary live.
    #[command(after_help = PROMOTE_HELP)]
    Promote(Promote),
    /// End the release that is on canary: the live one has all requests and jobs again.
    #[command(after_help = ABORT_HELP)]
    Abort(Abort),
    /// Go back to a release that was live before.
    #[command(after_help = ROLLBACK_HELP)]
    Rollback(Rollback),
    /// List releases, or show one.
    #[command(after_help = RELEASES_HELP)]
    Releases(Releases),
    /// Print what instances write on their standard output and error.
    #[command(after_help = help::LOGS)]
    Logs(Logs),
    /// Follow everything that changes: instances, counts, releases, jobs, ticks, refused grants.
    #[command(after_help = help::EVENTS)]
    Events(Events),
    /// Watch the formation in the terminal, with keys to scale, restart and pause.
    #[command(after_help = help::TOP)]
    Top,
    /// Open a page in the browser that shows the formation, and lets you change it.
    #[command(after_help = help::DASHBOARD)]
    Dashboard(Dashboard),
    /// Replace instances by fresh ones, without a gap.
    #[command(after_help = help::RESTART)]
    Restart(Restart),
    /// Stop the host: running calls finish first.
    #[command(after_help = help::STOP)]
    Stop(Stop),
    /// Run a type's command once, here and now, in the sandbox of the type.
    #[command(after_help = EXEC_HELP)]
    Exec(Exec),
    /// Put jobs on a queue.
    #[command(after_help = help::ENQUEUE)]
    Enqueue(Enqueue),
    /// Look at jobs and queues, and mend them.
    #[command(after_help = help::JOBS)]
    Jobs(Jobs),
    /// Run a tick of a schedule now.
    #[command(after_help = help::TICK)]
    Tick(Tick),
    /// Show what became of the last ticks, and when the next ones come.
    #[command(after_help = help::TICKS)]
    Ticks(Ticks),
    /// Write a project that builds and runs: a formation, sources, a test.
    #[command(after_help = NEW_HELP)]
    New(New),
    /// Build the components of types whose sources changed, by their `build` commands.
    #[command(after_help = BUILD_HELP)]
    Build(Build),
    /// Build and run a formation, and deploy each change without dropping a request.
    #[command(after_help = DEV_HELP)]
    Dev(Dev),
    /// Make a component of a core module, as a step of a build.
    #[command(after_help = COMPONENTIZE_HELP)]
    Componentize(Componentize),
    /// Write a formation.toml for the components in a folder.
    #[command(after_help = INIT_HELP)]
    Init(Init),
    /// Write the formation.toml that says what a Procfile says.
    #[command(after_help = IMPORT_HELP)]
    Import(Import),
    /// Write systemd units, or a Procfile, for a formation.
    #[command(after_help = setup::EXPORT_HELP)]
    Export(Export),
    /// Print a shell's completions.
    #[command(after_help = help::COMPLETIONS)]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write the man pages, one for each verb.
    #[command(hide = true, after_help = help::MAN)]
    Man {
        /// The directory to write them to.
        directory: PathBuf,
    },
}

#[derive(Args)]
pub(crate) struct Run {
    /// The formation file, a Procfile, or an app: a component or a core WASI 0.1 module [default: formation.toml, else
    /// Procfile]
    #[arg(id = "formation", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) app: AppFlags,
}

/// Options of `run` for an app. A formation says all of it in its file.
#[derive(Args, Default)]
#[command(next_help_heading = "Options for an app")]
pub(crate) struct AppFlags {
    /// An environment variable for it, with this value or with the one that it has here.
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<EnvFlag>,
    /// A directory for it, under this path in the sandbox or under the same; to write in, unless it is `ro`.
    #[arg(long, value_name = "HOST[::GUEST[::ro|rw]]")]
    pub(crate) dir: Vec<DirFlag>,
    /// A host that it may send requests or connect to: `https://api.example.com`, `db.internal:5432`.
    #[arg(long, value_name = "URL|HOST:PORT")]
    pub(crate) outbound: Vec<Outbound>,
    /// Every address, UDP and listening sockets too.
    #[arg(long)]
    pub(crate) network: bool,
    /// Where it is served [default: 127.0.0.1:8080]; port 0 takes any free one.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,
    /// How many instances serve it [default: 16]: `2` or `web=2`.
    #[arg(long, value_name = "[web=]COUNT")]
    pub(crate) count: Option<CountFlag>,
    /// Memory of an instance [default: 128MiB if it is served, 4GiB for a command].
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) memory: Option<u64>,
    /// How long a request, or the command, may take [default: 30s, or no limit for a command].
    #[arg(long, value_name = "DURATION", value_parser = time_limit)]
    pub(crate) timeout: Option<Duration>,
    /// It may be a .cwasm: native code, which runs outside of the sandbox.
    #[arg(long)]
    pub(crate) trust_cwasm: bool,
    /// Its arguments.
    #[arg(trailing_var_arg = true, value_name = "ARGS")]
    pub(crate) args: Vec<String>,
}

impl AppFlags {
    /// One that was given, if any was.
    pub(crate) fn first(&self) -> Option<&'static str> {
        let given = [
            ("--env", !self.env.is_empty()),
            ("--dir", !self.dir.is_empty()),
            ("--outbound", !self.outbound.is_empty()),
            ("--network", self.network),
            ("--memory", self.memory.is_some()),
            ("--timeout", self.timeout.is_some()),
            ("--trust-cwasm", self.trust_cwasm),
            ("an argument", !self.args.is_empty()),
        ];
        let given = given.iter().find(|(_, is_given)| *is_given).map(|(flag, _)| *flag);
        given.or(self.first_for_http())
    }

    /// One that was given and means nothing to a command, if there is one.
    pub(crate) fn first_for_http(&self) -> Option<&'static str> {
        match (&self.listen, &self.count) {
            (Some(_), _) => Some("--listen"),
            (None, Some(_)) => Some("--count"),
            (None, None) => None,
        }
    }
}

#[derive(Args)]
pub(crate) struct Check {
    /// The formation file, or a Procfile [default: formation.toml, else Procfile]
    #[arg(id = "formation", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Print the formation as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Compile {
    /// The component or core module, a .wasm file.
    pub(crate) component: PathBuf,
    /// The file to write [default: that file's name with .cwasm, beside it]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// The most memory that the compiler may take [default: 4GiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) memory: Option<u64>,
    /// The most CPU time that it may take [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) cpu: Option<Duration>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Scale {
    /// New counts: `web=10`, `worker+2`, `clock-1`.
    #[arg(value_name = "TYPE=COUNT", allow_negative_numbers = true, add = complete::changes())]
    pub(crate) changes: Vec<ScaleChange>,
    /// Go back to the file's counts, of all types or of these.
    #[arg(long, value_name = "TYPE", num_args = 0.., conflicts_with = "changes", add = complete::types())]
    pub(crate) reset: Option<Vec<String>>,
    /// How long to wait until the counts are live.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// Don't wait.
    #[arg(long, conflicts_with = "timeout")]
    pub(crate) no_wait: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Restart {
    /// A type (web) or an instance (web.1).
    #[arg(add = complete::targets())]
    pub(crate) target: String,
    /// How long to wait until the new instances serve.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Stop {
    /// How long to wait until the host is gone.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Tick {
    /// A process type with a schedule.
    #[arg(value_name = "TYPE", add = complete::schedules())]
    pub(crate) process: String,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Ticks {
    /// A process type with a schedule; all of them if none is given.
    #[arg(value_name = "TYPE", add = complete::schedules())]
    pub(crate) process: Option<String>,
    /// How many ticks, the newest first.
    #[arg(short, long, value_name = "TICKS", default_value_t = 20)]
    pub(crate) n: usize,
    /// Print JSON, one object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    wasmhost_config::units::parse_duration(text).map_err(|err| err.to_string())
}

/// A time that something may take. None at all would be no time, or no limit.
fn time_limit(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("expected more than no time; leave it out for no limit of its own".to_owned()),
        limit => Ok(limit),
    }
}

fn size(text: &str) -> Result<u64, String> {
    wasmhost_config::units::parse_size(text).map_err(|err| err.to_string())
}

/// `NAME=VALUE`, or a name alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EnvFlag {
    pub(crate) name: String,
    pub(crate) value: Option<String>,
}

impl FromStr for EnvFlag {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        match name.is_empty() {
            true => Err("expected a name, such as LOG=info"),
            false => Ok(EnvFlag { name: name.to_owned(), value }),
        }
    }
}

/// `HOST`, `HOST::GUEST` or `HOST::GUEST::ro`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DirFlag {
    pub(crate) host: String,
    pub(crate) guest: String,
    pub(crate) writable: bool,
}

impl FromStr for DirFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(meant) = as_docker_writes(text) {
            return Err(format!("found single colons, expected HOST::GUEST::ro: {meant}"));
        }
        let mut parts = text.split("::");
        let host = parts.next().unwrap_or_default();
        let guest = match parts.next() {
            None => host,
            // As in wasmtime: where the program itself is.
            Some("") => ".",
            Some(guest) => guest,
        };
        let writable = match parts.next() {
            None | Some("rw") => true,
            Some("ro") => false,
            Some(_) => return Err("expected `ro` or `rw` after the second `::`".to_owned()),
        };
        if host.is_empty() || parts.next().is_some() {
            let expected = "expected HOST, HOST::GUEST or HOST::GUEST::ro, such as ./public::/public::ro";
            return Err(expected.to_owned());
        }
        Ok(DirFlag { host: host.to_owned(), guest: guest.to_owned(), writable })
    }
}

/// `HOST:/GUEST` or `HOST:/GUEST:ro`, as Docker takes volumes, in our words.
fn as_docker_writes(text: &str) -> Option<String> {
    let (host, rest) = text.split_once(':').filter(|_| !text.contains("::"))?;
    let (guest, access) = rest.split_once(':').map_or((rest, None), |(guest, access)| (guest, Some(access)));
    if !guest.starts_with('/') || !matches!(access, None | Some("ro" | "rw")) {
        return None;
    }
    let access = access.map(|access| format!("::{access}")).unwrap_or_default();
    Some(format!("--dir {host}::{guest}{access}"))
}

/// `2`, or `web=2`: an app's one type is called so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CountFlag(pub(crate) u32);

impl FromStr for CountFlag {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let count = text.strip_prefix("web=").unwrap_or(text).parse();
        let count = count.ok().filter(|count| (1..=COUNT_MAX).contains(count));
        count.map(CountFlag).ok_or("expected a count from 1 to 100000, such as 4 or web=4")
    }
}

/// As many as a formation may ask for.
const COUNT_MAX: u32 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_directory_is_writable_under_its_own_name_unless_it_says_otherwise() {
        let dir = |host: &str, guest: &str, writable| {
            Ok(DirFlag { host: host.into(), guest: guest.into(), writable })
        };
        assert_eq!("a/b".parse(), dir("a/b", "a/b", true));
        assert_eq!("a::/b".parse(), dir("a", "/b", true));
        assert_eq!("a::/b::ro".parse(), dir("a", "/b", false));
        assert_eq!("a::/b::rw".parse(), dir("a", "/b", true));
        assert_eq!("a::".parse(), dir("a", ".", true));
        for text in ["", "::", "::b", "a::b::x", "a::b::ro::c"] {
            assert!(text.parse::<DirFlag>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_volume_in_dockers_words_is_told_in_ours() {
        let refused = |text: &str| text.parse::<DirFlag>().unwrap_err();
        assert!(refused("d:/data:ro").ends_with("--dir d::/data::ro"));
        assert!(refused("./d:/data").ends_with("--dir ./d::/data"));
        assert!("odd:name".parse::<DirFlag>().is_ok());
    }

    #[test]
    fn an_apps_arguments_follow_it_with_and_without_dashes() {
        let args = |line: &[&str]| {
            let line = ["wasmhost", "run", "app.wasm"].iter().chain(line);
            match Arguments::try_parse_from(line).map(|arguments| arguments.verb) {
                Ok(Verb::Run(run)) => Some((run.app.network, run.app.args.join(" "))),
                _ => None,
            }
        };
        assert_eq!(args(&["a", "b"]), Some((false, "a b".into())));
        assert_eq!(args(&["--network", "--", "--a", "-b"]), Some((true, "--a -b".into())));
        assert_eq!(args(&["a", "--network"]), Some((false, "a --network".into())));
        assert_eq!(args(&["--", "a", "--", "b"]), Some((false, "a -- b".into())));
        assert_eq!(args(&["a", "--", "b"]), Some((false, "a -- b".into())));
        assert_eq!(args(&["--netwrok"]), None, "a slip isn't taken for the app's");
    }
}
