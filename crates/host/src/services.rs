//! The services that guests ask of the host, over the host's own parts.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use http::HeaderMap;
use tracing::warn;
use wasmhost_config::{Queue, UnworkedQueue, shown};
use wasmhost_engine::services::{self, Enqueue, EnqueueRefusal, Receipt, Refusal, RefusalSink};
use wasmhost_store::jobs::{EnqueueError, Enqueued, NewJob, Unique, UniqueScope};
use wasmhost_store::{Jobs, Timestamp};

use crate::admin::api::{HostEvent, JobChange};
use crate::feed::{self, Feed};
use crate::measures::Measures;
use crate::rare_lines::{RareLines, and_more};
use crate::rates::Rates;
use crate::traces::{Context, Sent, send_jobs};

/// Refusals of one type that are remembered, so that each is logged once. A guest can make up names without end.
const REFUSALS_MAX: usize = 100;

/// The producer of jobs that come by the API: they have a line of their own at the store, and a rate. No process type is
/// called so.
pub(crate) const PRODUCER_API: &str = "the admin API";

/// The queues, for guests and for the admin API.
pub(crate) struct Queues {
    pub(crate) jobs: Arc<dyn Jobs>,
    /// The same in the line of what the admin API enqueues.
    pub(crate) jobs_of_api: Arc<dyn Jobs>,
    rates: Rates,
    /// Producers that were told to wait, with the queue.
    slowed: RareLines<(String, String)>,
    measures: Arc<Measures>,
    /// As the live release has them.
    known: ArcSwap<KnownQueues>,
    feed: Arc<Feed>,
}

/// The queues that a formation says something of.
#[derive(Debug, Default)]
pub(crate) struct KnownQueues {
    pub(crate) settings: BTreeMap<String, Queue>,
    /// The types that work each queue.
    pub(crate) workers: BTreeMap<String, Vec<String>>,
    /// Those that some type may put jobs on.
    pub(crate) granted: BTreeSet<String>,
}

impl Queues {
    pub(crate) fn new(jobs: Arc<dyn Jobs>, measures: Arc<Measures>, feed: Arc<Feed>) -> Queues {
        Queues {
            jobs_of_api: jobs.in_line_of(PRODUCER_API),
            jobs,
            rates: Rates::default(),
            slowed: RareLines::default(),
            measures,
            known: ArcSwap::default(),
            feed,
        }
    }

    /// These are known from now on.
    pub(crate) fn know(&self, known: KnownQueues) {
        let named = known.settings.keys().chain(known.workers.keys()).chain(&known.granted).cloned();
        self.measures.keep_queues(&named.collect());
        self.known.store(Arc::new(known));
    }

    pub(crate) fn max_depth(&self, queue: &str) -> Option<u64> {
        self.known.load().settings.get(queue).and_then(|settings| settings.max_depth)
    }

    pub(crate) fn max_bytes(&self, queue: &str) -> u64 {
        self.known.load().settings.get(queue).map_or(Queue::MAX_BYTES_DEFAULT, |settings| settings.max_bytes)
    }

    pub(crate) fn max_per_second(&self, queue: &str) -> Option<u32> {
        self.known.load().settings.get(queue).and_then(|settings| settings.max_per_second)
    }

    /// Jobs go on a queue by a request with these headers: they are part of its trace, or of a new one, where traces are on.
    pub(crate) fn trace(&self, headers: &HeaderMap, queue: &str, jobs: &mut [NewJob]) -> Option<Sent> {
        let scope = self.measures.traces()?.enter(Context::of_headers(headers), Context::new);
        send_jobs(&scope, queue, jobs.iter_mut().map(|job| &mut job.metadata))
    }

    /// Jobs were put on a queue: those of them that are new count.
    pub(crate) fn note_enqueued(&self, queue: &str, jobs: &[Enqueued]) {
        let new = jobs.iter().filter(|job| job.created).count();
        self.measures.queue(queue).enqueued(new as u64);
    }

