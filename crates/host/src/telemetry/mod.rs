//! Traces and metrics for a collector, by OTLP over HTTP. It has a thread and a runtime of its own: a collector that is gone,
//! slow or refuses what it gets costs nobody else anything, and what it doesn't take in time is dropped, and counted.
//!
//! ```text
//! span -> bounded queue -> batch -> request, again where that may help -> sent | failed
//! ```

mod collector;
mod encode;
mod export;
pub(crate) mod messages;
mod retry;
mod settings;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use crate::health::Health;
use crate::measures::Measures;
use crate::traces::{Span, Traces};
use collector::Collector;
use encode::Source;
pub(crate) use encode::attribute;
use export::{Exporter, Metrics};
pub use settings::{TelemetryError, TelemetrySettings};

/// How long what is left may take at the end.
const ENDED_MAX: Duration = Duration::from_secs(10);

/// The numbers of what came of spans and of requests to the collector.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    spans: [AtomicU64; SPANS.len()],
    failures: [AtomicU64; SIGNALS.len()],
}

/// The fate of spans.
const SPANS: [&str; 4] = ["sent", "dropped", "failed", "rejected"];

/// The kinds of things that are sent.
const SIGNALS: [&str; 2] = ["traces", "metrics"];

/// One of [`SIGNALS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Signal {
    Traces,
    Metrics,
}

impl Counts {
    /// There was no room for them in the queue.
    pub(crate) fn dropped(&self, spans: u64) {
        self.spans[1].fetch_add(spans, Relaxed);
    }

    fn sent(&self, spans: u64, rejected: u64) {
        self.spans[0].fetch_add(spans.saturating_sub(rejected), Relaxed);
        self.spans[3].fetch_add(rejected.min(spans), Relaxed);
    }

    fn failed(&self, spans: u64) {
        self.spans[2].fetch_add(spans, Relaxed);
    }

    fn failed_to_send(&self, signal: Signal) {
        self.failures[signal as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn spans(&self) -> impl Iterator<Item = (&'static str, u64)> {
        SPANS.into_iter().zip(&self.spans).map(|(result, count)| (result, count.load(Relaxed)))
    }

    pub(crate) fn failures(&self) -> impl Iterator<Item = (&'static str, u64)> {
        SIGNALS.into_iter().zip(&self.failures).map(|(signal, count)| (signal, count.load(Relaxed)))
    }
}

/// All that is to be sent, before anything is.
pub(crate) struct Prepared {
    traces: Option<(Exporter, mpsc::Receiver<Span>)>,
    metrics: Option<(Exporter, Duration)>,
}

/// The thread that sends. It sends what is left when this is ended.
pub(crate) struct Telemetry {
    stop: DropGuard,
    ended: oneshot::Receiver<()>,
}

/// The measures, and the part that sends them and traces, where the settings name a place. `service` is its name where they name none.
pub(crate) fn prepare(
    settings: TelemetrySettings,
    service: &str,
) -> std::io::Result<(Arc<Measures>, Option<Prepared>)> {
    let TelemetrySettings { traces, metrics, resource } = settings;
    if traces.is_none() && metrics.is_none() {
        return Ok((Measures::new(), None));
    }
    let counts = Arc::<Counts>::default();
    let source = Arc::new(Source::new(resource, service));
    let exporter = |signal, target| {
        let collector = Collector::new(target)?;
        std::io::Result::Ok(Exporter::new(signal, collector, source.clone(), counts.clone()))
    };
    let mut places = vec![];
    let (mut made, mut sent) = (None, None);
    if let Some(settings) = traces {
        places.push(format!("traces to {}", settings.target.shown()));
        let (queue, spans) = mpsc::channel(settings.queue_max);
        made = Some(Traces::new(settings.sampler, queue, counts.clone()));
        let exporter = exporter(Signal::Traces, settings.target)?;
        sent = Some((exporter.in_batches(settings.batch_max, settings.delay), spans));
    }
    let metrics = match metrics {
        Some(settings) => {
            places.push(format!("metrics to {}", settings.target.shown()));
            Some((exporter(Signal::Metrics, settings.target)?, settings.interval))
        }
        None => None,
    };
    info!("sending {}", places.join(" and "));
    let measures = Measures::with(metrics.is_some(), made, counts);
    Ok((measures, Some(Prepared { traces: sent, metrics })))
}

impl Prepared {
    /// Sends from now on. Metrics are asked of `health`, which has them all.
    pub(crate) fn start(self, health: &Arc<Health>) -> std::io::Result<Telemetry> {
        let Prepared { traces, metrics } = self;
        let stop = CancellationToken::new();
        let (end, ended) = oneshot::channel();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (stopped, health) = (stop.clone(), health.clone());
        let work = async move {
            let spans = async {
                if let Some((exporter, spans)) = traces {
                    exporter.send_spans(spans, &stopped).await;
                }
            };
            let measures = async {
                if let Some((exporter, interval)) = metrics {
                    Metrics::new(exporter, health).send(interval, &stopped).await;
                }
            };
            tokio::join!(spans, measures);
        };
        std::thread::Builder::new().name("wasmhost-otlp".to_owned()).spawn(move || {
            runtime.block_on(work);
            // The host may have waited for long enough.
            let _ = end.send(());
            // A look-up of a name may hang in the system.
            runtime.shutdown_background();
        })?;
        Ok(Telemetry { stop: stop.drop_guard(), ended })
    }
}

impl Telemetry {
    /// Sends what is left, as far as there is time.
    pub(crate) async fn end(self) {
        drop(self.stop);
        if tokio::time::timeout(ENDED_MAX, self.ended).await.is_err() {
            warn!("the collector took too long: the last traces and metrics are lost");
        }
    }
}
