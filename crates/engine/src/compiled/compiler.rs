//! Where components are compiled. A component says how much work that is, and a small one can ask for any amount of memory
//! and time. So a program compiles in processes of its own, which end at their bounds and take nothing else with them:
//!
//! ```text
//! this process                                 the child: the same program, in `child`
//! waits until fewer than CHILDREN_MAX compile
//! starts it                                ->  sets its own bounds
//! writes the component to its stdin        ->  reads it
//!                                              writes the compiled file to its stdout, a file without a name
//! reads its stderr until it is closed      <-  or says there why not
//! takes the file, or the reason
//! ```
//!
//! A child whose work nobody waits for any more is killed, and the next one may start.
//!
//! A program that has this library in it, and isn't started so ([`Compiler::InProcess`]), compiles in its own process,
//! and nothing bounds or ends that.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Signal;
use wasmhost_config::shown::{MESSAGE_BYTES_MAX, one_line};
use wasmhost_config::{CompileLimits, units};

use super::child::{CHILD, Over, REFUSED, WALL_MAX};
use super::compile::{CompileError, compile};
use crate::error::LoadError;

/// Children that compile at once. Each uses all cores, so that more would take more memory and no less time.
const CHILDREN_MAX: usize = 2;

/// Bytes that are read of what a child says.
const SAID_BYTES_MAX: usize = 64 << 10;

/// How often one that waits for a child, or to start one, asks whether somebody waits for it in turn.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// Variables that a program may need to be found and loaded. A child gets no others: they may be secrets.
const VARIABLES: [&str; 3] = ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"];

/// See the module. The default compiles in this process.
#[derive(Clone, Default)]
pub enum Compiler {
    /// In the process that asks for it, without bounds: it goes on even when nobody waits for it any more.
    #[default]
    InProcess,
    /// In processes of a program's own.
    Children(Arc<Children>),
}

/// A program that compiles when it is started with [`CHILD`] as its first argument, as
/// [`compile_as_child`](super::compile_as_child) does.
pub struct Children {
    program: PathBuf,
    running: Mutex<usize>,
    one_ended: Condvar,
}

/// A compiled file, in the form of `wasmhost compile`.
pub enum CompiledFile {
    /// Its bytes.
    Bytes(Vec<u8>),
    /// A file without a name.
    File(File),
}

impl CompiledFile {
    /// How many bytes there are.
    pub(super) fn count(&self) -> io::Result<u64> {
        match self {
            CompiledFile::Bytes(bytes) => Ok(bytes.len() as u64),
            CompiledFile::File(file) => Ok(file.metadata()?.len()),
        }
    }

    /// All of them.
    pub(super) fn bytes(&self) -> io::Result<Cow<'_, [u8]>> {
        match self {
            CompiledFile::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
            CompiledFile::File(file) => {
                let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX)];
                file.read_exact_at(&mut bytes, 0)?;
                Ok(Cow::Owned(bytes))
            }
        }
    }

    /// Writes them to another file.
    ///
    /// # Errors
    ///
    /// That one can't be written.
    pub fn write_to(&self, into: &mut File) -> io::Result<()> {
        match self {
            CompiledFile::Bytes(bytes) => into.write_all(bytes),
            CompiledFile::File(file) => {
                let mut file = file;
                file.rewind()?;
                // The kernel copies it.
                io::copy(&mut file, into).map(drop)
            }
        }
    }
}

impl Compiler {
    /// In processes of the running program, whose `main` does as [`Children`] says.
    pub fn of_this_program() -> io::Result<Compiler> {
        // The file that this process was started from, even if another one has its name by now.
        let own = Path::new("/proc/self/exe");
        let program = if own.exists() { own.to_owned() } else { std::env::current_exe()? };
        Ok(Compiler::Children(Arc::new(Children {
            program,
            running: Mutex::new(0),
            one_ended: Condvar::new(),
        })))
    }

    /// Compiles a component or a core module. Takes all cores, for up to seconds: not for an async thread.
    ///
    /// # Errors
    ///
    /// It isn't one, or the compiler refuses it, or it takes more than `limits` allow.
    pub fn compile(&self, wasm: &[u8], limits: CompileLimits) -> Result<CompiledFile, CompileError> {
        self.compile_while(wasm, limits, &|| false)
    }

    /// The same, until `is_over` says that nobody waits for it any more. In this process that is asked before it begins.
    pub(super) fn compile_while(
        &self,
        wasm: &[u8],
        limits: CompileLimits,
        is_over: &dyn Fn() -> bool,
    ) -> Result<CompiledFile, CompileError> {
        match self {
            Compiler::InProcess if is_over() => Err(LoadError::Unwanted.into()),
            Compiler::InProcess => compile(wasm).map(CompiledFile::Bytes),
            Compiler::Children(children) => Ok(children.compile(wasm, limits, is_over)?),
        }
    }
}

