//! `cargo xtask test` runs every check of the project, the quick ones first. The tests come last. Behind their runner's
//! summary stands only what was left out.
//!
//! A check whose tools aren't here is left out and named. So are the tests of guests in a language that this machine has
//! no tools for. Guests that can't be built although their tools are here fail the run, after all that doesn't need them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context, Result, bail};

use crate::fuzz::Fuzz;
use crate::guests::InOtherLanguage;
use crate::guests::tools::{Found, Version};
use crate::{bench, cargo, cargo_command, debian, fuzz, guests, links, prometheus, wit};

/// The Rust whose lints the project keeps. A newer one knows more of them, which aren't anybody's mistake.
const RUST: &str = env!("CARGO_PKG_RUST_VERSION");

/// How long each fuzz target runs, in seconds: from one beginning, so that a run is as good as another.
const FUZZ_SECONDS: u32 = 60;

/// How long the database of advisories may take to be fetched.
const FETCH_MAX: Duration = Duration::from_secs(120);

/// Runs all checks; the first that fails is the last.
pub(crate) fn run(repository: &Path) -> Result<()> {
    let mut checks = Checks {
        repository,
        started: Instant::now(),
        denies_warnings: denies_warnings(&Found::ask(Path::new(&cargo()), &["--version"])),
        with_nextest: is_installed("nextest"),
        prometheus: None,
        left_out: Vec::new(),
        failed: Vec::new(),
    };
    if !checks.denies_warnings {
        println!("== warnings of lints and documentation are shown and don't fail: this isn't Rust {RUST}");
    }
    checks.format()?;
    checks.step("links", || links::check(repository))?;
    checks.step("copies of interfaces", || wit::check(repository))?;
    checks.lints()?;
    checks.documentation()?;
    checks.dependencies()?;
    checks.programs_of_benchmarks()?;
    match Fuzz::here(repository) {
        Ok(fuzz) => {
            checks.fuzz_targets()?;
            checks.step("fuzzing", || fuzz.check(FUZZ_SECONDS))?;
        }
        Err(lacking) => checks.leave_out("fuzzing", &format!("{lacking:#}")),
    }
    checks.step("guests", || guests::build(repository, &guests::Which::Rust, false))?;
    guests::in_other_languages(repository).try_for_each(|language| checks.language(&language))?;
    match debian::install_until(has_postgres, &["postgresql"]) {
        Ok(()) => checks.ignored_test("test of the example with PostgreSQL", "database::postgres")?,
        Err(lacks) => checks.leave_out("tests with PostgreSQL", &format!("{lacks:#}")),
    }
    match prometheus::folder(repository) {
        Ok(folder) => checks.prometheus = Some(folder),
        Err(lacks) => checks.leave_out("tests with Prometheus", &format!("{lacks:#}")),
    }
    if let Err(lacks) = debian::install(&["tmux"], &["tmux"]) {
        checks.leave_out("tests with a terminal", &format!("{lacks:#}"));
    }
    if let Err(lacks) = debian::install(&["chromium", "chromedriver"], &["chromium", "chromium-driver"]) {
        checks.leave_out("tests with a browser", &format!("{lacks:#}"));
    }
    checks.tests()?;
    checks.close()
}

struct Checks<'a> {
    repository: &'a Path,
    started: Instant,
    denies_warnings: bool,
    with_nextest: bool,
    /// Where Prometheus is, if it is.
    prometheus: Option<PathBuf>,
    /// Checks that were left out, and why.
    left_out: Vec<String>,
    /// Failures that kept nothing else from being checked.
    failed: Vec<String>,
}

