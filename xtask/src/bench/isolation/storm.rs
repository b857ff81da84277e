//! Jobs of a good type, alone and beside another type that enqueues without end on a queue of its own.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Deserialize;
use tempfile::NamedTempFile;

use super::super::Bench;
use super::super::contender::wasmhost;
use super::super::process::Process;
use super::super::programs::Build;
use super::super::report::{Goal, Row, Section};
use super::super::server::{Server, Starting};
use super::super::spread::Spread;
use super::neighbours::Neighbour;

pub(super) const NAME: &str = "jobs";

const WORKER: &str = "bench/guests/out/worker.wasm";
const WORKERS: u32 = 16;

/// Connections that enqueue the good type's jobs.
const CLIENTS: u32 = 16;

const RATE: &str = "jobs_per_second";

/// The part of the line of JSON that clients print which is read.
#[derive(Deserialize)]
struct Enqueued {
    done: u64,
    seconds: f64,
    p50_ms: f64,
    p99_ms: f64,
}

pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let mut section = Section::new(NAME);
    for build in bench.programs.builds() {
        let (alone, beside) = names(*build);
        section.rows.extend([Row::new(alone, Some(CLIENTS)), Row::new(beside, Some(CLIENTS))]);
    }
    for _ in 0..bench.options.rounds {
        for (rows, build) in section.rows.chunks_mut(2).zip(bench.programs.builds()) {
            let [alone, beside] = rows else { continue };
            round(bench, *build, alone, beside)?;
        }
    }
    Ok(section)
}

pub(super) fn goals(section: &Section) -> Vec<Goal> {
    let (alone, beside) = names(Build::This);
    let of = |server: &str| section.samples(server, Some(CLIENTS), RATE);
    // Two types that want all of the store have half of it each, and 0.9 of that is promised.
    let ratio = Spread::of_ratios(of(&beside), of(&alone));
    vec![Goal::at_least(0.45, "jobs/s beside an enqueue storm / alone", ratio)]
}

fn names(build: Build) -> (String, String) {
    let name = build.name();
    (format!("{name}, alone"), format!("{name}, beside {}", Neighbour::EnqueueStorm.name()))
}

fn round(bench: &Bench, build: Build, alone: &mut Row, beside: &mut Row) -> Result<()> {
    let starting = Starting::new()?;
    std::fs::create_dir(starting.folder().join("out"))?;
    let component = serde_json::Value::from(bench.component(WORKER)?.to_string_lossy());
    let worker = format!(
        "[process.worker]\ncomponent = {component}\ncount = {WORKERS}\nqueue = \"default\"\n\
         dirs = [{{ host = \"out\", guest = \"/out\", access = \"write\" }}]\n"
    );
    let tables = format!("{worker}{}", Neighbour::EnqueueStorm.table(bench)?);
    let mut command = wasmhost(&bench.programs, build, &starting, "", &tables)?;
    // No route is its own: 404 says that it serves.
    let server = starting.run(&mut command, "/", Duration::from_millis(20))?;
    work(bench, &server, bench.options.seconds.min(2))?;
    add(alone, &work(bench, &server, bench.options.seconds)?);
    let _storm = Neighbour::EnqueueStorm.begin(&server)?;
    // The jobs that were enqueued alone are done by now; the storm has begun when its first request is read.
    std::thread::sleep(Duration::from_millis(300));
    add(beside, &work(bench, &server, bench.options.seconds)?);
    Ok(())
}

fn add(row: &mut Row, found: &Enqueued) {
    let rate = found.done as f64 / found.seconds;
    row.add(RATE, rate);
    row.add("enqueue_p50_ms", found.p50_ms);
    row.add("enqueue_p99_ms", found.p99_ms);
    eprintln!("{NAME} {}: {rate:.0} jobs/s, enqueue p99 {:.2} ms", row.server, found.p99_ms);
}

/// Enqueues jobs on the good type's queue for so long, and waits until they are done.
fn work(bench: &Bench, server: &Server, seconds: u64) -> Result<Enqueued> {
    let folder = server.folder();
    let printed = NamedTempFile::new()?;
    let mut command = std::process::Command::new(&bench.programs.jobs);
    command
        .arg("until-done")
        .arg(folder.join(".wasmhost/admin.sock"))
        .args([CLIENTS.to_string(), seconds.to_string()])
        .arg(folder.join(".wasmhost/store.db"))
        .arg("0")
        .stdout(Stdio::from(printed.reopen()?));
    let status = Process::start(&mut command)?.wait()?;
    ensure!(status.success(), "what enqueues jobs ended with {status}");
    Ok(serde_json::from_str(&std::fs::read_to_string(printed.path())?)?)
}