impl Children {
    fn compile(
        &self,
        wasm: &[u8],
        limits: CompileLimits,
        is_over: &dyn Fn() -> bool,
    ) -> Result<CompiledFile, LoadError> {
        let _turn = self.turn(is_over).ok_or(LoadError::Unwanted)?;
        let failed = |err: io::Error| LoadError::NoCompiler(format!("there is no process for it: {err}"));
        let compiled = nameless_file().map_err(failed)?;
        let mut child = self.start(&compiled, limits).map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A child that has ended says why.
            let _ = stdin.write_all(wasm);
        }
        let outcome = outcome_of(&mut child, is_over).map_err(failed)?;
        let (status, said) = outcome.ok_or(LoadError::Unwanted)?;
        match why_not(status, &said, limits) {
            None => Ok(CompiledFile::File(compiled)),
            Some(err) => Err(err),
        }
    }

    fn start(&self, compiled: &File, limits: CompileLimits) -> io::Result<Child> {
        let mut command = Command::new(&self.program);
        // For people who look at a list of processes.
        command.arg0(std::env::args_os().next().unwrap_or_else(|| self.program.clone().into_os_string()));
        command.arg(CHILD).args(arguments(limits)).env_clear();
        let variables = VARIABLES.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        command.envs(variables);
        // This process alone says what a person's Ctrl-C means.
        command.process_group(0);
        command.stdin(Stdio::piped()).stdout(compiled.try_clone()?).stderr(Stdio::piped()).spawn()
    }

    /// Waits until fewer children run than may. `None` if nobody waits for this one by then.
    fn turn(&self, is_over: &dyn Fn() -> bool) -> Option<Turn<'_>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        while !is_over() {
            if *running < CHILDREN_MAX {
                *running += 1;
                return Some(Turn(self));
            }
            let waited = self.one_ended.wait_timeout(running, ASK_EVERY);
            (running, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        None
    }
}

/// The right to run a child.
struct Turn<'a>(&'a Children);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.running.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.one_ended.notify_one();
    }
}

/// Those that [`Bounds::read`](super::child::Bounds) reads.
fn arguments(limits: CompileLimits) -> [OsString; 3] {
    let memory = limits.memory_bytes_max.to_string();
    let cpu = limits.cpu.as_secs().max(1).to_string();
    [memory.into(), cpu.into(), std::process::id().to_string().into()]
}

#[cfg(target_os = "linux")]
fn nameless_file() -> io::Result<File> {
    use rustix::fs::{MemfdFlags, memfd_create};
    Ok(memfd_create("wasmhost-compiled", MemfdFlags::CLOEXEC)?.into())
}

#[cfg(not(target_os = "linux"))]
fn nameless_file() -> io::Result<File> {
    tempfile::tempfile()
}

/// Waits for a child's end: how it ended, and what it said. One that nobody waits for any more is killed, and has none.
fn outcome_of(child: &mut Child, is_over: &dyn Fn() -> bool) -> io::Result<Option<(ExitStatus, String)>> {
    let said = all_said(child, is_over);
    if !matches!(said, Ok(Some(_))) {
        // It has not been waited for, so that no other process can have its number.
        child.kill()?;
    }
    let status = child.wait()?;
    Ok(said?.map(|said| (status, String::from_utf8_lossy(&said).into_owned())))
}

/// The words of a child, which has ended then. `None` as soon as nobody waits for it any more.
fn all_said(child: &mut Child, is_over: &dyn Fn() -> bool) -> io::Result<Option<Vec<u8>>> {
    let mut said = Vec::new();
    let Some(mut stderr) = child.stderr.take() else { return Ok(Some(said)) };
    let mut piece = [0; 4 << 10];
    while !is_over() {
        if !is_readable(&stderr)? {
            continue;
        }
        let count = match stderr.read(&mut piece) {
            Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        if count == 0 {
            return Ok(Some(said));
        }
        // The rest is read, too: it shows when the child ends.
        let room = SAID_BYTES_MAX.saturating_sub(said.len());
        said.extend_from_slice(&piece[..count.min(room)]);
    }
    Ok(None)
}

/// Waits a little until there is something to read, or the end.
fn is_readable(stderr: &ChildStderr) -> io::Result<bool> {
    let timeout = Timespec::try_from(ASK_EVERY).ok();
    match poll(&mut [PollFd::new(stderr, PollFlags::IN)], timeout.as_ref()) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(err) => Err(err.into()),
    }
}

