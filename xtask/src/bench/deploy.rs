//! `bench deploy` measures how long a deploy takes: from the start of `wasmhost deploy` to the first answer of the new
//! version, and until it says that the release is live.
//!
//! The two versions differ in a word of their answer, which is replaced in the component's bytes.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Bench;
use super::client::body_of;
use super::contender::{COUNT, wasmhost, web};
use super::http::{GUEST, GUEST_ASYNC};
use super::process::Process;
use super::programs::Build;
use super::report::{Goal, Report, Row, Section};
use super::server::{Server, Starting};
use super::spread::Spread;

/// The words in the answers of the two versions. They are as long as each other, so that the component stays valid.
const WORDS: [&str; 2] = ["Hello, world!", "Hello, again!"];

/// The component's file in the formation's folder.
const FILE: &str = "web.wasm";

/// How often the host is asked which version answers: what is measured is at most this much too long.
const PAUSE: Duration = Duration::from_micros(500);

/// How long the new version may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(60);

const FIRST_ANSWER: &str = "first_answer_ms";
const LIVE: &str = "live_ms";
const SERVER: &str = "wasmhost";

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let mut sections = Vec::new();
    let mut not_measured = Vec::new();
    let cases = [("hello-0.2", GUEST), ("hello-0.3", GUEST_ASYNC)];
    for (name, component) in cases.into_iter().filter(|(name, _)| bench.options.has_case(name)) {
        match measure(bench, name, component) {
            Ok(row) => sections.push(Section { title: name.to_owned(), rows: vec![row] }),
            Err(err) => bench.leave_out(&mut not_measured, name.to_owned(), &err)?,
        }
    }
    let goals = sections.iter().map(|section| {
        let found = Spread::of(section.samples(SERVER, None, FIRST_ANSWER));
        let what = format!("{}: ms to the first answer of the new version", section.title);
        Goal::below(200.0, what, found)
    });
    let goals = goals.collect();
    let what = format!(
        "`wasmhost deploy` of another component, on a host with {COUNT} instances of one type: from the start of that command to \
         the first answer of the new version, asked for each 0.5 ms, and to the command's end, when all instances have moved. \
         {} deploys, to and fro between two versions that were compiled before.",
        bench.options.starts
    );
    Ok(bench.report("deploy", what, goals, sections, not_measured))
}

fn measure(bench: &Bench, case: &str, component: &str) -> Result<Row> {
    let versions = versions(&std::fs::read(bench.component(component)?)?)?;
    let starting = Starting::new()?;
    put(starting.folder(), &versions[0])?;
    let tables = web(Path::new(FILE), COUNT, "");
    let mut command = wasmhost(&bench.programs, Build::This, &starting, "", &tables)?;
    let cache = tempfile::tempdir()?;
    command.env("WASMHOST_CACHE_DIR", cache.path());
    let server = starting.run(&mut command, "/", Duration::from_millis(20))?;
    let mut row = Row::new(SERVER, None);
    // Once each, which compiles the other version.
    for version in [1, 0] {
        deploy(bench, &server, &versions, version)?;
    }
    for number in 1..=bench.options.starts {
        let version = usize::from(number % 2 == 1);
        let took = deploy(bench, &server, &versions, version)?;
        row.add(FIRST_ANSWER, took.first_answer.as_secs_f64() * 1000.0);
        row.add(LIVE, took.live.as_secs_f64() * 1000.0);
    }
    if let Some(spread) = Spread::of(row.samples(FIRST_ANSWER)) {
        eprintln!("{case}: the new version answers after {:.1} ms", spread.median);
    }
    Ok(row)
}

struct Took {
    first_answer: Duration,
    live: Duration,
}

fn deploy(bench: &Bench, server: &Server, versions: &[Vec<u8>; 2], version: usize) -> Result<Took> {
    let folder = server.admin().folder;
    put(folder, &versions[version])?;
    let mut command = Command::new(bench.programs.wasmhost(Build::This)?);
    command.arg("deploy").current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    let mut deploying = Process::start(&mut command)?;
    while !body_of(&server.address, "/")?.starts_with(WORDS[version].as_bytes()) {
        let ended = deploying.ended()?;
        ensure!(ended.is_none_or(|status| status.success()), "the deploy failed");
        ensure!(begun.elapsed() < ANSWER_MAX, "the new version doesn't answer within {ANSWER_MAX:?}");
        std::thread::sleep(PAUSE);
    }
    let first_answer = begun.elapsed();
    let status = deploying.wait()?;
    ensure!(status.success(), "the deploy failed: {status}");
    Ok(Took { first_answer, live: begun.elapsed() })
}

/// The component with each of the two words.
fn versions(component: &[u8]) -> Result<[Vec<u8>; 2]> {
    let [first, second] = WORDS;
    let at = component.windows(first.len()).position(|bytes| bytes == first.as_bytes());
    let at = at.with_context(|| format!("{first:?} is not in the component"))?;
    let mut other = component.to_vec();
    other[at..at + second.len()].copy_from_slice(second.as_bytes());
    Ok([component.to_vec(), other])
}

/// In one step, as a build does.
fn put(folder: &Path, component: &[u8]) -> Result<()> {
    let new = folder.join("being built");
    std::fs::write(&new, component)?;
    Ok(std::fs::rename(new, folder.join(FILE))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_versions_differ_in_one_word() {
        let [one, other] = versions(b"\0asm..Hello, world!\n..").unwrap();
        assert_eq!(one, b"\0asm..Hello, world!\n..");
        assert_eq!(other, b"\0asm..Hello, again!\n..");
        assert!(versions(b"\0asm").is_err());
    }
}
