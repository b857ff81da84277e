//! Whether the system may swap: move memory that isn't used to a disk.
//!
//! wasmtime clears the memory of an instance that is gone either by giving its pages back, or by overwriting those that
//! `PAGEMAP_SCAN` says were written, which is faster. The scan asks for pages that are present, and a page that was swapped
//! out isn't: it would come back with the next instance's first look at it
//! (<https://github.com/bytecodealliance/wasmtime/pull/14357>). So pages are given back wherever there is swap.

use std::fs::read_to_string;

/// The swaps of the machine, one a line below a head. A container sees those of its machine.
const SWAPS: &str = "/proc/swaps";

/// Whether there is swap now. A system that doesn't say may have some.
pub(crate) fn is_on() -> bool {
    read_to_string(SWAPS).map_or(true, |swaps| has_any(&swaps))
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
}
