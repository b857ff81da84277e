//! Figures, ratios and goals, as Markdown for people and JSON for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Serialize, Serializer};

use super::Settings;
use super::load::Sample;
use super::machine::Machine;
use super::programs::Build;
use super::spread::Spread;

/// The findings of one suite.
#[derive(Serialize)]
pub(super) struct Report {
    /// The suite's name, and the file's.
    pub(super) name: &'static str,
    /// A sentence or two on the measurement.
    pub(super) what: String,
    pub(super) machine: Machine,
    pub(super) versions: BTreeMap<&'static str, String>,
    pub(super) settings: Settings,
    pub(super) goals: Vec<Goal>,
    pub(super) sections: Vec<Section>,
    pub(super) not_measured: Vec<NotMeasured>,
}

/// One table.
#[derive(Serialize)]
pub(super) struct Section {
    pub(super) title: String,
    pub(super) rows: Vec<Row>,
}

/// One contender under one load.
#[derive(Serialize)]
pub(super) struct Row {
    pub(super) server: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connections: Option<u32>,
    /// Requests that failed, of those that should have been answered.
    pub(super) errors: u64,
    pub(super) figures: Vec<Figure>,
}

/// A figure, with its unit in its name, each time it was measured.
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) samples: Vec<f64>,
}

/// A measurement that could not be made.
#[derive(Serialize)]
pub(super) struct NotMeasured {
    pub(super) what: String,
    pub(super) why: String,
}

/// A number that the project wants to reach.
#[derive(Serialize)]
pub(super) struct Goal {
    pub(super) what: String,
    pub(super) better: Better,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) goal: Option<f64>,
    /// The number that is hoped for, beyond the goal or where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) aim: Option<f64>,
    /// `None` where it could not be measured.
    pub(super) found: Option<Spread>,
}

/// Which numbers are good: those that reach a goal, or those that stay below it.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Better {
    More,
    Less,
}

impl Goal {
    /// A goal that is reached by this number, or more.
    pub(super) fn at_least(goal: f64, what: impl Into<String>, found: Option<Spread>) -> Goal {
        Goal { what: what.into(), better: Better::More, goal: Some(goal), aim: None, found }
    }

    /// A goal that is reached by less than this number.
    pub(super) fn below(goal: f64, what: impl Into<String>, found: Option<Spread>) -> Goal {
        Goal { what: what.into(), better: Better::Less, goal: Some(goal), aim: None, found }
    }

    pub(super) fn aim(self, aim: f64) -> Goal {
        Goal { aim: Some(aim), ..self }
    }

    /// There is no goal: its number is what is hoped for.
    pub(super) fn only_aimed_at(self) -> Goal {
        Goal { aim: self.goal, goal: None, ..self }
    }

    fn verdict(&self) -> &'static str {
        let Some(found) = self.found else { return "not measured" };
        let reached = |number: f64| match self.better {
            Better::More => found.median >= number,
            Better::Less => found.median < number,
        };
        match (self.goal.map(reached), self.aim.map(reached)) {
            (Some(false), _) => "**missed**",
            (Some(true), Some(true)) => "met, the aim too",
            (Some(true), Some(false)) => "met, not the aim",
            (Some(true), None) => "met",
            (None, Some(true)) => "the aim is met",
            (None, _) => "the aim is missed",
        }
    }
}

impl Row {
    pub(super) fn new(server: impl Into<String>, connections: Option<u32>) -> Row {
        Row { server: server.into(), connections, errors: 0, figures: Vec::new() }
    }

    /// Adds a measurement of what this name says.
    pub(super) fn add(&mut self, name: &'static str, sample: f64) {
        match self.figures.iter_mut().find(|figure| figure.name == name) {
            Some(figure) => figure.samples.push(sample),
            None => self.figures.push(Figure { name, samples: vec![sample] }),
        }
    }

    /// Adds what wrk measured.
    pub(super) fn add_sample(&mut self, sample: &Sample) {
        self.add("requests_per_second", sample.requests_per_second);
        self.add_times(sample);
    }

    /// The same without the rate, and its errors.
    pub(super) fn add_times(&mut self, sample: &Sample) {
        self.add("p50_ms", sample.p50_ms);
        self.add("p99_ms", sample.p99_ms);
        self.add("max_ms", sample.max_ms);
        self.errors += sample.errors;
    }

    pub(super) fn samples(&self, name: &str) -> &[f64] {
        self.figures.iter().find(|figure| figure.name == name).map_or(&[], |figure| &figure.samples)
    }
}