    /// Takes the right to put so many jobs on a queue now.
    pub(crate) fn take_rate(&self, producer: &str, queue: &str, jobs: usize) -> Result<(), TooFast> {
        let Some(per_second) = self.max_per_second(queue) else { return Ok(()) };
        self.rates.take(producer, queue, jobs, per_second).map_err(|wait| {
            if let Some(more) = self.slowed.is_due((producer.to_owned(), queue.to_owned())) {
                warn!(
                    "{producer} enqueues faster on \"{queue}\" than its max_per_second of {per_second} allows, and is refused{}",
                    and_more(more, "calls were refused")
                );
            }
            TooFast { producer: producer.to_owned(), queue: queue.to_owned(), per_second, wait }
        })
    }

    /// Tells the feed of jobs that a type, or a person, has put on a queue.
    pub(crate) fn tell_enqueued(&self, process: Option<&str>, queue: &str, jobs: &[Enqueued]) {
        let event = |job: &Enqueued| feed::job(job.id, Some(queue), JobChange::Enqueued, process);
        self.feed.tell_each(|| jobs.iter().filter(|job| job.created).map(event));
    }

    pub(crate) fn concurrency(&self, queue: &str) -> Option<u32> {
        self.known.load().settings.get(queue).and_then(|settings| settings.concurrency)
    }

    pub(crate) fn workers(&self, queue: &str) -> Vec<String> {
        self.known.load().workers.get(queue).cloned().unwrap_or_default()
    }

    /// Says so where no type works this queue.
    pub(crate) fn unworked(&self, queue: &str) -> Option<String> {
        let known = self.known.load();
        let unworked = UnworkedQueue::find(queue, known.workers.keys().map(String::as_str));
        unworked.map(|unworked| unworked.to_string())
    }

    /// Those that the formation names.
    pub(crate) fn named(&self) -> BTreeSet<String> {
        let known = self.known.load();
        known.settings.keys().chain(known.workers.keys()).cloned().collect()
    }
}

/// A producer has enqueued as many jobs as it may for now.
#[derive(Debug, thiserror::Error)]
#[error(
    "queue \"{queue}\" has a max_per_second of {per_second}, which {producer} has used up: try again in {} s",
    .wait.as_secs_f64().ceil()
)]
pub(crate) struct TooFast {
    producer: String,
    queue: String,
    pub(crate) per_second: u32,
    pub(crate) wait: Duration,
}

#[async_trait]
impl Enqueue for Queues {
    async fn enqueue(
        &self,
        process: &str,
        queue: &str,
        jobs: Vec<services::NewJob>,
    ) -> Result<Vec<Receipt>, EnqueueRefusal> {
        self.take_rate(process, queue, jobs.len()).map_err(|err| EnqueueRefusal::Full(err.to_string()))?;
        let (max_depth, max_bytes) = (self.max_depth(queue), Some(self.max_bytes(queue)));
        let jobs =
            jobs.into_iter().map(|job| NewJob { max_depth, max_bytes, ..to_store(queue, job) }).collect();
        let enqueued = self.jobs.in_line_of(process).enqueue(jobs).await.map_err(|err| match err {
            EnqueueError::Full { .. } | EnqueueError::FullOfBytes { .. } => {
                EnqueueRefusal::Full(err.to_string())
            }
            EnqueueError::Invalid(text) => EnqueueRefusal::Invalid(text),
            EnqueueError::Store(err) => EnqueueRefusal::Unavailable(err.to_string()),
        })?;
        self.tell_enqueued(Some(process), queue, &enqueued);
        self.note_enqueued(queue, &enqueued);
        Ok(enqueued.into_iter().map(|job| Receipt { id: job.id.to_string(), created: job.created }).collect())
    }
}

fn to_store(queue: &str, job: services::NewJob) -> NewJob {
    NewJob {
        queue: queue.to_owned(),
        payload: job.payload,
        content_type: job.content_type,
        metadata: job.metadata,
        run_at: job.delay_ms.map(|ms| Timestamp::now() + Duration::from_millis(ms)),
        priority: job.priority,
        unique: job.unique.map(unique),
        attempts_max: job.attempts,
        max_depth: None,
        max_bytes: None,
    }
}

