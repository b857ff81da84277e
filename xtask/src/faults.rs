//! `cargo xtask test --faults` runs the tests in which hosts are killed (`tests/faults.rs`) and disks lose power, for as
//! many rounds as a person waits for, and writes a page on what it found.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tempfile::TempDir;

use crate::bench::machine::Machine;
use crate::{bench, cargo_command, guests, test};

const ROUNDS: u64 = 300;

/// Deploys, and kills in the middle of one: `tests/deploy_faults.rs`.
const DEPLOYS: u64 = 200;
const DEPLOYS_KILLED: u64 = 100;

/// Faults of three hosts with one PostgreSQL: `tests/hosts_faults.rs`.
const HOSTS: u64 = 50;

/// The figures that `tests/faults.rs` writes after every twenty rounds.
#[derive(Deserialize)]
struct Tally {
    seed: String,
    rounds: u64,
    acknowledged: u64,
    killed_in_start: u64,
    killed_in_running: u64,
    killed_in_committing: u64,
}

/// The figures that `tests/deploy_faults.rs` writes at its end.
#[derive(Deserialize)]
struct Deployed {
    deploys: u64,
    rollbacks: u64,
    scales: u64,
    broken: u64,
    answered: u64,
    jobs: u64,
    /// The host's holdings after the first ten deploys, and at the end.
    /// After so many deploys, in words.
    held: Vec<(usize, String)>,
}

pub(crate) fn run(repository: &Path) -> Result<()> {
    ensure!(
        test::is_installed("nextest"),
        "cargo-nextest is not installed: `cargo install cargo-nextest --locked`"
    );
    guests::build(repository, &guests::Which::Rust, false)?;
    let folder = TempDir::new()?;
    let written = folder.path().join("faults.json");
    let deployed = folder.path().join("deploys.json");
    let start = Instant::now();
    let mut command = cargo_command();
    command
        .args(["nextest", "run", "--workspace", "--locked", "-E", "test(/faults::/) | binary(power_cuts)"])
        .args(["--profile", "hours", "--no-fail-fast", "--success-output", "final"])
        .env("WASMHOST_FAULT_REPORT", &written)
        .env("WASMHOST_FAULT_DEPLOYS_REPORT", &deployed)
        .current_dir(repository);
    for (variable, rounds) in [
        ("WASMHOST_FAULT_ROUNDS", ROUNDS),
        ("WASMHOST_FAULT_DEPLOYS", DEPLOYS),
        ("WASMHOST_FAULT_KILLS", DEPLOYS_KILLED),
        ("WASMHOST_FAULT_HOSTS", HOSTS),
    ] {
        if std::env::var_os(variable).is_none() {
            command.env(variable, rounds.to_string());
        }
    }
    let passed = command.status().context("cargo could not be started")?.success();
    let minutes = start.elapsed().as_secs_f64() / 60.0;
    let tally = std::fs::read_to_string(&written).context("the test has not come to its first figures")?;
    let tally: Tally = serde_json::from_str(&tally)?;
    // There is none where that test has failed.
    let deployed = std::fs::read_to_string(&deployed).ok().and_then(|text| serde_json::from_str(&text).ok());
    // A shortened run says little, and isn't kept; what it found is.
    let kept = tally.rounds >= ROUNDS || !passed;
    let results =
        if kept { repository.join("bench") } else { bench::target_folder(repository) }.join("results");
    std::fs::create_dir_all(&results)?;
    let page = results.join("faults.md");
    std::fs::write(&page, tally.to_markdown(&version(repository), minutes, passed, deployed.as_ref()))
        .with_context(|| page.display().to_string())?;
    println!("written to {}", page.display());
    ensure!(passed, "something was found: see above");
    Ok(())
}

impl Tally {
    fn to_markdown(&self, version: &str, minutes: f64, passed: bool, deployed: Option<&Deployed>) -> String {
        let Tally { seed, rounds, acknowledged, killed_in_start, killed_in_running, killed_in_committing } =
            self;
        let found = match passed {
            true => {
                "nothing: each acknowledged job was there after each kill, was leased by no dead host once the next one \
                     was up, ran no attempt twice, and ended as it had to; the store's file was whole"
            }
            false => "**something**: the test has failed after these rounds, and its output says where",
        };
        format!(
            "# faults\n\n`cargo xtask test --faults`: `kill -9` of the host at random moments, again and again on one state \
             directory, a new one each twenty rounds (`tests/faults.rs`), and as many rounds in which a disk \
             loses power (`crates/store/tests/power_cuts`). The host is one that wasn't built for speed. \
             `WASMHOST_FAULT_SEED={seed} WASMHOST_FAULT_ROUNDS={rounds}` does the same again, as far as a seed can say.\n\n\
             | what | |\n| --- | --- |\n\
             | rounds | {rounds} |\n\
             | jobs acknowledged | {acknowledged} |\n\
             | kills in the first 80 ms of a start | {killed_in_start} |\n\
             | kills while jobs ran, failed and crashed | {killed_in_running} |\n\
             | kills while 32 clients enqueued | {killed_in_committing} |\n\
             | found | {found} |\n\
             | seed | {seed} |\n\
             | took | {minutes:.1} min |\n\
             | wasmhost | {version} |\n\
             | machine | {} |\n{}",
            Machine::this(),
            deployed.map(Deployed::to_markdown).unwrap_or_default()
        )
    }
}

impl Deployed {
    fn to_markdown(&self) -> String {
        let Deployed { deploys, rollbacks, scales, broken, answered, jobs, held } = self;
        let held: String =
            held.iter().map(|(made, held)| format!("| held after {made} deploys | {held} |\n")).collect();
        format!(
            "\n## Deploys\n\n`tests/deploy_faults.rs`: under the load of two web types and a stream of jobs, in random order. No \
             request failed, each answer was of the old or the new version, each job was done once. Beside it, {DEPLOYS_KILLED} \
             kills at a random moment of a deploy: each next start served one whole release.\n\n\
             | what | |\n| --- | --- |\n\
             | deploys between two versions | {deploys} |\n\
             | rollbacks | {rollbacks} |\n\
             | scales | {scales} |\n\
             | deploys that failed, in ten ways | {broken} |\n\
             | requests answered | {answered} |\n\
             | jobs done | {jobs} |\n\
             {held}"
        )
    }
}

/// The version of the sources, from which the tested host was built.
pub(crate) fn version(repository: &Path) -> String {
    let git = Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(repository).output();
    let commit = git.ok().filter(|git| git.status.success());
    let commit = commit.map(|git| format!(" ({})", String::from_utf8_lossy(&git.stdout).trim()));
    format!("{}{}", env!("CARGO_PKG_VERSION"), commit.unwrap_or_default())
}
