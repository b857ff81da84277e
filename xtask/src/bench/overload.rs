//! `bench overload` sends four times the requests that all instances can serve, at their times, whether or not earlier ones
//! were answered.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tempfile::NamedTempFile;

use super::contender::{wasmhost, web};
use super::http::GUEST;
use super::load::Request;
use super::process::Process;
use super::programs::Build;
use super::report::{Goal, Report, Row, Section};
use super::server::{Server, Starting};
use super::spread::Spread;
use super::{Bench, process};

/// Instances, and the connections that keep them all busy.
const COUNT: u32 = 4;
const CONNECTIONS: u32 = 16;

/// How many times the peak's requests come.
const OVERLOAD: f64 = 4.0;

/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// A way that refusals come.
struct Case {
    name: &'static str,
    keys: &'static str,
    /// The longest that a refusal may take.
    queue_timeout: Duration,
}

const CASES: [Case; 2] = [
    Case { name: "defaults: the line is full (503)", keys: "", queue_timeout: Duration::from_secs(5) },
    Case {
        name: "a long line: waited too long (504)",
        keys: "backlog = 100_000\nqueue_timeout = \"500ms\"\n",
        queue_timeout: Duration::from_millis(500),
    },
];

/// The line that `paced` prints, of the requests that got an answer.
#[derive(Debug, Deserialize)]
struct Paced {
    answers: Vec<Answers>,
    /// Requests that got none.
    failed: u64,
    /// Requests for which there was no connection left to send them on.
    unsent: u64,
}

#[derive(Debug, Deserialize)]
struct Answers {
    status: u16,
    count: u64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let mut sections = Vec::new();
    let mut not_measured = Vec::new();
    let mut goals = Vec::new();
    for case in CASES.iter().filter(|case| bench.options.has_case(case.name)) {
        match measure(bench, case) {
            Ok(section) => {
                goals.extend(goals_of(case, &section));
                sections.push(section);
            }
            Err(err) => bench.leave_out(&mut not_measured, case.name.to_owned(), &err)?,
        }
    }
    let what = format!(
        "`compute` (about 1 ms each) with {COUNT} instances. The peak is what `wrk -c{CONNECTIONS}` gets; then {OVERLOAD} times as \
         many requests come, at even times, whether or not earlier ones were answered (`bench/native/src/bin/paced.rs`). What \
         sends them runs on the same machine. Times count from when a request was due. {}",
        bench.rounds()
    );
    Ok(bench.report("overload", what, goals, sections, not_measured))
}

const RATE: &str = "requests_per_second";
const REFUSED_P99: &str = "refusals_p99_ms";

fn goals_of(case: &Case, section: &Section) -> Vec<Goal> {
    let (peak, over) = names(Build::This);
    let peak = section.samples(&peak, None, RATE);
    let over = |figure| section.samples(&over, None, figure);
    let timeout_ms = case.queue_timeout.as_secs_f64() * 1000.0;
    let name = case.name;
    let served = Spread::of_ratios(over(RATE), peak);
    let grown = Spread::of_ratios(over("resident_mib_end"), over("resident_mib_middle"));
    let refused = format!("{name}: p99 of refusals, ms (queue_timeout is {timeout_ms:.0} ms)");
    let unanswered = Spread::of(over("unanswered_percent"));
    vec![
        Goal::at_least(0.9, format!("{name}: served / peak"), served),
        // The way to the client and back is no fault of the host's.
        Goal::below(timeout_ms + 100.0, refused, Spread::of(over(REFUSED_P99))),
        Goal::below(0.01, format!("{name}: requests without an answer, %"), unanswered),
        Goal::below(1.1, format!("{name}: memory at the end / in the middle"), grown),
    ]
}

fn names(build: Build) -> (String, String) {
    let name = build.name();
    (format!("{name}, at its peak"), format!("{name}, at {OVERLOAD} times the peak"))
}

