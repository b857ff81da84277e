//! Guests' lines: printed on standard output, the last of them kept, and all of them sent to whoever follows. The host's
//! own lines are kept too, and can be followed (`own`).

mod followers;
mod kept;
mod line;
mod own;
mod past_rate;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use wasmhost_engine::services::{InstanceName, LogSink, Stream};

use crate::admin::api::LogLine;
use crate::output::{self, Output, Source, Text};
use followers::Followers;
pub(crate) use followers::{Following, Told, Wanted};
use kept::Kept;
pub use line::{LogFormat, render};
pub use own::{HostLine, HostLog};
use past_rate::PastRate;

/// Bytes that a line counts beyond its text.
const LINE_BYTES: usize = 100;

/// How long a follower may take for its last lines.
const LAST_LINES_MAX: Duration = Duration::from_millis(500);

/// A line that is kept, and that others follow.
pub(crate) trait Line: Send + Sync + 'static {
    /// Bytes of its text.
    fn text_bytes(&self) -> usize;

    /// Adds it as a JSON object, without a line end.
    fn encode(&self, out: &mut String);

    /// A line in the place of so many lines that were missed.
    fn missed(count: u64) -> Self;

    /// Bytes that it counts where it is kept.
    fn bytes(&self) -> usize {
        self.text_bytes() + LINE_BYTES
    }
}

/// See the module.
pub(crate) struct Logs {
    stdout: output::Stream,
    format: LogFormat,
    inner: Mutex<Inner>,
    past_rate: PastRate,
    host: Arc<HostLog>,
    /// Who follows, and when that ends.
    following: TaskTracker,
    ended: CancellationToken,
}

#[derive(Default)]
struct Inner {
    /// Each type writes by itself, so that none waits for another.
    sources: Vec<(Arc<str>, Source)>,
    kept: Kept,
    followers: Followers<LogLine>,
}

impl Logs {
    pub(crate) fn new(output: &Output, format: LogFormat) -> Arc<Logs> {
        Arc::new(Logs {
            stdout: output.stdout().clone(),
            format,
            inner: Mutex::default(),
            past_rate: PastRate::default(),
            host: output.host_log().clone(),
            following: TaskTracker::new(),
            ended: CancellationToken::new(),
        })
    }

    /// The last `count` lines of guests that are kept and wanted, the oldest of them first.
    pub(crate) fn last(&self, count: usize, wanted: impl Fn(&LogLine) -> bool) -> Vec<Arc<LogLine>> {
        self.lock().kept.last(count, wanted)
    }

    /// The same, and all that come after them, without a gap between.
    pub(crate) fn follow(
        &self,
        count: usize,
        wanted: Wanted<LogLine>,
    ) -> (Vec<Arc<LogLine>>, Following<LogLine>) {
        let mut inner = self.lock();
        (inner.kept.last(count, &wanted), inner.followers.add(wanted, &self.ended))
    }

    /// The last lines of the host itself.
    pub(crate) fn last_of_host(&self, count: usize, wanted: &Wanted<HostLine>) -> Vec<Arc<HostLine>> {
        self.host.last(count, wanted)
    }

    /// The same, and all that come after them.
    pub(crate) fn follow_host(
        &self,
        count: usize,
        wanted: Wanted<HostLine>,
    ) -> (Vec<Arc<HostLine>>, Following<HostLine>) {
        self.host.follow(count, wanted, &self.ended)
    }

    /// Held by one that follows for as long as its last lines aren't out.
    pub(crate) fn follower(&self) -> TaskTrackerToken {
        self.following.token()
    }

    /// The last `count` lines that an instance has written since `since` (RFC 3339, UTC), as far as they are among the last
    /// `among` of its type.
    pub(crate) fn last_of_instance(
        &self,
        instance: &InstanceName,
        since: &str,
        count: usize,
        among: usize,
    ) -> Vec<Arc<LogLine>> {
        let name = instance.to_string();
        let wanted = |line: &LogLine| line.instance == name && line.time.as_str() >= since;
        self.lock().kept.last_of(&instance.process, count, among, wanted)
    }

    /// Lines of a type that standard output never had, since the host started.
    pub(crate) fn dropped(&self, process: &str) -> u64 {
        let kept = self.lock();
        let source = kept.sources.iter().find(|(name, _)| **name == *process);
        source.map_or(0, |(_, source)| source.dropped())
    }

    /// Lines of a type that were more than its `max_log`, since the host started. They are nowhere.
    pub(crate) fn dropped_past_rate(&self, process: &str) -> u64 {
        self.past_rate.dropped(process)
    }

    /// The last line is there. Waits for those that follow to have it, but not for long.
    pub(crate) async fn end_followers(&self) {
        self.past_rate.tell_rest();
        self.ended.cancel();
        self.following.close();
        let _ = tokio::time::timeout(LAST_LINES_MAX, self.following.wait()).await;
    }

    fn source(&self, process: &Arc<str>) -> Source {
        self.source_in(&mut self.lock(), process)
    }

    fn source_in(&self, inner: &mut Inner, process: &Arc<str>) -> Source {
        // All instances of a type share its name, so that most often a pointer tells.
        let mut sources = inner.sources.iter();
        let known = sources.find(|(name, _)| Arc::ptr_eq(name, process));
        if let Some((_, source)) = known.or_else(|| inner.sources.iter().find(|(name, _)| name == process)) {
            return source.clone();
        }
        let source = self.stdout.source(format!("\"{process}\""));
        inner.sources.push((process.clone(), source.clone()));
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
        let mut inner = self.lock();
        let source = self.source_in(&mut inner, &instance.process);
        inner.kept.keep(&instance.process, line.clone());
        // Under the lock, so that a follower that begins now sees each line once.
        inner.followers.tell(&line);
        drop(inner);
        source.put_text(Text::Guest(line, self.format));
    }

    fn past_rate(&self, instance: &InstanceName, bytes_per_second: u64) {
        self.past_rate.note(&instance.process, bytes_per_second);
    }

    fn room(&self, instance: &InstanceName) -> BoxFuture<'static, ()> {
        let source = self.source(&instance.process);
        Box::pin(async move { source.room().await })
    }
}

impl Line for LogLine {
    fn text_bytes(&self) -> usize {
        self.line.len()
    }

    fn encode(&self, out: &mut String) {
        out.push_str(&serde_json::to_string(self).unwrap_or_default());
    }

    fn missed(count: u64) -> LogLine {
        LogLine {
            time: format!("{:.3}", jiff::Timestamp::now()),
            instance: "wasmhost".into(),
            stream: "stderr".into(),
            line: missed(count),
        }
    }
}

fn missed(count: u64) -> String {
    let (lines, are) = if count == 1 { ("line", "is") } else { ("lines", "are") };
    format!("{count} {lines} came faster than they were read, and {are} left out here")
}