fn unique(unique: services::Unique) -> Unique {
    let scope = match unique.scope {
        services::UniqueScope::Waiting => UniqueScope::Waiting,
        services::UniqueScope::Running => UniqueScope::Running,
        services::UniqueScope::Lasting(time) => UniqueScope::For(time),
    };
    Unique { key: unique.key, scope }
}

/// Where a person writes what guests may touch, and so what a refusal advises to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantedBy {
    /// Keys of the type's table in the formation.
    Formation,
    /// Flags of `wasmhost run app.wasm`.
    Flags,
}

/// Logs each refused grant once, with what would grant it. One type's names leave room for those of others.
pub(crate) struct Refusals {
    granted_by: GrantedBy,
    measures: Arc<Measures>,
    told: Mutex<HashMap<Arc<str>, HashSet<String>>>,
    /// Types that have filled a directory, with its path in the sandbox.
    filled: RareLines<(Arc<str>, String)>,
    /// The refusals that the feed was told of, among the names that are remembered.
    told_feed: RareLines<(Arc<str>, String)>,
    feed: Arc<Feed>,
}

impl Refusals {
    pub(crate) fn new(granted_by: GrantedBy, measures: Arc<Measures>, feed: Arc<Feed>) -> Refusals {
        let (filled, told_feed) = (RareLines::default(), RareLines::default());
        Refusals { granted_by, measures, told: Mutex::default(), filled, told_feed, feed }
    }
}

/// Whether a refusal is to be told.
enum Noted {
    New,
    Known,
    /// The first one for which there is no room.
    TooMany,
}

impl Refusals {
    fn filled(&self, process: &Arc<str>, directory: String, bytes_max: u64) {
        let shown = shown_name(&directory).into_owned();
        if let Some(more) = self.filled.is_due((process.clone(), directory)) {
            warn!(
                "{process} can't add to {shown}, which holds as much as max_bytes of its grant allows ({}){}",
                wasmhost_config::units::format_size(bytes_max),
                and_more(more, "changes were refused")
            );
        }
    }

    /// One who follows only now is to hear of a thing that was logged long ago, too.
    fn tell_feed(&self, process: &Arc<str>, refusal: &Refusal) {
        self.feed.tell_each(|| {
            let tried = tried(refusal);
            self.told_feed
                .is_due((process.clone(), tried.clone()))
                .map(|_| HostEvent::Refusal { process: process.to_string(), tried })
        });
    }

    fn note(&self, process: &Arc<str>, tried: &str) -> Noted {
        let mut told = self.told.lock().unwrap_or_else(|poison| poison.into_inner());
        let told = told.entry(process.clone()).or_default();
        match told.len() {
            _ if told.contains(tried) => Noted::Known,
            0..REFUSALS_MAX => {
                told.insert(tried.to_owned());
                Noted::New
            }
            REFUSALS_MAX => {
                // One more than are told, so that this isn't told again.
                told.insert(String::new());
                Noted::TooMany
            }
            _ => Noted::Known,
        }
    }
}

/// A guest's own text, as far as a line has room for it.
fn shown_name(name: &str) -> Cow<'_, str> {
    shown::one_line(name, shown::NAME_BYTES_MAX)
}

impl RefusalSink for Refusals {
    fn refused(&self, process: &Arc<str>, refusal: Refusal) {
        self.tell_feed(process, &refusal);
        self.measures.of(process).refused(&refusal);
        if let Refusal::Full { directory, bytes_max } = refusal {
            return self.filled(process, directory, bytes_max);
        }
        let tried = tried(&refusal);
        match self.note(process, &tried) {
            Noted::New => {}
            Noted::Known => return,
            Noted::TooMany => {
                return warn!(
                    "{process} was refused {REFUSALS_MAX} different things: more of them aren't told"
                );
            }
        }
        match self.granted_by {
            GrantedBy::Formation => {
                let line = key(&refusal);
                warn!(
                    "{process} tried {tried}, which the formation doesn't grant; under [process.{process}] this would: {line}"
                );
            }
            GrantedBy::Flags => match flag(&refusal) {
                Some(flag) => warn!("{process} tried {tried}, which is not granted; this would: {flag}"),
                None => warn!("{process} tried {tried}, which only a formation can grant"),
            },
        }
    }
}

