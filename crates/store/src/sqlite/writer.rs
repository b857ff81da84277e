//! The one thread that writes, and group commit.
//!
//! An fsync costs as much as a hundred operations. So the thread takes whatever waits, does it all in one
//! transaction, commits, and only then answers: while it waits for the disk, the next batch gathers.
//!
//! ```text
//! take a batch -> BEGIN -> apply each -> COMMIT -> answer each
//!                            | one fails: ROLLBACK, and each again in a transaction of its own
//!                                           | COMMIT fails: every one of the transaction gets that error
//! ```
//!
//! Operations check before they write, so one fails halfway only where SQLite does (a full disk). That is rare
//! enough to pay for it then, by doing the batch again one by one, and not always, by a savepoint for each.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use rusqlite::config::DbConfig;
use rusqlite::{CachedStatement, Connection};
use tokio::sync::{mpsc, oneshot, watch};

use super::errors;
use crate::{Clock, StoreError, Timestamp};

/// Operations that wait for the writer; past it callers wait to get in.
pub(super) const WAITING_MAX: usize = 1_024;

/// Operations in one transaction.
const BATCH_MAX: usize = 512;

/// Payload in one transaction, in bytes, past which no more operations are taken.
const BATCH_BYTES: usize = 16 << 20;

/// One kind of operation.
pub(super) trait Write: Send + 'static {
    /// What its caller is told after the commit.
    type Answer: Send + 'static;

    /// Does it. It may be called again, after a rollback.
    fn apply(&self, tx: &Tx<'_>) -> rusqlite::Result<Self::Answer>;

    /// How much payload it writes, in bytes.
    fn bytes(&self) -> usize {
        0
    }

    /// Called once the answer is true, before it is sent.
    fn committed(_answer: &mut Self::Answer) {}
}

/// The transaction under way.
pub(super) struct Tx<'c> {
    connection: &'c Connection,
    /// What time it is for all operations of it.
    pub(super) now: Timestamp,
    /// The same by the steady clock, for leases.
    pub(super) steady: Timestamp,
    awoken: Cell<bool>,
    held_back: &'c RefCell<HashSet<String>>,
    seen_to: RefCell<HashSet<String>>,
}

impl<'c> Tx<'c> {
    /// A statement that is prepared once.
    pub(super) fn sql(&self, sql: &str) -> rusqlite::Result<CachedStatement<'c>> {
        self.connection.prepare_cached(sql)
    }

    /// The id of the row that was inserted last.
    pub(super) fn last_id(&self) -> i64 {
        self.connection.last_insert_rowid()
    }

    /// Says that a job may have become available.
    pub(super) fn awake(&self) {
        self.awoken.set(true);
    }

    /// Says that a claim would have taken more of this queue, had it not as many leased jobs as it may.
    pub(super) fn hold_back(&self, queue: &str) {
        let mut held_back = self.held_back.borrow_mut();
        if !held_back.contains(queue) {
            held_back.insert(queue.to_string());
        }
    }

    /// True where some claim was held back since changes were told last: then [`Tx::ended_in`] wants to know.
    pub(super) fn any_held_back(&self) -> bool {
        !self.held_back.borrow().is_empty()
    }

    /// Says that a job of this queue isn't leased any more.
    pub(super) fn ended_in(&self, queue: &str) {
        if self.held_back.borrow().contains(queue) {
            self.awake();
        }
    }

    /// True the first time that it is asked about this queue. What has become due or run out by `now` need not be
    /// looked for by each of a hundred claims in one transaction.
    pub(super) fn first_look(&self, queue: &str) -> bool {
        let mut seen_to = self.seen_to.borrow_mut();
        !seen_to.contains(queue) && seen_to.insert(queue.to_string())
    }

    #[cfg(test)]
    pub(super) fn connection(&self) -> &Connection {
        self.connection
    }
}

/// How much was written, since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Operations that were answered.
    pub operations: u64,
    /// Transactions that were committed for them, each with an fsync.
    pub commits: u64,
}

