//! The one thread that writes, and group commit.
//!
//! An fsync costs as much as a hundred operations. So the thread takes whatever waits, does it all in one
//! transaction, commits, and only then answers: while it waits for the disk, the next batch gathers. A batch is bounded, and
//! the process types' [`Lines`] take turns in it.
//!
//! ```text
//! are the files there? -> take a batch -> BEGIN -> apply each -> COMMIT -> answer each
//!                                           | one fails, or the disk is full: ROLLBACK, and each again in a
//!                                           | transaction of its own
//!                                                          | COMMIT fails otherwise: all get that error
//! ```
//!
//! Operations check before they write, so one fails halfway only where SQLite does (a full disk). That is rare. So the
//! price is paid then, by doing the batch again one by one, and not always, by a savepoint for each.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Instant;

use rusqlite::config::DbConfig;
use rusqlite::{CachedStatement, Connection};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use super::damage::Damage;
use super::depths::Depths;
use super::ids::HostFile;
use super::inbox::{Received, receive};
use super::operation::Operation;
use super::presence::Presence;
use super::reader::Question;
use super::reserve::Reserve;
use super::{errors, reserve};
use crate::clock::Moment;
use crate::door;
use crate::jobs::{Holder, Lease};
use crate::lines::{Heavy, Lines, Taken};
use crate::written::Meter;
use crate::{Clock, Complaint, StoreError, Timestamp};

type Message = door::Message<Box<dyn Operation>, Question>;

/// The cost of the operations in one transaction, unless there is one alone that costs more.
const BATCH_COST: usize = 512;

/// The transaction under way.
pub(super) struct Tx<'c> {
    connection: &'c Connection,
    /// The time for all of its operations.
    pub(super) now: Timestamp,
    /// The same by the steady clock, for leases.
    pub(super) steady: Timestamp,
    awoken: Cell<bool>,
    /// The highest id that was given.
    highest_id: Cell<i64>,
    held_back: &'c RefCell<HashSet<String>>,
    holder: Option<&'c dyn Holder>,
    seen_to: RefCell<HashSet<String>>,
    /// The jobs that wait in the queues that an enqueue asked about, as long as nothing else changes it.
    pub(super) depths: Depths,
}

impl<'c> Tx<'c> {
    /// A statement that is prepared once.
    pub(super) fn sql(&self, sql: &str) -> rusqlite::Result<CachedStatement<'c>> {
        self.connection.prepare_cached(sql)
    }

    /// Whether a call of this process has this lease.
    pub(super) fn is_held(&self, lease: Lease) -> bool {
        self.holder.is_some_and(|holder| holder.holds(lease))
    }

    /// The id of the row that was inserted last.
    pub(super) fn last_id(&self) -> i64 {
        self.connection.last_insert_rowid()
    }

    /// Says that a job was given this id.
    pub(super) fn gave_id(&self, id: i64) {
        self.highest_id.set(id.max(self.highest_id.get()));
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

    /// True the first time that it is asked about this queue. Jobs and leases that are due by `now` need not be
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

/// The writer thread's own things.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) holder: Arc<OnceLock<Arc<dyn Holder>>>,
    pub(super) inbox: mpsc::UnboundedReceiver<Message>,
    pub(super) lines: Lines<InLine>,
    /// No heavy operation is taken before.
    pub(super) rests_until: Option<Instant>,
    pub(super) changes: watch::Sender<u64>,
    pub(super) meter: Arc<Meter>,
    /// Ends when its own channel closes. The writer's connection is closed last: that is the one that can tidy the
    /// log away.
    pub(super) reader: Option<JoinHandle<()>>,
    /// Queues with jobs that a claim left there because of the queue's concurrency, since changes were told last: each
    /// change makes those who wait claim again. So an ack wakes nobody unless somebody waits for it.
    pub(super) held_back: RefCell<HashSet<String>>,
    pub(super) damage: Arc<Damage>,
    /// The files beside the database. `None` where there is no file.
    pub(super) beside: Option<Beside>,
    pub(super) complaint: Complaint,
}

