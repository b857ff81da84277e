//! The project's own chores: `cargo xtask --help` lists them. One module each. `xtask/start` builds and starts this.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a chore talks to the person who runs it")]

mod bench;
mod debian;
mod demo;
mod faults;
mod fuzz;
mod guests;
mod hostile;
mod links;
mod prometheus;
mod test;
mod wit;

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};
use guests::Which;

/// The project's own chores.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Builds everything and runs examples/shop until Ctrl-C
    Demo,
    /// Runs all checks: format, lints, documentation, links, dependencies, and the tests
    Test {
        /// In their place, 300 rounds of the tests in which hosts are killed and disks fail; writes bench/results/faults.md
        #[arg(long)]
        faults: bool,
    },
    /// Runs the hostile guests of tests/hostile beside good ones for an hour; writes bench/results/hostile.md
    Hostile {
        /// How long: 90s, 10m or 1h. The page of less than an hour goes to bench/results in the target folder
        #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = hostile::duration)]
        time: std::time::Duration,
    },
    /// Builds the guests of examples/, tests/guests/ and bench/guests/, those whose sources changed
    Guests {
        /// Those of these folders alone, such as `go` for examples/go [default: those in Rust and C]
        #[arg(value_name = "FOLDER")]
        folders: Vec<String>,
        /// Those too whose tools fill hundreds of megabytes: TypeScript, Python and Go
        #[arg(long, conflicts_with = "folders")]
        all: bool,
        /// Changed or not
        #[arg(long)]
        force: bool,
    },
    /// Makes inputs up for what reads foreign bytes, until one shows something wrong
    Fuzz(fuzz::Options),
    /// Measures speed beside other servers, and writes the figures to bench/results
    Bench(bench::Options),
}

fn main() -> ExitCode {
    if let Some(ended) = fuzz::counters::compile() {
        return ended;
    }
    match run(Arguments::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a backtrace, whatever RUST_BACKTRACE says: it is seldom a chore that is at fault.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> anyhow::Result<()> {
    let repository = repository();
    match chore {
        Chore::Demo => demo::run(&repository),
        Chore::Test { faults: false } => test::run(&repository),
        Chore::Test { faults: true } => faults::run(&repository),
        Chore::Hostile { time } => hostile::run(&repository, time),
        Chore::Guests { folders, all, force } => {
            let which = match (all, folders.is_empty()) {
                (true, _) => Which::All,
                (false, true) => Which::Quick,
                (false, false) => Which::Named(folders),
            };
            guests::build(&repository, &which, force)
        }
        Chore::Fuzz(options) => fuzz::run(&repository, &options),
        Chore::Bench(options) => bench::run(&repository, &options),
    }
}

/// The folder of the repository: the one that holds this package's. Cargo says where that is as it runs this; what was
/// compiled in may be another clone's, where two of them share a target folder.
fn repository() -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let package = PathBuf::from(package);
    package.parent().unwrap_or(&package).to_path_buf()
}

/// The cargo that runs this, so that every step uses one toolchain.
fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// A call of that cargo, without what it set for this package alone: build scripts that look at it (ring's does) would
/// otherwise run anew whenever a person calls cargo directly.
fn cargo_command() -> Command {
    let mut command = Command::new(cargo());
    for (name, _) in env::vars_os() {
        let own = ["CARGO_PKG_", "CARGO_MANIFEST_"];
        if name.to_str().is_some_and(|name| own.iter().any(|prefix| name.starts_with(prefix))) {
            command.env_remove(name);
        }
    }
    command
}