impl Section {
    pub(super) fn new(title: impl Into<String>) -> Section {
        Section { title: title.into(), rows: Vec::new() }
    }

    /// Each figure of a wasmhost by that of the one before, round by round; none where there was none.
    pub(super) fn beside_before(&self) -> Option<Section> {
        let (this, before) = (Build::This.name(), Build::Before.name());
        let mut ratios = Section::new(format!("{}: {this} / {before}", self.title));
        for old in self.rows.iter().filter(|row| row.server.starts_with(before)) {
            let server = old.server.replacen(before, this, 1);
            let mut row = Row::new(server, old.connections);
            for Figure { name, samples } in &old.figures {
                let new = self.samples(&row.server, row.connections, name);
                let each = new.iter().zip(samples).map(|(new, old)| new / old);
                let samples = each.filter(|ratio| ratio.is_finite()).collect();
                row.figures.push(Figure { name, samples });
            }
            ratios.rows.push(row);
        }
        Some(ratios).filter(|ratios| !ratios.rows.is_empty())
    }

    /// The measurements of a server at so many connections; empty where there are none.
    pub(super) fn samples(&self, server: &str, connections: Option<u32>, name: &str) -> &[f64] {
        let mut rows = self.rows.iter();
        let row = rows.find(|row| row.server == server && row.connections == connections);
        row.map_or(&[], |row| row.samples(name))
    }
}

impl Serialize for Figure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Written<'a> {
            name: &'static str,
            #[serde(flatten)]
            spread: Option<Spread>,
            samples: &'a [f64],
        }
        let Figure { name, samples } = self;
        Written { name, spread: Spread::of(samples), samples }.serialize(serializer)
    }
}

impl Report {
    pub(super) fn to_markdown(&self) -> String {
        let Report { name, what, machine, .. } = self;
        let versions: Vec<String> =
            self.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        let mut text = format!(
            "# {name}\n\n{what}\n\nA figure is the median, and in brackets the least and the most. Measured on {machine}, \
             with {}.\n",
            versions.join(", ")
        );
        text += &self.goals_to_markdown();
        for section in &self.sections {
            text += &section.to_markdown();
        }
        if !self.not_measured.is_empty() {
            text += "\n## Not measured\n\n";
            for NotMeasured { what, why } in &self.not_measured {
                let _ = writeln!(text, "- {what}: {why}");
            }
        }
        text
    }

    fn goals_to_markdown(&self) -> String {
        if self.goals.is_empty() {
            return String::new();
        }
        let mut text =
            String::from("\n## Goals\n\n| what | goal | aim | found | |\n| --- | --- | --- | --- | --- |\n");
        for goal in &self.goals {
            let written = |wanted: Option<f64>| match (wanted, goal.better) {
                (None, _) => String::new(),
                (Some(least), Better::More) => format!("at least {}", number(least)),
                (Some(most), Better::Less) => format!("below {}", number(most)),
            };
            let (wanted, aim) = (written(goal.goal), written(goal.aim));
            let found = goal.found.map(spread).unwrap_or_default();
            // Writing to a String can't fail.
            let _ = writeln!(text, "| {} | {wanted} | {aim} | {found} | {} |", goal.what, goal.verdict());
        }
        text
    }

    /// Writes `NAME.md` and `NAME.json`.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)?;
        let write = |ending: &str, text: String| {
            let file = folder.join(format!("{}.{ending}", self.name));
            std::fs::write(&file, text).with_context(|| format!("can't write {}", file.display()))
        };
        write("md", self.to_markdown())?;
        write("json", serde_json::to_string_pretty(self)? + "\n")
    }
}

