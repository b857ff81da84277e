//! When a call began, and how it came out.

use std::time::{Duration, Instant};

use wasmhost_config::shown;
use wasmtime::component::ResourceTableError;
use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::drive::Cut;
use crate::call::{CallEnd, CallReport, bytes};
use crate::sandbox::WASM_STACK_BYTES;
use crate::sandbox::meter::{Bounds, Meter};

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
    if let Some(shortage) = meter.shortage() {
        return CallEnd::OutOfMemory(shortage);
    }
    let mut reason = match err.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        None => err.root_cause().to_string(),
    };
    if let Some(bound) = bound_met(&err, meter.bounds()) {
        reason = format!("{reason} ({bound})");
    }
    let text = match err.downcast_ref::<WasmBacktrace>() {
        Some(backtrace) => format!("{reason}\n{backtrace}"),
        None => reason,
    };
    // The names of functions are the component's, and may be anything.
    CallEnd::Trap(shown::lines(&text, shown::TEXT_BYTES_MAX).into_owned())
}

/// The bound that the guest has met, where the library doesn't say its number. The version of the library is fixed, and so
/// are its words.
fn bound_met(err: &wasmtime::Error, bounds: Option<&Bounds>) -> Option<String> {
    if let Some(Trap::StackOverflow) = err.downcast_ref::<Trap>() {
        return Some(format!("stack: the limit is {}", bytes(WASM_STACK_BYTES as u64)));
    }
    let Bounds { handles_max, copied_bytes_max } = *bounds?;
    let said = err.root_cause().to_string();
    let is_full = matches!(err.downcast_ref(), Some(ResourceTableError::Full));
    if is_full || said.contains("store handle limit exceeded") {
        return Some(format!("handles: wanted {}, the limit is {handles_max}", handles_max + 1));
    }
    let is_too_much = said.contains("fuel allocated for hostcalls has been exhausted");
    is_too_much
        .then(|| format!("strings and lists: the limit is {} in one call", bytes(copied_bytes_max as u64)))
}
