//! What guests ask of the host, over the host's own parts.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tracing::warn;
use wasmhost_config::{Queue, UnworkedQueue};
use wasmhost_engine::services::{self, Enqueue, EnqueueRefusal, Receipt, Refusal, RefusalSink};
use wasmhost_store::jobs::{EnqueueError, NewJob, Unique, UniqueScope};
use wasmhost_store::{Jobs, Timestamp};

/// Refusals that are remembered, so that each is logged once. A guest can make up names without end.
const REFUSALS_MAX: usize = 1_000;

/// The queues, for guests and for the admin API.
pub(crate) struct Queues {
    pub(crate) jobs: Arc<dyn Jobs>,
    pub(crate) settings: BTreeMap<String, Queue>,
    /// The types that work each queue.
    pub(crate) workers: BTreeMap<String, Vec<String>>,
}

impl Queues {
    pub(crate) fn max_depth(&self, queue: &str) -> Option<u64> {
        self.settings.get(queue).and_then(|settings| settings.max_depth)
    }

    pub(crate) fn max_bytes(&self, queue: &str) -> u64 {
        self.settings.get(queue).map_or(Queue::MAX_BYTES_DEFAULT, |settings| settings.max_bytes)
    }

    pub(crate) fn concurrency(&self, queue: &str) -> Option<u32> {
        self.settings.get(queue).and_then(|settings| settings.concurrency)
    }

    pub(crate) fn workers(&self, queue: &str) -> Vec<String> {
        self.workers.get(queue).cloned().unwrap_or_default()
    }

    /// Says so where no type works this queue.
    pub(crate) fn unworked(&self, queue: &str) -> Option<String> {
        let unworked = UnworkedQueue::find(queue, self.workers.keys().map(String::as_str));
        unworked.map(|unworked| unworked.to_string())
    }

    /// Those that the formation names.
    pub(crate) fn named(&self) -> impl Iterator<Item = &str> {
        let names: BTreeSet<&str> =
            self.settings.keys().chain(self.workers.keys()).map(String::as_str).collect();
        names.into_iter()
    }
}

#[async_trait]
impl Enqueue for Queues {
    async fn enqueue(
        &self,
        queue: &str,
        jobs: Vec<services::NewJob>,
    ) -> Result<Vec<Receipt>, EnqueueRefusal> {
        let (max_depth, max_bytes) = (self.max_depth(queue), Some(self.max_bytes(queue)));
        let jobs =
            jobs.into_iter().map(|job| NewJob { max_depth, max_bytes, ..to_store(queue, job) }).collect();
        let enqueued = self.jobs.enqueue(jobs).await.map_err(|err| match err {
            EnqueueError::Full { .. } | EnqueueError::FullOfBytes { .. } => {
                EnqueueRefusal::Full(err.to_string())
            }
            EnqueueError::Invalid(text) => EnqueueRefusal::Invalid(text),
            EnqueueError::Store(err) => EnqueueRefusal::Unavailable(err.to_string()),
        })?;
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

/// Logs each refused grant once, with what would grant it.
pub(crate) struct Refusals {
    granted_by: GrantedBy,
    told: Mutex<HashSet<(Arc<str>, Refusal)>>,
}

impl Refusals {
    pub(crate) fn new(granted_by: GrantedBy) -> Refusals {
        Refusals { granted_by, told: Mutex::default() }
    }
}

impl RefusalSink for Refusals {
    fn refused(&self, process: &Arc<str>, refusal: Refusal) {
        {
            let mut told = self.told.lock().unwrap_or_else(|poison| poison.into_inner());
            if told.len() >= REFUSALS_MAX || !told.insert((process.clone(), refusal.clone())) {
                return;
            }
        }
        let tried = tried(&refusal);
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
        Refusal::Outbound(target) => format!("to connect to {target}"),
        Refusal::Lookup(name) => format!("to look up {name}"),
        Refusal::Enqueue(queue) => format!("to enqueue on \"{queue}\""),
        Refusal::Network => "to listen, or to use UDP".to_owned(),
        Refusal::Write(directory) => format!("to write below {directory}, which it may only read"),
        Refusal::Near(target) => format!("to connect to {target}, which leads to this machine"),
    }
}

/// The line of a formation that grants it.
fn key(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Outbound(target) => format!("outbound = [\"{target}\"]"),
        Refusal::Lookup(name) => {
            format!("outbound = [\"{name}:443\"], with the port that it connects to")
        }
        Refusal::Enqueue(queue) => format!("enqueue = [\"{queue}\"]"),
        Refusal::Network => "network = \"all\"".to_owned(),
        Refusal::Write(directory) => {
            format!("access = \"write\" in the entry of `dirs` whose guest is \"{directory}\"")
        }
        Refusal::Near(target) => {
            format!("outbound = [\"{target}\"], since a wildcard doesn't")
        }
    }
}

/// The flag of `wasmhost run app.wasm` that does, if one can.
fn flag(refusal: &Refusal) -> Option<String> {
    match refusal {
        Refusal::Outbound(target) | Refusal::Near(target) => Some(format!("--outbound {target}")),
        Refusal::Lookup(name) => Some(format!("--outbound {name}:443, with the port that it connects to")),
        Refusal::Enqueue(_) => None,
        Refusal::Network => Some("--network".to_owned()),
        Refusal::Write(directory) => Some(format!("--dir HOST::{directory}::rw")),
    }
}
