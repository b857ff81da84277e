//! The store of several hosts: a schema of a PostgreSQL database.
//!
//! [`PostgresStore`] checks each call and sends it to the `writer` or the `reader`, as SQLite's does: two tasks on a thread of
//! the store's own, each with a connection. A third one listens to what other hosts tell (`listen`). `connect` opens
//! connections, `schema` makes the tables (`schema_1.sql`), and a `session` is one connection with its statements. Operations
//! have a file each: `enqueue`, `claim`, `settle`, `leases`, `intervene`, `pause`, `prune`, `ticks`, `releases`, `counts`, `members`, `components`;
//! `operation` is what the writer sees of them, and `tx` is the transaction that they work in. Questions are in `views` and
//! `list`.
//!
//! Different from SQLite: other hosts write the same tables at the same moment. Rows are locked before they are judged; a queue
//! with a bound has a lock of its own; the numbers of a queue are changed by differences (`counters`); a commit may be done and
//! its answer lost (`operation`); and the time is the server's (`shared`).

mod attempts;
mod claim;
mod components;
mod connect;
mod counters;
mod counts;
mod enqueue;
mod errors;
mod intervene;
mod keys;
mod leases;
mod list;
mod listen;
mod members;
mod operation;
mod pause;
mod prune;
mod reader;
mod releases;
mod schema;
mod session;
mod settle;
mod shared;
mod ticks;
mod tls;
mod tx;
mod values;
mod views;
mod writer;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot, watch};
use wasmhost_config::PostgresUrl;

use crate::jobs::{
    Claim, EnqueueError, Enqueued, Failure, Holder, Intervened, Intervention, JobDetail, JobFilter, JobId,
    JobView, Jobs, Lease, LeasedJob, NewJob, Page, QueueCounts, Retention, Settled, Swept,
};
use crate::lines::Lines;
use crate::written::Written;
use crate::{Clock, Complaint, StoreError, Timestamp, door, rules};

use self::connect::Connector;
use self::listen::Listening;
use self::operation::{Operation, Write};
use self::reader::{Question, Read};
use self::shared::{Shared, Time};
use self::writer::{Open, Writer};

/// How long a caller waits for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(9);

/// The way to the writer.
type Door = door::Door<Operation, Infallible>;
type WeakDoor = door::WeakDoor<Operation, Infallible>;
type Message = door::Message<Operation, Infallible>;

/// A schema of a PostgreSQL database as a store. Clones are handles of the same one.
///
/// While the server is away, calls fail within 10 s with [`StoreError::Unavailable`], and it is tried again and again. An answer to
/// a lease that failed so can be given again: it is stored once.
#[derive(Clone)]
pub struct PostgresStore {
    writer: Door,
    reader: mpsc::Sender<Box<dyn Question>>,
    shared: Arc<Shared>,
}

impl PostgresStore {
    /// Connects, and makes the schema or brings it to this version.
    ///
    /// # Errors
    ///
    /// [`StoreError::Open`] and [`StoreError::NewerSchema`], with what to do.
    pub async fn open(url: &PostgresUrl) -> Result<PostgresStore, StoreError> {
        Self::open_by(url, Time::Server).await
    }

    /// The same, with another clock than the server's: for tests.
    ///
    /// # Errors
    ///
    /// As [`PostgresStore::open`].
    pub async fn open_with_clock(
        url: &PostgresUrl,
        clock: Arc<dyn Clock>,
    ) -> Result<PostgresStore, StoreError> {
        Self::open_by(url, Time::Given(clock)).await
    }

    async fn open_by(url: &PostgresUrl, time: Time) -> Result<PostgresStore, StoreError> {
        let connector = Arc::new(Connector::new(url.clone())?);
        let shared = Arc::new(Shared::new(connector.place().clone(), time));
        let (to_writer, inbox) = mpsc::unbounded_channel();
        let (to_reader, questions) = mpsc::channel(reader::WAITING_MAX);
        let (opened, open) = oneshot::channel();
        let writer = Writer {
            connector: connector.clone(),
            shared: shared.clone(),
            inbox,
            lines: Lines::new(),
            again: Vec::new(),
            closing: Vec::new(),
            rests_until: None,
            complaint: Complaint::default(),
        };
        let there = shared.clone();
        let work = async move || match connect(&connector).await {
            Ok(Connections { writing, reading, listening }) => {
                let _ = opened.send(Ok(()));
                let read = tokio::spawn(reader::run(connector.clone(), there.clone(), questions, reading));
                let listen = tokio::spawn(listen::run(connector, there, listening));
                writer.run(writing).await;
                read.abort();
                listen.abort();
            }
            Err(error) => drop(opened.send(Err(error))),
        };
        spawn("store-postgres", work)?;
        open.await.map_err(|_| StoreError::Closed)??;
        Ok(PostgresStore { writer: Door::new(to_writer), reader: to_reader, shared })
    }

