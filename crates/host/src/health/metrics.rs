//! Metrics, written when somebody asks: from what is counted ([`Measures`](crate::measures::Measures)), and from what
//! there is at present.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustix::process::Resource;
use wasmhost_store::Timestamp;
use wasmhost_store::jobs::{JobState, QueueCounts as Stored};

use super::answers::Sources;
use super::families::*;
use super::points::Points;
use super::sink::Sink;
use super::text::Text;
use super::{Phase, State};
use crate::measures::histogram::{REQUESTS, WORK};
use crate::measures::{Measures, NO_TYPE, OTHER_QUEUES, Outcome, QueueCounts, TypeCounts};
use crate::supervisor::{STATES, TypeMeasure};
use crate::telemetry::messages::Metric;

/// The clock's ticks in which /proc counts CPU time: on Linux 100 a second, whatever the kernel's own are.
const TICKS_A_SECOND: f64 = 100.0;

/// One type, all of its versions together.
struct Type<'a> {
    name: &'a str,
    trigger: &'static str,
    counts: &'a Arc<TypeCounts>,
    versions: Vec<&'a TypeMeasure>,
}

impl State {
    /// As the text format has them.
    pub(super) fn text(&self, types: Option<&[TypeMeasure]>, queues: Option<&[Stored]>) -> String {
        let mut text = Text::default();
        self.write(&mut text, types, queues);
        text.into_string()
    }

    /// As OTLP has them. The times are when counting began, and now.
    pub(super) fn points(
        &self,
        since_ns: u64,
        now_ns: u64,
        types: Option<&[TypeMeasure]>,
        queues: Option<&[Stored]>,
    ) -> Vec<Metric> {
        let mut points = Points::new(since_ns, now_ns);
        self.write(&mut points, types, queues);
        points.into_metrics()
    }

    /// Figures that aren't known are left out.
    fn write(&self, text: &mut impl Sink, types: Option<&[TypeMeasure]>, queues: Option<&[Stored]>) {
        text.family(&BUILD);
        text.value(&[env!("CARGO_PKG_VERSION")], 1u64);
        text.single(&READY, self.phase() == Phase::Ready);
        text.family(&FAILURES);
        for (part, count) in self.asking.failures() {
            text.value(&[part], count);
        }
        let types = by_name(types.unwrap_or_default());
        write_instances(text, &types);
        write_requests(text, &types, &self.measures);
        let sources = self.sources.get();
        text.single(&CONNECTIONS, sources.map_or(0, |sources| sources.front.open_connections() as u64));
        text.single(&ACCEPTED, self.measures.connections_accepted.load(Relaxed));
        text.single(&CROWDED, self.measures.connections_refused.load(Relaxed));
        write_jobs(text, &types, &self.measures);
        write_queues(text, queues, &self.measures);
        write_ticks(text, &types);
        write_parts(text, &types, sources);
        text.family(&DEPLOYS);
        for (result, count) in self.measures.deploys() {
            text.value(&[result], count);
        }
        write_telemetry(text, &self.measures);
        write_process(text);
    }
}

/// Versions of one type have one name, and are one in metrics: nothing goes backwards when one leaves.
fn by_name(types: &[TypeMeasure]) -> Vec<Type<'_>> {
    let mut by_name: BTreeMap<&str, Type<'_>> = BTreeMap::new();
    for version in types {
        let (name, trigger, counts) = (&*version.process, version.trigger, version.counts());
        let kind = by_name.entry(name).or_insert_with(|| Type { name, trigger, counts, versions: vec![] });
        if version.is_present {
            kind.trigger = trigger;
        }
        kind.versions.push(version);
    }
    by_name.into_values().collect()
}

impl Type<'_> {
    fn sum(&self, number: impl Fn(&TypeMeasure) -> u64) -> u64 {
        self.versions.iter().map(|version| number(version)).sum()
    }
}

