//! The memory that a process uses, as the kernel counts it.

use std::fs::read_to_string;

use anyhow::{Context, Result};

/// Two figures of /proc/PID/smaps_rollup.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Memory {
    /// All that is in memory, shared pages included.
    pub(super) resident_kib: f64,
    /// The memory that would be free again without this process.
    pub(super) private_kib: f64,
}

impl Memory {
    pub(super) fn of(process: i32) -> Result<Memory> {
        let file = format!("/proc/{process}/smaps_rollup");
        parse(&read_to_string(&file).with_context(|| file.clone())?).with_context(|| file)
    }
}

fn parse(text: &str) -> Result<Memory> {
    let kib = |name: &str| -> Result<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let value =
            line.and_then(|line| line.trim().strip_suffix("kB")).with_context(|| format!("no {name}"))?;
        Ok(value.trim().parse()?)
    };
    Ok(Memory { resident_kib: kib("Rss")?, private_kib: kib("Private_Clean")? + kib("Private_Dirty")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_figures_are_read() {
        let text = "00400000-7fff00000000 ---p 00000000 00:00 0    [rollup]\nRss:      4096 kB\nPss:      3000 kB\n\
                    Pss_Anon:  100 kB\nPrivate_Clean:    24 kB\nPrivate_Dirty:   1000 kB\n";
        let memory = parse(text).unwrap();
        assert_eq!(memory, Memory { resident_kib: 4096.0, private_kib: 1024.0 });
        assert!(parse("Rss: 1 kB\n").is_err());
    }

    #[test]
    fn this_process_has_some() {
        let memory = Memory::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(memory.resident_kib > 100.0 && memory.private_kib > 0.0, "{memory:?}");
    }
}
