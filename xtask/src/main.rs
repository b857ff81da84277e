//! The project's own chores: `cargo xtask --help` lists them. One module each.

#![allow(clippy::print_stdout, reason = "a chore talks to the person who runs it")]

mod guests;

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

/// The project's own chores.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Builds the guests of examples/ and tests/guests/, those whose sources changed
    Guests {
        /// Builds them all, changed or not
        #[arg(long)]
        force: bool,
    },
}

fn main() -> anyhow::Result<()> {
    let repository = repository();
    match Arguments::parse().chore {
        Chore::Guests { force } => guests::build(&repository, force),
    }
}

/// The folder of the repository: the one that holds this package's.
fn repository() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_path_buf()
}
