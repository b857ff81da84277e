//! The processor time of programs, as the kernel counts it.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result};

/// The unit in which Linux tells programs processor time, on all that this project is built for. The sum behind it is
/// exact: over seconds at work, a tick is less than a percent.
const TICK: Duration = Duration::from_millis(10);

/// The processor time that these processes and their descendants have used so far, in the kernel and outside. A
/// descendant that has ended counts no more.
pub(super) fn used(ours: &[i32]) -> Result<Duration> {
    let all = processes()?;
    let belongs = |id: i32| {
        // To the root, at most.
        let mut id = id;
        while let Some(process) = all.get(&id) {
            if ours.contains(&id) {
                return true;
            }
            id = process.parent;
        }
        false
    };
    let ticks: u64 = all.iter().filter(|(id, _)| belongs(**id)).map(|(_, process)| process.ticks).sum();
    Ok(TICK * u32::try_from(ticks).context("more than a year of processor time")?)
}

/// A process, as the kernel shows it.
#[derive(Debug, PartialEq)]
struct Seen {
    parent: i32,
    /// Its processor time, in the kernel and outside.
    ticks: u64,
}

fn processes() -> Result<HashMap<i32, Seen>> {
    let mut all = HashMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may have ended since.
        if let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) {
            all.insert(id, parse(&stat).with_context(|| format!("/proc/{id}/stat"))?);
        }
    }
    Ok(all)
}

/// The second field is a name in brackets, which can have anything in it; the fourth is the parent, the 14th and the
/// 15th are the times (`man 5 proc_pid_stat`).
fn parse(stat: &str) -> Option<Seen> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Seen { parent: fields.get(1)?.parse().ok()?, ticks: number(14)? + number(15)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_parent_and_times() {
        let stat = "42 (a) b) S 7 42 42 0 -1 4194560 1 2 3 4 100 23 0 0 20 0 4 0 99 1 1";
        assert_eq!(parse(stat), Some(Seen { parent: 7, ticks: 123 }));
        assert_eq!(parse("42"), None);
    }

    #[test]
    fn what_this_process_computes_is_counted() {
        let this = i32::try_from(std::process::id()).unwrap();
        let before = used(&[this]).unwrap();
        let mut product = 1_u64;
        while used(&[this]).unwrap() < before + 3 * TICK {
            for factor in 1..100_000 {
                product = std::hint::black_box(product.wrapping_mul(factor));
            }
        }
        assert_eq!(used(&[]).unwrap(), Duration::ZERO);
    }

    #[test]
    fn this_process_is_among_them() {
        let id = i32::try_from(std::process::id()).unwrap();
        assert!(processes().unwrap().contains_key(&id));
    }
}
