//! Lines that were dropped since their type had written more than its `max_log`: counted, and told soon after the first
//! one, then once a minute while it goes on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tracing::warn;
use wasmhost_config::units;

/// How long the first ones are counted before they are told, and the pause between two lines about one type.
const TOLD_AFTER: Duration = Duration::from_secs(1);
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Default)]
pub(super) struct PastRate(Arc<Mutex<HashMap<Arc<str>, Dropped>>>);

#[derive(Default)]
struct Dropped {
    in_all: u64,
    untold: u64,
    /// The rate that the type may write at.
    bytes_per_second: u64,
    /// Somebody will tell.
    is_due: bool,
    told: Option<Instant>,
}

impl PastRate {
    /// Counts a line of a type that may write so much.
    pub(super) fn note(&self, process: &Arc<str>, bytes_per_second: u64) {
        let mut by_type = lock(&self.0);
        // The name is cloned for the first line alone.
        let dropped = match by_type.get_mut(process) {
            Some(dropped) => dropped,
            None => by_type.entry(process.clone()).or_default(),
        };
        let Some(wait) = dropped.note(bytes_per_second, Instant::now()) else { return };
        match Handle::try_current() {
            Ok(runtime) => {
                let (all, process) = (self.0.clone(), process.clone());
                runtime.spawn(async move {
                    tokio::time::sleep(wait).await;
                    let told = lock(&all).get_mut(&process).and_then(|dropped| dropped.tell(Instant::now()));
                    told.into_iter().for_each(|lines| say(&process, lines));
                });
            }
            // The next line finds somebody, or the end.
            Err(_) => dropped.is_due = false,
        }
    }

    /// All lines of a type that were ever dropped so.
    pub(super) fn dropped(&self, process: &str) -> u64 {
        lock(&self.0).get(process).map_or(0, |dropped| dropped.in_all)
    }

    /// Tells what wasn't told.
    pub(super) fn tell_rest(&self) {
        let rest: Vec<_> = {
            let mut by_type = lock(&self.0);
            let told = by_type.iter_mut().map(|(name, of)| (name.clone(), of.tell(Instant::now())));
            told.filter_map(|(name, told)| Some((name, told?))).collect()
        };
        rest.into_iter().for_each(|(process, lines)| say(&process, lines));
    }
}

/// Lines that are to be told of, and what their type may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    lines: u64,
    bytes_per_second: u64,
}

impl Dropped {
    /// Counts one. Returns when it should be told, if nobody will by now.
    fn note(&mut self, bytes_per_second: u64, now: Instant) -> Option<Duration> {
        self.in_all += 1;
        self.untold += 1;
        self.bytes_per_second = bytes_per_second;
        if std::mem::replace(&mut self.is_due, true) {
            return None;
        }
        let pause = self.told.map(|told| TOLD_EVERY.saturating_sub(now.saturating_duration_since(told)));
        Some(pause.unwrap_or_default().max(TOLD_AFTER))
    }

    fn tell(&mut self, now: Instant) -> Option<Told> {
        self.is_due = false;
        let lines = std::mem::take(&mut self.untold);
        if lines == 0 {
            return None;
        }
        self.told = Some(now);
        Some(Told { lines, bytes_per_second: self.bytes_per_second })
    }
}

fn say(process: &str, told: Told) {
    let Told { lines, bytes_per_second } = told;
    let (noun, were) = if lines == 1 { ("line", "was") } else { ("lines", "were") };
    let max = units::format_rate(bytes_per_second);
    warn!("{lines} {noun} of \"{process}\" {were} dropped: it writes more than its `max_log` of {max}");
}

fn lock(by_type: &Mutex<HashMap<Arc<str>, Dropped>>) -> MutexGuard<'_, HashMap<Arc<str>, Dropped>> {
    // No code that runs under the lock panics.
    by_type.lock().unwrap_or_else(|poison| poison.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_lines_are_told_soon_and_more_of_them_once_a_minute() {
        let (mut dropped, start) = (Dropped::default(), Instant::now());
        assert_eq!(dropped.note(5, start), Some(TOLD_AFTER));
        assert_eq!(dropped.note(5, start), None);
        let later = start + TOLD_AFTER;
        assert_eq!(dropped.tell(later), Some(Told { lines: 2, bytes_per_second: 5 }));
        assert_eq!(dropped.note(7, later), Some(TOLD_EVERY));
        assert_eq!(dropped.tell(later + TOLD_EVERY), Some(Told { lines: 1, bytes_per_second: 7 }));
        assert_eq!(dropped.tell(later + TOLD_EVERY), None);
        // After a quiet hour it is the first again.
        assert_eq!(dropped.note(7, later + 61 * TOLD_EVERY), Some(TOLD_AFTER));
        assert_eq!(dropped.in_all, 4);
    }

    #[tokio::test]
    async fn each_type_is_counted_by_itself() {
        let (past, web) = (PastRate::default(), Arc::<str>::from("web"));
        (0..3).for_each(|_| past.note(&web, 1));
        assert_eq!((past.dropped("web"), past.dropped("worker")), (3, 0));
        past.tell_rest();
        assert_eq!(past.dropped("web"), 3);
    }
}
