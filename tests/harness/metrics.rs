//! The text of `/metrics`, read strictly.

use std::collections::{BTreeMap, BTreeSet};

/// Families and series of one scrape.
pub(crate) struct Metrics {
    /// By name: `counter`, `gauge` or `histogram`.
    pub(crate) families: BTreeMap<String, String>,
    /// By name and labels, as they are written: `wasmhost_calls{type="web"}`.
    pub(crate) series: BTreeMap<String, f64>,
}

impl Metrics {
    #[track_caller]
    pub(crate) fn read(text: &str) -> Metrics {
        let mut metrics = Metrics { families: BTreeMap::new(), series: BTreeMap::new() };
        let mut helped = String::new();
        let mut family = String::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').unwrap();
                assert!(help.ends_with('.'), "{line}");
                helped = name.to_owned();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert_eq!(name, helped, "a family without help");
                assert!(metrics.families.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} twice");
                family = name.to_owned();
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert!(series.starts_with(&family), "{line} is not of {family}");
                let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
                assert!(metrics.series.insert(series.to_owned(), value).is_none(), "{series} twice");
            }
        }
        metrics
    }

    /// The value of this series, if there is one.
    pub(crate) fn find(&self, series: &str) -> Option<f64> {
        self.series.get(series).copied()
    }

    /// The value of this series.
    #[track_caller]
    pub(crate) fn get(&self, series: &str) -> f64 {
        self.find(series).unwrap_or_else(|| panic!("no {series} in {:#?}", self.series))
    }

    /// The sum of all series of a name that have these labels, among others.
    pub(crate) fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let is_of = |series: &str| {
            series.split('{').next() == Some(name) && labels.iter().all(|label| series.contains(label))
        };
        self.series.iter().filter(|(series, _)| is_of(series)).map(|(_, value)| value).sum()
    }

    /// The labels of each family that has series.
    pub(crate) fn labels(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for series in self.series.keys() {
            let (name, rest) = series.split_once('{').unwrap_or((series, ""));
            let of_histogram =
                ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            let name = of_histogram.filter(|name| self.families.contains_key(*name)).unwrap_or(name);
            let pairs = rest.trim_end_matches('}').split(',').filter_map(|pair| pair.split_once('='));
            labels
                .entry(name)
                .or_default()
                .extend(pairs.map(|(label, _)| label).filter(|label| *label != "le"));
        }
        labels
    }
}