/// An operation that waits for its turn, and its place in its line.
pub(super) struct InLine {
    operation: Box<dyn Operation>,
    _place: OwnedSemaphorePermit,
}

/// The operations of one transaction.
#[derive(Default)]
struct Batch {
    operations: Vec<Box<dyn Operation>>,
    is_heavy: bool,
}

/// The files beside the database.
pub(super) struct Beside {
    pub(super) host: RefCell<HostFile>,
    pub(super) presence: Presence,
    pub(super) reserve: Reserve,
}

impl Writer {
    /// Works until every handle is gone or one says `Close`.
    pub(super) fn run(mut self) {
        let mut closing = Vec::new();
        let mut questions = Vec::new();
        while let Some(batch) = self.next_batch(&mut closing, &mut questions) {
            let begun = batch.is_heavy.then(Instant::now);
            self.write(batch.operations);
            self.rests_until = begun.map(|begun| Instant::now() + begun.elapsed()).or(self.rests_until);
            let moment = Moment::of(&*self.clock);
            questions
                .drain(..)
                .for_each(|question: Question| question(&self.connection, moment, &self.damage));
        }
        if let Some(reader) = self.reader {
            let _ = reader.join();
        }
        let is_gone = self.beside.as_ref().is_some_and(|beside| beside.presence.look().is_err());
        if self.damage.found().is_some() || is_gone {
            // Closing would copy the log into the file, and delete the log: by now that may be another's.
            let _ = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        } else if let Some(beside) = &self.beside {
            beside.host.borrow_mut().finish(&self.connection);
        }
        if let Err((_, error)) = self.connection.close() {
            tracing::warn!(%error, "the store was not closed cleanly; nothing is lost");
        }
        for waiting in closing {
            let _ = waiting.send(());
        }
    }

    /// Waits for something to do and takes what else is there; `None` when there will be no more.
    fn next_batch(
        &mut self,
        closing: &mut Vec<oneshot::Sender<()>>,
        questions: &mut Vec<Question>,
    ) -> Option<Batch> {
        loop {
            while let Ok(message) = self.inbox.try_recv() {
                self.sort_in(message, closing, questions);
            }
            self.rests_until = self.rests_until.filter(|until| closing.is_empty() && *until > Instant::now());
            let heavy = if self.rests_until.is_some() { Heavy::Resting } else { Heavy::Taken };
            if self.lines.has(heavy) || !questions.is_empty() {
                return Some(self.take_batch(heavy));
            }
            match receive(&mut self.inbox, self.rests_until) {
                Received::Message(message) => self.sort_in(message, closing, questions),
                Received::Nothing => {}
                Received::End if self.lines.has(Heavy::Taken) => self.rests_until = None,
                Received::End => return None,
            }
        }
    }

    fn sort_in(
        &mut self,
        message: Message,
        closing: &mut Vec<oneshot::Sender<()>>,
        questions: &mut Vec<Question>,
    ) {
        match message {
            Message::Operation(line, operation, place) => {
                self.lines.put(line, operation.cost(), InLine { operation, _place: place });
            }
            Message::Question(question, place) => {
                drop(place);
                questions.push(question);
            }
            Message::Close(done) => {
                self.inbox.close();
                closing.push(done);
            }
        }
    }

    /// The operations whose turn it is, at most as many as belong in one transaction.
    fn take_batch(&mut self, heavy: Heavy) -> Batch {
        let mut batch = Batch::default();
        let mut room = BATCH_COST;
        // The first one is taken whatever it costs.
        let mut next = self.lines.take(usize::MAX, heavy);
        while let Some(Taken { cost, is_heavy, item }) = next {
            batch.operations.push(item.operation);
            batch.is_heavy |= is_heavy;
            room = room.saturating_sub(cost);
            next = self.lines.take(room, heavy);
        }
        batch
    }

