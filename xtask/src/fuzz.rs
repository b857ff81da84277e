//! `cargo xtask fuzz` makes inputs up for everything that reads foreign bytes, guided by which code they reach, and stops
//! where one shows something wrong. `fuzz/` is what it builds, with cargo-fuzz; `fuzz/src/lib.rs` says what must hold.
//!
//! Rust's sanitizers need a nightly toolchain and are left out: what is fuzzed is safe Rust, whose panics are what is
//! looked for.
//!
//! Targets that read texts are built in a minute. Those of `fuzz_targets/host/` have a whole host in them, with wasmtime
//! (`counters` keeps that from taking a quarter of an hour), and are built for those who ask for them.

pub(crate) mod counters;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::{bench, cargo_command, guests, test};

/// The folder of what is built, and of its corpora.
pub(crate) const FOLDER: &str = "fuzz";

/// One input may take this long, in seconds, on a machine that does something else too.
const INPUT_SECONDS_MAX: u32 = 60;

/// The memory of one fuzzer, in MiB.
const MEMORY_MIB_MAX: u32 = 4096;

/// How much of a failed run's output is shown, in lines.
const LINES_SHOWN: usize = 60;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The targets [default: those that read texts]
    targets: Vec<String>,
    /// All of them, those too that need the whole host
    #[arg(long, conflicts_with = "targets")]
    all: bool,
    /// How long to run each, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// How many inputs each gets at most
    #[arg(long)]
    inputs: Option<u64>,
    /// How many run at once [default: as many as there are processors]
    #[arg(long, short)]
    jobs: Option<usize>,
    /// Copies inputs that reach code which none of `fuzz/corpus` does into it
    #[arg(long)]
    keep: bool,
}

/// Runs the targets that a person asks for. The inputs that they learn are kept in the target folder, and begun with next time.
pub(crate) fn run(repository: &Path, options: &Options) -> Result<()> {
    let known = Known::of(repository)?;
    let targets = match (options.all, options.targets.is_empty()) {
        (true, _) => known.all(),
        (false, true) => known.texts.clone(),
        (false, false) => options.targets.clone(),
    };
    if let Some(target) = targets.iter().find(|target| !known.all().contains(target)) {
        bail!("there is no target `{target}`: there are {}", known.all().join(", "));
    }
    let (host, texts): (Vec<_>, Vec<_>) =
        targets.iter().map(String::as_str).partition(|target| known.host.iter().any(|host| host == target));
    let fuzz = Fuzz::here(repository)?;
    if !texts.is_empty() {
        fuzz.build_texts()?;
    }
    if !host.is_empty() {
        fuzz.build_host(&host)?;
    }
    let limits: Vec<String> = options.inputs.iter().map(|inputs| format!("-runs={inputs}")).collect();
    fuzz.all(&targets, options.jobs, &|target| {
        let learnt = fuzz.target.join("corpus").join(target);
        fuzz.one(target, &learnt, options.seconds, &limits)?;
        if options.keep { fuzz.keep(target, &learnt) } else { Ok(()) }
    })
}

/// Where all that is built for it goes, and what is learnt.
pub(crate) fn target_folder(repository: &Path) -> PathBuf {
    bench::target_folder(repository).with_file_name("fuzz")
}

/// The names of the targets.
struct Known {
    texts: Vec<String>,
    /// Those that need the whole host.
    host: Vec<String>,
}

impl Known {
    fn of(repository: &Path) -> Result<Known> {
        let folder = repository.join(FOLDER).join("fuzz_targets");
        Ok(Known { texts: names(&folder)?, host: names(&folder.join("host"))? })
    }

    fn all(&self) -> Vec<String> {
        [&self.texts[..], &self.host].concat()
    }
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for file in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let file = file?.path();
        if file.extension().is_some_and(|kind| kind == "rs") {
            names.push(file.file_stem().unwrap_or_default().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The targets, built.
pub(crate) struct Fuzz<'a> {
    repository: &'a Path,
    /// Where they are, with what they learn.
    target: PathBuf,
    programs: PathBuf,
    triple: String,
}

impl Fuzz<'_> {
    /// # Errors
    ///
    /// Nothing can be fuzzed on this machine.
    pub(crate) fn here(repository: &Path) -> Result<Fuzz<'_>> {
        let has = |compiler: &&str| {
            let mut version = Command::new(compiler);
            version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
            version.status().is_ok_and(|status| status.success())
        };
        ensure!(
            ["c++", "clang++", "g++"].iter().any(has),
            "libFuzzer needs a C++ compiler (Debian: `apt-get install g++`)"
        );
        let target = target_folder(repository);
        cargo_fuzz(&target)?;
        let triple = host_triple()?;
        Ok(Fuzz { repository, programs: target.join(&triple).join("release"), target, triple })
    }

    /// Runs each target that reads texts for a short time, from the same beginning each time.
    pub(crate) fn check(&self, seconds: u32) -> Result<()> {
        self.build_texts()?;
        self.all(&Known::of(self.repository)?.texts, None, &|target| {
            let learnt = tempfile::tempdir()?;
            self.one(target, learnt.path(), seconds, &["-seed=1".to_owned()])
        })
    }

