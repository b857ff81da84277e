//! The command line.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use wasmhost_host::admin::api::{ScaleChange, ScaleTo};

/// Runs the process formation of a twelve-factor app as WebAssembly.
#[derive(Parser)]
#[command(name = "wasmhost", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Arguments {
    /// The formation file.
    #[arg(short, long, global = true, value_name = "FILE", env = "WASMHOST_FILE")]
    pub(crate) file: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Run a formation in the foreground until SIGTERM or Ctrl-C.
    #[command(after_help = RUN_HELP)]
    Run(Run),
    /// Say what is wrong with a formation, or print it as it is understood.
    #[command(
        after_help = "Exits with 2 if the formation is wrong, 4 if a component is missing or can't be used."
    )]
    Check(Check),
    /// Compile a component to a .cwasm, for this version of wasmhost on machines like this one.
    #[command(after_help = COMPILE_HELP)]
    Compile(Compile),
    /// Show process types and instances.
    Ps(Ps),
    /// Change counts while the formation runs.
    #[command(after_help = SCALE_HELP)]
    Scale(Scale),
    /// Print what instances write on their standard output and error.
    Logs(Logs),
    /// Replace instances by fresh ones, without a gap.
    Restart(Restart),
    /// Stop the host: running calls finish first.
    Stop(Stop),
    /// Put a job on a queue.
    Enqueue(Enqueue),
    /// Run a tick of a schedule now.
    Tick(Tick),
    /// Print a shell's completions: `wasmhost completions bash > /etc/bash_completion.d/wasmhost`.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

const RUN_HELP: &str = "\
Guests' lines go to standard output (JSON unless it is a terminal), the host's own to standard error.
WASMHOST_LOG=debug shows more of them.

Compiled components are kept from start to start in ~/.cache/wasmhost/compiled, or where
WASMHOST_CACHE_DIR says; at most 1GiB of them, or what WASMHOST_CACHE_SIZE says. WASMHOST_CACHE=off
keeps none.

SIGTERM and SIGINT drain: calls under way finish within `grace`. A second SIGINT ends them at once.
Exits with 0 after a drain, 124 if a call was cut off, 2 if the formation is wrong, 3 if it can't
start, 4 if a component is missing or can't be loaded.";

const COMPILE_HELP: &str = "\
A formation takes the file as `component` beside `trust_cwasm = true`: compiled code runs outside of
the sandbox, so take it only from where you would take a program. Without this verb components are
compiled when they are first run, and kept.";

const SCALE_HELP: &str = "\
Examples:
  wasmhost scale web=10 worker+2 clock-1
  wasmhost scale                 prints the counts, as a line that can be pasted back
  wasmhost scale --reset         goes back to the file's counts

All changes are made, or none. Counts that were set survive a restart of the host.";

#[derive(Args)]
pub(crate) struct Run {
    /// The formation file [default: formation.toml]
    #[arg(id = "formation", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Check {
    /// The formation file [default: formation.toml]
    #[arg(id = "formation", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Print the formation as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Compile {
    /// The component, a .wasm file.
    pub(crate) component: PathBuf,
    /// The file to write [default: the component's name with .cwasm, beside it]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Ps {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Scale {
    /// New counts: `web=10`, `worker+2`, `clock-1`.
    #[arg(value_name = "TYPE=COUNT")]
    pub(crate) changes: Vec<Change>,
    /// Go back to the file's counts, of all types or of these.
    #[arg(long, value_name = "TYPE", num_args = 0.., conflicts_with = "changes")]
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
pub(crate) struct Logs {
    /// A type (web) or an instance (web.1); all of them if none is given.
    pub(crate) target: Option<String>,
    /// Go on with what is written from now on.
    #[arg(short = 'F', long)]
    pub(crate) follow: bool,
    /// How many of the last lines to begin with.
    #[arg(short, long, value_name = "LINES", default_value_t = 100)]
    pub(crate) n: usize,
    /// Print JSON, one object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Restart {
    /// A type (web) or an instance (web.1).
    pub(crate) target: String,
    /// How long to wait until the new instances serve.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

#[derive(Args)]
pub(crate) struct Stop {
    /// How long to wait until the host is gone.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

#[derive(Args)]
pub(crate) struct Enqueue {
    /// The queue.
    pub(crate) queue: String,
    /// The payload, as text; read from standard input if it isn't given.
    pub(crate) payload: Option<String>,
    /// Run it not before this time from now.
    #[arg(long = "in", value_name = "DURATION", value_parser = duration)]
    pub(crate) delay: Option<Duration>,
    /// Higher runs earlier.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) priority: i16,
    /// At most one job with this key waits or runs in the queue.
    #[arg(long, value_name = "KEY")]
    pub(crate) unique: Option<String>,
    /// How many tries it has.
    #[arg(long)]
    pub(crate) attempts: Option<u32>,
    /// The payload's media type.
    #[arg(long, value_name = "TYPE", default_value = "")]
    pub(crate) content_type: String,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Tick {
    /// A process type with a schedule.
    pub(crate) process: String,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    wasmhost_config::units::parse_duration(text).map_err(|err| err.to_string())
}

/// `web=10`, `worker+2` or `clock-1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change(pub(crate) ScaleChange);

impl FromStr for Change {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        type Make = fn(u32) -> ScaleTo;
        let split = |sign, make: Make| text.rsplit_once(sign).map(|(process, count)| (process, count, make));
        // A name may have a `-` in it, so that the last one counts, and only where there is no other sign.
        let found = split('=', ScaleTo::Count)
            .or_else(|| split('+', ScaleTo::More))
            .or_else(|| split('-', ScaleTo::Fewer));
        let expected = "expected a type and a count, such as web=10, worker+2 or clock-1";
        let Some((process, count, make)) = found else { return Err(expected.to_owned()) };
        if process.is_empty() {
            return Err(expected.to_owned());
        }
        let count = count.parse().map_err(|_| format!("\"{count}\" is not a count; {expected}"))?;
        Ok(Change(ScaleChange { process: process.to_owned(), to: make(count) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn change(text: &str) -> Result<(String, ScaleTo), String> {
        text.parse::<Change>().map(|Change(change)| (change.process, change.to))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn counts_are_set_raised_and_lowered() {
        assert_eq!(change("web=10"), Ok(("web".into(), ScaleTo::Count(10))));
        assert_eq!(change("worker+2"), Ok(("worker".into(), ScaleTo::More(2))));
        assert_eq!(change("mail-worker-1"), Ok(("mail-worker".into(), ScaleTo::Fewer(1))));
        assert_eq!(change("mail-worker=3"), Ok(("mail-worker".into(), ScaleTo::Count(3))));
    }

    #[test]
    fn what_is_no_change_is_refused() {
        for text in ["web", "=3", "web=", "web=x", "web=-1", "+2", "web=1.5"] {
            assert!(change(text).is_err(), "{text}");
        }
    }
}
