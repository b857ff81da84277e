//! Driving a call: polling it in slices that are measured, bounded and fair.
//!
//! A guest comes by its epoch callback ([`on_epoch`]) at least once a tick. The callback ends a call that is out of time,
//! and lets the guest yield once its slice is over. On an I/O thread the end of a slice also means that the call is not a
//! short one: it asks to be moved, and goes on, with its store, on the compute threads ([`Placed`]). So does a call that has
//! waited in between, when its slices come to ten times as much.

use std::any::Any;
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;
use wasmtime::{StoreContextMut, UpdateDeadline};

use crate::call::{CallEnd, Spent};
use crate::capability::state::State;
use crate::sandbox::meter::Meter;
use crate::threads::compute::{Lane, Spawned};
use crate::threads::current::{CpuClock, is_compute_thread};
use crate::threads::ticker::Ticker;

/// How many ticks a slice lasts. On I/O threads more than one: the tick is global, and would often come in the
/// middle of a short call, which then would move for nothing.
const IO_SLICE_TICKS: u64 = 2;
const COMPUTE_SLICE_TICKS: u64 = 1;

/// A guest looks at the epoch between its instructions, and one instruction can fill or copy all of a large memory. A
/// type whose slice has taken so long on an I/O thread computes on the compute threads from then on. A small memory
/// can't take so long: there it was the system that gave the thread no time.
const HELD: Duration = Duration::from_millis(20);
const HELD_BYTES_MIN: u64 = 32 << 20;

/// Whether a guest with so many bytes of memory has held its thread in a slice that took so long.
fn was_held(slice: Duration, memory: u64) -> bool {
    slice >= HELD && memory >= HELD_BYTES_MIN
}

fn slice_ticks() -> u64 {
    if is_compute_thread() { COMPUTE_SLICE_TICKS } else { IO_SLICE_TICKS }
}

/// Why the host cut a call short; also on its way through wasmtime's error.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Cut {
    #[error("interrupted")]
    Interrupted,
    #[error("timed out")]
    Timeout(Spent),
    #[error("out of CPU time")]
    OutOfCpu(Spent),
    #[error("{0}")]
    Host(String),
}

impl<T> From<Cut> for CallEnd<T> {
    fn from(cut: Cut) -> CallEnd<T> {
        match cut {
            Cut::Interrupted => CallEnd::Interrupted,
            Cut::Timeout(spent) => CallEnd::Timeout(spent),
            Cut::OutOfCpu(spent) => CallEnd::OutOfCpu(spent),
            Cut::Host(message) => CallEnd::Host(message),
        }
    }
}

/// Every store calls this when the epoch passes its deadline.
pub(crate) fn on_epoch(
    store: &StoreContextMut<'_, State>,
    ticker: &Ticker,
) -> wasmtime::Result<UpdateDeadline> {
    let meter = &store.data().meter;
    if meter.is_interrupted() {
        return Err(Cut::Interrupted.into());
    }
    if let Some(spent) = meter.overdue() {
        return Err(Cut::Timeout(spent).into());
    }
    let slice = slice_ticks();
    let age = ticker.now().saturating_sub(meter.slice_tick());
    if age < slice {
        // The deadline is absolute: after a wait it has passed long ago, and this slice has only begun.
        return Ok(UpdateDeadline::Continue(slice - age));
    }
    if !is_compute_thread() {
        meter.ask_to_move();
    }
    meter.has_yielded();
    Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
}

/// The deadline for a store whose call begins now, in ticks from the current one.
pub(crate) fn first_deadline() -> u64 {
    IO_SLICE_TICKS
}

/// How a driven call came out.
pub(crate) enum Driven<O> {
    /// The guest's function ended, well or not.
    Ended(O),
    /// The call was dropped where it stood, and its instance with it.
    Cut(Cut),
}

/// A call, with its limits.
pub(crate) struct Drive<O> {
    call: Option<Pin<Box<dyn Future<Output = O> + Send>>>,
    meter: Arc<Meter>,
    ticker: Arc<Ticker>,
    /// Made when the guest first waits: most calls never do.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<O> Drive<O> {
    pub(crate) fn new(
        call: Pin<Box<dyn Future<Output = O> + Send>>,
        meter: Arc<Meter>,
        ticker: Arc<Ticker>,
    ) -> Self {
        Drive { call: Some(call), meter, ticker, timer: None }
    }