#[derive(Default)]
pub(super) struct Meter {
    operations: AtomicU64,
    commits: AtomicU64,
}

impl Meter {
    pub(super) fn read(&self) -> Written {
        Written {
            operations: self.operations.load(Ordering::Relaxed),
            commits: self.commits.load(Ordering::Relaxed),
        }
    }
}

/// What the writer thread is sent.
pub(super) enum Message {
    Operation(Box<dyn Operation>),
    /// Finish what was accepted, accept no more, and say when the file is closed.
    Close(oneshot::Sender<()>),
}

/// A [`Write`] with its answer and who waits for it.
pub(super) trait Operation: Send {
    fn bytes(&self) -> usize;
    fn apply(&mut self, tx: &Tx<'_>) -> rusqlite::Result<()>;
    fn answer(self: Box<Self>, failure: Option<StoreError>);
}

struct Waiting<W: Write> {
    write: W,
    answer: Option<W::Answer>,
    caller: oneshot::Sender<Result<W::Answer, StoreError>>,
}

impl<W: Write> Operation for Waiting<W> {
    fn bytes(&self) -> usize {
        self.write.bytes()
    }

    fn apply(&mut self, tx: &Tx<'_>) -> rusqlite::Result<()> {
        self.answer = Some(self.write.apply(tx)?);
        Ok(())
    }

    fn answer(mut self: Box<Self>, failure: Option<StoreError>) {
        let answer = match (failure, self.answer.take()) {
            (None, Some(mut answer)) => {
                W::committed(&mut answer);
                Ok(answer)
            }
            (failure, _) => Err(failure.unwrap_or_else(errors::closed)),
        };
        // A caller that went away doesn't want to know.
        let _ = self.caller.send(answer);
    }
}

/// A message for the writer, and where its answer will come.
pub(super) fn message<W: Write>(write: W) -> (Message, oneshot::Receiver<Result<W::Answer, StoreError>>) {
    let (caller, answer) = oneshot::channel();
    (Message::Operation(Box::new(Waiting { write, answer: None, caller })), answer)
}

/// What the writer thread owns.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) inbox: mpsc::Receiver<Message>,
    pub(super) changes: watch::Sender<u64>,
    pub(super) meter: Arc<Meter>,
    /// Ends when its own channel closes. The writer's connection is closed last: that is the one that can tidy the
    /// log away.
    pub(super) reader: JoinHandle<()>,
    /// Queues with jobs that a claim left there because of the queue's concurrency, since changes were told last: each
    /// change makes those who wait claim again. So an ack wakes nobody unless somebody waits for it.
    pub(super) held_back: RefCell<HashSet<String>>,
    /// Set when the file was found to be damaged: nothing is written any more, which could make it worse.
    pub(super) damaged: OnceCell<StoreError>,
}

impl Writer {
    /// Works until every handle is gone or one says `Close`.
    pub(super) fn run(mut self) {
        let mut closing = Vec::new();
        while let Some(batch) = self.next_batch(&mut closing) {
            self.write(batch);
        }
        let _ = self.reader.join();
        if self.damaged.get().is_some() {
            // Closing would copy the log into the file.
            let _ = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        }
        if let Err((_, error)) = self.connection.close() {
            tracing::warn!(%error, "the store was not closed cleanly; nothing is lost");
        }
        for waiting in closing {
            let _ = waiting.send(());
        }
    }

    /// Waits for something to do and takes what else is there; `None` when there will be no more.
    fn next_batch(&mut self, closing: &mut Vec<oneshot::Sender<()>>) -> Option<Vec<Box<dyn Operation>>> {
        let mut batch: Vec<Box<dyn Operation>> = Vec::new();
        let mut bytes = 0;
        let mut message = self.inbox.blocking_recv()?;
        loop {
            match message {
                Message::Operation(operation) => {
                    bytes += operation.bytes();
                    batch.push(operation);
                }
                Message::Close(done) => {
                    self.inbox.close();
                    closing.push(done);
                }
            }
            if batch.len() >= BATCH_MAX || bytes >= BATCH_BYTES {
                return Some(batch);
            }
            match self.inbox.try_recv() {
                Ok(next) => message = next,
                Err(_) => return Some(batch),
            }
        }
    }