fn measure(bench: &Bench, case: &Case) -> Result<Section> {
    let component = bench.component(GUEST)?;
    let rows_of = |build: &Build| {
        let (peak, over) = names(*build);
        (*build, [Row::new(peak, None), Row::new(over, None)])
    };
    let mut all: Vec<(Build, [Row; 2])> = bench.programs.builds().iter().map(rows_of).collect();
    for _ in 0..bench.options.rounds {
        for (build, [peak, over]) in &mut all {
            let server = start(bench, *build, &component, case)?;
            let request = Request::Get("/compute");
            bench.warm_up(&server, request, CONNECTIONS)?;
            let sample = bench.measure(&server, request, CONNECTIONS)?;
            peak.add_sample(&sample);
            peak.add("resident_mib_end", server.memory()?.resident_kib / 1024.0);
            // Long enough that a line that grows would show.
            let seconds = bench.options.seconds.max(2) * 2;
            overload(bench, &server, sample.requests_per_second * OVERLOAD, seconds, over)?;
        }
        all.rotate_left(1);
    }
    all.sort_by_key(|(build, _)| *build == Build::Before);
    Ok(Section { title: case.name.to_owned(), rows: all.into_iter().flat_map(|(_, rows)| rows).collect() })
}

fn start(bench: &Bench, build: Build, component: &Path, case: &Case) -> Result<Server> {
    let starting = Starting::new()?;
    let mut command = wasmhost(&bench.programs, build, &starting, "", &web(component, COUNT, case.keys))?;
    starting.run(&mut command, "/", Duration::from_millis(20))
}

fn overload(bench: &Bench, server: &Server, rate: f64, seconds: u64, row: &mut Row) -> Result<()> {
    let output = NamedTempFile::new()?;
    let mut command = Command::new(&bench.programs.paced);
    command
        .arg(format!("{}/compute", server.url()))
        .args([format!("{rate:.0}"), seconds.to_string()])
        .stdout(Stdio::from(output.reopen()?));
    let mut paced = Process::start(&mut command)?;
    let mut resident_mib = Vec::new();
    let status = loop {
        if let Some(status) = paced.ended()? {
            process::go_on()?;
            break status;
        }
        resident_mib.push(server.memory()?.resident_kib / 1024.0);
        std::thread::sleep(LOOK);
    };
    ensure!(status.success(), "paced failed");
    let text = std::fs::read_to_string(output.path())?;
    let paced: Paced = serde_json::from_str(&text).with_context(|| format!("paced printed {text}"))?;
    let sent: u64 = paced.answers.iter().map(|answers| answers.count).sum::<u64>() + paced.failed;
    row.add("offered_per_second", (sent + paced.unsent) as f64 / seconds as f64);
    for answers in &paced.answers {
        add_answers(row, answers, sent, seconds);
    }
    row.add("unanswered_percent", percent(paced.failed + paced.unsent, sent + paced.unsent));
    let middle = resident_mib.len() / 2;
    row.add("resident_mib_middle", resident_mib.get(middle).copied().unwrap_or(f64::NAN));
    row.add("resident_mib_end", resident_mib.last().copied().unwrap_or(f64::NAN));
    row.errors += paced.failed;
    Ok(())
}

fn add_answers(row: &mut Row, answers: &Answers, sent: u64, seconds: u64) {
    let Answers { status, count, p50_ms, p99_ms, max_ms } = *answers;
    eprintln!("  {status}: {count} answers, p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms, max {max_ms:.1} ms");
    match status {
        200 => {
            row.add(RATE, count as f64 / seconds as f64);
            row.add("p50_ms", p50_ms);
            row.add("p99_ms", p99_ms);
            row.add("max_ms", max_ms);
        }
        503 | 504 => {
            row.add(
                if status == 503 { "status_503_percent" } else { "status_504_percent" },
                percent(count, sent),
            );
            row.add("refusals_p50_ms", p50_ms);
            row.add(REFUSED_P99, p99_ms);
            row.add("refusals_max_ms", max_ms);
        }
        _ => row.errors += count,
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}
