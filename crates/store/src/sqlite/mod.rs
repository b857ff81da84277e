//! The store of one host: one SQLite file, one thread that writes it and one that reads it.
//!
//! A call's way: [`SqliteStore`] checks it and sends it to `writer` (or `reader`); the writer applies it (each
//! operation has its file: `enqueue`, `claim`, `settle`, `leases`, `intervene`, `pause`, `prune`, `ticks`, `counts`),
//! commits, and answers. The reader's questions are in `views` and `list`. The tables are in `schema_1.sql` and
//! `schema_2.sql`.

mod attempts;
mod backup;
mod claim;
mod counts;
mod enqueue;
mod errors;
mod intervene;
mod keys;
mod leases;
mod list;
mod pause;
mod prune;
mod reader;
mod schema;
mod settle;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_files;
mod ticks;
mod values;
mod views;
mod writer;

use std::cell::{OnceCell, RefCell};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::Moment;
use crate::jobs::{
    Claim, EnqueueError, Enqueued, Failure, Intervened, Intervention, JobDetail, JobFilter, JobId, JobView,
    Jobs, Lease, LeasedJob, NewJob, Page, QueueCounts, Retention, Settled, Swept,
};
use crate::{Clock, StoreError, SystemClock, Timestamp, rules};

use self::reader::Reader;
use self::writer::{Meter, Write, Writer};

pub use self::writer::Written;

/// A SQLite file as a store. Clones are handles of the same one.
///
/// When the last handle is dropped, what had been accepted is finished and the file is closed, in the background;
/// [`close`](SqliteStore::close) waits for it.
#[derive(Clone)]
pub struct SqliteStore {
    path: Arc<Path>,
    writer: mpsc::Sender<writer::Message>,
    reader: mpsc::Sender<reader::Message>,
    changes: watch::Receiver<u64>,
    meter: Arc<Meter>,
}

impl SqliteStore {
    /// Opens the file, or makes it; its directory must exist. Blocks while it does.
    pub fn open(path: &Path) -> Result<SqliteStore, StoreError> {
        Self::open_with_clock(path, Arc::new(SystemClock::new()))
    }

    /// The same, with another clock.
    pub fn open_with_clock(path: &Path, clock: Arc<dyn Clock>) -> Result<SqliteStore, StoreError> {
        let connection = schema::open_writer(path)?;
        let reading = schema::open_reader(path)?;
        let (to_reader, reader_inbox) = mpsc::channel(reader::WAITING_MAX);
        let (to_writer, writer_inbox) = mpsc::channel(writer::WAITING_MAX);
        let (changed, changes) = watch::channel(0);
        let meter = Arc::new(Meter::default());

        let reader = Reader { connection: reading, clock: Arc::clone(&clock), inbox: reader_inbox };
        let reader = spawn("store-reader", move || reader.run())?;
        let writer = Writer {
            connection,
            clock,
            inbox: writer_inbox,
            changes: changed,
            meter: Arc::clone(&meter),
            reader,
            held_back: RefCell::default(),
            damaged: OnceCell::new(),
        };
        spawn("store-writer", move || writer.run())?;
        Ok(SqliteStore { path: path.into(), writer: to_writer, reader: to_reader, changes, meter })
    }

    /// Finishes what was accepted and closes the file; calls that come later, on any handle, get
    /// [`StoreError::Unavailable`]. Returns when the file is closed.
    pub async fn close(&self) {
        // The reader first: the writer waits for its end.
        let _ = self.reader.send(reader::Message::Close).await;
        let (closed, wait) = oneshot::channel();
        if self.writer.send(writer::Message::Close(closed)).await.is_ok() {
            let _ = wait.await;
        } else {
            // Somebody else closes it; the writer's end of the channel goes when it is done.
            self.writer.closed().await;
        }
    }

    /// Waits until one of its threads has ended: it was closed, or the thread panicked.
    pub async fn ended(&self) {
        tokio::select! {
            () = self.writer.closed() => {}
            () = self.reader.closed() => {}
        }
    }

    /// Writes a consistent copy of all that was answered so far to a new file: a store like any other, with one file
    /// and no log. The store stays in use, and its writer isn't held up; its log grows meanwhile.
    ///
    /// Returns when the copy is on the disk. A file that is there is never replaced; where this fails, none is left.
    pub async fn backup(&self, to: &Path) -> Result<(), StoreError> {
        let (from, to) = (Arc::clone(&self.path), to.to_path_buf());
        let (done, answer) = oneshot::channel();
        spawn("store-backup", move || drop(done.send(backup::backup(&from, &to))))?;
        answer.await.map_err(|_| errors::closed())?
    }

