//! `cargo xtask bench` measures how fast wasmhost is beside other servers, on one machine and in one run. Each suite has a
//! file.
//!
//! Only ratios of one run count, since a shared machine drifts by half. So servers that are compared are measured in turn,
//! round after round, and each goal is a ratio of such neighbours where it can be.

mod client;
mod collector;
mod contender;
mod deploy;
mod first_minute;
mod http;
mod instances;
mod isolation;
mod jobs;
mod load;
pub(crate) mod machine;
mod memory;
mod overload;
mod process;
mod processor;
mod programs;
mod report;
mod server;
mod spread;
mod start;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;

use load::{Load, Request, Sample};
use machine::Machine;
use programs::Programs;
use report::{Goal, NotMeasured, Report, Section};
use server::Server;

/// A workspace of programs that are needed beside wasmhost, by its folder in the repository.
pub(crate) const NATIVE: &str = "bench/native";

/// Where it is built, and where figures go that aren't kept.
pub(crate) fn target_folder(repository: &Path) -> PathBuf {
    programs::target_folder(repository).join("bench")
}

/// A suite: things that are measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// Requests per second and latency: small answers, 1 MiB each way, computing, other languages
    Http,
    /// From a program's start to its first answer, with a cold and a warm cache
    Start,
    /// 1 -> 1,000 -> 10,000 live instances: time, memory each, and requests beside them
    Instances,
    /// From `wasmhost deploy` to the first answer of the new version
    Deploy,
    /// `new`, `dev` and edits: from a save to the new answer, in each language
    FirstMinute,
    /// A small guest beside guests in endless loops
    Isolation,
    /// Four times the requests that can be served
    Overload,
    /// Durable jobs beside BullMQ and Celery: throughput, the way to the handler, a million waiting, idling
    Jobs,
}

const ALL: [Suite; 8] = [
    Suite::Http,
    Suite::Start,
    Suite::Instances,
    Suite::Deploy,
    Suite::FirstMinute,
    Suite::Isolation,
    Suite::Overload,
    Suite::Jobs,
];

const HELP: &str = "\
Needs wrk (`apt-get install wrk`) and, to compare with, wasmtime 48 on the path or as WASMTIME=PATH;
`jobs` redis-server (`apt-get install redis-server`), npm and python3.
What is missing is left out, and the report says so. WASMHOST=PATH measures another wasmhost than
that of this repository. WASMHOST_BEFORE=PATH measures one more beside it, in the same rounds, and
adds the ratios (but for `deploy`, and `depth` of `jobs`). bench/README.md says how to read the figures.

Without a suite all are run with one short round each, to see that everything works. A suite that is
named, and neither shortened nor filtered, writes NAME.md and NAME.json into bench/results;
everything else goes to bench/results in the target folder.

Examples:
  cargo xtask bench http
  cargo xtask bench http --case hello --server wasmhost --rounds 3
  cargo xtask bench jobs --case work --rounds 1 --seconds 1
  cargo xtask bench --with workerd http start instances deploy first-minute isolation overload jobs";

/// Arguments of the chore.
#[derive(Args)]
#[command(after_help = HELP)]
pub(crate) struct Options {
    /// The suites to measure
    suites: Vec<Suite>,
    /// How often each is measured, in turn with the others [default: 5]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Seconds of each measurement [default: 4]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// How often `start` starts each server, `deploy` deploys, and `first-minute` edits [default: 20]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    starts: Option<u32>,
    /// Only cases whose name has one of these words in it, such as `hello` or `0.3`
    #[arg(long, alias = "only", value_name = "TEXT")]
    case: Vec<String>,
    /// Only servers whose name has one of these words in it, such as `wasmhost`
    #[arg(long, value_name = "TEXT")]
    server: Vec<String>,
    /// Fetches a program to compare with, by npm, into the target folder
    #[arg(long, value_name = "PROGRAM", value_parser = [programs::WORKERD])]
    with: Vec<String>,
}

/// How it is measured.
#[derive(Clone, Serialize)]
struct Settings {
    rounds: u32,
    /// The length of each measurement.
    seconds: u64,
    /// How often each server is started, in the suite that measures starts, and how many deploys there are in theirs.
    starts: u32,
    cases: Vec<String>,
    servers: Vec<String>,
    /// Whether the figures are worth keeping.
    complete: bool,
}

impl Settings {
    fn of(options: &Options) -> Settings {
        let quick = options.suites.is_empty();
        let shortened = quick
            || [
                options.rounds.is_some_and(|rounds| rounds < 5),
                options.starts.is_some_and(|starts| starts < 20),
            ]
            .contains(&true)
            || options.seconds.is_some_and(|seconds| seconds < 4);
        Settings {
            rounds: options.rounds.unwrap_or(if quick { 1 } else { 5 }),
            seconds: options.seconds.unwrap_or(if quick { 1 } else { 4 }),
            starts: options.starts.unwrap_or(if quick { 3 } else { 20 }),
            cases: options.case.clone(),
            servers: options.server.clone(),
            complete: !shortened
                && options.case.is_empty()
                && options.server.is_empty()
                && ["WASMHOST", programs::BEFORE].iter().all(|given| std::env::var_os(given).is_none()),
        }
    }