    fn poll_slice(&mut self, cx: &mut Context<'_>) -> Poll<Result<O, Box<dyn Any + Send>>> {
        let Some(call) = &mut self.call else { return Poll::Pending };
        let _running = self.ticker.running();
        self.meter.begin_slice(self.ticker.now());
        let clock = CpuClock::start();
        let polled = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(cx)));
        let cpu = clock.elapsed();
        self.meter.end_slice(cpu);
        if !is_compute_thread() {
            if was_held(cpu, self.meter.memory()) {
                self.meter.hold_thread();
                self.meter.ask_to_move();
            } else if polled.as_ref().is_ok_and(Poll::is_pending) && self.meter.is_out_of_io() {
                self.meter.ask_to_move();
            }
        }
        match polled {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }

    fn cut(&mut self, cut: Cut) -> Poll<Driven<O>> {
        self.meter.fail_call();
        self.call = None;
        Poll::Ready(Driven::Cut(cut))
    }
}

impl<O> Future for Drive<O> {
    type Output = Driven<O>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Driven<O>> {
        let this = &mut *self;
        if this.meter.is_interrupted() {
            return this.cut(Cut::Interrupted);
        }
        match this.poll_slice(cx) {
            Poll::Ready(Ok(outcome)) => {
                this.call = None;
                return Poll::Ready(Driven::Ended(outcome));
            }
            Poll::Ready(Err(panic)) => {
                return this.cut(Cut::Host(format!("the host panicked: {}", panic_text(&*panic))));
            }
            Poll::Pending => this.meter.goes_on(),
        }
        if let Some(spent) = this.meter.out_of_cpu() {
            return this.cut(Cut::OutOfCpu(spent));
        }
        this.meter.wake_on_interrupt(cx.waker());
        if this.meter.is_interrupted() {
            return this.cut(Cut::Interrupted);
        }
        // Where calls share an instance, each that joins may put it off.
        if let Some(deadline) = this.meter.deadline() {
            let at = tokio::time::Instant::from(deadline.at);
            let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            if timer.deadline() != at {
                timer.as_mut().reset(at);
            }
            if timer.as_mut().poll(cx).is_ready() {
                return this.cut(Cut::Timeout(deadline.spent()));
            }
        }
        Poll::Pending
    }
}

impl<O> Drop for Drive<O> {
    /// Dropped in the middle, its store goes too.
    fn drop(&mut self) {
        if self.call.is_some() {
            self.meter.fail_call();
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)")
}

/// Work with a guest in it, that begins where it was called and may move to the compute threads.
pub(crate) enum Placed<T> {
    /// Polled by whoever polls this.
    Here { work: Pin<Box<dyn Future<Output = T> + Send>>, meter: Arc<Meter>, lane: Lane },
    /// The same, but never moved: there is nothing else that it could hold up.
    Alone(Pin<Box<dyn Future<Output = T> + Send>>),
    /// On the compute threads, where it goes on if this is dropped.
    Moved(Spawned<T>),
}

impl<T: Send + 'static> Placed<T> {
    /// Work that is expected to be long: it starts on the compute threads.
    pub(crate) fn on_compute(work: impl Future<Output = T> + Send + 'static, lane: &Lane) -> Self {
        Placed::Moved(lane.spawn(work))
    }

    pub(crate) fn has_moved(&self) -> bool {
        matches!(self, Placed::Moved(_))
    }
}

impl Placed<()> {
    /// Lets it come to its end by itself.
    pub(crate) fn go_on(self) {
        match self {
            Placed::Moved(_) => {}
            Placed::Here { work, lane, .. } if is_compute_thread() => drop(lane.spawn(work)),
            here => drop(tokio::spawn(here)),
        }
    }
}

impl<T: Send + 'static> Future for Placed<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        if let Placed::Alone(work) = &mut *self {
            return work.as_mut().poll(cx);
        }
        if let Placed::Here { work, meter, lane } = &mut *self {
            if let Poll::Ready(output) = work.as_mut().poll(cx) {
                return Poll::Ready(output);
            }
            if !meter.take_move() {
                return Poll::Pending;
            }
            let work = std::mem::replace(work, Box::pin(pending()));
            let moved = lane.spawn(work);
            *self = Placed::Moved(moved);
        }
        let Placed::Moved(moved) = &mut *self else { return Poll::Pending };
        match std::task::ready!(Pin::new(moved).poll(cx)) {
            Ok(Ok(output)) => Poll::Ready(output),
            Ok(Err(panic)) => resume_unwind(panic),
            // The compute threads are ending, and the host with them.
            Err(_) => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_held_by_a_long_slice_in_a_large_memory_alone() {
        const MS: Duration = Duration::from_millis(1);
        assert!(was_held(20 * MS, 32 << 20) && was_held(Duration::MAX, u64::MAX));
        // A slice is two ticks. One that took a bit longer was off the processor.
        assert!(!was_held(19 * MS, u64::MAX));
        assert!(!was_held(Duration::MAX, (32 << 20) - 1));
    }
}
