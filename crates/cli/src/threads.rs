//! The I/O threads' place on the machine: one core each.
//!
//! There are as many as cores, and they rarely wait for long. Left to itself, the system puts two of them on one core
//! now and then, or one where a client runs, and it takes milliseconds until it notices.
//!
//! All others may run anywhere. A thread begins where the one that starts it may run, and counts the cores that it sees
//! there: compiling, and guests that compute, would have one core if an I/O thread began them.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use wasmhost_engine::Engine;

/// What each thread of the runtime should do when it starts. Those that serve start first; the ones after them are for
/// what blocks.
pub(crate) fn begin() -> impl Fn() + Send + Sync + 'static {
    let cores = cores();
    // Fewer than cores where a cgroup allows no more.
    let io_threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let started = AtomicUsize::new(0);
    move || {
        Engine::prepare_thread();
        match cores.iter().take(io_threads).nth(started.fetch_add(1, Relaxed)) {
            Some(core) => stay_on(&[*core]),
            None => stay_on(&cores),
        }
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
