//! How many instances the engine's pools have room for: each slot takes memory maps and address space, whether an
//! instance is in it or not.

use rustix::process::{Resource, getrlimit};

use super::TooMany;
use super::memory::shown;
use crate::plan::Plan;

/// Memory maps of one slot of the pool from the start (its stack and the guard before it), those that an instance adds
/// for each of its memories while it lives, and those of the program itself. Counted in /proc/self/maps.
const MAPS_PER_SLOT: u64 = 2;
const MAPS_PER_MEMORY: u64 = 4;
const MAPS_OF_THE_HOST: u64 = 2_000;

/// Linux's default of `vm.max_map_count`.
const MAPS_MAX_DEFAULT: u64 = 65_530;

/// Address space that a memory of the pool takes, whatever it may grow to, and the guard behind it.
const RESERVED_PER_MEMORY: u64 = 4 << 30;
const GUARD_PER_MEMORY: u64 = 32 << 20;

/// Address space of a process: 47 bits. A sixteenth is for everything but the pools.
const ADDRESS_SPACE: u64 = (1 << 47) - (1 << 43);

/// Room for replacements: for a quarter of the instances, within these. More of them would start one after another.
const SUCCESSORS_MIN: u32 = 8;
const SUCCESSORS_MAX: u32 = 500;

/// The memory maps and the address space that this machine allows one process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Machine {
    maps_max: u64,
    address_bytes_max: u64,
}

/// The number of pools, and the memories that they are to hold.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// Each engine has a pool of the whole size, since any type may be scaled to all of it.
    engines: u32,
    /// The most memories that an instance of any type has, and which type that is.
    memories: u32,
    largest: String,
    /// The same of stacks, which one of the engines has more than one of for each slot.
    stacks: u32,
    deepest: String,
    memory_bytes_max: u64,
}

impl Machine {
    pub(super) fn find() -> Machine {
        let maps_max = std::fs::read_to_string("/proc/sys/vm/max_map_count");
        let maps_max = maps_max.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(MAPS_MAX_DEFAULT);
        let limit = getrlimit(Resource::As).current.unwrap_or(u64::MAX);
        Machine { maps_max, address_bytes_max: ADDRESS_SPACE.min(limit) }
    }
}

impl Wanted {
    pub(super) fn of(plan: &Plan) -> Wanted {
        let largest = plan.types.iter().max_by_key(|planned| planned.footprint.memories);
        let deepest = plan.types.iter().max_by_key(|planned| planned.footprint.stacks);
        let memory_bytes_max = plan.types.iter().map(|planned| planned.process.memory_bytes_max).max();
        Wanted {
            engines: plan.engines(),
            memories: largest.map_or(1, |planned| planned.footprint.memories.max(1)),
            largest: largest.map(|planned| planned.process.name.clone()).unwrap_or_default(),
            stacks: deepest.map_or(1, |planned| planned.footprint.stacks.max(1)),
            deepest: deepest.map(|planned| planned.process.name.clone()).unwrap_or_default(),
            memory_bytes_max: memory_bytes_max.unwrap_or(0),
        }
    }

    fn maps(&self, instances: u32) -> u64 {
        let slots = u64::from(slots_of(instances));
        slots * u64::from(self.engines - 1 + self.stacks) * MAPS_PER_SLOT
            + slots * u64::from(self.memories) * MAPS_PER_MEMORY
            + MAPS_OF_THE_HOST
    }

    fn bytes_of_memory(&self) -> u64 {
        RESERVED_PER_MEMORY.max(self.memory_bytes_max) + GUARD_PER_MEMORY
    }

    fn address_bytes(&self, instances: u32) -> u64 {
        let memories = u64::from(slots_of(instances)) * u64::from(self.memories) * u64::from(self.engines);
        memories.saturating_mul(self.bytes_of_memory())
    }

    fn fits(&self, instances: u32, machine: Machine) -> bool {
        self.maps(instances) <= machine.maps_max && self.address_bytes(instances) <= machine.address_bytes_max
    }

    /// The largest number of instances for which there is room; one at least.
    pub(super) fn most_that_fit(&self, machine: Machine) -> u32 {
        let (mut fits, mut too_many) = (1, u32::MAX);
        while too_many - fits > 1 {
            let middle = fits + (too_many - fits) / 2;
            if self.fits(middle, machine) { fits = middle } else { too_many = middle }
        }
        fits
    }

    /// Why there is no room for so many, with the arithmetic. `what` says who wants them.
    pub(super) fn refuse(&self, what: &str, instances: u32, machine: Machine) -> Result<(), TooMany> {
        if self.fits(instances, machine) {
            return Ok(());
        }
        let (slots, most) = (slots_of(instances), self.most_that_fit(machine));
        let (engines, memories) = (self.engines, self.memories);
        let pools = if engines > 1 { format!("{engines} engines x ") } else { String::new() };
        // So is one stack.
        let stacks = match (engines, self.stacks) {
            (_, 1) => format!("{pools}{slots} slots x {MAPS_PER_SLOT}"),
            (1, more) => {
                format!("{slots} slots x {more} stacks of process.{} x {MAPS_PER_SLOT}", self.deepest)
            }
            (_, more) => format!(
                "{slots} slots x {MAPS_PER_SLOT} + {slots} x {more} stacks of process.{} x {MAPS_PER_SLOT}",
                self.deepest
            ),
        };
        // One memory is what every type has.
        let each = match memories {
            1 => String::new(),
            _ => format!(" x {memories} memories of process.{}", self.largest),
        };
        let (needed, max) = (self.maps(instances), machine.maps_max);
        if needed > max {
            return Err(TooMany(format!(
                "{what} needs {needed} memory maps ({stacks} + {slots}{each} x {MAPS_PER_MEMORY} + {MAPS_OF_THE_HOST}), and vm.max_map_count is {max}, enough for {most}: set `max_instances` to at most that, or raise the limit with `sysctl vm.max_map_count={needed}`"
            )));
        }
        Err(TooMany(format!(
            "{what} needs {} of address space ({pools}{slots} slots{each} x {}), and a process has {} here, enough for {most}: set `max_instances` to at most that",
            shown(self.address_bytes(instances)),
            shown(self.bytes_of_memory()),
            shown(machine.address_bytes_max),
        )))
    }
}

