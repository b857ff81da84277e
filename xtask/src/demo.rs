//! `cargo xtask demo`: examples/shop from a clean clone to a formation that serves, in one command.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};

use crate::{cargo_command, guests};

/// Relative to the repository, where the host is started.
const FORMATION: &str = "examples/shop/formation.toml";

/// What [`FORMATION`] listens on.
const SHOP: &str = "http://127.0.0.1:8080";

/// Builds what the shop needs, says how to try it, and becomes its host: Ctrl-C, other signals and the exit code are
/// the host's own.
pub(crate) fn run(repository: &Path) -> Result<()> {
    println!("building the guests");
    guests::build(repository, &guests::Which::Quick, false)?;
    println!("building wasmhost (the first time this takes a few minutes)");
    let wasmhost = build_host(repository)?;
    let shown = wasmhost.strip_prefix(repository).unwrap_or(&wasmhost).display();
    println!(
        "\nStarting {FORMATION}. Try it in another terminal, in the repository's folder:\n\n    \
         curl -i -d 'item=tea&quantity=2' {SHOP}/orders\n    \
         {shown} -f {FORMATION} ps\n    \
         {shown} -f {FORMATION} scale web=10 worker=4\n\n\
         Ctrl-C ends it.\n"
    );
    let failed = Command::new(&wasmhost).args(["run", FORMATION]).current_dir(repository).exec();
    Err(anyhow!(failed).context(format!("{shown} can't be started")))
}

/// Builds the `wasmhost` binary and says where it is: cargo puts it beside this program.
fn build_host(repository: &Path) -> Result<PathBuf> {
    let status = cargo_command()
        // With all packages wasmtime has the features that it has in the tests, and is compiled once for both.
        .args(["build", "--locked", "--workspace"])
        .current_dir(repository)
        .status()
        .context("cargo could not be started")?;
    ensure!(status.success(), "cargo could not build wasmhost");
    let this = env::current_exe().context("where this program is")?;
    Ok(this.with_file_name("wasmhost"))
}
