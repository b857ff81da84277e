//! Memory that instances may use together, beside what the machine has.

use crate::plan::Plan;

/// Says so where the instances of a formation may use more memory than there is. That is no error: few instances use
/// all that they may.
pub(super) fn more_than_there_is(plan: &Plan, counts: &[(&str, u32)]) -> Option<String> {
    let types = plan.types.iter().zip(counts);
    let types = types.map(|(planned, (name, count))| Use {
        name,
        count: *count,
        bytes_each: planned.process.memory_bytes_max,
    });
    warning(&types.collect::<Vec<_>>(), there_is()?)
}

/// The memory that instances of a type may use.
struct Use<'a> {
    name: &'a str,
    count: u32,
    bytes_each: u64,
}

fn warning(types: &[Use<'_>], there_is: u64) -> Option<String> {
    let bytes = |of: &Use<'_>| u64::from(of.count).saturating_mul(of.bytes_each);
    let all = types.iter().map(bytes).fold(0, u64::saturating_add);
    if all <= there_is {
        return None;
    }
    let used = types.iter().filter(|of| of.count > 0);
    let sum: Vec<_> = used.map(|of| format!("{} {} x {}", of.name, of.count, shown(of.bytes_each))).collect();
    Some(format!(
        "instances may use {} of memory ({}), and this machine has {}: if they do, the system ends the host; lower `memory` or `count`",
        shown(all),
        sum.join(" + "),
        shown(there_is),
    ))
}

/// The machine's memory or, if that is less, what the control group of this process may use. In bytes.
fn there_is() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let machine = line.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10;
    Some(machine.min(group_max().unwrap_or(u64::MAX)))
}

/// By version 2 of control groups. A group above this one may have a lower limit, which isn't looked for.
fn group_max() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let max = std::fs::read_to_string(format!("/sys/fs/cgroup{group}/memory.max")).ok()?;
    max.trim().parse().ok()
}

/// As people say it: `24 GiB`, `0.5 GiB`, `128 MiB`.
pub(super) fn shown(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    match bytes {
        ..MIB => format!("{} KiB", bytes >> 10),
        MIB..GIB => format!("{} MiB", bytes / MIB),
        GIB.. if bytes.is_multiple_of(GIB) => format!("{} GiB", bytes / GIB),
        GIB.. => format!("{:.1} GiB", bytes as f64 / GIB as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_there_is_shows_the_sum() {
        let types = [
            Use { name: "web", count: 1_000, bytes_each: 4 << 30 },
            Use { name: "worker", count: 4, bytes_each: 128 << 20 },
            Use { name: "off", count: 0, bytes_each: 128 << 20 },
        ];
        assert_eq!(
            warning(&types, 24 << 30).unwrap(),
            "instances may use 4000.5 GiB of memory (web 1000 x 4 GiB + worker 4 x 128 MiB), and this machine has 24 GiB: if they do, the system ends the host; lower `memory` or `count`"
        );
    }

    #[test]
    fn what_there_is_room_for_needs_no_word() {
        assert_eq!(warning(&[Use { name: "web", count: 8, bytes_each: 3 << 30 }], 24 << 30), None);
        assert_eq!(warning(&[], 0), None);
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(there_is().unwrap() > 64 << 20);
    }
}
