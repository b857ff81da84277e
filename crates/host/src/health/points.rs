//! The same metrics as OTLP has them: under the same names, with the units that the names say, counted since the host's start.

use super::families::{Family, Kind};
use super::sink::{Sink, Value};
use crate::telemetry::attribute;
use crate::telemetry::messages::{
    CUMULATIVE, Gauge, Histogram, HistogramPoint, KeyValue, Metric, MetricData, Number, NumberPoint, Sum,
};

/// Metrics as they are gathered. Families come one after another, each with all of its series.
pub(super) struct Points {
    since_ns: u64,
    now_ns: u64,
    metrics: Vec<Metric>,
    family: Option<&'static Family>,
}

impl Points {
    /// The span of the counts: from the first time to the second, in nanoseconds since 1970.
    pub(super) fn new(since_ns: u64, now_ns: u64) -> Points {
        Points { since_ns, now_ns, metrics: vec![], family: None }
    }

    /// Those that have series.
    pub(super) fn into_metrics(self) -> Vec<Metric> {
        let has_points = |metric: &Metric| match &metric.data {
            Some(MetricData::Gauge(gauge)) => !gauge.data_points.is_empty(),
            Some(MetricData::Sum(sum)) => !sum.data_points.is_empty(),
            Some(MetricData::Histogram(histogram)) => !histogram.data_points.is_empty(),
            None => false,
        };
        self.metrics.into_iter().filter(has_points).collect()
    }

    fn attributes(&self, labels: &[&str]) -> Vec<KeyValue> {
        let names = self.family.map_or(&[][..], |family| family.labels);
        names.iter().zip(labels).map(|(name, value)| attribute(name, (*value).to_owned().into())).collect()
    }
}

impl Sink for Points {
    fn family(&mut self, family: &'static Family) {
        let data = match family.kind {
            Kind::Gauge => MetricData::Gauge(Gauge::default()),
            Kind::Counter => {
                let (aggregation_temporality, is_monotonic) = (CUMULATIVE, true);
                MetricData::Sum(Sum { data_points: vec![], aggregation_temporality, is_monotonic })
            }
            Kind::Histogram => {
                MetricData::Histogram(Histogram { data_points: vec![], aggregation_temporality: CUMULATIVE })
            }
        };
        self.family = Some(family);
        self.metrics.push(Metric {
            name: family.name.to_owned(),
            description: family.help.to_owned(),
            unit: unit(family.name).to_owned(),
            data: Some(data),
        });
    }

    fn put(&mut self, labels: &[&str], value: Value) {
        let attributes = self.attributes(labels);
        let (since, time_unix_nano) = (self.since_ns, self.now_ns);
        let value = Some(match value {
            Value::Whole(number) => Number::Whole(i64::try_from(number).unwrap_or(i64::MAX)),
            Value::Real(number) => Number::Real(number),
        });
        let point =
            |start_time_unix_nano| NumberPoint { start_time_unix_nano, time_unix_nano, value, attributes };
        match self.metrics.last_mut().and_then(|metric| metric.data.as_mut()) {
            Some(MetricData::Gauge(gauge)) => gauge.data_points.push(point(0)),
            Some(MetricData::Sum(sum)) => sum.data_points.push(point(since)),
            Some(MetricData::Histogram(_)) | None => {}
        }
    }

    fn buckets(&mut self, labels: &[&str], bounds: &[f64], counts: &[u64], sum: f64) {
        let attributes = self.attributes(labels);
        let point = HistogramPoint {
            start_time_unix_nano: self.since_ns,
            time_unix_nano: self.now_ns,
            count: counts.iter().sum(),
            sum: Some(sum),
            bucket_counts: counts.to_vec(),
            explicit_bounds: bounds.to_vec(),
            attributes,
        };
        if let Some(MetricData::Histogram(histogram)) =
            self.metrics.last_mut().and_then(|metric| metric.data.as_mut())
        {
            histogram.data_points.push(point);
        }
    }
}

/// The unit that a name says, as UCUM has it. Numbers of things have none.
fn unit(name: &str) -> &'static str {
    let name = name.strip_suffix("_total").unwrap_or(name);
    match name.rsplit('_').next() {
        Some("seconds") => "s",
        Some("bytes") => "By",
        Some("ratio") => "1",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::super::families::*;
    use super::*;

    #[test]
    fn names_say_their_units() {
        let units = [&CPU, &MEMORY, &CANARY, &STARTS, &SENT, &PROCESS_START].map(|family| unit(family.name));
        assert_eq!(units, ["s", "By", "1", "", "By", "s"]);
    }

    #[test]
    fn a_family_without_series_is_left_out() {
        let mut points = Points::new(1, 2);
        points.family(&CPU);
        points.single(&RELEASE, 7u64);
        points.family(&CALL_WAIT);
        points.buckets(&["web"], &[0.5, 1.0], &[3, 0, 1], 9.0);
        let metrics = points.into_metrics();
        let names: Vec<_> = metrics.iter().map(|metric| metric.name.as_str()).collect();
        assert_eq!(names, [RELEASE.name, CALL_WAIT.name]);
        let Some(MetricData::Histogram(histogram)) = &metrics[1].data else { panic!("it is a histogram") };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.sum, histogram.aggregation_temporality), (4, Some(9.0), CUMULATIVE));
        assert_eq!(point.attributes, [attribute("type", "web".into())]);
    }
}
