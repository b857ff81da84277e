//! The processes that a benchmark starts. None of them outlives it: each is ended when its [`Process`] is dropped,
//! by a panic too, and all of them on Ctrl-C.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// The processes that run, by id. They are waited for under its lock, so that no id in it is another's by now.
static RUNNING: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// How long a process may take to end that was asked to.
const END_MAX: Duration = Duration::from_secs(5);

/// From now on Ctrl-C, SIGTERM and SIGHUP end what runs. The benchmark then fails at its next step, and cleans up.
pub(super) fn end_all_on_interrupt() -> Result<()> {
    ctrlc::set_handler(|| {
        INTERRUPTED.store(true, SeqCst);
        for id in running().iter().filter_map(|id| Pid::from_raw(*id)) {
            // It may have ended by itself.
            let _ = kill_process_group(id, Signal::KILL);
        }
    })
    .context("can't listen to signals")
}

/// An error once somebody wants this to stop.
pub(super) fn go_on() -> Result<()> {
    ensure!(!INTERRUPTED.load(SeqCst), "interrupted");
    Ok(())
}

/// A process that runs until this is dropped.
pub(super) struct Process {
    child: Child,
    id: i32,
}

impl Process {
    /// Starts it in a process group of its own, so that a terminal's Ctrl-C comes to the benchmark alone.
    pub(super) fn start(command: &mut Command) -> Result<Process> {
        let mut running = running();
        go_on()?;
        let child = command.process_group(0).spawn();
        let child = child.with_context(|| format!("{} did not start", command.get_program().display()))?;
        let id = i32::try_from(child.id()).context("a process id")?;
        running.insert(id);
        Ok(Process { child, id })
    }

    pub(super) fn id(&self) -> i32 {
        self.id
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let mut running = running();
        let ended = self.child.try_wait()?;
        if ended.is_some() {
            running.remove(&self.id);
        }
        Ok(ended)
    }

    /// Waits until it ends by itself.
    pub(super) fn wait(mut self) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.ended()? {
                go_on()?;
                return Ok(status);
            }
            // A measurement runs for seconds.
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks it to end, and waits for that.
    pub(super) fn stop(mut self) {
        if let (Ok(None), Some(id)) = (self.ended(), Pid::from_raw(self.id)) {
            // It may have ended since.
            let _ = kill_process(id, Signal::TERM);
        }
        let until = Instant::now() + END_MAX;
        while Instant::now() < until && matches!(self.ended(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut running = running();
        running.remove(&self.id);
        // With what it has started, if that is in its group still. It may have ended by itself, which whoever measures
        // has noticed; only until it is waited for is its id its own.
        if matches!(self.child.try_wait(), Ok(None))
            && let Some(group) = Pid::from_raw(self.id)
        {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

fn running() -> MutexGuard<'static, BTreeSet<i32>> {
    // Nothing panics under the lock.
    RUNNING.lock().unwrap_or_else(|poison| poison.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_ends_with_its_owner() {
        let process = Process::start(Command::new("sleep").arg("1000")).unwrap();
        let id = Pid::from_raw(process.id()).unwrap();
        drop(process);
        assert!(rustix::process::test_kill_process(id).is_err());
        assert!(!running().contains(&id.as_raw_nonzero().get()));
    }
}
