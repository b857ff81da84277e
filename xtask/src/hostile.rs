//! `cargo xtask hostile` runs the formation of `tests/hostile.rs`, hostile guests beside good ones, for as long as a person
//! waits, and writes a page on what the host held meanwhile.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use tempfile::TempDir;

use crate::bench::machine::Machine;
use crate::{bench, cargo_command, faults, guests, test};

/// nextest's filter.
const TEST: &str = "binary(blackbox) and test(=hostile::good_types_are_served_beside_all_evils_at_once_and_nothing_of_them_stays)";

/// A run that is shorter says little, and its page isn't kept.
const KEPT_FROM: Duration = Duration::from_hours(1);

/// Rows of the table.
const ROWS: usize = 12;

/// How much more the host may hold in the last quarter of the time than in the second one, and still be called flat.
const FLAT_PERCENT: f64 = 10.0;

/// The figures that the test writes at its end.
#[derive(Deserialize)]
struct Found {
    seconds: u64,
    evils: usize,
    answered: u64,
    jobs: u64,
    looks: Vec<Look>,
    /// When the evils had gone, and of a host that never had them.
    after: Held,
    alone: Held,
}

#[derive(Deserialize)]
struct Look {
    at_s: f64,
    #[serde(flatten)]
    held: Held,
}

#[derive(Deserialize)]
struct Held {
    resident_bytes: u64,
    descriptors: u64,
    threads: u64,
    maps: u64,
}

/// Reads `90s`, `10m` or `1h`.
pub(crate) fn duration(text: &str) -> Result<Duration> {
    let (number, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => bail!("found {text:?}, expected a number with s, m or h behind it, such as 1h"),
    };
    let number: u64 =
        number.parse().with_context(|| format!("found {text:?}, expected such as 90s, 10m or 1h"))?;
    let time = number.checked_mul(seconds).map(Duration::from_secs).context("that is too long")?;
    ensure!(!time.is_zero(), "found {text:?}, expected at least 1s");
    Ok(time)
}

pub(crate) fn run(repository: &Path, time: Duration) -> Result<()> {
    ensure!(
        test::is_installed("nextest"),
        "cargo-nextest is not installed: `cargo install cargo-nextest --locked`"
    );
    guests::build(repository, &guests::Which::Rust, false)?;
    let folder = TempDir::new()?;
    let written = folder.path().join("hostile.json");
    // The profile is for a test that takes hours.
    let status = cargo_command()
        .args(["nextest", "run", "--workspace", "--locked", "--profile", "hours", "-E", TEST])
        .env("WASMHOST_HOSTILE_SECONDS", time.as_secs().to_string())
        .env("WASMHOST_HOSTILE_REPORT", &written)
        .current_dir(repository)
        .status()
        .context("cargo could not be started")?;
    let found = "something was found: see above";
    let figures = match std::fs::read_to_string(&written) {
        Ok(figures) => figures,
        Err(_) if !status.success() => bail!(found),
        Err(err) => return Err(err).context("the test wrote no figures"),
    };
    let figures: Found = serde_json::from_str(&figures)?;
    let results = match time >= KEPT_FROM {
        true => repository.join("bench/results"),
        false => bench::target_folder(repository).join("results"),
    };
    std::fs::create_dir_all(&results)?;
    let page = results.join("hostile.md");
    std::fs::write(&page, figures.to_markdown(&faults::version(repository)))
        .with_context(|| page.display().to_string())?;
    println!("written to {}", page.display());
    ensure!(status.success(), found);
    let grown = figures.grown();
    ensure!(grown.is_empty(), "the host held more and more: {}", grown.join(", "));
    Ok(())
}

/// How many of a thing a host holds.
type Count = fn(&Held) -> u64;

/// The things that are counted, by their names in the table.
const COUNTED: [(&str, Count); 4] = [
    ("resident MiB", |held| held.resident_bytes >> 20),
    ("descriptors", |held| held.descriptors),
    ("threads", |held| held.threads),
    ("maps", |held| held.maps),
];

