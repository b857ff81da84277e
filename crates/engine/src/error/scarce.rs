//! The limits of this machine that may keep an engine from its memory. The system's error is the same for all of them
//! (`ENOMEM`), and the advice is not.

use std::fs::read_to_string;

use rustix::process::{Resource, getrlimit};

/// The stack of a slot, the guard before it, and its memory are maps of their own.
const MAPS_PER_SLOT: u64 = 3;

/// The figures of this process and its machine. `None` is no limit, or an unknown one.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Scarce {
    /// `ulimit -v`, in bytes.
    address_bytes_max: Option<u64>,
    /// `vm.max_map_count`.
    maps_max: Option<u64>,
    /// `vm.overcommit_memory` is 2.
    commits_strictly: bool,
    /// Memory in use in the control group of this process, and the most that it may use, in bytes.
    group_bytes: Option<(u64, u64)>,
}

impl Scarce {
    pub(crate) fn now() -> Scarce {
        let number = |file: &str| read_to_string(file).ok()?.trim().parse::<u64>().ok();
        Scarce {
            address_bytes_max: getrlimit(Resource::As).current,
            maps_max: number("/proc/sys/vm/max_map_count"),
            commits_strictly: number("/proc/sys/vm/overcommit_memory") == Some(2),
            group_bytes: control_group().and_then(|group| {
                let figure = |name| number(&format!("/sys/fs/cgroup{group}/memory.{name}"));
                Some((figure("current")?, figure("max")?))
            }),
        }
    }

    /// Measures other than fewer slots that may help, to be put behind that.
    pub(crate) fn advice(&self, slots: u32) -> String {
        let mut advice = String::new();
        if let Some(max) = self.address_bytes_max {
            advice += &format!(
                ", or raise the limit of this process' address space (`ulimit -v`), {} KiB",
                max >> 10
            );
        }
        if let Some((used, max)) = self.group_bytes
            && used >= max - max / 10
        {
            advice += &format!(
                ", or give its control group more memory (memory.max, MemoryMax=): {} of {} MiB are in use",
                used >> 20,
                max >> 20
            );
        }
        if self.commits_strictly {
            advice += ", or set vm.overcommit_memory to 0 or 1 (it is 2)";
        }
        let maps = u64::from(slots).saturating_mul(MAPS_PER_SLOT);
        if let Some(max) = self.maps_max.filter(|max| maps > max / 2) {
            advice += &format!(", or raise vm.max_map_count, which is {max}");
        }
        advice
    }
}

/// By version 2 of control groups.
pub(crate) fn control_group() -> Option<String> {
    let groups = read_to_string("/proc/self/cgroup").ok()?;
    groups.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: Scarce = Scarce {
        address_bytes_max: None,
        maps_max: Some(65_530),
        commits_strictly: false,
        group_bytes: None,
    };

    #[test]
    fn the_limit_that_was_met_is_advised_on_and_no_other() {
        assert_eq!(PLENTY.advice(1_000), "");
        let maps = PLENTY.advice(20_000);
        assert_eq!(maps, ", or raise vm.max_map_count, which is 65530");
        let addresses = Scarce { address_bytes_max: Some(1 << 40), ..PLENTY }.advice(1_000);
        assert_eq!(
            addresses,
            ", or raise the limit of this process' address space (`ulimit -v`), 1073741824 KiB"
        );
        let group = |used| Scarce { group_bytes: Some((used, 1_000 << 20)), ..PLENTY }.advice(1_000);
        assert_eq!(group(100 << 20), "");
        assert!(group(990 << 20).ends_with("990 of 1000 MiB are in use"), "{}", group(990 << 20));
        assert!(Scarce { commits_strictly: true, ..PLENTY }.advice(1).contains("vm.overcommit_memory"));
    }

    #[test]
    fn this_machine_can_be_asked() {
        assert!(Scarce::now().maps_max.is_some());
    }
}
