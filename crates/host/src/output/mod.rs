//! This process's standard output and standard error, while a host runs: guests' lines, the host's own lines and the
//! access log all pass through here.
//!
//! ```text
//! Source::put -> Queue (bounded for each source) -> a thread for each stream -> the descriptor
//! ```
//!
//! A stream may be stalled, full, closed or gone. So nobody but its thread ever writes to it: whoever has a line puts it
//! in the queue, and goes on. Guests alone wait, and not for long ([`Source::room`]). Lines that can't be written are
//! counted, and the count is told on standard error as soon as that is possible.

mod queue;
mod stream;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tracing::warn;

use crate::admin::api::LogLine;
use crate::logs::{HostLog, LogFormat, render};
use queue::{Dropped, LINE_BYTES, Queue, SourceId};
pub use stream::{until, write_all};

/// Bytes that are written together, as long as there are so many.
const BATCH_BYTES: usize = 64 << 10;

/// How often the thread looks whether there is a count to tell, while there is one.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// The time that the end leaves to a standard error that standard output has made wait.
const LAST_MIN: Duration = Duration::from_millis(200);

/// The two streams, and what is kept of the host's own lines. All its clones are the same.
#[derive(Clone)]
pub struct Output {
    stdout: Stream,
    stderr: Stream,
    own: Source,
    host_log: Arc<HostLog>,
}

impl Output {
    /// Starts the threads that write.
    ///
    /// # Errors
    ///
    /// The system has no thread left.
    pub fn start() -> io::Result<Output> {
        let stderr = Stream::start(Name::Stderr)?;
        let own = stderr.source("the host itself".into());
        Ok(Output { stdout: Stream::start(Name::Stdout)?, stderr, own, host_log: Arc::default() })
    }

    pub(crate) fn stdout(&self) -> &Stream {
        &self.stdout
    }

    pub(crate) fn stderr(&self) -> &Stream {
        &self.stderr
    }

    /// Where the host's own lines go.
    pub fn own(&self) -> &Source {
        &self.own
    }

    /// Where the host's own lines are kept.
    pub fn host_log(&self) -> &Arc<HostLog> {
        &self.host_log
    }

    /// Writes what waits, as far as the streams take it within this time, and ends them.
    pub fn close(&self, within: Duration) {
        let deadline = Instant::now() + within;
        self.stdout.close(deadline);
        self.stderr.close(deadline.max(Instant::now() + LAST_MIN));
    }
}

/// One of the streams.
#[derive(Clone)]
pub(crate) struct Stream(Arc<Shared>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Stdout,
    Stderr,
}

struct Shared {
    name: Name,
    inner: Mutex<Inner>,
    /// Rung for the thread that writes, and when it has ended.
    changed: Condvar,
    /// Rung for sources that wait.
    room: Notify,
    /// When the thread has to have ended.
    deadline: OnceLock<Instant>,
    thread: OnceLock<JoinHandle<()>>,
}

struct Inner {
    queue: Queue<Text>,
    /// Why the last write failed, if it did.
    broken: Option<String>,
    ended: bool,
}

/// Lines that wait.
pub(crate) enum Text {
    /// As they are written, with their line ends.
    Ready(String),
    /// One of a guest's, which the thread renders.
    Guest(Arc<LogLine>, LogFormat),
}

/// One that writes lines to a stream. Its lines are bounded by themselves.
#[derive(Clone)]
pub struct Source {
    stream: Stream,
    id: SourceId,
}

impl Source {
    /// Takes whole lines, or counts them as dropped. Never waits.
    pub fn put(&self, lines: String) {
        self.put_text(Text::Ready(lines));
    }

    pub(crate) fn put_text(&self, text: Text) {
        let shared = &self.stream.0;
        let mut inner = shared.lock();
        let was_empty = inner.queue.is_empty();
        inner.queue.put(self.id, text.bytes(), text, Instant::now);
        drop(inner);
        if was_empty {
            shared.changed.notify_all();
        }
    }

    /// Its lines that were never written.
    pub(crate) fn dropped(&self) -> u64 {
        self.stream.0.lock().queue.dropped(self.id)
    }

    /// Whether a guest may write without a wait: there is room, or a wait would be in vain.
    pub(crate) fn may_write(&self) -> bool {
        self.stream.0.lock().queue.may_write(self.id, Instant::now)
    }

    /// Waits until that is so: not for long where the stream is stalled.
    pub(crate) async fn room(&self) {
        let shared = &self.stream.0;
        loop {
            let mut room = std::pin::pin!(shared.room.notified());
            room.as_mut().enable();
            let until = {
                let inner = shared.lock();
                if inner.queue.may_write(self.id, Instant::now) {
                    return;
                }
                inner.queue.waits_until(self.id)
            };
            let late = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = room => {}
                () = late => {}
            }
        }
    }
}

impl Stream {
    fn start(name: Name) -> io::Result<Stream> {
        let stream = Stream(Arc::new(Shared {
            name,
            inner: Mutex::new(Inner { queue: Queue::new(), broken: None, ended: false }),
            changed: Condvar::new(),
            room: Notify::new(),
            deadline: OnceLock::new(),
            thread: OnceLock::new(),
        }));
        let shared = stream.0.clone();
        let thread = format!("wasmhost-{name}");
        let thread = std::thread::Builder::new().name(thread).spawn(move || match name {
            Name::Stdout => shared.run(io::stdout().as_fd()),
            Name::Stderr => shared.run(io::stderr().as_fd()),
        })?;
        let _ = stream.0.thread.set(thread);
        Ok(stream)
    }

