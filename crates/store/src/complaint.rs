//! Log lines about one thing that goes on failing: said at once, then seldom.

use std::fmt;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How often the same thing is said again.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// One thing that may fail many times a second, and what was said of it.
#[derive(Debug, Default)]
pub struct Complaint {
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Said {
    last: Option<Instant>,
    left_out: u64,
}

/// How many lines were left out since the last one: nothing, or ` (300 more like this were left out)`.
#[derive(Debug, Clone, Copy)]
pub struct LeftOut(u64);

impl Complaint {
    /// Says it, unless it was said within the last ten seconds.
    pub fn tell(&self, say: impl FnOnce(LeftOut)) {
        if let Some(left_out) = self.is_due(Instant::now()) {
            say(left_out);
        }
    }

    fn is_due(&self, now: Instant) -> Option<LeftOut> {
        let mut said = self.said();
        if said.last.is_some_and(|last| now.saturating_duration_since(last) < SAID_EVERY) {
            said.left_out += 1;
            return None;
        }
        said.last = Some(now);
        Some(LeftOut(std::mem::take(&mut said.left_out)))
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        // No code that runs under the lock panics.
        self.said.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            1 => f.write_str(" (1 more like this was left out)"),
            more => write!(f, " ({more} more like this were left out)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_at_once_and_then_seldom() {
        let complaint = Complaint::default();
        let now = Instant::now();
        let told = |ms| complaint.is_due(now + Duration::from_millis(ms)).map(|more| more.to_string());
        assert_eq!(told(0).as_deref(), Some(""));
        assert_eq!((told(1), told(9_999)), (None, None));
        assert_eq!(told(10_000).as_deref(), Some(" (2 more like this were left out)"));
        assert_eq!(told(10_001), None);
        assert_eq!(told(90_000).as_deref(), Some(" (1 more like this was left out)"));
    }
}
