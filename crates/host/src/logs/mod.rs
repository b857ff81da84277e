//! Guests' lines: printed on standard output, the last of them kept, and all of them sent to whoever follows.

mod kept;
mod line;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use wasmhost_engine::services::{InstanceName, LogSink, Stream};

use crate::admin::api::LogLine;
use crate::output::{self, Source, Text};
use kept::Kept;
pub use line::{LogFormat, render};

/// How many lines a follower may be behind before it misses some.
const FOLLOWER_LINES_MAX: usize = 4_096;

/// How long a follower may take for its last lines.
const LAST_LINES_MAX: Duration = Duration::from_millis(500);

/// See the module.
pub(crate) struct Logs {
    stdout: output::Stream,
    format: LogFormat,
    inner: Mutex<Inner>,
    follow: broadcast::Sender<Arc<LogLine>>,
    /// Who follows, and when that ends.
    followers: TaskTracker,
    ended: CancellationToken,
}

/// Held by one that follows for as long as its last lines aren't out.
pub(crate) struct Following {
    pub(crate) lines: broadcast::Receiver<Arc<LogLine>>,
    /// There are no more than those in `lines`.
    pub(crate) ended: CancellationToken,
    pub(crate) token: TaskTrackerToken,
}

#[derive(Default)]
struct Inner {
    /// Each type writes by itself, so that none waits for another.
    sources: HashMap<Arc<str>, Source>,
    kept: Kept,
}

impl Logs {
    pub(crate) fn new(stdout: &output::Stream, format: LogFormat) -> Arc<Logs> {
        let follow = broadcast::channel(FOLLOWER_LINES_MAX).0;
        Arc::new(Logs {
            stdout: stdout.clone(),
            format,
            inner: Mutex::default(),
            follow,
            followers: TaskTracker::new(),
            ended: CancellationToken::new(),
        })
    }

    /// The last `count` lines that are kept and wanted, and all that come after them, without a gap between.
    pub(crate) fn follow(
        &self,
        count: usize,
        wanted: impl Fn(&LogLine) -> bool,
    ) -> (Vec<Arc<LogLine>>, Following) {
        let (ended, token) = (self.ended.clone(), self.followers.token());
        let inner = self.lock();
        (inner.kept.last(count, wanted), Following { lines: self.follow.subscribe(), ended, token })
    }

    /// The last line is there. Waits for those that follow to have it, but not for long.
    pub(crate) async fn end_followers(&self) {
        self.ended.cancel();
        self.followers.close();
        let _ = tokio::time::timeout(LAST_LINES_MAX, self.followers.wait()).await;
    }

    fn source(&self, process: &Arc<str>) -> Source {
        let mut inner = self.lock();
        if let Some(source) = inner.sources.get(process) {
            return source.clone();
        }
        let source = self.stdout.source(format!("\"{process}\""));
        inner.sources.insert(process.clone(), source.clone());
        source
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code that runs under the lock panics.
        self.inner.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl LogSink for Logs {
    fn has_room(&self, instance: &InstanceName) -> bool {
        self.source(&instance.process).may_write()
    }

    fn line(&self, instance: &InstanceName, stream: Stream, text: &str) {
        let line = Arc::new(LogLine {
            time: format!("{:.3}", jiff::Timestamp::now()),
            instance: instance.to_string(),
            stream: match stream {
                Stream::Stdout => "stdout".to_owned(),
                Stream::Stderr => "stderr".to_owned(),
            },
            line: text.to_owned(),
        });
        let source = self.source(&instance.process);
        let mut inner = self.lock();
        inner.kept.keep(&instance.process, line.clone());
        // Under the lock, so that a follower that begins now sees each line once.
        let _ = self.follow.send(line.clone());
        drop(inner);
        source.put_text(Text::Guest(line, self.format));
    }

    fn room(&self, instance: &InstanceName) -> BoxFuture<'static, ()> {
        let source = self.source(&instance.process);
        Box::pin(async move { source.room().await })
    }
}