    fn write(&self, batch: Vec<Box<dyn Operation>>) {
        if batch.is_empty() {
            return;
        }
        if let Some(error) = self.damage.found() {
            return self.answer(batch, Some(error.clone()));
        }
        if let Some(Err(error)) = self.beside.as_ref().map(|beside| beside.presence.check()) {
            return self.answer(batch, Some(error));
        }
        let mut batch = self.turn_away(batch);
        match self.transact(&mut batch) {
            Ok(()) => self.answer(batch, None),
            // One alone may be at fault; and see `alone`.
            Err(Failed::Operation(_) | Failed::Commit(StoreError::Full(_) | StoreError::Damaged(_))) => {
                for operation in batch {
                    let mut alone = [operation];
                    let failure = self.alone(&mut alone).err();
                    self.answer(alone.into(), failure);
                }
            }
            Err(Failed::Commit(error)) => self.answer(batch, Some(error)),
        }
    }

    /// Refuses what adds jobs, as long as the room that was kept back for the others is given up.
    fn turn_away(&self, batch: Vec<Box<dyn Operation>>) -> Vec<Box<dyn Operation>> {
        let Some(reserve) = self.beside.as_ref().map(|beside| &beside.reserve) else { return batch };
        if reserve.is_kept()
            || !batch.iter().any(|operation| operation.adds())
            || reserve.regain(&self.connection)
        {
            return batch;
        }
        let (adding, others) = batch.into_iter().partition(|operation| operation.adds());
        self.answer(adding, Some(errors::full(self.connection.path().unwrap_or_default())));
        others
    }

    /// One operation in a transaction of its own. An operation that makes room gets the room that was kept back, and damage is
    /// believed when it is seen twice.
    fn alone(&self, operation: &mut [Box<dyn Operation>; 1]) -> Result<(), StoreError> {
        if let Some(error) = self.damage.found() {
            return Err(error.clone());
        }
        match self.transact(operation).map_err(Failed::into_error) {
            Err(StoreError::Damaged(_)) => {
                self.transact(operation).map_err(|failed| self.damage.judge(failed.into_error()))
            }
            Err(full @ StoreError::Full(_)) => {
                let Some(beside) = self.beside.as_ref().filter(|_| !operation[0].adds()) else {
                    return Err(full);
                };
                let gave_up = beside.reserve.give_up();
                reserve::checkpoint(&self.connection);
                match gave_up {
                    true => self.transact(operation).map_err(Failed::into_error),
                    false => Err(full),
                }
            }
            result => result,
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
            holder: self.holder.get().map(|holder| &**holder),
            awoken: Cell::new(false),
            highest_id: Cell::new(0),
            seen_to: RefCell::default(),
            depths: Depths::default(),
        };
        for operation in batch.iter_mut() {
            if operation.moves_waiting() {
                tx.depths.forget();
            }
            operation.apply(&tx).map_err(|error| Failed::Operation(failed(error)))?;
        }
        if let Some(beside) = &self.beside {
            let reserved = beside.host.borrow_mut().reserve(tx.highest_id.get());
            reserved.map_err(|error| {
                Failed::Commit(StoreError::Unavailable(format!("no ids can be kept: {error}")))
            })?;
        }
        let begun = Instant::now();
        transaction.commit().map_err(commit_failed)?;
        self.meter.committed(begun.elapsed());
        if self.beside.as_ref().is_some_and(|beside| !beside.reserve.is_kept()) {
            // The log must not grow now.
            reserve::checkpoint(&self.connection);
        }
        if tx.awoken.get() {
            self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
            self.held_back.borrow_mut().clear();
        }
        Ok(())
    }

    fn answer(&self, batch: Vec<Box<dyn Operation>>, failure: Option<StoreError>) {
        match &failure {
            // It was said when it was found.
            None | Some(StoreError::Damaged(_)) => {}
            Some(error @ StoreError::Gone(_)) => self.complaint.tell(|more| tracing::error!("{error}{more}")),
            Some(error) => self.complaint.tell(|more| {
                tracing::warn!(operations = batch.len(), "the store did not commit: {error}{more}");
            }),
        }
        for operation in batch {
            self.meter.answered();
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

/// The error of a transaction that can't begin or commit: all of its operations can be tried again later.
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
