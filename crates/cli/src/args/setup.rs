//! Arguments of the verbs that write files for a person: `import`, `export` and `init`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};
use wasmhost_config::name_problem;

pub(crate) const IMPORT_HELP: &str = "\
Example:
  wasmhost import Procfile --formation web=2,worker=3
  wasmhost run

A Procfile can be run as it is, too: `wasmhost run Procfile`. It can't say
routes, schedules, limits or grants other than variables: a formation.toml
can.";

pub(crate) const INIT_HELP: &str = "\
Example:
  cargo build --release --target wasm32-wasip2
  wasmhost init && wasmhost run";

pub(crate) const EXPORT_HELP: &str = "\
Examples:
  wasmhost export systemd /tmp/units
  wasmhost export procfile -o Procfile";

pub(crate) const SYSTEMD_HELP: &str = "\
Example:
  wasmhost export systemd /tmp/units --user shop
  sudo cp /tmp/units/* /etc/systemd/system/

Nothing but DIR is written to; what is printed says how to enable the units.";

pub(crate) const PROCFILE_HELP: &str = "\
Example:
  wasmhost export procfile -o Procfile

Keys that a Procfile can't say are named on standard error.";

#[derive(Args)]
pub(crate) struct Import {
    /// The Procfile [default: Procfile]
    #[arg(id = "procfile", value_name = "PROCFILE")]
    pub(crate) procfile: Option<PathBuf>,
    /// The file to write, in the Procfile's folder [default: formation.toml]; `-` prints it.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Counts, as Foreman takes them: `web=2,worker=3`, or `all=2`.
    #[arg(short = 'm', long, value_name = "TYPE=COUNT,...", value_delimiter = ',')]
    pub(crate) formation: Vec<Count>,
    /// Write over a file that is there.
    #[arg(long)]
    pub(crate) force: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Export {
    #[command(subcommand)]
    pub(crate) to: ExportTo,
}

#[derive(Subcommand)]
pub(crate) enum ExportTo {
    /// Write a service unit, and socket units for what it listens on.
    #[command(after_help = SYSTEMD_HELP)]
    Systemd(Systemd),
    /// Write a Procfile, as far as one can say what the formation says.
    #[command(after_help = PROCFILE_HELP)]
    Procfile(ToProcfile),
}

#[derive(Args)]
pub(crate) struct Systemd {
    /// The folder to write the units to.
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The units' name [default: the formation's]
    #[arg(long, value_name = "NAME", value_parser = unit_name)]
    pub(crate) name: Option<String>,
    /// The user that the host runs as [default: the owner of the formation's folder, or the units' name if that is root]
    #[arg(long, value_name = "USER", value_parser = user_name)]
    pub(crate) user: Option<String>,
    /// Where the sockets listen that the formation takes by `systemd` or `fd:NAME` [default: 127.0.0.1:8080]
    #[arg(long, value_name = "[NAME=]ADDRESS")]
    pub(crate) listen: Vec<String>,
    /// Write over units that are there.
    #[arg(long)]
    pub(crate) force: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct ToProcfile {
    /// The file to write; printed if it isn't given.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Write over a file that is there.
    #[arg(long)]
    pub(crate) force: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Init {
    /// The folder with the components [default: this one]
    #[arg(value_name = "FOLDER")]
    pub(crate) folder: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `web=2`, or `all=2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) name: String,
    pub(crate) count: u32,
}

impl FromStr for Count {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected TYPE=COUNT, such as web=2, with a count up to 100000";
        let (name, count) = text.trim().split_once('=').ok_or(EXPECTED)?;
        let is_number = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
        match count.parse() {
            Ok(count @ 0..=100_000) if is_number && name_problem(name).is_none() => {
                Ok(Count { name: name.to_owned(), count })
            }
            _ => Err(EXPECTED),
        }
    }
}

/// A name that needs no escape in a unit's name, a path, or a user's name.
fn unit_name(text: &str) -> Result<String, &'static str> {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.len() <= 100
        && text.chars().all(is_fit)
    {
        true => Ok(text.to_owned()),
        false => {
            Err("expected letters, digits, \"-\", \"_\" and \".\", a letter or digit first, at most 100")
        }
    }
}

/// As `useradd` takes them, or a number.
fn user_name(text: &str) -> Result<String, &'static str> {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text.len() <= 31
        && text.chars().all(is_fit)
    {
        true => Ok(text.to_owned()),
        false => Err("expected the name of a user: letters, digits, \"-\", \"_\" and \".\", at most 31"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_types_and_numbers() {
        assert_eq!("web=2".parse(), Ok(Count { name: "web".into(), count: 2 }));
        for wrong in ["web", "web=", "=2", "web=+2", "web=-1", "web=100001", "Web=1", "web=1=2"] {
            assert!(wrong.parse::<Count>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_need_no_escapes() {
        assert!(unit_name("shop-2.eu").is_ok() && user_name("_shop").is_ok() && user_name("1000").is_ok());
        for wrong in ["", "-shop", "a b", "a/b", "a%b", "a\nb", "ä"] {
            assert!(unit_name(wrong).is_err() && user_name(wrong).is_err(), "{wrong}");
        }
    }
}