    /// Finishes what was accepted, as far as the server is in reach, and disconnects; calls that come later, on any handle,
    /// get [`StoreError::Closed`].
    pub async fn close(&self) {
        let (closed, wait) = oneshot::channel();
        if self.writer.close(closed) {
            let _ = wait.await;
        } else {
            self.writer.closed().await;
        }
    }

    /// Waits until its thread has ended: it was closed, or the thread panicked.
    pub async fn ended(&self) {
        self.writer.closed().await;
    }

    /// How much was written since it was opened: operations per commit say how well group commit works.
    pub fn written(&self) -> Written {
        self.shared.meter.read()
    }

    async fn write<W: Write>(&self, write: W) -> Result<W::Answer, StoreError> {
        let (waiting, answer) = operation::waiting(write);
        self.send(Operation::Other(waiting), answer).await
    }

    async fn send<A>(&self, operation: Operation, answer: operation::Awaited<A>) -> Result<A, StoreError> {
        let answered = async {
            self.writer.send(operation).await?;
            answer.await.map_err(|_| StoreError::Closed)?
        };
        self.in_time(answered).await
    }

    async fn read<R: Read>(&self, read: R) -> Result<R::Answer, StoreError> {
        let (question, answer) = reader::question(read);
        let answered = async {
            self.reader.send(question).await.map_err(|_| StoreError::Closed)?;
            answer.await.map_err(|_| StoreError::Closed)?
        };
        self.in_time(answered).await
    }

    async fn in_time<A>(
        &self,
        answered: impl Future<Output = Result<A, StoreError>>,
    ) -> Result<A, StoreError> {
        match tokio::time::timeout(ANSWER_MAX, answered).await {
            Ok(answer) => answer,
            Err(_) => Err(errors::away(
                &self.shared.place,
                &format!(
                    "it gave no answer within {} s, and nobody knows yet whether it was stored",
                    ANSWER_MAX.as_secs()
                ),
            )),
        }
    }
}

struct Connections {
    writing: Open,
    reading: Open,
    listening: Listening,
}

/// Opens all connections, and sees to it that the server and the schema are as they must be.
async fn connect(connector: &Connector) -> Result<Connections, StoreError> {
    let place = connector.place();
    let writing = Open::of(connector.connect().await?);
    let opening = async {
        connect::check_server(&writing.session).await?;
        let reading = Open::of(connector.connect().await?);
        connect::check_no_pooler(&writing.session, &reading.session).await?;
        schema::migrate(&writing.session).await?;
        let listening = Listening::on(connector.connect().await?).await;
        let listening = listening.map_err(|error| errors::opening_failed(place, &error))?;
        Ok((reading, listening))
    };
    // A schema may be long in the making by another host.
    let (reading, listening) = match tokio::time::timeout(Duration::from_secs(60), opening).await {
        Ok(opened) => opened?,
        Err(_) => {
            return Err(StoreError::Open(format!("{place} can't be opened: it gave no answer within 60 s")));
        }
    };
    Ok(Connections { writing, reading, listening })
}

