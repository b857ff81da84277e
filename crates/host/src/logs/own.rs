//! The host's own lines: the last of them are kept, and sent to whoever follows them. They are written on standard error
//! by whoever makes them.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio_util::sync::CancellationToken;
use tracing::Level;

use super::Line;
use super::followers::{Followers, Following, Wanted};
use super::kept::Ring;

/// A line of the host itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLine {
    /// RFC 3339, UTC, with milliseconds.
    pub time: String,
    /// How bad it is.
    pub level: Level,
    /// The whole line as a JSON object, without its end.
    pub json: String,
}

/// See the module.
#[derive(Default)]
pub struct HostLog {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    kept: Ring<HostLine>,
    followers: Followers<HostLine>,
}

impl HostLog {
    /// Takes a line. Never waits for anybody.
    pub fn keep(&self, line: HostLine) {
        let line = Arc::new(line);
        let mut inner = self.lock();
        inner.followers.tell(&line);
        inner.kept.keep(0, line);
    }

    /// The last `count` lines that are kept and wanted, the oldest of them first.
    pub(super) fn last(&self, count: usize, wanted: &Wanted<HostLine>) -> Vec<Arc<HostLine>> {
        self.lock().last(count, wanted)
    }

    /// The same, and all that come after them.
    pub(super) fn follow(
        &self,
        count: usize,
        wanted: Wanted<HostLine>,
        ended: &CancellationToken,
    ) -> (Vec<Arc<HostLine>>, Following<HostLine>) {
        let mut inner = self.lock();
        (inner.last(count, &wanted), inner.followers.add(wanted, ended))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code that runs under the lock panics, or makes a line.
        self.inner.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl Inner {
    fn last(&self, count: usize, wanted: &Wanted<HostLine>) -> Vec<Arc<HostLine>> {
        let newest = self.kept.newest(wanted).take(count);
        let mut last: Vec<_> = newest.map(|(_, line)| line.clone()).collect();
        last.reverse();
        last
    }
}

impl Line for HostLine {
    fn text_bytes(&self) -> usize {
        self.json.len()
    }

    fn encode(&self, out: &mut String) {
        out.push_str(&self.json);
    }

    fn missed(count: u64) -> HostLine {
        let time = format!("{:.3}", jiff::Timestamp::now());
        let message = super::missed(count);
        let json = serde_json::json!({ "time": time, "level": "WARN", "message": message }).to_string();
        HostLine { time, level: Level::WARN, json }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_level_and_worse_ones_are_had() {
        let log = HostLog::default();
        for (number, level) in [Level::INFO, Level::WARN, Level::DEBUG, Level::ERROR].into_iter().enumerate()
        {
            log.keep(HostLine { time: String::new(), level, json: number.to_string() });
        }
        let last = |count, level: Level| {
            let lines = log.last(count, &(Box::new(move |line: &HostLine| line.level <= level) as _));
            lines.iter().map(|line| line.json.clone()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(last(9, Level::WARN), "1 3");
        assert_eq!(last(9, Level::TRACE), "0 1 2 3");
        assert_eq!(last(2, Level::INFO), "1 3");
        assert_eq!(last(1, Level::ERROR), "3");
    }
}