fn tried(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Outbound(target) => format!("to connect to {}", shown_name(target)),
        Refusal::Lookup(name) => format!("to look up {}", shown_name(name)),
        Refusal::Enqueue(queue) => format!("to enqueue on \"{}\"", shown_name(queue)),
        Refusal::Network => "to listen, or to use UDP".to_owned(),
        Refusal::Write(directory) => {
            format!("to write below {}, which it may only read", shown_name(directory))
        }
        Refusal::Full { directory, .. } => format!("to add to {}, which is full", shown_name(directory)),
        Refusal::Near(target) => {
            format!("to connect to {}, which leads to this machine", shown_name(target))
        }
    }
}

/// The line of a formation that grants it.
fn key(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Outbound(target) => format!("outbound = [\"{}\"]", shown_name(target)),
        Refusal::Lookup(name) => {
            format!("outbound = [\"{}:443\"], with the port that it connects to", shown_name(name))
        }
        Refusal::Enqueue(queue) => format!("enqueue = [\"{}\"]", shown_name(queue)),
        Refusal::Network => "network = \"all\"".to_owned(),
        Refusal::Write(directory) => {
            format!("access = \"write\" in the entry of `dirs` whose guest is \"{}\"", shown_name(directory))
        }
        Refusal::Full { directory, .. } => {
            format!("a larger max_bytes in the entry of `dirs` whose guest is \"{}\"", shown_name(directory))
        }
        Refusal::Near(target) => {
            format!("outbound = [\"{}\"], since a wildcard doesn't", shown_name(target))
        }
    }
}

/// The flag of `wasmhost run app.wasm` that does, if one can.
fn flag(refusal: &Refusal) -> Option<String> {
    match refusal {
        Refusal::Outbound(target) | Refusal::Near(target) => {
            Some(format!("--outbound {}", shown_name(target)))
        }
        Refusal::Lookup(name) => {
            Some(format!("--outbound {}:443, with the port that it connects to", shown_name(name)))
        }
        Refusal::Enqueue(_) | Refusal::Full { .. } => None,
        Refusal::Network => Some("--network".to_owned()),
        Refusal::Write(directory) => Some(format!("--dir HOST::{}::rw", shown_name(directory))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_one_type_makes_up_leave_room_for_others() {
        let refusals = Refusals::new(GrantedBy::Formation, Measures::new(), Arc::default());
        let (evil, good) = (Arc::from("evil"), Arc::from("good"));
        let names: Vec<_> = (0..1_000).map(|n| tried(&Refusal::Lookup(format!("{n}.example")))).collect();
        let noted: Vec<_> = names.iter().map(|name| refusals.note(&evil, name)).collect();
        assert_eq!(noted.iter().filter(|noted| matches!(noted, Noted::New)).count(), REFUSALS_MAX);
        assert_eq!(noted.iter().filter(|noted| matches!(noted, Noted::TooMany)).count(), 1);
        assert!(matches!(refusals.note(&evil, &names[0]), Noted::Known));
        assert!(matches!(refusals.note(&good, &names[0]), Noted::New));
        assert!(matches!(refusals.note(&good, &names[0]), Noted::Known));
    }

    #[test]
    fn a_name_is_cut_and_escaped_before_it_is_kept() {
        let name = format!("a\n\u{202e}{}", "x".repeat(30 << 20));
        for text in [tried(&Refusal::Lookup(name.clone())), key(&Refusal::Outbound(name.clone()))] {
            assert!(text.len() < 400 && !text.contains(['\n', '\u{202e}']), "{} bytes", text.len());
        }
        assert!(flag(&Refusal::Outbound(name)).unwrap().len() < 400);
    }
}
