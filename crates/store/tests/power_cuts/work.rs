//! The clients that run while the power goes, and what they were told before.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use wasmhost_store::jobs::{
    AfterFailure, Backoff, Claim, ClaimQueue, Failure, Intervened, JobId, JobState, LeasedJob, NewJob,
    Settled, Unique, UniqueScope,
};
use wasmhost_store::{Jobs, SqliteStore, Ticks, Timestamp};

use crate::disk::Disk;

const CLIENTS: u64 = 6;
const QUEUES: [&str; 2] = ["mail", "reports"];

/// The answers that callers were given: they must be true when the power is back.
#[derive(Debug, Default, Clone)]
pub(crate) struct Told {
    /// Each batch's jobs. A batch is known by its jobs' content type.
    pub(crate) batches: BTreeMap<String, Vec<JobId>>,
    /// Jobs in a state that nobody takes them from.
    pub(crate) ended: BTreeMap<JobId, JobState>,
    pub(crate) ticks: BTreeSet<Timestamp>,
    /// How many jobs the batches that were sent have, answered or not.
    pub(crate) sent: BTreeMap<String, usize>,
    /// Whether the queue that is paused and resumed by one client alone is paused: as it was told, and as it asked.
    pub(crate) paused: Option<bool>,
    pub(crate) asked_paused: Option<bool>,
}

/// Works on the store in `folder` until its disk's power is gone.
pub(crate) async fn work(folder: &Path, disk: &Arc<Disk>, told: &Arc<Mutex<Told>>, seed: u64) {
    let Ok(store) = SqliteStore::open(&folder.join("store.db")) else { return };
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (store, disk, told) = (store.clone(), Arc::clone(disk), Arc::clone(told));
            tokio::spawn(async move {
                let mut client = Client { store, told, rng: Rng::with_seed(seed ^ client), client, steps: 0 };
                while !disk.is_cut() {
                    client.step().await;
                }
            })
        })
        .collect();
    for client in clients {
        client.await.expect("no client panics");
    }
    store.close().await;
}

struct Client {
    store: SqliteStore,
    told: Arc<Mutex<Told>>,
    rng: Rng,
    client: u64,
    steps: u64,
}

impl Client {
    async fn step(&mut self) {
        self.steps += 1;
        match self.rng.u8(0..20) {
            0..8 => self.enqueue().await,
            8..17 => self.run_jobs().await,
            17 => self.tick().await,
            18 if self.client == 0 => self.pause().await,
            _ => self.cancel().await,
        }
    }

    async fn enqueue(&mut self) {
        let batch = format!("{:x}", self.rng.u64(..));
        let size = self.rng.usize(1..6);
        let jobs: Vec<NewJob> = (0..size).map(|_| self.new_job(&batch)).collect();
        self.told.lock().unwrap().sent.insert(batch.clone(), size);
        if let Ok(receipts) = self.store.enqueue(jobs).await {
            let ids = receipts.into_iter().map(|receipt| receipt.id).collect();
            self.told.lock().unwrap().batches.insert(batch, ids);
        }
    }

    fn new_job(&mut self, batch: &str) -> NewJob {
        let length = if self.rng.u8(0..4) == 0 { self.rng.usize(0..60_000) } else { self.rng.usize(0..300) };
        let unique = (self.rng.u8(0..4) == 0)
            .then(|| Unique { key: format!("{:x}", self.rng.u64(..)), scope: UniqueScope::Running });
        NewJob {
            queue: QUEUES[self.rng.usize(0..2)].to_string(),
            payload: vec![self.rng.u8(..); length],
            content_type: batch.to_string(),
            unique,
            ..NewJob::default()
        }
    }

    async fn run_jobs(&mut self) {
        let queue = |name: &str| ClaimQueue { name: name.to_string(), weight: 1, concurrency: Some(8) };
        let claim = Claim {
            owner: "host/1".to_string(),
            queues: QUEUES.into_iter().map(queue).collect(),
            limit: self.rng.u32(1..4),
            lease: Duration::from_secs(3_600),
            attempts_default: 25,
        };
        for job in self.store.claim(claim).await.unwrap_or_default() {
            self.settle(job).await;
        }
    }

    async fn settle(&mut self, job: LeasedJob) {
        let fail = |then| Failure { then, message: "no".repeat(100), backoff: Backoff::Curve };
        let settled = match self.rng.u8(0..8) {
            0 => self.store.fail(job.lease, fail(AfterFailure::Bury)).await,
            1 => self.store.fail(job.lease, fail(AfterFailure::RetryAfter(Duration::ZERO))).await,
            2 => self.store.release(job.lease).await,
            _ => self.store.complete(job.lease).await,
        };
        let state = match settled {
            Ok(Settled::Done) => JobState::Done,
            Ok(Settled::Dead) => JobState::Dead,
            _ => return,
        };
        self.told.lock().unwrap().ended.insert(job.lease.id, state);
    }

    async fn cancel(&mut self) {
        let any = {
            let told = self.told.lock().unwrap();
            let all: Vec<JobId> = told.batches.values().flatten().copied().collect();
            self.rng.choice(all)
        };
        if let Some(id) = any
            && let Ok(Intervened::Moved { to, .. }) = self.store.cancel(id).await
        {
            self.told.lock().unwrap().ended.insert(id, to);
        }
    }

    async fn tick(&mut self) {
        let nominal = Timestamp((self.rng.u32(..)).into());
        if let Ok(true) = self.store.take("clock", nominal, true, "host/1").await {
            self.told.lock().unwrap().ticks.insert(nominal);
        }
    }

    /// Pauses or resumes a queue without jobs.
    async fn pause(&mut self) {
        let pause = self.rng.bool();
        self.told.lock().unwrap().asked_paused = Some(pause);
        let done = if pause { self.store.pause("quiet").await } else { self.store.resume("quiet").await };
        if done.is_ok() {
            self.told.lock().unwrap().paused = Some(pause);
        }
    }
}
