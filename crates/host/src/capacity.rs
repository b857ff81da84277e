//! How many instances this host and this machine have room for, with the arithmetic that a refusal shows.
//!
//! Slots of the engine's pools take memory maps and address space ([`room`]), and granted directories and connections
//! take file descriptors. Anything that doesn't fit is refused. Memory is only warned of ([`memory`]): instances seldom
//! use all that they may.

mod memory;
mod room;

use std::collections::BTreeMap;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use self::room::{Machine, Wanted, slots_of};
use crate::plan::Plan;

/// How many instances there is room for, where the formation doesn't say.
const INSTANCES_DEFAULT: u32 = 1_000;

/// File descriptors for everything but granted directories, connections, and those that guests hold: the store, the
/// listeners, the admin socket.
const FILES_OF_THE_HOST: u64 = 512;

/// Guests may hold a quarter of the descriptors that are left, however many connections are wanted.
const GUESTS_SHARE: u64 = 4;

/// The room for instances and for open files.
#[derive(Debug, Clone)]
pub(crate) struct Capacity {
    /// Instances of all types together, without those that are being replaced.
    pub(crate) instances_max: u32,
    files: Files,
}

/// How the limit of open files is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Files {
    /// The limit.
    max: u64,
    /// Connections of clients.
    connections_max: u32,
    /// Descriptors that guests may hold at once: opened files, sockets, connections of their requests.
    guests_max: u32,
}

/// It doesn't fit; the text says what, and shows the sum.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TooMany(String);

/// How many instances a host of this plan has room for on this machine. An error says that the file's counts don't fit.
pub fn check_capacity(plan: &Plan) -> Result<u32, TooMany> {
    Capacity::find(plan, &BTreeMap::new()).map(|capacity| capacity.instances_max)
}

/// Warnings about a plan that fits, and may still go wrong: for who checks a formation, and for the log of a host.
pub fn capacity_warnings(plan: &Plan, counts: &BTreeMap<String, u32>) -> Vec<String> {
    memory::more_than_there_is(plan, &wanted(plan, counts)).into_iter().collect()
}

/// The types, with the counts that were set live or, where none was, those of the file.
fn wanted<'a>(plan: &'a Plan, counts: &BTreeMap<String, u32>) -> Vec<(&'a str, u32)> {
    let types = plan.types.iter().map(|planned| {
        let name = planned.process.name.as_str();
        (name, counts.get(name).copied().unwrap_or_else(|| planned.count()))
    });
    types.collect()
}

/// Makes the process's table of open files large enough for all connections that the formation allows, as far as the
/// limit of open files does. To be called while the process has one thread.
///
/// Linux doubles this table as it fills up. In a process with threads it holds up whoever opens a file or accepts a
/// connection for it, until each processor has been seen to be done with the old table: milliseconds each time, and
/// seconds under a load that has just begun.
pub fn make_room_for_connections(plan: &Plan) {
    if !plan.has_http() {
        return;
    }
    let connections = u64::from(plan.formation.http.connections_max);
    let files = (FILES_OF_THE_HOST + connections).min(raise_file_limit());
    // The table is made when a descriptor needs it, and stays. Without it everything works, only slower.
    let last = i32::try_from(files).map_or(i32::MAX, |files| files - 1);
    drop(rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), last));
}

impl Capacity {
    /// Finds the machine's limits, and the largest number of instances that is asked for and fits.
    pub(crate) fn find(plan: &Plan, counts: &BTreeMap<String, u32>) -> Result<Capacity, TooMany> {
        let wanted = wanted(plan, counts);
        let total = wanted.iter().map(|(_, count)| *count).fold(0, u32::saturating_add);
        let (pools, machine) = (Wanted::of(plan), Machine::find());
        let instances_max = match plan.formation.max_instances {
            Some(max) => {
                pools.refuse(&format!("max_instances = {max}"), max, machine)?;
                max
            }
            None => {
                pools.refuse(&format!("room for {total} instances"), total, machine)?;
                INSTANCES_DEFAULT.max(total.saturating_mul(2)).min(pools.most_that_fit(machine))
            }
        };
        let directories: usize = plan.types.iter().map(|planned| planned.directories.len()).sum();
        let connections = if plan.has_http() { plan.formation.http.connections_max } else { 0 };
        let files = Files::share(raise_file_limit(), directories as u64, connections)?;
        let capacity = Capacity { instances_max, files };
        capacity.check(&wanted)?;
        Ok(capacity)
    }

    /// The most connections that can be open at once: `wanted`, or as many as the limit of open files allows.
    pub(crate) fn connections(&self, wanted: u32) -> u32 {
        let most = self.files.connections_max;
        if most < wanted {
            warn!(
                "max_connections is {wanted}, and the limit of {} open files has room for {most} connections beside {FILES_OF_THE_HOST} files of the host's own, {} of guests, and the granted directories, so that others wait: raise it (`ulimit -n`, LimitNOFILE), or set max_connections to {most}",
                self.files.max, self.files.guests_max
            );
        }
        most.min(wanted)
    }

