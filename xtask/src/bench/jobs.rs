//! `bench jobs` measures durable jobs. A client is told when each is safe, and a worker that has nothing to do does it.
//! Beside wasmhost stand other queues on Redis, with workers and clients in their own languages.
//!
//! Each queue is started for each measurement, alone and empty, and warmed up. Workers that wait look at their queues, and
//! would take from the others' time.

mod cpu;
mod depth;
mod host;
mod peers;
mod redis;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tempfile::NamedTempFile;

use super::Bench;
use super::process::{self, Process};
use super::programs::Build;
use super::report::{Goal, NotMeasured, Report, Row, Section};
use super::spread::Spread;
use peers::Peers;

/// The figure that goals are about.
const RATE: &str = "jobs_per_second";

/// Worker instances, where nothing else is said; also what a peer's worker runs at once, where its pool allows it.
const WORKERS: u32 = 16;

/// Connections that enqueue, where nothing else is said: enough that no worker waits.
const CLIENTS: u32 = 64;

/// Jobs a second, in even steps, for the time from enqueueing to the start of the handler.
const PACE: u32 = 1_000;

/// How long the last jobs may take to come to their handlers.
const LAST_JOBS_MAX: Duration = Duration::from_secs(30);

/// The work of the clients.
#[derive(Clone, Copy)]
enum Work {
    /// Each enqueues one job after the other, and waits while more than enough are outstanding; then until all are done.
    UntilDone { priority: i16 },
    /// The same, while nobody works.
    Enqueue,
    /// Jobs come at even times.
    Pace,
}

/// Who is compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum System {
    Wasmhost {
        build: Build,
        instances: u32,
        by: host::Source,
    },
    /// BullMQ: one Node.js process that runs [`WORKERS`] jobs at once.
    BullMq(redis::Keeps),
    Celery(redis::Keeps, peers::Pool),
}

/// A system that runs until this is dropped.
trait Running {
    /// A program that does this work for it, and prints what [`Enqueued`] reads.
    fn client(&self, work: Work, clients: u32, seconds: u64) -> Result<Command>;

    /// Where workers note when jobs were sent and came, in files of any names.
    fn notes(&self) -> &Path;

    /// All that runs for it.
    fn processes(&self) -> Vec<i32>;
}

/// A system under some work: a row of a table.
struct Contest {
    system: System,
    clients: u32,
    row: Row,
}

/// The line of JSON that clients print.
#[derive(Debug, Deserialize)]
struct Enqueued {
    jobs: u64,
    /// In which they were enqueued.
    enqueue_seconds: f64,
    /// In which at least as many were done.
    seconds: Option<f64>,
    /// How many were done in them, those included that had waited there before; as many where it isn't said.
    #[serde(default)]
    done: Option<u64>,
    /// How many were outstanding, on average, while more came.
    outstanding: Option<f64>,
    /// How long a client waited for an answer.
    p50_ms: f64,
    p99_ms: f64,
}

impl System {
    const WASMHOST: System = System::of(Build::This);

    const fn of(build: Build) -> System {
        System::Wasmhost { build, instances: WORKERS, by: host::Source::Admin }
    }

    /// The same of another wasmhost; itself, where it is none.
    fn by(self, build: Build) -> System {
        match self {
            System::Wasmhost { instances, by, .. } => System::Wasmhost { build, instances, by },
            other => other,
        }
    }

    fn name(self) -> String {
        match self {
            System::Wasmhost { build, instances, by: host::Source::Admin } => {
                format!("{}, {instances} instances", build.name())
            }
            System::Wasmhost { build, instances, by: host::Source::Guest } => {
                format!("{}, {instances} instances, jobs from a guest", build.name())
            }
            System::BullMq(keeps) => format!("BullMQ, {}", keeps.name()),
            System::Celery(keeps, pool) => format!("Celery {}, {}", pool.name(), keeps.name()),
        }
    }