impl Found {
    /// Those of which the host held more and more.
    fn grown(&self) -> Vec<String> {
        let grown = |(name, count): &(&str, Count)| {
            let (early, late) = (self.median(1, count), self.median(3, count));
            let bound = early as f64 * (1.0 + FLAT_PERCENT / 100.0);
            (late as f64 > bound.max(early as f64 + 16.0)).then(|| format!("{name} {early} -> {late}"))
        };
        COUNTED.iter().filter_map(grown).collect()
    }

    /// In this quarter of the time, from 0.
    fn median(&self, quarter: usize, count: &Count) -> u64 {
        let quarters = self.looks.len() * quarter / 4..self.looks.len() * (quarter + 1) / 4;
        let mut counts: Vec<u64> = self.looks[quarters].iter().map(|look| count(&look.held)).collect();
        counts.sort_unstable();
        counts.get(counts.len() / 2).copied().unwrap_or(0)
    }

    fn to_markdown(&self, version: &str) -> String {
        let Found { seconds, evils, answered, jobs, looks, after, alone } = self;
        let grown = self.grown();
        let flat = match grown.is_empty() {
            true => {
                format!("flat: no median of the last quarter is {FLAT_PERCENT} % above that of the second")
            }
            false => format!("**not flat**: {}", grown.join(", ")),
        };
        let mut text = format!(
            "# hostile\n\n`cargo xtask hostile --for {seconds}s`: {evils} evils at once, without a pause, beside a web type, a \
             worker and a clock (`tests/hostile.rs`). Each request to the good type was answered as it should be, each of its \
             jobs was done, and no instance of a good type was ended. The host is one that wasn't built for speed.\n\n\
             | what | |\n| --- | --- |\n\
             | seconds | {seconds} |\n\
             | requests answered | {answered} |\n\
             | jobs done | {jobs} |\n\
             | found | {flat} |\n\
             | wasmhost | {version} |\n\
             | machine | {} |\n\n\
             The evils go at the end, by a deploy. The last two rows are of the host after that, and of one that never had \
             them.\n\n| at | {} |\n| --- |{}\n",
            Machine::this(),
            COUNTED.map(|(name, _)| name).join(" | "),
            " --- |".repeat(COUNTED.len()),
        );
        let mut row = |at: &str, held: &Held| {
            let counts = COUNTED.map(|(_, count)| count(held).to_string());
            // Writing to a String can't fail.
            let _ = writeln!(text, "| {at} | {} |", counts.join(" | "));
        };
        for look in looks.iter().step_by(looks.len().div_ceil(ROWS).max(1)) {
            row(&format!("{:.0} s", look.at_s), &look.held);
        }
        row("without the evils", after);
        row("never had them", alone);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(mib: u64) -> Held {
        Held { resident_bytes: mib << 20, descriptors: 50, threads: 10, maps: 1_000 }
    }

    fn found(mib: impl Fn(u64) -> u64) -> Found {
        let looks = (0..40).map(|at| Look { at_s: at as f64 * 90.0, held: held(mib(at)) });
        Found {
            seconds: 3_600,
            evils: 50,
            answered: 1,
            jobs: 1,
            looks: looks.collect(),
            after: held(80),
            alone: held(70),
        }
    }

    #[test]
    fn what_grows_is_named_and_what_only_begins_is_not() {
        assert_eq!(found(|at| 200 + at.min(5) * 20).grown(), Vec::<String>::new());
        assert_eq!(found(|at| 200 + at * 10).grown(), ["resident MiB 350 -> 550"]);
    }

    #[test]
    fn a_page_has_a_row_for_each_of_a_few_looks() {
        let page = found(|_| 200).to_markdown("0.1.0");
        assert!(page.contains("| 0 s | 200 | 50 | 10 | 1000 |\n"), "{page}");
        assert!(page.contains(
            "| without the evils | 80 | 50 | 10 | 1000 |\n| never had them | 70 | 50 | 10 | 1000 |\n"
        ));
        assert_eq!(page.matches(" s | ").count(), 10, "{page}");
    }

    #[test]
    fn times_have_their_unit() {
        assert_eq!(duration("1h").unwrap(), Duration::from_hours(1));
        assert_eq!(duration("90s").unwrap(), Duration::from_secs(90));
        for wrong in ["", "1", "h", "-1s", "0s", "1.5h", "1ä", "99999999999999999999h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