    fn has_case(&self, name: &str) -> bool {
        has_any(name, &self.cases)
    }

    fn has_server(&self, name: &str) -> bool {
        has_any(name, &self.servers)
    }
}

/// Whether a name has one of these in it, as whole words. Every name has, where nothing is asked for.
fn has_any(name: &str, texts: &[String]) -> bool {
    let is_edge = |next: Option<char>| !next.is_some_and(char::is_alphanumeric);
    let has = |text: &String| {
        name.match_indices(text.as_str()).any(|(at, _)| {
            is_edge(name[..at].chars().next_back()) && is_edge(name[at + text.len()..].chars().next())
        })
    };
    texts.is_empty() || texts.iter().any(has)
}

/// Everything that a suite needs.
struct Bench {
    repository: PathBuf,
    programs: Programs,
    load: Load,
    options: Settings,
}

fn build_guests(repository: &Path) -> Result<()> {
    crate::guests::build(repository, &crate::guests::Which::Rust, false)?;
    // Where those in C can't be built, each case with them says that its component is missing.
    let c = crate::guests::Which::Named(vec!["c".to_string()]);
    for not_built in crate::guests::try_build(repository, &c, false)? {
        eprintln!("{}: not built: {:#}", not_built.folder, not_built.why);
    }
    Ok(())
}

/// Measures, prints, and writes Markdown and JSON.
pub(crate) fn run(repository: &Path, options: &Options) -> Result<()> {
    process::end_all_on_interrupt()?;
    let load = Load::find()?;
    // That suite builds what it wants by itself.
    if options.suites != [Suite::FirstMinute] {
        build_guests(repository)?;
    }
    let bench = Bench {
        repository: repository.to_path_buf(),
        programs: Programs::get(repository, &options.with)?,
        load,
        options: Settings::of(options),
    };
    let folder = match bench.options.complete {
        true => repository.join("bench/results"),
        false => target_folder(repository).join("results"),
    };
    let suites = if options.suites.is_empty() { &ALL[..] } else { &options.suites };
    for suite in suites {
        let report = match suite {
            Suite::Http => http::run(&bench),
            Suite::Start => start::run(&bench),
            Suite::Instances => instances::run(&bench),
            Suite::Deploy => deploy::run(&bench),
            Suite::FirstMinute => first_minute::run(&bench),
            Suite::Isolation => isolation::run(&bench),
            Suite::Overload => overload::run(&bench),
            Suite::Jobs => jobs::run(&bench),
        }?;
        println!("{}", report.to_markdown());
        report.write(&folder)?;
    }
    println!("written to {}", folder.display());
    Ok(())
}

impl Bench {
    /// Loads a server for a moment; an error where it gives no answers.
    fn warm_up(&self, server: &Server, request: Request, connections: u32) -> Result<()> {
        let time = Duration::from_secs(self.options.seconds.min(2));
        let sample = self.load.run(&server.url(), request, connections, time)?;
        ensure!(sample.requests_per_second > 0.0, "no request was answered ({} failed)", sample.errors);
        Ok(())
    }

    fn measure(&self, server: &Server, request: Request, connections: u32) -> Result<Sample> {
        self.load.run(&server.url(), request, connections, Duration::from_secs(self.options.seconds))
    }

    /// How it is measured, in words.
    fn rounds(&self) -> String {
        let Settings { rounds, seconds, .. } = self.options;
        format!("{rounds} rounds of {seconds} s each, in turn, after a warm-up.")
    }

    /// Notes what was left out, unless that is because somebody wants this to stop.
    fn leave_out(
        &self,
        not_measured: &mut Vec<NotMeasured>,
        what: String,
        err: &anyhow::Error,
    ) -> Result<()> {
        process::go_on()?;
        let folder = format!("{}/", self.repository.display());
        let why = format!("{err:#}").replace(&folder, "");
        eprintln!("{what}: not measured: {why}");
        not_measured.push(NotMeasured { what, why });
        Ok(())
    }

    /// A component in the repository.
    fn component(&self, path: &str) -> Result<PathBuf> {
        let component = self.repository.join(path);
        ensure!(component.is_file(), "there is no {path}; `cargo xtask guests --all` makes it");
        Ok(component)
    }

    fn report(
        &self,
        name: &'static str,
        what: String,
        goals: Vec<Goal>,
        mut sections: Vec<Section>,
        not_measured: Vec<NotMeasured>,
    ) -> Report {
        let ratios: Vec<Section> = sections.iter().filter_map(Section::beside_before).collect();
        sections.extend(ratios);
        Report {
            name,
            what,
            machine: Machine::this(),
            versions: self.programs.versions(&self.repository),
            settings: self.options.clone(),
            goals,
            sections,
            not_measured,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_filter_everything_is_measured() {
        assert!(has_any("hello-0.2", &[]));
        assert!(has_any("hello-0.2", &["0.2".into(), "go".into()]));
        assert!(!has_any("hello-0.2", &["0.3".into()]));
    }

    #[test]
    fn a_filter_is_made_of_whole_words() {
        assert!(!has_any("typescript", &["c".into()]));
        assert!(has_any("c", &["c".into()]));
        assert!(has_any("wasmtime serve, reused", &["wasmtime serve".into()]));
    }
}