/// Does this on a thread of its own: guests that are busy don't hold up the store's timers.
fn spawn(name: &str, work: impl AsyncFnOnce() + Send + 'static) -> Result<(), StoreError> {
    let failed =
        |error: std::io::Error| StoreError::Open(format!("the thread {name} can't be started: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread.spawn(move || runtime.block_on(work())).map(drop).map_err(failed)
}

/// PostgreSQL's texts can't have a zero byte.
fn check_zeros(jobs: &[NewJob]) -> Result<(), EnqueueError> {
    let of = |job: &NewJob| -> Option<&str> {
        let key = job.unique.as_ref().map_or("", |unique| unique.key.as_str());
        [
            ("queue's name", job.queue.as_str()),
            ("content type", job.content_type.as_str()),
            ("unique key", key),
        ]
        .into_iter()
        .find_map(|(what, text)| text.contains('\0').then_some(what))
    };
    match jobs.iter().find_map(of) {
        Some(what) => Err(EnqueueError::Invalid(format!(
            "the {what} has a zero byte in it, which the store can't keep"
        ))),
        None => Ok(()),
    }
}

#[async_trait]
impl Jobs for PostgresStore {
    fn in_line_of(&self, source: &str) -> Arc<dyn Jobs> {
        Arc::new(PostgresStore { writer: self.writer.of(source), ..self.clone() })
    }

    async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<Vec<Enqueued>, EnqueueError> {
        let now = match &self.shared.time {
            Time::Given(clock) => clock.now(),
            // Ten years from now is about the same by all clocks.
            Time::Server => Timestamp::now(),
        };
        rules::check(&jobs, now)?;
        check_zeros(&jobs)?;
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let (waiting, answer) = operation::waiting(enqueue::Enqueue::new(jobs));
        self.send(Operation::Enqueue(waiting), answer).await?
    }

    async fn claim(&self, claim: Claim) -> Result<Vec<LeasedJob>, StoreError> {
        let (waiting, answer) = operation::waiting(claim::ClaimJobs::new(claim, &self.writer));
        Ok(self.send(Operation::Claim(waiting), answer).await?.accept())
    }

    async fn begin_call(&self, lease: Lease) -> Result<bool, StoreError> {
        self.write(leases::Begin(lease)).await
    }

    async fn renew(&self, leases: Vec<Lease>, lease: Duration) -> Result<Vec<Lease>, StoreError> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        self.write(leases::Renew { leases, lease }).await
    }

    async fn complete(&self, lease: Lease) -> Result<Settled, StoreError> {
        let (waiting, answer) = operation::waiting(settle::Complete(lease));
        self.send(Operation::Complete(waiting), answer).await
    }

    async fn fail(&self, lease: Lease, failure: Failure) -> Result<Settled, StoreError> {
        let message = values::column(&rules::cut(failure.message));
        self.write(settle::Fail { lease, failure: Failure { message: rules::cut(message), ..failure } }).await
    }

    async fn release(&self, lease: Lease) -> Result<Settled, StoreError> {
        self.write(settle::Release { lease, begun: true }).await
    }

    async fn give_back(&self, lease: Lease) -> Result<Settled, StoreError> {
        self.write(settle::Release { lease, begun: false }).await
    }

    fn hold(&self, holder: Arc<dyn Holder>) {
        let _ = self.shared.holder.set(holder);
    }

    async fn free_leases(&self, prefix: &str) -> Result<u64, StoreError> {
        self.write(leases::FreeLeases { prefix: prefix.to_string() }).await
    }

    async fn next_due(&self, queues: &[String]) -> Result<Option<Timestamp>, StoreError> {
        self.read(views::NextDue(queues.to_vec())).await
    }

    async fn pause(&self, queue: &str) -> Result<bool, StoreError> {
        rules::check_queue(queue).map_err(StoreError::Invalid)?;
        self.write(pause::Pause { queue: values::column(queue), paused: true }).await
    }

    async fn resume(&self, queue: &str) -> Result<bool, StoreError> {
        self.write(pause::Pause { queue: values::column(queue), paused: false }).await
    }

    async fn intervene(&self, id: JobId, intervention: Intervention) -> Result<Intervened, StoreError> {
        self.write(intervene::Intervene { id, intervention }).await
    }

    async fn intervene_all(
        &self,
        filter: JobFilter,
        intervention: Intervention,
    ) -> Result<Swept, StoreError> {
        self.write(intervene::InterveneAll { filter: storable(filter), intervention }).await
    }

    async fn get(&self, id: JobId) -> Result<Option<JobDetail>, StoreError> {
        self.read(views::Get(id)).await
    }

    async fn list(&self, filter: JobFilter, page: Page) -> Result<Vec<JobView>, StoreError> {
        self.read(list::List { filter: storable(filter), page }).await
    }

    async fn counts(&self) -> Result<Vec<QueueCounts>, StoreError> {
        self.read(views::Counts).await
    }

    async fn prune(&self, retention: Retention) -> Result<u64, StoreError> {
        self.write(prune::Prune(retention)).await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }
}

/// The filter with texts that a column may have.
fn storable(filter: JobFilter) -> JobFilter {
    JobFilter {
        queue: filter.queue.map(|queue| values::column(&queue)),
        unique_key: filter.unique_key.map(|key| values::column(&key)),
        ..filter
    }
}
