//! Medians, spreads and ratios, as Markdown for people and JSON for programs.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::Options;
use super::load::Sample;
use super::machine::Machine;

/// One server at one number of connections.
#[derive(Serialize)]
pub(crate) struct Measured {
    server: String,
    connections: u32,
    pub(crate) samples: Vec<Sample>,
}

/// A whole run.
#[derive(Serialize)]
pub(crate) struct Report {
    name: &'static str,
    what: &'static str,
    machine: Machine,
    rounds: u32,
    seconds: u64,
    measured: Vec<Measured>,
}

impl Measured {
    pub(crate) fn new(server: &str, connections: u32) -> Measured {
        Measured { server: server.to_owned(), connections, samples: vec![] }
    }

    fn of(&self, value: impl Fn(&Sample) -> f64) -> Spread {
        let mut values: Vec<f64> = self.samples.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            1 => at(middle),
            _ => (at(middle.saturating_sub(1)) + at(middle)) / 2.0,
        };
        Spread { min: at(0), median, max: at(values.len().saturating_sub(1)) }
    }
}

struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Report {
    pub(crate) fn new(
        name: &'static str,
        what: &'static str,
        options: &Options,
        measured: Vec<Measured>,
    ) -> Report {
        Report {
            name,
            what,
            machine: Machine::this(),
            rounds: options.rounds,
            seconds: options.seconds,
            measured,
        }
    }

    pub(crate) fn to_markdown(&self) -> String {
        let mut text = format!(
            "# {}\n\n{}; {} rounds of {} s, alternating, after a warm-up. The load is `wrk -t1` on the same machine.\n\nMeasured on {}.\n\n",
            self.name, self.what, self.rounds, self.seconds, self.machine
        );
        text += "| server | connections | req/s: median (min - max) | p50 ms | p99 ms | the first / this |\n";
        text += "| --- | --- | --- | --- | --- | --- |\n";
        for measured in &self.measured {
            let first = self.measured.iter().find(|first| first.connections == measured.connections);
            let rate = measured.of(|sample| sample.requests_per_second);
            let ratio = first
                .map_or(f64::NAN, |first| first.of(|sample| sample.requests_per_second).median / rate.median);
            // Writing to a String can't fail.
            let _ = writeln!(
                text,
                "| {} | {} | {:.0} ({:.0} - {:.0}) | {:.2} | {:.2} | {ratio:.2} |",
                measured.server,
                measured.connections,
                rate.median,
                rate.min,
                rate.max,
                measured.of(|sample| sample.p50_ms).median,
                measured.of(|sample| sample.p99_ms).median,
            );
        }
        text
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)?;
        let write = |ending: &str, text: String| {
            let file = folder.join(format!("{}.{ending}", self.name));
            std::fs::write(&file, text).with_context(|| format!("can't write {}", file.display()))
        };
        write("md", self.to_markdown())?;
        write("json", serde_json::to_string_pretty(self)? + "\n")
    }
}