/// Whether the stacks of another pool fit beside so many maps. Some maps are left for everything else.
pub(super) fn check_pool(slots: u32, stacks: u32, mapped: u64, machine: Machine) -> Result<(), TooMany> {
    let needed = u64::from(slots) * u64::from(stacks) * MAPS_PER_SLOT;
    let (sum, max) = (mapped + needed + MAPS_OF_THE_HOST, machine.maps_max);
    if sum <= max {
        return Ok(());
    }
    Err(TooMany(format!(
        "a component of this release has {stacks} stacks, and a pool for it needs {needed} memory maps ({slots} slots x {stacks} stacks x {MAPS_PER_SLOT}) beside {mapped} that are in use and {MAPS_OF_THE_HOST} more, while vm.max_map_count is {max}: set `max_instances` lower and start the host again, or raise the limit with `sysctl vm.max_map_count={sum}`"
    )))
}

/// Slots for so many instances: some more, for successors that start before the old ones leave.
pub(super) fn slots_of(instances: u32) -> u32 {
    instances.saturating_add((instances / 4).min(SUCCESSORS_MAX) + SUCCESSORS_MIN)
}

#[cfg(test)]
mod tests {
    use super::super::INSTANCES_DEFAULT;
    use super::*;

    const MACHINE: Machine = Machine { maps_max: MAPS_MAX_DEFAULT, address_bytes_max: ADDRESS_SPACE };

    fn wanted(engines: u32, memories: u32) -> Wanted {
        Wanted {
            engines,
            memories,
            largest: "big".into(),
            stacks: 1,
            deepest: "deep".into(),
            memory_bytes_max: 128 << 20,
        }
    }

    #[test]
    fn the_default_fits_under_the_default_limit_of_maps() {
        assert!(wanted(2, 1).fits(INSTANCES_DEFAULT, MACHINE));
        assert!(wanted(1, 1).fits(10_000, MACHINE), "ten thousand are promised");
        let most = wanted(1, 1).most_that_fit(MACHINE);
        assert!(wanted(1, 1).fits(most, MACHINE) && !wanted(1, 1).fits(most + 1, MACHINE));
    }

    #[test]
    fn a_type_with_many_memories_has_room_for_fewer_instances_and_is_named() {
        let many = wanted(1, 90);
        let most = many.most_that_fit(MACHINE);
        assert!((100..200).contains(&most), "{most}");
        let refused = many.refuse("max_instances = 1000", 1_000, MACHINE).unwrap_err().to_string();
        assert!(
            refused.starts_with("max_instances = 1000 needs 457396 memory maps (1258 slots x 2 + 1258 x 90 memories of process.big x 4 + 2000)"),
            "{refused}"
        );
        assert!(refused.contains(&format!("enough for {most}")), "{refused}");
    }

    #[test]
    fn so_has_a_type_with_many_stacks() {
        for (engines, sum) in [
            (1, "1258 slots x 90 stacks of process.deep x 2 + 1258 x 4 + 2000"),
            (2, "1258 slots x 2 + 1258 x 90 stacks of process.deep x 2 + 1258 x 4 + 2000"),
        ] {
            let many = Wanted { stacks: 90, ..wanted(engines, 1) };
            let refused = many.refuse("max_instances = 1000", 1_000, MACHINE).unwrap_err().to_string();
            assert!(refused.contains(sum), "{refused}");
            assert!((200..300).contains(&many.most_that_fit(MACHINE)), "{refused}");
        }
    }

    #[test]
    fn another_pool_has_to_fit_beside_what_there_is() {
        assert!(check_pool(100, 90, 3_000, MACHINE).is_ok());
        let refused = check_pool(1_259, 91, 3_000, MACHINE).unwrap_err().to_string();
        assert!(refused.contains("needs 229138 memory maps (1259 slots x 91 stacks x 2)"), "{refused}");
        assert!(refused.ends_with("`sysctl vm.max_map_count=234138`"), "{refused}");
    }

    #[test]
    fn address_space_is_bounded_too() {
        let machine = Machine { maps_max: 10_000_000, ..MACHINE };
        let refused = wanted(2, 90).refuse("max_instances = 1000", 1_000, machine).unwrap_err().to_string();
        assert!(
            refused.contains("2 engines x 1258 slots x 90 memories of process.big x 4.0 GiB"),
            "{refused}"
        );
        let small = Machine { address_bytes_max: 1 << 40, ..MACHINE };
        let most = wanted(1, 1).most_that_fit(small);
        assert!(wanted(1, 1).fits(most, small) && most < 250, "{most}");
    }
}
