//! The one task that writes, and group commit.
//!
//! A commit costs as much as a hundred operations. So the task takes whatever waits, does it all in one transaction, and only
//! then answers. Statements that don't need each other's answers are sent one behind another.
//!
//! ```text
//! take a batch -> BEGIN, the time, new ids -> ends and enqueues -> the others -> claims -> numbers, COMMIT -> answer each
//!                   | others were in the way: again        | one fails: each again in a transaction of its own
//!                   | the connection is lost: connect, and again             | lost after COMMIT was sent: each finds
//!                                                                            | out whether it was done, or says that
//!                                                                            | nobody knows
//! ```
//!
//! While the server is away, callers wait for [`PATIENCE`] at most, and are refused at once after that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_postgres::Error;

use super::connect::{self, Connected, Connector};
use super::errors::{self, Kind};
use super::operation::Operation;
use super::session::{Db, Session};
use super::shared::Shared;
use super::tx::Tx;
use super::{Message, counters, enqueue, leases, settle};
use crate::lines::{Heavy, Lines, Taken};
use crate::{Complaint, StoreError};

/// The cost of the operations in one transaction, unless there is one alone that costs more.
const BATCH_COST: usize = 512;

/// How long a transaction may take, all in all.
const TRANSACTION_MAX: Duration = Duration::from_secs(8);

/// How long operations wait for a server that is away.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a transaction is tried where others are in its way.
const TRIES: u32 = 4;

/// The waits between tries to connect.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

pub(super) struct Writer {
    pub(super) connector: Arc<Connector>,
    pub(super) shared: Arc<Shared>,
    pub(super) inbox: mpsc::UnboundedReceiver<Message>,
    pub(super) lines: Lines<InLine>,
    /// Operations that the connection's end has cut short. They are done first.
    pub(super) again: Vec<Operation>,
    pub(super) closing: Vec<oneshot::Sender<()>>,
    pub(super) rests_until: Option<Instant>,
    pub(super) complaint: Complaint,
}

/// An operation that waits for its turn, and its place in its line.
pub(super) struct InLine {
    operation: Operation,
    _place: OwnedSemaphorePermit,
}

/// A connection, and the task that drives it.
pub(super) struct Open {
    pub(super) session: Session,
    pub(super) driver: JoinHandle<()>,
}

