//! Arguments of the verbs that look at what runs: `ps`, `logs`, `events` and `dashboard`.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use wasmhost_host::admin::api::EventKind;

use super::duration;
use crate::complete;
use crate::moment::moment;

#[derive(Args)]
pub(crate) struct Ps {
    /// A type (web): it alone, and how its last instance died.
    #[arg(value_name = "TYPE", add = complete::types())]
    pub(crate) process: Option<String>,
    /// Show it again each second, until q or Ctrl-C.
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) watch: bool,
    /// Wait until the host has started and its types, or this one, have their instances.
    #[arg(long, conflicts_with = "watch")]
    pub(crate) wait: bool,
    /// How long to wait for that.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration, requires = "wait")]
    pub(crate) timeout: Duration,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Logs {
    /// A type (web), an instance (web.1), or `host` for the host's own lines; all instances if none is given.
    #[arg(add = complete::log_targets())]
    pub(crate) target: Option<String>,
    /// Go on with what is written from now on.
    #[arg(short = 'f', long)]
    pub(crate) follow: bool,
    /// How many of the last lines to begin with [default: 100, or all with --since or --until]
    #[arg(short = 'n', long = "lines", value_name = "LINES", alias = "n")]
    pub(crate) lines: Option<usize>,
    /// Lines from this time on.
    #[arg(long, value_name = "TIME", value_parser = moment_before_now)]
    pub(crate) since: Option<Timestamp>,
    /// Lines up to this time.
    #[arg(long, value_name = "TIME", value_parser = moment_before_now, conflicts_with = "follow")]
    pub(crate) until: Option<Timestamp>,
    /// The host's own lines of this level, and worse ones.
    #[arg(long, value_name = "LEVEL")]
    pub(crate) level: Option<LogLevel>,
    /// Print JSON, one object a line.
    #[arg(long)]
    pub(crate) json: bool,
    /// The formation file, or a Procfile [env: WASMHOST_FILE] [default: formation.toml, else Procfile]
    #[arg(id = "file", short = 'F', long = "file", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Events {
    /// Events about this type alone.
    #[arg(long = "type", value_name = "TYPE", add = complete::types())]
    pub(crate) process: Option<String>,
    /// Events of this kind alone, or of several with commas between them.
    #[arg(
        long = "kind",
        value_name = "KIND",
        value_delimiter = ',',
        value_parser = PossibleValuesParser::new(EventKind::ALL.map(EventKind::name))
    )]
    pub(crate) kinds: Vec<String>,
    /// Begin behind the event with this id, as far as the host still has those that came after it.
    #[arg(long, value_name = "ID")]
    pub(crate) after: Option<u64>,
    /// Print JSON, one object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Dashboard {
    /// The port on 127.0.0.1 [default: any free one]
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    pub(crate) port: u16,
    /// Only print the link.
    #[arg(long)]
    pub(crate) no_open: bool,
    /// Print the link as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The levels of the host's own lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// As the admin API takes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

fn moment_before_now(text: &str) -> Result<Timestamp, String> {
    moment(text, Timestamp::now())
}
