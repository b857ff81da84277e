//! Log lines that may become too many: some in each window are written, the rest is counted, and said in one line for
//! each kind at the window's end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// See the module.
pub(crate) struct FewLines<Kind> {
    lines_max: u32,
    window: Duration,
    /// Writes how many more there were of one kind.
    sum_up: Box<dyn Fn(Kind, u64) + Send + Sync>,
    now: Mutex<Window<Kind>>,
}

struct Window<Kind> {
    begun: Instant,
    lines: u32,
    left_out: BTreeMap<Kind, u64>,
}

impl<Kind: Ord + Send + 'static> FewLines<Kind> {
    pub(crate) fn new(
        lines_max: u32,
        window: Duration,
        sum_up: impl Fn(Kind, u64) + Send + Sync + 'static,
    ) -> Arc<FewLines<Kind>> {
        let now = Mutex::new(Window::new());
        Arc::new(FewLines { lines_max, window, sum_up: Box::new(sum_up), now })
    }

    /// Whether one more line may be written. If not, it has been counted.
    pub(crate) fn has_room(self: &Arc<Self>, kind: Kind) -> bool {
        let mut now = self.lock();
        let age = now.begun.elapsed();
        if age >= self.window && now.left_out.is_empty() {
            *now = Window::new();
        }
        if now.lines < self.lines_max {
            now.lines += 1;
            return true;
        }
        if now.left_out.is_empty() {
            let lines = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(lines.window.saturating_sub(age)).await;
                lines.end_window();
            });
        }
        *now.left_out.entry(kind).or_default() += 1;
        false
    }

    /// Says what was left out, and begins anew.
    pub(crate) fn end_window(&self) {
        let ended = std::mem::replace(&mut *self.lock(), Window::new());
        for (kind, count) in ended.left_out {
            (self.sum_up)(kind, count);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Window<Kind>> {
        // No code that runs under the lock panics.
        self.now.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl<Kind> Window<Kind> {
    fn new() -> Window<Kind> {
        Window { begun: Instant::now(), lines: 0, left_out: BTreeMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_flood_is_counted() {
        let (sender, counted) = std::sync::mpsc::channel();
        let lines = FewLines::new(20, Duration::from_secs(3600), move |kind, count| {
            sender.send((kind, count)).unwrap();
        });
        let written = (0..1000).filter(|n| lines.has_room(n % 2)).count();
        assert_eq!(written, 20);
        lines.end_window();
        assert_eq!(counted.try_iter().collect::<Vec<_>>(), [(0, 490), (1, 490)]);
        assert!(lines.has_room(0));
        lines.end_window();
        assert_eq!(counted.try_iter().count(), 0);
    }
}
