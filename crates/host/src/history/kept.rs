//! The samples of the last hour, and how counts become rates. There are no clocks here, and no locks.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use wasmhost_store::Timestamp;

use crate::admin::api::{HistoryView, QueueHistory, TypeHistory};
use crate::measures::histogram::{Bounds, Figures};

/// Samples that are kept: an hour of them.
pub(super) const SAMPLES_MAX: usize = 720;

/// All samples. Those of a type, or of a queue, end with the newest one, and there are fewer where it came later.
#[derive(Default)]
pub(super) struct Kept {
    /// The number of the newest sample, from 1.
    newest: u64,
    times: VecDeque<Timestamp>,
    types: BTreeMap<String, Track<TypeReading>>,
    queues: BTreeMap<String, Track<QueueReading>>,
}

/// A thing's samples, and its counts at the newest of them.
struct Track<R: Reading> {
    last: R,
    points: VecDeque<R::Point>,
}

/// Counts since the host's start, and how things stand.
pub(super) trait Reading {
    /// A sample.
    type Point;

    /// The sample of the time that has passed since counts were those of `before`.
    fn since(&self, before: &Self, seconds: f64) -> Self::Point;
}

/// A type.
pub(super) struct TypeReading {
    pub(super) trigger: &'static str,
    /// None where calls aren't counted.
    pub(super) calls: Option<Calls>,
    pub(super) cpu: Duration,
    pub(super) memory_bytes: u64,
    pub(super) serving: u64,
    pub(super) waiting: u64,
}

/// Calls that are over, and how long they took.
pub(super) struct Calls {
    pub(super) ended: u64,
    pub(super) failed: u64,
    /// None where they aren't timed.
    pub(super) times: Option<(&'static Bounds, Figures)>,
}

pub(super) struct TypePoint {
    calls: Option<CallsPoint>,
    cpu: f64,
    memory_bytes: u64,
    serving: u64,
    waiting: u64,
}

struct CallsPoint {
    per_s: f64,
    failed_per_s: f64,
    p50_s: Option<f64>,
    p99_s: Option<f64>,
}

/// A queue.
pub(super) struct QueueReading {
    pub(super) enqueued: u64,
    pub(super) done: u64,
    pub(super) failed: u64,
    /// None where the store doesn't say it.
    pub(super) waiting: Option<u64>,
}

pub(super) struct QueuePoint {
    enqueued_per_s: f64,
    done_per_s: f64,
    failed_per_s: f64,
    waiting: Option<u64>,
}

impl Kept {
    /// Adds a sample of the time that has passed since the one before. Types and queues that it doesn't have are forgotten.
    pub(super) fn add(
        &mut self,
        at: Timestamp,
        passed: Duration,
        types: Vec<(String, TypeReading)>,
        queues: Vec<(String, QueueReading)>,
    ) {
        self.newest += 1;
        push(&mut self.times, at);
        // A first sample has nothing to be compared with.
        let seconds = passed.as_secs_f64().max(0.001);
        follow(&mut self.types, types, seconds);
        follow(&mut self.queues, queues, seconds);
    }

