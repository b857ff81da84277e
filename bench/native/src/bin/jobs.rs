//! Clients that give jobs to a wasmhost, and print as JSON how those went:
//!
//! | arguments | what |
//! | --- | --- |
//! | `until-done SOURCE CLIENTS SECONDS STORE PRIORITY` | each client enqueues one job after the other, and waits while the queue has enough of them; then until as many are done |
//! | `enqueue SOURCE CLIENTS SECONDS` | the same, whether or not anything is done |
//! | `pace SOURCE CLIENTS SECONDS RATE` | RATE jobs a second, at even times, whose payload is when each was due |
//!
//! SOURCE is the admin API's socket, or the URL of `bench/guests/producer`, which enqueues a job for each request. A
//! client is a connection that is kept. STORE is the host's SQLite file: what is done is read there.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::error::Error;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OpenFlags};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, LocalSet};
use wasmhost_bench_native::http;

/// Jobs that wait, or run, beyond which clients enqueue no more: enough that no worker waits for one.
const OUTSTANDING_MAX: u64 = 1_000;

/// How often the store is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How long nothing may become of the jobs.
const STANDSTILL_MAX: Duration = Duration::from_secs(30);

const USAGE: &str = "usage: jobs until-done SOURCE CLIENTS SECONDS STORE PRIORITY | enqueue SOURCE CLIENTS SECONDS | pace SOURCE CLIENTS SECONDS RATE";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (mode, source, clients, seconds, rest) = match arguments.as_slice() {
        [mode, source, clients, seconds, rest @ ..] => (*mode, *source, *clients, *seconds, rest),
        _ => return Err(USAGE.into()),
    };
    let load = Rc::new(Load { source: Source::parse(source), ..Load::default() });
    let clients: usize = clients.parse()?;
    let time = Duration::from_secs_f64(seconds.parse()?);
    // One thread: the host has the rest of the machine.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = LocalSet::new();
    let found = match (mode, rest) {
        ("until-done", [store, priority]) => {
            let (store, priority) = (Store::open(Path::new(store))?, priority.parse()?);
            tasks.block_on(&runtime, load.until_done(clients, time, store, priority))
        }
        ("enqueue", []) => tasks.block_on(&runtime, load.enqueue(clients, time)),
        ("pace", [rate]) => tasks.block_on(&runtime, load.pace(clients, time, rate.parse()?)),
        _ => return Err(USAGE.into()),
    }?;
    println!("{}", found.to_json());
    Ok(())
}

/// Where jobs are given to the host.
#[derive(Clone)]
enum Source {
    Admin(PathBuf),
    Guest(String),
}

impl Default for Source {
    fn default() -> Self {
        Source::Admin(PathBuf::new())
    }
}

impl Source {
    fn parse(text: &str) -> Source {
        match text.strip_prefix("http://") {
            Some(address) => Source::Guest(address.trim_end_matches('/').to_owned()),
            None => Source::Admin(text.into()),
        }
    }

