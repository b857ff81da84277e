//! The I/O threads' place on the machine: one core each.
//!
//! There are as many as cores, and they rarely wait for long. Left to itself, the system puts two of them on one core
//! now and then, or one where a client runs, and it takes milliseconds until it notices.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use wasmhost_engine::Engine;

/// What each thread of the runtime should do when it starts. Those that serve start first; the ones after them are for
/// what blocks, and may run anywhere.
pub(crate) fn begin() -> impl Fn() + Send + Sync + 'static {
    let cores = cores();
    let started = AtomicUsize::new(0);
    move || {
        Engine::prepare_thread();
        if let Some(core) = cores.get(started.fetch_add(1, Relaxed)) {
            let mut set = CpuSet::new();
            set.set(*core);
            // Not being allowed to is no reason to stop.
            let _ = sched_setaffinity(None, &set);
        }
    }
}

/// Those that this process may run on.
fn cores() -> Vec<usize> {
    let Ok(allowed) = sched_getaffinity(None) else { return vec![] };
    (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect()
}