impl Checks<'_> {
    fn format(&mut self) -> Result<()> {
        if !is_installed("fmt") {
            self.leave_out("format", "rustfmt isn't installed: `rustup component add rustfmt`");
            return Ok(());
        }
        self.step("format", || {
            let guests = guests::cargo_folders().map(|folder| self.repository.join(folder));
            let native = self.repository.join(bench::NATIVE);
            let fuzz = self.repository.join(fuzz::FOLDER);
            [self.repository.to_path_buf(), native, fuzz].into_iter().chain(guests).try_for_each(|folder| {
                // All packages of a workspace. With `--all` it would also be those that guests depend on, over again.
                run_in(&folder, cargo_command().args(["fmt", "--check"]))
                    .context("`cargo fmt` there mends it")
            })
        })
    }

    fn lints(&mut self) -> Result<()> {
        if !is_installed("clippy") {
            self.leave_out("lints", "clippy isn't installed: `rustup component add clippy`");
            return Ok(());
        }
        self.step("lints", || {
            let mut clippy = cargo_command();
            clippy.args(["clippy", "--workspace", "--all-targets", "--locked"]).args(self.denied());
            run_in(self.repository, &mut clippy)
        })
    }

    fn documentation(&self) -> Result<()> {
        self.step("documentation", || {
            let mut doc = cargo_command();
            doc.args(["doc", "--workspace", "--features", "wasmhost-guest/async", "--no-deps", "--locked"]);
            if self.denies_warnings {
                doc.env("RUSTDOCFLAGS", "--deny warnings");
            }
            run_in(self.repository, &mut doc)
        })
    }

    /// The project's dependencies, and whether anything is known against it.
    fn dependencies(&mut self) -> Result<()> {
        if !is_installed("deny") {
            self.leave_out("dependencies and advisories", "cargo-deny isn't installed");
            return Ok(());
        }
        self.cargo("dependencies", "deny --locked check bans licenses sources")?;
        match fetches_advisories(self.repository) {
            true => self.cargo("advisories", "deny --locked check --disable-fetch advisories"),
            false => {
                let why = format!(
                    "the database of RustSec can't be fetched within {} s (`cargo deny fetch db`): is there a network?",
                    FETCH_MAX.as_secs()
                );
                self.leave_out("advisories", &why);
                Ok(())
            }
        }
    }

    fn programs_of_benchmarks(&self) -> Result<()> {
        self.step("what benchmarks compare with", || {
            let native = self.repository.join(bench::NATIVE);
            let build = |check: &str, after: &[&str]| {
                let mut command = cargo_command();
                command.args(check.split(' ')).args(["--locked", "--target-dir"]);
                command.arg(bench::target_folder(self.repository)).args(after);
                run_in(&native, &mut command)
            };
            if is_installed("clippy") {
                build("clippy --all-targets", self.denied())?;
            }
            build("test", &[])
        })
    }

    /// Those too that need the whole host, which are built for who asks for them.
    fn fuzz_targets(&self) -> Result<()> {
        self.step("fuzz targets", || {
            let (check, after) =
                if is_installed("clippy") { ("clippy", self.denied()) } else { ("check", &[][..]) };
            let mut command = cargo_command();
            command.args([check, "--all-features", "--locked", "--target-dir"]);
            command.arg(fuzz::target_folder(self.repository)).args(after);
            run_in(&self.repository.join(fuzz::FOLDER), &mut command)
        })
    }

    /// Arguments for clippy, behind all others.
    fn denied(&self) -> &'static [&'static str] {
        if self.denies_warnings { &["--", "--deny", "warnings"] } else { &[] }
    }

    /// The tests of guests in one language. They are ignored elsewhere, so that other tests need no tools of it.
    fn language(&mut self, language: &InOtherLanguage) -> Result<()> {
        let InOtherLanguage { name, is_slow, is_built } = *language;
        let tests = format!("tests of guests in {name}");
        if is_slow && !is_built {
            self.leave_out(&tests, "`cargo xtask guests --all` hasn't built them");
            return Ok(());
        }
        // The components that are there may be of older sources.
        let which = guests::Which::Named(vec![name.to_string()]);
        println!("== guests in {name}");
        match guests::try_build(self.repository, &which, false)?.pop() {
            None => {}
            Some(not_built) if not_built.lacks_tools() => {
                self.leave_out(&tests, &format!("{:#}", not_built.why));
                return Ok(());
            }
            Some(not_built) => {
                let failed = format!("guests in {name} could not be built: {:#}", not_built.why);
                println!("== {failed}");
                self.failed.push(failed);
                return Ok(());
            }
        }
        self.ignored_test(&tests, &format!("languages::{name}"))?;
        match is_slow {
            true => self.ignored_test(&format!("new projects in {name}"), &format!("new::{name}")),
            // Those are among the other tests.
            false => Ok(()),
        }
    }

    /// Runs a test that is ignored where nobody asks for it.
    fn ignored_test(&self, name: &str, test: &str) -> Result<()> {
        let test = match self.with_nextest {
            true => format!("nextest run --workspace --locked --run-ignored only -E test(={test})"),
            false => format!("test --workspace --test blackbox --locked -- --ignored --exact {test}"),
        };
        self.cargo(name, &test)
    }

    fn tests(&self) -> Result<()> {
        match self.with_nextest {
            true => {
                self.cargo("examples in the documentation", "test --workspace --doc --locked")?;
                self.last("tests", "nextest run --workspace --locked")
            }
            false => self.last("tests", "test --workspace --locked"),
        }
    }

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

    /// The same for the last one, after which nothing is printed.
    fn last(&self, name: &str, arguments: &str) -> Result<()> {
        println!("== {name} (all checks before took {:.1} s)", self.started.elapsed().as_secs_f64());
        let mut command = cargo_command();
        command.args(arguments.split(' '));
        if let Some(prometheus) = &self.prometheus {
            command.env(prometheus::VARIABLE, prometheus);
        }
        run_in(self.repository, &mut command).with_context(|| format!("the check \"{name}\" failed"))
    }

    fn leave_out(&mut self, what: &str, why: &str) {
        println!("== {what}: LEFT OUT: {why}");
        self.left_out.push(format!("{what}: {}", why.lines().next().unwrap_or_default()));
    }

    /// Repeats what nobody should overlook.
    fn close(self) -> Result<()> {
        for what in &self.left_out {
            println!("== left out: {what}");
        }
        if self.failed.is_empty() {
            return Ok(());
        }
        bail!("{}", self.failed.join("\n"))
    }
}

