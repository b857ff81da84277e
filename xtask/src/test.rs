//! `cargo xtask test`: every check of the project, the quick ones first. The tests come last, and their runner's
//! own summary is the last that is printed.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{bench, cargo_command, guests, links};

/// Runs all checks; the first that fails is the last.
pub(crate) fn run(repository: &Path) -> Result<()> {
    let checks = Checks { repository, started: Instant::now() };
    checks.step("format", || {
        let guests = guests::cargo_folders().map(|folder| repository.join(folder));
        let native = repository.join(bench::NATIVE);
        [repository.to_path_buf(), native].into_iter().chain(guests).try_for_each(|folder| {
            // All packages of a workspace. With `--all` it would also be those that guests depend on, over again.
            run_in(&folder, cargo_command().args(["fmt", "--check"])).context("`cargo fmt` there mends it")
        })
    })?;
    checks.step("links", || links::check(repository))?;
    checks.cargo("lints", "clippy --workspace --all-targets --locked -- --deny warnings")?;
    checks.step("documentation", || {
        let mut doc = cargo_command();
        doc.args(["doc", "--workspace", "--features", "wasmhost-guest/async", "--no-deps", "--locked"])
            .env("RUSTDOCFLAGS", "--deny warnings");
        run_in(repository, &mut doc)
    })?;
    match is_installed("deny") {
        true => checks.cargo("dependencies", "deny --locked check bans licenses sources")?,
        false => println!("== dependencies: left out, since cargo-deny isn't installed"),
    }
    checks.step("what benchmarks compare with", || {
        let native = repository.join(bench::NATIVE);
        ["clippy --all-targets", "test"].into_iter().try_for_each(|check| {
            let mut command = cargo_command();
            command
                .args(check.split(' '))
                .args(["--locked", "--target-dir"])
                .arg(bench::target_folder(repository));
            if check != "test" {
                command.args(["--", "--deny", "warnings"]);
            }
            run_in(&native, &mut command)
        })
    })?;
    checks.step("guests", || guests::build(repository, &guests::Which::Quick, false))?;
    let with_nextest = is_installed("nextest");
    checks.languages(with_nextest)?;
    if with_nextest {
        checks.cargo("examples in the documentation", "test --workspace --doc --locked")?;
        checks.last("tests", "nextest run --workspace --locked")
    } else {
        checks.last("tests", "test --workspace --locked")
    }
}

struct Checks<'a> {
    repository: &'a Path,
    started: Instant,
}

impl Checks<'_> {
    /// Runs one check, under its name and followed by how long it took.
    fn step(&self, name: &str, check: impl FnOnce() -> Result<()>) -> Result<()> {
        println!("== {name}");
        let started = Instant::now();
        check().with_context(|| format!("the check \"{name}\" failed"))?;
        println!("== {name}: ok, {:.1} s", started.elapsed().as_secs_f64());
        Ok(())
    }

    fn cargo(&self, name: &str, arguments: &str) -> Result<()> {
        self.step(name, || run_in(self.repository, cargo_command().args(arguments.split(' '))))
    }

    /// The examples that are built only where someone asked for it have tests that are ignored elsewhere.
    fn languages(&self, with_nextest: bool) -> Result<()> {
        let (built, not_built): (Vec<_>, Vec<_>) =
            guests::slow(self.repository).partition(|(_, built)| *built);
        for (name, _) in built {
            // What is there may be of older sources.
            let which = guests::Which::Named(vec![name.to_string()]);
            self.step(&format!("guests in {name}"), || guests::build(self.repository, &which, false))?;
            let test = match with_nextest {
                true => format!("nextest run -p wasmhost --locked --run-ignored only languages::{name}"),
                false => format!("test -p wasmhost --test blackbox --locked -- --ignored languages::{name}"),
            };
            self.cargo(&format!("tests of guests in {name}"), &test)?;
        }
        for (name, _) in not_built {
            println!(
                "== tests of guests in {name}: left out, since `cargo xtask guests --all` hasn't built them"
            );
        }
        Ok(())
    }

    /// The same for the last one, after which nothing is printed.
    fn last(&self, name: &str, arguments: &str) -> Result<()> {
        println!("== {name} (all checks before took {:.1} s)", self.started.elapsed().as_secs_f64());
        run_in(self.repository, cargo_command().args(arguments.split(' ')))
            .with_context(|| format!("the check \"{name}\" failed"))
    }
}

fn run_in(folder: &Path, command: &mut Command) -> Result<()> {
    let status = command.current_dir(folder).status().context("cargo could not be started")?;
    if status.success() {
        return Ok(());
    }
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    bail!("`cargo {}` in {} ended with {status}", arguments.join(" "), folder.display())
}

/// Whether cargo has this subcommand.
pub(crate) fn is_installed(subcommand: &str) -> bool {
    let mut version = cargo_command();
    version.args([subcommand, "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}
