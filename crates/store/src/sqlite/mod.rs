//! The store of one host: one SQLite file, one thread that writes it and one that reads it. A store without a file has
//! one thread for both.
//!
//! [`SqliteStore`] checks each call and sends it to `writer` or `reader`. The writer, to whom `crate::door` leads and for whom
//! process types wait in `crate::lines`, applies it, commits, and answers (`operation` is what it sees of each);
//! each operation has a file: `enqueue`, `claim`, `settle`, `leases`, `intervene`, `pause`, `prune`, `ticks`, `releases`,
//! `counts`. `members` are no rows of the file: one host has it.
//! The reader's questions are in `views` and `list`; `releases_in_file` asks without being the host. The tables are in `schema_1.sql` and the files after it.
//!
//! A store with a file has more beside it. `ids` locks it for one host and remembers the highest id, `presence` sees when
//! it is deleted, `reserve` keeps room back for a full disk, `damage` knows whether it is damaged, and `backup` copies it.

mod attempts;
mod backup;
mod claim;
mod counts;
mod damage;
mod depths;
mod enqueue;
mod errors;
mod ids;
mod inbox;
mod intervene;
mod keys;
mod leases;
mod list;
mod members;
mod operation;
mod pause;
mod presence;
mod prune;
mod reader;
mod releases;
mod releases_in_file;
mod reserve;
mod schema;
mod settle;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_beside;
#[cfg(test)]
mod tests_files;
#[cfg(test)]
mod tests_lines;
mod ticks;
mod values;
mod views;
mod writer;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::Moment;
use crate::jobs::{
    Claim, EnqueueError, Enqueued, Failure, Holder, Intervened, Intervention, JobDetail, JobFilter, JobId,
    JobView, Jobs, Lease, LeasedJob, NewJob, Page, QueueCounts, Retention, Settled, Swept,
};
use crate::lines::Lines;
use crate::members::Table;
use crate::written::{Meter, Written};
use crate::{Clock, Complaint, StoreError, SystemClock, Timestamp, rules};

use self::backup::Copying;
use self::damage::Damage;
use self::ids::HostFile;
use self::operation::Write;
use self::presence::Presence;
use self::reader::Reader;
use self::reserve::Reserve;
use self::writer::{Beside, Writer};

pub use self::releases_in_file::ReleasesInFile;

/// The way to the writer.
type Door = crate::door::Door<Box<dyn operation::Operation>, reader::Question>;
type WeakDoor = crate::door::WeakDoor<Box<dyn operation::Operation>, reader::Question>;

/// A SQLite database as a store. Clones are handles of the same one.
///
/// When the last handle is dropped, what had been accepted is finished and the file is closed, in the background;
/// [`close`](SqliteStore::close) waits for it.
#[derive(Clone)]
pub struct SqliteStore {
    /// `None` where there is no file.
    copying: Option<Arc<Copying>>,
    writer: Door,
    /// `None` where there is no file: no second connection would see the same tables, so the writer's answers
    /// questions too.
    reader: Option<mpsc::Sender<reader::Message>>,
    changes: watch::Receiver<u64>,
    meter: Arc<Meter>,
    clock: Arc<dyn Clock>,
    holder: Arc<OnceLock<Arc<dyn Holder>>>,
    members: Arc<Mutex<Table>>,
}

impl SqliteStore {
    /// Opens the file, or makes it; its directory must exist. Blocks while it does.
    pub fn open(path: &Path) -> Result<SqliteStore, StoreError> {
        Self::open_with_clock(path, Arc::new(SystemClock::new()))
    }