    /// How much was written since it was opened: operations per commit say how well group commit works.
    pub fn written(&self) -> Written {
        self.meter.read()
    }

    async fn write<W: Write>(&self, write: W) -> Result<W::Answer, StoreError> {
        let (message, answer) = writer::message(write);
        self.writer.send(message).await.map_err(|_| errors::closed())?;
        answer.await.map_err(|_| errors::closed())?
    }

    async fn read<A, F>(&self, ask: F) -> Result<A, StoreError>
    where
        A: Send + 'static,
        F: FnOnce(&Connection, Moment) -> rusqlite::Result<A> + Send + 'static,
    {
        let (message, answer) = reader::message(ask);
        self.reader.send(message).await.map_err(|_| errors::closed())?;
        answer.await.map_err(|_| errors::closed())?
    }
}

fn spawn(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, StoreError> {
    std::thread::Builder::new()
        .name(name.to_string())
        .spawn(work)
        .map_err(|error| StoreError::Open(format!("the thread {name} can't be started: {error}")))
}

#[async_trait]
impl Jobs for SqliteStore {
    async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<Vec<Enqueued>, EnqueueError> {
        rules::check(&jobs)?;
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        self.write(enqueue::Enqueue { jobs }).await?
    }

    async fn claim(&self, claim: Claim) -> Result<Vec<LeasedJob>, StoreError> {
        let handover = self.write(claim::ClaimJobs::new(claim, self.writer.downgrade())).await?;
        Ok(handover.accept())
    }

    async fn renew(&self, leases: Vec<Lease>, lease: std::time::Duration) -> Result<Vec<Lease>, StoreError> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        self.write(leases::Renew { leases, lease }).await
    }

    async fn complete(&self, lease: Lease) -> Result<Settled, StoreError> {
        self.write(settle::Complete(lease)).await
    }

    async fn fail(&self, lease: Lease, failure: Failure) -> Result<Settled, StoreError> {
        let failure = Failure { message: rules::cut(failure.message), ..failure };
        self.write(settle::Fail { lease, failure }).await
    }

    async fn release(&self, lease: Lease) -> Result<Settled, StoreError> {
        self.write(settle::Release { lease, begun: true }).await
    }

    async fn free_leases(&self, prefix: &str) -> Result<u64, StoreError> {
        self.write(leases::FreeLeases { prefix: prefix.to_string() }).await
    }

    async fn next_due(&self, queues: &[String]) -> Result<Option<Timestamp>, StoreError> {
        let queues = queues.to_vec();
        self.read(move |connection, moment| views::next_due(connection, moment, &queues)).await
    }

    async fn pause(&self, queue: &str) -> Result<bool, StoreError> {
        rules::check_queue(queue).map_err(StoreError::Invalid)?;
        self.write(pause::Pause { queue: queue.to_string(), paused: true }).await
    }

    async fn resume(&self, queue: &str) -> Result<bool, StoreError> {
        self.write(pause::Pause { queue: queue.to_string(), paused: false }).await
    }

    async fn intervene(&self, id: JobId, intervention: Intervention) -> Result<Intervened, StoreError> {
        self.write(intervene::Intervene { id, intervention }).await
    }

    async fn intervene_all(
        &self,
        filter: JobFilter,
        intervention: Intervention,
    ) -> Result<Swept, StoreError> {
        self.write(intervene::InterveneAll { filter, intervention }).await
    }

    async fn get(&self, id: JobId) -> Result<Option<JobDetail>, StoreError> {
        self.read(move |connection, moment| views::get(connection, moment.now, id)).await
    }

    async fn list(&self, filter: JobFilter, page: Page) -> Result<Vec<JobView>, StoreError> {
        self.read(move |connection, moment| list::list(connection, moment, &filter, page)).await
    }

    async fn counts(&self) -> Result<Vec<QueueCounts>, StoreError> {
        self.read(|connection, moment| views::counts(connection, moment.now)).await
    }

    async fn prune(&self, retention: Retention) -> Result<u64, StoreError> {
        self.write(prune::Prune(retention)).await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}
