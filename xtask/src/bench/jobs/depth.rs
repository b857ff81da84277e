//! A queue in which a million jobs wait, beside an empty one.

use anyhow::Result;

use super::super::Bench;
use super::super::programs::Build;
use super::super::report::{Goal, Row, Section};
use super::super::spread::Spread;
use super::host::{Host, Source};
use super::{CLIENTS, RATE, WORKERS, Work, add_done, run_clients};

pub(super) const NAME: &str = "depth";

/// Jobs that wait.
const DEPTH: u32 = 1_000_000;

const EMPTY: &str = "an empty queue";
const BEHIND: &str = "a million jobs wait behind those that come, by priority";
const BEFORE: &str = "a million jobs wait before those that come";

/// Both hosts run all the time, and have workers while they are measured.
pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let empty = Host::start(bench, Build::This, 0, Source::Admin)?;
    let deep = Host::start(bench, Build::This, 0, Source::Admin)?;
    let mut rows = [EMPTY, BEHIND, BEFORE].map(|name| Row::new(name, Some(CLIENTS)));
    let mut missing = DEPTH;
    for round in 0..=bench.options.rounds {
        // The first round is the warm-up.
        for (row, host, priority) in [(0, &empty, 0), (1, &deep, 1), (2, &deep, 0)] {
            if row == 1 {
                deep.fill(std::mem::take(&mut missing))?;
            }
            host.scale(WORKERS)?;
            let enqueued = run_clients(host, Work::UntilDone { priority }, CLIENTS, bench.options.seconds)?;
            host.scale(0)?;
            if row > 0 {
                // Workers have always something to do here, and more is done than comes.
                missing += u32::try_from(enqueued.done().saturating_sub(enqueued.jobs))?;
            }
            let row = &mut rows[row];
            if round > 0 {
                add_done(row, &enqueued)?;
            }
            eprintln!(
                "{NAME}, round {round}: {}: {:.0} jobs/s",
                row.server,
                enqueued.done() as f64 / enqueued.seconds.unwrap_or(f64::NAN)
            );
        }
    }
    Ok(Section { title: NAME.to_owned(), rows: rows.into() })
}

pub(super) fn goals(section: &Section) -> Vec<Goal> {
    let of = |name| section.samples(name, Some(CLIENTS), RATE);
    [BEHIND, BEFORE]
        .map(|deep| {
            let what = format!("{NAME}: jobs/s where {deep} / from {EMPTY}");
            Goal::at_least(0.9, what, Spread::of_ratios(of(deep), of(EMPTY)))
        })
        .into()
}