    /// The same, with another clock.
    pub fn open_with_clock(path: &Path, clock: Arc<dyn Clock>) -> Result<SqliteStore, StoreError> {
        let path = &resolved(path);
        presence::check_not_orphaned(path)?;
        presence::check_single_name(path)?;
        schema::create(path).map_err(|error| StoreError::Open(schema::cannot_create(path, &error)))?;
        let mut host = HostFile::take(path)?;
        backup::clean_up(path);
        let opened = Opened::open(path, &mut host, clock.now()).or_else(|error| {
            // On a full disk SQLite can't make the log's index, and the ids can't go on.
            match Reserve::give_up_at_start(path) {
                true => Opened::open(path, &mut host, clock.now()),
                false => Err(error),
            }
        });
        let opened = opened.map_err(|error| match reserve::is_full(path) {
            true => StoreError::Full(errors::no_room(path)),
            false => error,
        });
        let Opened { writing, reading, copying } = opened?;
        let damage = Arc::new(Damage::of(path));
        let (to_reader, inbox) = mpsc::channel(reader::WAITING_MAX);
        let (clock_there, damage_there) = (Arc::clone(&clock), Arc::clone(&damage));
        let reader = Reader { connection: reading, clock: clock_there, damage: damage_there, inbox };
        let (presence, reserve) = (Presence::note(path), Reserve::keep(path));
        reserve.bound_log(&writing).map_err(|error| errors::from_sqlite(&writing, &error))?;
        let beside = Beside { host: RefCell::new(host), presence, reserve };
        let reader = spawn("store-reader", move || reader.run())?;
        let store = SqliteStore::start(writing, clock, Some((reader, beside)), damage)?;
        Ok(SqliteStore { copying: Some(Arc::new(copying)), reader: Some(to_reader), ..store })
    }

    /// A store without a file. Everything in it goes with its last handle.
    pub fn in_memory() -> Result<SqliteStore, StoreError> {
        Self::in_memory_with_clock(Arc::new(SystemClock::new()))
    }

    /// The same, with another clock.
    pub fn in_memory_with_clock(clock: Arc<dyn Clock>) -> Result<SqliteStore, StoreError> {
        SqliteStore::start(schema::open_in_memory()?, clock, None, Arc::default())
    }

    /// Starts the writer, which waits for the end of the reader before it closes its connection.
    fn start(
        connection: Connection,
        clock: Arc<dyn Clock>,
        with_file: Option<(JoinHandle<()>, Beside)>,
        damage: Arc<Damage>,
    ) -> Result<SqliteStore, StoreError> {
        let (to_writer, inbox) = mpsc::unbounded_channel();
        let (changed, changes) = watch::channel(0);
        let meter = Arc::new(Meter::default());
        let holder = Arc::new(OnceLock::new());
        let (reader, beside) = with_file.unzip();
        let writer = Writer {
            connection,
            clock: Arc::clone(&clock),
            holder: Arc::clone(&holder),
            inbox,
            lines: Lines::new(),
            rests_until: None,
            changes: changed,
            meter: Arc::clone(&meter),
            reader,
            held_back: RefCell::default(),
            damage,
            beside,
            complaint: Complaint::default(),
        };
        spawn("store-writer", move || writer.run())?;
        let writer = Door::new(to_writer);
        Ok(SqliteStore {
            copying: None,
            writer,
            reader: None,
            changes,
            meter,
            clock,
            holder,
            members: Arc::default(),
        })
    }

    /// Finishes what was accepted and closes the file; calls that come later, on any handle, get
    /// [`StoreError::Closed`]. Returns when the file is closed.
    pub async fn close(&self) {
        // A backup under way is ended, and its connection closed: the writer's is the one that tidies up.
        if let Some(copying) = &self.copying {
            copying.close().await;
        }
        // The reader first: the writer waits for its end.
        if let Some(reader) = &self.reader {
            let _ = reader.send(reader::Message::Close).await;
        }
        let (closed, wait) = oneshot::channel();
        if self.writer.close(closed) {
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
            () = async {
                match &self.reader {
                    Some(reader) => reader.closed().await,
                    None => std::future::pending().await,
                }
            } => {}
        }
    }