    /// Descriptors that guests may hold, all instances together.
    pub(crate) fn guest_descriptors(&self) -> u32 {
        self.files.guests_max
    }

    /// Slots that the engine's pool needs: some more than instances, for successors that start before the old ones
    /// leave. Where each call has a fresh instance it's no more: the used one goes before the next one comes.
    pub(crate) fn slots(&self) -> u32 {
        slots_of(self.instances_max)
    }

    /// Whether another pool fits beside all that there is, whose slots have so many stacks each. To run out of maps while
    /// it is made would cost the whole host.
    pub(crate) fn check_pool(&self, slots: u32, stacks: u32) -> Result<(), TooMany> {
        if stacks <= 1 {
            return Ok(());
        }
        let mapped = std::fs::read_to_string("/proc/self/maps").map_or(0, |maps| maps.lines().count());
        room::check_pool(slots, stacks, mapped as u64, Machine::find())
    }

    /// Whether a later release's counts fit: those that were set live or, where none was, those of its file.
    pub(crate) fn check_plan(&self, plan: &Plan, counts: &BTreeMap<String, u32>) -> Result<(), TooMany> {
        self.check(&wanted(plan, counts))
    }

    /// Whether these counts fit, all types together.
    pub(crate) fn check(&self, counts: &[(&str, u32)]) -> Result<(), TooMany> {
        let total: u64 = counts.iter().map(|(_, count)| u64::from(*count)).sum();
        if total > u64::from(self.instances_max) {
            let sum: Vec<_> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
            return Err(TooMany(format!(
                "{} = {total} instances, and this host has room for {}: lower the counts, or set `max_instances` in the formation to more and start it again",
                sum.join(" + "),
                self.instances_max
            )));
        }
        Ok(())
    }
}

impl Files {
    /// Connections get what they want as long as guests keep their share; guests get what connections leave.
    fn share(max: u64, directories: u64, connections: u32) -> Result<Files, TooMany> {
        let taken = FILES_OF_THE_HOST + directories;
        let Some(left) = max.checked_sub(taken).filter(|left| *left >= GUESTS_SHARE) else {
            return Err(TooMany(format!(
                "{directories} granted directories + {FILES_OF_THE_HOST} = {taken} open files, and the limit is {max}: raise it (`ulimit -n`, LimitNOFILE), or grant fewer directories"
            )));
        };
        let share = left / GUESTS_SHARE;
        let guests = left.saturating_sub(u64::from(connections)).max(share);
        let number = |files: u64| u32::try_from(files).unwrap_or(u32::MAX);
        // A later release may want more of them than the one that the host began with.
        Ok(Files { max, connections_max: number(left - share).max(1), guests_max: number(guests) })
    }
}

/// Raises the soft limit of open files to the hard one, as servers do, and returns it.
fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Where the system refuses, the old one stays, and is read below.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capacity(instances_max: u32, files: Files) -> Capacity {
        Capacity { instances_max, files }
    }

    #[test]
    fn a_refusal_shows_the_sum() {
        let refused = capacity(10, Files::share(20_000, 0, 10).unwrap())
            .check(&[("web", 8), ("worker", 3)])
            .unwrap_err();
        assert!(
            refused.to_string().starts_with("web 8 + worker 3 = 11 instances, and this host has room for 10")
        );
    }

    #[test]
    fn directories_count_as_files() {
        let refused = Files::share(1_024, 510, 0).unwrap_err();
        assert!(refused.to_string().starts_with("510 granted directories + 512 = 1022 open files"));
        assert!(Files::share(1_024, 500, 0).is_ok());
    }

    #[test]
    fn connections_and_guests_share_what_is_left() {
        let shares = |max, directories, connections| {
            let files = Files::share(max, directories, connections).unwrap();
            (files.connections_max, files.guests_max)
        };
        // All that is wanted, and the rest for guests; or three quarters.
        assert_eq!(shares(20_512, 0, 10_000), (15_000, 10_000));
        assert_eq!(shares(4_096, 0, 10_000), (2_688, 896));
        assert_eq!(shares(4_096, 184, 10_000), (2_550, 850));
        assert_eq!(shares(1_024, 0, 100), (384, 412));
        assert_eq!(shares(1_024, 0, 0), (384, 512), "the first http type may come later");
        let bounded = capacity(1_000, Files::share(4_096, 0, 10_000).unwrap());
        assert_eq!((bounded.connections(10_000), bounded.connections(100)), (2_688, 100));
    }
}
