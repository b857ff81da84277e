//! The thread that runs this code: whether it is a compute thread, and what it has computed.

use std::cell::Cell;
use std::time::{Duration, Instant};

thread_local! {
    static ON_COMPUTE: Cell<bool> = const { Cell::new(false) };
}

/// Says that this thread is one of the compute threads.
pub(crate) fn mark_compute_thread() {
    ON_COMPUTE.set(true);
}

/// Whether this thread is one of the compute threads.
pub(crate) fn is_compute_thread() -> bool {
    ON_COMPUTE.get()
}

/// Each thread that will run guests does this once, before it does.
pub(crate) fn prepare_thread() {
    wasmtime::Engine::tls_eager_initialize();
}

/// The time that this thread has computed.
pub(crate) fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Measures one poll of a guest. An I/O thread reads the wall clock, which is twenty times cheaper and as good there,
/// since nothing preempts these threads for long. A compute thread has a low priority, and asks the kernel.
pub(crate) enum CpuClock {
    Wall(Instant),
    Thread(Duration),
}

impl CpuClock {
    pub(crate) fn start() -> Self {
        if is_compute_thread() { CpuClock::Thread(thread_cpu()) } else { CpuClock::Wall(Instant::now()) }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        match self {
            CpuClock::Wall(start) => start.elapsed(),
            CpuClock::Thread(start) => thread_cpu().saturating_sub(*start),
        }
    }
}