    /// Writes a consistent copy of all that was answered so far to a new file: a store like any other, with one file
    /// and no log. The store stays in use, and its writer isn't held up; its log grows meanwhile.
    ///
    /// Returns when the copy is on the disk. A file that is there is never replaced; where this fails, none is left.
    pub async fn backup(&self, to: &Path) -> Result<(), StoreError> {
        let to = to.to_path_buf();
        let Some(copying) = self.copying.clone() else {
            let now = self.clock.now();
            return self.read(move |connection, _| Ok(backup::copy_to(connection, None, &to, now))).await?;
        };
        let now = self.clock.now();
        let (done, answer) = oneshot::channel();
        spawn("store-backup", move || drop(done.send(copying.copy(&to, now))))?;
        answer.await.map_err(|_| errors::closed())?
    }

    /// Writes the same copy of a store that no host need have open, and that need not be writable. Blocks while it does.
    pub fn copy_file(from: &Path, to: &Path) -> Result<(), StoreError> {
        backup::copy_file(&resolved(from), to, SystemClock::new().now())
    }

    /// How much was written since it was opened: operations per commit say how well group commit works.
    pub fn written(&self) -> Written {
        self.meter.read()
    }

    async fn write<W: Write>(&self, write: W) -> Result<W::Answer, StoreError> {
        let (operation, answer) = operation::operation(write);
        self.writer.send(operation).await?;
        answer.await.map_err(|_| errors::closed())?
    }

    async fn read<A, F>(&self, ask: F) -> Result<A, StoreError>
    where
        A: Send + 'static,
        F: Fn(&Connection, Moment) -> rusqlite::Result<A> + Send + 'static,
    {
        let (question, answer) = reader::question(ask);
        let sent = match &self.reader {
            Some(reader) => reader.send(reader::Message::Question(question)).await.is_ok(),
            None => self.writer.ask(question).await.is_ok(),
        };
        if !sent {
            return Err(errors::closed());
        }
        answer.await.map_err(|_| errors::closed())?
    }
}

/// The connections of a store with a file.
struct Opened {
    writing: Connection,
    reading: Connection,
    copying: Copying,
}

impl Opened {
    fn open(path: &Path, host: &mut HostFile, now: Timestamp) -> Result<Opened, StoreError> {
        let (writing, version) = schema::open_writer(path)?;
        let settled = host.settle(&writing, version, now);
        settled.map_err(|error| errors::from_sqlite(&writing, &error))?;
        Ok(Opened { writing, reading: schema::open_reader(path)?, copying: Copying::open(path)? })
    }
}

/// The path without links, so that whatever name a host knows a store by, it has one lock and one log.
fn resolved(path: &Path) -> PathBuf {
    let folder = || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Some(folder.canonicalize().ok()?.join(path.file_name()?))
    };
    path.canonicalize().ok().or_else(folder).unwrap_or_else(|| path.to_owned())
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    std::thread::Builder::new()
        .name(name.to_string())
        .spawn(work)
        .map_err(|error| StoreError::Open(format!("the thread {name} can't be started: {error}")))
}

#[async_trait]
impl Jobs for SqliteStore {
    async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<Vec<Enqueued>, EnqueueError> {
        rules::check(&jobs, self.clock.now())?;
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        self.write(enqueue::Enqueue { jobs }).await?
    }

    fn in_line_of(&self, source: &str) -> Arc<dyn Jobs> {
        Arc::new(SqliteStore { writer: self.writer.of(source), ..self.clone() })
    }

    async fn claim(&self, claim: Claim) -> Result<Vec<LeasedJob>, StoreError> {
        let handover = self.write(claim::ClaimJobs::new(claim, self.writer.downgrade())).await?;
        Ok(handover.accept())
    }

    async fn begin_call(&self, lease: Lease) -> Result<bool, StoreError> {
        self.write(leases::Begin(lease)).await
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

    async fn give_back(&self, lease: Lease) -> Result<Settled, StoreError> {
        self.write(settle::Release { lease, begun: false }).await
    }

    fn hold(&self, holder: Arc<dyn Holder>) {
        let _ = self.holder.set(holder);
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
