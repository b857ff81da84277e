//! Arguments of `wasmhost jobs` and `wasmhost enqueue`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use wasmhost_host::admin::api::JobState;

use super::{duration, help};
use crate::complete;

#[derive(Args)]
pub(crate) struct Enqueue {
    /// The queue.
    #[arg(add = complete::queues())]
    pub(crate) queue: String,
    /// The payload, as text; read from --from or standard input if it isn't given.
    #[arg(conflicts_with_all = ["input", "lines"])]
    pub(crate) payload: Option<String>,
    /// Read the payload from this file; `-` is standard input.
    #[arg(short = 'i', long = "from", id = "input", value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Make a job of each line.
    #[arg(long)]
    pub(crate) lines: bool,
    /// Run it not before this time from now.
    #[arg(long = "in", value_name = "DURATION", value_parser = duration, conflicts_with = "at")]
    pub(crate) delay: Option<Duration>,
    /// Run it not before this time: 2026-11-21T08:00:00+01:00.
    #[arg(long = "at", value_name = "TIME", id = "at")]
    pub(crate) run_at: Option<String>,
    /// Higher runs earlier.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) priority: i16,
    /// Make no new job where one with this key waits or runs in the queue.
    #[arg(long, value_name = "KEY", conflicts_with = "lines")]
    pub(crate) unique: Option<String>,
    /// Hold the key only until the job is first given to an instance.
    #[arg(long, requires = "unique", conflicts_with = "unique_for")]
    pub(crate) unique_waiting: bool,
    /// Hold the key for this long, whether the job has ended or not.
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "unique")]
    pub(crate) unique_for: Option<Duration>,
    /// How many tries it has.
    #[arg(long)]
    pub(crate) attempts: Option<u32>,
    /// The payload's media type.
    #[arg(long, value_name = "TYPE", default_value = "")]
    pub(crate) content_type: String,
    /// A name and a value for the handler.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) meta: Vec<(String, String)>,
    /// Print JSON, one object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Jobs {
    #[command(subcommand)]
    pub(crate) verb: JobsVerb,
}

#[derive(Subcommand)]
pub(crate) enum JobsVerb {
    /// List jobs, the latest first.
    #[command(after_help = help::JOBS_LS)]
    Ls(List),
    /// Show all that is known of a job: its payload, its attempts, what went wrong.
    #[command(after_help = help::JOBS_SHOW)]
    Show(Show),
    /// Make dead, retrying or scheduled jobs available now; a dead one gets all its attempts again.
    #[command(after_help = help::JOBS_RETRY)]
    Retry(Sweep),
    /// Take back jobs that wait, and end the calls of those that run.
    #[command(after_help = help::JOBS_CANCEL)]
    Cancel(Sweep),
    /// Delete jobs that no instance has.
    #[command(after_help = help::JOBS_DISCARD)]
    Discard(Sweep),
    /// Take nothing more from a queue, until it is resumed. Jobs that run go on, and more can be enqueued.
    #[command(after_help = help::JOBS_PAUSE)]
    Pause(Queues),
    /// Go on with a queue.
    #[command(after_help = help::JOBS_RESUME)]
    Resume(Queues),
    /// Count the jobs of each queue, by state.
    #[command(after_help = help::JOBS_STATS)]
    Stats(Stats),
    /// The same, over and over.
    #[command(after_help = help::JOBS_WATCH)]
    Watch(Watch),
    /// Copy the store, SQLite's, to a file, while it is used or not.
    #[command(after_help = help::JOBS_BACKUP)]
    Backup(Backup),
}

/// Which jobs.
#[derive(Args, Default)]
pub(crate) struct Which {
    /// Jobs of this queue.
    #[arg(long, add = complete::queues())]
    pub(crate) queue: Option<String>,
    /// Jobs in these states: scheduled, available, leased, retrying, done, dead, cancelled.
    #[arg(long, value_name = "STATE", value_delimiter = ',', value_parser = state)]
    pub(crate) state: Vec<JobState>,
    /// Jobs with this unique key.
    #[arg(long)]
    pub(crate) key: Option<String>,
}

#[derive(Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) which: Which,
    /// The first that were enqueued first.
    #[arg(long)]
    pub(crate) oldest: bool,
    /// How many.
    #[arg(short, long, value_name = "JOBS", default_value_t = 50)]
    pub(crate) n: usize,
    /// Print JSON, one object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Show {
    /// The job.
    pub(crate) id: String,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Sweep {
    /// The jobs.
    #[arg(conflicts_with_all = ["queue", "state", "key", "all"])]
    pub(crate) ids: Vec<String>,
    #[command(flatten)]
    pub(crate) which: Which,
    /// Every job that it can be done to.
    #[arg(long)]
    pub(crate) all: bool,
    /// Print JSON, one object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Queues {
    /// The queues.
    #[arg(required = true, value_name = "QUEUE", add = complete::queues())]
    pub(crate) queues: Vec<String>,
    /// Print JSON, one object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Stats {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Watch {
    /// How often.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub(crate) every: Duration,
    /// Print JSON, one object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Backup {
    /// The file to write; it must not be there yet.
    #[arg(id = "to", value_name = "FILE")]
    pub(crate) to: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

fn state(name: &str) -> Result<JobState, String> {
    JobState::from_name(name).ok_or_else(|| {
        let known: Vec<_> = JobState::ALL.iter().map(|state| state.name()).collect();
        format!("expected one of {}", known.join(", "))
    })
}

fn pair(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected a name and a value, such as tenant=acme"),
    }
}
