//! The loops that send: spans in batches, metrics from time to time.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::collector::Collector;
use super::encode::Source;
use super::messages::PartialSuccess;
use super::retry::{Refused, Retries};
use super::{Counts, Signal};
use crate::health::Health;
use crate::rare_lines::{RareLines, and_more};
use crate::traces::Span;

/// Sends one signal.
pub(super) struct Exporter {
    signal: Signal,
    collector: Collector,
    source: Arc<Source>,
    counts: Arc<Counts>,
    batch_max: usize,
    delay: Duration,
    told: RareLines<Told>,
}

/// Lines that are told seldom.
#[derive(PartialEq, Eq, Hash)]
enum Told {
    Failed,
    Rejected,
}

impl Exporter {
    pub(super) fn new(
        signal: Signal,
        collector: Collector,
        source: Arc<Source>,
        counts: Arc<Counts>,
    ) -> Exporter {
        let told = RareLines::default();
        Exporter { signal, collector, source, counts, batch_max: 1, delay: Duration::ZERO, told }
    }

    /// So many spans in one message, and no later than this after the first of them is over.
    pub(super) fn in_batches(self, batch_max: usize, delay: Duration) -> Exporter {
        Exporter { batch_max, delay, ..self }
    }

    /// Sends spans until `stop`, and then those that are left.
    pub(super) async fn send_spans(self, mut queue: mpsc::Receiver<Span>, stop: &CancellationToken) {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                count = queue.recv_many(&mut batch, self.batch_max) => if count == 0 { break },
                () = stop.cancelled() => break,
            }
            let until = Instant::now() + self.delay;
            while batch.len() < self.batch_max {
                let room = self.batch_max - batch.len();
                tokio::select! {
                    count = queue.recv_many(&mut batch, room) => if count == 0 { break },
                    () = sleep_until(until) => break,
                    () = stop.cancelled() => break,
                }
            }
            self.send_batch(&mut batch, stop).await;
        }
        queue.close();
        loop {
            let room = self.batch_max.saturating_sub(batch.len());
            queue.recv_many(&mut batch, room).await;
            if batch.is_empty() {
                break;
            }
            self.send_batch(&mut batch, stop).await;
        }
    }

    async fn send_batch(&self, batch: &mut Vec<Span>, stop: &CancellationToken) {
        let count = batch.len() as u64;
        let message = self.source.spans(std::mem::take(batch));
        match self.send(message, stop).await {
            Some(rejected) => self.counts.sent(count, rejected),
            None => self.counts.failed(count),
        }
    }

    /// Sends a message, again where that may help. Returns how many of its parts the collector has rejected; none where it
    /// could not be sent.
    async fn send(&self, message: Vec<u8>, stop: &CancellationToken) -> Option<u64> {
        let message = Bytes::from(message);
        let mut retries = Retries::within(self.collector.target().export_timeout);
        loop {
            let begun = Instant::now();
            let Refused { why, again } = match self.collector.send(message.clone()).await {
                Ok(answer) => return Some(self.heed(answer)),
                Err(refused) => refused,
            };
            let pause = retries.pause(begun.elapsed(), again, fastrand::f64());
            let Some(pause) = pause.filter(|_| !stop.is_cancelled()) else {
                self.counts.failed_to_send(self.signal);
                self.tell_failed(&why);
                return None;
            };
            // At the end there is one last try.
            tokio::select! {
                () = sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    fn tell_failed(&self, why: &str) {
        let Some(more) = self.told.is_due(Told::Failed) else { return };
        let (what, place) = (self.what(), self.collector.target().shown());
        warn!("{what} are lost, which {place} doesn't take: {why}{}", and_more(more, "batches were lost"));
    }

    /// The part that the collector has not taken, and why.
    fn heed(&self, answer: Option<PartialSuccess>) -> u64 {
        let Some(PartialSuccess { rejected, error_message }) = answer else { return 0 };
        let rejected = u64::try_from(rejected).unwrap_or(0);
        let nothing = rejected == 0 && error_message.is_empty();
        if !nothing && let Some(more) = self.told.is_due(Told::Rejected) {
            let (what, place) = (self.what(), self.collector.target().shown());
            let message = wasmhost_config::shown::one_line(&error_message, 256);
            warn!(
                "{place} has taken {what} but for {rejected}: {message}{}",
                and_more(more, "answers were like this")
            );
        }
        rejected
    }

    fn what(&self) -> &'static str {
        match self.signal {
            Signal::Traces => "spans",
            Signal::Metrics => "metrics",
        }
    }
}

/// Sends metrics.
pub(super) struct Metrics {
    exporter: Exporter,
    health: Arc<Health>,
    /// When counting began, in nanoseconds since 1970.
    since_ns: u64,
}

impl Metrics {
    pub(super) fn new(exporter: Exporter, health: Arc<Health>) -> Metrics {
        Metrics { exporter, health, since_ns: now_ns() }
    }

    /// Sends them each `interval` until `stop`, and then once more.
    pub(super) async fn send(self, interval: Duration, stop: &CancellationToken) {
        let mut times = tokio::time::interval_at(Instant::now() + interval, interval);
        times.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_last = tokio::select! {
                _ = times.tick() => false,
                () = stop.cancelled() => true,
            };
            let metrics = self.health.points(self.since_ns, now_ns()).await;
            self.exporter.send(self.exporter.source.metrics(metrics), stop).await;
            if is_last {
                return;
            }
        }
    }
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
