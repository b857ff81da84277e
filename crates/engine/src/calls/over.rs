//! When a call began, and how it came out.

use std::time::{Duration, Instant};

use wasmhost_config::shown;
use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::drive::Cut;
use crate::call::{CallEnd, CallReport};
use crate::sandbox::meter::Meter;

/// When a call began, and what the meter said then.
#[derive(Clone, Copy)]
pub(crate) struct CallStart {
    pub(crate) at: Instant,
    pub(crate) call: u64,
    pub(crate) cpu: Duration,
}

/// A call that is over.
pub(crate) struct Over<I, T = ()> {
    /// The instance, if it can take another call.
    pub(crate) instance: Option<I>,
    /// The call's report.
    pub(crate) report: CallReport<T>,
}

impl<I, T> Over<I, T> {
    pub(crate) fn ended(start: CallStart, meter: &Meter, end: CallEnd<T>) -> Self {
        let report = CallReport {
            end,
            wall: start.at.elapsed(),
            cpu: meter.cpu().saturating_sub(start.cpu),
            memory_peak: meter.memory_peak(),
        };
        Over { instance: None, report }
    }

    /// The same with another answer.
    pub(crate) fn map<U>(self, answer: impl FnOnce(T) -> U) -> Over<I, U> {
        let CallReport { end, wall, cpu, memory_peak } = self.report;
        let report = CallReport { end: end.map(answer), wall, cpu, memory_peak };
        Over { instance: self.instance, report }
    }
}

impl<I> Over<I, i32> {
    /// Takes an exit code, however the guest said it, for its answer.
    pub(crate) fn map_exit<U>(mut self, answer: impl FnOnce(i32) -> U) -> Over<I, U> {
        if let CallEnd::Exited(code) = self.report.end {
            self.report.end = CallEnd::Returned(code);
        }
        self.map(answer)
    }
}

/// Reads wasmtime's error.
pub(crate) fn end_of<T>(err: wasmtime::Error, meter: &Meter) -> CallEnd<T> {
    if let Some(cut) = err.downcast_ref::<Cut>() {
        return cut.clone().into();
    }
    if let Some(I32Exit(code)) = err.downcast_ref::<I32Exit>() {
        return CallEnd::Exited(*code);
    }
    if meter.memory_refused() {
        return CallEnd::OutOfMemory;
    }
    let reason = match err.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        None => err.root_cause().to_string(),
    };
    let text = match err.downcast_ref::<WasmBacktrace>() {
        Some(backtrace) => format!("{reason}\n{backtrace}"),
        None => reason,
    };
    // The names of functions are the component's, and may be anything.
    CallEnd::Trap(shown::lines(&text, shown::TEXT_BYTES_MAX).into_owned())
}
