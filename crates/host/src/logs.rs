//! Guests' lines: printed by a thread of their own, the last of them kept, and all of them sent to whoever follows.
//!
//! What waits to be printed is bounded. Past that bound guests that write wait; the host never does.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use futures_util::future::BoxFuture;
use tokio::sync::{Notify, broadcast};
use wasmhost_engine::services::{InstanceName, LogSink, Stream};

use crate::admin::api::LogLine;

/// Lines and bytes that wait to be printed.
const WAITING_LINES_MAX: usize = 1_000;
const WAITING_BYTES_MAX: usize = 1 << 20;

/// Lines and bytes that are kept for `wasmhost logs`.
const KEPT_LINES_MAX: usize = 10_000;
const KEPT_BYTES_MAX: usize = 4 << 20;

/// How many lines a follower may be behind before it misses some.
const FOLLOWER_LINES_MAX: usize = 4_096;

/// How lines are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `12:00:00 web.1 | text`, for people.
    Plain,
    /// The same, in one colour for each type.
    Coloured,
    /// One JSON object a line, for programs.
    Json,
}

impl LogFormat {
    /// What suits the standard output, honouring `NO_COLOR`.
    pub fn detect() -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        match std::io::stdout().is_terminal() {
            true if no_colour => LogFormat::Plain,
            true => LogFormat::Coloured,
            false => LogFormat::Json,
        }
    }
}

/// See the module.
pub(crate) struct Logs {
    shared: Arc<Shared>,
    printer: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    inner: Mutex<Inner>,
    /// Rung for the printer.
    filled: Condvar,
    /// Rung for guests that wait.
    room: Notify,
    follow: broadcast::Sender<Arc<LogLine>>,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Arc<LogLine>>,
    waiting_bytes: usize,
    kept: VecDeque<Arc<LogLine>>,
    kept_bytes: usize,
    closed: bool,
}

impl Logs {
    /// Starts the thread that prints on the standard output.
    pub(crate) fn start(format: LogFormat) -> std::io::Result<Arc<Logs>> {
        let shared = Arc::new(Shared {
            inner: Mutex::default(),
            filled: Condvar::new(),
            room: Notify::new(),
            follow: broadcast::channel(FOLLOWER_LINES_MAX).0,
        });
        let printer = {
            let shared = shared.clone();
            std::thread::Builder::new().name("wasmhost-logs".into()).spawn(move || shared.print(format))?
        };
        Ok(Arc::new(Logs { shared, printer: Mutex::new(Some(printer)) }))
    }

    /// Whether the thread that prints still works.
    pub(crate) fn is_alive(&self) -> bool {
        let printer = self.printer.lock().unwrap_or_else(|poison| poison.into_inner());
        printer.as_ref().is_some_and(|printer| !printer.is_finished())
    }

    /// The last `count` lines that are kept and wanted, and all that come after them, without a gap between.
    pub(crate) fn follow(
        &self,
        count: usize,
        wanted: impl Fn(&LogLine) -> bool,
    ) -> (Vec<Arc<LogLine>>, broadcast::Receiver<Arc<LogLine>>) {
        let inner = self.shared.lock();
        let mut last: Vec<_> =
            inner.kept.iter().rev().filter(|line| wanted(line)).take(count).cloned().collect();
        last.reverse();
        (last, self.shared.follow.subscribe())
    }

    /// Prints what waits, and returns when that is done.
    pub(crate) fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.filled.notify_all();
        let printer = self.printer.lock().unwrap_or_else(|poison| poison.into_inner()).take();
        if let Some(printer) = printer {
            let _ = printer.join();
        }
    }
}

impl Drop for Logs {
    /// What a guest said before its host failed to start is what a person needs then.
    fn drop(&mut self) {
        self.close();
    }
}

impl LogSink for Logs {
    fn has_room(&self) -> bool {
        self.shared.lock().has_room()
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
        let mut inner = self.shared.lock();
        inner.keep(line.clone());
        inner.waiting_bytes += line.line.len();
        inner.waiting.push_back(line.clone());
        // Under the lock, so that a follower that begins now sees each line once.
        let _ = self.shared.follow.send(line);
        drop(inner);
        self.shared.filled.notify_one();
    }