impl Section {
    fn to_markdown(&self) -> String {
        let mut names: Vec<&str> = Vec::new();
        for figure in self.rows.iter().flat_map(|row| &row.figures) {
            if !names.contains(&figure.name) {
                names.push(figure.name);
            }
        }
        let with_connections = self.rows.iter().any(|row| row.connections.is_some());
        let with_errors = self.rows.iter().any(|row| row.errors > 0);
        let mut heads = vec!["server".to_owned()];
        heads.extend(with_connections.then(|| "connections".to_owned()));
        heads.extend(names.iter().map(|name| title(name)));
        heads.extend(with_errors.then(|| "errors".to_owned()));

        let mut text =
            format!("\n## {}\n\n| {} |\n|{}\n", self.title, heads.join(" | "), " --- |".repeat(heads.len()));
        for row in &self.rows {
            let mut cells = vec![row.server.clone()];
            if with_connections {
                cells.push(row.connections.map(|count| count.to_string()).unwrap_or_default());
            }
            let figures =
                names.iter().map(|name| Spread::of(row.samples(name)).map(spread).unwrap_or_default());
            cells.extend(figures);
            if with_errors {
                cells.push(if row.errors > 0 { format!("**{}**", row.errors) } else { "0".to_owned() });
            }
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
        text
    }
}

/// `p99_ms` -> `p99 ms`
fn title(name: &str) -> String {
    match name {
        "requests_per_second" => "req/s".to_owned(),
        "cpu_us_per_request" => "CPU us/req".to_owned(),
        name => {
            let units =
                [("_per_second", "/s"), ("_percent", ", %"), ("kib", "KiB"), ("mib", "MiB"), ("_", " ")];
            units.into_iter().fold(name.to_owned(), |name, (written, read)| name.replace(written, read))
        }
    }
}

fn spread(spread: Spread) -> String {
    let Spread { median, min, max } = spread;
    match min == max {
        true => number(median),
        false => format!("{} ({} - {})", number(median), number(min), number(max)),
    }
}

/// As many digits as say something.
fn number(number: f64) -> String {
    let digits = match number.abs() {
        0.0 => 0,
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{number:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(median: f64) -> Option<Spread> {
        Some(Spread { median, min: median, max: median })
    }

    #[test]
    fn numbers_have_the_digits_that_count() {
        let written = [0.0, 0.0123, 1.5, 2.0, 12.34, 110.0, 58_123.4].map(number);
        assert_eq!(written, ["0", "0.01", "1.5", "2", "12.3", "110", "58123"]);
    }

    #[test]
    fn a_goal_is_met_or_missed_or_not_measured() {
        let ratio = |found| Goal::at_least(1.3, "x", found).aim(1.5).verdict();
        assert_eq!(ratio(found(1.2)), "**missed**");
        assert_eq!(ratio(found(1.4)), "met, not the aim");
        assert_eq!(ratio(found(1.5)), "met, the aim too");
        assert_eq!(ratio(None), "not measured");
        let time = |found| Goal::below(50.0, "x", found);
        assert_eq!(time(found(50.0)).verdict(), "**missed**");
        assert_eq!(time(found(49.0)).verdict(), "met");
        assert_eq!(time(found(50.0)).only_aimed_at().verdict(), "the aim is missed");
        assert_eq!(time(found(49.0)).only_aimed_at().verdict(), "the aim is met");
    }

    #[test]
    fn each_figure_is_compared_with_the_one_before_in_its_round() {
        let mut section = Section::new("hello");
        for (server, rates) in [("wasmhost, alone", [30.0, 10.0]), ("wasmhost, before, alone", [10.0, 20.0])]
        {
            let mut row = Row::new(server, Some(16));
            rates.into_iter().for_each(|rate| row.add("requests_per_second", rate));
            section.rows.push(row);
        }
        let ratios = section.beside_before().unwrap();
        assert_eq!(ratios.title, "hello: wasmhost / wasmhost, before");
        assert_eq!(ratios.samples("wasmhost, alone", Some(16), "requests_per_second"), [3.0, 0.5]);
        assert_eq!(ratios.rows.len(), 1);
        section.rows.truncate(1);
        assert!(section.beside_before().is_none());
    }

    #[test]
    fn a_table_has_a_column_for_each_figure_and_marks_errors() {
        let mut good = Row::new("a", Some(16));
        [1000.0, 3000.0, 2000.0].into_iter().for_each(|rate| good.add("requests_per_second", rate));
        good.add("p99_ms", 0.5);
        let mut bad = Row::new("b", Some(16));
        bad.add("requests_per_second", 10.0);
        bad.errors = 7;
        let section = Section { title: "t".into(), rows: vec![good, bad] };
        assert_eq!(
            section.to_markdown(),
            "\n## t\n\n| server | connections | req/s | p99 ms | errors |\n| --- | --- | --- | --- | --- |\n\
             | a | 16 | 2000 (1000 - 3000) | 0.5 | 0 |\n| b | 16 | 10 |  | **7** |\n"
        );
        assert_eq!(section.samples("a", Some(16), "p99_ms"), [0.5]);
        assert!(section.samples("a", Some(64), "p99_ms").is_empty());
    }
}
