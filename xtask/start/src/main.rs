//! `cargo xtask`: builds the package `xtask` beside this one, whose dependencies take a while on a new machine, and
//! becomes it. This program depends on nothing, so that it speaks within a second of a clone.
//!
//! The chores are built with the features that all packages of the workspace ask for together. `cargo run --package xtask`
//! would choose features for `xtask` alone, and what it shares with the host would be compiled twice.

#![allow(clippy::print_stderr, reason = "it talks to the person who runs it")]

use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let error = match start() {
        Ok(ended) => return ended,
        Err(error) => error,
    };
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

/// Returns where the chores can't be built, or be started.
fn start() -> io::Result<ExitCode> {
    // Cargo says where this package is as it runs this. The path that was compiled in may be another clone's, where two
    // of them share a target folder.
    let this = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let xtask = Path::new(&this).parent().unwrap_or(Path::new(&this));
    let program = env::current_exe()?.with_file_name("xtask");
    if !program.exists() {
        eprintln!("building the project's chores (the first time this takes a minute or two)");
    }
    let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // In this directory, since a target folder may be given relative to it.
    build
        .args(["build", "--locked", "--workspace", "--bin", "xtask", "--manifest-path"])
        .arg(xtask.join("Cargo.toml"));
    // Build scripts that look at what cargo set for this package would run anew whenever a person calls cargo directly.
    for (name, _) in env::vars_os() {
        let own = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
        if name.to_str().is_some_and(|name| own.iter().any(|prefix| name.starts_with(prefix))) {
            build.env_remove(name);
        }
    }
    if !build.status()?.success() {
        eprintln!("error: the project's chores could not be built: see above");
        return Ok(ExitCode::FAILURE);
    }
    Err(Command::new(program).args(env::args_os().skip(1)).env("CARGO_MANIFEST_DIR", xtask).exec())
}
