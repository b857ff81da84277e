//! The process's memory: who allocates it, and how freed memory goes back to the system.

use std::time::Duration;

/// A ninth of a small request's time is spent allocating; this one does it in less.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How often freed memory is given back, at least.
const GIVEN_BACK_EVERY: Duration = Duration::from_secs(10);

#[expect(unsafe_code, reason = "the allocator's own function, which its crate declares for C's types alone")]
// SAFETY: `mimalloc.h` declares it so. It takes no pointer, and any thread may call it at any time.
unsafe extern "C" {
    safe fn mi_collect(force: bool);
}

/// Gives freed memory back to the system, for as long as it is polled. The allocator by itself does so only as it is asked
/// for pages or is given some, so that a host that is idle after a rush would keep all that the rush took.
pub(crate) async fn give_back() {
    let mut ticks = tokio::time::interval(GIVEN_BACK_EVERY);
    loop {
        ticks.tick().await;
        mi_collect(true);
    }
}