    /// The samples behind the one of this number.
    pub(super) fn view(&self, every: Duration, after: u64) -> HistoryView {
        let behind = usize::try_from(self.newest.saturating_sub(after)).unwrap_or(usize::MAX);
        // A number that isn't there yet is of an earlier run of the host.
        let count = if after > self.newest { SAMPLES_MAX } else { behind };
        HistoryView {
            every_s: every.as_secs_f64(),
            samples_max: SAMPLES_MAX as u64,
            newest: self.newest,
            times_ms: last(&self.times, count).map(|time| time.0).collect(),
            types: self.types.iter().map(|(name, track)| track.of_type(name, count)).collect(),
            queues: self.queues.iter().map(|(name, track)| track.of_queue(name, count)).collect(),
        }
    }
}

fn push<T>(points: &mut VecDeque<T>, point: T) {
    if points.len() >= SAMPLES_MAX {
        points.pop_front();
    }
    points.push_back(point);
}

fn last<T>(points: &VecDeque<T>, count: usize) -> impl Iterator<Item = &T> {
    points.iter().skip(points.len().saturating_sub(count))
}

fn follow<R: Reading>(tracks: &mut BTreeMap<String, Track<R>>, readings: Vec<(String, R)>, seconds: f64) {
    let mut before = std::mem::take(tracks);
    for (name, reading) in readings {
        let track = before.remove(&name);
        let last = track.as_ref().map_or(&reading, |track| &track.last);
        let point = reading.since(last, seconds);
        let mut points = track.map(|track| track.points).unwrap_or_default();
        push(&mut points, point);
        tracks.insert(name, Track { last: reading, points });
    }
}

impl Track<TypeReading> {
    fn of_type(&self, process: &str, count: usize) -> TypeHistory {
        let points = || last(&self.points, count);
        let calls = |figure: fn(&CallsPoint) -> Option<f64>| {
            points().map(|point| point.calls.as_ref().and_then(figure).map(rounded)).collect()
        };
        TypeHistory {
            process: process.to_owned(),
            trigger: self.last.trigger.to_owned(),
            per_s: calls(|calls| Some(calls.per_s)),
            failed_per_s: calls(|calls| Some(calls.failed_per_s)),
            p50_s: calls(|calls| calls.p50_s),
            p99_s: calls(|calls| calls.p99_s),
            cpu: points().map(|point| rounded(point.cpu)).collect(),
            memory_bytes: points().map(|point| point.memory_bytes).collect(),
            serving: points().map(|point| point.serving).collect(),
            waiting: points().map(|point| point.waiting).collect(),
        }
    }
}

impl Track<QueueReading> {
    fn of_queue(&self, queue: &str, count: usize) -> QueueHistory {
        let points = || last(&self.points, count);
        QueueHistory {
            queue: queue.to_owned(),
            enqueued_per_s: points().map(|point| rounded(point.enqueued_per_s)).collect(),
            done_per_s: points().map(|point| rounded(point.done_per_s)).collect(),
            failed_per_s: points().map(|point| rounded(point.failed_per_s)).collect(),
            waiting: points().map(|point| point.waiting).collect(),
        }
    }
}

/// Four digits are enough for a person, and short.
fn rounded(figure: f64) -> f64 {
    if figure == 0.0 || !figure.is_finite() {
        return 0.0;
    }
    let digits = figure.abs().log10().floor() as i32 - 3;
    let scale = 10f64.powi(digits.abs());
    if digits > 0 { (figure / scale).round() * scale } else { (figure * scale).round() / scale }
}

impl Reading for TypeReading {
    type Point = TypePoint;

    fn since(&self, before: &TypeReading, seconds: f64) -> TypePoint {
        let calls = self.calls.as_ref().zip(before.calls.as_ref());
        TypePoint {
            calls: calls.map(|(calls, before)| calls.since(before, seconds)),
            cpu: self.cpu.saturating_sub(before.cpu).as_secs_f64() / seconds,
            memory_bytes: self.memory_bytes,
            serving: self.serving,
            waiting: self.waiting,
        }
    }
}

impl Calls {
    fn since(&self, before: &Calls, seconds: f64) -> CallsPoint {
        let times = self.times.as_ref().zip(before.times.as_ref());
        let times = times.map(|((bounds, now), (_, before))| {
            let counts =
                std::array::from_fn(|bucket| now.counts[bucket].saturating_sub(before.counts[bucket]));
            (*bounds, Figures { counts, sum: Duration::ZERO })
        });
        let quantile = |part| times.as_ref().and_then(|(bounds, figures)| figures.quantile(bounds, part));
        CallsPoint {
            per_s: rate(self.ended, before.ended, seconds),
            failed_per_s: rate(self.failed, before.failed, seconds),
            p50_s: quantile(0.5),
            p99_s: quantile(0.99),
        }
    }
}

impl Reading for QueueReading {
    type Point = QueuePoint;

