//! A process that compiles one component for the process that started it: see [`Compiler`](super::Compiler).
//!
//! It bounds itself before it reads a byte. The kernel ends it at its CPU time; a thread of its own looks at its memory
//! and its wall time; and it ends when its parent does.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getpid, getppid, getrlimit, kill_process, setrlimit};

use super::compile::{CompileError, compile};
use super::inspect::FILE_BYTES_MAX;
use crate::error::LoadError;

/// The argument by which a program knows that it is such a process. No person writes it.
pub const CHILD: &str = "compile-for-the-host";

/// The exit code of one whose compiler refused the component. The reason is on standard error.
pub(super) const REFUSED: i32 = 1;

/// Wall time, whatever the CPU time: such a process waits for nothing but the cores.
pub(super) const WALL_MAX: Duration = Duration::from_mins(30);

/// How often memory is looked at. In that time a thread takes some tens of megabytes more.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Address space beside the memory: stacks, and what the allocator reserves ahead.
#[cfg(target_os = "linux")]
const ADDRESSES_BESIDE: u64 = 16 << 30;

/// The thing that it took too much of. A process says so on standard error, and then kills itself: its threads run nothing more.
#[derive(Clone, Copy)]
pub(super) enum Over {
    Memory,
    Time,
}

impl Over {
    pub(super) fn mark(self) -> &'static str {
        match self {
            Over::Memory => "over: memory",
            Over::Time => "over: time",
        }
    }
}

/// A process's bounds, as its parent gives them.
pub(super) struct Bounds {
    memory_bytes_max: u64,
    cpu_seconds: u64,
    parent: i32,
}

/// Compiles the component on standard input; the compiled file goes to standard output. `arguments` are those behind
/// [`CHILD`].
pub fn compile_as_child(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(bounds) = Bounds::read(arguments) else {
        return refuse(&"this is for a host to call; `wasmhost compile` compiles a component");
    };
    if let Err(err) = bounds.apply() {
        return refuse(&format!("can't bound what it takes: {err}"));
    }
    let mut wasm = Vec::new();
    if let Err(err) = io::stdin().take(FILE_BYTES_MAX).read_to_end(&mut wasm) {
        return refuse(&format!("can't read it: {err}"));
    }
    let compiled = match compile(&wasm) {
        Ok(compiled) => compiled,
        // The parent says again that it can't be compiled.
        Err(CompileError::Compile(LoadError::Compile(why))) => return refuse(&why),
        Err(err) => return refuse(&err),
    };
    match write(&compiled) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => refuse(&format!("can't write what was compiled: {err}")),
    }
}

fn refuse(why: &impl std::fmt::Display) -> ExitCode {
    // A parent that has gone need not know.
    let _ = writeln!(io::stderr(), "{why}");
    ExitCode::from(REFUSED.to_le_bytes()[0])
}

/// Not by `std`'s standard output, which looks for lines.
fn write(compiled: &[u8]) -> io::Result<()> {
    File::from(io::stdout().as_fd().try_clone_to_owned()?).write_all(compiled)
}

impl Bounds {
    fn read(mut arguments: impl Iterator<Item = OsString>) -> Option<Bounds> {
        let mut next = || arguments.next()?.into_string().ok();
        Some(Bounds {
            memory_bytes_max: next()?.parse().ok()?,
            cpu_seconds: next()?.parse().ok()?,
            parent: next()?.parse().ok()?,
        })
    }

    fn apply(&self) -> io::Result<()> {
        self.end_with_parent()?;
        lower(Resource::Core, 0)?;
        lower(Resource::Cpu, self.cpu_seconds)?;
        #[cfg(target_os = "linux")]
        {
            lower(Resource::As, self.memory_bytes_max.saturating_add(ADDRESSES_BESIDE))?;
            // Where memory runs out the system takes this process first. It may not be told in some containers.
            let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
        }
        let memory_bytes_max = self.memory_bytes_max;
        thread::Builder::new().name("bounds".into()).spawn(move || watch(memory_bytes_max))?;
        Ok(())
    }

    /// Ends this process when the thread that started it does.
    #[cfg(target_os = "linux")]
    fn end_with_parent(&self) -> io::Result<()> {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have ended before.
        match Pid::as_raw(getppid()) == self.parent {
            true => Ok(()),
            false => Err(io::Error::other("the process that asked for it has gone")),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn end_with_parent(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Sets a limit, unless a lower one is set. The one that can't be raised again stays: a process that meets that is killed,
/// and this one is to end by a signal that says why.
fn lower(resource: Resource, max: u64) -> io::Result<()> {
    let Rlimit { current, maximum } = getrlimit(resource);
    let lower = |known: Option<u64>| known.map_or(max, |known| known.min(max));
    Ok(setrlimit(resource, Rlimit { current: Some(lower(current)), maximum })?)
}

/// Looks at what this process takes until it is too much.
fn watch(memory_bytes_max: u64) {
    let begun = Instant::now();
    loop {
        let over = match memory_bytes() {
            Some(bytes) if bytes > memory_bytes_max => Over::Memory,
            _ if begun.elapsed() > WALL_MAX => Over::Time,
            _ => {
                thread::sleep(LOOK_EVERY);
                continue;
            }
        };
        let _ = writeln!(io::stderr(), "{}", over.mark());
        let _ = kill_process(getpid(), Signal::KILL);
    }
}

/// The most memory that this process has had. `None` where the system doesn't say, as on macOS.
fn memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    kilobytes.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1 << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_its_memory_and_its_bounds() {
        assert!(!cfg!(target_os = "linux") || memory_bytes().is_some_and(|bytes| bytes > 1 << 20));
        let read = |words: &str| Bounds::read(words.split(' ').map(OsString::from));
        let bounds = read("1024 60 7").unwrap();
        assert_eq!((bounds.memory_bytes_max, bounds.cpu_seconds, bounds.parent), (1024, 60, 7));
        for wrong in ["", "1024", "1024 60", "1024 x 7", "-1 60 7"] {
            assert!(read(wrong).is_none(), "{wrong}");
        }
    }
}
