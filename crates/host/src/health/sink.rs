//! Where metrics are written to.

use super::families::Family;
use crate::measures::histogram::{Bounds, Figures};

/// See the module. Families come one after another, each with all of its series.
pub(super) trait Sink {
    /// The series of this family follow.
    fn family(&mut self, family: &'static Family);

    /// A counter or a gauge with these values for the family's labels, in their order.
    fn put(&mut self, labels: &[&str], value: Value);

    /// A histogram of so many seconds in each bucket, of which there is one more than bounds.
    fn buckets(&mut self, labels: &[&str], bounds: &[f64], counts: &[u64], sum: f64);

    /// As [`Sink::put`].
    fn value(&mut self, labels: &[&str], value: impl Into<Value>)
    where
        Self: Sized,
    {
        self.put(labels, value.into());
    }

    /// A family without labels.
    fn single(&mut self, family: &'static Family, value: impl Into<Value>)
    where
        Self: Sized,
    {
        self.family(family);
        self.put(&[], value.into());
    }

    fn histogram(&mut self, labels: &[&str], bounds: &Bounds, figures: &Figures) {
        let bounds = bounds.map(|ns| ns as f64 / 1e9);
        self.buckets(labels, &bounds, &figures.counts, figures.sum.as_secs_f64());
    }
}

/// The value of a series.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value {
    Whole(u64),
    Real(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Value {
        Value::Whole(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Whole(value.into())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Value {
        Value::Real(value)
    }
}