/// The error of a child that ended so, if it is one.
fn why_not(status: ExitStatus, said: &str, limits: CompileLimits) -> Option<LoadError> {
    let said = said.trim_end();
    let last = said.lines().last().unwrap_or_default();
    let advice = |key: &str| {
        format!("`{key}` in [compile] of the formation, or `wasmhost compile --{key}`, allows more")
    };
    let memory = || {
        let max = units::format_size(limits.memory_bytes_max);
        LoadError::TooMuch(format!("it took more than {max} of memory; {}", advice("memory")))
    };
    let cpu = || {
        let max = units::format_duration(limits.cpu);
        LoadError::TooMuch(format!("it took more than {max} of CPU time; {}", advice("cpu")))
    };
    let signal = status.signal();
    let signalled = |by: Signal| signal == Some(by.as_raw());
    Some(match status.code() {
        Some(0) => return None,
        Some(REFUSED) => LoadError::Compile(one_line(said, MESSAGE_BYTES_MAX).into_owned()),
        _ if signalled(Signal::XCPU) => cpu(),
        _ if signalled(Signal::KILL) && last == Over::Memory.mark() => memory(),
        _ if signalled(Signal::KILL) && last == Over::Time.mark() => {
            let max = units::format_duration(WALL_MAX);
            LoadError::TooMuch(format!("it took more than {max}"))
        }
        _ if signalled(Signal::KILL) => LoadError::NoCompiler(
            "its process was killed: the system may have run out of memory, or a cgroup may allow no more"
                .into(),
        ),
        // An allocation that the system refuses ends a program so.
        _ if signalled(Signal::ABORT) && last.starts_with("memory allocation of") => memory(),
        _ => {
            let last = one_line(last, MESSAGE_BYTES_MAX);
            LoadError::Compile(format!("the compiler broke down ({status}): {last}"))
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_childs_end_is_told_with_the_number_that_it_met() {
        let limits = CompileLimits { memory_bytes_max: 2 << 30, cpu: Duration::from_mins(5) };
        let killed = |by: Signal| ExitStatus::from_raw(by.as_raw());
        let why = |status, said: &str| why_not(status, said, limits).map(|err| err.to_string());
        assert_eq!(why(ExitStatus::from_raw(0), "whatever"), None);
        for (status, said, expected) in [
            (ExitStatus::from_raw(REFUSED << 8), "bad \u{1b}[2J\n", "can't be compiled: bad \\u{1b}[2J"),
            (killed(Signal::XCPU), "", "more than 5m of CPU time; `cpu` in [compile] of the formation"),
            (killed(Signal::KILL), Over::Memory.mark(), "more than 2GiB of memory; `memory` in [compile]"),
            (killed(Signal::ABORT), "memory allocation of 99 bytes failed\n", "more than 2GiB of memory"),
            (killed(Signal::KILL), Over::Time.mark(), "it took more than 30m"),
            (killed(Signal::KILL), "", "its process was killed"),
            (killed(Signal::SEGV), "", "the compiler broke down (signal: 11 (SIGSEGV)"),
            (ExitStatus::from_raw(101 << 8), "thread\npanicked", "broke down (exit status: 101): panicked"),
        ] {
            let found = why(status, said).unwrap();
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn no_more_children_run_than_may() {
        let children =
            Children { program: PathBuf::new(), running: Mutex::new(0), one_ended: Condvar::new() };
        let (running, most) = (Mutex::new(0), Mutex::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let turn = children.turn(&|| false).unwrap();
                    let now = {
                        let mut running = running.lock().unwrap();
                        *running += 1;
                        *running
                    };
                    let mut most = most.lock().unwrap();
                    *most = now.max(*most);
                    drop(most);
                    std::thread::yield_now();
                    *running.lock().unwrap() -= 1;
                    drop(turn);
                });
            }
        });
        assert!((1..=CHILDREN_MAX).contains(&*most.lock().unwrap()));
        assert_eq!(*children.running.lock().unwrap(), 0);
    }
    #[test]
    fn one_that_waits_for_its_turn_gives_up_when_nobody_waits_for_it() {
        let children =
            Children { program: PathBuf::new(), running: Mutex::new(0), one_ended: Condvar::new() };
        let turns = [(); CHILDREN_MAX].map(|()| children.turn(&|| false).unwrap());
        let asked = std::cell::Cell::new(0);
        let given_up = children.turn(&|| asked.replace(asked.get() + 1) > 2);
        assert!(given_up.is_none());
        drop(turns);
        assert!(children.turn(&|| true).is_none());
        assert!(children.turn(&|| false).is_some());
    }
}
