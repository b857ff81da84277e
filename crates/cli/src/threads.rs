//! The I/O threads' place on the machine: one core each.
//!
//! There are as many as cores, and they rarely wait for long. Left to itself, the system puts two of them on one core
//! now and then, or one where a client runs, and it takes milliseconds until it notices.
//!
//! All others may run anywhere. A thread begins where the one that starts it may run, and counts the cores that it sees
//! there: compiling, and guests that compute, would have one core if an I/O thread began them.

use std::num::NonZero;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use wasmhost_engine::Engine;

/// Gives the threads of a runtime their places, in the order in which they begin.
pub(crate) struct Places {
    cores: Vec<usize>,
    io_threads: usize,
    begun: Mutex<usize>,
    one_begun: Condvar,
}

impl Places {
    pub(crate) fn new() -> Arc<Places> {
        // As many as cores, or fewer where a cgroup allows no more. Then they may run anywhere, too: several hosts would
        // take the same cores.
        let io_threads = thread::available_parallelism().map_or(1, NonZero::get);
        let cores = cores();
        Arc::new(Places { cores, io_threads, begun: Mutex::new(0), one_begun: Condvar::new() })
    }

    pub(crate) fn io_threads(&self) -> usize {
        self.io_threads
    }

    /// Each thread of the runtime calls this first.
    pub(crate) fn begin_thread(&self) {
        Engine::prepare_thread();
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        match self.cores.get(*begun) {
            Some(core) if self.cores.len() == self.io_threads => stay_on(&[*core]),
            _ => stay_on(&self.cores),
        }
        *begun += 1;
        self.one_begun.notify_all();
    }

    /// Waits until the I/O threads have theirs. The threads that begin later are for what blocks.
    pub(crate) fn wait(&self) {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let _begun = self.one_begun.wait_while(begun, |begun| *begun < self.io_threads);
    }
}

/// Those that this process may run on.
#[cfg(target_os = "linux")]
fn cores() -> Vec<usize> {
    use rustix::thread::{CpuSet, sched_getaffinity};
    let Ok(allowed) = sched_getaffinity(None) else { return vec![] };
    (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect()
}

#[cfg(target_os = "linux")]
fn stay_on(cores: &[usize]) {
    let mut set = rustix::thread::CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    // Not being allowed to is no reason to stop.
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

/// Elsewhere threads can't be told.
#[cfg(not(target_os = "linux"))]
fn cores() -> Vec<usize> {
    vec![]
}

#[cfg(not(target_os = "linux"))]
fn stay_on(_cores: &[usize]) {}
