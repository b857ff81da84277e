//! Arguments of the verbs that work on a project's sources: `new`, `build`, `dev` and `componentize`.

use std::path::PathBuf;

use clap::Args;

use crate::complete;
use crate::new::{Kind, Language};

pub(crate) const NEW_HELP: &str = "\
Examples:
  wasmhost new shop --lang rust && cd shop && wasmhost dev
  wasmhost new mailer --lang typescript --type worker

The folder has a formation.toml that says how it is built, a README, a test and
what else the language wants. A tool that this machine lacks is named, with the
line that installs it.";

pub(crate) const BUILD_HELP: &str = "\
Examples:
  wasmhost build
  wasmhost build web --force

A type's sources are all files in the formation's folder but those that
.gitignore leaves out, that tools write (target, node_modules), and that guests
are granted. They are compared by what is in them. Types with the same command
are built together.";

pub(crate) const DEV_HELP: &str = "\
Example:
  wasmhost dev

It builds what has changed, runs the formation, and deploys each change without
dropping a request. A build that fails leaves the version before it up, and so
does a formation with errors. Ctrl-C drains and ends all.";

pub(crate) const COMPONENTIZE_HELP: &str = "\
Examples:
  wasmhost componentize core.wasm -o web.wasm
  wasmhost componentize core.wasm --wit wit --world web -o web.wasm

Compilers that build core modules for wasm32-wasip1 (clang, Go, Rust) write into
them which world they are for, where their bindings do; --wit and --world say it
where they don't.";

#[derive(Args)]
pub(crate) struct New {
    /// The folder to make; its name is the project's.
    #[arg(value_name = "NAME")]
    pub(crate) folder: PathBuf,
    /// The language.
    #[arg(short, long, value_name = "LANGUAGE")]
    pub(crate) lang: Language,
    /// The caller of the process: requests, jobs, or the time.
    #[arg(id = "type", short, long, value_name = "TYPE", default_value = "web")]
    pub(crate) kind: Kind,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Build {
    /// The types to build [default: all that have a `build`]
    #[arg(value_name = "TYPE", add = complete::types())]
    pub(crate) types: Vec<String>,
    /// Build also where the sources haven't changed.
    #[arg(long)]
    pub(crate) force: bool,
    /// Print JSON, one object for each type.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Dev {
    /// The formation file, or a Procfile [default: formation.toml, else Procfile]
    #[arg(id = "formation", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Componentize {
    /// The core module, a .wasm or .wat file.
    pub(crate) module: PathBuf,
    /// The component to write.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// A WIT file, or a folder of them, with the world that the module is for.
    #[arg(long, value_name = "PATH")]
    pub(crate) wit: Option<PathBuf>,
    /// The world's name [default: the only one there]
    #[arg(long, value_name = "WORLD", requires = "wit")]
    pub(crate) world: Option<String>,
}