    fn since(&self, before: &QueueReading, seconds: f64) -> QueuePoint {
        QueuePoint {
            enqueued_per_s: rate(self.enqueued, before.enqueued, seconds),
            done_per_s: rate(self.done, before.done, seconds),
            failed_per_s: rate(self.failed, before.failed, seconds),
            waiting: self.waiting,
        }
    }
}

/// A count that has begun anew is no negative rate.
fn rate(now: u64, before: u64, seconds: f64) -> f64 {
    now.saturating_sub(before) as f64 / seconds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measures::histogram::{BUCKETS, REQUESTS};

    const EVERY: Duration = Duration::from_secs(5);

    fn reading(ended: u64, bucket: usize) -> TypeReading {
        let mut counts = [0; BUCKETS];
        counts[bucket] = ended;
        let times = Some((&REQUESTS, Figures { counts, sum: Duration::ZERO }));
        TypeReading {
            trigger: "http",
            calls: Some(Calls { ended, failed: ended / 10, times }),
            cpu: Duration::from_millis(ended),
            memory_bytes: 7,
            serving: 2,
            waiting: 1,
        }
    }

    fn add(kept: &mut Kept, at: i64, types: Vec<(&str, TypeReading)>) {
        let types = types.into_iter().map(|(name, reading)| (name.to_owned(), reading)).collect();
        kept.add(Timestamp(at), EVERY, types, vec![]);
    }

    #[test]
    fn counts_become_rates_and_times_become_quantiles() {
        let mut kept = Kept::default();
        add(&mut kept, 0, vec![("web", reading(100, 3))]);
        add(&mut kept, 5_000, vec![("web", reading(1_100, 3))]);
        let view = kept.view(EVERY, 0);
        assert_eq!((view.newest, view.times_ms), (2, vec![0, 5_000]));
        let web = &view.types[0];
        assert_eq!(web.per_s, [Some(0.0), Some(200.0)], "the first has nothing to be compared with");
        assert_eq!(web.failed_per_s, [Some(0.0), Some(20.0)]);
        assert_eq!(web.cpu, [0.0, 0.2]);
        // All are between 0.5 and 1 ms, in the fourth bucket.
        assert_eq!((web.p50_s[0], web.p50_s[1]), (None, Some(0.00075)));
        assert_eq!(web.p99_s[1], Some(0.000995));
    }

    #[test]
    fn counts_that_begin_anew_are_no_negative_rate() {
        let mut kept = Kept::default();
        add(&mut kept, 0, vec![("web", reading(100, 3))]);
        add(&mut kept, 5_000, vec![("web", reading(10, 3))]);
        assert_eq!(kept.view(EVERY, 1).types[0].per_s, [Some(0.0)]);
    }

    #[test]
    fn one_who_has_some_samples_gets_the_others_and_all_where_the_host_is_another() {
        let mut kept = Kept::default();
        (0..4).for_each(|at| add(&mut kept, at, vec![("web", reading(0, 0))]));
        let times = |after| kept.view(EVERY, after).times_ms;
        assert_eq!((times(0).len(), times(3), times(4).len(), times(99).len()), (4, vec![3], 0, 4));
    }

    #[test]
    fn a_type_that_comes_later_has_fewer_and_one_that_goes_has_none() {
        let mut kept = Kept::default();
        add(&mut kept, 0, vec![("web", reading(0, 0))]);
        add(&mut kept, 1, vec![("web", reading(0, 0)), ("api", reading(0, 0))]);
        let lengths: Vec<_> = kept.view(EVERY, 0).types.iter().map(|of| of.per_s.len()).collect();
        assert_eq!(lengths, [1, 2], "by name");
        add(&mut kept, 2, vec![("api", reading(0, 0))]);
        assert_eq!(kept.view(EVERY, 0).types.len(), 1);
    }

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let mut kept = Kept::default();
        (0..2 * SAMPLES_MAX as i64).for_each(|at| add(&mut kept, at, vec![("web", reading(0, 0))]));
        let view = kept.view(EVERY, 0);
        assert_eq!((view.times_ms.len(), view.types[0].cpu.len()), (SAMPLES_MAX, SAMPLES_MAX));
        assert_eq!(view.times_ms[0], SAMPLES_MAX as i64);
    }

    #[test]
    fn figures_have_four_digits() {
        assert_eq!((rounded(0.0), rounded(123_456.0), rounded(0.000_123_456)), (0.0, 123_500.0, 0.000_123_5));
    }
}