    /// Whether the thread that writes still works.
    pub(crate) fn is_alive(&self) -> bool {
        self.0.thread.get().is_some_and(|thread| !thread.is_finished())
    }

    /// Adds a source. `name` completes "12 lines of ...".
    pub(crate) fn source(&self, name: String) -> Source {
        Source { stream: self.clone(), id: self.0.lock().queue.source(name) }
    }

    fn close(&self, deadline: Instant) {
        let shared = &self.0;
        // Under the lock, so that the thread is either before its look at the deadline or waits for the bell.
        let inner = shared.lock();
        let _ = shared.deadline.set(deadline);
        shared.changed.notify_all();
        // A thread that hangs in a write goes with the process.
        let left = deadline.saturating_duration_since(Instant::now()) + LAST_MIN;
        let waited = shared.changed.wait_timeout_while(inner, left, |inner| !inner.ended);
        drop(waited);
    }
}

/// The work of the thread.
impl Shared {
    fn run(&self, stream: BorrowedFd<'_>) {
        let mut batch = Batch::default();
        while self.fill(&mut batch) {
            let (written, err) = write_all(stream, batch.text.as_bytes(), || {
                // While this stream is stalled, the other one may not be.
                if self.name == Name::Stdout {
                    self.tell(false);
                }
                self.is_over()
            });
            self.account(&batch, written, err);
            self.tell(false);
        }
        self.tell(true);
        self.lock().ended = true;
        self.changed.notify_all();
    }

    /// Waits for lines and takes what comes; false when there won't be any more, or no more time for them.
    fn fill(&self, batch: &mut Batch) -> bool {
        batch.clear();
        let mut inner = self.lock();
        while inner.queue.is_empty() {
            if self.deadline.get().is_some() {
                return false;
            }
            if !inner.queue.has_dropped() {
                inner = self.changed.wait(inner).unwrap_or_else(|poison| poison.into_inner());
                continue;
            }
            inner = match self.changed.wait_timeout(inner, TELL_EVERY) {
                Ok((inner, _)) => inner,
                Err(poison) => poison.into_inner().0,
            };
            if inner.queue.is_empty() {
                drop(inner);
                self.tell(false);
                inner = self.lock();
            }
        }
        if self.is_over() {
            return false;
        }
        let (now, mut bytes) = (Instant::now(), 0);
        while bytes < BATCH_BYTES
            && let Some((source, text)) = inner.queue.take(now)
        {
            bytes += text.bytes() + LINE_BYTES;
            batch.lines.push((source, text));
        }
        drop(inner);
        self.room.notify_waiters();
        // Without the lock, which each guest's line needs.
        batch.render();
        true
    }

    fn account(&self, batch: &Batch, written: usize, err: Option<io::Error>) {
        let mut inner = self.lock();
        inner.broken = err.map(|err| err.to_string());
        let now = Instant::now();
        for (source, end) in &batch.ends {
            if *end > written {
                inner.queue.lose(*source, now);
            }
        }
    }

    /// Tells how many lines were dropped, where it's time to.
    fn tell(&self, at_end: bool) {
        let (dropped, why) = {
            let mut inner = self.lock();
            if at_end {
                inner.queue.lose_all(Instant::now());
            }
            if !inner.queue.has_dropped() {
                return;
            }
            let is_broken = inner.broken.is_some();
            if is_broken && self.name == Name::Stderr {
                // There is nobody to tell.
                return;
            }
            let dropped = match at_end {
                true => inner.queue.tell_all(Instant::now()),
                false => inner.queue.tell(is_broken, Instant::now()),
            };
            (dropped, inner.broken.clone())
        };
        let why = match why {
            Some(err) => format!("{} can't be written: {err}", self.name),
            None => format!("nobody reads {} fast enough", self.name),
        };
        for Dropped { source, lines } in dropped {
            let (noun, verb) = if lines == 1 { ("line", "was") } else { ("lines", "were") };
            warn!("{lines} {noun} of {source} {verb} dropped: {why}");
        }
    }

    fn is_over(&self) -> bool {
        self.deadline.get().is_some_and(|deadline| Instant::now() >= *deadline)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code that runs under the lock panics.
        self.inner.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

/// Lines that are written together.
#[derive(Default)]
struct Batch {
    lines: Vec<(SourceId, Text)>,
    text: String,
    /// Whose they are, and where each ends.
    ends: Vec<(SourceId, usize)>,
}

impl Batch {
    fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }

    fn render(&mut self) {
        for (source, text) in self.lines.drain(..) {
            match text {
                Text::Ready(lines) => self.text.push_str(&lines),
                Text::Guest(line, format) => render(&line, format, &mut self.text),
            }
            self.ends.push((source, self.text.len()));
        }
    }
}

impl Text {
    fn bytes(&self) -> usize {
        match self {
            Text::Ready(lines) => lines.len(),
            Text::Guest(line, _) => line.line.len(),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Name::Stdout => "stdout",
            Name::Stderr => "stderr",
        })
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.name.fmt(f)
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({})", self.0.name)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({})", self.stream.0.name)
    }
}