fn write_instances(text: &mut impl Sink, types: &[Type<'_>]) {
    text.family(&INSTANCES);
    for kind in types {
        for (at, state) in STATES.into_iter().enumerate() {
            text.value(&[kind.name, state], kind.sum(|version| version.states[at]));
        }
    }
    each(text, types, &DESIRED, |kind| kind.sum(|version| version.desired));
    each(text, types, &STARTS, |kind| kind.counts.starts());
    text.family(&RESTARTS);
    for kind in types {
        for (cause, count) in kind.counts.restarts() {
            text.value(&[kind.name, cause], count);
        }
    }
    each(text, types, &RECYCLES, |kind| kind.counts.recycled_before() + kind.sum(|version| version.recycled));
    text.family(&CPU);
    for kind in types {
        let present: Duration = kind.versions.iter().map(|version| version.cpu).sum();
        text.value(&[kind.name], kind.counts.cpu_before().saturating_add(present).as_secs_f64());
    }
    each(text, types, &MEMORY, |kind| kind.sum(|version| version.memory_bytes));
    each(text, types, &CALLS, |kind| kind.sum(|version| version.calls));
    each(text, types, &WAITING, |kind| kind.sum(|version| version.waiting));
    text.family(&CALL_WAIT);
    for kind in types.iter().filter(|kind| ["http", "schedule"].contains(&kind.trigger)) {
        text.histogram(&[kind.name], &REQUESTS, &kind.counts.requests.waits());
    }
}

/// A figure of each type.
fn each(
    text: &mut impl Sink,
    types: &[Type<'_>],
    family: &'static Family,
    figure: impl Fn(&Type<'_>) -> u64,
) {
    text.family(family);
    for kind in types {
        text.value(&[kind.name], figure(kind));
    }
}

fn write_requests(text: &mut impl Sink, types: &[Type<'_>], measures: &Measures) {
    let http = types.iter().filter(|kind| kind.trigger == "http").map(|kind| (kind.name, kind.counts));
    let all: Vec<_> = http.chain([(NO_TYPE, &measures.unrouted)]).collect();
    text.family(&REQUESTS_TOTAL);
    for (name, counts) in &all {
        for outcome in Outcome::all() {
            let count = counts.requests.of_outcome(outcome);
            if count > 0 || outcome.is_usual() && *name != NO_TYPE {
                text.value(&[name, outcome.status(), outcome.code()], count);
            }
        }
    }
    text.family(&REQUEST_DURATION);
    for (name, counts) in &all {
        text.histogram(&[name], &REQUESTS, &counts.requests.durations());
    }
    text.family(&RECEIVED);
    for (name, counts) in &all {
        text.value(&[name], counts.requests.received_bytes());
    }
    text.family(&SENT);
    for (name, counts) in &all {
        text.value(&[name], counts.requests.sent_bytes());
    }
}

fn write_jobs(text: &mut impl Sink, types: &[Type<'_>], measures: &Measures) {
    let queues = measures.all_queues();
    text.family(&JOBS_TOTAL);
    for (name, counts) in worked(&queues) {
        for (result, count) in counts.results() {
            text.value(&[name, result], count);
        }
    }
    text.family(&ENQUEUED);
    for (name, counts) in &queues {
        text.value(&[name], counts.total_enqueued());
    }
    text.family(&JOB_DURATION);
    for (name, counts) in worked(&queues) {
        text.histogram(&[name], &WORK, &counts.runs.read());
    }
    text.family(&CLAIM_DURATION);
    for kind in types.iter().filter(|kind| kind.trigger == "queue") {
        text.histogram(&[kind.name], &REQUESTS, &kind.counts.claims.read());
    }
}

/// Those that types may work: no type works a queue that the formation doesn't name.
fn worked(queues: &BTreeMap<String, Arc<QueueCounts>>) -> impl Iterator<Item = (&str, &Arc<QueueCounts>)> {
    let named = queues.iter().filter(|(name, _)| *name != OTHER_QUEUES);
    named.map(|(name, counts)| (name.as_str(), counts))
}

/// A queue's figures in the store; those of several queues together where the formation doesn't name them.
#[derive(Default)]
struct Depth {
    states: [u64; JobState::ALL.len()],
    oldest: Option<Timestamp>,
    paused: bool,
}

/// Nothing of any queue where the store doesn't answer.
fn write_queues(text: &mut impl Sink, stored: Option<&[Stored]>, measures: &Measures) {
    let named = stored.into_iter().flat_map(|_| measures.all_queues().into_keys());
    let mut queues: BTreeMap<String, Depth> = named.map(|name| (name, Depth::default())).collect();
    for queue in stored.unwrap_or_default() {
        let name = if queues.contains_key(&queue.queue) { queue.queue.as_str() } else { OTHER_QUEUES };
        let Some(depth) = queues.get_mut(name) else { continue };
        let Stored { scheduled, available, leased, retrying, done, dead, cancelled, .. } = queue;
        let counts = [scheduled, available, leased, retrying, done, dead, cancelled];
        depth.states.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        depth.oldest = depth.oldest.into_iter().chain(queue.oldest_waiting).min();
        depth.paused |= queue.paused;
    }
    text.family(&QUEUE_JOBS);
    for (name, depth) in &queues {
        for (state, count) in JobState::ALL.into_iter().zip(depth.states) {
            text.value(&[name, state.name()], count);
        }
    }
    let now = Timestamp::now();
    text.family(&QUEUE_OLDEST);
    for (name, depth) in &queues {
        text.value(&[name], depth.oldest.map_or(0.0, |oldest| now.since(oldest).as_secs_f64()));
    }
    text.family(&QUEUE_PAUSED);
    for (name, depth) in &queues {
        text.value(&[name], depth.paused);
    }
}

fn write_ticks(text: &mut impl Sink, types: &[Type<'_>]) {
    let clocks = || types.iter().filter(|kind| kind.trigger == "schedule");
    text.family(&TICKS_TOTAL);
    for kind in clocks() {
        for (result, count) in kind.counts.ticks() {
            text.value(&[kind.name, result], count);
        }
    }
    text.family(&TICK_LATENESS);
    for kind in clocks() {
        text.histogram(&[kind.name], &WORK, &kind.counts.lateness.read());
    }
}

/// The store, components, grants, logs and releases.
fn write_parts(text: &mut impl Sink, types: &[Type<'_>], sources: Option<&Sources>) {
    text.family(&STORE_OPERATIONS);
    let written = sources.map(|sources| sources.store.written());
    if let Some(written) = &written {
        text.value(&[], written.operations);
    }
    text.family(&STORE_COMMITS);
    if let Some(written) = &written {
        let bounds = wasmhost_store::COMMIT_SECONDS;
        text.buckets(&[], &bounds, &written.commits_by_time, written.commit_time.as_secs_f64());
    }
    let loads = sources.map(|sources| sources.loads.read()).unwrap_or_default();
    text.family(&LOADS);
    for (from, count) in
        [("process", loads.shared), ("directory", loads.mapped), ("compiler", loads.compiled)]
    {
        text.value(&[from], count);
    }
    text.single(&COMPILE_SECONDS, loads.compiling.as_secs_f64());
    text.single(&COMPILE_FAILURES, loads.failed);
    text.family(&REFUSED);
    for kind in types {
        for (grant, count) in kind.counts.refusals() {
            text.value(&[kind.name, grant], count);
        }
    }
    text.family(&LINES_DROPPED);
    for (kind, logs) in sources.iter().flat_map(|sources| types.iter().map(move |kind| (kind, &sources.logs)))
    {
        text.value(&[kind.name, "unread"], logs.dropped(kind.name));
        text.value(&[kind.name, "max_log"], logs.dropped_past_rate(kind.name));
    }
    let live = sources.map(|sources| sources.live.load());
    text.single(&RELEASE, live.as_ref().map_or(0, |live| live.number));
    let canary = live.as_ref().and_then(|live| live.canary);
    text.single(&CANARY, canary.map_or(0.0, |canary| f64::from(canary.share.percent()) / 100.0));
}

/// The fate of traces and metrics that are sent elsewhere.
fn write_telemetry(text: &mut impl Sink, measures: &Measures) {
    text.family(&SPANS);
    for (result, count) in measures.telemetry.spans() {
        text.value(&[result], count);
    }
    text.family(&EXPORT_FAILURES);
    for (signal, count) in measures.telemetry.failures() {
        text.value(&[signal], count);
    }
}

/// The host's process, as every program's is told of, where the system says it.
fn write_process(text: &mut impl Sink) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name may have spaces and brackets in it.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let field = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    text.family(&PROCESS_CPU);
    if let Some((user, system)) = field(11).zip(field(12)) {
        text.value(&[], (user + system) / TICKS_A_SECOND);
    }
    text.family(&PROCESS_MEMORY);
    if let Some(bytes) = resident_bytes() {
        text.value(&[], bytes);
    }
    text.family(&PROCESS_FILES);
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        text.value(&[], files.count() as u64);
    }
    text.family(&PROCESS_FILES_MAX);
    if let Some(max) = rustix::process::getrlimit(Resource::Nofile).current {
        text.value(&[], max);
    }
    text.family(&PROCESS_START);
    if let Some((boot, since)) = boot_time().zip(field(19)) {
        text.value(&[], boot + since / TICKS_A_SECOND);
    }
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// When the system was started, in seconds since 1970.
fn boot_time() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::Health;
    use super::*;
    use crate::host::Lasting;

    #[test]
    fn every_family_is_written_once_also_where_nothing_is_known() {
        let health = Health::new(&Lasting::new(), &Measures::new(), Box::new(|_| {}));
        for (types, queues) in [(None, None), (Some(&[][..]), Some(&[][..]))] {
            let text = health.state.text(types, queues);
            let written: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
            let all: Vec<_> =
                ALL.iter().map(|family| format!("{} {}", family.name, family.kind.name())).collect();
            assert_eq!(written, all, "in the order of the list");
        }
    }
}
