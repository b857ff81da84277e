//! The cost of waiting: the processor time of a queue in which nothing happens.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::super::report::{NotMeasured, Row, Section};
use super::super::{Bench, process, processor};
use super::System;
use super::peers::{Peers, Pool};
use super::redis::Keeps;

pub(super) const NAME: &str = "idle";

/// How much longer than other measurements this one is: idle programs wake every few seconds.
const LONGER: u64 = 5;

/// After the start, what is done once is done.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

pub(super) fn measure(bench: &Bench, peers: &Peers, not_measured: &mut Vec<NotMeasured>) -> Result<Section> {
    let mut section = Section::new(NAME);
    let ours = bench.programs.builds().iter().map(|build| System::of(*build));
    let others = [System::BullMq(Keeps::Always), System::Celery(Keeps::Always, Pool::Prefork)];
    let systems = ours.chain(others);
    for system in systems.filter(|system| bench.options.has_server(&system.name())) {
        match measure_one(bench, peers, system) {
            Ok(row) => section.rows.push(row),
            Err(err) => bench.leave_out(not_measured, format!("{NAME}: {}", system.name()), &err)?,
        }
    }
    Ok(section)
}

fn measure_one(bench: &Bench, peers: &Peers, system: System) -> Result<Row> {
    let mut row = Row::new(system.name(), None);
    let running = system.start(bench, peers, true)?;
    std::thread::sleep(SETTLED_AFTER);
    // Once: it is long, and a share of a percent needs no ratio.
    let time = Duration::from_secs(bench.options.seconds * LONGER);
    let (start, before) = (Instant::now(), processor::used(&running.processes())?);
    while start.elapsed() < time {
        process::go_on()?;
        std::thread::sleep(Duration::from_millis(100));
    }
    let used = processor::used(&running.processes())? - before;
    let percent = 100.0 * used.as_secs_f64() / start.elapsed().as_secs_f64();
    eprintln!("{NAME}: {}: {percent:.2}% of a core", system.name());
    row.add("processor_percent", percent);
    Ok(row)
}