    /// Starts it with an empty queue; without workers where nobody is to work.
    fn start(self, bench: &Bench, peers: &Peers, with_workers: bool) -> Result<Box<dyn Running>> {
        Ok(match self {
            System::Wasmhost { build, instances, by } => {
                Box::new(host::Host::start(bench, build, if with_workers { instances } else { 0 }, by)?)
            }
            System::BullMq(keeps) => Box::new(peers.bullmq(keeps, with_workers)?),
            System::Celery(keeps, pool) => Box::new(peers.celery(keeps, pool, with_workers)?),
        })
    }
}

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let peers = Peers::get(bench)?;
    let mut not_measured = Vec::new();
    let mut sections = Vec::new();
    for (name, contests, work) in cases() {
        if bench.options.has_case(name) {
            let contests = with_those_before(contests, bench);
            sections.push(measure(bench, &peers, name, contests, work, &mut not_measured)?);
        }
    }
    if bench.options.has_case(depth::NAME) {
        match depth::measure(bench) {
            Ok(section) => sections.push(section),
            Err(err) => bench.leave_out(&mut not_measured, depth::NAME.to_owned(), &err)?,
        }
    }
    if bench.options.has_case(cpu::NAME) {
        sections.push(cpu::measure(bench, &peers, &mut not_measured)?);
    }
    let goals = goals(&sections);
    let what = format!(
        "Jobs with nothing to do, one for each request of a client, which waits until it is safe. `connections` are clients: \
         kept connections to the admin API's unix socket (`bench/native/src/bin/jobs.rs`), or to a guest that enqueues; calls \
         under way in one Node.js process; threads in up to four Python processes. jobs/s: from the first enqueue to the last \
         answer of a worker, in the store. Clients wait while more than 1,000 jobs are outstanding; `outstanding` is their \
         mean, and says that workers had something to do. start: from when a job was due to be sent, {PACE} a second, to its \
         handler's first line. Redis keeps its file in the same file system as the host; \"fsync always\" is \
         `--appendonly yes --appendfsync always`, which promises what the host does; \"defaults\" loses the last minutes of \
         jobs with the machine. {}",
        bench.rounds()
    );
    let mut report = bench.report("jobs", what, goals, sections, not_measured);
    report.versions.extend(peers.versions());
    Ok(report)
}

const WORK: &str = "work";
const BESIDE: &str = "beside others";
const START: &str = "start";
const ENQUEUE: &str = "enqueue";

