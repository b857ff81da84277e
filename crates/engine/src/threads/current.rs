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

/// How old an [`Anchor`] may be when a poll begins: what an I/O thread did since then may be taken for the guest's.
const ANCHOR_AGE_MAX: Duration = Duration::from_millis(1);

/// The time that an I/O thread had computed at a moment shortly before the poll under way.
#[derive(Clone, Copy)]
struct Anchor {
    at: Instant,
    cpu: Duration,
}

thread_local! {
    static ANCHOR: Cell<Option<Anchor>> = const { Cell::new(None) };
}

impl Anchor {
    /// The one of this thread, which is made anew once a millisecond.
    fn refresh(now: Instant) {
        let is_fresh = |anchor: Anchor| now.saturating_duration_since(anchor.at) < ANCHOR_AGE_MAX;
        if !ANCHOR.get().is_some_and(is_fresh) {
            ANCHOR.set(Some(Anchor { at: now, cpu: thread_cpu() }));
        }
    }
}

/// Measures one poll of a guest. An I/O thread reads the wall clock, which is twenty times cheaper, and asks the kernel
/// only where that says that the poll was long: the thread may have had to wait for a core, for as long as the machine
/// has more to do than it can, and that is not the guest's doing. A compute thread has a low priority, and always asks.
pub(crate) enum CpuClock {
    Wall(Instant),
    Thread(Duration),
}

impl CpuClock {
    pub(crate) fn start() -> Self {
        if is_compute_thread() {
            return CpuClock::Thread(thread_cpu());
        }
        let now = Instant::now();
        Anchor::refresh(now);
        CpuClock::Wall(now)
    }

    pub(crate) fn elapsed(&self) -> Duration {
        match self {
            CpuClock::Wall(start) => {
                let wall = start.elapsed();
                match ANCHOR.get() {
                    Some(anchor) if wall >= ANCHOR_AGE_MAX => {
                        wall.min(thread_cpu().saturating_sub(anchor.cpu))
                    }
                    _ => wall,
                }
            }
            CpuClock::Thread(start) => thread_cpu().saturating_sub(*start),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computes for so long, however long the thread has to wait for a core.
    fn compute(time: Duration) {
        let before = thread_cpu();
        while thread_cpu() - before < time {}
    }

    #[test]
    fn a_thread_that_waits_for_a_core_spends_nothing() {
        let clock = CpuClock::start();
        std::thread::sleep(Duration::from_millis(200));
        assert!(clock.elapsed() < Duration::from_millis(100));
    }

    #[test]
    fn the_time_that_a_poll_computes_is_its_own() {
        let clock = CpuClock::start();
        compute(Duration::from_millis(20));
        assert!(clock.elapsed() >= Duration::from_millis(20));
        // Time that passed before it is not.
        compute(Duration::from_millis(100));
        let before = thread_cpu();
        let clock = CpuClock::start();
        compute(Duration::from_millis(5));
        let spent = clock.elapsed();
        assert!(spent >= Duration::from_millis(5));
        assert!(spent <= thread_cpu() - before + ANCHOR_AGE_MAX, "{spent:?}");
    }
}
