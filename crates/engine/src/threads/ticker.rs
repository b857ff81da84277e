//! The engines' clock: an OS thread that raises their epoch each tick, so that every running guest comes by its epoch
//! callback. It is a thread and not a task, since busy guests can starve an async runtime's timers.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use wasmtime::EngineWeak;

/// How long a guest computes before it must yield.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// Ticks without any running guest after which the thread sleeps until one runs: a thousand wake-ups a second would
/// be 1% of a core, and waking it for each of a busy host's calls would cost more.
const IDLE_TICKS_MAX: u32 = 100;

/// The tick thread; it ends when this is dropped.
pub(crate) struct Ticker {
    state: Arc<TickerState>,
    thread: Option<JoinHandle<()>>,
    handle: Thread,
}

#[derive(Default)]
struct TickerState {
    engines: Mutex<Vec<EngineWeak>>,
    /// Guests that are being polled right now.
    running: AtomicUsize,
    /// Ticks since the start.
    now: AtomicU64,
    /// True while the thread waits to be woken.
    parked: AtomicBool,
    stop: AtomicBool,
}

impl Ticker {
    /// Starts the thread.
    pub(crate) fn start() -> std::io::Result<Ticker> {
        let state = Arc::new(TickerState::default());
        let thread = {
            let state = state.clone();
            thread::Builder::new().name("wasmhost-ticker".into()).spawn(move || run(&state))?
        };
        let handle = thread.thread().clone();
        Ok(Ticker { state, thread: Some(thread), handle })
    }

    /// Raises this engine's epoch too from now on.
    pub(crate) fn drive(&self, engine: EngineWeak) {
        let mut engines = self.state.engines.lock().unwrap_or_else(|poison| poison.into_inner());
        engines.retain(|engine| engine.upgrade().is_some());
        engines.push(engine);
    }

    /// Whether the thread still ticks.
    pub(crate) fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Ticks since the start.
    pub(crate) fn now(&self) -> u64 {
        self.state.now.load(SeqCst)
    }

    /// Says that a guest runs until the guard is dropped.
    pub(crate) fn running(&self) -> Running<'_> {
        self.state.running.fetch_add(1, SeqCst);
        if self.state.parked.load(SeqCst) {
            self.handle.unpark();
        }
        Running(&self.state)
    }
}

/// A guest that runs.
pub(crate) struct Running<'a>(&'a TickerState);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.state.stop.store(true, SeqCst);
        self.handle.unpark();
        if let Some(thread) = self.thread.take() {
            // The thread can't panic; were it to, there would be nobody left to tell.
            let _ = thread.join();
        }
    }
}

fn run(state: &TickerState) {
    let mut idle_ticks = 0;
    while !state.stop.load(SeqCst) {
        thread::sleep(TICK);
        state.now.fetch_add(1, SeqCst);
        for engine in state.engines.lock().unwrap_or_else(|poison| poison.into_inner()).iter() {
            if let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
            }
        }
        if state.running.load(SeqCst) > 0 {
            idle_ticks = 0;
            continue;
        }
        idle_ticks += 1;
        if idle_ticks > IDLE_TICKS_MAX {
            park(state);
            idle_ticks = 0;
        }
    }
}

/// Waits until a guest runs. `parked` is raised before `running` is looked at again, and callers do it the other
/// way round, so that one of the two sees the other.
fn park(state: &TickerState) {
    state.parked.store(true, SeqCst);
    while state.running.load(SeqCst) == 0 && !state.stop.load(SeqCst) {
        thread::park();
    }
    state.parked.store(false, SeqCst);
}