/// Whether this is the Rust whose lints the project keeps.
fn denies_warnings(cargo: &Found) -> bool {
    match (cargo, Version::first_in(RUST)) {
        (Found::Version(this), Some(kept)) => *this == kept,
        _ => false,
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

/// Fetches the database of advisories. False where that fails, or takes too long.
fn fetches_advisories(repository: &Path) -> bool {
    let mut fetch = cargo_command();
    fetch.args(["deny", "fetch", "db"]).current_dir(repository);
    let Ok(mut fetch) = fetch.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
        return false;
    };
    let begun = Instant::now();
    while begun.elapsed() < FETCH_MAX {
        match fetch.try_wait() {
            Ok(None) => std::thread::sleep(Duration::from_millis(100)),
            Ok(Some(status)) => return status.success(),
            Err(_) => break,
        }
    }
    let _ = fetch.kill();
    let _ = fetch.wait();
    false
}

/// Whether PostgreSQL's server is here, where the test looks for it.
fn has_postgres() -> bool {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    folders.iter().any(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
}

/// Whether cargo has this subcommand.
pub(crate) fn is_installed(subcommand: &str) -> bool {
    let mut version = cargo_command();
    version.args([subcommand, "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_rust_whose_lints_are_kept_denies_warnings() {
        let kept = Version::first_in(RUST).unwrap();
        assert!(denies_warnings(&Found::Version(kept)));
        assert!(!denies_warnings(&Found::Version(Version(kept.0, kept.1 + 1))));
        assert!(!denies_warnings(&Found::Unknown));
    }
}
