//! Bounds that a guest has met, with the numbers that a person needs to choose others.

use std::fmt;
use std::time::{Duration, Instant};

/// Memory that a guest wanted and may not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    /// All its memories and tables together would have taken more than its `memory`.
    Memory {
        /// Bytes, with those that it has.
        wanted: u64,
        /// Bytes.
        max: u64,
    },
    /// One of its tables would have had more elements than a table may.
    Table {
        /// Elements.
        wanted: u64,
        /// Elements.
        max: u64,
    },
    /// It may have that much, and the system or the pool of instances has no more.
    System {
        /// Bytes, with those that it has.
        wanted: u64,
    },
}

/// Time that was spent, and how much of it there was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    /// It was spent.
    pub time: Duration,
    /// There was so much.
    pub max: Duration,
}

/// When something must be over, and since when its time runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline {
    since: Instant,
    pub(crate) at: Instant,
}

impl Deadline {
    /// `None` where that is later than the clock can tell.
    pub(crate) fn after(since: Instant, timeout: Duration) -> Option<Deadline> {
        Some(Deadline { since, at: since.checked_add(timeout)? })
    }

    pub(crate) fn later(self, other: Deadline) -> Deadline {
        if other.at > self.at { other } else { self }
    }

    pub(crate) fn is_past(&self) -> bool {
        Instant::now() >= self.at
    }

    /// To be asked for once it is past.
    pub(crate) fn spent(&self) -> Spent {
        Spent { time: self.since.elapsed(), max: self.at.saturating_duration_since(self.since) }
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shortage::Memory { wanted, max } => {
                write!(f, "memory: wanted {}, the limit is {}", bytes(*wanted), bytes(*max))
            }
            Shortage::Table { wanted, max } => {
                write!(f, "table: wanted {wanted} elements, the limit is {max}")
            }
            Shortage::System { wanted } => {
                write!(f, "memory: wanted {}, and the system has no more", bytes(*wanted))
            }
        }
    }
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spent { time, max } = self;
        // A use over a bound is never shown as the bound itself, if that is a round one.
        match time.as_secs() {
            0 => write!(f, "{:.3} s of {} s", time.as_secs_f64(), max.as_secs_f64()),
            _ => write!(f, "{:.1} s of {} s", time.as_secs_f64(), max.as_secs_f64()),
        }
    }
}

/// `128 MiB`, `128.1 MiB`, `64 KiB`, `100 bytes`: rounded up, so that more than a limit is shown as more.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let Some((unit, size)) = UNITS.into_iter().find(|(_, size)| bytes >= *size) else {
        return format!("{bytes} bytes");
    };
    let tenths = bytes / size * 10 + (bytes % size * 10).div_ceil(size);
    match tenths % 10 {
        0 => format!("{} {unit}", tenths / 10),
        tenth => format!("{}.{tenth} {unit}", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_up() {
        for (size, shown) in [
            (0, "0 bytes"),
            (1_023, "1023 bytes"),
            (64 << 10, "64 KiB"),
            ((1 << 20) - 1, "1024 KiB"),
            (128 << 20, "128 MiB"),
            ((128 << 20) + 1, "128.1 MiB"),
            (3 << 29, "1.5 GiB"),
            (u64::MAX, "17179869184 GiB"),
        ] {
            assert_eq!(bytes(size), shown);
        }
    }

    #[test]
    fn a_bound_is_told_with_its_numbers() {
        let memory = Shortage::Memory { wanted: 132 << 20, max: 128 << 20 };
        assert_eq!(memory.to_string(), "memory: wanted 132 MiB, the limit is 128 MiB");
        let table = Shortage::Table { wanted: 9_000_000, max: 200_000 };
        assert_eq!(table.to_string(), "table: wanted 9000000 elements, the limit is 200000");
        let spent = |ms, max_ms| {
            let (time, max) = (Duration::from_millis(ms), Duration::from_millis(max_ms));
            Spent { time, max }.to_string()
        };
        assert_eq!(spent(30_012, 30_000), "30.0 s of 30 s");
        assert_eq!(spent(702, 700), "0.702 s of 0.7 s");
    }

    #[test]
    fn a_deadline_knows_since_when_it_runs() {
        let since = Instant::now().checked_sub(Duration::from_millis(20)).unwrap();
        let deadline = Deadline::after(since, Duration::from_millis(10)).unwrap();
        let Spent { time, max } = deadline.spent();
        assert!(deadline.is_past() && time >= Duration::from_millis(20), "{time:?}");
        assert_eq!(max, Duration::from_millis(10));
        let later = Deadline::after(since, Duration::from_mins(1)).unwrap();
        assert!(!later.is_past());
        assert_eq!((deadline.later(later), later.later(deadline)), (later, later));
        assert_eq!(Deadline::after(since, Duration::MAX), None);
    }
}
