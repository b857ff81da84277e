//! The I/O threads' place on the machine: one core each.
//!
//! There are as many as cores, and they rarely wait for long. Left to itself, the system puts two of them on one core
//! now and then, or one where a client runs, and it takes milliseconds until it notices.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use wasmhost_engine::Engine;

/// What each thread of the runtime should do when it starts. Those that serve start first; the ones after them are for
/// what blocks, and may run anywhere.
pub(crate) fn begin() -> impl Fn() + Send + Sync + 'static {
    let cores = cores();
    let started = AtomicUsize::new(0);
    move || {
        Engine::prepare_thread();
        if let Some(core) = cores.get(started.fetch_add(1, Relaxed)) {
            stay_on(*core);
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
fn stay_on(core: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    // Not being allowed to is no reason to stop.
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

/// Elsewhere threads can't be told.
#[cfg(not(target_os = "linux"))]
fn cores() -> Vec<usize> {
    vec![]
}

#[cfg(not(target_os = "linux"))]
fn stay_on(_core: usize) {}