    fn request(&self, payload: &str, priority: i16) -> String {
        match self {
            Source::Admin(_) => {
                let body = format!(r#"{{"payload":"{payload}","priority":{priority}}}"#);
                let length = body.len();
                format!(
                    "POST /v1/queues/default/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
                )
            }
            Source::Guest(address) => {
                format!("POST /one HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n")
            }
        }
    }

    async fn connect(&self) -> io::Result<Client> {
        Ok(match self {
            Source::Admin(socket) => Client::Admin(UnixStream::connect(socket).await?),
            Source::Guest(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Client::Guest(stream)
            }
        })
    }
}

enum Client {
    Admin(UnixStream),
    Guest(TcpStream),
}

impl Client {
    /// Returns when the job is durable.
    async fn enqueue(&mut self, request: &str) -> io::Result<()> {
        let answer = match self {
            Client::Admin(stream) => http::exchange(stream, request.as_bytes()).await,
            Client::Guest(stream) => http::exchange(stream, request.as_bytes()).await,
        };
        match answer? {
            (201, true) => Ok(()),
            (status, _) => Err(io::Error::other(format!("a job was answered with {status}"))),
        }
    }
}

#[derive(Default)]
struct Load {
    source: Source,
    enqueued: Cell<u64>,
    /// The number of those that are not done.
    outstanding: Cell<u64>,
    /// From a request to its answer.
    took: RefCell<Vec<Duration>>,
    /// In `pace`: when the jobs that nobody has sent yet were due.
    due: RefCell<VecDeque<SystemTime>>,
    more_due: Notify,
    closing: Cell<bool>,
}

/// The line of JSON that is printed.
struct Found {
    jobs: u64,
    /// In which they were enqueued.
    enqueue_seconds: f64,
    /// In which at least as many were done.
    seconds: Option<f64>,
    /// How many were done in them, those included that had waited there before.
    done: Option<u64>,
    /// How many were outstanding, on average, while more came.
    outstanding: Option<f64>,
    took: Vec<Duration>,
}

impl Load {
    async fn until_done(
        self: Rc<Self>,
        clients: usize,
        time: Duration,
        store: Store,
        priority: i16,
    ) -> Result<Found> {
        let ended_before = store.ended()?;
        let start = Instant::now();
        let until = start + time;
        let clients = self
            .clone()
            .start(clients, move |load, client| load.flow(client, until, OUTSTANDING_MAX, priority))
            .await?;
        let (mut looks, mut sum, mut last, mut progress) = (0_u64, 0_u64, 0, Instant::now());
        let mut enqueue_seconds = None;
        let done = loop {
            let ended = store.ended()? - ended_before;
            self.outstanding.set(self.enqueued.get().saturating_sub(ended));
            if Instant::now() < until {
                (looks, sum) = (looks + 1, sum + self.outstanding.get());
            } else if clients.iter().all(JoinHandle::is_finished) {
                enqueue_seconds.get_or_insert_with(|| start.elapsed().as_secs_f64());
                if ended >= self.enqueued.get() {
                    break ended;
                }
            }
            if ended > last {
                (last, progress) = (ended, Instant::now());
            }
            if progress.elapsed() > STANDSTILL_MAX {
                return Err(format!("{} jobs are not done", self.outstanding.get()).into());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        let seconds = start.elapsed().as_secs_f64();
        let found = self.end(clients, enqueue_seconds.unwrap_or(seconds)).await?;
        Ok(Found {
            seconds: Some(seconds),
            done: Some(done),
            outstanding: Some(sum as f64 / looks.max(1) as f64),
            ..found
        })
    }

    async fn enqueue(self: Rc<Self>, clients: usize, time: Duration) -> Result<Found> {
        let start = Instant::now();
        let clients = self
            .clone()
            .start(clients, move |load, client| load.flow(client, start + time, u64::MAX, 0))
            .await?;
        let load = self.clone();
        let found = load.end(clients, 0.0).await?;
        Ok(Found { enqueue_seconds: start.elapsed().as_secs_f64(), ..found })
    }

    async fn pace(self: Rc<Self>, clients: usize, time: Duration, rate: f64) -> Result<Found> {
        let clients = self.clone().start(clients, Load::flow_of_due).await?;
        let (start, start_time) = (Instant::now(), SystemTime::now());
        let all = (rate * time.as_secs_f64()) as u64;
        let mut next = 0;
        while next < all {
            // The clock ticks each millisecond: those that have become due since the last tick go together.
            let due = ((start.elapsed().as_secs_f64() * rate) as u64 + 1).min(all);
            for number in next..due {
                let due = start_time + Duration::from_secs_f64(number as f64 / rate);
                self.due.borrow_mut().push_back(due);
                self.more_due.notify_one();
            }
            next = due;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.closing.set(true);
        self.more_due.notify_waiters();
        let load = self.clone();
        let found = load.end(clients, 0.0).await?;
        Ok(Found { enqueue_seconds: start.elapsed().as_secs_f64(), ..found })
    }

    /// Connects the clients, and has each do this.
    async fn start<F: Future<Output = io::Result<()>> + 'static>(
        self: Rc<Self>,
        clients: usize,
        work: impl Fn(Rc<Self>, Client) -> F,
    ) -> Result<Vec<JoinHandle<io::Result<()>>>> {
        let mut all = Vec::new();
        for _ in 0..clients {
            let client = self.source.connect().await?;
            all.push(tokio::task::spawn_local(work(self.clone(), client)));
        }
        Ok(all)
    }

    async fn end(
        self: Rc<Self>,
        clients: Vec<JoinHandle<io::Result<()>>>,
        enqueue_seconds: f64,
    ) -> Result<Found> {
        for client in clients {
            client.await??;
        }
        let took = self.took.take();
        Ok(Found {
            jobs: self.enqueued.get(),
            enqueue_seconds,
            seconds: None,
            done: None,
            outstanding: None,
            took,
        })
    }

    async fn flow(
        self: Rc<Self>,
        mut client: Client,
        until: Instant,
        outstanding_max: u64,
        priority: i16,
    ) -> io::Result<()> {
        let request = self.source.request("", priority);
        while Instant::now() < until {
            if self.outstanding.get() >= outstanding_max {
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
            // Before it is sent: a hundred clients are not to go past the bound together.
            self.outstanding.update(|count| count + 1);
            self.enqueue_one(&mut client, &request).await?;
        }
        Ok(())
    }

    async fn flow_of_due(self: Rc<Self>, mut client: Client) -> io::Result<()> {
        loop {
            let more = self.more_due.notified();
            let due = self.due.borrow_mut().pop_front();
            match due {
                Some(due) => {
                    let due_us = due.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
                    let request = self.source.request(&due_us.to_string(), 0);
                    self.enqueue_one(&mut client, &request).await?;
                }
                None if self.closing.get() => return Ok(()),
                None => more.await,
            }
        }
    }

    async fn enqueue_one(&self, client: &mut Client, request: &str) -> io::Result<()> {
        let sent = Instant::now();
        client.enqueue(request).await?;
        self.took.borrow_mut().push(sent.elapsed());
        self.enqueued.update(|count| count + 1);
        Ok(())
    }
}

/// A host's store, while the host uses it.
struct Store {
    connection: Connection,
}

impl Store {
    fn open(file: &Path) -> Result<Store> {
        let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        Ok(Store { connection })
    }

    /// How many jobs have ended since the file was made, those included that were deleted since: all ids that were
    /// given, less those that wait or run.
    fn ended(&self) -> Result<u64> {
        let query = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'jobs'), 0)
                          - (SELECT coalesce(sum(scheduled + available + leased + retrying), 0) FROM queues)";
        let mut query = self.connection.prepare_cached(query)?;
        let ended: i64 = query.query_row([], |row| row.get(0))?;
        Ok(u64::try_from(ended)?)
    }
}

impl Found {
    fn to_json(&self) -> String {
        let Found { jobs, enqueue_seconds, seconds, done, outstanding, took } = self;
        let mut took = took.clone();
        took.sort_unstable();
        let at = |of_100: usize| {
            let at = (took.len() * of_100 / 100).min(took.len().saturating_sub(1));
            took.get(at).map_or(0.0, |took| took.as_secs_f64() * 1e3)
        };
        let number = |number: &Option<f64>| number.map_or("null".to_owned(), |number| format!("{number:.3}"));
        format!(
            r#"{{"jobs":{jobs},"enqueue_seconds":{enqueue_seconds:.3},"seconds":{},"done":{},"outstanding":{},"p50_ms":{:.3},"p99_ms":{:.3}}}"#,
            number(seconds),
            done.map_or("null".to_owned(), |done| done.to_string()),
            number(outstanding),
            at(50),
            at(99)
        )
    }
}
