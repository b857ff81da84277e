//! What waiting costs: the processor time of a queue in which nothing happens.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::super::report::{NotMeasured, Row, Section};
use super::super::{Bench, process};
use super::peers::{Peers, Pool};
use super::redis::Keeps;
use super::{Running, System};

pub(super) const NAME: &str = "idle";

/// How much longer than other measurements this one is: idle programs wake every few seconds.
const LONGER: u64 = 5;

/// What Linux counts processor time in, for programs, on all that this project is built for.
const TICK: Duration = Duration::from_millis(10);

/// After the start, what is done once is done.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

pub(super) fn measure(bench: &Bench, peers: &Peers, not_measured: &mut Vec<NotMeasured>) -> Result<Section> {
    let mut section = Section::new(NAME);
    let systems =
        [System::WASMHOST, System::BullMq(Keeps::Always), System::Celery(Keeps::Always, Pool::Prefork)];
    for system in systems.into_iter().filter(|system| bench.options.has_server(&system.name())) {
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
    let (start, before) = (Instant::now(), used(running.as_ref())?);
    while start.elapsed() < time {
        process::go_on()?;
        std::thread::sleep(Duration::from_millis(100));
    }
    let used = used(running.as_ref())? - before;
    let percent = 100.0 * used.as_secs_f64() / start.elapsed().as_secs_f64();
    eprintln!("{NAME}: {}: {percent:.2}% of a core", system.name());
    row.add("processor_percent", percent);
    Ok(row)
}

/// Processor time of all that runs for it, and of what that has started.
fn used(running: &dyn Running) -> Result<Duration> {
    let all = processes()?;
    let ours = running.processes();
    let belongs = |id: i32| {
        // To the root, at most.
        let mut id = id;
        while let Some(process) = all.get(&id) {
            if ours.contains(&id) {
                return true;
            }
            id = process.parent;
        }
        false
    };
    let ticks: u64 = all.iter().filter(|(id, _)| belongs(**id)).map(|(_, process)| process.ticks).sum();
    Ok(TICK * u32::try_from(ticks).context("more than a year of processor time")?)
}

#[derive(Debug, PartialEq)]
struct Seen {
    parent: i32,
    /// Of processor time, in the kernel and outside.
    ticks: u64,
}

fn processes() -> Result<HashMap<i32, Seen>> {
    let mut all = HashMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may have ended since.
        if let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) {
            all.insert(id, parse(&stat).with_context(|| format!("/proc/{id}/stat"))?);
        }
    }
    Ok(all)
}

/// The second field is a name in brackets, which can have anything in it; the fourth is the parent, the 14th and the
/// 15th are the times (`man 5 proc_pid_stat`).
fn parse(stat: &str) -> Option<Seen> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Seen { parent: fields.get(1)?.parse().ok()?, ticks: number(14)? + number(15)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_parent_and_times() {
        let stat = "42 (a) b) S 7 42 42 0 -1 4194560 1 2 3 4 100 23 0 0 20 0 4 0 99 1 1";
        assert_eq!(parse(stat), Some(Seen { parent: 7, ticks: 123 }));
        assert_eq!(parse("42"), None);
    }

    #[test]
    fn this_process_is_among_them() {
        let id = i32::try_from(std::process::id()).unwrap();
        assert!(processes().unwrap().contains_key(&id));
    }
}
