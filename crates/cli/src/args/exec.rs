//! The command line of `exec`.

use std::time::Duration;

use clap::Args;

use super::{EnvFlag, time_limit};
use crate::complete;

pub(crate) const EXEC_HELP: &str = "\
Examples:
  wasmhost exec migrate
  wasmhost exec --timeout 10m migrate up --steps 1
  wasmhost exec console --env DEBUG=1 -- --verbose
  wasmhost exec migrate --from-file      as formation.toml says by now

The component has to export a `main`: wasi:cli/run, or `_start` of a core
module. It has the grants, the memory and the time limits of the type, and the
terminal, pipes and signals of this command. ARGS take the place of the type's
`args`; from the first that isn't an option on, or after `--`, all is the
program's.

It is run as the live release has it (without a host: the one that was live
last), with the component that was kept. --from-file, or a formation that was
never run, takes the formation file and the component that it names.

Jobs that it enqueues go to the host that runs the formation, or to the
formation's store if none does.

Exits with the program's own code; 134 if it trapped, 124 at its time limit,
130 or 143 if SIGINT or SIGTERM ended it. If it wasn't run: 2 (no such type,
or no `main`), 3, or 4 (the component is missing, or can't be loaded).";

#[derive(Args)]
pub(crate) struct Exec {
    /// The process type.
    #[arg(value_name = "TYPE", add = complete::types())]
    pub(crate) process: String,
    /// Another environment variable for it, with this value or with the one that it has here.
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<EnvFlag>,
    /// Run it as the formation file says by now, not as the live release has it.
    #[arg(long)]
    pub(crate) from_file: bool,
    /// How long it may take [default: the type's `timeout`, or no limit]
    #[arg(long, value_name = "DURATION", value_parser = time_limit)]
    pub(crate) timeout: Option<Duration>,
    /// Its arguments, in place of those in the formation.
    #[arg(trailing_var_arg = true, value_name = "ARGS")]
    pub(crate) args: Vec<String>,
}
