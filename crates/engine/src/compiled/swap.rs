//! Whether the system may swap: move memory that isn't used to a disk.
//!
//! wasmtime clears the memory of an instance that is gone either by giving its pages back, or by overwriting those that
//! `PAGEMAP_SCAN` says were written, which is faster. The scan asks for pages that are present, and a page that was swapped
//! out isn't: it would come back with the next instance's first look at it
//! (<https://github.com/bytecodealliance/wasmtime/pull/14357>). So pages are given back wherever this process may be swapped.

use std::fs::read_to_string;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use wasmtime::PoolingAllocationConfig;

use crate::error::control_group;

/// The swaps of the machine, one a line below a head. A container sees those of its machine.
const SWAPS: &str = "/proc/swaps";

/// Whether any pool of a host keeps pages. All engines of the host share one of these.
#[derive(Clone, Default)]
pub(crate) struct PagesKept(Arc<AtomicBool>);

impl PagesKept {
    /// Decides whether a new pool keeps pages.
    pub(crate) fn by_new_pool(&self) -> bool {
        self.decide(PoolingAllocationConfig::is_pagemap_scan_available(), is_on())
    }

    /// Whether there is swap beside a pool that was made to keep pages.
    pub(crate) fn are_at_risk(&self) -> bool {
        self.0.load(Relaxed) && is_on()
    }

    fn decide(&self, can_be_scanned: bool, has_swap: bool) -> bool {
        let keeps = can_be_scanned && !has_swap;
        self.0.fetch_or(keeps, Relaxed);
        keeps
    }
}

/// Whether memory of this process may be swapped now. A system that doesn't say may do so.
fn is_on() -> bool {
    let has_swap = read_to_string(SWAPS).map_or(true, |swaps| has_any(&swaps));
    let swap_max = || read_to_string(format!("/sys/fs/cgroup{}/memory.swap.max", control_group()?)).ok();
    has_swap && !swap_max().is_some_and(|max| forbids(&max))
}

/// Whether a control group whose `memory.swap.max` is this is never swapped.
fn forbids(swap_max: &str) -> bool {
    swap_max.trim() == "0"
}

fn has_any(swaps: &str) -> bool {
    swaps.lines().skip(1).any(|line| !line.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_below_the_head_is_a_swap() {
        let head = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        assert!(!has_any(head) && !has_any("") && !has_any(&format!("{head}\n")));
        assert!(has_any(&format!("{head}/swap.img file 4194300 0 -2\n")));
        assert!(has_any(&format!("{head}/dev/zram0 partition 8388604 0 100\n")));
    }

    #[test]
    fn only_a_pool_that_keeps_pages_is_at_risk_and_any_one_of_them_is() {
        let kept = PagesKept::default();
        let is_kept = |kept: &PagesKept| kept.0.load(Relaxed);
        // A kernel that can't say which pages were written, and a machine with swap.
        assert!(!kept.decide(false, false) && !kept.decide(false, true) && !kept.decide(true, true));
        assert!(!is_kept(&kept));
        // The pool of a later engine, and those after it.
        assert!(kept.clone().decide(true, false));
        assert!(!kept.decide(true, true) && is_kept(&kept));
    }

    #[test]
    fn a_control_group_that_may_not_swap_is_as_a_machine_without() {
        assert!(forbids("0\n") && !forbids("max\n") && !forbids("4096\n") && !forbids(""));
    }
}