    fn write(&self, mut batch: Vec<Box<dyn Operation>>) {
        if batch.is_empty() {
            return;
        }
        if let Some(error) = self.damaged.get() {
            return self.answer(batch, Some(error.clone()));
        }
        match self.transact(&mut batch) {
            Ok(()) => self.answer(batch, None),
            Err(Failed::Commit(error)) => self.answer(batch, Some(error)),
            Err(Failed::Operation(error)) if batch.len() == 1 => self.answer(batch, Some(error)),
            Err(Failed::Operation(_)) => {
                for operation in batch {
                    let mut alone = vec![operation];
                    let failure = match self.damaged.get() {
                        Some(error) => Some(error.clone()),
                        None => self.transact(&mut alone).err().map(Failed::into_error),
                    };
                    self.answer(alone, failure);
                }
            }
        }
    }

    /// All of these in one transaction, or none.
    fn transact(&self, batch: &mut [Box<dyn Operation>]) -> Result<(), Failed> {
        let failed = |error: rusqlite::Error| errors::from_sqlite(&self.connection, &error);
        let commit_failed = |error: rusqlite::Error| Failed::Commit(unavailable(failed(error)));
        let transaction = OpenTransaction::begin(&self.connection).map_err(commit_failed)?;
        let tx = Tx {
            connection: &self.connection,
            now: self.clock.now(),
            steady: self.clock.steady(),
            held_back: &self.held_back,
            awoken: Cell::new(false),
            seen_to: RefCell::default(),
        };
        for operation in batch.iter_mut() {
            operation.apply(&tx).map_err(|error| Failed::Operation(failed(error)))?;
        }
        transaction.commit().map_err(commit_failed)?;
        self.meter.commits.fetch_add(1, Ordering::Relaxed);
        if tx.awoken.get() {
            self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
            self.held_back.borrow_mut().clear();
        }
        Ok(())
    }

    fn answer(&self, batch: Vec<Box<dyn Operation>>, failure: Option<StoreError>) {
        if let Some(error) = &failure {
            if matches!(error, StoreError::Damaged(_)) {
                let _ = self.damaged.set(error.clone());
            }
            tracing::warn!(%error, operations = batch.len(), "the store did not commit");
        }
        for operation in batch {
            self.meter.operations.fetch_add(1, Ordering::Relaxed);
            operation.answer(failure.clone());
        }
    }
}

enum Failed {
    Operation(StoreError),
    Commit(StoreError),
}

impl Failed {
    fn into_error(self) -> StoreError {
        match self {
            Failed::Operation(error) | Failed::Commit(error) => error,
        }
    }
}

/// Whatever stops a transaction from beginning or committing, all of its operations can be tried again later.
fn unavailable(error: StoreError) -> StoreError {
    match error {
        StoreError::Backend(text) => StoreError::Unavailable(text),
        other => other,
    }
}

/// A transaction that is rolled back unless it is committed. (rusqlite's own prepares BEGIN and COMMIT each time.)
struct OpenTransaction<'c>(&'c Connection);

impl<'c> OpenTransaction<'c> {
    fn begin(connection: &'c Connection) -> rusqlite::Result<Self> {
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        Ok(OpenTransaction(connection))
    }

    fn commit(self) -> rusqlite::Result<()> {
        self.0.prepare_cached("COMMIT")?.execute([]).map(drop)
    }
}

impl Drop for OpenTransaction<'_> {
    fn drop(&mut self) {
        // On some errors SQLite has rolled back by itself; after a commit there is nothing to roll back.
        if !self.0.is_autocommit()
            && let Err(error) = self.0.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "the store could not roll back");
        }
    }
}