    fn room(&self) -> BoxFuture<'static, ()> {
        let shared = self.shared.clone();
        Box::pin(async move {
            loop {
                let room = shared.room.notified();
                tokio::pin!(room);
                room.as_mut().enable();
                if shared.lock().has_room() {
                    return;
                }
                room.await;
            }
        })
    }
}

impl Inner {
    fn has_room(&self) -> bool {
        self.waiting.len() < WAITING_LINES_MAX && self.waiting_bytes < WAITING_BYTES_MAX
    }

    fn keep(&mut self, line: Arc<LogLine>) {
        self.kept_bytes += line.line.len();
        self.kept.push_back(line);
        while self.kept.len() > KEPT_LINES_MAX || self.kept_bytes > KEPT_BYTES_MAX {
            let Some(oldest) = self.kept.pop_front() else { return };
            self.kept_bytes -= oldest.line.len();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    /// The printer: takes all that waits, writes it at once.
    fn print(&self, format: LogFormat) {
        let mut text = String::new();
        let mut batch = VecDeque::new();
        while self.take(&mut batch) {
            text.clear();
            batch.drain(..).for_each(|line| render(&line, format, &mut text));
            let mut out = std::io::stdout().lock();
            // A reader that has gone away is no reason to stop the formation.
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        }
    }

    /// Waits for lines; false when there won't be any.
    fn take(&self, batch: &mut VecDeque<Arc<LogLine>>) -> bool {
        let mut inner = self.lock();
        while inner.waiting.is_empty() {
            if inner.closed {
                return false;
            }
            inner = self.filled.wait(inner).unwrap_or_else(|poison| poison.into_inner());
        }
        std::mem::swap(batch, &mut inner.waiting);
        inner.waiting_bytes = 0;
        drop(inner);
        self.room.notify_waiters();
        true
    }
}

/// Adds a line as it is printed.
pub fn render(line: &LogLine, format: LogFormat, out: &mut String) {
    match format {
        LogFormat::Json => {
            out.push_str(&serde_json::to_string(line).unwrap_or_default());
        }
        LogFormat::Plain => {
            out.push_str(&format!("{} {:<10} | ", clock(&line.time), line.instance));
            push_printable(out, &line.line);
        }
        LogFormat::Coloured => {
            let style = anstyle::Style::new().fg_color(Some(colour(&line.instance).into()));
            out.push_str(&format!("{style}{} {:<10} |{style:#} ", clock(&line.time), line.instance));
            push_printable(out, &line.line);
        }
    }
    out.push('\n');
}

/// `12:00:00` of `2026-01-01T12:00:00.000Z`.
fn clock(time: &str) -> &str {
    time.get(11..19).unwrap_or(time)
}

/// A guest must not be able to move a person's cursor or retitle the window.
fn push_printable(out: &mut String, text: &str) {
    out.extend(text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }));
}

/// The same colour for all instances of a type.
fn colour(instance: &str) -> anstyle::AnsiColor {
    use anstyle::AnsiColor::{Blue, Cyan, Green, Magenta, Red, Yellow};
    let process = instance.split('.').next().unwrap_or(instance);
    let sum = process.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
    [Cyan, Yellow, Green, Magenta, Blue, Red][sum % 6]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> LogLine {
        LogLine {
            time: "2026-01-01T12:00:01.000Z".into(),
            instance: "web.1".into(),
            stream: "stdout".into(),
            line: text.into(),
        }
    }

    #[test]
    fn people_see_the_time_the_instance_and_the_text() {
        let mut out = String::new();
        render(&line("hello"), LogFormat::Plain, &mut out);
        assert_eq!(out, "12:00:01 web.1      | hello\n");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let mut out = String::new();
        render(&line("\x1b]0;title\x07\tok"), LogFormat::Plain, &mut out);
        assert!(!out.contains('\x1b') && out.contains("\tok"));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut inner = Inner::default();
        for n in 0..KEPT_LINES_MAX + 5 {
            inner.keep(Arc::new(line(&n.to_string())));
        }
        assert_eq!(inner.kept.len(), KEPT_LINES_MAX);
        assert_eq!(inner.kept[0].line, "5");
    }
}