fn cases() -> [(&'static str, Vec<Contest>, Work); 4] {
    use host::Source::{Admin, Guest};
    use peers::Pool::{Prefork, Threads};
    use redis::Keeps::{Always, Defaults};
    let contest =
        |system: System, clients| Contest { system, clients, row: Row::new(system.name(), Some(clients)) };
    let instances =
        |instances, clients| contest(System::Wasmhost { build: Build::This, instances, by: Admin }, clients);
    let others = [
        System::BullMq(Always),
        System::BullMq(Defaults),
        System::Celery(Always, Prefork),
        System::Celery(Defaults, Prefork),
    ];
    let mut work: Vec<_> = [1, 4, 16, 64].map(|count| instances(count, CLIENTS)).into();
    work.extend([1, 16, 128].map(|clients| instances(WORKERS, clients)));
    work.push(contest(System::Wasmhost { build: Build::This, instances: WORKERS, by: Guest }, CLIENTS));
    let mut beside = vec![contest(System::WASMHOST, CLIENTS)];
    beside.extend(others.map(|system| contest(system, CLIENTS)));
    beside.push(contest(System::Celery(Always, Threads), CLIENTS));
    let mut start = vec![contest(System::WASMHOST, 16)];
    start.extend(others.map(|system| contest(system, 16)));
    let mut enqueue = Vec::new();
    for clients in [1, 16, 128] {
        enqueue.push(contest(System::WASMHOST, clients));
        enqueue.extend(others.map(|system| contest(system, clients)));
    }
    [
        (WORK, work, Work::UntilDone { priority: 0 }),
        (BESIDE, beside, Work::UntilDone { priority: 0 }),
        (START, start, Work::Pace),
        (ENQUEUE, enqueue, Work::Enqueue),
    ]
}

/// Each of ours by each wasmhost that there is.
fn with_those_before(contests: Vec<Contest>, bench: &Bench) -> Vec<Contest> {
    let builds = bench.programs.builds();
    let of_each = |contest: Contest| {
        let builds = if matches!(contest.system, System::Wasmhost { .. }) { builds } else { &builds[..1] };
        builds.iter().map(move |build| {
            let system = contest.system.by(*build);
            Contest { system, clients: contest.clients, row: Row::new(system.name(), Some(contest.clients)) }
        })
    };
    contests.into_iter().flat_map(of_each).collect()
}

fn measure(
    bench: &Bench,
    peers: &Peers,
    case: &str,
    contests: Vec<Contest>,
    work: Work,
    not_measured: &mut Vec<NotMeasured>,
) -> Result<Section> {
    let mut contests: Vec<_> =
        contests.into_iter().filter(|contest| bench.options.has_server(&contest.system.name())).collect();
    let order: Vec<_> = contests.iter().map(|contest| (contest.system, contest.clients)).collect();
    for round in 0..bench.options.rounds {
        let mut failed = Vec::new();
        for (index, contest) in contests.iter_mut().enumerate() {
            if let Err(err) = contest.measure(bench, peers, case, work) {
                let what = format!("{case}: {}, {} clients", contest.system.name(), contest.clients);
                bench.leave_out(not_measured, format!("{what}, from round {} on", round + 1), &err)?;
                failed.push(index);
            }
        }
        for index in failed.into_iter().rev() {
            contests.remove(index);
        }
        // Nobody always comes first.
        if !contests.is_empty() {
            contests.rotate_left(1);
        }
    }
    contests.sort_by_key(|contest| {
        order.iter().position(|(system, clients)| (*system, *clients) == (contest.system, contest.clients))
    });
    Ok(Section { title: case.to_owned(), rows: contests.into_iter().map(|contest| contest.row).collect() })
}

impl Contest {
    fn measure(&mut self, bench: &Bench, peers: &Peers, case: &str, work: Work) -> Result<()> {
        let Contest { system, clients, row } = self;
        let running = system.start(bench, peers, !matches!(work, Work::Enqueue))?;
        let seconds = bench.options.seconds;
        run_clients(running.as_ref(), work, *clients, seconds.min(2))?;
        let start = SystemTime::now();
        let enqueued = run_clients(running.as_ref(), work, *clients, seconds)?;
        let name = system.name();
        match work {
            Work::UntilDone { .. } => add_done(row, &enqueued)?,
            Work::Enqueue => row.add(RATE, enqueued.jobs as f64 / enqueued.enqueue_seconds),
            Work::Pace => {
                row.add("sent_per_second", enqueued.jobs as f64 / enqueued.enqueue_seconds);
                let took = start_times(running.notes(), start, enqueued.jobs)?;
                row.add("start_p50_ms", percentile(&took, 50));
                row.add("start_p99_ms", percentile(&took, 99));
            }
        }
        row.add("enqueue_p50_ms", enqueued.p50_ms);
        row.add("enqueue_p99_ms", enqueued.p99_ms);
        let said: Vec<_> = row
            .figures
            .iter()
            .map(|figure| {
                format!("{} {:.2}", figure.name, figure.samples.last().copied().unwrap_or(f64::NAN))
            })
            .collect();
        eprintln!("{case}: {name}, {clients} clients: {}", said.join(", "));
        Ok(())
    }
}

impl Enqueued {
    fn done(&self) -> u64 {
        self.done.unwrap_or(self.jobs)
    }
}

fn add_done(row: &mut Row, enqueued: &Enqueued) -> Result<()> {
    let seconds = enqueued.seconds.context("the clients don't say how long it took until all was done")?;
    row.add(RATE, enqueued.done() as f64 / seconds);
    row.add("outstanding", enqueued.outstanding.unwrap_or(f64::NAN));
    Ok(())
}

/// Has clients do their work, and reads what they print.
fn run_clients(running: &dyn Running, work: Work, clients: u32, seconds: u64) -> Result<Enqueued> {
    let printed = NamedTempFile::new()?;
    let mut command = running.client(work, clients, seconds)?;
    command.stdout(Stdio::from(printed.reopen()?));
    let status = Process::start(&mut command)?.wait()?;
    ensure!(status.success(), "what enqueues jobs ended with {status}");
    let text = std::fs::read_to_string(printed.path())?;
    serde_json::from_str(&text).with_context(|| format!("what enqueues jobs printed {text:?}"))
}

/// Milliseconds from when each job was sent to when it came, sorted: of those sent since `start`, once there are as many.
fn start_times(notes: &Path, start: SystemTime, jobs: u64) -> Result<Vec<f64>> {
    let start_us = start.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as f64;
    let until = Instant::now() + LAST_JOBS_MAX;
    loop {
        let mut took = Vec::new();
        for file in std::fs::read_dir(notes).with_context(|| notes.display().to_string())? {
            let text = std::fs::read_to_string(file?.path())?;
            // The last line may be half written.
            for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
                let (sent, came) = line.trim().split_once(' ').context("a note that isn't two times")?;
                let (sent, came): (f64, f64) = (sent.parse()?, came.parse()?);
                if sent >= start_us {
                    took.push((came - sent) / 1000.0);
                }
            }
        }
        if took.len() as u64 >= jobs {
            took.sort_by(f64::total_cmp);
            return Ok(took);
        }
        process::go_on()?;
        ensure!(Instant::now() < until, "only {} of {jobs} jobs came to a worker", took.len());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn percentile(sorted: &[f64], of_100: usize) -> f64 {
    let index = (sorted.len() * of_100 / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

fn goals(sections: &[Section]) -> Vec<Goal> {
    use peers::Pool::Prefork;
    use redis::Keeps::{Always, Defaults};
    let of = |case: &str, system: System, clients, figure| {
        let section = sections.iter().find(|section| section.title == case);
        section.map_or(&[][..], |section| section.samples(&system.name(), Some(clients), figure))
    };
    let host = System::WASMHOST;
    let mut goals = Vec::new();
    let has = |case: &str| sections.iter().any(|section| section.title == case);
    if has(WORK) {
        let what = format!("jobs/s by {WORKERS} instances");
        goals.push(Goal::at_least(10_000.0, what, Spread::of(of(WORK, host, CLIENTS, RATE))));
    }
    for (case, clients) in [(BESIDE, CLIENTS), (ENQUEUE, 1), (ENQUEUE, 128)] {
        for other in [System::BullMq(Always), System::BullMq(Defaults), System::Celery(Always, Prefork)] {
            if has(case) {
                let found = Spread::of_ratios(of(case, host, clients, RATE), of(case, other, clients, RATE));
                let what = format!("{case}, {clients} clients: jobs/s of {} / {}", host.name(), other.name());
                // Who doesn't wait for the disk promises less.
                let goal = Goal::at_least(1.0, what, found);
                goals.push(if other == System::BullMq(Defaults) { goal.only_aimed_at() } else { goal });
            }
        }
    }
    if has(START) {
        let p99 = |system| of(START, system, 16, "start_p99_ms");
        let found = Spread::of_ratios(p99(host), p99(System::BullMq(Always)));
        let what = format!("{START}: p99 of {} / {}", host.name(), System::BullMq(Always).name());
        goals.push(Goal::below(1.0, what, found));
    }
    goals.extend(sections.iter().filter(|section| section.title == depth::NAME).flat_map(depth::goals));
    goals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_jobs_that_were_sent_since() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), "1000000 1001000\n3000000 3004000\n30000").unwrap();
        std::fs::write(folder.path().join("b"), "2000000 2002000\n").unwrap();
        let start = UNIX_EPOCH + Duration::from_secs(2);
        assert_eq!(start_times(folder.path(), start, 2).unwrap(), [2.0, 4.0]);
    }

    #[test]
    fn a_percentile_is_one_of_the_times() {
        let times: Vec<f64> = (0..100).map(f64::from).collect();
        assert_eq!((percentile(&times, 50), percentile(&times, 99)), (50.0, 99.0));
        assert_eq!(percentile(&[7.0], 99), 7.0);
    }
}