impl Open {
    pub(super) fn of(connected: Connected) -> Open {
        let Connected { session, driver } = connected;
        Open { session, driver: tokio::spawn(connect::drive(driver, |_| {})) }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Why serving a connection has ended.
enum End {
    /// It is lost, and why.
    Lost(String),
    /// The store is closed.
    Closed,
}

/// Why a transaction was not committed.
enum Failed {
    /// Nothing of it was.
    Before(Error),
    /// Nothing of it was, and the connection is of no use any more.
    Lost(String),
    /// Nobody knows.
    Unsure(String),
}

impl Writer {
    /// Works until every handle is gone or one says `Close`.
    pub(super) async fn run(mut self, first: Open) {
        let mut next = Some(first);
        while let Some(mut open) = next.take() {
            match self.serve(&mut open).await {
                End::Closed => break,
                End::Lost(why) => {
                    drop(open);
                    next = self.reconnect(why).await;
                }
            }
        }
        self.inbox.close();
        for waiting in self.closing {
            let _ = waiting.send(());
        }
    }

    async fn serve(&mut self, open: &mut Open) -> End {
        if !self.again.is_empty() {
            let again = std::mem::take(&mut self.again);
            if let Err(why) = self.write(&open.session, again).await {
                return End::Lost(why);
            }
        }
        loop {
            while let Ok(message) = self.inbox.try_recv() {
                self.sort_in(message);
            }
            let closing = !self.closing.is_empty();
            self.rests_until = self.rests_until.filter(|until| !closing && *until > Instant::now());
            let heavy = if self.rests_until.is_some() { Heavy::Resting } else { Heavy::Taken };
            if self.lines.has(heavy) {
                let (batch, is_heavy) = self.take_batch(heavy);
                let begun = is_heavy.then(Instant::now);
                if let Err(why) = self.write(&open.session, batch).await {
                    return End::Lost(why);
                }
                self.rests_until = begun.map(|begun| Instant::now() + begun.elapsed()).or(self.rests_until);
                continue;
            }
            let rested = async {
                match self.rests_until {
                    Some(until) => tokio::time::sleep_until(until.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = self.inbox.recv() => match message {
                    Some(message) => self.sort_in(message),
                    None if self.lines.has(Heavy::Taken) => self.rests_until = None,
                    None => return End::Closed,
                },
                () = rested => {}
                _ = &mut open.driver => return End::Lost("the connection was closed".to_owned()),
            }
        }
    }

    /// Connects again, however often it takes. None where the store is closed meanwhile.
    async fn reconnect(&mut self, mut why: String) -> Option<Open> {
        let since = Instant::now();
        let mut backoff = BACKOFF_MIN;
        let connector = self.connector.clone();
        let shared = self.shared.clone();
        tracing::warn!("{} is away, and is tried again: {why}", shared.place);
        loop {
            let wait = jitter(backoff);
            let mut connecting = std::pin::pin!(async {
                tokio::time::sleep(wait).await;
                let connected = connector.connect().await?;
                let open = Open::of(connected);
                keep_leases(&open.session, &shared).await?;
                Ok::<Open, StoreError>(open)
            });
            let connected = loop {
                let refusing = tokio::time::sleep(Duration::from_millis(200));
                tokio::select! {
                    connected = &mut connecting => break connected,
                    message = self.inbox.recv() => match message {
                        Some(message) => self.sort_in(message),
                        None => {
                            self.refuse_all(&why);
                            return None;
                        }
                    },
                    () = refusing => {}
                }
                if since.elapsed() > PATIENCE || !self.closing.is_empty() {
                    self.refuse_all(&why);
                }
                if !self.closing.is_empty() {
                    return None;
                }
            };
            match connected {
                Ok(open) => {
                    tracing::info!("{} is back after {:.1} s", shared.place, since.elapsed().as_secs_f64());
                    shared.contact_begins();
                    shared.wake();
                    return Some(open);
                }
                Err(error) => {
                    why = error.to_string();
                    self.complaint.tell(|more| tracing::warn!("{why}{more}"));
                }
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Answers all that wait that the server is away.
    fn refuse_all(&mut self, why: &str) {
        let error = errors::away(&self.shared.place, why);
        for operation in std::mem::take(&mut self.again) {
            operation.answer(Some(error.clone()), &self.shared);
        }
        while let Some(Taken { item, .. }) = self.lines.take(usize::MAX, Heavy::Taken) {
            item.operation.answer(Some(error.clone()), &self.shared);
        }
    }

    fn sort_in(&mut self, message: Message) {
        match message {
            Message::Operation(line, operation, place) => {
                self.lines.put(line, operation.cost(), InLine { operation, _place: place });
            }
            Message::Question(never, _) => match never {},
            Message::Close(done) => {
                self.inbox.close();
                self.closing.push(done);
            }
        }
    }

    /// The operations whose turn it is, at most as many as belong in one transaction.
    fn take_batch(&mut self, heavy: Heavy) -> (Vec<Operation>, bool) {
        let (mut batch, mut is_any_heavy) = (Vec::new(), false);
        let mut room = BATCH_COST;
        // The first one is taken whatever it costs.
        let mut next = self.lines.take(usize::MAX, heavy);
        while let Some(Taken { cost, is_heavy, item }) = next {
            batch.push(item.operation);
            is_any_heavy |= is_heavy;
            room = room.saturating_sub(cost);
            next = self.lines.take(room, heavy);
        }
        (batch, is_any_heavy)
    }

    /// Does a batch and answers it. Where the connection is lost, what can be done again is in `again`, and the error says
    /// why.
    async fn write(&mut self, session: &Session, mut batch: Vec<Operation>) -> Result<(), String> {
        batch.retain(|operation| !operation.is_abandoned());
        if batch.is_empty() {
            return Ok(());
        }
        let Some(error) = self.attempt(session, &mut batch).await? else {
            self.answer(batch, None);
            return Ok(());
        };
        if batch.len() == 1 {
            self.answer(batch, Some(error));
            return Ok(());
        }
        // One alone may be at fault.
        let mut rest = batch.into_iter();
        while let Some(operation) = rest.next() {
            let mut alone = vec![operation];
            match self.attempt(session, &mut alone).await {
                Ok(failure) => self.answer(alone, failure),
                Err(why) => {
                    self.again.extend(rest);
                    return Err(why);
                }
            }
        }
        Ok(())
    }

    /// Tries a transaction, again where others were in its way. The answer is why it failed. The error is that the connection
    /// is lost; then what can be done again is in `again`.
    async fn attempt(
        &mut self,
        session: &Session,
        batch: &mut Vec<Operation>,
    ) -> Result<Option<StoreError>, String> {
        let place = &self.shared.place;
        for tried in 1.. {
            match self.transact(session, batch).await {
                Ok(()) => return Ok(None),
                Err(Failed::Before(error)) => match errors::kind(&error) {
                    Kind::Again if tried < TRIES => {
                        tokio::time::sleep(jitter(Duration::from_millis(5) * tried)).await;
                    }
                    Kind::Away => {
                        self.again.append(batch);
                        return Err(errors::text(&error));
                    }
                    _ => return Ok(Some(errors::from_postgres(place, &error))),
                },
                Err(Failed::Lost(why)) => {
                    self.again.append(batch);
                    return Err(why);
                }
                Err(Failed::Unsure(why)) => {
                    for mut operation in batch.drain(..) {
                        match operation.is_unsure(&self.shared) {
                            true => self.again.push(operation),
                            false => operation.answer(Some(errors::unknown(place)), &self.shared),
                        }
                    }
                    return Err(why);
                }
            }
        }
        Ok(None)
    }

    /// All of these in one transaction, or none.
    async fn transact(&self, session: &Session, batch: &mut [Operation]) -> Result<(), Failed> {
        let is_committing = std::cell::Cell::new(false);
        let within = tokio::time::timeout(TRANSACTION_MAX, self.steps(session, batch, &is_committing)).await;
        let error = match within {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => {
                let why = format!("it gave no answer within {} s", TRANSACTION_MAX.as_secs());
                return Err(if is_committing.get() { Failed::Unsure(why) } else { Failed::Lost(why) });
            }
        };
        if errors::kind(&error) == Kind::Away {
            let why = errors::text(&error);
            return Err(if is_committing.get() { Failed::Unsure(why) } else { Failed::Lost(why) });
        }
        match tokio::time::timeout(TRANSACTION_MAX, session.run("ROLLBACK")).await {
            Ok(Ok(())) => Err(Failed::Before(error)),
            _ => Err(Failed::Lost(errors::text(&error))),
        }
    }

    async fn steps(
        &self,
        session: &Session,
        batch: &mut [Operation],
        is_committing: &std::cell::Cell<bool>,
    ) -> Db<()> {
        let ids = enqueue::reserve_ids(session, batch);
        let (begun, (now, ids)) = join(session.run("BEGIN"), join(self.shared.time.now(session), ids)).await;
        begun?;
        enqueue::give_ids(batch, ids?);
        let tx = Tx::new(session, &self.shared, now?);
        apply_all(&tx, batch).await?;
        let differences = tx.differences();
        counters::prepare(session).await?;
        let begun = Instant::now();
        is_committing.set(true);
        let (written, committed) = join(counters::write(session, &differences), session.run("COMMIT")).await;
        if let Err(error) = written {
            // Then COMMIT was a ROLLBACK, unless the connection was lost.
            is_committing.set(errors::kind(&error) == Kind::Away);
            return Err(error);
        }
        committed?;
        self.shared.meter.committed(begun.elapsed());
        let awoken = tx.awoken();
        if !awoken.is_empty() {
            self.shared.tell(&awoken);
        }
        Ok(())
    }

    fn answer(&self, batch: Vec<Operation>, failure: Option<StoreError>) {
        if let Some(error) = &failure {
            self.complaint.tell(|more| {
                tracing::warn!(operations = batch.len(), "the store did not commit: {error}{more}");
            });
        }
        for operation in batch {
            self.shared.meter.answered();
            operation.answer(failure.clone(), &self.shared);
        }
    }
}

/// Ends and enqueues together, then the others one after another, and claims last: these see what the others freed.
async fn apply_all(tx: &Tx<'_>, batch: &mut [Operation]) -> Db<()> {
    let (mut completes, mut enqueues, mut claims, mut others) = (vec![], vec![], vec![], vec![]);
    for operation in batch {
        match operation {
            Operation::Complete(waiting) => completes.push(&mut **waiting),
            Operation::Enqueue(waiting) => enqueues.push(&mut **waiting),
            Operation::Claim(waiting) => claims.push(&mut **waiting),
            Operation::Other(other) => others.push(other),
        }
    }
    let (completed, enqueued) =
        join(settle::complete_all(tx, &mut completes), enqueue::enqueue_all(tx, &mut enqueues)).await;
    completed?;
    enqueued?;
    for other in others {
        other.apply(tx).await?;
    }
    super::claim::lock_limited(tx, &claims).await?;
    for claim in claims {
        super::operation::Applied::apply(claim, tx).await?;
    }
    Ok(())
}

/// Makes the leases of this process valid again, before anybody else may take them back.
async fn keep_leases(session: &Session, shared: &Shared) -> Result<(), StoreError> {
    let Some((owner, lease)) = shared.owner() else { return Ok(()) };
    let kept =
        tokio::time::timeout(TRANSACTION_MAX, leases::keep_owned(session, shared, &owner, lease)).await;
    match kept {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(errors::from_postgres(&shared.place, &error)),
        Err(_) => Err(errors::away(&shared.place, "it gave no answer")),
    }
}

/// Up to a quarter more or less, so that hosts don't come together.
pub(super) fn jitter(wait: Duration) -> Duration {
    wait.mul_f64(0.75 + fastrand::f64() / 2.0)
}