    /// Builds those that read texts.
    fn build_texts(&self) -> Result<()> {
        self.build(&[])
    }

    /// Builds those that need the whole host, and the guests that they run.
    fn build_host(&self, targets: &[&str]) -> Result<()> {
        guests::build(self.repository, &guests::Which::Rust, false)?;
        targets.iter().try_for_each(|target| self.build(&["--features=host", target]))
    }

    fn build(&self, what: &[&str]) -> Result<()> {
        let mut build = cargo_fuzz(&self.target)?;
        build
            .args([
                "build",
                "--sanitizer",
                "none",
                "--fuzz-dir",
                FOLDER,
                "--target",
                &self.triple,
                "--target-dir",
            ])
            .arg(&self.target)
            .args(what)
            .current_dir(self.repository);
        counters::limit(&mut build)?;
        ensure!(build.status()?.success(), "the fuzz targets could not be built");
        Ok(())
    }

    /// Runs them, so many at once.
    fn all(
        &self,
        targets: &[String],
        jobs: Option<usize>,
        run: &(dyn Fn(&str) -> Result<()> + Sync),
    ) -> Result<()> {
        let jobs = jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
        let left = Mutex::new(targets.iter());
        let failed = Mutex::new(Vec::new());
        let next = || left.lock().unwrap_or_else(|lock| lock.into_inner()).next();
        thread::scope(|scope| {
            for _ in 0..jobs.max(1) {
                scope.spawn(|| {
                    while let Some(target) = next() {
                        if let Err(error) = run(target) {
                            failed.lock().unwrap_or_else(|lock| lock.into_inner()).push(format!("{error:#}"));
                        }
                    }
                });
            }
        });
        let failed = failed.into_inner().unwrap_or_else(|lock| lock.into_inner());
        ensure!(failed.is_empty(), "{}", failed.join("\n"));
        Ok(())
    }

    fn one(&self, target: &str, learnt: &Path, seconds: u32, others: &[String]) -> Result<()> {
        let artifacts = self.target.join("artifacts").join(target);
        let corpus = self.corpus(target);
        for folder in [learnt, &artifacts, &corpus] {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        let said = artifacts.join("output.txt");
        let output = File::create(&said)?;
        // A program that is stopped leaves its files behind.
        let temporary = tempfile::tempdir()?;
        let began = Instant::now();
        let status = Command::new(self.programs.join(target))
            .env("TMPDIR", temporary.path())
            .arg(learnt)
            .arg(&corpus)
            .args([format!("-max_total_time={seconds}"), format!("-timeout={INPUT_SECONDS_MAX}")])
            .args([format!("-rss_limit_mb={MEMORY_MIB_MAX}"), "-print_final_stats=1".to_owned()])
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .args(others)
            .stdout(Stdio::null())
            .stderr(output)
            .status()
            .with_context(|| format!("the fuzz target {target} could not be started"))?;
        let text = fs::read(&said).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        if !status.success() {
            let lines: Vec<&str> = text.lines().collect();
            let last = lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n");
            bail!(
                "{target}: an input shows something wrong ({status}); it is in {}, and belongs into {} once it is \
                 mended\n{last}",
                artifacts.display(),
                corpus.display()
            );
        }
        let inputs = text.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
        println!(
            "{target}: {} inputs in {:.0} s, nothing found",
            inputs.map_or("?", str::trim),
            began.elapsed().as_secs_f64()
        );
        Ok(())
    }

    /// The inputs that the repository keeps.
    fn corpus(&self, target: &str) -> PathBuf {
        self.repository.join(FOLDER).join("corpus").join(target)
    }

    fn keep(&self, target: &str, learnt: &Path) -> Result<()> {
        let temporary = tempfile::tempdir()?;
        let mut merge = Command::new(self.programs.join(target));
        merge
            .env("TMPDIR", temporary.path())
            .args(["-merge=1", "-use_counters=0", "-use_value_profile=0"])
            .arg(self.corpus(target))
            .arg(learnt);
        let status = merge.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        ensure!(status.success(), "{target}: what was learnt could not be kept ({status})");
        Ok(())
    }
}

/// cargo-fuzz, which is installed into the target folder where this machine doesn't have it.
fn cargo_fuzz(target: &Path) -> Result<Command> {
    if test::is_installed("fuzz") {
        let mut command = cargo_command();
        command.arg("fuzz");
        return Ok(command);
    }
    let tools = target.join("tools");
    let program = tools.join("bin/cargo-fuzz");
    if !program.exists() {
        println!("cargo-fuzz isn't installed: it is built into {}", tools.display());
        let mut install = cargo_command();
        install.args(["install", "--locked", "--quiet", "cargo-fuzz", "--root"]).arg(&tools);
        ensure!(install.status()?.success(), "cargo-fuzz could not be installed");
    }
    let mut command = Command::new(program);
    command.arg("fuzz");
    Ok(command)
}

fn host_triple() -> Result<String> {
    let said = Command::new("rustc").arg("-vV").output().context("rustc could not be started")?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let triple = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(triple.context("`rustc -vV` names no host")?.to_owned())
}
