//! How many instances this host and this machine have room for, with the arithmetic that a refusal shows.
//!
//! Slots of the engine's pools take memory maps and address space ([`room`]), and granted directories and connections
//! take file descriptors. What doesn't fit is refused. Memory is only warned of ([`memory`]): instances seldom use all
//! that they may.

mod memory;
mod room;

use std::collections::BTreeMap;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use self::room::{Machine, Wanted, slots_of};
use crate::plan::{Plan, PlannedType};

/// How many instances there is room for, where the formation doesn't say.
const INSTANCES_DEFAULT: u32 = 1_000;

/// File descriptors for everything but granted directories and connections: the store, the listeners, what guests open.
const FILES_OF_THE_HOST: u64 = 512;

/// What there is room for.
#[derive(Debug, Clone)]
pub(crate) struct Capacity {
    /// Instances of all types together, without those that are being replaced.
    pub(crate) instances_max: u32,
    files_max: u64,
    /// Connections for which there are files beside those of the instances that the host begins with.
    connections_max: u32,
    /// Descriptors that one instance of each type holds: one for each directory it was granted.
    files_each: BTreeMap<String, u64>,
}

/// It doesn't fit; the text says what, and shows the sum.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TooMany(String);

/// How many instances a host of this plan has room for on this machine. An error says that the file's counts don't fit.
pub fn check_capacity(plan: &Plan) -> Result<u32, TooMany> {
    Capacity::find(plan, &BTreeMap::new()).map(|capacity| capacity.instances_max)
}

/// What fits, and may still go wrong: for who checks a formation, and for the log of a host.
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
        let files_each = plan.types.iter().map(|planned| (planned.process.name.clone(), files_of(planned)));
        let files_each = files_each.collect();
        let files_max = raise_file_limit();
        let connections_max = connections_beside(files_of_dirs(&files_each, &wanted), files_max);
        let capacity = Capacity { instances_max, files_max, connections_max, files_each };
        capacity.check(&wanted)?;
        Ok(capacity)
    }

    /// The most connections that can be open at once: `wanted`, or as many as the limit of open files allows.
    pub(crate) fn connections(&self, wanted: u32) -> u32 {
        let most = self.connections_max;
        if most < wanted {
            warn!(
                "max_connections is {wanted}, and the limit of {} open files has room for {most} connections beside {FILES_OF_THE_HOST} files and the granted directories, so that others wait: raise it (`ulimit -n`, LimitNOFILE), or set max_connections to {most}",
                self.files_max
            );
        }
        most.min(wanted)
    }

    /// Slots that the engine's pool needs: some more than instances, for successors that start before the old ones
    /// leave. Where each call has a fresh instance it's no more: the used one goes before the next one comes.
    pub(crate) fn slots(&self) -> u32 {
        slots_of(self.instances_max)
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
        let each = |name: &str| self.files_each.get(name).copied().unwrap_or(0);
        let files = files_of_dirs(&self.files_each, counts);
        if files + FILES_OF_THE_HOST > self.files_max {
            let sum: Vec<_> = counts
                .iter()
                .filter(|(name, _)| each(name) > 0)
                .map(|(name, count)| format!("{name} {count} x {}", each(name)))
                .collect();
            return Err(TooMany(format!(
                "{} granted directories + {FILES_OF_THE_HOST} = {} open files, and the limit is {}: lower the counts, or raise it (`ulimit -n`, LimitNOFILE)",
                sum.join(" + "),
                files + FILES_OF_THE_HOST,
                self.files_max
            )));
        }
        Ok(())
    }
}

fn files_of(planned: &PlannedType) -> u64 {
    planned.process.grants.dirs.len() as u64
}

/// Files of the granted directories of so many instances.
fn files_of_dirs(files_each: &BTreeMap<String, u64>, counts: &[(&str, u32)]) -> u64 {
    let each = |name: &str| files_each.get(name).copied().unwrap_or(0);
    counts.iter().map(|(name, count)| u64::from(*count) * each(name)).sum()
}

/// Connections for which there are files left.
fn connections_beside(files_of_dirs: u64, files_max: u64) -> u32 {
    let left = files_max.saturating_sub(FILES_OF_THE_HOST + files_of_dirs);
    u32::try_from(left).unwrap_or(u32::MAX).max(1)
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

    fn capacity(instances_max: u32, files_max: u64) -> Capacity {
        let files_each = BTreeMap::from([("web".to_owned(), 2)]);
        Capacity { instances_max, files_max, connections_max: 0, files_each }
    }

    #[test]
    fn a_refusal_shows_the_sum() {
        let refused = capacity(10, 20_000).check(&[("web", 8), ("worker", 3)]).unwrap_err();
        assert!(
            refused.to_string().starts_with("web 8 + worker 3 = 11 instances, and this host has room for 10")
        );
    }

    #[test]
    fn directories_count_as_files() {
        let refused = capacity(1_000, 1_024).check(&[("web", 257), ("worker", 3)]).unwrap_err();
        assert!(refused.to_string().starts_with("web 257 x 2 granted directories + 512 = 1026 open files"));
        assert!(capacity(1_000, 1_024).check(&[("web", 256)]).is_ok());
    }

    #[test]
    fn connections_are_files_too() {
        let files_each = capacity(1_000, 4_096).files_each;
        let files = |count| files_of_dirs(&files_each, &[("web", count), ("worker", 3)]);
        let beside = |count| connections_beside(files(count), 4_096);
        assert_eq!((beside(0), beside(92), beside(1_792)), (3_584, 3_400, 1));
        let bounded = Capacity { connections_max: 3_400, ..capacity(1_000, 4_096) };
        assert_eq!((bounded.connections(10_000), bounded.connections(100)), (3_400, 100));
    }
}
